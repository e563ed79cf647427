//! A flood at the rate of the program itself: the kernel repeats it, and the entry program of the
//! bench gives every packet a flow of its own.

use std::time::Duration;

use anyhow::{Context, ensure};
use aya::{
    Ebpf,
    maps::{Array, MapData, ProgramArray},
    programs::{TestRun, TestRunOptions, Xdp},
};

use super::{Packets, XDP_TX};
use crate::director::Director;

static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("LB_BENCH_OBJECT"));
/// The entry program restores whole words, and knows one length.
const WORDS: usize = 8;

/// Hands `flows` packets to the program of `director`, each of another flow: 65,536 addresses of
/// 198.18.0.0/15 with ports. Returns how long that took.
pub fn burst(director: &Director<'_>, packets: Packets, flows: u32) -> anyhow::Result<Duration> {
    let (program, to) = (director.program()?, director.host.mac());
    let mut frame = packets.frame(0, to)?;
    frame.resize(WORDS * size_of::<u64>(), 0);
    let mut words = [0; WORDS];
    for (word, bytes) in words.iter_mut().zip(frame.as_chunks().0) {
        *word = u64::from_ne_bytes(*bytes);
    }

    let mut ebpf = Ebpf::load(OBJECT).context("load the object of the bench")?;
    let entry: &mut Xdp = ebpf.program_mut("bench_entry").context("no entry")?.try_into()?;
    entry.load().context("load the entry program")?;
    let mut take = |name| ebpf.take_map(name).with_context(|| format!("no map {name}"));
    let mut template: Array<MapData, [u64; WORDS]> = take("TEMPLATE")?.try_into()?;
    let mut number_of_flows: Array<MapData, u32> = take("FLOWS")?.try_into()?;
    let mut under_test: ProgramArray<MapData> = take("UNDER_TEST")?.try_into()?;
    template.set(0, words, 0)?;
    number_of_flows.set(0, flows, 0)?;
    under_test.set(0, program.fd(), 0).context("aim at the director's program")?;

    let entry: &Xdp = ebpf.program("bench_entry").context("no entry")?.try_into()?;
    let context = program.context(&frame)?;
    let options = || TestRunOptions {
        data_in: Some(&frame),
        ctx_in: Some(context.as_flattened()),
        repeat: flows,
        ..Default::default()
    };
    let result = director.host.netns.enter(|| entry.test_run(options()))??;
    ensure!(
        result.return_value as usize == XDP_TX,
        "the last packet ended with XDP action {}",
        result.return_value
    );
    Ok(result.duration * flows)
}
