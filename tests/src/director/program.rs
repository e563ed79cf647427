//! The program that a director has loaded, run on packets that nobody sent.

use std::{
    collections::BTreeMap,
    fs,
    os::fd::{AsFd, AsRawFd},
};

use anyhow::{Context, ensure};
use aya::{
    maps::MapInfo,
    programs::{ProgramFd, ProgramInfo, loaded_programs},
};
use nix::net::if_::if_nametoindex;

use super::Director;
use crate::bpf;

/// The one on `eth0`, with its maps: what a run notes there stays noted.
pub struct LoadedProgram {
    program: ProgramFd,
    map_ids: Vec<u32>,
    ifindex: u32,
}

impl Director<'_> {
    /// The program that packets meet now.
    pub fn program(&self) -> anyhow::Result<LoadedProgram> {
        let id = self.attachment()?.program;
        let is_it = |info: &ProgramInfo| info.id() == id;
        let mut programs = loaded_programs().filter_map(Result::ok);
        let info = programs.find(is_it).with_context(|| format!("program {id} is not loaded"))?;
        let map_ids = info.map_ids()?.context("the kernel does not tell the maps of a program")?;
        let program = info.fd().with_context(|| format!("open program {id}"))?;
        let ifindex = self.host.netns.enter(|| if_nametoindex("eth0"))??;
        Ok(LoadedProgram { program, map_ids, ifindex })
    }
}

impl LoadedProgram {
    pub(crate) fn fd(&self) -> &ProgramFd {
        &self.program
    }

    /// `struct xdp_md` of a frame that comes in by `eth0`: data, data_end, data_meta,
    /// ingress_ifindex, rx_queue_index, egress_ifindex.
    pub(crate) fn context(&self, frame: &[u8]) -> anyhow::Result<[[u8; 4]; 6]> {
        let len = u32::try_from(frame.len()).context("the length of a frame")?;
        Ok([0, len, 0, self.ifindex, 0, 0].map(u32::to_ne_bytes))
    }

    /// Runs it on a frame as if that had come in by `eth0`, by `BPF_PROG_TEST_RUN`; returns the
    /// XDP action. Nothing is sent. Only from within the director's namespace.
    pub fn run(&self, frame: &[u8]) -> anyhow::Result<u32> {
        bpf::test_run_xdp(self.program.as_fd(), frame, self.ifindex).context("run the program")
    }

    /// What the kernel accounts to each map of the program, in bytes, by name; maps within maps
    /// are not among them.
    pub fn map_memory(&self) -> anyhow::Result<BTreeMap<String, u64>> {
        let mut memory = BTreeMap::new();
        for id in &self.map_ids {
            let info = MapInfo::from_id(*id)?;
            let name = info.name_as_str().unwrap_or("?").to_owned();
            let fd = info.fd()?;
            let file = format!("/proc/self/fdinfo/{}", fd.as_fd().as_raw_fd());
            let text = fs::read_to_string(&file).with_context(|| format!("read {file}"))?;
            let line = text.lines().find_map(|line| line.strip_prefix("memlock:"));
            let bytes = line.and_then(|bytes| bytes.trim().parse::<u64>().ok());
            *memory.entry(name).or_default() += bytes.context("no memory in a map's fdinfo")?;
        }
        ensure!(!memory.is_empty(), "a program without maps");
        Ok(memory)
    }
}
