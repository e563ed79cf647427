//! Why a flow goes where it goes: the question and the answer.

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddrV4},
    str::FromStr,
};

use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};

use super::{Neighbour, Refusal, RefusalKind};
use crate::service::{Forwarding, Hash, Protocol};

/// Which packet to explain; as a text, the query of `GET /v1/flows/explain`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowQuery {
    pub src: SocketAddrV4,
    pub dst: SocketAddrV4,
    pub protocol: Protocol,
    pub packet: PacketKind,
    /// By which it comes in; `None`: the first of `director.interfaces`.
    pub interface: Option<String>,
}

/// Which packet of its flow it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PacketKind {
    /// A TCP SYN, which begins a flow.
    Opening,
    #[default]
    Other,
}

/// The answer of the loaded program itself, in words.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    pub src: SocketAddrV4,
    pub dst: SocketAddrV4,
    pub protocol: Protocol,
    pub packet: PacketKind,
    /// By which the packet would come in.
    pub interface: String,
    /// One of `/v1/stats`.
    pub verdict: String,
    /// `transmit`, `pass` (to the kernel) or `drop`.
    pub action: String,
    /// `None` where no service has it; then most of what follows is missing as well.
    pub service: Option<String>,
    /// Whether this director forwards the service now.
    pub active: bool,
    pub hash: Option<Hash>,
    pub slot: Option<u32>,
    /// Who owns the slot.
    pub current: Option<Ipv4Addr>,
    /// Who owned it before the change in progress.
    pub previous: Option<PreviousOwner>,
    /// Where the packet goes.
    pub real_server: Option<Ipv4Addr>,
    /// How the real server was chosen; `None` where none was.
    pub choice: Option<Choice>,
    /// A sentence: why the packet goes there, or nowhere.
    pub why: String,
    pub mode: Option<Forwarding>,
    /// Of the real server.
    pub neighbour: Option<Hop>,
    /// Of the interface that the packet goes out by, in bytes.
    pub mtu: Option<u32>,
    /// What an operator should know and act on.
    pub warnings: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreviousOwner {
    pub address: Ipv4Addr,
    /// Whether it is gone, so that nothing can be kept for it.
    pub down: bool,
}

/// How to reach a real server on its link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hop {
    pub state: Neighbour,
    pub mac: Option<String>,
    pub interface: Option<String>,
}

/// The rule by which the datapath chose between a slot's owners.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Choice {
    /// The slot has one owner.
    Steady,
    /// A SYN goes to the owner of now, and the flow is noted.
    Opening,
    /// The flow table names it.
    Noted,
    /// The flow is older than the change.
    Previous,
    /// The flow's real server is gone; the owner of now takes its flows.
    Rehashed,
    /// The flow's real server is gone; the director answers with a reset.
    Reset,
    /// The flow table is full, so that a new flow could not be noted: the previous owner has it.
    Overflow,
}

impl fmt::Display for PacketKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Opening => "opening",
            Self::Other => "other",
        })
    }
}

impl FromStr for PacketKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "opening" => Ok(Self::Opening),
            "other" => Ok(Self::Other),
            other => Err(format!("`{other}` is not supported, expected `opening` or `other`")),
        }
    }
}

const EXPECTED: &str = "expected src=IPv4:PORT&dst=IPv4:PORT&protocol=tcp, and packet=opening or \
                        interface=NAME if need be";

impl FromStr for FlowQuery {
    type Err = Refusal;

    fn from_str(query: &str) -> Result<Self, Refusal> {
        let invalid = |problem: String| {
            Refusal::new(RefusalKind::Invalid, format!("query `{query}`: {problem}"))
        };
        let (mut src, mut dst, mut protocol, mut packet, mut interface) =
            (None, None, None, None, None);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) =
                pair.split_once('=').ok_or_else(|| invalid(format!("`{pair}`, {EXPECTED}")))?;
            let value = percent_decode_str(value).decode_utf8_lossy().into_owned();
            let slot = match key {
                "src" => &mut src,
                "dst" => &mut dst,
                "protocol" => &mut protocol,
                "packet" => &mut packet,
                "interface" => &mut interface,
                unknown => return Err(invalid(format!("`{unknown}` is unknown, {EXPECTED}"))),
            };
            if slot.replace(value).is_some() {
                return Err(invalid(format!("`{key}` is there twice")));
            }
        }
        let missing = |key| invalid(format!("`{key}` is missing, {EXPECTED}"));
        let address = |key, value: Option<String>| {
            let value = value.ok_or_else(|| missing(key))?;
            value.parse().map_err(|_| invalid(format!("`{key}` is `{value}`, {EXPECTED}")))
        };
        let parsed = Self {
            src: address("src", src)?,
            dst: address("dst", dst)?,
            protocol: protocol
                .ok_or_else(|| missing("protocol"))?
                .parse()
                .map_err(|error| invalid(format!("{error}")))?,
            packet: packet.map_or(Ok(PacketKind::Other), |it| it.parse()).map_err(invalid)?,
            interface,
        };
        parsed.check()?;
        Ok(parsed)
    }
}

impl FlowQuery {
    /// Only TCP has a packet that opens a flow.
    pub fn check(&self) -> Result<(), Refusal> {
        match (self.protocol, self.packet) {
            (Protocol::Udp, PacketKind::Opening) => {
                Err(Refusal::new(RefusalKind::Invalid, "udp has no packet that opens a flow"))
            }
            (Protocol::Udp, PacketKind::Other)
            | (Protocol::Tcp, PacketKind::Opening | PacketKind::Other) => Ok(()),
        }
    }
}
