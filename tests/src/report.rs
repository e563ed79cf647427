//! What the drill found, as JSON. Names are an interface: fields may be added, never renamed.
//!
//! All times are milliseconds. `at_ms` and `takeover_ms` count from the event of the scenario.

use std::{collections::BTreeMap, net::Ipv4Addr};

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The release of the kernel.
    pub kernel: String,
    /// `native` or `generic`, as the directors attached their program.
    pub xdp_mode: String,
    pub advertisement_interval_ms: u64,
    /// With repetitions, one entry for each.
    pub scenarios: Vec<ScenarioReport>,
    pub verdict: Verdict,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Pass,
    Fail,
}

impl Verdict {
    pub fn of(failures: &[String]) -> Self {
        if failures.is_empty() { Self::Pass } else { Self::Fail }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScenarioReport {
    pub name: String,
    pub verdict: Verdict,
    /// Why the verdict is not `pass`, for a person.
    pub failures: Vec<String>,
    /// The long-lived connections, all open when the event happened.
    pub connections: Connections,
    /// Short connections, opened before, during and after the event.
    pub new_connections: NewConnections,
    /// At the client: from the last answer of the old director to the first answer of the new
    /// one; the longest where the VIP moves more than once. `None`: the new one never answered.
    /// Where the VIP stays, `probes.longest_loss`.
    pub outage_ms: Option<f64>,
    /// `outage_ms` has to be below this, and so has `probes.longest_loss`.
    pub outage_limit_ms: f64,
    /// The longest that a surviving connection waited for a confirmation that was due.
    pub longest_stall_ms: f64,
    /// From the event to the first sign of the new director at the client, its GARP or an answer.
    /// `None` as well where the VIP stays.
    pub takeover_ms: Option<f64>,
    pub probes: Probes,
    /// The client as the real servers saw it; DSR keeps its own address.
    pub clients_seen: Vec<Ipv4Addr>,
    /// Connections that each real server carried.
    pub by_real_server: BTreeMap<String, u64>,
    pub packets: Packets,
    /// Where the scenario changes the pool.
    pub pool_change: Option<PoolChange>,
    pub timeline: Vec<Moment>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connections {
    pub opened: u64,
    pub survived: u64,
    pub reset: u64,
    pub timed_out: u64,
    pub corrupted: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewConnections {
    pub attempted: u64,
    /// Did their job in the end; a lost SYN is repeated.
    pub succeeded: u64,
}

/// ICMP echo at the VIP, one a millisecond.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probes {
    pub sent: u64,
    pub lost: u64,
    /// The most consecutive probes without an answer of anybody, from the event on: at one a
    /// millisecond, the longest hole for a client, whoever held the VIP.
    pub longest_loss: u64,
}

/// tshark's judgement of what left the directors.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packets {
    /// Packets judged, by protocol.
    pub judged: BTreeMap<String, u64>,
    /// Malformed, cut short, or with a bad checksum.
    pub malformed: u64,
    /// Packets that the capture lost; they were not judged, and must be few.
    pub dropped: u64,
}

/// What became of the one real server whose share of the slots was changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PoolChange {
    pub real_server: String,
    /// Of the slots, 0 to 1.
    pub share_before: f64,
    pub share_after: f64,
    /// Short connections that were opened after the active director had confirmed the change.
    pub opened_since: u64,
    /// Those of them that this real server got.
    pub opened_there_since: u64,
    /// From the event to the opening of the first one that it got, after the event.
    pub first_new_ms: Option<f64>,
    /// From the event to the opening of the last one that it got; negative: before the event.
    pub last_new_ms: Option<f64>,
    /// Long-lived connections that it had before the event, and carried to their end.
    pub kept: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Moment {
    pub at_ms: f64,
    pub who: String,
    pub what: String,
}
