//! What to do to the datapath's maps so that they say what the configuration says. Pure, so that
//! start, reload and edit are the same path: (desired, installed) → operations.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    net::Ipv4Addr,
};

use lb_ebpf::{
    abi::{self, ALWAYS, EMPTY, INDEX, Note, STEADY, Seconds, ServiceKey},
    flow::FlowKey,
    header::Ipv4,
};

use crate::{
    generation::{Generation, Members},
    ports::{self, Prefix},
    service::{Hash, OnDown, Protocol, RealServer, ServiceAddress, VirtualService},
};

mod aging;
mod installed;
mod tables;

pub use aging::age;
pub use installed::{Capacity, Free, Installed, InstalledTable, MapOp, Quality, TooMany};

use tables::Tables;

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

/// What the datapath has noted of flows, and when it was asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Noted {
    pub now: Seconds,
    pub connections: Vec<(FlowKey, Note)>,
    pub openings: Vec<(FlowKey, Note)>,
}

impl Noted {
    pub fn is_empty(&self) -> bool {
        self.connections.is_empty() && self.openings.is_empty()
    }
}

/// The operations that lead from `installed` to `desired`, and what is installed after them.
///
/// # Errors
///
/// The configuration does not fit; nothing is to be done then.
pub fn reconcile(
    desired: &Desired,
    installed: &Installed,
    noted: &Noted,
) -> Result<(Vec<MapOp>, Installed), TooMany> {
    let capacity = installed.capacity;
    if desired.services.len() > capacity.services {
        return Err(TooMany { what: "virtual services", limit: capacity.services });
    }
    let mut plan = Plan { ops: Vec::new(), next: installed.clone(), noted };
    let indexes = plan.real_servers(desired)?;
    plan.roles(desired)?;
    let tables = Tables::install(desired, &indexes, installed, noted.now)?;
    plan.ops.extend(tables.ops);
    plan.next.tables.extend(tables.changed);
    plan.next.spares = tables.spares;
    plan.services(desired, &tables.of_services)?;
    plan.port_ranges(desired)?;
    plan.delete_services(desired);
    plan.delete_tables();
    plan.mark_notes(&members(desired, &indexes));
    plan.free_real_servers(&indexes);
    Ok((plan.ops, plan.next))
}

/// The key of a virtual service in the maps.
pub fn key(address: &ServiceAddress, protocol: Protocol) -> ServiceKey {
    ports::keys(address, number(protocol)).0
}

fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => Ipv4::TCP,
        Protocol::Udp => Ipv4::UDP,
    }
}

/// The real servers of each service, whatever their weight.
fn members(desired: &Desired, indexes: &BTreeMap<Ipv4Addr, u16>) -> BTreeMap<ServiceKey, Members> {
    let of_service = |service: &VirtualService| {
        let members = indexes_of(&service.real_servers, indexes);
        (key(&service.address, service.protocol), members)
    };
    desired.services.iter().map(of_service).collect()
}

fn indexes_of(pool: &[RealServer], indexes: &BTreeMap<Ipv4Addr, u16>) -> Members {
    pool.iter().filter_map(|server| indexes.get(&server.address).copied()).collect()
}

struct Plan<'a> {
    ops: Vec<MapOp>,
    next: Installed,
    noted: &'a Noted,
}

impl Plan<'_> {
    /// Every real server keeps its index for as long as a slot or a note may name it. A MAC
    /// address that was known and is no longer stays: it may still be right, and none is surely
    /// wrong.
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
        let limit = self.next.capacity.real_servers;
        // Nor one that a note has which was written while it was given up.
        let noted = self.noted.connections.iter().map(|(_, note)| note.real_server);
        let used = self.next.real_servers.keys().copied().chain(noted);
        let mut free = Free::except(used.map(u32::from));
        for address in wanted {
            let index = match indexes.get(&address) {
                Some(&index) => index,
                None => free
                    .take(limit)
                    .and_then(|index| u16::try_from(index).ok())
                    .ok_or(TooMany { what: "real servers", limit })?,
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
            if known.is_none() {
                self.ops.push(MapOp::ClearRealServerCounters { index });
            }
            if known != Some(value) {
                self.ops.push(MapOp::SetRealServer { index, value });
                self.next.real_servers.insert(index, value);
            }
        }
        Ok(indexes)
    }

    /// A virtual router that an installed service of one of its VIPs knows keeps that role.
    fn roles(&mut self, desired: &Desired) -> Result<(), TooMany> {
        let wanted: BTreeSet<_> = desired.routers.values().cloned().collect();
        self.next.roles.retain(|router, _| wanted.contains(router));
        for (key, service) in &self.next.services {
            if service.role == ALWAYS {
                continue;
            }
            if let Some(router) = desired.routers.get(&Ipv4Addr::from(key.vip()))
                && !self.next.roles.values().any(|&role| role == service.role)
            {
                self.next.roles.entry(router.clone()).or_insert(service.role);
            }
        }
        // Beside those kept, a role that an installed service still refers to is not free.
        let mut free = Free::except(
            self.next
                .roles
                .values()
                .copied()
                .chain(self.next.services.values().map(|service| service.role))
                .chain([ALWAYS]),
        );
        for router in wanted {
            if let Entry::Vacant(entry) = self.next.roles.entry(router) {
                entry.insert(
                    free.take(abi::MAX_ROLES)
                        .ok_or(TooMany { what: "virtual routers", limit: abi::MAX_ROLES - 1 })?,
                );
            }
        }
        Ok(())
    }

    fn services(&mut self, desired: &Desired, tables: &[u32]) -> Result<(), TooMany> {
        let limit = self.next.capacity.services;
        let noted = self.noted.connections.iter().chain(&self.noted.openings);
        let mut ids = Free::except(
            self.next
                .services
                .values()
                .map(|service| service.id)
                .chain(noted.map(|(_, note)| note.service)),
        );
        for (service, &table) in desired.services.iter().zip(tables) {
            let key = key(&service.address, service.protocol);
            let before = self.next.services.get(&key).copied();
            let id = match before {
                Some(before) => before.id,
                None => {
                    let id = ids.take(limit).ok_or(TooMany { what: "virtual services", limit })?;
                    self.ops.push(MapOp::ClearServiceCounters { id });
                    id
                }
            };
            let steady =
                self.next.tables.get(&table).is_none_or(|table| table.generation.is_steady());
            let value = abi::Service {
                table,
                table_size: service.table_size,
                previous: if steady || service.tracking.is_none() { STEADY } else { table },
                role: desired
                    .routers
                    .get(&service.address.vip)
                    .and_then(|router| self.next.roles.get(router).copied())
                    .unwrap_or(ALWAYS),
                id,
                source_mask: source_mask(service.hash),
                flags: match service.tracking.map(|tracking| tracking.on_down) {
                    Some(OnDown::Reset) => abi::Service::RESETS,
                    Some(OnDown::Rehash) | None => 0,
                },
            };
            if before != Some(value) {
                self.ops.push(MapOp::SetService { key, value });
                self.next.services.insert(key, value);
            }
        }
        Ok(())
    }

    /// New ones before old ones go: a port that both have is never without.
    fn port_ranges(&mut self, desired: &Desired) -> Result<(), TooMany> {
        let wanted: BTreeMap<Prefix, ServiceKey> = desired
            .services
            .iter()
            .flat_map(|service| {
                let (key, prefixes) = ports::keys(&service.address, number(service.protocol));
                prefixes.into_iter().map(move |prefix| (prefix, key))
            })
            .collect();
        if wanted.len() > abi::MAX_PORT_RANGES {
            return Err(TooMany { what: "prefixes of port ranges", limit: abi::MAX_PORT_RANGES });
        }
        for (prefix, key) in &wanted {
            if self.next.port_ranges.get(prefix) != Some(key) {
                self.ops.push(MapOp::SetPortRange { prefix: *prefix, key: *key });
            }
        }
        if self.next.port_ranges.is_empty() != wanted.is_empty() {
            self.ops.push(MapOp::LookForPortRanges(!wanted.is_empty()));
        }
        for prefix in self.next.port_ranges.keys().filter(|prefix| !wanted.contains_key(prefix)) {
            self.ops.push(MapOp::DeletePortRange { prefix: *prefix });
        }
        self.next.port_ranges = wanted;
        Ok(())
    }

    fn delete_services(&mut self, desired: &Desired) {
        let kept: BTreeSet<_> = desired
            .services
            .iter()
            .map(|service| key(&service.address, service.protocol))
            .collect();
        for (key, _) in self.next.services.extract_if(.., |key, _| !kept.contains(key)) {
            self.ops.push(MapOp::DeleteService { key });
        }
    }

    /// A table goes once no service refers to it.
    fn delete_tables(&mut self) {
        let used: BTreeSet<_> = self.next.services.values().map(|service| service.table).collect();
        for (table, gone) in self.next.tables.extract_if(.., |table, _| !used.contains(table)) {
            let size = u32::try_from(gone.generation.slots().len()).unwrap_or(u32::MAX);
            self.ops.push(MapOp::DeleteTable { table, size });
        }
    }

    /// The notes of flows whose real server has gone, or has come back, say so.
    fn mark_notes(&mut self, members: &BTreeMap<ServiceKey, Members>) {
        let by_id: BTreeMap<u32, &Members> = self
            .next
            .services
            .iter()
            .filter_map(|(key, service)| Some((service.id, members.get(key)?)))
            .collect();
        for (key, note) in &self.noted.connections {
            let Some(members) = by_id.get(&note.service) else {
                self.ops.push(MapOp::DeleteNote { key: *key, note: *note });
                continue;
            };
            let down = if members.contains(&note.real_server) { 0 } else { Note::DOWN };
            let goes_down = down & !note.state != 0;
            let marked = Note {
                state: note.state & !Note::DOWN | down,
                // For how long it is kept is counted from then on.
                seen: if goes_down { self.noted.now } else { note.seen },
                ..*note
            };
            if marked != *note {
                self.ops.push(MapOp::MarkNote { key: *key, note: marked });
            }
        }
        for (key, note) in &self.noted.openings {
            let usable =
                by_id.get(&note.service).is_some_and(|members| members.contains(&note.real_server));
            if !usable {
                self.ops.push(MapOp::DeleteOpening { key: *key, note: *note });
            }
        }
    }

    fn free_real_servers(&mut self, indexes: &BTreeMap<Ipv4Addr, u16>) {
        let mut used = vec![false; usize::from(EMPTY) + 1];
        let tables = self.next.tables.values().map(|table| &table.generation);
        let named = tables.flat_map(|generation| {
            let former = generation.changed().map(|(_, previous)| previous.index());
            generation.owners().chain(former)
        });
        let noted = self.noted.connections.iter().map(|(_, note)| note.real_server);
        for index in indexes.values().copied().chain(named).chain(noted) {
            used[usize::from(index & INDEX)] = true;
        }
        let unused = |index: &u16, _: &mut abi::RealServer| !used[usize::from(*index)];
        for (index, _) in self.next.real_servers.extract_if(.., unused) {
            self.ops.push(MapOp::FreeRealServer { index });
        }
    }
}

fn source_mask(hash: Hash) -> [u8; 4] {
    match hash {
        Hash::Flow => [0; 4],
        Hash::Source { prefix_len } => {
            u32::MAX.checked_shl(32 - u32::from(prefix_len)).unwrap_or(0).to_be_bytes()
        }
    }
}

/// The real servers of a table by slot, as the datapath knows them.
fn owners(
    slots: impl ExactSizeIterator<Item = Option<Ipv4Addr>>,
    indexes: &BTreeMap<Ipv4Addr, u16>,
) -> Vec<u16> {
    slots
        .map(|server| server.and_then(|address| indexes.get(&address).copied()).unwrap_or(EMPTY))
        .collect()
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
