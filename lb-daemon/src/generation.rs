//! The slots of a Maglev table and, while a change is in progress, who had them before.
//!
//! Pure. What packets make of it is [`lb_ebpf::tracking`]; this is what a change, and then time,
//! make of it:
//!
//! - A slot that gets another owner is marked, and remembers the one that it had in the last
//!   steady state, over any number of changes: flows since then are noted one by one.
//! - That owner is forgotten when none of its flows has been seen for a time, or a deadline
//!   passes. Then, and when no noted flow belongs to anybody else, the slot is steady again.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use lb_ebpf::abi::{CHANGED, EMPTY, INDEX, Note, Previous, Seconds, Slot};

use crate::service::Tracking;

/// How long the flows of a real server that is gone are kept apart, for it might return: one that
/// flaps, or is deleted and added again, has its idle connections yet.
const DOWN_RETENTION: Seconds = 300;
/// After a FIN or RST of the client: for what is on its way, and what the server still sends.
const CLOSED_RETENTION: Seconds = 60;
/// A SYN that nothing followed; repetitions come within this time.
const OPENING_RETENTION: Seconds = 128;

/// The indexes of the real servers that keep their flows: all of a pool, whatever their weight.
pub type Members = BTreeSet<u16>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generation {
    slots: Vec<Slot>,
    /// As many as slots while a change is in progress, else none.
    previous: Vec<Previous>,
}

/// A slot as it is to be from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotUpdate {
    pub index: u32,
    pub slot: Slot,
    pub previous: Previous,
}

/// How long what is remembered is kept; by default not at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    drain: Seconds,
    idle: Seconds,
}

impl From<Tracking> for Retention {
    fn from(tracking: Tracking) -> Self {
        Self { drain: seconds(tracking.drain_timeout), idle: seconds(tracking.idle_timeout) }
    }
}

impl Retention {
    /// The longer of each.
    pub fn max(self, other: Self) -> Self {
        Self { drain: self.drain.max(other.drain), idle: self.idle.max(other.idle) }
    }
}

/// In whole seconds, and never less: both ends of what is compared with it may have lost almost one.
fn seconds(duration: Duration) -> Seconds {
    let whole = duration.as_millis().div_ceil(1000) + 1;
    Seconds::try_from(whole).unwrap_or(Seconds::MAX)
}

impl Generation {
    /// Of owners that nobody had before.
    pub fn steady(owners: Vec<u16>) -> Self {
        Self { slots: owners, previous: Vec::new() }
    }

    /// As it was read back; `previous` as many as slots, or none.
    pub fn adopted(slots: Vec<Slot>, mut previous: Vec<Previous>) -> Self {
        // A daemon that was killed may have come no further than the last slot.
        if slots.iter().all(|slot| slot & CHANGED == 0) {
            previous.clear();
        }
        Self { slots, previous }
    }

    pub fn is_steady(&self) -> bool {
        self.previous.is_empty()
    }

    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// None in the steady state.
    pub fn previous(&self) -> &[Previous] {
        &self.previous
    }

    /// As it was read again, with newer times in it.
    pub fn refresh(&mut self, previous: Vec<Previous>) {
        if previous.len() == self.previous.len() {
            self.previous = previous;
        }
    }

    /// Real servers by slot, or [`EMPTY`].
    pub fn owners(&self) -> impl ExactSizeIterator<Item = u16> + '_ {
        self.slots.iter().map(|slot| slot & INDEX)
    }

    /// The slots that changed hands and remember it, with their former owners.
    pub fn changed(&self) -> impl Iterator<Item = (u32, Previous)> + '_ {
        (0..)
            .zip(self.slots.iter().zip(&self.previous))
            .filter(|(_, (slot, _))| *slot & CHANGED != 0)
            .map(|(index, (_, previous))| (index, *previous))
    }

    /// Whether it says of every former owner if it is gone.
    pub fn knows(&self, members: &Members) -> bool {
        self.changed()
            .all(|(_, previous)| previous.real_server == with_down(previous.index(), members))
    }

    /// What it becomes when `owners` (as many as slots) take over.
    pub fn change(&self, owners: Vec<u16>, members: &Members, now: Seconds) -> Self {
        let mut slots = owners;
        let mut previous = Vec::with_capacity(slots.len());
        for (index, slot) in slots.iter_mut().enumerate() {
            let before = self.slots.get(index).copied().unwrap_or(EMPTY);
            let remembered = self.previous.get(index).copied().unwrap_or(Previous::NONE);
            let (next, remembered) = change_slot(before, remembered, *slot, members, now);
            *slot = next;
            previous.push(remembered);
        }
        if slots.iter().all(|slot| slot & CHANGED == 0) {
            previous.clear();
        }
        Self { slots, previous }
    }

    /// What time has done to the marked slots, where that is something; `notes` are those of flows
    /// that may yet live, by slot.
    pub fn age(
        &self,
        retention: Retention,
        notes: &BTreeMap<u32, BTreeSet<u16>>,
        now: Seconds,
    ) -> Vec<SlotUpdate> {
        self.changed()
            .filter_map(|(index, previous)| {
                let owner = self.slots[index as usize] & INDEX;
                let expired = retention.has_expired(&previous, now);
                let alone = previous.real_server == owner || expired;
                let exceptions = notes
                    .get(&index)
                    .is_some_and(|noted| noted.iter().any(|&server| server != owner));
                let update = |slot, previous| Some(SlotUpdate { index, slot, previous });
                if alone && !exceptions {
                    update(owner, Previous::NONE)
                } else if expired && previous.real_server != owner {
                    let previous = Previous {
                        real_server: owner,
                        noted: 1,
                        seen: now,
                        since: now,
                        changed: previous.changed,
                    };
                    update(owner | CHANGED, previous)
                } else {
                    None
                }
            })
            .collect()
    }

    pub fn update(&mut self, updates: &[SlotUpdate]) {
        for update in updates {
            self.slots[update.index as usize] = update.slot;
            self.previous[update.index as usize] = update.previous;
        }
        if self.slots.iter().all(|slot| slot & CHANGED == 0) {
            self.previous.clear();
        }
    }
}

fn change_slot(
    before: Slot,
    remembered: Previous,
    owner: u16,
    members: &Members,
    now: Seconds,
) -> (Slot, Previous) {
    let former = before & INDEX;
    if before & CHANGED == 0 {
        if owner == former || former == EMPTY {
            return (owner, Previous::NONE);
        }
        let real_server = with_down(former, members);
        let previous = Previous { real_server, noted: 0, seen: now, since: now, changed: now };
        return (owner | CHANGED, previous);
    }
    let departs = remembered.index() == former && owner != former;
    let real_server = with_down(remembered.index(), members);
    let goes_down = real_server & Previous::DOWN != 0 && !remembered.is_down();
    let previous = Previous {
        real_server,
        // While it had the slot, its flows were not looked for.
        seen: if departs { now } else { remembered.seen },
        since: if departs { now } else { remembered.since },
        changed: if owner == former && !goes_down { remembered.changed } else { now },
        // One may come between the reading of this and the swap of the tables.
        noted: 1,
    };
    (owner | CHANGED, previous)
}

fn with_down(index: u16, members: &Members) -> u16 {
    if index == EMPTY || members.contains(&index) { index } else { index | Previous::DOWN }
}

impl Retention {
    fn has_expired(self, previous: &Previous, now: Seconds) -> bool {
        let age = now.saturating_sub(previous.since);
        age >= self.drain
            || now.saturating_sub(previous.seen) >= self.idle
            || (previous.is_down() && now.saturating_sub(previous.changed) >= DOWN_RETENTION)
    }

    /// Whether the flow of a note has to be counted as gone; `changed` is when its slot last
    /// changed hands, and `owns` whether the real server has the slot now.
    pub fn has_gone(self, note: &Note, owns: bool, changed: Seconds, now: Seconds) -> bool {
        let idle = now.saturating_sub(note.seen);
        let kept = now.saturating_sub(changed);
        idle >= self.idle
            || (note.state & Note::CLOSING != 0 && idle >= CLOSED_RETENTION)
            || (!owns && kept >= self.drain)
            || (note.state & Note::DOWN != 0 && idle >= DOWN_RETENTION)
    }
}

/// Whether nothing will follow a SYN any more.
pub fn has_given_up(opening: &Note, now: Seconds) -> bool {
    now.saturating_sub(opening.seen) >= OPENING_RETENTION
}

#[cfg(test)]
mod tests;
