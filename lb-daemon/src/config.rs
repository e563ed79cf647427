//! The configuration of a director: read as written, then checked as a whole.
//!
//! [`load`] is the only way to obtain a [`Config`], so the rest of the daemon never meets an
//! unchecked one. It reports every fault it finds, each with its place in the file.

use std::{collections::BTreeSet, fmt, net::Ipv4Addr, num::NonZeroU8, path::Path, time::Duration};

use serde::{Deserialize, Serialize};

use crate::service::VirtualService;

mod check;
pub mod edit;
mod fault;
mod file;
pub mod nearest;
mod raw;
mod value;

pub use fault::{ConfigErrors, Fault};
pub use file::{ReadError, read};

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
    /// Exceptions that the datapath can note.
    pub flow_table_size: u32,
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

impl Config {
    /// The real servers of all virtual services.
    pub fn real_server_addresses(&self) -> BTreeSet<Ipv4Addr> {
        let services = self.virtual_services.iter();
        services.flat_map(|service| service.real_servers.iter().map(|it| it.address)).collect()
    }
}

impl VirtualRouter {
    /// The VIPs that follow its state, advertised or not.
    pub fn all_vips(&self) -> impl Iterator<Item = Vip> + '_ {
        self.vips.iter().chain(&self.more_vips).copied()
    }
}

/// An address with the prefix length it is added with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Vip {
    pub address: Ipv4Addr,
    pub prefix_len: u8,
}

impl fmt::Display for Vip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_len)
    }
}

/// Checks the text of the configuration file `file`, whose name appears in the faults.
pub fn load(file: &Path, text: &str) -> Result<Config, ConfigErrors> {
    let faults = fault::Faults::new(text);
    let config = match toml::de::DeTable::parse(text) {
        Ok(written) => {
            let root = raw::Section::root(written.get_ref(), &faults);
            check::file(root)
        }
        Err(error) => {
            faults.add(error.span().unwrap_or(0..0), "", error.message());
            None
        }
    };
    faults.verdict(file, config)
}

#[cfg(test)]
mod tests;
