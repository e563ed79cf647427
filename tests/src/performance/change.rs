//! Scenarios in which the pool changes, and no connection may notice.

use std::{
    net::Ipv4Addr,
    time::{Duration, SystemTime},
};

use anyhow::Context;

use super::{
    Stage,
    act::{Act, Findings},
    timeline::ms_between,
};
use crate::{
    director::{Director, Edit},
    interrupt::observe,
    lab::Lab,
    probe::{Sighting, Sign},
    report::PoolChange,
    scenario::Pair,
    traffic::{Life, Load, LoadReport, Mark},
};

/// New connections are opened for so long after the change, so that their shares show.
const SETTLED: Duration = Duration::from_millis(1_000);

/// The one real server whose share changes, before and after.
pub(super) struct Change {
    address: Ipv4Addr,
    real_server: &'static str,
    share_before: f64,
    share_after: f64,
    /// Long-lived connections that it had before.
    had: u64,
    /// When the active director had confirmed it.
    confirmed: SystemTime,
}

impl Change {
    pub(super) fn before(
        stage: &Stage<'_>,
        pair: &Pair<'_>,
        load: &Load,
        edit: Edit,
    ) -> anyhow::Result<Self> {
        let address = edit.real_server();
        let hosts = &mut stage.lab.real_servers.iter();
        let host = hosts.find(|host| host.address == address);
        let real_server = host.with_context(|| format!("the lab has no {address}"))?.name;
        let share = pair.lb1.share(address)?;
        let had = load.carried_by(real_server) as u64;
        let confirmed = SystemTime::now();
        Ok(Self { address, real_server, share_before: share, share_after: share, had, confirmed })
    }

    /// The active director has it already; the other one gets it too, or a takeover would break
    /// what this has not.
    pub(super) fn follow(
        &mut self,
        act: &mut Act<'_>,
        pair: &Pair<'_>,
        edit: Edit,
        mark: &Mark,
    ) -> anyhow::Result<()> {
        self.confirmed = SystemTime::now();
        self.share_after = pair.lb1.share(self.address)?;
        self.note_confirmed(act, &pair.lb1, self.confirmed);
        pair.lb2.edit(edit)?;
        self.note_confirmed(act, &pair.lb2, SystemTime::now());
        if let Err(error) = pair.ensure_alike() {
            act.findings.failures.push(format!("{error:#}"));
        }
        act.wait_all_moving(mark, "on")?;
        observe(SETTLED)?;
        Ok(())
    }

    fn note_confirmed(&self, act: &mut Act<'_>, director: &Director<'_>, at: SystemTime) {
        let (name, share) = (self.real_server, self.share_after * 100.0);
        let what = format!("confirmed: {name} has {share:.1} % of the slots");
        act.findings.timeline.add(at, director.host.name, &what);
    }

    /// Judges it by what the connections say of it.
    pub(super) fn conclude(
        &self,
        event: SystemTime,
        load: &LoadReport,
        findings: &mut Findings,
    ) -> PoolChange {
        let here = |life: &&Life| life.real_server.as_deref() == Some(self.real_server);
        let since: Vec<_> = load.new.iter().filter(|life| life.opened > self.confirmed).collect();
        let opened_there = |lives: &[&Life]| lives.iter().copied().filter(here).count() as u64;
        let new_here = load.new.iter().filter(here).map(|life| life.opened);
        let first_new = new_here.clone().filter(|opened| *opened >= event).min();
        let last_new = new_here.max();
        let survivors = load.long_lived.iter().filter(|life| life.failure.is_none());
        let change = PoolChange {
            real_server: self.real_server.to_owned(),
            share_before: self.share_before,
            share_after: self.share_after,
            opened_since: since.len() as u64,
            opened_there_since: opened_there(&since),
            first_new_ms: first_new.map(|at| ms_between(event, at)),
            last_new_ms: last_new.map(|at| ms_between(event, at)),
            kept: survivors.filter(here).count() as u64,
        };
        let name = self.real_server;
        if self.share_after > self.share_before {
            if let Some(at) = first_new {
                let what = format!("first new connection to {name}");
                findings.timeline.add(at, "client", &what);
            }
        } else if let Some(at) = last_new {
            findings.timeline.add(at, "client", &format!("last new connection to {name}"));
        }
        findings.failures.extend(self.faults(&change));
        change
    }

    fn faults(&self, change: &PoolChange) -> Vec<String> {
        let (name, mut faults) = (self.real_server, Vec::new());
        let PoolChange { opened_since, opened_there_since, kept, .. } = *change;
        if opened_since == 0 {
            faults.push("no connection was opened after the change".to_owned());
        }
        let wanted = self.share_after > 0.0;
        if wanted != (opened_there_since > 0) {
            faults.push(format!(
                "{name} has {:.1} % of the slots and got {opened_there_since} of {opened_since} \
                 new connections",
                self.share_after * 100.0
            ));
        }
        if self.share_before == 0.0 && kept + self.had > 0 {
            faults.push(format!("{name} has {kept} connections of before it was added"));
        }
        if self.share_before > 0.0 && self.had == 0 {
            faults.push(format!("{name} had no connection that a change could break"));
        }
        if kept != self.had {
            faults.push(format!("{name} kept {kept} of {} connections", self.had));
        }
        faults
    }
}

/// Answers for the VIP of anybody but `active` since `event`.
pub(super) fn strays(
    lab: &Lab,
    active: &Director<'_>,
    event: SystemTime,
    sightings: &[Sighting],
) -> Option<String> {
    let since = sightings.iter().filter(|one| one.at > event && one.from != active.host.mac());
    let strays: Vec<_> = since.filter(|one| matches!(one.sign, Sign::Answer(_))).collect();
    let who = lab.name_of(strays.first()?.from).unwrap_or("a stranger");
    Some(format!("{} answers for the VIP from {who}, which was to stay", strays.len()))
}
