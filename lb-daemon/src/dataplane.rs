//! The datapath in the kernel: its maps, its program and where that is attached.
//!
//! Maps, program and links are pinned, so that packets flow on when the daemon dies; the next
//! daemon opens the same pins and replaces the program in place.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use aya::{
    Ebpf,
    maps::{Array, HashMap, LpmTrie, MapData, PerCpuArray},
    programs::{TestRun, TestRunOptions, Xdp},
};
use lb_ebpf::abi::{self, Counters, PortPrefix, ServiceKey, Settings};

use crate::{config::XdpMode, reconcile::Capacity};

mod apply;
mod attach;
mod counters;
mod explain;
mod front;
mod load;
mod memory;
mod notes;
mod pins;
mod role;
mod tables;

pub use apply::ApplyError;
pub use attach::{AttachError, Attached, Mode, find_interface};
pub use counters::Memory;
pub use explain::ExplainError;
pub use load::LoadError;
pub use pins::{PinError, Pins};
pub(crate) use role::monotonic_seconds;
pub use role::{RoleError, Roles};

use front::Front;
use notes::Notes;
use tables::Tables;

const PROGRAM: &str = "lb_xdp";

/// A loaded datapath. Dropping it leaves in place what is pinned.
pub struct Dataplane {
    ebpf: Ebpf,
    capacity: Capacity,
    services: HashMap<MapData, ServiceKey, abi::Service>,
    front: Front,
    port_ranges: LpmTrie<MapData, PortPrefix, ServiceKey>,
    tables: Tables,
    notes: Notes,
    openings: Notes,
    real_servers: Array<MapData, abi::RealServer>,
    settings: Array<MapData, Settings>,
    /// The kernel's number of the roles map, which the program keeps.
    roles_id: u32,
    verdicts: PerCpuArray<MapData, u64>,
    service_counters: PerCpuArray<MapData, Counters>,
    real_server_counters: PerCpuArray<MapData, Counters>,
    /// Bytes that the kernel accounts to the maps, the tables apart.
    map_bytes: BTreeMap<&'static str, u64>,
    pins: Option<Pins>,
    links: BTreeMap<String, Attached>,
}

/// What a test run of the program made of a frame.
#[derive(Debug, PartialEq, Eq)]
pub struct TestRunOutcome {
    /// `XDP_PASS`, `XDP_TX` or `XDP_DROP`, as a number.
    pub action: u32,
    pub frame: Vec<u8>,
}

impl Dataplane {
    /// Attaches the program to an interface, or replaces the one that a former daemon left there.
    /// `None`: it is attached already.
    pub fn attach(
        &mut self,
        interface: &str,
        mode: XdpMode,
    ) -> Result<Option<&Attached>, AttachError> {
        let ifindex = find_interface(interface)?;
        if self.links.get(interface).is_some_and(|attached| attached.ifindex == ifindex) {
            return Ok(None);
        }
        // The one of that name that it was on is gone.
        let _ = self.detach(interface);
        let program = program(&mut self.ebpf).map_err(AttachError::Load)?;
        let attached = attach::attach(program, interface, ifindex, mode, self.pins.as_ref())?;
        self.links.insert(interface.to_owned(), attached);
        Ok(self.links.get(interface))
    }

    /// Takes the program off an interface.
    pub fn detach(&mut self, interface: &str) -> Result<(), AttachError> {
        let Some(attached) = self.links.remove(interface) else { return Ok(()) };
        let program = program(&mut self.ebpf).map_err(AttachError::Load)?;
        attach::detach(program, interface, attached, self.pins.as_ref())
    }

    /// Takes the program off all other interfaces, those that a former daemon left among them.
    pub fn detach_all_but(&mut self, kept: &[String]) -> Result<(), AttachError> {
        let gone: Vec<_> =
            self.links.keys().filter(|interface| !kept.contains(interface)).cloned().collect();
        for interface in gone {
            self.detach(&interface)?;
        }
        let Some(pins) = &self.pins else { return Ok(()) };
        for (interface, mode) in pins.linked().map_err(AttachError::Pin)? {
            if !kept.contains(&interface) {
                pins.unpin(&interface, mode).map_err(AttachError::Pin)?;
            }
        }
        pins.remove_other_layouts().map_err(AttachError::Pin)
    }

    /// The interfaces that the program is attached to.
    pub fn attached(&self) -> &BTreeMap<String, Attached> {
        &self.links
    }

    /// Takes the program off every interface and removes all pins.
    pub fn remove(mut self) -> Result<(), AttachError> {
        for interface in self.links.keys().cloned().collect::<Vec<_>>() {
            self.detach(&interface)?;
        }
        match self.pins {
            Some(pins) => pins.remove().map_err(AttachError::Pin),
            None => Ok(()),
        }
    }

    /// A handle of the roles of its own, for the VRRP thread.
    pub fn roles(&self) -> Result<Roles, RoleError> {
        Roles::open(self.roles_id)
    }

    /// The loaded program, for whoever runs it from a program array or asks the kernel about it.
    pub fn program(&self) -> Result<&Xdp, LoadError> {
        let program = self.ebpf.program(PROGRAM).ok_or(LoadError::Missing(PROGRAM))?;
        program.try_into().map_err(LoadError::Program)
    }

    /// Runs the loaded program once on a frame, by `BPF_PROG_TEST_RUN`, as if it had come in by
    /// the loopback interface.
    pub fn test_run(&mut self, frame: &[u8]) -> Result<TestRunOutcome, LoadError> {
        let mut out = vec![0; frame.len() + 256];
        let options =
            TestRunOptions { data_in: Some(frame), data_out: Some(&mut out), ..Default::default() };
        let result = program(&mut self.ebpf)?.test_run(options).map_err(LoadError::Program)?;
        out.truncate(result.data_size_out as usize);
        Ok(TestRunOutcome { action: result.return_value, frame: out })
    }
}

fn program(ebpf: &mut Ebpf) -> Result<&mut Xdp, LoadError> {
    ebpf.program_mut(PROGRAM)
        .ok_or(LoadError::Missing(PROGRAM))?
        .try_into()
        .map_err(LoadError::Program)
}

/// The bpffs of a state directory, mounted if it was not.
pub fn pins_in(state_dir: &Path) -> Result<Pins, PinError> {
    Pins::open(&bpffs(state_dir))
}

/// The bpffs that a killed daemon left in a state directory.
pub fn pins_left_in(state_dir: &Path) -> Result<Option<Pins>, PinError> {
    Pins::find(&bpffs(state_dir))
}

fn bpffs(state_dir: &Path) -> PathBuf {
    state_dir.join("bpf")
}
