//! The API between `lbctl` and `lbd`: HTTP and JSON on a Unix socket.
//!
//! The types here are the JSON on both sides; `server` and `client` carry them.

use std::{future::Future, net::Ipv4Addr};

use serde::{Deserialize, Serialize};

use crate::{
    config::{
        ConfigErrors, ReadError,
        edit::{Edit, EditError},
    },
    service::DEFAULT_WEIGHT,
};

pub mod client;
mod explain;
pub mod server;
mod state;
mod stats;

/// The body of `POST /v1/services`.
pub use crate::config::edit::NewService;
pub use explain::{Choice, Explanation, FlowQuery, Hop, PacketKind, PreviousOwner};
pub use state::{
    Change, ConfigStatus, Forwards, Interface, Memory, Neighbour, RealServer, RealServerDetail,
    RealServerState, Service, ServiceDetail, Status, Tracking, VirtualRouter,
};
pub use stats::{Counters, Exceptions, RealServerStats, ServiceStats, Stats};

/// Where `lbd` listens unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/lbd/lbd.sock";

/// What the API needs of the daemon.
pub trait Control: Send + Sync + 'static {
    fn status(&self) -> impl Future<Output = Status> + Send;
    fn services(&self) -> impl Future<Output = Vec<Service>> + Send;
    fn service(&self, name: &str) -> impl Future<Output = Result<ServiceDetail, Refusal>> + Send;
    /// Of one service, or of all.
    fn real_servers(
        &self,
        service: Option<&str>,
    ) -> impl Future<Output = Result<Vec<RealServer>, Refusal>> + Send;
    fn virtual_routers(&self) -> impl Future<Output = Vec<VirtualRouter>> + Send;
    fn stats(&self) -> impl Future<Output = Stats> + Send;
    /// What the loaded program does with a packet of a flow, and why.
    fn explain(
        &self,
        query: FlowQuery,
    ) -> impl Future<Output = Result<Explanation, Refusal>> + Send;
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
