//! What to do to the datapath's maps so that they say what the configuration says. Pure, so that
//! start, reload and edit are the same path: (desired, installed) → operations.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    net::Ipv4Addr,
};

use lb_ebpf::{
    abi::{self, ALWAYS, EMPTY, MAX_REAL_SERVERS, MAX_ROLES, MAX_SERVICES, MAX_TABLES, ServiceKey},
    header::Ipv4,
};

use crate::{
    maglev::Table,
    service::{Ports, Protocol, RealServer, ServiceAddress, VirtualService},
};

/// What the maps are to say.
#[derive(Clone, Debug, Default)]
pub struct Desired {
    pub services: Vec<VirtualService>,
    /// The virtual router of each VIP that has one.
    pub routers: BTreeMap<Ipv4Addr, String>,
    pub neighbours: BTreeMap<Ipv4Addr, Hop>,
}

/// How to reach a real server on its link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    pub ifindex: u32,
    pub destination_mac: [u8; 6],
    pub source_mac: [u8; 6],
}

/// What the maps say, as far as it is known: a daemon that adopts the maps of another knows
/// their services and real servers, but not from what their tables were made.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Installed {
    pub services: BTreeMap<ServiceKey, InstalledService>,
    /// By index.
    pub real_servers: BTreeMap<u16, abi::RealServer>,
    /// Index of the role of each virtual router.
    pub roles: BTreeMap<String, u32>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct InstalledService {
    pub value: abi::Service,
    pub table: Option<InstalledTable>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct InstalledTable {
    /// Sorted by address.
    pub pool: Vec<RealServer>,
    pub digest: String,
    pub shares: BTreeMap<Ipv4Addr, f64>,
}

/// One change of a map. They are carried out in order: what a service refers to stands before
/// the service does, and goes after it.
#[derive(Clone, Debug, PartialEq)]
pub enum MapOp {
    SetRealServer { index: u16, value: abi::RealServer },
    InstallTable { table: u32, slots: Vec<u16> },
    SetService { key: ServiceKey, value: abi::Service },
    DeleteService { key: ServiceKey },
    DeleteTable { table: u32 },
    FreeRealServer { index: u16 },
}

/// A configuration that is larger than the maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("more {what} than the datapath holds ({limit})")]
pub struct TooMany {
    pub what: &'static str,
    pub limit: usize,
}

/// The operations that lead from `installed` to `desired`, and what is installed after them.
///
/// # Errors
///
/// The configuration does not fit; nothing is to be done then.
pub fn reconcile(
    desired: &Desired,
    installed: &Installed,
) -> Result<(Vec<MapOp>, Installed), TooMany> {
    if desired.services.len() > MAX_SERVICES {
        return Err(TooMany { what: "virtual services", limit: MAX_SERVICES });
    }
    let mut plan = Plan {
        ops: Vec::new(),
        next: installed.clone(),
        tables: Free::except(installed.services.values().map(|service| service.value.table)),
        indexes: Free::except(installed.real_servers.keys().copied().map(u32::from)),
    };
    let indexes = plan.real_servers(desired)?;
    plan.roles(desired)?;
    let mut kept = BTreeSet::new();
    for service in &desired.services {
        kept.insert(plan.service(service, desired, &indexes)?);
    }
    plan.delete_all_but(&kept);
    plan.free_real_servers(&indexes);
    Ok((plan.ops, plan.next))
}

/// The key of a virtual service in the maps.
pub fn key(address: ServiceAddress, protocol: Protocol) -> ServiceKey {
    let port = match address.ports {
        Ports::One(port) | Ports::Range(port, _) => port.get(),
        Ports::Any => 0,
    };
    ServiceKey {
        vip: address.vip.octets(),
        port: port.to_be_bytes(),
        protocol: match protocol {
            Protocol::Tcp => Ipv4::TCP,
            Protocol::Udp => Ipv4::UDP,
        },
        zero: 0,
    }
}

struct Plan {
    ops: Vec<MapOp>,
    next: Installed,
    tables: Free,
    indexes: Free,
}

/// The numbers that are not in use, lowest first. One that this plan gives up is not among them:
/// packets may still look there until the plan has been carried out.
struct Free {
    used: BTreeSet<u32>,
    at: u32,
}

impl Free {
    fn except(used: impl Iterator<Item = u32>) -> Self {
        Self { used: used.collect(), at: 0 }
    }

    fn take(&mut self, limit: usize) -> Option<u32> {
        while self.used.contains(&self.at) {
            self.at += 1;
        }
        let number = self.at;
        self.at += 1;
        ((number as usize) < limit).then_some(number)
    }
}

impl Plan {
    /// Every real server keeps its index for as long as a slot may name it. A MAC address that
    /// was known and is no longer stays: it may still be right, and none is surely wrong.
    fn real_servers(&mut self, desired: &Desired) -> Result<BTreeMap<Ipv4Addr, u16>, TooMany> {
        let mut indexes: BTreeMap<Ipv4Addr, u16> = self
            .next
            .real_servers
            .iter()
            .map(|(&index, server)| (Ipv4Addr::from(server.address), index))
            .collect();
        let wanted: BTreeSet<_> = desired
            .services
            .iter()
            .flat_map(|service| service.real_servers.iter().map(|server| server.address))
            .collect();
        indexes.retain(|address, _| wanted.contains(address));
        for address in wanted {
            let index = match indexes.get(&address) {
                Some(&index) => index,
                None => self.free_index()?,
            };
            indexes.insert(address, index);
            let known = self.next.real_servers.get(&index).copied();
            let mut value = known
                .unwrap_or(abi::RealServer { address: address.octets(), ..abi::RealServer::FREE });
            if let Some(&Hop { ifindex, destination_mac, source_mac }) =
                desired.neighbours.get(&address)
            {
                value = abi::RealServer { ifindex, destination_mac, source_mac, ..value };
            }
            if known != Some(value) {
                self.ops.push(MapOp::SetRealServer { index, value });
                self.next.real_servers.insert(index, value);
            }
        }
        Ok(indexes)
    }

    fn free_index(&mut self) -> Result<u16, TooMany> {
        self.indexes
            .take(MAX_REAL_SERVERS)
            .and_then(|index| u16::try_from(index).ok())
            .ok_or(TooMany { what: "real servers", limit: MAX_REAL_SERVERS })
    }

    /// A virtual router that an installed service of one of its VIPs knows keeps that role.
    fn roles(&mut self, desired: &Desired) -> Result<(), TooMany> {
        let wanted: BTreeSet<_> = desired.routers.values().cloned().collect();
        self.next.roles.retain(|router, _| wanted.contains(router));
        for (key, service) in &self.next.services {
            if service.value.role == ALWAYS {
                continue;
            }
            if let Some(router) = desired.routers.get(&Ipv4Addr::from(key.vip))
                && !self.next.roles.values().any(|&role| role == service.value.role)
            {
                self.next.roles.entry(router.clone()).or_insert(service.value.role);
            }
        }
        // Beside those kept, a role that an installed service still refers to is not free.
        let mut free = Free::except(
            self.next
                .roles
                .values()
                .copied()
                .chain(self.next.services.values().map(|service| service.value.role))
                .chain([ALWAYS]),
        );
        for router in wanted {
            if let Entry::Vacant(entry) = self.next.roles.entry(router) {
                entry.insert(
                    free.take(MAX_ROLES)
                        .ok_or(TooMany { what: "virtual routers", limit: MAX_ROLES - 1 })?,
                );
            }
        }
        Ok(())
    }

    fn service(
        &mut self,
        service: &VirtualService,
        desired: &Desired,
        indexes: &BTreeMap<Ipv4Addr, u16>,
    ) -> Result<ServiceKey, TooMany> {
        let key = key(service.address, service.protocol);
        let role = desired
            .routers
            .get(&service.address.vip)
            .and_then(|router| self.next.roles.get(router).copied())
            .unwrap_or(ALWAYS);
        let mut pool = service.real_servers.clone();
        pool.sort_by_key(|server| server.address);

        let before = self.next.services.get(&key).cloned();
        let same_table = before.as_ref().filter(|before| {
            before.value.table_size == service.table_size
                && before.table.as_ref().is_some_and(|table| table.pool == pool)
        });
        let (table, installed) = match same_table {
            Some(same) => (same.value.table, same.table.clone()),
            None => {
                let table = self.free_table()?;
                (table, Some(self.install_table(table, service, pool, indexes)))
            }
        };
        let value = abi::Service { table, table_size: service.table_size, role };
        if before.as_ref().map(|before| before.value) != Some(value) {
            self.ops.push(MapOp::SetService { key, value });
        }
        self.next.services.insert(key, InstalledService { value, table: installed });
        // The old table goes once no service refers to it.
        if let Some(old) = before.filter(|old| old.value.table != table) {
            self.ops.push(MapOp::DeleteTable { table: old.value.table });
        }
        Ok(key)
    }

    /// A table is built aside and taken into use by the service's entry, in one swap.
    fn install_table(
        &mut self,
        table: u32,
        service: &VirtualService,
        pool: Vec<RealServer>,
        indexes: &BTreeMap<Ipv4Addr, u16>,
    ) -> InstalledTable {
        let maglev = Table::new(&service.real_servers, service.table_size);
        let slots = maglev
            .slots()
            .map(|server| {
                server.and_then(|address| indexes.get(&address).copied()).unwrap_or(EMPTY)
            })
            .collect();
        self.ops.push(MapOp::InstallTable { table, slots });
        InstalledTable { shares: maglev.shares(), digest: maglev.digest(), pool }
    }

    fn free_table(&mut self) -> Result<u32, TooMany> {
        self.tables.take(MAX_TABLES).ok_or(TooMany { what: "Maglev tables", limit: MAX_TABLES })
    }

    fn delete_all_but(&mut self, kept: &BTreeSet<ServiceKey>) {
        for (key, service) in self.next.services.extract_if(.., |key, _| !kept.contains(key)) {
            self.ops.push(MapOp::DeleteService { key });
            self.ops.push(MapOp::DeleteTable { table: service.value.table });
        }
    }

    fn free_real_servers(&mut self, indexes: &BTreeMap<Ipv4Addr, u16>) {
        let used: BTreeSet<u16> = indexes.values().copied().collect();
        for (index, _) in self.next.real_servers.extract_if(.., |index, _| !used.contains(index)) {
            self.ops.push(MapOp::FreeRealServer { index });
        }
    }
}

#[cfg(test)]
mod tests;
