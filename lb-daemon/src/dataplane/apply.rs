//! Carrying out what a plan says, map by map.

use std::io;

use aya::maps::{MapError, lpm_trie::Key};
use lb_ebpf::abi::{self, Settings};

use super::{Dataplane, counters};
use crate::reconcile::{Installed, MapOp};

/// A change of a map that the kernel refused.
#[derive(Debug, thiserror::Error)]
#[error("{what} in the datapath")]
pub struct ApplyError {
    pub(super) what: &'static str,
    #[source]
    pub(super) source: Refused,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    #[error(transparent)]
    Map(#[from] MapError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Dataplane {
    /// Carries out operations, in order. Tables are made together ahead of the first operation
    /// that follows them, as the kernel waits for packets in flight each time.
    pub fn apply(&mut self, ops: &[MapOp]) -> Result<(), ApplyError> {
        for op in ops {
            if !matches!(op, MapOp::InstallTable { .. }) {
                self.publish()?;
            }
            let (what, done) = self.apply_one(op);
            done.map_err(|source| ApplyError { what, source })?;
        }
        self.publish()
    }

    fn publish(&mut self) -> Result<(), ApplyError> {
        let what = "install Maglev tables";
        self.tables.publish().map_err(|source| ApplyError { what, source: source.into() })
    }

    fn apply_one(&mut self, op: &MapOp) -> (&'static str, Result<(), Refused>) {
        match op {
            MapOp::SetRealServer { index, value } => {
                ("set a real server", self.set_real_server(*index, value))
            }
            MapOp::FreeRealServer { index } => {
                ("free a real server", self.set_real_server(*index, &abi::RealServer::FREE))
            }
            MapOp::ClearRealServerCounters { index } => {
                let counters = &mut self.real_server_counters;
                ("clear a real server's counters", counters::clear(counters, (*index).into()))
            }
            MapOp::ClearServiceCounters { id } => {
                let counters = &mut self.service_counters;
                ("clear a service's counters", counters::clear(counters, *id))
            }
            MapOp::UpdateTable { table, updates } => {
                let done = self.tables.update(*table, updates);
                ("update a Maglev table", done.map_err(Into::into))
            }
            MapOp::DeletePrevious { tables } => {
                let done = self.tables.delete_previous(tables);
                ("delete previous owners", done.map_err(Into::into))
            }
            MapOp::SetService { key, value } => {
                let done = self.services.insert(key, value, 0);
                self.front.set(key, value);
                ("set a virtual service", done.map_err(Into::into))
            }
            MapOp::DeleteService { key } => {
                self.front.delete(key);
                ("delete a virtual service", self.services.remove(key).map_err(Into::into))
            }
            MapOp::SetPortRange { prefix: (bits, prefix), key } => {
                let done = self.port_ranges.insert(&Key::new(*bits, *prefix), key, 0);
                ("set a port range", done.map_err(Into::into))
            }
            MapOp::DeletePortRange { prefix: (bits, prefix) } => {
                let done = self.port_ranges.remove(&Key::new(*bits, *prefix));
                ("delete a port range", done.map_err(Into::into))
            }
            MapOp::LookForPortRanges(wanted) => {
                ("look for port ranges", self.look_for_port_ranges(*wanted))
            }
            MapOp::MarkNote { key, note } => ("mark a flow", self.notes.mark(key, note)),
            MapOp::DeleteNote { key, note } => ("forget a flow", self.notes.forget(key, note)),
            MapOp::DeleteOpening { key, note } => {
                ("forget a flow", self.openings.forget(key, note))
            }
            MapOp::DeleteTable { table, size } => {
                self.tables.delete(*table, *size as usize);
                ("delete a Maglev table", Ok(()))
            }
            MapOp::InstallTable { table, slots, previous } => {
                let made = self.tables.install(*table, slots, previous);
                ("make a Maglev table", made.map_err(Into::into))
            }
        }
    }

    /// Makes ready for the next change, and gives back what the last ones left. Takes the kernel
    /// some ten milliseconds when there is something to do. To be called about every second, as a
    /// spare rests for two calls.
    pub fn tidy(&mut self, installed: &mut Installed) -> Result<(), ApplyError> {
        let used = installed.tables.iter();
        let used = used.map(|(&index, table)| (index, table.generation.slots().len())).collect();
        let done = self.tables.tidy(&used, self.capacity.tables);
        installed.spares = self.tables.spares();
        done.map_err(|source| ApplyError {
            what: "make spare Maglev tables",
            source: source.into(),
        })
    }

    fn set_real_server(&mut self, index: u16, value: &abi::RealServer) -> Result<(), Refused> {
        Ok(self.real_servers.set(u32::from(index), value, 0)?)
    }

    pub(super) fn look_for_port_ranges(&mut self, wanted: bool) -> Result<(), Refused> {
        let before = self.settings.get(&0, 0)?;
        Ok(self.settings.set(0, Settings { port_ranges: u32::from(wanted), ..before }, 0)?)
    }

    /// Lets the datapath note flows again, after notes were deleted.
    pub fn clear_full(&mut self) -> Result<(), ApplyError> {
        let mut clear = || -> Result<(), Refused> {
            let before = self.settings.get(&0, 0)?;
            if before.flow_table_full != 0 {
                self.settings.set(0, Settings { flow_table_full: 0, ..before }, 0)?;
            }
            Ok(())
        };
        clear().map_err(|source| ApplyError { what: "let flows be noted again", source })
    }
}
