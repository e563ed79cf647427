//! Ctrl-C and SIGTERM become an error in whoever waits, so that unwinding cleans everything up.

use std::{
    fmt,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use tokio::signal::unix::{SignalKind, signal};

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

/// Turns the signals into [`Interrupted`] from here on.
///
/// By handlers, not by a blocked mask: children would inherit that, and be deaf to SIGTERM.
pub fn catch() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the signal runtime")?;
    let mut signals = {
        let _inside = runtime.enter();
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        let [interrupt, terminate, hangup] = kinds.map(signal);
        (interrupt?, terminate?, hangup?)
    };
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = signals.0.recv() => {}
                    _ = signals.1.recv() => {}
                    _ = signals.2.recv() => {}
                }
                INTERRUPTED.store(true, Ordering::SeqCst);
                // The handlers stay, and a second Ctrl-C does not cut the cleaning short.
                std::future::pending::<()>().await;
            });
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
