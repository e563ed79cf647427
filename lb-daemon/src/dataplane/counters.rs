//! What the datapath counts, and what it costs in memory.

use std::{
    collections::BTreeMap,
    fs, io,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
};

use aya::maps::{MapData, PerCpuArray, PerCpuValues};
use lb_ebpf::{
    abi::{Cell, Counters, Note, Previous},
    flow::FlowKey,
    verdict::Verdict,
};

use super::{Dataplane, apply::Refused, memory, notes::Notes};
use crate::reconcile::Installed;

/// Bytes that the kernel accounts to the maps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    pub tables: u64,
    pub services: u64,
    pub flows: u64,
    pub counters: u64,
}

impl Memory {
    pub fn total(self) -> u64 {
        self.tables + self.services + self.flows + self.counters
    }
}

impl Dataplane {
    /// Packets by verdict, summed over CPUs.
    pub fn verdicts(&self) -> BTreeMap<&'static str, u64> {
        (0..)
            .zip(Verdict::ALL)
            .map(|(index, verdict)| {
                let packets = self.verdicts.get(&index, 0).map_or(0, |cpus| cpus.iter().sum());
                (verdict.name(), packets)
            })
            .collect()
    }

    /// By [`lb_ebpf::abi::Service::id`], summed over CPUs.
    pub fn service_counters(&self, id: u32) -> Counters {
        self.service_counters.get(&id, 0).map(sum).unwrap_or_default()
    }

    /// By index, summed over CPUs.
    pub fn real_server_counters(&self, index: u16) -> Counters {
        self.real_server_counters.get(&index.into(), 0).map(sum).unwrap_or_default()
    }

    /// The notes of connections, and how many of flows of which a SYN alone was seen.
    pub fn notes(&self) -> (Vec<Note>, usize) {
        let read = |notes: &Notes| memory::entries::<FlowKey, Note>(notes.fd.as_fd());
        let connections = read(&self.notes).unwrap_or_default();
        let openings = read(&self.openings).map_or(0, |openings| openings.len());
        (connections.into_iter().map(|(_, note)| note).collect(), openings)
    }

    pub fn memory(&self, installed: &Installed) -> Memory {
        let of = |names: &[&str]| names.iter().filter_map(|name| self.map_bytes.get(name)).sum();
        let tables = installed.tables.values().map(|table| {
            inner_bytes(table.generation.slots().len(), table.generation.previous().len())
        });
        let spares = self.tables.spare_sizes().map(|size| inner_bytes(size, size));
        Memory {
            tables: of(&["TABLES", "PREVIOUS"]) + tables.chain(spares).sum::<u64>(),
            services: of(&[
                "SERVICES",
                "FRONT",
                "PORT_RANGES",
                "REAL_SERVERS",
                "ROLES",
                "SETTINGS",
            ]),
            flows: of(&["NOTES", "OPENINGS"]),
            counters: of(&["VERDICTS", "SERVICE_COUNTERS", "SERVER_COUNTERS"]),
        }
    }
}

fn sum(cpus: PerCpuValues<Counters>) -> Counters {
    cpus.iter().fold(Counters::default(), |sum, cpu| Counters {
        packets: sum.packets + cpu.packets,
        bytes: sum.bytes + cpu.bytes,
        new_flows: sum.new_flows + cpu.new_flows,
    })
}

pub(super) fn clear(
    counters: &mut PerCpuArray<MapData, Counters>,
    index: u32,
) -> Result<(), Refused> {
    let cpus = aya::util::nr_cpus().map_err(|(_, error)| error)?;
    let zero = PerCpuValues::try_from(vec![Counters::default(); cpus])?;
    Ok(counters.set(index, zero, 0)?)
}

/// What the kernel says that a map takes.
pub(super) fn bytes(map: BorrowedFd<'_>) -> io::Result<u64> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", map.as_raw_fd()))?;
    let bytes = info.lines().find_map(|line| line.strip_prefix("memlock:")?.trim().parse().ok());
    bytes.ok_or_else(|| io::Error::other("/proc/self/fdinfo without `memlock`"))
}

/// As the kernel reckons an array that can be mapped: its head and its values in whole pages.
fn inner_bytes(slots: usize, previous: usize) -> u64 {
    const PAGE: usize = 4096;
    let array = |len: usize, size: usize| PAGE + (len * size).next_multiple_of(PAGE);
    let cells = slots.div_ceil(Cell::SLOTS as usize);
    let mut bytes = array(cells, size_of::<Cell>());
    if previous > 0 {
        bytes += array(previous, size_of::<Previous>());
    }
    bytes as u64
}
