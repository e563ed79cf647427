//! The kernel's side, simulated: maps that operations change, packets meet, and a restarted daemon
//! reads back.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use lb_ebpf::{
    abi::{self, CHANGED, EMPTY, INDEX, Note, Previous, STEADY, Seconds, ServiceKey, Slot},
    flow::{FlowKey, Phase},
    hash,
    tracking::{Arrival, Memory, Why},
};

use crate::{
    generation::Generation,
    reconcile::{Installed, InstalledTable, MapOp, Noted},
};

#[derive(Debug, Default)]
pub(super) struct Kernel {
    pub(super) now: Seconds,
    pub(super) services: BTreeMap<ServiceKey, abi::Service>,
    tables: BTreeMap<u32, Vec<Slot>>,
    previous: RefCell<BTreeMap<u32, Vec<Previous>>>,
    pub(super) notes: RefCell<BTreeMap<FlowKey, Note>>,
    /// In the order of their last use, the oldest first.
    pub(super) openings: RefCell<Vec<(FlowKey, Note)>>,
    real_servers: BTreeMap<u16, abi::RealServer>,
    /// Tables that were given up since the last tidying, and before it; with their slots.
    spares: BTreeMap<u32, u32>,
    rested: BTreeMap<u32, u32>,
    full: Cell<bool>,
    /// Entries of the notes and of the openings.
    room: (usize, usize),
    /// Whether a note was ever refused, and an opening pushed out.
    pub(super) overflowed: Cell<bool>,
}

/// Where a packet went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    /// `None`: nowhere, or back.
    pub(super) to: Option<Ipv4Addr>,
    pub(super) why: Why,
}

impl Kernel {
    pub(super) fn new(now: Seconds, room: (usize, usize)) -> Self {
        Self { now, room, ..Self::default() }
    }

    /// As [`lb_ebpf::director::handle`] does.
    pub(super) fn packet(
        &self,
        service: ServiceKey,
        key: &FlowKey,
        phase: Phase,
        sequence: u32,
    ) -> Outcome {
        let service = &self.services[&service];
        let slot = hash::slot(hash::flow(key), service.table_size);
        let owner = self.tables[&service.table][slot as usize];
        let arrival = Arrival { key, phase, sequence, service, slot, owner };
        let choice = arrival.choose(self);
        let server = (choice.real_server != EMPTY).then(|| {
            let server = self.real_servers.get(&choice.real_server);
            server.unwrap_or_else(|| panic!("{choice:?} of no real server")).address.into()
        });
        // A reset is answered in the place of a real server, and goes to none.
        let to = server.filter(|_| choice.why != Why::Reset);
        Outcome { to, why: choice.why }
    }

    pub(super) fn apply(&mut self, ops: &[MapOp]) {
        for op in ops {
            self.apply_one(op);
        }
    }

    fn apply_one(&mut self, op: &MapOp) {
        match op.clone() {
            MapOp::SetRealServer { index, value } => {
                self.real_servers.insert(index, value);
            }
            MapOp::FreeRealServer { index } => {
                self.real_servers.remove(&index).expect("freed once");
            }
            MapOp::InstallTable { table, slots, previous } => {
                let used = self.services.values().any(|service| service.table == table);
                assert!(!used, "table {table} is written while packets meet it");
                self.spares.remove(&table);
                self.rested.remove(&table);
                self.tables.insert(table, slots);
                // The kernel leaves what was there as it was, as long as nobody looks.
                if !previous.is_empty() {
                    self.previous.get_mut().insert(table, previous);
                }
            }
            MapOp::UpdateTable { table, updates } => {
                let slots = self.tables.get_mut(&table).unwrap();
                let previous = self.previous.get_mut().get_mut(&table).unwrap();
                for update in updates {
                    slots[update.index as usize] = update.slot;
                    previous[update.index as usize] = update.previous;
                }
            }
            MapOp::SetService { key, value } => {
                assert!(self.tables.contains_key(&value.table));
                self.services.insert(key, value);
            }
            MapOp::DeleteService { key } => {
                self.services.remove(&key).expect("deleted once");
            }
            MapOp::DeleteTable { table, size } => {
                assert!(self.services.values().all(|service| service.table != table));
                self.spares.insert(table, size);
            }
            MapOp::DeletePrevious { tables } => {
                for table in tables {
                    assert!(self.services.values().all(|service| service.previous != table));
                    self.previous.get_mut().remove(&table);
                }
            }
            MapOp::MarkNote { key, note } => {
                self.notes.get_mut().insert(key, note);
            }
            MapOp::DeleteNote { key, .. } => {
                self.notes.get_mut().remove(&key);
            }
            MapOp::DeleteOpening { key, .. } => self.forget_opening(&key),
            MapOp::SetPortRange { .. }
            | MapOp::DeletePortRange { .. }
            | MapOp::LookForPortRanges(_) => panic!("no service has a range"),
            MapOp::ClearRealServerCounters { .. } | MapOp::ClearServiceCounters { .. } => {}
        }
    }

    /// As `Dataplane::tidy` does, after every aging.
    pub(super) fn tidy(&mut self) -> BTreeMap<u32, u32> {
        self.full.set(false);
        // One of each size is kept: here all are of one size.
        self.rested.append(&mut self.spares);
        while self.rested.len() > 1 {
            self.rested.pop_last();
        }
        self.rested.clone()
    }

    /// As `Dataplane::noted` does.
    pub(super) fn noted(&self, installed: &mut Installed) -> Noted {
        for (index, table) in &mut installed.tables {
            if !table.generation.is_steady() {
                table.generation.refresh(self.previous.borrow()[index].clone());
            }
        }
        Noted {
            now: self.now,
            connections: self.notes.borrow().iter().map(|(key, note)| (*key, *note)).collect(),
            openings: self.openings.borrow().clone(),
        }
    }

    /// As `Dataplane::installed` does for a daemon that finds the maps of another.
    pub(super) fn installed(&mut self) -> Installed {
        let mut installed = Installed {
            services: self.services.clone(),
            real_servers: self.real_servers.clone(),
            ..Installed::default()
        };
        let used: BTreeSet<u32> = self.services.values().map(|service| service.table).collect();
        for &table in &used {
            let tracked = self.services.values().any(|service| service.previous == table);
            let mut slots = self.tables[&table].clone();
            let mut previous = Vec::new();
            if tracked {
                previous = self.previous.get_mut()[&table].clone();
            } else {
                slots.iter_mut().for_each(|slot| *slot &= INDEX);
            }
            let generation = Generation::adopted(slots, previous);
            installed.tables.insert(table, InstalledTable { generation, made: None, moved: None });
        }
        self.tables.retain(|table, _| used.contains(table));
        self.previous.get_mut().retain(|table, _| used.contains(table));
        self.spares.clear();
        self.rested.clear();
        installed
    }

    /// What nothing is left of once all flows have gone.
    pub(super) fn assert_forgotten(&self, members: &BTreeSet<Ipv4Addr>) {
        assert_eq!(*self.notes.borrow(), BTreeMap::new());
        assert_eq!(*self.openings.borrow(), []);
        for service in self.services.values() {
            assert_eq!(service.previous, STEADY);
            assert!(self.tables[&service.table].iter().all(|slot| slot & CHANGED == 0));
        }
        let known = self.real_servers.values().map(|server| server.address.into());
        assert_eq!(known.collect::<BTreeSet<_>>(), *members);
    }
}

impl Memory for Kernel {
    fn previous(&self, table: u32, slot: u32) -> Option<Previous> {
        self.previous.borrow().get(&table)?.get(slot as usize).copied()
    }

    fn mark_noted(&self, table: u32, slot: u32) {
        self.previous.borrow_mut().get_mut(&table).unwrap()[slot as usize].noted = 1;
    }

    fn stamp_previous(&self, table: u32, slot: u32, seen: Seconds) {
        self.previous.borrow_mut().get_mut(&table).unwrap()[slot as usize].seen = seen;
    }

    fn note(&self, key: &FlowKey) -> Option<Note> {
        self.notes.borrow().get(key).copied()
    }

    fn set_note(&self, key: &FlowKey, note: &Note) -> bool {
        let mut notes = self.notes.borrow_mut();
        let fits = notes.contains_key(key) || notes.len() < self.room.0;
        if fits {
            notes.insert(*key, *note);
        }
        fits
    }

    fn touch_note(&self, key: &FlowKey, note: &Note) {
        *self.notes.borrow_mut().get_mut(key).unwrap() = *note;
    }

    fn forget_note(&self, key: &FlowKey) {
        self.notes.borrow_mut().remove(key);
    }

    fn opening(&self, key: &FlowKey) -> Option<Note> {
        let mut openings = self.openings.borrow_mut();
        let at = openings.iter().position(|(other, _)| other == key)?;
        let used = openings.remove(at);
        openings.push(used);
        Some(used.1)
    }

    fn set_opening(&self, key: &FlowKey, note: &Note) -> bool {
        self.forget_opening(key);
        let mut openings = self.openings.borrow_mut();
        if openings.len() == self.room.1 {
            openings.remove(0);
            self.overflowed.set(true);
        }
        openings.push((*key, *note));
        true
    }

    fn forget_opening(&self, key: &FlowKey) {
        self.openings.borrow_mut().retain(|(other, _)| other != key);
    }

    fn is_full(&self) -> bool {
        self.full.get()
    }

    fn report_full(&self) {
        self.full.set(true);
        self.overflowed.set(true);
    }

    fn seconds(&self) -> Seconds {
        self.now
    }
}
