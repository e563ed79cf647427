//! Loading the object: maps of the sizes that are wanted, or those of a former daemon with all that
//! is in them.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    os::fd::{AsFd, BorrowedFd},
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, LpmTrie, Map, MapData, MapError, PerCpuArray},
    programs::ProgramError,
};
use lb_ebpf::abi::{self, ALWAYS, EMPTY, FOREVER, ForwardUntil};

use super::{
    ApplyError, Dataplane, Pins, apply::Refused, counters, front::Front, memory, notes::Notes,
    program, role, tables::Tables,
};
use crate::reconcile::{Capacity, Installed, InstalledTable};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/lb-xdp"));
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
