//! Rounds of measurements: each case once in each round, in another order every time.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::{
    sched::{CpuSet, sched_getcpu, sched_setaffinity},
    unistd::Pid,
};

use super::{
    case::{Case, Subject, cases},
    director::Director,
    entry::Entry,
    report::{Report, Taken, spread},
    speed::full_speed_limit,
};
use crate::interrupt;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Repetitions of each case that are kept at least.
    pub keep: usize,
    /// Packets of one repetition.
    pub packets: u32,
    /// When to give up waiting for full speed.
    pub limit: Duration,
}

impl Plan {
    pub const FULL: Self = Self { keep: 40, packets: 50_000, limit: Duration::from_secs(75) };
    pub const QUICK: Self = Self { keep: 8, packets: 50_000, limit: Duration::from_secs(20) };
}

/// Who follows a bench while it runs.
pub trait Progress {
    fn step(&self, what: &str);
    /// Of `of` repetitions, `kept` are there of the case that has fewest.
    fn kept(&self, kept: usize, of: usize);
}

/// One repetition.
#[derive(Clone, Copy, Debug)]
struct Repetition {
    took: Duration,
    /// What a run takes that does next to nothing: the kernel patches its code for each.
    setup: Duration,
    /// The slower one of the control runs before and after.
    control: Duration,
}

/// Measures every case.
pub fn run(plan: Plan, progress: &dyn Progress) -> anyhow::Result<Report> {
    progress.step("loads the programs and installs the services");
    let director = Director::load()?;
    let mut entry = Entry::load()?;
    let cases = cases();
    stay_on_this_cpu()?;

    progress.step("repetitions at full speed");
    let mut repetitions: Vec<Vec<Repetition>> = vec![Vec::new(); cases.len()];
    let started = Instant::now();
    let mut round = 0;
    loop {
        for turn in 0..cases.len() {
            interrupt::check()?;
            // A stride that the number of cases is no multiple of: who follows whom changes.
            let index = (turn * STRIDE + round * 3) % cases.len();
            let (Some(case), Some(taken)) = (cases.get(index), repetitions.get_mut(index)) else {
                continue;
            };
            taken.push(repetition(&mut entry, &director, case, plan.packets)?);
        }
        round += 1;
        let limit = full_speed_limit(repetitions.iter().flatten().map(|one| one.control));
        let kept =
            |taken: &Vec<Repetition>| taken.iter().filter(|one| one.control <= limit).count();
        let fewest = repetitions.iter().map(kept).min().unwrap_or(0);
        progress.kept(fewest.min(plan.keep), plan.keep);
        if fewest >= plan.keep {
            break;
        }
        if started.elapsed() > plan.limit {
            if fewest >= plan.keep / 4 {
                break;
            }
            bail!(
                "the machine kept its full speed in {fewest} of {round} rounds, which says nothing; \
                 try again when it is quieter"
            );
        }
    }
    conclude(plan, &cases, &repetitions, |case| entry.instructions(case, &director))
}

/// Prime, and larger than the number of cases.
const STRIDE: usize = 101;

/// Packets; the kernel makes less ado about a single one.
const NEXT_TO_NOTHING: u32 = 2;

fn repetition(
    entry: &mut Entry,
    director: &Director,
    case: &Case,
    packets: u32,
) -> anyhow::Result<Repetition> {
    entry.aim(case, director)?;
    // What it reads is in the caches as far as it fits.
    entry.run(case, packets / 10)?;
    let setup = entry.run(case, NEXT_TO_NOTHING)?;
    let before = entry.control()?;
    let took = entry.run(case, packets)?;
    let after = entry.control()?;
    Ok(Repetition { took, setup, control: before.max(after) })
}

fn conclude(
    plan: Plan,
    cases: &[Case],
    repetitions: &[Vec<Repetition>],
    instructions: impl Fn(&Case) -> anyhow::Result<u32>,
) -> anyhow::Result<Report> {
    let limit = full_speed_limit(repetitions.iter().flatten().map(|one| one.control));
    let mut taken = Vec::new();
    for (case, repetitions) in cases.iter().zip(repetitions) {
        let setups: Vec<_> = repetitions.iter().map(|one| one.setup.as_secs_f64()).collect();
        let setup = spread(&setups).map_or(0.0, |[_, median, _]| median);
        let kept = repetitions.iter().filter(|one| one.control <= limit);
        let packets = f64::from(plan.packets - NEXT_TO_NOTHING);
        let ns = kept.map(|one| (one.took.as_secs_f64() - setup) * 1e9 / packets).collect();
        let instructions = instructions(case)?;
        taken.push(Taken { case: case.clone(), ns, of: repetitions.len(), instructions });
    }
    let floor = taken.iter().find(|one| one.case.subject == Subject::FloorPass);
    Report::new(&taken, floor.context("no case is the floor")?)
}

/// The per-CPU counters of the program stay in one cache.
fn stay_on_this_cpu() -> anyhow::Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(sched_getcpu().context("ask for the CPU")?).context("name the CPU")?;
    sched_setaffinity(Pid::from_raw(0), &cpus).context("stay on one CPU")
}
