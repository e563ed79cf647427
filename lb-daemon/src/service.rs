//! What a director serves: virtual services and their real servers.

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddrV4},
    ops::RangeInclusive,
    str::FromStr,
};

use serde::{Deserialize, Serialize};

/// Slots of a Maglev table; must be a prime.
pub const TABLE_SIZES: RangeInclusive<u32> = 1_021..=655_373;
pub const DEFAULT_TABLE_SIZE: u32 = 65_537;
pub const DEFAULT_WEIGHT: u16 = 1;

/// A VIP, port and protocol, with the real servers behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtualService {
    /// Unique within a configuration.
    pub name: String,
    pub address: SocketAddrV4,
    pub protocol: Protocol,
    pub forwarding: Forwarding,
    /// Slots of the Maglev table; a prime.
    pub table_size: u32,
    /// Addresses are unique within a service; in the order of the file.
    pub real_servers: Vec<RealServer>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RealServer {
    pub address: Ipv4Addr,
    /// The share of slots relative to the other real servers; 0 takes no new flows.
    pub weight: u16,
}

#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    #[default]
    Tcp,
    Udp,
}

/// How a packet reaches the real server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Forwarding {
    /// Direct server return on one layer-2 segment: both MAC addresses are rewritten.
    #[default]
    Dr,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

impl fmt::Display for Forwarding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dr => "dr",
        })
    }
}

/// A word for something that this version does not do, or that does not exist.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{found}` is not supported, expected {expected}")]
pub struct Unsupported {
    found: String,
    expected: &'static str,
}

impl FromStr for Protocol {
    type Err = Unsupported;

    fn from_str(text: &str) -> Result<Self, Unsupported> {
        match text {
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            other => Err(Unsupported { found: other.to_owned(), expected: "`tcp` or `udp`" }),
        }
    }
}

impl FromStr for Forwarding {
    type Err = Unsupported;

    fn from_str(text: &str) -> Result<Self, Unsupported> {
        match text {
            "dr" => Ok(Self::Dr),
            other => Err(Unsupported { found: other.to_owned(), expected: "`dr`" }),
        }
    }
}
