//! The configuration of a director: read as written, then checked as a whole.
//!
//! [`load`] is the only way to obtain a [`Config`], so the rest of the daemon never meets an
//! unchecked one. It reports every fault it finds, each with its place in the file.

use std::{net::Ipv4Addr, num::NonZeroU8, path::Path, time::Duration};

use serde::{Deserialize, Serialize};

use crate::service::VirtualService;

pub mod edit;

#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub director: Director,
    /// In the order of the file.
    pub virtual_services: Vec<VirtualService>,
    /// In the order of the file.
    pub virtual_routers: Vec<VirtualRouter>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Director {
    /// `None`: the host's name.
    pub id: Option<String>,
    /// Where the XDP program is attached; not empty when there is a virtual service.
    pub interfaces: Vec<String>,
    pub xdp_mode: XdpMode,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum XdpMode {
    /// Native, else generic with a warning.
    Auto,
    Native,
    Generic,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtualRouter {
    pub name: String,
    pub interface: String,
    pub vrid: NonZeroU8,
    pub priority: NonZeroU8,
    /// 10 ms to 40.95 s in whole centiseconds (RFC 9568 §5.2.7).
    pub advertisement_interval: Duration,
    pub preempt: bool,
    pub preempt_delay: Duration,
    /// Advertised, and added to the interface while active; never empty.
    pub vips: Vec<Vip>,
    /// Follow the state as `vips` do, but are not advertised.
    pub more_vips: Vec<Vip>,
}

/// An address with the prefix length it is added with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Vip {
    pub address: Ipv4Addr,
    pub prefix_len: u8,
}

/// Every fault found in one file, in file order; never empty.
#[derive(Debug)]
pub struct ConfigErrors {}

/// Checks the text of the configuration file `file`, whose name appears in the faults.
pub fn load(_file: &Path, _text: &str) -> Result<Config, ConfigErrors> {
    todo!()
}
