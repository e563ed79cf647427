//! Scenarios in which the VIP moves: there, or there and back.

use std::time::SystemTime;

use anyhow::Context;

use super::act::{Act, Findings, TAKEOVER_LIMIT};
use crate::{
    director::READY_LIMIT,
    lab::Lab,
    probe::{Sighting, Takeover},
    scenario::{Pair, Scenario},
    traffic::Mark,
};

/// A move of the VIP that is expected, and between when its signs are looked for.
pub(super) struct Move {
    pub(super) old: &'static str,
    pub(super) new: &'static str,
    pub(super) since: SystemTime,
    pub(super) until: Option<SystemTime>,
}

pub(super) fn follow(
    act: &mut Act<'_>,
    pair: &mut Pair<'_>,
    scenario: Scenario,
    mark: &Mark,
) -> anyhow::Result<Vec<Move>> {
    let (old, new) = pair.old_and_new(scenario);
    act.wait_answer(new, act.event)?;
    act.wait_all_moving(mark, "again")?;
    act.note_active(new);
    if scenario == Scenario::ActiveResigns {
        let (name, exit) = (old.host.name, old.wait_exit(TAKEOVER_LIMIT)?);
        // Seen late: it has ended somewhere between its last answer and now.
        act.findings.timeline.add(
            SystemTime::now(),
            name,
            &format!("lbd has ended by now ({exit})"),
        );
        if !exit.success() {
            act.findings.failures.push(format!("lbd of {name} ended with {exit}"));
        }
    }
    Ok(vec![Move { old: old.host.name, new: new.host.name, since: act.event, until: None }])
}

/// The other director takes over, as it hears nothing more; lbd is started again, and the VIP
/// returns. Packets that still go to the director without a daemon are forwarded all the same.
pub(super) fn follow_restart(
    act: &mut Act<'_>,
    pair: &mut Pair<'_>,
    mark: &Mark,
) -> anyhow::Result<Vec<Move>> {
    let Pair { lb1, lb2 } = pair;
    let former = lb1.attachment()?;
    act.wait_answer(lb2, act.event)?;
    act.wait_all_moving(mark, "on")?;
    act.note_active(lb2);

    (act.stage.progress)("lbd starts again");
    lb1.wait_exit(TAKEOVER_LIMIT)?;
    let (restart, mark) = (SystemTime::now(), act.instruments.load.mark());
    lb1.start()?;
    act.findings.timeline.add(restart, lb1.host.name, "lbd starts again");
    act.wait_answer(lb1, restart)?;
    lb1.wait_ready("active", READY_LIMIT)?;
    act.note_active(lb1);
    act.wait_all_moving(&mark, "on")?;

    let now = lb1.attachment().context("look at the program after the restart")?;
    if now.link != former.link || now.program == former.program {
        act.findings
            .failures
            .push(format!("the program was not replaced in place: {former:?}, {now:?}"));
    }
    let (first, second) = (lb1.host.name, lb2.host.name);
    Ok(vec![
        Move { old: first, new: second, since: act.event, until: Some(restart) },
        Move { old: second, new: first, since: restart, until: None },
    ])
}

/// The takeovers that the client saw; what it did not see is a failure.
pub(super) fn find(
    lab: &Lab,
    findings: &mut Findings,
    moves: &[Move],
    sightings: &[Sighting],
) -> Vec<Takeover> {
    let mac = |name: &str| lab.hosts().find(|host| host.name == name).map(|host| host.mac());
    let mut found = Vec::new();
    for Move { old, new, since, until } in moves {
        let end =
            until.map_or(sightings.len(), |until| sightings.partition_point(|one| one.at < until));
        let sightings = sightings.get(..end).unwrap_or_default();
        let takeover = mac(old)
            .zip(mac(new))
            .and_then(|(old, new)| Takeover::find(sightings, *since, old, new));
        let Some(takeover) = takeover else {
            findings.failures.push(format!("the VIP did not move from {old} to {new}"));
            continue;
        };
        if takeover.last_of_old.is_none() {
            findings.failures.push(format!("{old} had never answered for the VIP"));
        }
        findings.timeline.add_takeover(lab, (old, new), &takeover, sightings);
        found.push(takeover);
    }
    found
}
