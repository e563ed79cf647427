//! The task tree of `lbd`: start order, signals, and an end that leaves the machine as it was.
//!
//! Two worlds that cannot delay each other: the VRRP thread, which [`vrrp`] owns, and this tokio
//! runtime with everything else. Start: datapath, neighbours, then VRRP, so that a director which
//! becomes active can forward. End: VRRP resigns while the datapath still forwards, then
//! everything is taken back.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};
use tracing::info;

use crate::{
    config,
    control::{Control, server},
};

mod api;
mod file;
mod running;
mod traces;
mod view;

pub use running::StartError;

use api::Daemon;
use running::Running;

/// What `lbd` is told on its command line.
#[derive(Clone, Debug)]
pub struct Options {
    pub config: PathBuf,
    /// For what outlives the daemon: the pins of the datapath.
    pub state_dir: PathBuf,
    pub socket: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The configuration cannot be used; the one error with exit code 2.
    #[error(transparent)]
    Config(#[from] config::ReadError),
    #[error("{} {}", operation, path.display())]
    Path {
        operation: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("another lbd runs with the state directory {}: stop it, or use --state-dir", .0.display())]
    StateDirInUse(PathBuf),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("{0}")]
    Io(&'static str, #[source] io::Error),
}

/// Runs a director until SIGTERM or SIGINT. SIGHUP reads the configuration again.
pub async fn run(options: Options) -> Result<(), RunError> {
    let (config, text) = config::read(&options.config)?;
    // Absolute, and where a symbolic link leads, as edits replace the file.
    let file = options.config.canonicalize().map_err(at("find", &options.config))?;
    let _lock = lock(&options.state_dir)?;
    let listener =
        server::bind(&options.socket).map_err(at("listen on the socket", &options.socket))?;
    let mut signals = Signals::new().map_err(|error| RunError::Io("handle signals", error))?;

    let running = match Running::start(config, &options.state_dir).await {
        Ok(running) => running,
        Err(error) => {
            let _ = fs::remove_file(&options.socket);
            return Err(error.into());
        }
    };
    let neighbours = running.neighbours();
    let daemon = Arc::new(Daemon::new(running, file, text));
    let (stop, stopped) = oneshot::channel::<()>();
    let api = tokio::spawn(server::serve(listener, Arc::clone(&daemon), async {
        let _ = stopped.await;
    }));
    let follower = tokio::spawn(api::follow_neighbours(Arc::clone(&daemon), neighbours));
    let clock = tokio::spawn(api::follow_time(Arc::clone(&daemon)));
    info!(config = %options.config.display(), socket = %options.socket.display(), "running");

    while signals.next().await == Signal::Reload {
        // On its own, so that a stop need not wait for it; it logs what came of it.
        let daemon = Arc::clone(&daemon);
        tokio::spawn(async move { daemon.reload().await });
    }
    info!("stopping");
    let _ = stop.send(());
    for task in [follower, clock] {
        task.abort();
        let _ = task.await;
    }
    let _ = api.await;
    daemon.stop().await;
    info!("stopped");
    Ok(())
}

fn at(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RunError {
    let path = path.to_owned();
    move |source| RunError::Path { operation, path, source }
}

/// Held for as long as the daemon lives; the kernel releases it however that ends.
fn lock(state_dir: &Path) -> Result<File, RunError> {
    fs::create_dir_all(state_dir).map_err(at("create the state directory", state_dir))?;
    let path = state_dir.join("lock");
    let file = File::create(&path).map_err(at("create", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(RunError::StateDirInUse(state_dir.to_owned())),
        Err(TryLockError::Error(source)) => Err(at("lock", &path)(source)),
    }
}

#[derive(PartialEq, Eq)]
enum Signal {
    Stop,
    Reload,
}

struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::Stop,
            _ = self.interrupt.recv() => Signal::Stop,
            _ = self.hangup.recv() => Signal::Reload,
        }
    }
}
