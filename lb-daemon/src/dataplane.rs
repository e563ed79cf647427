//! The datapath in the kernel: its maps, its program and where that is attached.
//!
//! Maps, program and links are pinned, so that packets flow on when the daemon dies; the next
//! daemon opens the same pins and replaces the program in place.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, ArrayOfMaps, HashMap, MapData, MapError, PerCpuArray},
    programs::{ProgramError, TestRun, TestRunOptions, Xdp},
};
use lb_ebpf::{
    abi::{self, ALWAYS, Cell, EMPTY, FOREVER, ForwardUntil, ServiceKey},
    verdict::Verdict,
};

use crate::{
    config::XdpMode,
    reconcile::{Installed, InstalledService, MapOp},
};

mod attach;
mod pins;
mod role;

pub use attach::{AttachError, Attached, Mode, find_interface};
pub use pins::{PinError, Pins};
pub use role::{RoleError, Roles};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/lb-xdp"));
const PROGRAM: &str = "lb_xdp";
const MAPS: [&str; 5] = ["SERVICES", "TABLES", "REAL_SERVERS", "ROLES", "VERDICTS"];

/// Inner maps of one outer map may differ in size.
const BPF_F_INNER_MAP: u32 = 1 << 12;

/// A loaded datapath. Dropping it leaves in place what is pinned.
pub struct Dataplane {
    ebpf: Ebpf,
    services: HashMap<MapData, ServiceKey, abi::Service>,
    tables: ArrayOfMaps<MapData, Array<MapData, Cell>>,
    real_servers: Array<MapData, abi::RealServer>,
    /// The kernel's number of the roles map, which the program keeps.
    roles_id: u32,
    verdicts: PerCpuArray<MapData, u64>,
    pins: Option<Pins>,
    links: BTreeMap<String, Attached>,
}

#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("load the XDP object")]
    Object(#[source] aya::EbpfError),
    #[error("the XDP object has no map {0}")]
    NoMap(&'static str),
    #[error("map {name}")]
    Map {
        name: &'static str,
        #[source]
        source: MapError,
    },
    #[error("load the XDP program")]
    Program(#[source] ProgramError),
}

/// A change of a map that the kernel refused.
#[derive(Debug, thiserror::Error)]
#[error("{what} in the datapath")]
pub struct ApplyError {
    what: &'static str,
    #[source]
    source: MapError,
}

/// What a test run of the program made of a frame.
#[derive(Debug, PartialEq, Eq)]
pub struct TestRunOutcome {
    /// `XDP_PASS`, `XDP_TX` or `XDP_DROP`, as a number.
    pub action: u32,
    pub frame: Vec<u8>,
}

impl Dataplane {
    /// Loads maps and program. With `pins`, maps that are pinned there are adopted as they are;
    /// the program is always our own.
    pub fn load(pins: Option<Pins>) -> Result<Self, LoadError> {
        let mut loader = EbpfLoader::new();
        if let Some(pins) = &pins {
            for name in MAPS {
                loader.map_pin_path(name, pins.map(name));
            }
        }
        let mut ebpf = loader.load(OBJECT).map_err(LoadError::Object)?;
        let mut take = |name| ebpf.take_map(name).ok_or(LoadError::NoMap(name));
        let map = |name: &'static str| move |source| LoadError::Map { name, source };
        let services = HashMap::try_from(take("SERVICES")?).map_err(map("SERVICES"))?;
        let tables = ArrayOfMaps::try_from(take("TABLES")?).map_err(map("TABLES"))?;
        let real_servers = Array::try_from(take("REAL_SERVERS")?).map_err(map("REAL_SERVERS"))?;
        let roles = take("ROLES")?;
        let roles_id = role::id(&roles).ok_or(LoadError::NoMap("ROLES"))?;
        let mut roles = Array::<_, ForwardUntil>::try_from(roles).map_err(map("ROLES"))?;
        let verdicts = PerCpuArray::try_from(take("VERDICTS")?).map_err(map("VERDICTS"))?;
        roles.set(ALWAYS, FOREVER, 0).map_err(map("ROLES"))?;

        let program = program(&mut ebpf)?;
        program.load().map_err(LoadError::Program)?;
        let links = BTreeMap::new();
        Ok(Self { ebpf, services, tables, real_servers, roles_id, verdicts, pins, links })
    }

    /// What adopted maps hold; nothing in new ones.
    pub fn installed(&self) -> Result<Installed, ApplyError> {
        let context = |source| ApplyError { what: "read what is installed", source };
        let mut installed = Installed::default();
        for entry in self.services.iter() {
            let (key, value) = entry.map_err(context)?;
            installed.services.insert(key, InstalledService { value, table: None });
        }
        if installed.services.is_empty() {
            return Ok(installed);
        }
        for (index, server) in (0..EMPTY).zip(self.real_servers.iter()) {
            let server = server.map_err(context)?;
            if server != abi::RealServer::FREE {
                installed.real_servers.insert(index, server);
            }
        }
        Ok(installed)
    }

    /// Carries out operations, in order.
    pub fn apply(&mut self, ops: &[MapOp]) -> Result<(), ApplyError> {
        for op in ops {
            let (what, done) = match op {
                MapOp::SetRealServer { index, value } => {
                    ("set a real server", self.real_servers.set(u32::from(*index), value, 0))
                }
                MapOp::InstallTable { table, slots } => {
                    ("install a Maglev table", self.install_table(*table, slots))
                }
                MapOp::SetService { key, value } => {
                    ("set a virtual service", self.services.insert(key, value, 0))
                }
                MapOp::DeleteService { key } => {
                    ("delete a virtual service", self.services.remove(key))
                }
                // An empty table takes the place, as aya cannot clear it; memory is what counts.
                MapOp::DeleteTable { table } => {
                    ("delete a Maglev table", self.install_table(*table, &[EMPTY]))
                }
                MapOp::FreeRealServer { index } => (
                    "free a real server",
                    self.real_servers.set(u32::from(*index), abi::RealServer::FREE, 0),
                ),
            };
            done.map_err(|source| ApplyError { what, source })?;
        }
        Ok(())
    }

    fn install_table(&mut self, table: u32, slots: &[u16]) -> Result<(), MapError> {
        let cells = slots.chunks(Cell::SLOTS as usize).map(|chunk| {
            let mut cell = Cell { slots: [EMPTY; Cell::SLOTS as usize] };
            cell.slots[..chunk.len()].copy_from_slice(chunk);
            cell
        });
        let count = u32::try_from(cells.len()).unwrap_or(u32::MAX);
        let mut inner = Array::create(count, BPF_F_INNER_MAP)?;
        for (index, cell) in (0..).zip(cells) {
            inner.set(index, cell, 0)?;
        }
        self.tables.set(table, &inner, 0)
    }

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

    /// The loaded program, for whoever runs it from a program array or asks the kernel about it.
    pub fn program(&self) -> Result<&Xdp, LoadError> {
        let program = self.ebpf.program(PROGRAM).ok_or(LoadError::NoMap(PROGRAM))?;
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
        .ok_or(LoadError::NoMap(PROGRAM))?
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
