//! What runs, as the API shows it.

use std::{collections::BTreeMap, path::Path, time::Duration};

use vrrp::io::RouterSnapshot;

use super::running::Running;
use crate::control::{
    ConfigStatus, Interface, RealServer, Refusal, Service, ServiceDetail, Status, VirtualRouter,
};

mod datapath;
mod explain;
mod service;
mod stats;
mod warnings;

pub(super) use explain::explain;
pub(super) use stats::stats;

use datapath::Seen;
use service::Services;

pub(super) fn status(
    running: &Running,
    file: &Path,
    refused: Option<&str>,
    uptime: Duration,
) -> Status {
    let routers = running.routers();
    let services = Services::of(running);
    let mut status = Status {
        director: running.config().director.id.clone().unwrap_or_else(host_name),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        uptime_ms: milliseconds(uptime),
        config: ConfigStatus { file: file.to_owned(), refused: refused.map(str::to_owned) },
        interfaces: interfaces(running),
        virtual_services: services.all(&routers),
        virtual_routers: virtual_routers(&routers),
        verdicts: verdicts(running),
        memory: services.datapath().map(Seen::memory).unwrap_or_default(),
        exceptions: services.datapath().map(Seen::exceptions).unwrap_or_default(),
        warnings: vec![],
    };
    status.warnings = warnings::of(&status, &services.real_servers());
    status
}

pub(super) fn services(running: &Running) -> Vec<Service> {
    Services::of(running).all(&running.routers())
}

/// One service with all that is known of it.
pub(super) fn service(running: &Running, name: &str) -> Result<ServiceDetail, Refusal> {
    Services::of(running).detail(name, &running.routers())
}

/// Of one service, or of all.
pub(super) fn real_servers(
    running: &Running,
    service: Option<&str>,
) -> Result<Vec<RealServer>, Refusal> {
    let services = Services::of(running);
    match service {
        Some(name) => services.real_servers_of(name),
        None => Ok(services.real_servers()),
    }
}

fn verdicts(running: &Running) -> BTreeMap<String, u64> {
    let verdicts = running.datapath().map(|datapath| datapath.kernel.verdicts());
    let verdicts = verdicts.unwrap_or_default().into_iter();
    verdicts.map(|(name, packets)| (name.to_owned(), packets)).collect()
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

fn host_name() -> String {
    nix::unistd::gethostname()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_else(|_| "director".to_owned())
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
