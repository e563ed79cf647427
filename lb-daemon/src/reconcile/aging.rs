//! What time does to what is remembered of a change: owners and flows of before are forgotten, and
//! in the end the table is steady again.

use std::collections::{BTreeMap, BTreeSet};

use lb_ebpf::abi::{CHANGED, Note, STEADY};

use super::{Desired, Installed, MapOp, Noted, Plan, key, members};
use crate::generation::{Retention, has_given_up};

/// The servers that noted flows belong to, by table and slot.
type Exceptions = BTreeMap<u32, BTreeMap<u32, BTreeSet<u16>>>;

/// The operations that are due, and what is installed after them; none in the steady state.
///
/// `installed` is what `desired` led to, as it was read back last.
pub fn age(desired: &Desired, installed: &Installed, noted: &Noted) -> (Vec<MapOp>, Installed) {
    let mut plan = Plan { ops: Vec::new(), next: installed.clone(), noted };
    let indexes = installed.real_servers.iter();
    let mut indexes: BTreeMap<_, _> =
        indexes.map(|(&index, server)| (server.address.into(), index)).collect();
    let retentions = retentions(desired, installed);
    // A note that the table of before made while a change came is put right here.
    plan.mark_notes(&members(desired, &indexes));
    let exceptions = plan.exceptions(&retentions);
    plan.age_tables(&retentions, &exceptions);
    plan.delete_notes(&retentions);
    plan.merge_tables();
    plan.delete_tables();
    let wanted = desired.services.iter().flat_map(|service| &service.real_servers);
    let wanted: BTreeSet<_> = wanted.map(|server| server.address).collect();
    indexes.retain(|address, _| wanted.contains(address));
    plan.free_real_servers(&indexes);
    (plan.ops, plan.next)
}

/// How long each table remembers: as the most patient of its services says.
fn retentions(desired: &Desired, installed: &Installed) -> BTreeMap<u32, Retention> {
    let mut retentions = BTreeMap::<u32, Retention>::new();
    for service in &desired.services {
        let key = key(&service.address, service.protocol);
        if let (Some(tracking), Some(value)) = (service.tracking, installed.services.get(&key)) {
            let own = Retention::from(tracking);
            let longest = retentions.get(&value.table).map_or(own, |other| own.max(*other));
            retentions.insert(value.table, longest);
        }
    }
    retentions
}

impl Plan<'_> {
    /// The notes that have not had their time.
    fn exceptions(&self, retentions: &BTreeMap<u32, Retention>) -> Exceptions {
        let mut exceptions = Exceptions::new();
        let tables = self.tables_by_id();
        let connections = self.noted.connections.iter().map(|(_, note)| (note, false));
        let openings = self.noted.openings.iter().map(|(_, note)| (note, true));
        for (note, opening) in connections.chain(openings) {
            if let Some(&table) = tables.get(&note.service)
                && !self.is_due(table, note, retentions)
                && !(opening && has_given_up(note, self.noted.now))
            {
                let of_table = exceptions.entry(table).or_default();
                of_table.entry(note.slot).or_default().insert(note.real_server);
            }
        }
        exceptions
    }

    /// Deletes the other notes, and those of slots that have just become steady: the slots come
    /// first, and when they change again, no note tells of flows that ended meanwhile.
    fn delete_notes(&mut self, retentions: &BTreeMap<u32, Retention>) {
        let tables = self.tables_by_id();
        let noted = self.noted;
        // Those of services that are no more are deleted already.
        for (key, note) in &noted.connections {
            if let Some(&table) = tables.get(&note.service)
                && self.is_due(table, note, retentions)
            {
                self.ops.push(MapOp::DeleteNote { key: *key, note: *note });
            }
        }
        for (key, note) in &noted.openings {
            if let Some(&table) = tables.get(&note.service)
                && (has_given_up(note, noted.now) || self.is_due(table, note, retentions))
            {
                self.ops.push(MapOp::DeleteOpening { key: *key, note: *note });
            }
        }
    }

    fn tables_by_id(&self) -> BTreeMap<u32, u32> {
        self.next.services.values().map(|service| (service.id, service.table)).collect()
    }

    /// Whether a note is not needed any more: the slot is steady, or the flow counts as gone.
    fn is_due(&self, table: u32, note: &Note, retentions: &BTreeMap<u32, Retention>) -> bool {
        let (Some(table), Some(retention)) = (self.next.tables.get(&table), retentions.get(&table))
        else {
            return true;
        };
        let generation = &table.generation;
        let at = note.slot as usize;
        match (generation.slots().get(at), generation.previous().get(at)) {
            (Some(slot), Some(previous)) if slot & CHANGED != 0 => {
                let owns = slot & !CHANGED == note.real_server;
                retention.has_gone(note, owns, previous.changed, self.noted.now)
            }
            (Some(_) | None, Some(_) | None) => true,
        }
    }

    fn age_tables(&mut self, retentions: &BTreeMap<u32, Retention>, exceptions: &Exceptions) {
        let none = BTreeMap::new();
        let mut steady = BTreeSet::new();
        for (&index, table) in &mut self.next.tables {
            if table.generation.is_steady() {
                continue;
            }
            // Nobody tracks any more: forget at once.
            let retention = retentions.get(&index).copied().unwrap_or_default();
            let exceptions = exceptions.get(&index).unwrap_or(&none);
            let updates = table.generation.age(retention, exceptions, self.noted.now);
            if updates.is_empty() {
                continue;
            }
            table.generation.update(&updates);
            self.ops.push(MapOp::UpdateTable { table: index, updates });
            if table.generation.is_steady() {
                steady.insert(index);
            }
        }
        for (key, service) in &mut self.next.services {
            if steady.contains(&service.previous) {
                service.previous = STEADY;
                self.ops.push(MapOp::SetService { key: *key, value: *service });
            }
        }
        if !steady.is_empty() {
            self.ops.push(MapOp::DeletePrevious { tables: steady.into_iter().collect() });
        }
    }

    /// Services that a change parted share a table again when theirs are steady and the same.
    fn merge_tables(&mut self) {
        let mut first = BTreeMap::new();
        for (key, service) in &mut self.next.services {
            let Some(table) = self.next.tables.get(&service.table) else { continue };
            let Some((pool, _)) = &table.made else { continue };
            if !table.generation.is_steady() {
                continue;
            }
            let shared = *first.entry((service.table_size, pool)).or_insert(service.table);
            if shared != service.table {
                service.table = shared;
                self.ops.push(MapOp::SetService { key: *key, value: *service });
            }
        }
    }
}

#[cfg(test)]
mod tests;
