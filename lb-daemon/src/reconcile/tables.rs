//! Which table each service gets. Services share one for as long as they had the same before and
//! have the same pool: a change of one of them parts it from the others.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use lb_ebpf::abi::{self, STEADY, Seconds};

use super::{
    Desired, Free, Generation, Installed, InstalledTable, MapOp, Quality, TooMany, indexes_of, key,
    owners,
};
use crate::{
    maglev::Table,
    service::{RealServer, VirtualService},
};

/// Sorted by address.
type Pool = Vec<RealServer>;

pub(super) struct Tables<'a> {
    indexes: &'a BTreeMap<Ipv4Addr, u16>,
    installed: &'a Installed,
    now: Seconds,
    free: Free,
    pub(super) spares: BTreeMap<u32, u32>,
    built: BTreeMap<(u32, Pool), Built>,
    /// By the table that its services had, if any, and what they have now.
    given: BTreeMap<(Option<u32>, u32, Pool), u32>,
    pub(super) ops: Vec<MapOp>,
    /// New, or better known.
    pub(super) changed: BTreeMap<u32, InstalledTable>,
    /// In the order of the services.
    pub(super) of_services: Vec<u32>,
}

struct Built {
    owners: Vec<u16>,
    quality: Quality,
}

impl<'a> Tables<'a> {
    pub(super) fn install(
        desired: &Desired,
        indexes: &'a BTreeMap<Ipv4Addr, u16>,
        installed: &'a Installed,
        now: Seconds,
    ) -> Result<Self, TooMany> {
        let mut tables = Self {
            indexes,
            installed,
            now,
            free: Free::except(installed.tables.keys().chain(installed.spares.keys()).copied()),
            spares: installed.spares.clone(),
            built: BTreeMap::new(),
            given: steady(installed),
            ops: Vec::new(),
            changed: BTreeMap::new(),
            of_services: Vec::new(),
        };
        let asked: Vec<_> = desired.services.iter().map(|service| tables.ask(service)).collect();
        let tracked: BTreeSet<_> = desired
            .services
            .iter()
            .zip(&asked)
            .filter(|(service, _)| service.tracking.is_some())
            .map(|(_, asked)| asked.clone())
            .collect();
        for asked in asked {
            let tracked = tracked.contains(&asked);
            let table = tables.give(asked, tracked)?;
            tables.of_services.push(table);
        }
        Ok(tables)
    }

    fn ask(&self, service: &VirtualService) -> (Option<u32>, u32, Pool) {
        let mut pool = service.real_servers.clone();
        pool.sort_by_key(|server| server.address);
        // Another size has other slots: nothing of before helps there.
        let before = self
            .installed
            .services
            .get(&key(&service.address, service.protocol))
            .filter(|before| before.table_size == service.table_size)
            // One that begins to track in a change of others has no notes: its flows are with the
            // owners of now.
            .filter(|before| service.tracking.is_none() || !self.is_left_out_of_a_change(before))
            .map(|before| before.table)
            .filter(|table| self.installed.tables.contains_key(table));
        (before, service.table_size, pool)
    }

    fn is_left_out_of_a_change(&self, service: &abi::Service) -> bool {
        let table = self.installed.tables.get(&service.table);
        service.previous == STEADY && table.is_some_and(|table| !table.generation.is_steady())
    }

    fn give(&mut self, asked: (Option<u32>, u32, Pool), tracked: bool) -> Result<u32, TooMany> {
        if let Some(&given) = self.given.get(&asked) {
            return Ok(given);
        }
        let (before, size, pool) = &asked;
        let (indexes, installed, now) = (self.indexes, self.installed, self.now);
        let before = before.and_then(|index| Some((index, installed.tables.get(&index)?)));
        if let Some((index, table)) = before
            && table.made.as_ref().is_some_and(|(made_from, _)| made_from == pool)
        {
            self.given.insert(asked, index);
            return Ok(index);
        }
        let Built { owners, quality } = self
            .built
            .entry((*size, pool.clone()))
            .or_insert_with(|| Built::new(pool, *size, indexes));
        let made = Some((pool.clone(), quality.clone()));
        if let Some((index, table)) = before
            && table.made.is_none()
            // Nor another pool's, whose real servers of weight 0 are others.
            && !self.changed.contains_key(&index)
            && table.generation.owners().eq(owners.iter().copied())
            && table.generation.knows(&indexes_of(pool, indexes))
        {
            // Adopted, and as it should be.
            self.changed.insert(index, InstalledTable { made, ..table.clone() });
            self.given.insert(asked, index);
            return Ok(index);
        }
        let (generation, moved) = match before {
            Some((_, table)) => {
                let before = table.generation.owners();
                let moved = before.zip(&*owners).filter(|(before, now)| before != *now).count();
                let generation = if tracked {
                    let members = indexes_of(pool, indexes);
                    table.generation.change(owners.clone(), &members, now)
                } else {
                    Generation::steady(owners.clone())
                };
                (generation, Some(u32::try_from(moved).unwrap_or(u32::MAX)))
            }
            None => (Generation::steady(owners.clone()), None),
        };
        let size = *size;
        let index = self.index(size)?;
        self.ops.push(MapOp::InstallTable {
            table: index,
            slots: generation.slots().to_vec(),
            previous: generation.previous().to_vec(),
        });
        self.changed.insert(index, InstalledTable { generation, made, moved });
        self.given.insert(asked, index);
        Ok(index)
    }
}

impl Tables<'_> {
    /// That of a spare of the same size, else a free one.
    fn index(&mut self, size: u32) -> Result<u32, TooMany> {
        let spare = self.spares.iter().find(|(_, slots)| **slots == size);
        if let Some((&index, _)) = spare {
            self.spares.remove(&index);
            return Ok(index);
        }
        let limit = self.installed.capacity.tables;
        self.free.take(limit).ok_or(TooMany { what: "Maglev tables", limit })
    }
}

impl Built {
    fn new(pool: &[RealServer], size: u32, indexes: &BTreeMap<Ipv4Addr, u16>) -> Self {
        let table = Table::new(pool, size);
        Self { owners: owners(table.slots(), indexes), quality: Quality::of(&table) }
    }
}

/// A new service may share a table in which no change is in progress.
fn steady(installed: &Installed) -> BTreeMap<(Option<u32>, u32, Pool), u32> {
    let sizes = installed.services.values().map(|service| (service.table, service.table_size));
    let sizes: BTreeMap<u32, u32> = sizes.collect();
    installed
        .tables
        .iter()
        .rev()
        .filter(|(_, table)| table.generation.is_steady())
        .filter_map(|(index, table)| {
            let (pool, _) = table.made.as_ref()?;
            Some(((None, *sizes.get(index)?, pool.clone()), *index))
        })
        .collect()
}
