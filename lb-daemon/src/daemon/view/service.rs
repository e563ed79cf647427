//! Virtual services and their real servers, as the API shows them.

use std::{collections::BTreeMap, net::Ipv4Addr};

use lb_ebpf::abi;
use vrrp::io::RouterSnapshot;

use super::{
    super::running::{Running, holds_vips},
    datapath::{Kept, Seen},
    stats,
};
use crate::{
    config::edit::EditError,
    control::{
        Forwards, Hop, Neighbour, RealServer, RealServerDetail, RealServerState, Refusal, Service,
        ServiceDetail,
    },
    neighbour,
    reconcile::Quality,
    service::{self, VirtualService},
};

/// What the services of one answer are looked up in.
pub(super) struct Services<'a> {
    running: &'a Running,
    datapath: Option<Seen<'a>>,
    neighbours: neighbour::View,
    /// Of real servers in the datapath.
    indexes: BTreeMap<Ipv4Addr, u16>,
    /// How many services use each table.
    tables: BTreeMap<u32, usize>,
}

impl<'a> Services<'a> {
    pub(super) fn of(running: &'a Running) -> Self {
        let neighbours = running.neighbours().borrow().clone();
        let datapath = running.datapath().map(Seen::of);
        let indexes = datapath.as_ref().map(Seen::indexes).unwrap_or_default();
        let tables = datapath.as_ref().map(Seen::services_of_tables).unwrap_or_default();
        Self { running, datapath, neighbours, indexes, tables }
    }

    pub(super) fn all(&self, routers: &[RouterSnapshot]) -> Vec<Service> {
        let services = self.running.config().virtual_services.iter();
        services.map(|service| self.service(service, routers)).collect()
    }

    pub(super) fn detail(
        &self,
        name: &str,
        routers: &[RouterSnapshot],
    ) -> Result<ServiceDetail, Refusal> {
        let service = self.find(name)?;
        let memberships = stats::memberships(self.running);
        let real_servers = self.servers(service).into_iter().map(|real_server| {
            let memberships = memberships.get(&real_server.address).copied().unwrap_or_default();
            let counters = stats::of_real_server(self, real_server.address, memberships);
            RealServerDetail { real_server, services: memberships.services, counters }
        });
        Ok(ServiceDetail {
            service: self.service(service, routers),
            counters: stats::of_service(self, service),
            real_servers: real_servers.collect(),
        })
    }

    /// Of all services.
    pub(super) fn real_servers(&self) -> Vec<RealServer> {
        let services = self.running.config().virtual_services.iter();
        services.flat_map(|service| self.servers(service)).collect()
    }

    pub(super) fn real_servers_of(&self, service: &str) -> Result<Vec<RealServer>, Refusal> {
        Ok(self.servers(self.find(service)?))
    }

    pub(super) fn datapath(&self) -> Option<&Seen<'a>> {
        self.datapath.as_ref()
    }

    pub(super) fn hop(&self, real_server: Ipv4Addr) -> Hop {
        hop(&self.neighbours, real_server)
    }

    pub(super) fn index_of(&self, real_server: Ipv4Addr) -> Option<u16> {
        self.indexes.get(&real_server).copied()
    }

    pub(super) fn installed(&self, service: &VirtualService) -> Option<&'a abi::Service> {
        self.datapath.as_ref()?.service(service)
    }

    fn quality(&self, service: &abi::Service) -> Option<&'a Quality> {
        let table = self.datapath.as_ref()?.table(service)?;
        table.made.as_ref().map(|(_, quality)| quality)
    }

    pub(super) fn find(&self, name: &str) -> Result<&'a VirtualService, Refusal> {
        let services = &self.running.config().virtual_services;
        services.iter().find(|service| service.name == name).ok_or_else(|| {
            let known = services.iter().map(|service| service.name.clone()).collect();
            EditError::unknown_service(name, known).into()
        })
    }

    pub(super) fn service(&self, service: &VirtualService, routers: &[RouterSnapshot]) -> Service {
        let installed = self.installed(service);
        let quality = installed.and_then(|installed| self.quality(installed));
        let seen = self.datapath.as_ref().zip(installed);
        let ready = |server: &&service::RealServer| {
            let found = self.neighbours.get(&server.address);
            matches!(found, Some(neighbour::Neighbour::Ready { .. }))
        };
        Service {
            name: service.name.clone(),
            address: service.address,
            protocol: service.protocol,
            forwarding: service.forwarding,
            hash: service.hash,
            tracking: service.tracking.map(Into::into),
            forwards: forwards(service, self.running, routers),
            table_size: service.table_size,
            table_digest: quality.map(|quality| quality.digest.clone()).unwrap_or_default(),
            table_shared_with: installed
                .and_then(|installed| self.tables.get(&installed.table))
                .map_or(0, |services| services - 1),
            largest_deviation: quality.map_or(0.0, |quality| quality.largest_deviation),
            slots_moved: seen.and_then(|(seen, installed)| seen.table(installed)?.moved),
            change: seen.and_then(|(seen, installed)| seen.change(service, installed)),
            real_servers: service.real_servers.len(),
            real_servers_ready: service.real_servers.iter().filter(ready).count(),
        }
    }

    /// In the order of the configuration.
    fn servers(&self, service: &VirtualService) -> Vec<RealServer> {
        let installed = self.installed(service);
        let quality = installed.and_then(|installed| self.quality(installed));
        let seen = self.datapath.as_ref().zip(installed);
        let weights = weights(&service.real_servers);
        let server = |server: &service::RealServer| {
            let Hop { state: neighbour, mac, interface } = self.hop(server.address);
            let share = quality.and_then(|quality| quality.shares.get(&server.address));
            let index = self.index_of(server.address);
            let kept = seen
                .zip(index)
                .map_or(Kept::default(), |((seen, installed), index)| seen.kept(installed, index));
            RealServer {
                service: service.name.clone(),
                address: server.address,
                weight: server.weight,
                state: RealServerState::of_weight(server.weight),
                share: share.copied().unwrap_or(0.0),
                exact_share: exact_share(server.weight, weights),
                slots_previous: kept.slots,
                exceptions: kept.exceptions,
                neighbour,
                mac,
                interface,
            }
        };
        service.real_servers.iter().map(server).collect()
    }
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

/// What is known of a real server's place on its link.
fn hop(neighbours: &neighbour::View, address: Ipv4Addr) -> Hop {
    let (state, mac, interface) = match neighbours.get(&address) {
        Some(neighbour::Neighbour::Ready { hop, interface }) => {
            (Neighbour::Ready, Some(neighbour::mac(hop.destination_mac)), Some(interface.clone()))
        }
        Some(neighbour::Neighbour::OffLink) => (Neighbour::OffLink, None, None),
        Some(neighbour::Neighbour::Unresolved) | None => (Neighbour::Unresolved, None, None),
    };
    Hop { state, mac, interface }
}

fn weights(servers: &[service::RealServer]) -> u64 {
    servers.iter().map(|server| u64::from(server.weight)).sum()
}

/// The weight in relation to all; 0 where no real server has one.
fn exact_share(weight: u16, weights: u64) -> f64 {
    if weights == 0 { 0.0 } else { f64::from(weight) / weights as f64 }
}
