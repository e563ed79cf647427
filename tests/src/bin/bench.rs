//! The bench: see `tests::bench`.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context;
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use tests::{
    bench::{self, Plan},
    interrupt::{self, Interrupted},
    report::Verdict,
};

/// Measures what the XDP program costs per packet, beside floors, in the kernel's own test run; or
/// compares lbd with what one would use in its place.
///
/// Exit codes: 0 measured, 1 a ratio is above its limit (with --check), 2 not measured,
/// 130 interrupted.
#[derive(Parser)]
#[command(name = "bench")]
struct Arguments {
    /// Where lbd and lbctl are
    #[arg(long, value_name = "DIR")]
    bin_dir: PathBuf,
    /// Run lbd beside nftables, plain forwarding, HAProxy and nginx, instead of the XDP program alone
    #[arg(long, conflicts_with_all = ["quick", "check"])]
    compare: bool,
    /// Fewer repetitions: some seconds, and a wider spread
    #[arg(long)]
    quick: bool,
    /// Exit with 1 if a ratio is above its limit
    #[arg(long)]
    check: bool,
    /// Write the report as JSON; `-` is standard output, and then the rest goes to standard error
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Where the chart goes; `bench` beside the DIR of --bin-dir if not given
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = if arguments.compare { compare(&arguments) } else { measure(&arguments) };
    match done {
        Ok(Verdict::Fail) if arguments.check => ExitCode::from(1),
        Ok(Verdict::Pass | Verdict::Fail) => ExitCode::SUCCESS,
        Err(error) if error.is::<Interrupted>() || interrupt::check().is_err() => {
            eprintln!("bench: interrupted; everything is cleaned up");
            ExitCode::from(130)
        }
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn compare(arguments: &Arguments) -> anyhow::Result<Verdict> {
    interrupt::catch()?;
    let bar = Bar::new();
    let comparison = bench::compare::run(&arguments.bin_dir, &bar);
    bar.0.finish_and_clear();
    let comparison = comparison?;
    show(arguments, &bench::compare::describe(&comparison))?;
    keep(arguments, "compare.svg", &bench::compare::draw(&comparison)?)?;
    write_json(arguments, &comparison)?;
    Ok(Verdict::Pass)
}

fn measure(arguments: &Arguments) -> anyhow::Result<Verdict> {
    interrupt::catch()?;
    let plan = if arguments.quick { Plan::QUICK } else { Plan::FULL };
    let bar = Bar::new();
    let report = bench::run(plan, &bar).and_then(|mut report| {
        bench::Progress::step(&bar, "tables");
        report.tables = Some(bench::measure_tables()?);
        Ok(report)
    });
    bar.0.finish_and_clear();
    let report = report?;
    show(arguments, &bench::describe(&report))?;
    keep(arguments, "bench.svg", &bench::draw(&report)?)?;
    write_json(arguments, &report)?;
    Ok(report.verdict)
}

/// Progress on standard error, where that is a terminal.
struct Bar(ProgressBar);

impl Bar {
    fn new() -> Self {
        let style =
            ProgressStyle::with_template("{spinner} {msg}  {bar:30} {pos}/{len}  {elapsed}")
                .unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::new(0).with_style(style);
        if !bar.is_hidden() {
            bar.enable_steady_tick(Duration::from_millis(120));
        }
        Self(bar)
    }
}

impl bench::Progress for Bar {
    fn step(&self, what: &str) {
        self.0.set_message(what.to_owned());
    }

    fn kept(&self, kept: usize, of: usize) {
        self.0.set_length(of as u64);
        self.0.set_position(kept as u64);
    }
}

/// Prints to standard output, unless the JSON goes there.
fn show(arguments: &Arguments, text: &str) -> anyhow::Result<()> {
    let written = match arguments.json.as_deref() {
        Some(file) if file == Path::new("-") => io::stderr().write_all(text.as_bytes()),
        Some(_) | None => io::stdout().write_all(text.as_bytes()),
    };
    written.context("write the table")
}

fn keep(arguments: &Arguments, name: &str, text: &str) -> anyhow::Result<()> {
    let beside = || arguments.bin_dir.parent().unwrap_or(&arguments.bin_dir).join("bench");
    let dir = arguments.report.clone().unwrap_or_else(beside);
    fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
    let file = dir.join(name);
    fs::write(&file, text).with_context(|| format!("write {}", file.display()))?;
    show(arguments, &format!("\nchart: {}\n", file.display()))
}

fn write_json(arguments: &Arguments, report: &impl Serialize) -> anyhow::Result<()> {
    let Some(file) = &arguments.json else { return Ok(()) };
    let mut text = serde_json::to_string_pretty(report).context("write the report")?;
    text.push('\n');
    if file == Path::new("-") {
        io::stdout().write_all(text.as_bytes()).context("write the report to standard output")
    } else {
        fs::write(file, text).with_context(|| format!("write {}", file.display()))
    }
}
