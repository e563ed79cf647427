//! The failover drill: see `tests::drill`.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context;
use clap::{Parser, ValueEnum};
use tests::{
    drill::{self, Options},
    interrupt::{self, Interrupted},
    report::{Report, Verdict},
    scenario::Scenario,
    terminal::{Screen, Style, conclude, describe},
};

/// Breaks and changes a pair of directors under load, and shows what the clients notice.
///
/// Everything happens in network namespaces that are gone afterwards. Exit codes: 0 every
/// scenario passed, 1 one failed, 2 the drill could not be held, 130 interrupted.
#[derive(Parser)]
#[command(name = "drill")]
struct Arguments {
    /// Where lbd and lbctl are
    #[arg(long, value_name = "DIR")]
    bin_dir: PathBuf,
    /// May be repeated; all of them where none is named
    #[arg(long = "scenario", value_name = "NAME")]
    scenarios: Vec<Scenario>,
    /// How often to play them
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    repeat: u32,
    /// Interval between VRRP advertisements, in steps of 10ms
    #[arg(long, value_name = "INTERVAL", default_value = "100ms", value_parser = parse_interval)]
    advert: Duration,
    /// Long-lived connections open at once
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u16).range(1..=5_000))]
    connections: u16,
    /// Write the report as JSON; `-` is standard output, and then the rest goes to standard error
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Keep report.json, timeline.txt, captures and logs there
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match hold(arguments) {
        Ok(Verdict::Pass) => ExitCode::SUCCESS,
        Ok(Verdict::Fail) => ExitCode::from(1),
        // A tool that Ctrl-C ended before it could answer is an interruption as well.
        Err(error) if error.is::<Interrupted>() || interrupt::check().is_err() => {
            eprintln!("drill: interrupted; everything is cleaned up");
            ExitCode::from(130)
        }
        Err(error) => {
            eprintln!("drill: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn hold(arguments: Arguments) -> anyhow::Result<Verdict> {
    interrupt::catch()?;
    let to_stdout = arguments.json.as_deref() == Some(Path::new("-"));
    if let Some(file) = arguments.json.as_deref().filter(|_| !to_stdout) {
        // Now, not after a minute's drill.
        let open = File::options().create(true).append(true).open(file);
        open.with_context(|| format!("write {}", file.display()))?;
    }
    let (out, style): (Box<dyn Write>, Style) = if to_stdout {
        (Box::new(io::stderr()), Style::of(&io::stderr()))
    } else {
        (Box::new(io::stdout()), Style::of(&io::stdout()))
    };
    let screen = Screen::new(out, style);
    let result = drill::run(&options(&arguments), &screen);
    screen.close();
    let report = result?;
    screen.print(&conclude(&report, style));
    if let Some(file) = &arguments.json {
        write_json(file, &report)?;
    }
    if let Some(dir) = &arguments.report {
        write_json(&dir.join("report.json"), &report)?;
        write_timeline(&dir.join("timeline.txt"), &report)?;
    }
    Ok(report.verdict)
}

fn options(arguments: &Arguments) -> Options {
    let mut scenarios = arguments.scenarios.clone();
    if scenarios.is_empty() {
        scenarios = Scenario::value_variants().to_vec();
    }
    Options {
        bin_dir: arguments.bin_dir.clone(),
        scenarios,
        repeat: arguments.repeat,
        advertisement_interval: arguments.advert,
        connections: arguments.connections.into(),
        report_dir: arguments.report.clone(),
    }
}

/// Such as `100ms` or `1s`.
fn parse_interval(text: &str) -> Result<Duration, String> {
    let expected = || format!("{text:?} is not an interval such as 100ms or 1s");
    let (number, unit_ms) = match text.strip_suffix("ms") {
        Some(number) => (number, 1),
        None => (text.strip_suffix('s').ok_or_else(expected)?, 1_000),
    };
    let number: u64 = number.parse().map_err(|_| expected())?;
    let ms = number.saturating_mul(unit_ms);
    // The field is 12 bits of centiseconds (RFC 9568 §5.2.7).
    if !(10..=40_950).contains(&ms) || ms % 10 != 0 {
        return Err(format!("{text} is not a multiple of 10ms from 10ms to 40950ms"));
    }
    Ok(Duration::from_millis(ms))
}

fn write_json(file: &Path, report: &Report) -> anyhow::Result<()> {
    let mut text = serde_json::to_string_pretty(report).context("write the report")?;
    text.push('\n');
    if file == Path::new("-") {
        io::stdout().write_all(text.as_bytes()).context("write the report to standard output")
    } else {
        fs::write(file, text).with_context(|| format!("write {}", file.display()))
    }
}

fn write_timeline(file: &Path, report: &Report) -> anyhow::Result<()> {
    let style = Style { colour: false };
    let mut text: String =
        report.scenarios.iter().map(|scenario| describe(scenario, style)).collect();
    text.push_str(&conclude(report, style));
    fs::write(file, text).with_context(|| format!("write {}", file.display()))
}
