//! Maglev tables and their previous owners in the kernel: a map of maps each.
//!
//! The kernel waits for the packets in flight whenever an inner map is replaced, some ten
//! milliseconds each time. So a table that is given up stays where it is, as a *spare*: the next
//! one of its size is written into it, and packets meet it when their service names it. Spares
//! rest for a while first, and are made and removed when nobody waits ([`Tables::tidy`]).

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    os::fd::{AsFd, OwnedFd},
};

use lb_ebpf::abi::{Cell, EMPTY, INDEX, Previous, Slot};

use super::memory::{Mapped, set_inner};
use crate::generation::{Generation, SlotUpdate};

const SLOTS: usize = Cell::SLOTS as usize;
/// New tables are published so many at a time: each is an open file until then.
const PUBLISHED_AT_ONCE: usize = 256;
/// Of each size, at most.
const SPARES: usize = 2;

pub(super) struct Tables {
    slots: OwnedFd,
    previous: OwnedFd,
    spares: BTreeMap<u32, Spare>,
    /// Packets do not meet them yet.
    built: Vec<Built>,
}

struct Spare {
    /// Slots.
    size: usize,
    /// Calls of [`Tables::tidy`] since it was given up; after two, no packet can still be looking
    /// there.
    tidied: u8,
}

impl Spare {
    const RESTED: u8 = 2;
}

struct Built {
    index: u32,
    cells: Mapped<Cell>,
    previous: Option<Mapped<Previous>>,
}

impl Tables {
    pub(super) fn new(slots: OwnedFd, previous: OwnedFd) -> Self {
        Self { slots, previous, spares: BTreeMap::new(), built: Vec::new() }
    }

    /// Indexes of tables that can be written anew, and their slots.
    pub(super) fn spares(&self) -> BTreeMap<u32, u32> {
        let rested = self.spares.iter().filter(|(_, spare)| spare.tidied >= Spare::RESTED);
        rested
            .filter_map(|(&index, spare)| Some((index, u32::try_from(spare.size).ok()?)))
            .collect()
    }

    /// Makes a table, in a spare or aside; `previous` are as many as slots, or none.
    pub(super) fn install(
        &mut self,
        index: u32,
        slots: &[Slot],
        previous: &[Previous],
    ) -> io::Result<()> {
        let rested = self.spares.remove(&index).is_some_and(|spare| spare.tidied >= Spare::RESTED);
        if rested && self.refill(index, slots, previous)? {
            return Ok(());
        }
        self.built.push(Built::new(index, slots, previous)?);
        if self.built.len() >= PUBLISHED_AT_ONCE { self.publish() } else { Ok(()) }
    }

    /// Makes what was made aside known to the datapath, which meets it once a service names it.
    pub(super) fn publish(&mut self) -> io::Result<()> {
        let built = std::mem::take(&mut self.built);
        let cells: Vec<_> = built.iter().map(|table| (table.index, table.cells.as_fd())).collect();
        let previous: Vec<_> = built
            .iter()
            .filter_map(|table| Some((table.index, table.previous.as_ref()?.as_fd())))
            .collect();
        set_inner(self.slots.as_fd(), &cells)?;
        set_inner(self.previous.as_fd(), &previous)
    }

    /// False if the spare cannot hold it.
    fn refill(&self, index: u32, slots: &[Slot], previous: &[Previous]) -> io::Result<bool> {
        let Some(mut cells) = self.cells(index)? else { return Ok(false) };
        if cells.len() != slots.len().div_ceil(SLOTS) {
            return Ok(false);
        }
        if !previous.is_empty() {
            let Some(mut owners) = self.owners(index)? else { return Ok(false) };
            if owners.len() != previous.len() {
                return Ok(false);
            }
            write_previous(&mut owners, previous);
        }
        write_slots(&mut cells, slots);
        Ok(true)
    }

    /// A slot before its owner of before: whoever reads in between has both alike.
    pub(super) fn update(&self, index: u32, updates: &[SlotUpdate]) -> io::Result<()> {
        let missing = || io::Error::from(io::ErrorKind::NotFound);
        let mut cells = self.cells(index)?.ok_or_else(missing)?;
        let mut owners = self.owners(index)?.ok_or_else(missing)?;
        for update in updates {
            let at = update.index as usize;
            let written = cells.write_u16(at * size_of::<Slot>(), update.slot)
                && owners.write(at, update.previous);
            if !written {
                return Err(missing());
            }
        }
        Ok(())
    }

    /// To be called after no service names it any more.
    pub(super) fn delete(&mut self, index: u32, size: usize) {
        self.spares.insert(index, Spare { size, tidied: 0 });
    }

    /// Keeps one or two spares of each size in `used` (index and slots), and gives the memory of all
    /// other spares back: one is written while the other rests. To be called about every second.
    pub(super) fn tidy(&mut self, used: &BTreeMap<u32, usize>, limit: usize) -> io::Result<()> {
        let sizes: BTreeSet<usize> = used.values().copied().collect();
        let mut rested = BTreeMap::<usize, usize>::new();
        let mut surplus = Vec::new();
        for spare in self.spares.values_mut() {
            spare.tidied = (spare.tidied + 1).min(Spare::RESTED);
        }
        for (&index, spare) in &self.spares {
            if spare.tidied < Spare::RESTED {
                continue;
            }
            // Only one that can hold a change is ready for the next.
            let whole = self.owners(index)?.is_some_and(|owners| owners.len() == spare.size);
            let kept = rested.entry(spare.size).or_default();
            if whole && sizes.contains(&spare.size) && *kept < SPARES {
                *kept += 1;
            } else {
                surplus.push(index);
            }
        }
        let wanted =
            sizes.into_iter().filter(|size| rested.get(size).is_none_or(|kept| *kept == 0));
        self.remove(&surplus)?;
        for size in wanted {
            // From the end, as tables in use are numbered from the beginning.
            let free = (0..u32::try_from(limit).unwrap_or(u32::MAX))
                .rev()
                .find(|index| !used.contains_key(index) && !self.spares.contains_key(index));
            let Some(index) = free else { continue };
            self.built.push(Built::new(index, &vec![EMPTY; size], &vec![Previous::NONE; size])?);
            self.spares.insert(index, Spare { size, tidied: Spare::RESTED });
        }
        self.publish()
    }

    /// After adoption: what nobody names any more is not known to be a spare.
    pub(super) fn remove_all_but(&mut self, used: &BTreeSet<u32>, limit: usize) -> io::Result<()> {
        self.built.clear();
        let mut left = Vec::new();
        for index in (0..u32::try_from(limit).unwrap_or(u32::MAX)).filter(|i| !used.contains(i)) {
            if self.cells(index)?.is_some_and(|cells| cells.len() > 1) {
                left.push(index);
            }
        }
        self.remove(&left)
    }

    /// An empty map takes the place, as the kernel's cannot be cleared; memory is what counts.
    fn remove(&mut self, indexes: &[u32]) -> io::Result<()> {
        if indexes.is_empty() {
            return Ok(());
        }
        let empty = Mapped::<Cell>::create("table", 1)?;
        let places: Vec<_> = indexes.iter().map(|index| (*index, empty.as_fd())).collect();
        set_inner(self.slots.as_fd(), &places)?;
        for index in indexes {
            self.spares.remove(index);
        }
        self.delete_previous(indexes)
    }

    pub(super) fn delete_previous(&self, indexes: &[u32]) -> io::Result<()> {
        let mut places = Vec::new();
        let empty = Mapped::<Previous>::create("previous", 1)?;
        for &index in indexes {
            if self.owners(index)?.is_some_and(|owners| owners.len() > 1) {
                places.push((index, empty.as_fd()));
            }
        }
        set_inner(self.previous.as_fd(), &places)
    }

    /// A table as it is; `tracked`: with its previous owners.
    pub(super) fn read(&self, index: u32, size: u32, tracked: bool) -> io::Result<Generation> {
        let cells = self.cells(index)?.map(|cells| cells.read()).unwrap_or_default();
        let mut slots: Vec<Slot> = cells.into_iter().flat_map(|cell| cell.slots).collect();
        slots.resize(size as usize, EMPTY);
        let mut previous = if tracked { self.read_previous(index)? } else { Vec::new() };
        if previous.len() != slots.len() {
            previous.clear();
            slots.iter_mut().for_each(|slot| *slot &= INDEX);
        }
        Ok(Generation::adopted(slots, previous))
    }

    pub(super) fn read_previous(&self, index: u32) -> io::Result<Vec<Previous>> {
        Ok(self.owners(index)?.map(|owners| owners.read()).unwrap_or_default())
    }

    /// Slots of all spares, whose memory is theirs too.
    pub(super) fn spare_sizes(&self) -> impl Iterator<Item = usize> + '_ {
        self.spares.values().map(|spare| spare.size)
    }

    fn cells(&self, index: u32) -> io::Result<Option<Mapped<Cell>>> {
        Mapped::inner(self.slots.as_fd(), index)
    }

    fn owners(&self, index: u32) -> io::Result<Option<Mapped<Previous>>> {
        Mapped::inner(self.previous.as_fd(), index)
    }
}

impl Built {
    fn new(index: u32, slots: &[Slot], previous: &[Previous]) -> io::Result<Self> {
        let mut cells = Mapped::create("table", slots.len().div_ceil(SLOTS))?;
        write_slots(&mut cells, slots);
        let previous = if previous.is_empty() {
            None
        } else {
            let mut owners = Mapped::create("previous", previous.len())?;
            write_previous(&mut owners, previous);
            Some(owners)
        };
        Ok(Self { index, cells, previous })
    }
}

fn write_slots(cells: &mut Mapped<Cell>, slots: &[Slot]) {
    for (at, chunk) in slots.chunks(SLOTS).enumerate() {
        let mut cell = Cell { slots: [EMPTY; SLOTS] };
        cell.slots[..chunk.len()].copy_from_slice(chunk);
        cells.write(at, cell);
    }
}

fn write_previous(owners: &mut Mapped<Previous>, previous: &[Previous]) {
    for (at, &owner) in previous.iter().enumerate() {
        owners.write(at, owner);
    }
}
