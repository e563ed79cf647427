//! Counters of services and real servers.

use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};

use nix::time::{ClockId, clock_gettime};

use super::{super::running::Running, Services, datapath::Seen, milliseconds, verdicts};
use crate::{
    control::{Counters, RealServerStats, ServiceStats, Stats},
    service::{Protocol, VirtualService},
};

pub(in crate::daemon) fn stats(running: &Running) -> Stats {
    let services = Services::of(running);
    let of_service = |service: &VirtualService| ServiceStats {
        name: service.name.clone(),
        address: service.address,
        protocol: service.protocol,
        counters: of_service(&services, service),
    };
    let of_real_server = |(address, memberships)| RealServerStats {
        address,
        counters: of_real_server(&services, address, memberships),
    };
    Stats {
        monotonic_ms: milliseconds(monotonic()),
        services: running.config().virtual_services.iter().map(of_service).collect(),
        real_servers: memberships(running).into_iter().map(of_real_server).collect(),
        verdicts: verdicts(running),
        exceptions: services.datapath().map(Seen::exceptions).unwrap_or_default(),
    }
}

pub(super) fn of_service(services: &Services<'_>, service: &VirtualService) -> Counters {
    let seen = services.datapath().zip(services.installed(service));
    let counters = seen.map_or(Counters::default(), |(seen, it)| seen.service_counters(it));
    with_new_flows(counters, service.protocol == Protocol::Tcp)
}

/// Of all its services.
pub(super) fn of_real_server(
    services: &Services<'_>,
    address: Ipv4Addr,
    memberships: Memberships,
) -> Counters {
    let seen = services.datapath().zip(services.index_of(address));
    let counters = seen.map_or(Counters::default(), |(seen, it)| seen.real_server_counters(it));
    with_new_flows(counters, memberships.tcp)
}

/// The services that a real server is in.
#[derive(Clone, Copy, Default)]
pub(super) struct Memberships {
    pub(super) services: usize,
    /// Whether one of them is TCP.
    tcp: bool,
}

pub(super) fn memberships(running: &Running) -> BTreeMap<Ipv4Addr, Memberships> {
    let mut found = BTreeMap::<_, Memberships>::new();
    for service in &running.config().virtual_services {
        for server in &service.real_servers {
            let memberships = found.entry(server.address).or_default();
            memberships.services += 1;
            memberships.tcp |= service.protocol == Protocol::Tcp;
        }
    }
    found
}

/// Only TCP has a packet that opens a flow.
fn with_new_flows(counters: Counters, tcp: bool) -> Counters {
    Counters { new_flows: tcp.then(|| counters.new_flows.unwrap_or(0)), ..counters }
}

fn monotonic() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default()
}
