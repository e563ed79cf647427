//! `lbctl stats`: counters, and rates between two looks at them.

use std::{
    io::{self, IsTerminal},
    time::Duration,
};

use clap::Args;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time,
};

use super::{Context, Failure, Output, write};
use crate::control::{Counters, Exceptions, Stats, client::ClientError};

use self::{
    report::Report,
    screen::{Screen, show},
};
use super::table::{decimal, grouped};

mod rates;
mod report;
mod screen;

pub(super) const EXAMPLES: &str = "\
Examples:
  lbctl stats
  lbctl stats --watch
  lbctl stats --watch 5 -o json >> stats.jsonl

Rates are per second: without --watch over one second, with it since the sample before.";

const INTERVAL: Duration = Duration::from_secs(1);

#[derive(Args)]
pub(super) struct Options {
    /// Goes on until Ctrl-C, with a sample every so many seconds
    #[arg(
        long,
        value_name = "SECONDS",
        num_args = 0..=1,
        default_missing_value = "1",
        value_parser = parse_interval
    )]
    watch: Option<Duration>,
}

pub(super) async fn run(options: Options, context: &Context) -> Result<String, Failure> {
    if let Some(interval) = options.watch {
        return watch(interval, context).await;
    }
    let before = context.client.stats().await?;
    time::sleep(INTERVAL).await;
    let report = Report::of(context.client.stats().await?, Some(&before));
    Ok(context.show(&report, |report| show(report, context.colour)))
}

/// Until Ctrl-C, which is no failure, nor is a reader who has seen enough.
async fn watch(interval: Duration, context: &Context) -> Result<String, Failure> {
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Failure::Output)?;
    let mut screen = match context.output {
        Output::Json => Screen::Lines,
        Output::Table if io::stdout().is_terminal() => Screen::redrawn(),
        Output::Table => Screen::Appended { first: true },
    };
    let mut ticks = time::interval(interval);
    ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    let mut before: Option<Stats> = None;
    while let Some(sample) = next(&mut ticks, &mut interrupt, context).await {
        let drawn = match sample {
            Ok(stats) => {
                let report = Report::of(stats.clone(), before.as_ref());
                before = Some(stats);
                screen.draw(&report, context.colour)
            }
            // The daemon may be on its way back, while its datapath forwards on.
            Err(error) if before.is_some() => screen.draw_failure(&error),
            Err(error) => return Err(error.into()),
        };
        match write(&drawn) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break,
            Err(error) => return Err(Failure::Output(error)),
        }
    }
    Ok(String::new())
}

/// `None` after Ctrl-C.
async fn next(
    ticks: &mut time::Interval,
    interrupt: &mut Signal,
    context: &Context,
) -> Option<Result<Stats, ClientError>> {
    let sample = async {
        ticks.tick().await;
        context.client.stats().await
    };
    tokio::select! {
        _ = interrupt.recv() => None,
        sample = sample => Some(sample),
    }
}

/// `12 packets, 3.4 kB, 1 new flows`.
pub(super) fn traffic(counters: &Counters) -> String {
    let Counters { packets, bytes, new_flows } = counters;
    let new_flows =
        new_flows.map_or(String::new(), |flows| format!(", {} new flows", grouped(flows)));
    format!("{} packets, {}{new_flows}", grouped(*packets), decimal(*bytes))
}

/// A line of its own.
pub(super) fn exceptions(exceptions: Exceptions) -> String {
    let Exceptions { noted, opening, capacity } = exceptions;
    let opening =
        if opening > 0 { format!(", {} opening", grouped(opening)) } else { String::new() };
    format!("exceptions {} of {}{opening}\n", grouped(noted), grouped(capacity))
}

/// From a tenth of a second to an hour.
fn parse_interval(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let range = Duration::from_millis(100)..=Duration::from_secs(3600);
    seconds
        .filter(|seconds| range.contains(seconds))
        .ok_or_else(|| format!("`{text}` is not a number of seconds from 0.1 to 3600"))
}
