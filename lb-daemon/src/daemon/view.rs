//! What runs, as the API shows it.

use std::{path::Path, time::Duration};

use vrrp::io::RouterSnapshot;

use super::running::{Running, holds_vips};
use crate::{
    control::{
        ConfigStatus, Forwards, Interface, Neighbour, RealServer, Service, Status, VirtualRouter,
    },
    neighbour,
    reconcile,
    service::VirtualService,
};

pub(super) fn status(
    running: &Running,
    file: &Path,
    refused: Option<&str>,
    uptime: Duration,
) -> Status {
    let routers = running.routers();
    let interfaces = interfaces(running);
    let services = services_with(running, &routers);
    let verdicts = running
        .datapath()
        .map(|datapath| datapath.kernel.verdicts())
        .unwrap_or_default()
        .into_iter()
        .map(|(name, packets)| (name.to_owned(), packets))
        .collect();
    let mut status = Status {
        director: running.config().director.id.clone().unwrap_or_else(host_name),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        uptime_ms: milliseconds(uptime),
        config: ConfigStatus { file: file.to_owned(), refused: refused.map(str::to_owned) },
        interfaces,
        virtual_services: services,
        virtual_routers: virtual_routers(&routers),
        verdicts,
        warnings: vec![],
    };
    status.warnings = warnings(&status, &real_servers(running, None));
    status
}

pub(super) fn services(running: &Running) -> Vec<Service> {
    services_with(running, &running.routers())
}

fn services_with(running: &Running, routers: &[RouterSnapshot]) -> Vec<Service> {
    let neighbours = running.neighbours().borrow().clone();
    running
        .config()
        .virtual_services
        .iter()
        .map(|service| Service {
            name: service.name.clone(),
            address: std::net::SocketAddrV4::new(service.address.vip, 80),
            protocol: service.protocol,
            forwarding: service.forwarding,
            forwards: forwards(service, running, routers),
            table_size: service.table_size,
            table_digest: table(running, service)
                .map(|table| table.digest.clone())
                .unwrap_or_default(),
            real_servers: service.real_servers.len(),
            real_servers_ready: service
                .real_servers
                .iter()
                .filter(|server| {
                    let found = neighbours.get(&server.address);
                    matches!(found, Some(neighbour::Neighbour::Ready { .. }))
                })
                .count(),
        })
        .collect()
}

fn forwards(service: &VirtualService, running: &Running, routers: &[RouterSnapshot]) -> Forwards {
    let vip = service.address.vip;
    let router = running
        .config()
        .virtual_routers
        .iter()
        .find(|router| router.all_vips().any(|candidate| candidate.address == vip));
    let active = router.is_none_or(|router| {
        routers.iter().any(|snapshot| snapshot.name == router.name && holds_vips(snapshot))
    });
    if !active {
        Forwards::NotActive
    } else if service.real_servers.iter().all(|server| server.weight == 0) {
        Forwards::NoRealServer
    } else {
        Forwards::Yes
    }
}

pub(super) fn real_servers(running: &Running, service: Option<&str>) -> Vec<RealServer> {
    let neighbours = running.neighbours().borrow().clone();
    let services = running.config().virtual_services.iter();
    services
        .filter(|candidate| service.is_none_or(|name| candidate.name == name))
        .flat_map(|service| {
            let shares = table(running, service).map(|table| &table.shares);
            let neighbours = &neighbours;
            service.real_servers.iter().map(move |server| {
                let (neighbour, mac, interface) = match neighbours.get(&server.address) {
                    Some(neighbour::Neighbour::Ready { hop, interface }) => (
                        Neighbour::Ready,
                        Some(neighbour::mac(hop.destination_mac)),
                        Some(interface.clone()),
                    ),
                    Some(neighbour::Neighbour::OffLink) => (Neighbour::OffLink, None, None),
                    Some(neighbour::Neighbour::Unresolved) | None => {
                        (Neighbour::Unresolved, None, None)
                    }
                };
                RealServer {
                    service: service.name.clone(),
                    address: server.address,
                    weight: server.weight,
                    share: shares
                        .and_then(|shares| shares.get(&server.address).copied())
                        .unwrap_or(0.0),
                    neighbour,
                    mac,
                    interface,
                }
            })
        })
        .collect()
}

fn table<'a>(running: &'a Running, service: &VirtualService) -> Option<&'a reconcile::Quality> {
    let key = reconcile::key(&service.address, service.protocol);
    let installed = &running.datapath()?.installed;
    let table = installed.services.get(&key)?.table;
    Some(&installed.tables.get(&table)?.made.as_ref()?.1)
}

pub(super) fn virtual_routers(routers: &[RouterSnapshot]) -> Vec<VirtualRouter> {
    routers
        .iter()
        .map(|router| VirtualRouter {
            name: router.name.clone(),
            interface: router.interface.clone(),
            vrid: router.vrid,
            priority: router.priority,
            advertisement_interval_ms: milliseconds(router.interval),
            state: router.state.to_owned(),
            since_ms: milliseconds(router.since),
            cause: router.cause.clone(),
            vips: router
                .vips
                .iter()
                .map(|vip| format!("{}/{}", vip.address, vip.prefix_len))
                .collect(),
            active_router: router.active_router,
            transitions: router.transitions,
            advertisements_sent: router.advertisements_sent,
            advertisements_received: router.advertisements_received,
            other_vips: router.other_vips,
            discarded: router
                .discarded
                .iter()
                .map(|(&reason, &packets)| (reason.to_owned(), packets))
                .collect(),
        })
        .collect()
}

fn interfaces(running: &Running) -> Vec<Interface> {
    let Some(datapath) = running.datapath() else { return vec![] };
    datapath
        .kernel
        .attached()
        .iter()
        .map(|(name, attached)| Interface {
            name: name.clone(),
            xdp_mode: attached.mode.name().to_owned(),
            reason: attached.reason.clone(),
        })
        .collect()
}

/// Beside a refused reload, which has its own place.
fn warnings(status: &Status, real_servers: &[RealServer]) -> Vec<String> {
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
                "{}: no real server takes flows, packets are dropped; \
                 add one with `lbctl real add {} ADDRESS`",
                service.name, service.name
            ));
        }
    }
    for server in real_servers.iter().filter(|server| server.weight > 0) {
        let problem = match server.neighbour {
            Neighbour::Ready => continue,
            Neighbour::Unresolved => "does not answer ARP, its flows are lost",
            Neighbour::OffLink => {
                "is on no link of [director] interfaces, which dr needs, or is this director"
            }
        };
        warnings.push(format!("{}: real server {} {problem}", server.service, server.address));
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

fn host_name() -> String {
    nix::unistd::gethostname()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_else(|_| "director".to_owned())
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
