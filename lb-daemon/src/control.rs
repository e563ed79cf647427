//! The API between `lbctl` and `lbd`: HTTP and JSON on a Unix socket.
//!
//! The types here are the JSON on both sides; `server` and `client` carry them.

use std::{
    collections::BTreeMap,
    future::Future,
    net::{Ipv4Addr, SocketAddrV4},
    path::PathBuf,
};

use serde::{Deserialize, Serialize};

use crate::{
    config::{
        ConfigErrors, ReadError,
        edit::{Edit, EditError},
    },
    service::{DEFAULT_WEIGHT, Forwarding, Protocol},
};

pub mod client;
pub mod server;

/// Where `lbd` listens unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/lbd/lbd.sock";

/// What the API needs of the daemon.
pub trait Control: Send + Sync + 'static {
    fn status(&self) -> impl Future<Output = Status> + Send;
    fn services(&self) -> impl Future<Output = Vec<Service>> + Send;
    /// Of one service, or of all.
    fn real_servers(
        &self,
        service: Option<&str>,
    ) -> impl Future<Output = Result<Vec<RealServer>, Refusal>> + Send;
    fn virtual_routers(&self) -> impl Future<Output = Vec<VirtualRouter>> + Send;
    /// Changes the configuration file and what runs, both or neither.
    fn edit(&self, edit: Edit) -> impl Future<Output = Result<(), Refusal>> + Send;
    /// Reads the configuration file again.
    fn reload(&self) -> impl Future<Output = Result<(), Refusal>> + Send;
}

/// Why the daemon did not do what was asked; nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    pub kind: RefusalKind,
    /// For a person: what was found, and what to do.
    pub message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RefusalKind {
    /// A name that does not exist.
    NotFound,
    /// It exists already, or the file was changed by hand.
    Conflict,
    /// The configuration would be, or is, invalid.
    Invalid,
    /// The machine did not let us.
    Failed,
}

impl Refusal {
    pub fn new(kind: RefusalKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}

impl From<EditError> for Refusal {
    fn from(error: EditError) -> Self {
        let kind = match error {
            EditError::UnknownService { .. } | EditError::UnknownRealServer { .. } => {
                RefusalKind::NotFound
            }
            EditError::ServiceExists { .. } | EditError::RealServerExists { .. } => {
                RefusalKind::Conflict
            }
            EditError::Unreadable { .. } => RefusalKind::Invalid,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<ConfigErrors> for Refusal {
    fn from(errors: ConfigErrors) -> Self {
        Self::new(RefusalKind::Invalid, errors.to_string())
    }
}

impl From<ReadError> for Refusal {
    fn from(error: ReadError) -> Self {
        Self::new(RefusalKind::Invalid, error.to_string())
    }
}

/// The body of `POST /v1/services`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewService {
    pub name: String,
    pub address: SocketAddrV4,
    #[serde(default)]
    pub protocol: Protocol,
    #[serde(default)]
    pub forwarding: Forwarding,
}

/// The body of `POST /v1/services/{name}/real-servers`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewRealServer {
    pub address: Ipv4Addr,
    #[serde(default = "default_weight")]
    pub weight: u16,
}

fn default_weight() -> u16 {
    DEFAULT_WEIGHT
}

/// The body of `PATCH /v1/services/{name}/real-servers/{address}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RealServerChange {
    pub weight: u16,
}

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
    /// What an operator should know and act on; empty when all is well.
    pub warnings: Vec<String>,
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
    pub address: SocketAddrV4,
    pub protocol: Protocol,
    pub forwarding: Forwarding,
    /// Whether this director forwards it now, and if not, why.
    pub forwards: Forwards,
    pub table_size: u32,
    /// Equal on two directors if and only if their tables are.
    pub table_digest: String,
    pub real_servers: usize,
    /// Real servers that can receive packets now.
    pub real_servers_ready: usize,
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
    /// The share of the service's slots, 0 to 1.
    pub share: f64,
    pub neighbour: Neighbour,
    /// Where the neighbour has one.
    pub mac: Option<String>,
    pub interface: Option<String>,
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
