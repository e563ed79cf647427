//! CPU time per packet: small UDP packets of many flows, from one end of a cable to another.

use std::{net::Ipv4Addr, time::Duration};

use anyhow::{Context, ensure};

use super::{
    cable::{Cable, SERVER, TO_CLIENT, VIP},
    generator::Generator,
    lbd::{Lbd, PORT},
    peer,
    report::{Spread, System},
};
use crate::{bench::Progress, director::Binaries, interrupt, xdp_pass::XdpPass};

const FLOWS: u32 = 16_384;
/// Of one repetition; some tenths of a second for the slowest.
const PACKETS: u32 = 200_000;
const REPETITIONS: usize = 15;
/// More may be lost only if something is wrong.
const LOSS_LIMIT: f64 = 0.01;

/// The systems, cheapest first; those that are proxies have no packets to forward. Each has cables
/// of its own, so that they take turns: the machine's speed changes while we measure.
pub(super) fn measure(binaries: &Binaries, progress: &dyn Progress) -> anyhow::Result<Vec<System>> {
    progress.step("CPU time per packet: cables and systems are set up");
    let mut runs = vec![
        Run::new("generator", VIP, |cable, generator| {
            generator.sink_at(&cable.director, TO_CLIENT)?;
            Ok(Forwarder::Attached)
        })?,
        Run::new("xdp-tx", VIP, |cable, generator| {
            generator.reflect_at(&cable.director, TO_CLIENT)?;
            Ok(Forwarder::Attached)
        })?,
        Run::new("dr", VIP, |cable, _| {
            let lbd = Lbd::start(cable, binaries)?;
            Ok(Forwarder::Lbd { _lbd: lbd })
        })?,
        Run::new("forwarding", SERVER, |cable, _| Forwarder::kernel(cable))?,
        Run::new("nftables-dnat", VIP, |cable, _| {
            let rule = format!("ip daddr {VIP} udp dport {PORT} dnat to {SERVER}");
            peer::dnat(&cable.director, &rule)?;
            Forwarder::kernel(cable)
        })?,
    ];
    progress.step("CPU time per packet");
    for run in &mut runs {
        // Every flow is known, every cache filled.
        run.send(4 * FLOWS)?;
    }
    for repetition in 1..=REPETITIONS {
        for run in &mut runs {
            interrupt::check()?;
            run.repeat()?;
        }
        progress.kept(repetition, REPETITIONS);
    }
    runs.iter().map(Run::system).collect()
}

/// One system on its cables.
struct Run {
    name: &'static str,
    generator: Generator,
    forwarder: Forwarder,
    ns: Vec<f64>,
    lost: u64,
    // Last, so that nothing loses its interface before it is dropped.
    cable: Cable,
}

/// What forwards, for as long as it is to.
enum Forwarder {
    /// A program that the generator has attached.
    Attached,
    Lbd {
        _lbd: Lbd,
    },
    /// A veth hands frames on only to an end that has a program; this one passes them on.
    Kernel {
        _pass: XdpPass,
    },
}

impl Forwarder {
    fn kernel(cable: &Cable) -> anyhow::Result<Self> {
        Ok(Self::Kernel { _pass: XdpPass::attach(&cable.director, TO_CLIENT)? })
    }
}

impl Run {
    fn new(
        name: &'static str,
        to: Ipv4Addr,
        set_up: impl FnOnce(&Cable, &mut Generator) -> anyhow::Result<Forwarder>,
    ) -> anyhow::Result<Self> {
        let set_up = || -> anyhow::Result<Self> {
            let cable = Cable::new()?;
            let mut generator = Generator::new(to, PORT, FLOWS)?;
            // What native XDP sends by a veth needs a program at the other end.
            generator.sink_at(&cable.client, "eth0")?;
            let forwarder = set_up(&cable, &mut generator)?;
            Ok(Self { name, generator, forwarder, ns: Vec::new(), lost: 0, cable })
        };
        set_up().with_context(|| format!("set up {name}"))
    }

    fn repeat(&mut self) -> anyhow::Result<()> {
        let (took, arrived) = self.send(PACKETS)?;
        let name = self.name;
        ensure!(arrived > 0, "{name}: no packet of {PACKETS} arrived");
        self.ns.push(took.as_secs_f64() * 1e9 / f64::from(arrived));
        self.lost += u64::from(PACKETS.saturating_sub(arrived));
        Ok(())
    }

    /// The CPU time, and how many packets arrived.
    fn send(&mut self, packets: u32) -> anyhow::Result<(Duration, u32)> {
        let before = self.arrived()?;
        let took = self.generator.send(&self.cable.client, packets)?;
        Ok((took, u32::try_from(self.arrived()? - before)?))
    }

    fn arrived(&self) -> anyhow::Result<u64> {
        match self.forwarder {
            Forwarder::Attached | Forwarder::Lbd { .. } => self.generator.sunk(),
            Forwarder::Kernel { .. } => self.cable.received(),
        }
    }

    fn system(&self) -> anyhow::Result<System> {
        let sent = f64::from(PACKETS) * f64::from(u32::try_from(self.ns.len())?);
        #[expect(clippy::cast_precision_loss, reason = "millions")]
        let lost = self.lost as f64 / sent;
        ensure!(
            lost <= LOSS_LIMIT,
            "{}: {:.1} % of the packets were lost",
            self.name,
            lost * 100.0
        );
        Ok(System {
            name: self.name,
            cpu_ns_per_packet: Spread::of(&self.ns, 0),
            packets_lost: Some(lost),
            ..System::default()
        })
    }
}
