//! The datapath in the kernel: its maps, its program and where that is attached.
//!
//! Maps, program and links are pinned, so that packets flow on when the daemon dies; the next
//! daemon opens the same pins and replaces the program in place.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, LpmTrie, Map, MapData, MapError, PerCpuArray, lpm_trie::Key},
    programs::{ProgramError, TestRun, TestRunOptions, Xdp},
};
use lb_ebpf::{
    abi::{
        self, ALWAYS, Counters, EMPTY, FOREVER, ForwardUntil, Note, PortPrefix, ServiceKey,
        Settings,
    },
    flow::FlowKey,
};

use crate::{
    config::XdpMode,
    reconcile::{Capacity, Installed, InstalledTable, MapOp, Noted},
};

mod attach;
mod counters;
mod explain;
mod front;
mod memory;
mod pins;
mod role;
mod tables;

pub use attach::{AttachError, Attached, Mode, find_interface};
pub use counters::Memory;
pub use explain::ExplainError;
pub use pins::{PinError, Pins};
pub(crate) use role::monotonic_seconds;
pub use role::{RoleError, Roles};

use front::Front;
use tables::Tables;

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/lb-xdp"));
const PROGRAM: &str = "lb_xdp";
/// Changes an entry that is there, and makes none.
const BPF_EXIST: u64 = 2;
const MAPS: [&str; 13] = [
    "SERVICES",
    "FRONT",
    "PORT_RANGES",
    "TABLES",
    "PREVIOUS",
    "NOTES",
    "OPENINGS",
    "REAL_SERVERS",
    "ROLES",
    "SETTINGS",
    "VERDICTS",
    "SERVICE_COUNTERS",
    "SERVER_COUNTERS",
];

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

/// A flow table, and a descriptor of it to read it as a whole.
struct Notes {
    map: HashMap<MapData, FlowKey, Note>,
    fd: OwnedFd,
}

/// The datapath writes notes as well, and is the first to know: what it has changed since `note` was
/// read is left as it is, for the next look.
impl Notes {
    fn mark(&mut self, key: &FlowKey, note: &Note) -> Result<(), Refused> {
        match self.get(key)? {
            Some(now) if now.is_of_the_same_flow(note) => {
                let state = now.state & !Note::DOWN | note.state & Note::DOWN;
                let marked = Note { state, seen: now.seen.max(note.seen), ..now };
                unless_gone(self.map.insert(key, marked, BPF_EXIST)).map(drop)
            }
            Some(_) | None => Ok(()),
        }
    }

    fn forget(&mut self, key: &FlowKey, note: &Note) -> Result<(), Refused> {
        match self.get(key)? {
            Some(now) if now == *note => unless_gone(self.map.remove(key)).map(drop),
            Some(_) | None => Ok(()),
        }
    }

    fn get(&self, key: &FlowKey) -> Result<Option<Note>, Refused> {
        unless_gone(self.map.get(key, 0))
    }
}

/// `None` if the datapath was first.
fn unless_gone<T>(result: Result<T, MapError>) -> Result<Option<T>, Refused> {
    match result {
        Err(MapError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::NotFound => {
            Ok(None)
        }
        Err(MapError::KeyNotFound) => Ok(None),
        result => Ok(Some(result?)),
    }
}

#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("load the XDP object")]
    Object(#[source] aya::EbpfError),
    #[error("the XDP object has no {0}")]
    Missing(&'static str),
    #[error("map {name}")]
    Map {
        name: &'static str,
        #[source]
        source: MapError,
    },
    #[error("map {name}")]
    Io {
        name: &'static str,
        #[source]
        source: io::Error,
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
    source: Refused,
}

#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error(transparent)]
    Map(#[from] MapError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What a test run of the program made of a frame.
#[derive(Debug, PartialEq, Eq)]
pub struct TestRunOutcome {
    /// `XDP_PASS`, `XDP_TX` or `XDP_DROP`, as a number.
    pub action: u32,
    pub frame: Vec<u8>,
}

impl Dataplane {
    /// Loads maps, as large as `capacity` says, and program. With `pins`, maps that are pinned
    /// there are adopted as they are; the program is always our own.
    pub fn load(pins: Option<Pins>, capacity: Capacity) -> Result<Self, LoadError> {
        let mut loader = EbpfLoader::new();
        for (name, entries) in sizes(capacity) {
            // One that is pinned has its size, and all indexes in it are right.
            let pinned = pins.as_ref().and_then(|pins| MapData::from_pin(pins.map(name)).ok());
            let entries = match pinned {
                Some(map) => memory::max_entries(map.fd().as_fd()).map_err(io(name))?,
                None => entries,
            };
            loader.map_max_entries(name, u32::try_from(entries).unwrap_or(u32::MAX));
        }
        if let Some(pins) = &pins {
            for name in MAPS {
                loader.map_pin_path(name, pins.map(name));
            }
        }
        let mut ebpf = loader.load(OBJECT).map_err(LoadError::Object)?;
        let map_bytes = MAPS
            .into_iter()
            .map(|name| Ok((name, counters::bytes(fd(&ebpf, name)?).map_err(io(name))?)))
            .collect::<Result<_, LoadError>>()?;
        let entries = |name| memory::max_entries(fd(&ebpf, name)?).map_err(io(name));
        let capacity = Capacity {
            services: entries("SERVICES")?,
            tables: entries("TABLES")?,
            real_servers: entries("REAL_SERVERS")?,
            notes: entries("NOTES")?,
        };
        let owned = |name| fd(&ebpf, name)?.try_clone_to_owned().map_err(io(name));
        let tables = Tables::new(owned("TABLES")?, owned("PREVIOUS")?);
        let (notes, openings) = (owned("NOTES")?, owned("OPENINGS")?);
        let front = Front::open(owned("FRONT")?, entries("FRONT")?).map_err(io("FRONT"))?;

        let mut take = |name| ebpf.take_map(name).ok_or(LoadError::Missing(name));
        let map = |name| move |source| LoadError::Map { name, source };
        let roles = take("ROLES")?;
        let roles_id = role::id(&roles).ok_or(LoadError::Missing("ROLES"))?;
        let mut roles = Array::<_, ForwardUntil>::try_from(roles).map_err(map("ROLES"))?;
        roles.set(ALWAYS, FOREVER, 0).map_err(map("ROLES"))?;
        let mut notes_of =
            |name, fd| Ok(Notes { map: HashMap::try_from(take(name)?).map_err(map(name))?, fd });
        let (notes, openings) = (notes_of("NOTES", notes)?, notes_of("OPENINGS", openings)?);
        let services = HashMap::try_from(take("SERVICES")?).map_err(map("SERVICES"))?;
        let port_ranges = LpmTrie::try_from(take("PORT_RANGES")?).map_err(map("PORT_RANGES"))?;
        let real_servers = Array::try_from(take("REAL_SERVERS")?).map_err(map("REAL_SERVERS"))?;
        let settings = Array::try_from(take("SETTINGS")?).map_err(map("SETTINGS"))?;
        let verdicts = PerCpuArray::try_from(take("VERDICTS")?).map_err(map("VERDICTS"))?;
        let service_counters =
            PerCpuArray::try_from(take("SERVICE_COUNTERS")?).map_err(map("SERVICE_COUNTERS"))?;
        let real_server_counters =
            PerCpuArray::try_from(take("SERVER_COUNTERS")?).map_err(map("SERVER_COUNTERS"))?;

        program(&mut ebpf)?.load().map_err(LoadError::Program)?;
        Ok(Self {
            ebpf,
            capacity,
            services,
            front,
            port_ranges,
            tables,
            notes,
            openings,
            real_servers,
            settings,
            roles_id,
            verdicts,
            service_counters,
            real_server_counters,
            map_bytes,
            pins,
            links: BTreeMap::new(),
        })
    }

    /// What adopted maps hold; nothing in new ones.
    pub fn installed(&mut self) -> Result<Installed, ApplyError> {
        self.read_installed()
            .map_err(|source| ApplyError { what: "read what is installed", source })
    }

    fn read_installed(&mut self) -> Result<Installed, Refused> {
        let mut installed = Installed { capacity: self.capacity, ..Installed::default() };
        for entry in self.services.iter() {
            let (key, service) = entry?;
            installed.services.insert(key, service);
        }
        self.front.restore(&installed.services);
        let used = installed.services.values().map(|service| service.table).collect();
        self.tables.remove_all_but(&used, self.capacity.tables)?;
        if installed.services.is_empty() {
            return Ok(installed);
        }
        for entry in self.port_ranges.iter() {
            let (prefix, key) = entry?;
            installed.port_ranges.insert((prefix.prefix_len(), prefix.data()), key);
        }
        self.look_for_port_ranges(!installed.port_ranges.is_empty())?;
        let changing: BTreeSet<u32> =
            installed.services.values().map(|service| service.previous).collect();
        for service in installed.services.values() {
            if installed.tables.contains_key(&service.table) {
                continue;
            }
            let tracked = changing.contains(&service.table);
            let generation = self.tables.read(service.table, service.table_size, tracked)?;
            let table = InstalledTable { generation, made: None, moved: None };
            installed.tables.insert(service.table, table);
        }
        for (index, server) in (0..EMPTY).zip(self.real_servers.iter()) {
            let server = server?;
            if server != abi::RealServer::FREE {
                installed.real_servers.insert(index, server);
            }
        }
        Ok(installed)
    }

    /// What the datapath has noted of flows, and the times that it has written into previous
    /// owners, which `installed` gets.
    pub fn noted(&self, installed: &mut Installed) -> Result<Noted, ApplyError> {
        self.read_noted(installed)
            .map_err(|source| ApplyError { what: "read the flow table", source })
    }

    /// When nothing is remembered.
    pub fn nothing_noted() -> Noted {
        Noted { now: monotonic_seconds(), ..Noted::default() }
    }

    fn read_noted(&self, installed: &mut Installed) -> Result<Noted, Refused> {
        for (&index, table) in &mut installed.tables {
            if !table.generation.is_steady() {
                table.generation.refresh(self.tables.read_previous(index)?);
            }
        }
        // In the direction in which the datapath moves them: one that moves meanwhile is in both,
        // not in neither.
        let openings = memory::entries(self.openings.fd.as_fd())?;
        Ok(Noted {
            openings,
            connections: memory::entries(self.notes.fd.as_fd())?,
            // After what was read, or a note could be from the future.
            now: monotonic_seconds(),
        })
    }

    /// Carries out operations, in order. Tables are made together ahead of the first operation
    /// that follows them, as the kernel waits for packets in flight each time.
    pub fn apply(&mut self, ops: &[MapOp]) -> Result<(), ApplyError> {
        for op in ops {
            let (what, done) = match op {
                MapOp::InstallTable { table, slots, previous } => {
                    let made = self.tables.install(*table, slots, previous);
                    ("make a Maglev table", made.map_err(Into::into))
                }
                MapOp::SetRealServer { .. }
                | MapOp::ClearRealServerCounters { .. }
                | MapOp::ClearServiceCounters { .. }
                | MapOp::UpdateTable { .. }
                | MapOp::SetService { .. }
                | MapOp::SetPortRange { .. }
                | MapOp::DeletePortRange { .. }
                | MapOp::LookForPortRanges(_)
                | MapOp::DeleteService { .. }
                | MapOp::DeleteTable { .. }
                | MapOp::DeletePrevious { .. }
                | MapOp::MarkNote { .. }
                | MapOp::DeleteNote { .. }
                | MapOp::DeleteOpening { .. }
                | MapOp::FreeRealServer { .. } => {
                    self.publish()?;
                    self.apply_one(op)
                }
            };
            done.map_err(|source| ApplyError { what, source })?;
        }
        self.publish()
    }

    fn publish(&mut self) -> Result<(), ApplyError> {
        let what = "install Maglev tables";
        self.tables.publish().map_err(|source| ApplyError { what, source: source.into() })
    }

    fn apply_one(&mut self, op: &MapOp) -> (&'static str, Result<(), Refused>) {
        match op {
            MapOp::SetRealServer { index, value } => {
                ("set a real server", self.set_real_server(*index, value))
            }
            MapOp::FreeRealServer { index } => {
                ("free a real server", self.set_real_server(*index, &abi::RealServer::FREE))
            }
            MapOp::ClearRealServerCounters { index } => {
                let counters = &mut self.real_server_counters;
                ("clear a real server's counters", counters::clear(counters, (*index).into()))
            }
            MapOp::ClearServiceCounters { id } => {
                let counters = &mut self.service_counters;
                ("clear a service's counters", counters::clear(counters, *id))
            }
            MapOp::UpdateTable { table, updates } => {
                let done = self.tables.update(*table, updates);
                ("update a Maglev table", done.map_err(Into::into))
            }
            MapOp::DeletePrevious { tables } => {
                let done = self.tables.delete_previous(tables);
                ("delete previous owners", done.map_err(Into::into))
            }
            MapOp::SetService { key, value } => {
                let done = self.services.insert(key, value, 0);
                self.front.set(key, value);
                ("set a virtual service", done.map_err(Into::into))
            }
            MapOp::DeleteService { key } => {
                self.front.delete(key);
                ("delete a virtual service", self.services.remove(key).map_err(Into::into))
            }
            MapOp::SetPortRange { prefix: (bits, prefix), key } => {
                let done = self.port_ranges.insert(&Key::new(*bits, *prefix), key, 0);
                ("set a port range", done.map_err(Into::into))
            }
            MapOp::DeletePortRange { prefix: (bits, prefix) } => {
                let done = self.port_ranges.remove(&Key::new(*bits, *prefix));
                ("delete a port range", done.map_err(Into::into))
            }
            MapOp::LookForPortRanges(wanted) => {
                ("look for port ranges", self.look_for_port_ranges(*wanted))
            }
            MapOp::MarkNote { key, note } => ("mark a flow", self.notes.mark(key, note)),
            MapOp::DeleteNote { key, note } => ("forget a flow", self.notes.forget(key, note)),
            MapOp::DeleteOpening { key, note } => {
                ("forget a flow", self.openings.forget(key, note))
            }
            MapOp::DeleteTable { table, size } => {
                self.tables.delete(*table, *size as usize);
                ("delete a Maglev table", Ok(()))
            }
            MapOp::InstallTable { .. } => unreachable!("tables are made together"),
        }
    }

    /// Makes ready for the next change, and gives back what the last ones left. Takes the kernel
    /// some ten milliseconds when there is something to do. To be called about every second, as a
    /// spare rests for two calls.
    pub fn tidy(&mut self, installed: &mut Installed) -> Result<(), ApplyError> {
        let used = installed.tables.iter();
        let used = used.map(|(&index, table)| (index, table.generation.slots().len())).collect();
        let done = self.tables.tidy(&used, self.capacity.tables);
        installed.spares = self.tables.spares();
        done.map_err(|source| ApplyError {
            what: "make spare Maglev tables",
            source: source.into(),
        })
    }

    fn set_real_server(&mut self, index: u16, value: &abi::RealServer) -> Result<(), Refused> {
        Ok(self.real_servers.set(u32::from(index), value, 0)?)
    }

    fn look_for_port_ranges(&mut self, wanted: bool) -> Result<(), Refused> {
        let before = self.settings.get(&0, 0)?;
        Ok(self.settings.set(0, Settings { port_ranges: u32::from(wanted), ..before }, 0)?)
    }

    /// Lets the datapath note flows again, after notes were deleted.
    pub fn clear_full(&mut self) -> Result<(), ApplyError> {
        let mut clear = || -> Result<(), Refused> {
            let before = self.settings.get(&0, 0)?;
            if before.flow_table_full != 0 {
                self.settings.set(0, Settings { flow_table_full: 0, ..before }, 0)?;
            }
            Ok(())
        };
        clear().map_err(|source| ApplyError { what: "let flows be noted again", source })
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

/// How many entries each map is made for.
fn sizes(capacity: Capacity) -> [(&'static str, usize); 8] {
    [
        ("SERVICES", capacity.services),
        ("TABLES", capacity.tables),
        ("PREVIOUS", capacity.tables),
        ("NOTES", capacity.notes),
        // Half as many begin at a time as there are, at most.
        ("OPENINGS", capacity.notes / 2),
        ("REAL_SERVERS", capacity.real_servers),
        ("SERVICE_COUNTERS", capacity.services),
        ("SERVER_COUNTERS", capacity.real_servers),
    ]
}

fn fd<'a>(ebpf: &'a Ebpf, name: &'static str) -> Result<BorrowedFd<'a>, LoadError> {
    let map = ebpf.map(name).ok_or(LoadError::Missing(name))?;
    if let Map::Array(data)
    | Map::ArrayOfMaps(data)
    | Map::HashMap(data)
    | Map::LruHashMap(data)
    | Map::LpmTrie(data)
    | Map::PerCpuArray(data) = map
    {
        Ok(data.fd().as_fd())
    } else {
        Err(LoadError::Missing(name))
    }
}

fn io(name: &'static str) -> impl FnOnce(io::Error) -> LoadError {
    move |source| LoadError::Io { name, source }
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
