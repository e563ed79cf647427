//! What a scenario must not show, whatever happens in it.

use std::time::Duration;

use crate::{
    capture::Judgement,
    lab::CLIENT,
    probe::INTERVAL,
    report::{Packets, Probes},
    traffic::LoadReport,
};

/// What the capture may lose, and its judgement still stand.
const DROPPED_PERCENT: u64 = 5;

/// An outage ends with one answer of the new director; this is about the others too.
pub(super) fn of_probes(probes: Probes, limit: Duration) -> Option<String> {
    let hole = longest_hole(probes);
    (hole >= limit).then(|| {
        let count = probes.longest_loss;
        format!("{count} probes in a row lost, which is {hole:?}, expected below {limit:?}")
    })
}

pub(super) fn longest_hole(probes: Probes) -> Duration {
    INTERVAL * u32::try_from(probes.longest_loss).unwrap_or(u32::MAX)
}

pub(super) fn of_load(load: &LoadReport) -> Vec<String> {
    let mut faults = Vec::new();
    let connections = load.connections;
    if connections.survived != connections.opened {
        faults.push(format!(
            "{} of {} connections survived: {} reset, {} timed out, {} corrupted",
            connections.survived,
            connections.opened,
            connections.reset,
            connections.timed_out,
            connections.corrupted
        ));
    }
    let new = load.new_connections;
    if new.succeeded != new.attempted || new.attempted == 0 {
        faults.push(format!("{} of {} new connections succeeded", new.succeeded, new.attempted));
    }
    let others = load.clients_seen.iter().filter(|address| **address != CLIENT);
    faults.extend(others.map(|other| format!("a real server saw {other}, expected {CLIENT}")));
    faults.extend(load.faults.iter().cloned());
    faults
}

pub(super) fn of_packets(judgement: &Judgement) -> Vec<String> {
    let mut faults = Vec::new();
    for protocol in ["vrrp", "arp", "tcp"] {
        if judgement.packets.judged.get(protocol).is_none_or(|count| *count == 0) {
            faults.push(format!("the capture has no {protocol} packet"));
        }
    }
    let Packets { judged, dropped, .. } = &judgement.packets;
    // All that is captured is one or the other.
    let captured: u64 = ["ip", "arp"].iter().filter_map(|protocol| judged.get(*protocol)).sum();
    if dropped * 100 > (captured + dropped) * DROPPED_PERCENT {
        faults.push(format!(
            "the capture lost {dropped} of {} packets, expected {DROPPED_PERCENT} % at most",
            captured + dropped
        ));
    }
    if judgement.packets.malformed > 0 {
        faults.push(format!("tshark: {} malformed packets", judgement.packets.malformed));
        faults.extend(judgement.faults.iter().map(|fault| format!("tshark: packet {fault}")));
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capture_that_lost_much_is_no_proof() {
        for (dropped, is_fault) in [(0, false), (50, false), (60, true)] {
            let judged = [("ip", 900), ("tcp", 850), ("vrrp", 50), ("arp", 100)];
            let judged = judged.map(|(name, count)| (name.to_owned(), count)).into();
            let packets = Packets { judged, malformed: 0, dropped };
            let faults = of_packets(&Judgement { packets, faults: vec![] });
            assert_eq!(!faults.is_empty(), is_fault, "{dropped} of 1,000: {faults:?}");
        }
    }
}
