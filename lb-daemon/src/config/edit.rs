//! Edits of the configuration text that keep its comments and order. Pure: text in, text out.

use std::net::{Ipv4Addr, SocketAddrV4};

use serde::{Deserialize, Serialize};

use crate::service::{Forwarding, Protocol};

/// One change of the configuration, as `lbctl` asks for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "edit", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Edit {
    AddService { name: String, address: SocketAddrV4, protocol: Protocol, forwarding: Forwarding },
    DeleteService { name: String },
    AddRealServer { service: String, address: Ipv4Addr, weight: u16 },
    SetRealServer { service: String, address: Ipv4Addr, weight: u16 },
    DeleteRealServer { service: String, address: Ipv4Addr },
}
