//! One run of one scenario: load, probe and capture around its event, and the verdict.

use std::{
    path::Path,
    time::{Duration, SystemTime},
};

use anyhow::Context;

use crate::{
    capture::{Capture, Judgement},
    director::router_state,
    interrupt::{observe, wait_for},
    lab::{CLIENT, Lab, TARGET, VIP},
    probe::{INTERVAL, Probe, Sighting, Takeover},
    report::{Moment, Packets, Probes, ScenarioReport, Verdict},
    scenario::{Pair, Scenario},
    traffic::{Load, LoadReport, Mark},
};

/// Traffic before the event: TCP is past its slow start, and the steady state is on record.
const WARM_UP: Duration = Duration::from_millis(1_500);
/// Traffic after all connections move again, in which a late fault would show.
const AFTERMATH: Duration = Duration::from_millis(500);
const ESTABLISH_LIMIT: Duration = Duration::from_secs(15);
/// A VIP that has not moved after this does not move. Longer than any takeover at the slowest
/// interval that anyone would wait for.
const TAKEOVER_LIMIT: Duration = Duration::from_secs(10);
/// TCP doubles its wait; after an outage of seconds it needs as long again.
const MOVING_LIMIT: Duration = Duration::from_secs(15);

/// What the capture may lose, and its judgement still stand.
const DROPPED_PERCENT: u64 = 5;

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

/// What is known once the event is over.
struct Observed {
    event: SystemTime,
    timeline: Timeline,
    failures: Vec<String>,
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

    (stage.progress)(scenario.event());
    let mark = instruments.load.mark();
    let (event, first_probe) = (SystemTime::now(), instruments.probe.next_number());
    pair.trigger(prepared)?;
    let mut observed = watch(&instruments, stage, pair, scenario, event, &mark)?;
    observe(AFTERMATH)?;

    (stage.progress)("connections finish");
    let Instruments { capture, probe, load } = instruments;
    let load = load.finish()?;
    let (sightings, probes) = probe.finish(first_probe)?;
    let captured = capture.finish()?;
    (stage.progress)("tshark judges the packets");
    let judgement = captured.judge()?;
    let (old, new) = pair.old_and_new(scenario);
    let takeover = Takeover::find(&sightings, event, old.host.mac(), new.host.mac());
    let names = (old.host.name, new.host.name);
    observed.timeline.add_takeover(stage.lab, names, takeover.as_ref(), &sightings, event);
    Ok(judge(stage, scenario, observed, takeover.as_ref(), load, probes, judgement))
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
}

/// Follows what comes of the event, until all connections move again or time is up. That it is
/// up is a failure of the directors, not an error of the drill.
fn watch(
    instruments: &Instruments,
    stage: &Stage<'_>,
    pair: &mut Pair<'_>,
    scenario: Scenario,
    event: SystemTime,
    mark: &Mark,
) -> anyhow::Result<Observed> {
    let mut observed = Observed { event, timeline: Timeline::default(), failures: Vec::new() };
    let (old, new) = pair.old_and_new(scenario);
    let (lb1, new_mac) = (stage.lab.directors[0].name, new.host.mac());
    observed.timeline.add(0.0, lb1, scenario.event());
    let name = new.host.name;
    observed.attempt(&format!("an answer of {name}"), TAKEOVER_LIMIT, || {
        let answered = instruments.probe.answered(new_mac, event);
        Ok(answered.then_some(()).ok_or_else(|| "none".to_owned()))
    })?;
    (stage.progress)("connections move again");
    let all = stage.connections;
    let moved = observed.attempt("every connection to move again", MOVING_LIMIT, || {
        let moving = instruments.load.moving_since(mark);
        Ok(if moving == all { Ok(SystemTime::now()) } else { Err(format!("{moving} of {all}")) })
    })?;
    if let Some(at) = moved {
        let what = format!("{all} of {all} connections move again");
        observed.timeline.add(ms_between(event, at), "client", &what);
    }
    match new.status() {
        Ok(status) if router_state(&status) == Some("active") => {
            let router = status.virtual_routers.first();
            let (since, cause) = router.map_or((0, ""), |one| (one.since_ms, &one.cause));
            let at = SystemTime::now() - Duration::from_millis(since);
            observed.timeline.add(ms_between(event, at), name, &format!("Active ({cause})"));
        }
        Ok(status) => {
            let state = router_state(&status).unwrap_or("without a virtual router");
            observed.failures.push(format!("{name} is {state}, expected active"));
        }
        Err(error) => observed.failures.push(format!("{name}: {error:#}")),
    }
    if scenario == Scenario::ActiveResigns {
        let exit = old.wait_exit(TAKEOVER_LIMIT)?;
        let at = ms_between(event, SystemTime::now());
        // Seen late: it has ended somewhere between its last answer and now.
        observed.timeline.add(at, lb1, &format!("lbd has ended by now ({exit})"));
        if !exit.success() {
            observed.failures.push(format!("lbd of {lb1} ended with {exit}"));
        }
    }
    Ok(observed)
}

impl Observed {
    /// Like [`wait_for`], but a missed limit is a failure of the scenario.
    fn attempt<T>(
        &mut self,
        what: &str,
        limit: Duration,
        poll: impl FnMut() -> anyhow::Result<Result<T, String>>,
    ) -> anyhow::Result<Option<T>> {
        match wait_for(what, limit, poll) {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.is::<crate::interrupt::Interrupted>() => Err(error),
            Err(error) => {
                self.failures.push(format!("{error:#}"));
                Ok(None)
            }
        }
    }
}

fn judge(
    stage: &Stage<'_>,
    scenario: Scenario,
    observed: Observed,
    takeover: Option<&Takeover>,
    load: LoadReport,
    probes: Probes,
    judgement: Judgement,
) -> ScenarioReport {
    let Observed { event, timeline, mut failures } = observed;
    let limit = scenario.outage_limit(stage.advertisement_interval);
    let outage = takeover.and_then(Takeover::outage);
    match outage {
        Some(outage) if outage < limit => {}
        Some(outage) => failures.push(format!("outage of {outage:.1?}, expected below {limit:?}")),
        None => failures.push("the VIP did not move".to_owned()),
    }
    // The outage ends with one answer of the new director; this is about the others too.
    let hole = INTERVAL * u32::try_from(probes.longest_loss).unwrap_or(u32::MAX);
    if hole >= limit {
        failures.push(format!(
            "{} probes in a row lost, which is {hole:?}, expected below {limit:?}",
            probes.longest_loss
        ));
    }
    failures.extend(faults_of_load(&load));
    failures.extend(faults_of_packets(&judgement));
    ScenarioReport {
        name: scenario.name().to_owned(),
        verdict: Verdict::of(&failures),
        failures,
        connections: load.connections,
        new_connections: load.new_connections,
        outage_ms: outage.map(ms),
        outage_limit_ms: ms(limit),
        longest_stall_ms: ms(load.longest_stall),
        takeover_ms: takeover.map(|takeover| ms_between(event, takeover.first_sign())),
        probes,
        clients_seen: load.clients_seen.into_iter().collect(),
        by_real_server: load.by_real_server,
        packets: judgement.packets,
        timeline: timeline.in_order(),
    }
}

fn faults_of_load(load: &LoadReport) -> Vec<String> {
    let mut faults = Vec::new();
    let connections = load.connections;
    if connections.survived != connections.opened {
        faults.push(format!(
            "{} of {} connections survived: {} reset, {} timed out, {} corrupted",
            connections.survived,
            connections.opened,
            connections.reset,
            connections.timed_out,
            connections.corrupted
        ));
    }
    let new = load.new_connections;
    if new.succeeded != new.attempted || new.attempted == 0 {
        faults.push(format!("{} of {} new connections succeeded", new.succeeded, new.attempted));
    }
    let others = load.clients_seen.iter().filter(|address| **address != CLIENT);
    faults.extend(others.map(|other| format!("a real server saw {other}, expected {CLIENT}")));
    faults.extend(load.faults.iter().cloned());
    faults
}

fn faults_of_packets(judgement: &Judgement) -> Vec<String> {
    let mut faults = Vec::new();
    for protocol in ["vrrp", "arp", "tcp"] {
        if judgement.packets.judged.get(protocol).is_none_or(|count| *count == 0) {
            faults.push(format!("the capture has no {protocol} packet"));
        }
    }
    let Packets { judged, dropped, .. } = &judgement.packets;
    // All that is captured is one or the other.
    let captured: u64 = ["ip", "arp"].iter().filter_map(|protocol| judged.get(*protocol)).sum();
    if dropped * 100 > (captured + dropped) * DROPPED_PERCENT {
        faults.push(format!(
            "the capture lost {dropped} of {} packets, expected {DROPPED_PERCENT} % at most",
            captured + dropped
        ));
    }
    if judgement.packets.malformed > 0 {
        faults.push(format!("tshark: {} malformed packets", judgement.packets.malformed));
        faults.extend(judgement.faults.iter().map(|fault| format!("tshark: packet {fault}")));
    }
    faults
}

#[derive(Default)]
struct Timeline(Vec<Moment>);

impl Timeline {
    fn add(&mut self, at_ms: f64, who: &str, what: &str) {
        self.0.push(Moment { at_ms, who: who.to_owned(), what: what.to_owned() });
    }

    fn add_takeover(
        &mut self,
        lab: &Lab,
        (old, new): (&str, &str),
        takeover: Option<&Takeover>,
        sightings: &[Sighting],
        event: SystemTime,
    ) {
        let Some(takeover) = takeover else { return };
        if let Some(last) = takeover.last_of_old {
            self.add(ms_between(event, last), "client", &format!("last answer from {old}"));
        }
        if let Some(garp) = takeover.first_garp {
            self.add(ms_between(event, garp), new, "GARP seen by the client");
        }
        let first = ms_between(event, takeover.first_answer);
        self.add(first, "client", &format!("first answer from {new}"));
        // Anything else that answers for the VIP afterwards is worth a line.
        let after = sightings.iter().filter(|one| one.at > takeover.first_answer);
        let strays: Vec<_> = after.filter(|one| lab.name_of(one.from) != Some(new)).collect();
        if let Some(last) = strays.last() {
            let who = lab.name_of(last.from).unwrap_or("stranger");
            let what = format!("last of {} answers after the takeover", strays.len());
            self.add(ms_between(event, last.at), who, &what);
        }
    }

    fn in_order(mut self) -> Vec<Moment> {
        self.0.sort_by(|a, b| a.at_ms.total_cmp(&b.at_ms));
        self.0
    }
}

fn ms(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10_000.0).round() / 10.0
}

/// Negative when `to` is before `from`.
fn ms_between(from: SystemTime, to: SystemTime) -> f64 {
    match to.duration_since(from) {
        Ok(after) => ms(after),
        Err(before) => -ms(before.duration()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capture_that_lost_much_is_no_proof() {
        for (dropped, is_fault) in [(0, false), (50, false), (60, true)] {
            let judged = [("ip", 900), ("tcp", 850), ("vrrp", 50), ("arp", 100)];
            let judged = judged.map(|(name, count)| (name.to_owned(), count)).into();
            let packets = Packets { judged, malformed: 0, dropped };
            let faults = faults_of_packets(&Judgement { packets, faults: vec![] });
            assert_eq!(!faults.is_empty(), is_fault, "{dropped} of 1,000: {faults:?}");
        }
    }
}
