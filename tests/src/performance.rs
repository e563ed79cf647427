//! One run of one scenario: load, probe and capture around its event, and the verdict.

use std::{
    path::Path,
    time::{Duration, SystemTime},
};

use anyhow::Context;

use self::{
    act::{Act, Findings},
    change::Change,
    takeover::Move,
    timeline::{Timeline, ms, ms_between},
};
use crate::{
    capture::{Capture, Judgement},
    interrupt::observe,
    lab::{Lab, TARGET, VIP},
    probe::{Probe, Sighting, Takeover},
    report::{PoolChange, Probes, ScenarioReport, Verdict},
    scenario::{Course, Pair, Scenario},
    traffic::{Load, LoadReport},
};

mod act;
mod change;
mod faults;
mod takeover;
mod timeline;

/// Traffic before the event: TCP is past its slow start, and the steady state is on record.
const WARM_UP: Duration = Duration::from_millis(1_500);
/// Traffic after all connections move again, in which a late fault would show.
const AFTERMATH: Duration = Duration::from_millis(500);
const ESTABLISH_LIMIT: Duration = Duration::from_secs(15);

/// What a run needs beside the directors.
pub struct Stage<'a> {
    pub lab: &'a Lab,
    pub advertisement_interval: Duration,
    pub connections: usize,
    /// Where the capture goes.
    pub capture: &'a Path,
    /// Is told what happens, for a person who waits.
    pub progress: &'a dyn Fn(&str),
}

/// The instruments, all running.
struct Instruments {
    capture: Capture,
    probe: Probe,
    load: Load,
}

/// What the directors did.
enum Followed {
    Moves(Vec<Move>),
    Change(Change),
}

/// What the instruments recorded.
struct Recorded {
    load: LoadReport,
    sightings: Vec<Sighting>,
    probes: Probes,
    judgement: Judgement,
}

pub fn perform(
    stage: &Stage<'_>,
    pair: &mut Pair<'_>,
    scenario: Scenario,
) -> anyhow::Result<ScenarioReport> {
    (stage.progress)("directors get ready");
    let prepared = pair.prepare(scenario)?;
    (stage.progress)("connections open");
    let instruments = Instruments::start(stage)?;
    instruments.load.wait_established(ESTABLISH_LIMIT).with_context(|| {
        let (old, _) = pair.old_and_new(scenario);
        old.diagnosis()
    })?;
    (stage.progress)("traffic flows");
    observe(WARM_UP)?;
    let change = match scenario.course() {
        Course::Change(edit) => Some((Change::before(stage, pair, &instruments.load, edit)?, edit)),
        Course::Takeover | Course::Restart => None,
    };

    (stage.progress)(scenario.event());
    let mark = instruments.load.mark();
    let (event, first_probe) = (SystemTime::now(), instruments.probe.next_number());
    pair.trigger(prepared)?;
    let findings = Findings { timeline: Timeline::new(event), failures: Vec::new() };
    let mut act = Act { stage, instruments: &instruments, event, findings };
    act.findings.timeline.add(event, pair.lb1.host.name, scenario.event());
    let followed = match change {
        Some((mut change, edit)) => {
            change.follow(&mut act, pair, edit, &mark)?;
            Followed::Change(change)
        }
        None if scenario.course() == Course::Restart => {
            Followed::Moves(takeover::follow_restart(&mut act, pair, &mark)?)
        }
        None => Followed::Moves(takeover::follow(&mut act, pair, scenario, &mark)?),
    };
    observe(AFTERMATH)?;
    let findings = act.findings;
    let recorded = instruments.finish(stage, first_probe)?;
    Ok(judge(stage, pair, (scenario, event), &followed, findings, recorded))
}

impl Instruments {
    fn start(stage: &Stage<'_>) -> anyhow::Result<Self> {
        let lab = stage.lab;
        // TCP where the directors have forwarded it to: these are the packets that they made, and
        // the answers. The client's port has the rest: VRRP, ARP, and the probes.
        let mut points = vec![("client", "not tcp")];
        points.extend(lab.real_servers.iter().map(|host| (host.name, "tcp")));
        Ok(Self {
            capture: Capture::start(&lab.switch, &points, stage.capture)?,
            probe: Probe::start(&lab.client, VIP)?,
            load: Load::start(&lab.client, TARGET, stage.connections)?,
        })
    }

    fn finish(self, stage: &Stage<'_>, first_probe: u32) -> anyhow::Result<Recorded> {
        let Self { capture, probe, load } = self;
        (stage.progress)("connections finish");
        let load = load.finish()?;
        let (sightings, probes) = probe.finish(first_probe)?;
        let captured = capture.finish()?;
        (stage.progress)("tshark judges the packets");
        let judgement = captured.judge()?;
        Ok(Recorded { load, sightings, probes, judgement })
    }
}

fn judge(
    stage: &Stage<'_>,
    pair: &Pair<'_>,
    (scenario, event): (Scenario, SystemTime),
    followed: &Followed,
    mut findings: Findings,
    recorded: Recorded,
) -> ScenarioReport {
    let Recorded { load, sightings, probes, judgement } = recorded;
    let limit = scenario.outage_limit(stage.advertisement_interval);
    let (outage, takeover_ms, pool_change) = match followed {
        Followed::Moves(moves) => {
            let takeovers = takeover::find(stage.lab, &mut findings, moves, &sightings);
            let first = takeovers.first().map(|one| ms_between(event, one.first_sign()));
            (longest_outage(&takeovers, limit, &mut findings), first, None)
        }
        Followed::Change(change) => {
            findings.failures.extend(change::strays(stage.lab, &pair.lb1, event, &sightings));
            let change: PoolChange = change.conclude(event, &load, &mut findings);
            (Some(faults::longest_hole(probes)), None, Some(change))
        }
    };
    let Findings { timeline, mut failures } = findings;
    failures.extend(faults::of_probes(probes, limit));
    failures.extend(faults::of_load(&load));
    failures.extend(faults::of_packets(&judgement));
    ScenarioReport {
        name: scenario.name().to_owned(),
        verdict: Verdict::of(&failures),
        failures,
        connections: load.connections,
        new_connections: load.new_connections,
        outage_ms: outage.map(ms),
        outage_limit_ms: ms(limit),
        longest_stall_ms: ms(load.longest_stall),
        takeover_ms,
        probes,
        clients_seen: load.clients_seen.into_iter().collect(),
        by_real_server: load.by_real_server,
        packets: judgement.packets,
        pool_change,
        timeline: timeline.in_order(),
    }
}

fn longest_outage(
    takeovers: &[Takeover],
    limit: Duration,
    findings: &mut Findings,
) -> Option<Duration> {
    let longest = takeovers.iter().filter_map(Takeover::outage).max()?;
    if longest >= limit {
        let what = format!("outage of {longest:.1?}, expected below {limit:?}");
        findings.failures.push(what);
    }
    Some(longest)
}
