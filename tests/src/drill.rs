//! The failover drill: a lab, two directors under load, and one scenario after the other.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;

use crate::{
    capture,
    director::Binaries,
    interrupt,
    lab::{Lab, PORT},
    leftovers,
    performance::{Stage, perform},
    real_server::RealServer,
    report::{Report, ScenarioReport, Verdict},
    scenario::{Pair, Scenario},
};

#[derive(Clone, Debug)]
pub struct Options {
    pub bin_dir: PathBuf,
    /// In the order in which they are played.
    pub scenarios: Vec<Scenario>,
    pub repeat: u32,
    pub advertisement_interval: Duration,
    pub connections: usize,
    /// Where captures and logs are kept.
    pub report_dir: Option<PathBuf>,
}

/// Who follows a drill while it runs.
pub trait Audience {
    /// What happens now.
    fn progress(&self, what: &str);
    fn finished(&self, scenario: &ScenarioReport);
}

/// Plays all scenarios; an error is that the drill could not be held.
pub fn run(options: &Options, audience: &dyn Audience) -> anyhow::Result<Report> {
    audience.progress("the lab is built");
    let binaries = Binaries::in_dir(&options.bin_dir)?;
    capture::check_installed()?;
    if let Some(dir) = &options.report_dir {
        fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()))?;
    }
    leftovers::sweep();
    let lab = Lab::new().context("build the lab")?;
    let _servers = RealServer::start_all(&lab, PORT)?;
    let mut pair = Pair::new(&lab, &binaries, options.advertisement_interval)?;
    let result = play(options, audience, &lab, &mut pair);
    if let Some(dir) = &options.report_dir {
        keep_logs(dir, &pair)?;
    }
    result
}

fn play(
    options: &Options,
    audience: &dyn Audience,
    lab: &Lab,
    pair: &mut Pair<'_>,
) -> anyhow::Result<Report> {
    audience.progress("two directors start");
    let modes = pair.start()?.map(|status| {
        status.interfaces.first().map_or("none".to_owned(), |interface| interface.xdp_mode.clone())
    });

    let mut scenarios = Vec::new();
    for round in 1..=options.repeat {
        for scenario in &options.scenarios {
            let report = play_one(options, audience, lab, pair, *scenario, round)?;
            audience.finished(&report);
            scenarios.push(report);
        }
    }
    let passed = scenarios.iter().all(|scenario| scenario.verdict == Verdict::Pass);
    let uname = nix::sys::utsname::uname().context("ask for the kernel's release")?;
    Ok(Report {
        kernel: uname.release().to_string_lossy().into_owned(),
        xdp_mode: if modes[0] == modes[1] { modes[0].clone() } else { modes.join(" and ") },
        advertisement_interval_ms: u64::try_from(options.advertisement_interval.as_millis())
            .context("the interval")?,
        scenarios,
        verdict: if passed { Verdict::Pass } else { Verdict::Fail },
    })
}

fn play_one(
    options: &Options,
    audience: &dyn Audience,
    lab: &Lab,
    pair: &mut Pair<'_>,
    scenario: Scenario,
    round: u32,
) -> anyhow::Result<ScenarioReport> {
    interrupt::check()?;
    let name = match options.repeat {
        1 => scenario.name().to_owned(),
        repeat => format!("{} {round} of {repeat}", scenario.name()),
    };
    let dir = options.report_dir.as_deref().unwrap_or(lab.dir());
    let capture = dir.join(format!("{}-{round}.pcapng", scenario.name()));
    let stage = Stage {
        lab,
        advertisement_interval: options.advertisement_interval,
        connections: options.connections,
        capture: &capture,
        progress: &|what| audience.progress(&format!("{name}: {what}")),
    };
    let report = perform(&stage, pair, scenario);
    if options.report_dir.is_none() {
        // A capture is some tens of megabytes; the lab's directory may be in memory.
        let _ = fs::remove_file(&capture);
    }
    report.with_context(|| format!("play {name}"))
}

fn keep_logs(dir: &Path, pair: &Pair<'_>) -> anyhow::Result<()> {
    for director in [&pair.lb1, &pair.lb2] {
        let kept = dir.join(format!("{}.log", director.host.name));
        if director.log_file().exists() {
            fs::copy(director.log_file(), &kept)
                .with_context(|| format!("write {}", kept.display()))?;
        }
    }
    Ok(())
}
