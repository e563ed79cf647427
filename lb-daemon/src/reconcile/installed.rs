//! What is installed in the maps, and the operations that change it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use lb_ebpf::{
    abi::{self, MAX_REAL_SERVERS, MAX_SERVICES, MAX_TABLES, Note, Previous, ServiceKey, Slot},
    flow::FlowKey,
};

use crate::{
    config::Config,
    generation::{Generation, SlotUpdate},
    maglev::Table,
    ports::Prefix,
    service::RealServer,
};

/// What the maps say, as far as it is known: a daemon that adopts the maps of another knows all of
/// it, but not from what the tables were made.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Installed {
    pub capacity: Capacity,
    pub services: BTreeMap<ServiceKey, abi::Service>,
    pub port_ranges: BTreeMap<Prefix, ServiceKey>,
    /// By index.
    pub tables: BTreeMap<u32, InstalledTable>,
    /// Tables that are there and that nobody has: by index, their slots.
    pub spares: BTreeMap<u32, u32>,
    /// By index.
    pub real_servers: BTreeMap<u16, abi::RealServer>,
    /// Index of the role of each virtual router.
    pub roles: BTreeMap<String, u32>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct InstalledTable {
    pub generation: Generation,
    /// From what it was made, sorted by address, and how well; `None` if it was adopted.
    pub made: Option<(Vec<RealServer>, Quality)>,
    /// How many slots the last change gave to another real server.
    pub moved: Option<u32>,
}

/// What an operator wants to know of a table.
#[derive(Clone, Debug, PartialEq)]
pub struct Quality {
    pub digest: String,
    pub shares: BTreeMap<Ipv4Addr, f64>,
    /// The largest deviation of a share from the exact one, relative to that.
    pub largest_deviation: f64,
}

impl Quality {
    pub fn of(table: &Table) -> Self {
        Self {
            digest: table.digest(),
            shares: table.shares(),
            largest_deviation: table.largest_deviation(),
        }
    }
}

/// How much the maps hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    pub services: usize,
    pub tables: usize,
    pub real_servers: usize,
    /// Notes of flows.
    pub notes: usize,
}

impl Default for Capacity {
    fn default() -> Self {
        Self {
            services: MAX_SERVICES,
            tables: MAX_TABLES,
            real_servers: MAX_REAL_SERVERS,
            notes: abi::DEFAULT_FLOWS,
        }
    }
}

impl Capacity {
    pub fn of(config: &Config) -> Self {
        Self::with_room(
            config.virtual_services.len(),
            config.real_server_addresses().len(),
            config.director.flow_table_size as usize,
        )
    }

    /// For as many services and real servers again, so that edits find room.
    pub fn with_room(services: usize, real_servers: usize, notes: usize) -> Self {
        let room = |used: usize, least: usize, most: usize| {
            (2 * used).next_power_of_two().clamp(least, most)
        };
        let services = room(services, 1_024, MAX_SERVICES);
        let real_servers = room(real_servers, 2_048, MAX_REAL_SERVERS);
        Self { services, tables: 2 * services, real_servers, notes }
    }
}

/// One change of a map. They are carried out in order: what a service refers to stands before
/// the service does, and goes after it.
#[derive(Clone, Debug, PartialEq)]
pub enum MapOp {
    SetRealServer {
        index: u16,
        value: abi::RealServer,
    },
    ClearRealServerCounters {
        index: u16,
    },
    ClearServiceCounters {
        id: u32,
    },
    /// As many previous owners as slots, or none.
    InstallTable {
        table: u32,
        slots: Vec<Slot>,
        previous: Vec<Previous>,
    },
    /// In place: each slot stands for itself.
    UpdateTable {
        table: u32,
        updates: Vec<SlotUpdate>,
    },
    SetService {
        key: ServiceKey,
        value: abi::Service,
    },
    SetPortRange {
        prefix: Prefix,
        key: ServiceKey,
    },
    DeletePortRange {
        prefix: Prefix,
    },
    LookForPortRanges(bool),
    DeleteService {
        key: ServiceKey,
    },
    /// With its number of slots.
    DeleteTable {
        table: u32,
        size: u32,
    },
    /// The previous owners of tables that stay; together, as the kernel waits each time.
    DeletePrevious {
        tables: Vec<u32>,
    },
    /// Says of a note whether its real server is down, and since when; unless it has become another
    /// flow's since it was read.
    MarkNote {
        key: FlowKey,
        note: Note,
    },
    /// Unless it has changed since it was read.
    DeleteNote {
        key: FlowKey,
        note: Note,
    },
    DeleteOpening {
        key: FlowKey,
        note: Note,
    },
    FreeRealServer {
        index: u16,
    },
}

/// A configuration that is larger than the maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "more {what} than the datapath holds ({limit}); its maps are made anew, larger, when lbd is \
     stopped (SIGTERM) and started again"
)]
pub struct TooMany {
    pub what: &'static str,
    pub limit: usize,
}

/// The numbers that are not in use, lowest first. One that a plan gives up is not among them:
/// packets may still look there until the plan has been carried out.
pub struct Free {
    used: BTreeSet<u32>,
    at: u32,
}

impl Free {
    pub fn except(used: impl Iterator<Item = u32>) -> Self {
        Self { used: used.collect(), at: 0 }
    }

    pub fn take(&mut self, limit: usize) -> Option<u32> {
        while self.used.contains(&self.at) {
            self.at += 1;
        }
        let number = self.at;
        self.at += 1;
        ((number as usize) < limit).then_some(number)
    }
}
