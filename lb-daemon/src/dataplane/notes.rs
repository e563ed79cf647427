//! The flow tables, which the datapath writes and the daemon tidies.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use aya::maps::{HashMap, MapData, MapError};
use lb_ebpf::{abi::Note, flow::FlowKey};

use super::{ApplyError, Dataplane, apply::Refused, memory, monotonic_seconds};
use crate::reconcile::{Installed, Noted};

/// Changes an entry that is there, and makes none.
const BPF_EXIST: u64 = 2;

/// A flow table, and a descriptor of it to read it as a whole.
pub(super) struct Notes {
    pub(super) map: HashMap<MapData, FlowKey, Note>,
    pub(super) fd: OwnedFd,
}

/// The datapath writes notes as well, and is the first to know: what it has changed since `note` was
/// read is left as it is, for the next look.
impl Notes {
    pub(super) fn mark(&mut self, key: &FlowKey, note: &Note) -> Result<(), Refused> {
        match self.get(key)? {
            Some(now) if now.is_of_the_same_flow(note) => {
                let state = now.state & !Note::DOWN | note.state & Note::DOWN;
                let marked = Note { state, seen: now.seen.max(note.seen), ..now };
                unless_gone(self.map.insert(key, marked, BPF_EXIST)).map(drop)
            }
            Some(_) | None => Ok(()),
        }
    }

    pub(super) fn forget(&mut self, key: &FlowKey, note: &Note) -> Result<(), Refused> {
        match self.get(key)? {
            Some(now) if now == *note => unless_gone(self.map.remove(key)).map(drop),
            Some(_) | None => Ok(()),
        }
    }

    fn get(&self, key: &FlowKey) -> Result<Option<Note>, Refused> {
        unless_gone(self.map.get(key, 0))
    }
}

/// `None` if the datapath was first.
fn unless_gone<T>(result: Result<T, MapError>) -> Result<Option<T>, Refused> {
    match result {
        Err(MapError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::NotFound => {
            Ok(None)
        }
        Err(MapError::KeyNotFound) => Ok(None),
        result => Ok(Some(result?)),
    }
}

impl Dataplane {
    /// What the datapath has noted of flows, and the times that it has written into previous
    /// owners, which `installed` gets.
    pub fn noted(&self, installed: &mut Installed) -> Result<Noted, ApplyError> {
        self.read_noted(installed)
            .map_err(|source| ApplyError { what: "read the flow table", source })
    }

    /// When nothing is remembered.
    pub fn nothing_noted() -> Noted {
        Noted { now: monotonic_seconds(), ..Noted::default() }
    }

    fn read_noted(&self, installed: &mut Installed) -> Result<Noted, Refused> {
        for (&index, table) in &mut installed.tables {
            if !table.generation.is_steady() {
                table.generation.refresh(self.tables.read_previous(index)?);
            }
        }
        // In the direction in which the datapath moves them: one that moves meanwhile is in both,
        // not in neither.
        let openings = memory::entries(self.openings.fd.as_fd())?;
        Ok(Noted {
            openings,
            connections: memory::entries(self.notes.fd.as_fd())?,
            // After what was read, or a note could be from the future.
            now: monotonic_seconds(),
        })
    }
}
