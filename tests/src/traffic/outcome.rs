//! What became of the connections of a load.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    time::{Duration, SystemTime},
};

use anyhow::ensure;

use crate::{
    connection::{Failure, Finished},
    report::{Connections, NewConnections},
};

/// Faults quoted in full; the rest is only counted.
const FAULTS_SHOWN: usize = 8;

/// What became of the connections.
#[derive(Debug, Default)]
pub struct LoadReport {
    pub connections: Connections,
    pub new_connections: NewConnections,
    pub longest_stall: Duration,
    /// Connections, long-lived and new, by the real server that carried them to their end.
    pub by_real_server: BTreeMap<String, u64>,
    /// The addresses of the client as the real servers saw them.
    pub clients_seen: BTreeSet<Ipv4Addr>,
    /// For a person; the first few.
    pub faults: Vec<String>,
    /// In the order in which they ended, as far as they came about at all.
    pub long_lived: Vec<Life>,
    /// The short ones, opened all the time.
    pub new: Vec<Life>,
}

/// One connection, from the first SYN to its end.
#[derive(Clone, Debug)]
pub struct Life {
    pub opened: SystemTime,
    pub ended: SystemTime,
    /// `None`: it never heard of one.
    pub real_server: Option<String>,
    /// `None`: it came to its end in order.
    pub failure: Option<Failure>,
}

pub(super) type Outcome = Result<Finished, Failure>;

impl LoadReport {
    /// For tests: whether every connection, old and new, has lived to its end.
    pub fn ensure_unbroken(&self) -> anyhow::Result<()> {
        let Self { connections, new_connections, faults, by_real_server, .. } = self;
        ensure!(
            connections.opened > 0
                && connections.survived == connections.opened
                && new_connections.succeeded == new_connections.attempted,
            "connections were broken: {connections:?}, {new_connections:?}, {by_real_server:?}, \
             {faults:#?}"
        );
        Ok(())
    }

    /// For tests that flood real servers, whose listening sockets answer with SYN cookies then and
    /// turn some away: whether every established connection has lived to its end, and of the new
    /// ones all but one in a hundred.
    pub fn ensure_kept(&self) -> anyhow::Result<()> {
        let Self { connections, new_connections, faults, .. } = self;
        let failed = new_connections.attempted - new_connections.succeeded;
        ensure!(
            connections.opened > 0
                && connections.survived == connections.opened
                && failed * 100 <= new_connections.attempted,
            "connections were broken: {connections:?}, {new_connections:?}, {faults:#?}"
        );
        Ok(())
    }

    pub(super) fn add_long_lived(&mut self, mut life: Life, outcome: Outcome) {
        let count = &mut self.connections;
        count.opened += 1;
        match &outcome {
            Ok(finished) => {
                count.survived += 1;
                self.longest_stall = self.longest_stall.max(finished.longest_stall);
            }
            Err(Failure::Reset(_)) => count.reset += 1,
            Err(Failure::TimedOut(_)) => count.timed_out += 1,
            Err(Failure::Corrupted(_)) => count.corrupted += 1,
        }
        life.failure = self.add(&life, outcome);
        self.long_lived.push(life);
    }

    pub(super) fn add_new(&mut self, mut life: Life, outcome: Outcome) {
        self.new_connections.attempted += 1;
        self.new_connections.succeeded += u64::from(outcome.is_ok());
        life.failure = self.add(&life, outcome);
        self.new.push(life);
    }

    fn add(&mut self, life: &Life, outcome: Outcome) -> Option<Failure> {
        match outcome {
            Ok(Finished { trailer, .. }) => {
                *self.by_real_server.entry(trailer.real_server).or_default() += 1;
                self.clients_seen.insert(trailer.client);
                None
            }
            Err(failure) => {
                if self.faults.len() < FAULTS_SHOWN {
                    let of = life.real_server.as_deref().unwrap_or("nobody");
                    self.faults.push(format!("connection to {of}: {failure}"));
                }
                Some(failure)
            }
        }
    }
}
