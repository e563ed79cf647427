//! `cargo xtask check`: what must pass before a commit, and needs no root.

use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::setup::{self, Needs, Toolchain};
use crate::{process, workspace};

const EXAMPLES: &str = "\
Examples:
  cargo xtask check            all gates, also after one did not pass
  cargo fmt && cargo xtask check";

/// Runs the gates of a commit: format, lints, unit tests, shipped configurations
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {}

/// One gate that was run.
struct Outcome {
    name: &'static str,
    passed: bool,
    took: Duration,
}

pub(crate) fn run(_args: &Args) -> anyhow::Result<ExitCode> {
    components()?;
    let toolchain = setup::ensure(Needs::Build)?;
    let mut outcomes = Vec::new();
    for (name, args) in CARGO_GATES {
        outcomes.push(gate(name, toolchain.cargo().args(args))?);
    }
    let built = outcomes.iter().any(|outcome| outcome.passed && outcome.name == UNIT_TESTS);
    let examples = examples()?;
    // Without a build there is nothing to check them with.
    if built && !examples.is_empty() {
        outcomes
            .push(gate("lbctl", toolchain.cargo().args(["build", "-p", "lb-daemon", "--bins"]))?);
        outcomes.push(configurations(&toolchain, &examples)?);
    }
    println!();
    for outcome in &outcomes {
        let verdict = if outcome.passed { "pass" } else { "FAIL" };
        println!("check: {verdict}  {}  ({})", outcome.name, setup::duration(outcome.took));
    }
    let passed = outcomes.iter().all(|outcome| outcome.passed);
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

const UNIT_TESTS: &str = "unit tests";

/// All that need no root; the others are `cargo xtask test`'s.
const UNIT_TEST_TARGETS: &[&str] =
    &["test", "--workspace", "--exclude", "tests", "--lib", "--bins", "--test", "lbctl"];

const CARGO_GATES: [(&str, &[&str]); 3] = [
    ("format", &["fmt", "--all", "--check"]),
    ("lints", &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]),
    (UNIT_TESTS, UNIT_TEST_TARGETS),
];

fn gate(name: &'static str, command: &mut Command) -> anyhow::Result<Outcome> {
    eprintln!("check: {name}");
    let started = Instant::now();
    let passed = process::status(command)?.success();
    Ok(Outcome { name, passed, took: started.elapsed() })
}

/// Whether the daemon takes every configuration that we ship.
fn configurations(toolchain: &Toolchain, files: &[PathBuf]) -> anyhow::Result<Outcome> {
    let started = Instant::now();
    let mut passed = true;
    for file in files {
        eprintln!("check: {}", file.display());
        let lbctl = workspace::target_dir().join("debug/lbctl");
        passed &= process::status(toolchain.command(lbctl).args(["config", "check"]).arg(file))?
            .success();
    }
    Ok(Outcome { name: "shipped configurations", passed, took: started.elapsed() })
}

/// The example configurations, relative to the root, in order of their names.
fn examples() -> anyhow::Result<Vec<PathBuf>> {
    let directory = workspace::root().join("docs/examples");
    if !directory.exists() {
        return Ok(Vec::new());
    }
    let entries = directory.read_dir().with_context(|| format!("list {}", directory.display()))?;
    let mut files: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| PathBuf::from("docs/examples").join(entry.file_name()))
        .filter(|file| file.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    files.sort();
    Ok(files)
}

/// # Errors
/// The toolchain has no rustfmt or no clippy; rustup's own message comes late, and once for each.
fn components() -> anyhow::Result<()> {
    let missing: Vec<&str> = [("rustfmt", "fmt"), ("clippy", "clippy")]
        .into_iter()
        .filter(|(_, verb)| {
            let version =
                process::command(process::cargo_program()).args([verb, "--version"]).output();
            !version.is_ok_and(|output| output.status.success())
        })
        .map(|(component, _)| component)
        .collect();
    if !missing.is_empty() {
        bail!(
            "this toolchain has no {}: rustup component add {}",
            missing.join(" and no "),
            missing.join(" ")
        );
    }
    Ok(())
}
