//! What is seen from the event on, while it is seen.

use std::time::{Duration, SystemTime};

use super::{Instruments, Stage, timeline::Timeline};
use crate::{
    director::{Director, router_state},
    interrupt::{Interrupted, wait_for},
    traffic::Mark,
};

/// A VIP that has not moved after this does not move. Longer than any takeover at the slowest
/// interval that anyone would wait for.
pub(super) const TAKEOVER_LIMIT: Duration = Duration::from_secs(10);
/// TCP doubles its wait; after an outage of seconds it needs as long again.
const MOVING_LIMIT: Duration = Duration::from_secs(15);

pub(super) struct Act<'a> {
    pub(super) stage: &'a Stage<'a>,
    pub(super) instruments: &'a Instruments,
    pub(super) event: SystemTime,
    pub(super) findings: Findings,
}

/// A missed expectation is a failure of the directors, and not an error of the drill.
pub(super) struct Findings {
    pub(super) timeline: Timeline,
    pub(super) failures: Vec<String>,
}

impl Act<'_> {
    pub(super) fn wait_answer(
        &mut self,
        of: &Director<'_>,
        since: SystemTime,
    ) -> anyhow::Result<()> {
        let (name, mac) = (of.host.name, of.host.mac());
        let probe = &self.instruments.probe;
        self.attempt(&format!("an answer of {name}"), TAKEOVER_LIMIT, || {
            Ok(probe.answered(mac, since).then_some(()).ok_or_else(|| "none".to_owned()))
        })
        .map(drop)
    }

    pub(super) fn wait_all_moving(&mut self, mark: &Mark, how: &str) -> anyhow::Result<()> {
        (self.stage.progress)(&format!("connections move {how}"));
        let (load, all) = (&self.instruments.load, self.stage.connections);
        let moved = self.attempt("every connection to move", MOVING_LIMIT, || {
            let moving = load.moving_since(mark);
            Ok(if moving == all {
                Ok(SystemTime::now())
            } else {
                Err(format!("{moving} of {all}"))
            })
        })?;
        if let Some(at) = moved {
            let what = format!("{all} of {all} connections move {how}");
            self.findings.timeline.add(at, "client", &what);
        }
        Ok(())
    }

    /// Since when it is active, and why; a failure if it is not.
    pub(super) fn note_active(&mut self, director: &Director<'_>) {
        let name = director.host.name;
        match director.status() {
            Ok(status) if router_state(&status) == Some("active") => {
                let router = status.virtual_routers.first();
                let (since, cause) = router.map_or((0, ""), |one| (one.since_ms, &one.cause));
                let at = SystemTime::now() - Duration::from_millis(since);
                self.findings.timeline.add(at, name, &format!("Active ({cause})"));
            }
            Ok(status) => {
                let state = router_state(&status).unwrap_or("without a virtual router");
                self.findings.failures.push(format!("{name} is {state}, expected active"));
            }
            Err(error) => self.findings.failures.push(format!("{name}: {error:#}")),
        }
    }

    /// Like [`wait_for`], but a missed limit is a failure of the scenario.
    fn attempt<T>(
        &mut self,
        what: &str,
        limit: Duration,
        poll: impl FnMut() -> anyhow::Result<Result<T, String>>,
    ) -> anyhow::Result<Option<T>> {
        match wait_for(what, limit, poll) {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.is::<Interrupted>() => Err(error),
            Err(error) => {
                self.findings.failures.push(format!("{error:#}"));
                Ok(None)
            }
        }
    }
}
