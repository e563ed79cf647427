//! What a director serves: virtual services and their real servers.

use std::{fmt, net::Ipv4Addr, num::NonZeroU16, ops::RangeInclusive, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

mod text;

pub use text::AddressError;

/// Slots of a Maglev table; must be a prime.
pub const TABLE_SIZES: RangeInclusive<u32> = 1_021..=655_373;
pub const DEFAULT_TABLE_SIZE: u32 = 65_537;
pub const DEFAULT_WEIGHT: u16 = 1;
/// The length of prefix that a service hashes by if it hashes by source.
pub const WHOLE_ADDRESS: u8 = 32;
/// Flows that go another way than their slot says, for as long as a change is in progress.
pub const DEFAULT_FLOW_TABLE_SIZE: u32 = 65_536;
/// How long flows of before a change are kept at most.
pub const DEFAULT_DRAIN_TIMEOUT: Duration = Duration::from_secs(3600);
/// As LVS has them: a flow that has sent nothing for so long counts as gone.
pub const DEFAULT_IDLE_TIMEOUT_TCP: Duration = Duration::from_secs(900);
pub const DEFAULT_IDLE_TIMEOUT_UDP: Duration = Duration::from_secs(300);

/// A VIP, ports and protocol, with the real servers behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtualService {
    /// Unique within a configuration.
    pub name: String,
    pub address: ServiceAddress,
    pub protocol: Protocol,
    pub forwarding: Forwarding,
    pub hash: Hash,
    /// Slots of the Maglev table; a prime.
    pub table_size: u32,
    /// What a change of the real servers keeps; `None`: every flow follows the table at once.
    pub tracking: Option<Tracking>,
    /// Addresses are unique within a service; in the order of the file.
    pub real_servers: Vec<RealServer>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RealServer {
    pub address: Ipv4Addr,
    /// The share of slots relative to the other real servers; 0 keeps its flows and takes no new
    /// ones.
    pub weight: u16,
}

/// What a flow is hashed by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hash {
    /// Addresses, ports and protocol.
    #[default]
    Flow,
    /// The source address alone, to this length of prefix (1 to 32): all flows of a client go to
    /// one real server, also those to other services with the same pool.
    Source { prefix_len: u8 },
}

/// How long, and for whom, the datapath remembers who had a slot before a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tracking {
    pub on_down: OnDown,
    pub drain_timeout: Duration,
    pub idle_timeout: Duration,
}

/// What becomes of the flows of a real server that is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnDown {
    /// They go to who has the slot now, whose TCP answers with a reset.
    #[default]
    Rehash,
    /// The director answers with a reset itself.
    Reset,
}

/// A VIP, and which of its ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceAddress {
    pub vip: Ipv4Addr,
    pub ports: Ports,
}

/// Ports of a VIP; the narrowest service that has a port takes its packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ports {
    One(NonZeroU16),
    /// First and last, the first below the last.
    Range(NonZeroU16, NonZeroU16),
    Any,
}

impl ServiceAddress {
    pub const fn one(vip: Ipv4Addr, port: NonZeroU16) -> Self {
        Self { vip, ports: Ports::One(port) }
    }

    pub fn contains(&self, port: u16) -> bool {
        match self.ports {
            Ports::One(one) => one.get() == port,
            Ports::Range(first, last) => (first.get()..=last.get()).contains(&port),
            Ports::Any => true,
        }
    }
}

impl fmt::Display for ServiceAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ports {
            Ports::One(port) => write!(f, "{}:{port}", self.vip),
            Ports::Range(first, last) => write!(f, "{}:{first}-{last}", self.vip),
            Ports::Any => write!(f, "{}:any", self.vip),
        }
    }
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

impl Tracking {
    /// As a service of `protocol` that tracks has it unless told otherwise.
    pub const fn default_for(protocol: Protocol) -> Self {
        Self {
            on_down: OnDown::Rehash,
            drain_timeout: DEFAULT_DRAIN_TIMEOUT,
            idle_timeout: match protocol {
                Protocol::Tcp => DEFAULT_IDLE_TIMEOUT_TCP,
                Protocol::Udp => DEFAULT_IDLE_TIMEOUT_UDP,
            },
        }
    }
}

impl Protocol {
    /// Whether its services track unless told otherwise: only TCP has a packet that opens a flow,
    /// by which a new flow is told from one of before a change.
    pub const fn tracks_by_default(self) -> bool {
        match self {
            Self::Tcp => true,
            Self::Udp => false,
        }
    }
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
