//! Ctrl-C and SIGTERM become an error in whoever waits, so that unwinding cleans everything up.

use std::{
    fmt,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use nix::sys::signal::{SigSet, Signal};

/// The run was told to end.
#[derive(Debug)]
pub struct Interrupted;

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// To be called before any other thread starts: these inherit the mask, and only the thread
/// started here takes the signals.
pub fn catch() -> anyhow::Result<()> {
    let signals = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]);
    signals.thread_block().context("block signals")?;
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            while signals.wait().is_ok() {
                INTERRUPTED.store(true, Ordering::SeqCst);
            }
        })
        .context("start the signal thread")?;
    Ok(())
}

pub fn check() -> Result<(), Interrupted> {
    if INTERRUPTED.load(Ordering::SeqCst) { Err(Interrupted) } else { Ok(()) }
}

/// Lets time pass that is to be observed; not a means to wait for something.
pub fn observe(duration: Duration) -> Result<(), Interrupted> {
    let end = Instant::now() + duration;
    loop {
        check()?;
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        thread::sleep(left.min(Duration::from_millis(20)));
    }
}

/// Asks `poll` until it has an answer; its `Err` says what it saw instead, and is what the
/// error of a missed `limit` shows.
pub fn wait_for<T>(
    what: &str,
    limit: Duration,
    mut poll: impl FnMut() -> anyhow::Result<Result<T, String>>,
) -> anyhow::Result<T> {
    let end = Instant::now() + limit;
    loop {
        check()?;
        match poll()? {
            Ok(found) => return Ok(found),
            Err(seen) if Instant::now() >= end => {
                bail!("{what}: not within {limit:?}; last seen: {seen}")
            }
            Err(_) => thread::sleep(Duration::from_millis(2)),
        }
    }
}
