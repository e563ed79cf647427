//! What runs, as the API shows it.

use std::{collections::BTreeMap, net::Ipv4Addr, path::Path, time::Duration};

use lb_ebpf::verdict::Verdict;
use vrrp::io::RouterSnapshot;

use super::running::{Datapath, Running};
use crate::{
    control::{
        Change, Choice, ConfigStatus, Counters, Exceptions, Interface, Memory, PreviousOwner,
        RealServer, Refusal, RefusalKind, Service, ServiceDetail, Status, VirtualRouter,
    },
    reconcile::InstalledService,
};

mod explain;
mod service;
mod stats;
mod warnings;

pub(super) use explain::explain;
pub(super) use stats::stats;

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
        memory: running.datapath().map(memory).unwrap_or_default(),
        exceptions: running.datapath().map(exceptions).unwrap_or_default(),
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

/// Bytes that the kernel accounts to the maps.
fn memory(_datapath: &Datapath) -> Memory {
    Memory::default() // FILLED BY CORE
}

fn exceptions(_datapath: &Datapath) -> Exceptions {
    Exceptions::default() // FILLED BY CORE
}

/// Slots that the last change gave to another real server.
fn slots_moved(_service: &InstalledService) -> Option<u32> {
    None // FILLED BY CORE
}

/// `None`: the older generation of the service has retired.
fn change(_service: &InstalledService) -> Option<Change> {
    None // FILLED BY CORE
}

/// What is kept for the older flows of one real server.
#[derive(Default)]
struct Kept {
    slots: u32,
    exceptions: u64,
}

fn kept(_service: &InstalledService, _index: u16) -> Kept {
    Kept::default() // FILLED BY CORE
}

/// `new_flows` is for the caller to leave out where there is no TCP.
fn service_counters(_datapath: &Datapath, _service: &InstalledService) -> Counters {
    Counters { new_flows: Some(0), ..Counters::default() } // FILLED BY CORE
}

fn real_server_counters(_datapath: &Datapath, _index: u16) -> Counters {
    Counters { new_flows: Some(0), ..Counters::default() } // FILLED BY CORE
}

/// What the loaded program made of a frame.
struct Answer {
    verdict: Verdict,
    /// By its name in the configuration.
    service: Option<String>,
    slot: Option<u32>,
    current: Option<Ipv4Addr>,
    previous: Option<PreviousOwner>,
    real_server: Option<Ipv4Addr>,
    choice: Option<Choice>,
}

/// Runs the loaded program on a frame, as if it had come in by an interface.
fn ask(_running: &mut Running, _frame: &[u8], _ifindex: u32) -> Result<Answer, Refusal> {
    let message = "the loaded program does not say why"; // FILLED BY CORE
    Err(Refusal::new(RefusalKind::Failed, message))
}
