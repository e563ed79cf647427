//! Counters, as the API tells them: all since the datapath was first loaded, summed over CPUs.

use std::{collections::BTreeMap, net::Ipv4Addr};

use serde::{Deserialize, Serialize};

use crate::service::{Protocol, ServiceAddress};

/// The answer of `GET /v1/stats`. Rates are the reader's to compute, from two of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// When they were read, in milliseconds of `CLOCK_MONOTONIC`.
    pub monotonic_ms: u64,
    /// In the order of the configuration.
    pub services: Vec<ServiceStats>,
    /// Each once, however many services it is in; by address.
    pub real_servers: Vec<RealServerStats>,
    /// Packets by verdict.
    pub verdicts: BTreeMap<String, u64>,
    pub exceptions: Exceptions,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceStats {
    pub name: String,
    pub address: ServiceAddress,
    pub protocol: Protocol,
    pub counters: Counters,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RealServerStats {
    pub address: Ipv4Addr,
    pub counters: Counters,
}

/// What was sent to real servers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    pub packets: u64,
    /// Of whole frames.
    pub bytes: u64,
    /// TCP alone, which has a packet that opens a flow; `None` where there is no TCP.
    pub new_flows: Option<u64>,
}

/// Flows that the datapath remembers one by one, as they go another way than their slot says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exceptions {
    pub noted: u64,
    /// Of which nothing but the opening packet was seen yet.
    pub opening: u64,
    /// `director.flow-table-size`.
    pub capacity: u64,
}
