//! The loaded programs of the bench, aimed at one case after the other.

use std::time::Duration;

use anyhow::{Context, ensure};
use aya::{
    Ebpf,
    maps::{Array, MapData, ProgramArray},
    programs::{TestRun, TestRunOptions, Xdp, xdp::XdpMode},
};
use nix::time::{ClockId, clock_gettime};

use super::{
    case::{Case, FRAME_LEN, Flag, Subject, tcp},
    director::{Director, TCP_PORT},
};
use crate::netns::Netns;

pub(super) static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("LB_BENCH_OBJECT"));
pub(super) const WORDS: usize = FRAME_LEN / size_of::<u64>();

const ENTRY: &str = "bench_entry";
const FLOOR_PASS: &str = "floor_pass";
pub(super) const FLOOR_TX: &str = "floor_tx";

pub(super) struct Entry {
    ebpf: Ebpf,
    under_test: ProgramArray<MapData>,
    template: Array<MapData, [u64; WORDS]>,
    flows: Array<MapData, u32>,
    origin: Array<MapData, [u64; 2]>,
    /// Dropped last: with it the interfaces go that the programs are on.
    _home: Netns,
}

impl Entry {
    pub(super) fn load() -> anyhow::Result<Self> {
        let mut ebpf = Ebpf::load(OBJECT).context("load the object of the bench")?;
        let home = Netns::new("bench")?;
        for name in [ENTRY, FLOOR_PASS, FLOOR_TX] {
            let program: &mut Xdp =
                ebpf.program_mut(name).with_context(|| format!("no program {name}"))?.try_into()?;
            program.load().with_context(|| format!("load {name}"))?;
            keep_in_dispatcher(program, name, &home).with_context(|| format!("attach {name}"))?;
        }
        let mut take = |name| ebpf.take_map(name).with_context(|| format!("no map {name}"));
        Ok(Self {
            under_test: take("UNDER_TEST")?.try_into()?,
            template: take("TEMPLATE")?.try_into()?,
            flows: take("FLOWS")?.try_into()?,
            origin: take("ORIGIN")?.try_into()?,
            ebpf,
            _home: home,
        })
    }

    /// Makes the next [`run`](Self::run)s those of `case`.
    pub(super) fn aim(&mut self, case: &Case, director: &Director) -> anyhow::Result<()> {
        self.template.set(0, words(&case.frame), 0)?;
        self.flows.set(0, case.flows, 0)?;
        let fd = self.under_test(case, director)?.fd()?.try_clone()?;
        self.under_test.set(0, &fd, 0).with_context(|| format!("aim at {}", case.name))
    }

    /// CPU time of this thread for `repeat` packets of the case that it is aimed at.
    pub(super) fn run(&mut self, case: &Case, repeat: u32) -> anyhow::Result<Duration> {
        self.origin.set(0, [0; 2], 0)?;
        let runner = match case.subject {
            Subject::FloorPass => FLOOR_PASS,
            Subject::Entry | Subject::FloorTx | Subject::Director => ENTRY,
        };
        let program = program(&self.ebpf, runner)?;
        let options = TestRunOptions { data_in: Some(&case.frame), repeat, ..Default::default() };
        // The kernel's own figure is in whole nanoseconds per packet: a tenth of the floor.
        let before = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?;
        let result = program.test_run(options).with_context(|| format!("run {}", case.name))?;
        let after = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?;
        ensure!(
            result.return_value == case.expected as u32,
            "{}: the last packet ended with XDP action {}, expected {:?}",
            case.name,
            result.return_value,
            case.expected
        );
        Ok(Duration::from(after - before))
    }

    /// How long the control takes: a program that no change of the director touches. What it did
    /// to the frame it undoes with the next packet.
    pub(super) fn control(&self) -> anyhow::Result<Duration> {
        const REPEAT: u32 = 20_000;
        let frame = tcp(TCP_PORT, Flag::Ack);
        let options =
            TestRunOptions { data_in: Some(&frame), repeat: REPEAT, ..Default::default() };
        let result = program(&self.ebpf, FLOOR_TX)?.test_run(options).context("run the control")?;
        Ok(result.duration * REPEAT)
    }

    /// Instructions of the program under test after the verifier's rewriting, before the JIT.
    pub(super) fn instructions(&self, case: &Case, director: &Director) -> anyhow::Result<u32> {
        let info = self.under_test(case, director)?.info()?;
        let bytes = info.size_translated().context("the kernel does not tell a program's size")?;
        Ok(bytes / 8)
    }

    fn under_test<'a>(&'a self, case: &Case, director: &'a Director) -> anyhow::Result<&'a Xdp> {
        match case.subject {
            Subject::FloorPass | Subject::Entry => program(&self.ebpf, FLOOR_PASS),
            Subject::FloorTx => program(&self.ebpf, FLOOR_TX),
            Subject::Director => director.program(),
        }
    }
}

/// A frame as the template has it.
pub(super) fn words(frame: &[u8; FRAME_LEN]) -> [u64; WORDS] {
    let mut words = [0; WORDS];
    for (word, bytes) in words.iter_mut().zip(frame.as_chunks().0) {
        *word = u64::from_ne_bytes(*bytes);
    }
    words
}

/// Attaches the program to an interface that no packet reaches. The kernel calls XDP programs
/// through code that it patches whenever one comes or goes, and waits some 20 ms each time; a test
/// run of a program that is attached anyway finds that done.
fn keep_in_dispatcher(program: &mut Xdp, name: &str, home: &Netns) -> anyhow::Result<()> {
    let interface = name.replace('_', "-");
    home.ip(&format!("link add {interface} type veth"))?;
    home.enter(|| program.attach(&interface, XdpMode::Driver))??;
    Ok(())
}

fn program<'a>(ebpf: &'a Ebpf, name: &str) -> anyhow::Result<&'a Xdp> {
    let program = ebpf.program(name).with_context(|| format!("no program {name}"))?;
    Ok(program.try_into()?)
}

#[cfg(test)]
mod tests {
    use super::{super::case::cases, *};

    #[test]
    fn every_repeat_meets_the_packet_as_it_was() {
        const PACKETS: u32 = 10_000;
        let director = Director::load().unwrap();
        let mut entry = Entry::load().unwrap();
        for case in cases().iter().filter(|case| case.name == "tcp4-dr") {
            entry.aim(case, &director).unwrap();
            let before = director.forwarded();
            entry.run(case, PACKETS).unwrap();
            // One that came with the MAC addresses of the last repeat would not be forwarded.
            assert_eq!(director.forwarded() - before, u64::from(PACKETS), "{} flows", case.flows);
        }
    }
}
