//! Packets by `BPF_PROG_TEST_RUN` with live frames: the program's `XDP_TX` sends them for good.

use std::{fs, net::Ipv4Addr, time::Duration};

use anyhow::Context;
use aya::{
    Ebpf,
    maps::{Array, MapData, PerCpuArray},
    programs::{TestRun, TestRunAttrs, TestRunOptions, Xdp, xdp::XdpMode},
};
use etherparse::PacketBuilder;
use nix::{
    net::if_::if_nametoindex,
    sched::{CpuSet, sched_getcpu, sched_setaffinity},
    time::{ClockId, clock_gettime},
    unistd::Pid,
};

use super::cable::DIRECTOR_MAC;
use crate::{
    bench::{
        case::FRAME_LEN,
        entry::{FLOOR_TX, OBJECT, WORDS, words},
    },
    netns::Netns,
};

/// As many as the kernel takes.
const BATCH: u32 = 64;

/// The programs of one measurement; off their interfaces when dropped.
pub(super) struct Generator {
    ebpf: Ebpf,
    sunk: PerCpuArray<MapData, u64>,
    frame: [u8; FRAME_LEN],
}

impl Generator {
    /// Of UDP packets to `to`, of so many flows.
    pub(super) fn new(to: Ipv4Addr, port: u16, flows: u32) -> anyhow::Result<Self> {
        let mut ebpf = Ebpf::load(OBJECT).context("load the object of the bench")?;
        let mut take = |name| ebpf.take_map(name).with_context(|| format!("no map {name}"));
        let mut template: Array<MapData, [u64; WORDS]> = take("TEMPLATE")?.try_into()?;
        let mut count: Array<MapData, u32> = take("FLOWS")?.try_into()?;
        let sunk = take("SUNK")?.try_into()?;
        let frame = udp(to, port)?;
        template.set(0, words(&frame), 0)?;
        count.set(0, flows, 0)?;
        let mut generator = Self { ebpf, sunk, frame };
        generator.program("generator")?.load().context("load the generator")?;
        Ok(generator)
    }

    /// Ends packets that come in by `interface`, and counts them.
    pub(super) fn sink_at(&mut self, netns: &Netns, interface: &str) -> anyhow::Result<()> {
        self.attach("sink", netns, interface)
    }

    /// Sends packets back where they came from.
    pub(super) fn reflect_at(&mut self, netns: &Netns, interface: &str) -> anyhow::Result<()> {
        self.attach(FLOOR_TX, netns, interface)
    }

    /// Packets that the sinks have counted.
    pub(super) fn sunk(&self) -> anyhow::Result<u64> {
        Ok(self.sunk.get(&0, 0).context("read the sink's counter")?.iter().sum())
    }

    /// Sends `packets` out of `eth0`, and returns the CPU time that they took until they were
    /// received: the thread's, in which all soft interrupts of theirs run, and that of the
    /// kernel's threads for those that became too many.
    pub(super) fn send(&mut self, netns: &Netns, packets: u32) -> anyhow::Result<Duration> {
        let program = self.ebpf.program("generator").context("no program generator")?;
        let program: &Xdp = program.try_into()?;
        let frame = &self.frame;
        netns.enter(|| {
            stay_on_this_cpu()?;
            let ctx = context(if_nametoindex("eth0")?);
            let options = TestRunOptions {
                data_in: Some(frame),
                ctx_in: Some(&ctx),
                repeat: packets,
                attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
                ..Default::default()
            };
            let before = cpu_time()?;
            program.test_run(options).context("send packets")?;
            Ok(cpu_time()?.saturating_sub(before))
        })?
    }

    fn attach(&mut self, name: &str, netns: &Netns, interface: &str) -> anyhow::Result<()> {
        let program = self.program(name)?;
        if program.fd().is_err() {
            program.load().with_context(|| format!("load {name}"))?;
        }
        let attached = netns.enter(|| program.attach(interface, XdpMode::Driver))?;
        attached.map(drop).with_context(|| format!("attach {name} to {interface}"))
    }

    fn program(&mut self, name: &str) -> anyhow::Result<&mut Xdp> {
        let program = self.ebpf.program_mut(name);
        Ok(program.with_context(|| format!("no program {name}"))?.try_into()?)
    }
}

/// Without a checksum, which is zero in UDP over IPv4: the source varies.
fn udp(to: Ipv4Addr, port: u16) -> anyhow::Result<[u8; FRAME_LEN]> {
    let mut frame = [0; FRAME_LEN];
    PacketBuilder::ethernet2([2, 0, 0, 0, 0, 0xc], DIRECTOR_MAC)
        .ipv4([198, 18, 0, 0], to.octets(), 64)
        .udp(0, port)
        .write(&mut frame.as_mut_slice(), &[0; 22])?;
    if let Some(checksum) = frame.get_mut(40..42) {
        checksum.fill(0);
    }
    Ok(frame)
}

/// include/uapi/linux/bpf.h, `struct xdp_md`: data, data_end, data_meta, ingress_ifindex,
/// rx_queue_index, egress_ifindex.
fn context(interface: u32) -> Vec<u8> {
    let len = u32::try_from(FRAME_LEN).unwrap_or(u32::MAX);
    [0, len, 0, interface, 0, 0].map(u32::to_ne_bytes).concat()
}

fn cpu_time() -> anyhow::Result<Duration> {
    let thread = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).context("read the CPU time")?;
    Ok(Duration::from(thread) + soft_interrupt_threads())
}

/// CPU time of all `ksoftirqd`.
fn soft_interrupt_threads() -> Duration {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.path());
    let theirs = processes.filter(|dir| {
        fs::read_to_string(dir.join("comm")).is_ok_and(|name| name.starts_with("ksoftirqd/"))
    });
    let times = theirs.filter_map(|dir| {
        let text = fs::read_to_string(dir.join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(times.sum())
}

/// The veth hands packets to the CPU that they are sent on.
fn stay_on_this_cpu() -> anyhow::Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(sched_getcpu().context("ask for the CPU")?).context("name the CPU")?;
    sched_setaffinity(Pid::from_raw(0), &cpus).context("stay on one CPU")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells_the_time_of_its_soft_interrupt_threads() {
        assert!(soft_interrupt_threads() > Duration::ZERO);
    }

    #[test]
    fn a_generated_frame_is_a_whole_udp_packet_without_a_checksum() {
        let frame = udp(Ipv4Addr::new(10, 77, 0, 100), 53).unwrap();
        let packet = etherparse::SlicedPacket::from_ethernet(&frame).unwrap();
        let Some(etherparse::TransportSlice::Udp(udp)) = packet.transport else {
            panic!("another protocol")
        };
        assert_eq!((udp.checksum(), udp.destination_port(), udp.length()), (0, 53, 30));
    }
}
