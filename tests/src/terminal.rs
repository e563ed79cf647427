//! The drill for a person: a timeline and a verdict, at most 100 columns wide.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal, Write},
    sync::Mutex,
    time::Duration,
};

use indicatif::ProgressBar;

use crate::{
    drill::Audience,
    report::{Moment, PoolChange, Report, ScenarioReport, Verdict},
};

const WIDTH: usize = 100;

/// Whether text is coloured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    pub colour: bool,
}

impl Style {
    /// Colour on a terminal, unless NO_COLOR says otherwise.
    pub fn of(stream: &impl IsTerminal) -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { colour: stream.is_terminal() && !refused }
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }

    fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }

    fn verdict(self, verdict: Verdict) -> String {
        match verdict {
            Verdict::Pass => self.paint("1;32", "pass"),
            Verdict::Fail => self.paint("1;31", "FAIL"),
        }
    }

    /// Each who of a timeline has a colour of its own.
    fn who(self, who: &str) -> String {
        let code = match who {
            "lb1" => "36",
            "lb2" => "35",
            "client" => "33",
            _ => "31",
        };
        self.paint(code, &format!("{who:<8}"))
    }
}

/// Prints to a stream, with a spinner on standard error where that is a terminal.
pub struct Screen {
    spinner: ProgressBar,
    out: Mutex<Box<dyn Write>>,
    style: Style,
}

impl Screen {
    pub fn new(out: Box<dyn Write>, style: Style) -> Self {
        let spinner = ProgressBar::new_spinner();
        if !spinner.is_hidden() {
            spinner.enable_steady_tick(Duration::from_millis(120));
        }
        Self { spinner, out: Mutex::new(out), style }
    }

    /// Shows `text`; that nobody can read it is no reason to stop a drill.
    pub fn print(&self, text: &str) {
        self.spinner.suspend(|| {
            let mut out = self.out.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let _: io::Result<()> = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        });
    }

    pub fn close(&self) {
        self.spinner.finish_and_clear();
    }
}

impl Audience for Screen {
    fn progress(&self, what: &str) {
        self.spinner.set_message(what.to_owned());
    }

    fn finished(&self, scenario: &ScenarioReport) {
        self.print(&describe(scenario, self.style));
    }
}

/// One scenario: timeline, numbers, verdict.
pub fn describe(scenario: &ScenarioReport, style: Style) -> String {
    let mut text =
        format!("\n{}  {}\n", style.bold(&scenario.name), style.verdict(scenario.verdict));
    for Moment { at_ms, who, what } in &scenario.timeline {
        let _ = writeln!(text, "{at_ms:>10.1} ms  {}{what}", style.who(who));
    }
    for (what, value) in facts(scenario) {
        let mut label = what;
        for line in wrap(&value, WIDTH - 17) {
            let _ = writeln!(text, "  {} {line}", style.dim(&format!("{label:<13}")));
            label = "";
        }
    }
    for failure in &scenario.failures {
        for line in wrap(failure, WIDTH - 4) {
            let _ = writeln!(text, "  {} {line}", style.paint("31", "!"));
        }
    }
    text
}

fn facts(scenario: &ScenarioReport) -> Vec<(&'static str, String)> {
    let optional =
        |value: Option<f64>| value.map_or("never".to_owned(), |ms| format!("{ms:.1} ms"));
    let connections = scenario.connections;
    let new = scenario.new_connections;
    let seen: Vec<_> = scenario.clients_seen.iter().map(ToString::to_string).collect();
    let servers: Vec<_> =
        scenario.by_real_server.iter().map(|(name, count)| format!("{name} {count}")).collect();
    let judged: Vec<_> = scenario
        .packets
        .judged
        .iter()
        .map(|(name, count)| format!("{count} {}", name.to_uppercase()))
        .collect();
    let malformed = match scenario.packets.malformed {
        0 => "none malformed".to_owned(),
        count => format!("{count} malformed"),
    };
    let dropped = match scenario.packets.dropped {
        0 => String::new(),
        count => format!(" of those captured, {count} were not"),
    };
    vec![
        (
            "outage",
            format!(
                "{} at the client (limit {:.0} ms), {} of {} probes lost, {} in a row",
                optional(scenario.outage_ms),
                scenario.outage_limit_ms,
                scenario.probes.lost,
                scenario.probes.sent,
                scenario.probes.longest_loss
            ),
        ),
        match &scenario.pool_change {
            None => ("takeover", format!("{} after the event", optional(scenario.takeover_ms))),
            Some(change) => ("pool", describe_change(change)),
        },
        (
            "connections",
            format!(
                "{} of {} survived, every byte checked; longest stall {:.0} ms",
                connections.survived, connections.opened, scenario.longest_stall_ms
            ),
        ),
        ("new", format!("{} of {} new connections succeeded", new.succeeded, new.attempted)),
        (
            "real servers",
            format!("{}; they saw the client as {}", servers.join(", "), seen.join(", ")),
        ),
        ("packets", format!("tshark read {}: {malformed}{dropped}", judged.join(", "))),
    ]
}

fn describe_change(change: &PoolChange) -> String {
    let percent = |share: f64| format!("{:.1} %", share * 100.0);
    let mut text = format!(
        "{} had {} of the slots and has {}; since then it got {} of {} new connections",
        change.real_server,
        percent(change.share_before),
        percent(change.share_after),
        change.opened_there_since,
        change.opened_since,
    );
    if change.share_before > 0.0 {
        let _ = write!(text, ", and {} of before lived on", change.kept);
    }
    text
}

/// After all scenarios: a table where there is something to compare, and the verdict.
pub fn conclude(report: &Report, style: Style) -> String {
    let mut text = String::new();
    let mut names: Vec<&str> = Vec::new();
    for scenario in &report.scenarios {
        if !names.contains(&scenario.name.as_str()) {
            names.push(&scenario.name);
        }
    }
    if report.scenarios.len() > names.len() {
        let header = format!(
            "{:<20}{:>6}{:>8}   {:>8} {:>8} {:>8}   {:>8} {:>8} {:>8}",
            "", "", "", "outage", "[ms]", "", "takeover", "[ms]", ""
        );
        let columns = format!(
            "{:<20}{:>6}{:>8}   {:>8} {:>8} {:>8}   {:>8} {:>8} {:>8}",
            "scenario", "runs", "passed", "min", "median", "max", "min", "median", "max"
        );
        let _ = writeln!(text, "\n{}\n{}", header.trim_end(), style.bold(&columns));
        for name in names {
            let _ = writeln!(text, "{}", row(report, name));
        }
    }
    let passed = report.scenarios.iter().filter(|one| one.verdict == Verdict::Pass).count();
    let _ = writeln!(
        text,
        "\n{}  {passed} of {} scenarios, {} XDP, advertisements every {} ms, kernel {}",
        style.verdict(report.verdict),
        report.scenarios.len(),
        report.xdp_mode,
        report.advertisement_interval_ms,
        report.kernel
    );
    text
}

fn row(report: &Report, name: &str) -> String {
    let runs: Vec<_> = report.scenarios.iter().filter(|one| one.name == name).collect();
    let passed = runs.iter().filter(|one| one.verdict == Verdict::Pass).count();
    let spread = |values: Vec<f64>| match spread(values) {
        Some([min, median, max]) => format!("{min:>8.1} {median:>8.1} {max:>8.1}"),
        None => format!("{:>8} {:>8} {:>8}", "-", "-", "-"),
    };
    format!(
        "{name:<20}{:>6}{passed:>8}   {}   {}",
        runs.len(),
        spread(runs.iter().filter_map(|run| run.outage_ms).collect()),
        spread(runs.iter().filter_map(|run| run.takeover_ms).collect())
    )
}

/// Minimum, median and maximum.
fn spread(mut values: Vec<f64>) -> Option<[f64; 3]> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let median = if values.len() % 2 == 1 {
        *values.get(middle)?
    } else {
        (values.get(middle.checked_sub(1)?)? + values.get(middle)?) / 2.0
    };
    Some([*values.first()?, median, *values.last()?])
}

fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            Some(_) | None => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::{spread, wrap};

    #[test]
    fn the_median_of_an_even_number_is_between_the_two_in_the_middle() {
        assert_eq!(spread(vec![4.0, 1.0, 2.0, 3.0]), Some([1.0, 2.5, 4.0]));
        assert_eq!(spread(vec![5.0, 1.0, 9.0]), Some([1.0, 5.0, 9.0]));
        assert_eq!(spread(vec![]), None);
    }

    #[test]
    fn text_is_cut_between_words() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("incomprehensibility", 7), ["incomprehensibility"]);
    }
}
