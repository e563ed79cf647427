//! Plain memory in the place of the BPF maps, for tests.

use core::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use super::Memory;
use crate::{
    abi::{Note, Previous, Seconds},
    flow::FlowKey,
};

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct PlainMemory {
    /// By index of the table and slot.
    pub(crate) previous: RefCell<BTreeMap<(u32, u32), Previous>>,
    pub(crate) notes: RefCell<BTreeMap<FlowKey, Note>>,
    pub(crate) openings: RefCell<BTreeMap<FlowKey, Note>>,
    /// The flow tables take no more entries.
    pub(crate) has_no_room: bool,
    pub(crate) full: Cell<bool>,
    pub(crate) now: Seconds,
}

impl Memory for PlainMemory {
    fn previous(&self, table: u32, slot: u32) -> Option<Previous> {
        self.previous.borrow().get(&(table, slot)).copied()
    }

    fn mark_noted(&self, table: u32, slot: u32) {
        self.previous.borrow_mut().get_mut(&(table, slot)).unwrap().noted = 1;
    }

    fn stamp_previous(&self, table: u32, slot: u32, seen: Seconds) {
        self.previous.borrow_mut().get_mut(&(table, slot)).unwrap().seen = seen;
    }

    fn note(&self, key: &FlowKey) -> Option<Note> {
        self.notes.borrow().get(key).copied()
    }

    fn set_note(&self, key: &FlowKey, note: &Note) -> bool {
        if !self.has_no_room {
            self.notes.borrow_mut().insert(*key, *note);
        }
        !self.has_no_room
    }

    fn touch_note(&self, key: &FlowKey, note: &Note) {
        *self.notes.borrow_mut().get_mut(key).unwrap() = *note;
    }

    fn forget_note(&self, key: &FlowKey) {
        self.notes.borrow_mut().remove(key);
    }

    fn opening(&self, key: &FlowKey) -> Option<Note> {
        self.openings.borrow().get(key).copied()
    }

    fn set_opening(&self, key: &FlowKey, note: &Note) -> bool {
        if !self.has_no_room {
            self.openings.borrow_mut().insert(*key, *note);
        }
        !self.has_no_room
    }

    fn forget_opening(&self, key: &FlowKey) {
        self.openings.borrow_mut().remove(key);
    }

    fn is_full(&self) -> bool {
        self.full.get()
    }

    fn report_full(&self) {
        self.full.set(true);
    }

    fn seconds(&self) -> Seconds {
        self.now
    }
}
