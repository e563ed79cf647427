//! What an operator should know and act on.

use std::collections::BTreeMap;

use crate::control::{Exceptions, Forwards, Neighbour, RealServer, Status};

/// Beside a refused reload, which has its own place.
pub(super) fn of(status: &Status, real_servers: &[RealServer]) -> Vec<String> {
    let mut warnings = Vec::new();
    for interface in &status.interfaces {
        if let Some(reason) = &interface.reason {
            warnings.push(format!(
                "{}: XDP runs in generic mode, several times slower ({reason})",
                interface.name
            ));
        }
    }
    for service in &status.virtual_services {
        if service.forwards == Forwards::NoRealServer {
            warnings.push(format!(
                "{}: no real server takes new flows, they are dropped; \
                 add one with `lbctl real add {} ADDRESS`",
                service.name, service.name
            ));
        }
    }
    warnings.extend(unreachable(real_servers));
    let Exceptions { noted, capacity, .. } = status.exceptions;
    if capacity > 0 && noted >= capacity {
        warnings.push(format!(
            "the flow table is full ({noted} exceptions): new flows of slots that changed hands join \
             older ones; raise flow-table-size in [director]"
        ));
    }
    for router in &status.virtual_routers {
        if router.other_vips > 0 {
            warnings.push(format!(
                "{}: {} advertisements listed other VIPs than ours; the directors of a pair should \
                 have the same",
                router.name, router.other_vips
            ));
        }
        warnings.extend(router.discarded.iter().filter_map(|(reason, packets)| {
            Some(format!("{}: {packets} {}", router.name, discard_warning(reason)?))
        }));
    }
    warnings
}

/// One for each real server, however many services it is in.
fn unreachable(real_servers: &[RealServer]) -> Vec<String> {
    let mut found = BTreeMap::<_, (&str, usize, &str)>::new();
    for server in real_servers.iter().filter(|server| server.weight > 0) {
        let problem = match server.neighbour {
            Neighbour::Ready => continue,
            Neighbour::Unresolved => "does not answer ARP, its flows are lost",
            Neighbour::OffLink => {
                "is on no link of [director] interfaces, which dr needs, or is this director"
            }
        };
        let (_, services, _) = found.entry(server.address).or_insert((&server.service, 0, problem));
        *services += 1;
    }
    let warning = |(address, (service, services, problem))| {
        let others = match services {
            1 => String::new(),
            services => format!(" and {} more", services - 1),
        };
        format!("{service}{others}: real server {address} {problem}")
    };
    found.into_iter().map(warning).collect()
}

/// What a counter of the virtual router means to its operator; `None`: nothing to act on.
fn discard_warning(reason: &str) -> Option<String> {
    Some(match reason {
        // Other virtual routers on the same link, our own multicast that came back, and what was
        // put right already.
        "vrid" | "own-address" | "vip-restored" | "interface-reopened" => return None,
        "send-failed"
        | "receive-failed"
        | "announce-failed"
        | "address-failed"
        | "interface-unusable"
        | "interfaces-unreadable" => {
            format!("times {reason}: see the log, and whether the link is up")
        }
        reason => format!(
            "advertisements discarded ({reason}): is another router with this VRID configured \
             differently?"
        ),
    })
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::control::RealServerState;

    #[test]
    fn a_real_server_of_many_services_is_one_warning() {
        let server = |service: &str, host, weight, neighbour| RealServer {
            service: service.to_owned(),
            address: Ipv4Addr::new(10, 77, 0, host),
            weight,
            state: RealServerState::of_weight(weight),
            share: 0.0,
            exact_share: 0.0,
            slots_previous: 0,
            exceptions: 0,
            neighbour,
            mac: None,
            interface: None,
        };
        let servers = [
            server("web", 11, 1, Neighbour::Unresolved),
            server("web", 12, 1, Neighbour::Ready),
            server("web", 13, 1, Neighbour::OffLink),
            server("dns", 11, 2, Neighbour::Unresolved),
            server("ssh", 11, 0, Neighbour::Unresolved),
        ];
        assert_eq!(
            unreachable(&servers),
            [
                "web and 1 more: real server 10.77.0.11 does not answer ARP, its flows are lost",
                "web: real server 10.77.0.13 is on no link of [director] interfaces, which dr \
                 needs, or is this director",
            ]
        );
    }
}
