//! CPU time per packet: small UDP packets of many flows, from one end of a cable to another.

use anyhow::ensure;

use super::{
    cable::{CLIENT, Cable, SERVER, TO_CLIENT, VIP},
    generator::Generator,
    lbd::{Lbd, PORT},
    peer,
    report::{Spread, System},
};
use crate::{bench::Progress, director::Binaries, interrupt, xdp_pass::XdpPass};

const FLOWS: u32 = 16_384;
/// Of one repetition; some tenths of a second for the slowest.
const PACKETS: u32 = 200_000;
const REPETITIONS: usize = 7;
/// More may be lost only if something is wrong.
const LOSS_LIMIT: f64 = 0.01;

/// The systems, cheapest first; those that are proxies have no packets to forward.
pub(super) fn measure(binaries: &Binaries, progress: &dyn Progress) -> anyhow::Result<Vec<System>> {
    progress.step("CPU time per packet: the generator alone");
    let mut systems = Vec::new();
    let cable = Cable::new()?;
    {
        let mut generator = Generator::new(VIP, PORT, FLOWS)?;
        generator.sink_at(&cable.client, "eth0")?;
        generator.sink_at(&cable.director, TO_CLIENT)?;
        systems.push(measured("generator", &cable, &mut generator, Sink::Program)?);
    }
    progress.step("CPU time per packet: bare XDP_TX");
    {
        let mut generator = Generator::new(VIP, PORT, FLOWS)?;
        generator.sink_at(&cable.client, "eth0")?;
        generator.reflect_at(&cable.director, TO_CLIENT)?;
        systems.push(measured("xdp-tx", &cable, &mut generator, Sink::Program)?);
    }
    progress.step("CPU time per packet: DR");
    {
        let mut generator = Generator::new(VIP, PORT, FLOWS)?;
        generator.sink_at(&cable.client, "eth0")?;
        let _lbd = Lbd::start(&cable, binaries)?;
        systems.push(measured("dr", &cable, &mut generator, Sink::Program)?);
    }
    // A veth hands frames on only to an end that has a program; this one passes them on.
    let _pass = XdpPass::attach(&cable.director, TO_CLIENT)?;
    progress.step("CPU time per packet: plain forwarding");
    {
        let mut generator = Generator::new(SERVER, PORT, FLOWS)?;
        generator.sink_at(&cable.client, "eth0")?;
        systems.push(measured("forwarding", &cable, &mut generator, Sink::Server)?);
    }
    progress.step("CPU time per packet: nftables DNAT");
    {
        let mut generator = Generator::new(VIP, PORT, FLOWS)?;
        generator.sink_at(&cable.client, "eth0")?;
        peer::dnat(&cable.director, &format!("ip daddr {VIP} udp dport {PORT} dnat to {SERVER}"))?;
        systems.push(measured("nftables-dnat", &cable, &mut generator, Sink::Server)?);
    }
    Ok(systems)
}

/// Where packets end.
#[derive(Clone, Copy)]
enum Sink {
    Program,
    /// The server's stack, as they are addressed to nobody there.
    Server,
}

fn measured(
    name: &'static str,
    cable: &Cable,
    generator: &mut Generator,
    sink: Sink,
) -> anyhow::Result<System> {
    let arrived = |generator: &Generator| match sink {
        Sink::Program => generator.sunk(),
        Sink::Server => cable.received(),
    };
    // Every flow is known, every cache filled.
    generator.send(&cable.client, 4 * FLOWS)?;
    let mut ns = Vec::new();
    let (mut sent, mut lost) = (0.0, 0.0);
    for _ in 0..REPETITIONS {
        interrupt::check()?;
        let before = arrived(generator)?;
        let took = generator.send(&cable.client, PACKETS)?;
        let packets = u32::try_from(arrived(generator)? - before)?;
        ensure!(packets > 0, "{name}: no packet of {PACKETS} arrived at {CLIENT} or {SERVER}");
        ns.push(took.as_secs_f64() * 1e9 / f64::from(packets));
        sent += f64::from(PACKETS);
        lost += f64::from(PACKETS.saturating_sub(packets));
    }
    ensure!(lost / sent <= LOSS_LIMIT, "{name}: {lost} of {sent} packets were lost");
    Ok(System {
        name,
        cpu_ns_per_packet: Spread::of(&ns, 0),
        packets_lost: Some(lost / sent),
        ..System::default()
    })
}
