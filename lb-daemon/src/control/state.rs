//! What runs, as the API tells it.

use std::{collections::BTreeMap, net::Ipv4Addr, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use super::{Counters, Exceptions};
use crate::service::{self, Forwarding, Hash, OnDown, Protocol, ServiceAddress};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// `director.id`, or the host's name.
    pub director: String,
    pub version: String,
    pub pid: u32,
    pub uptime_ms: u64,
    pub config: ConfigStatus,
    pub interfaces: Vec<Interface>,
    pub virtual_services: Vec<Service>,
    pub virtual_routers: Vec<VirtualRouter>,
    /// Packets by verdict, summed over CPUs, since the datapath was first loaded.
    pub verdicts: BTreeMap<String, u64>,
    pub memory: Memory,
    pub exceptions: Exceptions,
    /// What an operator should know and act on; empty when all is well.
    pub warnings: Vec<String>,
}

/// Bytes that the kernel accounts to the maps of the datapath; all 0 where none is loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// Maglev tables, with what their slots were before a change.
    pub tables: u64,
    pub services: u64,
    /// The flow table.
    pub flows: u64,
    pub counters: u64,
    /// Of all maps, also those that are none of the above.
    pub total: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConfigStatus {
    pub file: PathBuf,
    /// Why the last reload was refused; `None` when what runs is what the file said.
    pub refused: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interface {
    pub name: String,
    /// `native` or `generic`.
    pub xdp_mode: String,
    /// Why the mode is not native, where it is not.
    pub reason: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Service {
    pub name: String,
    pub address: ServiceAddress,
    pub protocol: Protocol,
    pub forwarding: Forwarding,
    pub hash: Hash,
    /// `None`: every flow follows the table at once.
    pub tracking: Option<Tracking>,
    /// Whether this director forwards it now, and if not, why.
    pub forwards: Forwards,
    pub table_size: u32,
    /// Equal on two directors if and only if their tables are.
    pub table_digest: String,
    /// Other services that use this very table.
    pub table_shared_with: usize,
    /// The largest deviation of a real server's share from the exact one, relative to that: 0.01
    /// is one per cent.
    pub largest_deviation: f64,
    /// Slots that the last change gave to another real server; `None` before the first.
    pub slots_moved: Option<u32>,
    /// `None`: no flow goes another way than its slot says.
    pub change: Option<Change>,
    pub real_servers: usize,
    /// Real servers that can receive packets now.
    pub real_servers_ready: usize,
}

/// What becomes of flows when real servers change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tracking {
    pub on_down: OnDown,
    pub drain_timeout_ms: u64,
    pub idle_timeout_ms: u64,
}

/// A change of real servers whose older flows are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Slots that have a previous owner.
    pub slots: u32,
    /// Flows that began since, and are noted.
    pub exceptions: u64,
    /// Milliseconds since it began.
    pub since_ms: u64,
    /// Milliseconds until it ends at the latest.
    pub ends_in_ms: u64,
}

/// One service, with all that is known of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceDetail {
    pub service: Service,
    pub counters: Counters,
    pub real_servers: Vec<RealServerDetail>,
}

/// A real server of a service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RealServerDetail {
    #[serde(flatten)]
    pub real_server: RealServer,
    /// Services that it is in; this one alone, or its counters are those of all of them.
    pub services: usize,
    pub counters: Counters,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Forwards {
    Yes,
    /// The virtual router of its VIP is not active here.
    NotActive,
    /// No real server has a slot.
    NoRealServer,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RealServer {
    pub service: String,
    pub address: Ipv4Addr,
    pub weight: u16,
    pub state: RealServerState,
    /// The share of the service's slots, 0 to 1.
    pub share: f64,
    /// What the share would be if slots could be divided, 0 to 1.
    pub exact_share: f64,
    /// Slots of others that are kept for its older flows.
    pub slots_previous: u32,
    /// Flows of it that are noted, as they go another way than their slot says.
    pub exceptions: u64,
    pub neighbour: Neighbour,
    /// Where the neighbour has one.
    pub mac: Option<String>,
    pub interface: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RealServerState {
    /// Takes new flows.
    Active,
    /// Keeps its flows and takes no new ones: its weight is 0.
    Draining,
}

/// What the kernel's neighbour table says of a real server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Neighbour {
    Ready,
    /// Not answered yet, or no longer.
    Unresolved,
    /// No route through one of the director's interfaces, or only through a gateway.
    OffLink,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VirtualRouter {
    pub name: String,
    pub interface: String,
    pub vrid: u8,
    pub priority: u8,
    pub advertisement_interval_ms: u64,
    /// `initialize`, `backup`, `active`, `resigning` or `resuming`.
    pub state: String,
    /// Milliseconds in this state.
    pub since_ms: u64,
    /// Why it came into this state, for a person.
    pub cause: String,
    pub vips: Vec<String>,
    /// The active router, where it is known and not this one.
    pub active_router: Option<Ipv4Addr>,
    pub transitions: u64,
    pub advertisements_sent: u64,
    pub advertisements_received: u64,
    /// Advertisements for our VRID with other VIPs than ours, acted on all the same.
    pub other_vips: u64,
    /// Packets that were not acted on, by reason.
    pub discarded: BTreeMap<String, u64>,
}

impl From<service::Tracking> for Tracking {
    fn from(tracking: service::Tracking) -> Self {
        let service::Tracking { on_down, drain_timeout, idle_timeout } = tracking;
        let ms = |timeout: Duration| u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        Self { on_down, drain_timeout_ms: ms(drain_timeout), idle_timeout_ms: ms(idle_timeout) }
    }
}

impl RealServerState {
    /// What a real server of this weight is.
    pub fn of_weight(weight: u16) -> Self {
        if weight == 0 { Self::Draining } else { Self::Active }
    }
}
