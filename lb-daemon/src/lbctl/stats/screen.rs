//! A report for a person, once or again and again.

use comfy_table::Cell;

use super::{
    super::table::{Column, decimal, duration, grouped, rate, table, text},
    exceptions,
    rates::Rates,
    report::Report,
};
use crate::control::{Counters, client::ClientError};

/// How samples follow each other.
pub(super) enum Screen {
    /// On a terminal: each in the place of the one before.
    Redrawn { first: bool },
    /// To a file or pipe: below each other.
    Appended { first: bool },
    /// A line of JSON each.
    Lines,
}

const CLEAR_SCREEN: &str = "\x1b[2J";
const HOME: &str = "\x1b[H";
const CLEAR_TO_END_OF_LINE: &str = "\x1b[K";
const CLEAR_TO_END_OF_SCREEN: &str = "\x1b[J";

impl Screen {
    pub(super) fn redrawn() -> Self {
        Self::Redrawn { first: true }
    }

    /// What to write for a report.
    pub(super) fn draw(&mut self, report: &Report, colour: bool) -> String {
        match self {
            Self::Redrawn { .. } => self.in_place(&show(report, colour)),
            Self::Appended { first } => {
                let gap = if std::mem::take(first) { "" } else { "\n" };
                gap.to_owned() + &show(report, colour)
            }
            Self::Lines => match serde_json::to_string(report) {
                Ok(json) => json + "\n",
                Err(error) => format!("{error}\n"),
            },
        }
    }

    /// What to write where a report would have been, if not to the standard error.
    pub(super) fn draw_failure(&mut self, error: &ClientError) -> String {
        match self {
            Self::Redrawn { .. } => self.in_place(&format!("lbctl: {error}\n")),
            Self::Appended { .. } | Self::Lines => {
                eprintln!("lbctl: {error}");
                String::new()
            }
        }
    }

    /// Over what is there, line by line: a screen that is cleared first flickers.
    fn in_place(&mut self, text: &str) -> String {
        let mut drawn = String::new();
        if let Self::Redrawn { first } = self
            && std::mem::take(first)
        {
            drawn += CLEAR_SCREEN;
        }
        drawn += HOME;
        for line in text.lines() {
            drawn.extend([line, CLEAR_TO_END_OF_LINE, "\n"]);
        }
        drawn + CLEAR_TO_END_OF_SCREEN
    }
}

pub(super) fn show(report: &Report, colour: bool) -> String {
    let rates = match report.interval_ms {
        Some(interval) => format!("rates over {}\n", duration(interval)),
        None => "rates follow with the next sample\n".to_owned(),
    };
    let mut sections = vec![rates + &exceptions(report.exceptions)];
    if !report.services.is_empty() {
        sections.push(services(report, colour));
    }
    if !report.real_servers.is_empty() {
        sections.push(real_servers(report, colour));
    }
    if report.verdicts.values().any(|packets| *packets > 0) {
        sections.push(verdicts(report, colour));
    }
    sections.join("\n")
}

fn services(report: &Report, colour: bool) -> String {
    let mut columns = vec![Column::Left("SERVICE"), Column::Left("ADDRESS")];
    columns.extend(traffic_columns());
    let rows = report.services.iter().map(|row| {
        let (stats, rates) = (&row.stats, row.per_second.as_ref());
        let mut cells =
            vec![text(&stats.name), text(format!("{}/{}", stats.address, stats.protocol))];
        cells.extend(traffic(&stats.counters, rates));
        cells
    });
    table(&columns, rows, colour)
}

fn real_servers(report: &Report, colour: bool) -> String {
    let mut columns = vec![Column::Left("REAL SERVER")];
    columns.extend(traffic_columns());
    let rows = report.real_servers.iter().map(|row| {
        let mut cells = vec![text(row.stats.address)];
        cells.extend(traffic(&row.stats.counters, row.per_second.as_ref()));
        cells
    });
    table(&columns, rows, colour)
}

fn traffic_columns() -> [Column; 6] {
    [
        Column::Right("PACKETS"),
        Column::Right("PER S"),
        Column::Right("BYTES"),
        Column::Right("BIT/S"),
        Column::Right("NEW FLOWS"),
        Column::Right("PER S"),
    ]
}

fn traffic(counters: &Counters, rates: Option<&Rates>) -> [Cell; 6] {
    let rate = |of: fn(&Rates) -> Option<f64>| text(shown(rates.and_then(of)));
    [
        text(grouped(counters.packets)),
        rate(|rates| Some(rates.packets)),
        text(decimal(counters.bytes)),
        rate(|rates| Some(rates.bytes * 8.0)),
        text(counters.new_flows.map_or("-".to_owned(), grouped)),
        rate(|rates| rates.new_flows),
    ]
}

/// Those that occurred, the most frequent first.
fn verdicts(report: &Report, colour: bool) -> String {
    let columns = [Column::Left("VERDICT"), Column::Right("PACKETS"), Column::Right("PER S")];
    let mut verdicts: Vec<_> =
        report.verdicts.iter().filter(|(_, packets)| **packets > 0).collect();
    verdicts.sort_by_key(|(name, packets)| (std::cmp::Reverse(**packets), *name));
    let rows = verdicts.into_iter().map(|(name, packets)| {
        let rate = report.verdicts_per_second.get(name).copied();
        vec![text(name), text(grouped(*packets)), text(shown(rate))]
    });
    table(&columns, rows, colour)
}

fn shown(per_second: Option<f64>) -> String {
    per_second.map_or("-".to_owned(), rate)
}
