//! `lbd`: flags, the log, and the daemon.

use std::{
    io::{self, IsTerminal},
    path::PathBuf,
    process::ExitCode,
};

use clap::Parser;
use lb_daemon::{
    control::DEFAULT_SOCKET,
    daemon::{self, Options, RunError},
    error_chain,
};
use tracing_subscriber::EnvFilter;

/// The daemon of a director: it forwards virtual services to real servers in XDP and moves
/// their VIPs by VRRP.
///
/// Runs in the foreground and logs to stderr. SIGTERM resigns and leaves the machine as it was
/// found; SIGHUP reads the configuration again.
#[derive(Parser)]
#[command(
    version,
    after_help = "Examples:
  lbd --config /etc/lbd/lbd.toml
  lbctl config check /etc/lbd/lbd.toml      look for faults first
  RUST_LOG=debug lbd --config lbd.toml      say more

Two on one host, in network namespaces (not by `ip netns exec`, which hides the pins of the
datapath from the next lbd):
  nsenter --net=/run/netns/lb1 lbd --config lb1.toml --state-dir /tmp/lb1 --socket /tmp/lb1.sock"
)]
struct Flags {
    /// The configuration file.
    #[arg(long, value_name = "FILE", default_value = "/etc/lbd/lbd.toml")]
    config: PathBuf,
    /// Where the pins of the datapath are kept.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/lbd")]
    state_dir: PathBuf,
    /// Where `lbctl` finds this daemon.
    #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET, env = "LBD_SOCKET")]
    socket: PathBuf,
}

fn main() -> ExitCode {
    let Flags { config, state_dir, socket } = Flags::parse();
    // Lossy and on a thread of its own: whoever reads the log must not delay VRRP.
    let (writer, _flush) = tracing_appender::non_blocking(io::stderr());
    tracing_subscriber::fmt()
        .with_env_filter(
            EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info")),
        )
        .with_ansi(io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        .with_target(false)
        .with_writer(writer)
        .init();
    let runtime =
        match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => {
                eprintln!("lbd: start the runtime: {error}");
                return ExitCode::FAILURE;
            }
        };
    match runtime.block_on(daemon::run(Options { config, state_dir, socket })) {
        Ok(()) => ExitCode::SUCCESS,
        Err(RunError::Config(error)) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
        Err(error) => {
            eprintln!("lbd: {}", error_chain(&error));
            if !nix::unistd::geteuid().is_root() {
                eprintln!("lbd needs root, or CAP_NET_ADMIN, CAP_NET_RAW and CAP_BPF");
            }
            ExitCode::FAILURE
        }
    }
}
