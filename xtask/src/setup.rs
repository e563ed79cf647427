//! `cargo xtask setup`: what the other verbs need, found or installed.
//!
//! [`facts`] looks, [`plan`] decides (pure), [`report`] says it, [`install`] does it. Every verb
//! calls [`ensure`] first; where nothing is missing it costs one `rustc --print sysroot` and a few
//! looks at the file system, and says nothing.

mod facts;
mod host;
mod install;
mod plan;
mod report;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::bail;

use crate::process;
use facts::{Core, Facts};
use plan::{Plan, Step};
pub(crate) use report::duration;

const EXAMPLES: &str = "\
Examples:
  cargo xtask setup            install what is missing; a second run does nothing
  cargo xtask setup --dry-run  only say what it would install, why and how

On Debian, as root or with sudo, it does everything itself. Elsewhere it prints the commands.
The installed services (nginx, keepalived, haproxy) are neither started nor enabled.";

/// Installs what the other verbs need: the eBPF toolchain and the programs of drill and tests
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Show the plan and run nothing
    #[arg(long)]
    dry_run: bool,
}

/// What a verb is about to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Needs {
    /// Compile, the XDP programs too.
    Build,
    /// Compile, then run the lab: namespaces, captures, real servers.
    Lab,
    /// The lab, and what a user would run in our place, to compare with.
    Peers,
}

/// How to start cargo so that the XDP programs build.
#[derive(Default)]
pub(crate) struct Toolchain {
    /// The rustc with a prebuilt `core` for BPF; `None` where the pinned toolchain builds `core`
    /// from rust-src.
    bpf_rustc: Option<PathBuf>,
    /// Where bpf-linker is, when that is not on `PATH`.
    linker_directory: Option<PathBuf>,
}

impl Toolchain {
    pub(crate) fn cargo(&self) -> Command {
        self.command(process::cargo_program())
    }

    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = process::command(program);
        if let Some(rustc) = &self.bpf_rustc {
            command.env(facts::BPF_RUSTC, rustc);
        }
        if let Some(directory) = &self.linker_directory {
            command.env("PATH", path_with(directory));
        }
        command
    }
}

fn path_with(directory: &Path) -> OsString {
    let mut path = OsString::from(directory);
    if let Some(inherited) = std::env::var_os("PATH") {
        path.push(":");
        path.push(inherited);
    }
    path
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let facts = Facts::gather(Needs::Peers)?;
    match plan::plan(&facts) {
        Plan::Nothing => {
            println!("setup: nothing to do, everything is here: {}", report::present(&facts))
        }
        Plan::Install(steps) if args.dry_run => {
            print!("{}\n{}", report::table(&steps), report::commands(&steps, &facts.host));
            println!("\nsetup: dry run, nothing was installed");
        }
        Plan::Install(_) => {
            ensure(Needs::Peers)?;
        }
        Plan::ByHand { why, steps } => {
            eprint!("{}\n{}", report::table(&steps), report::by_hand(&why, &steps, &facts.host));
            return Ok(ExitCode::FAILURE);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Finds what `needs` asks for, installs what is missing, and says how to start cargo then.
///
/// # Errors
/// Something is missing and could not be installed here; the commands for a person were printed.
pub(crate) fn ensure(needs: Needs) -> anyhow::Result<Toolchain> {
    let facts = Facts::gather(needs)?;
    if plan::plan(&facts) == Plan::Nothing {
        return Ok(toolchain(&facts));
    }
    let started = Instant::now();
    let log = install::Log::open()?;
    // Another run may have installed it all while we waited for the log.
    let mut facts = Facts::gather(needs)?;
    loop {
        let steps = match plan::plan(&facts) {
            Plan::Nothing => break,
            Plan::Install(steps) => steps,
            Plan::ByHand { why, steps } => {
                eprint!(
                    "{}\n{}",
                    report::table(&steps),
                    report::by_hand(&why, &steps, &facts.host)
                );
                bail!("setup: the commands above are for you; then run this again");
            }
        };
        eprintln!("{}", report::table(&steps));
        let rest = install::all(&steps, &facts.host, &log)?;
        facts = after(rest, needs, &log)?;
    }
    eprintln!("setup: done in {}", report::duration(started.elapsed()));
    Ok(toolchain(&facts))
}

/// What is there once the steps were tried. `rest` was not done; its first is the one that failed.
fn after(rest: &[Step], needs: Needs, log: &install::Log) -> anyhow::Result<Facts> {
    let mut facts = Facts::gather(needs)?;
    match rest.first() {
        // The one step with another way: rustup has no rust-src for us, Debian's rustc-web has a
        // `core`.
        Some(Step::RustSrc) => {
            eprintln!("setup: rustup could not add rust-src: {}", log.last_line());
            facts.refuse_rustup();
            Ok(facts)
        }
        Some(failed @ (Step::Packages(_) | Step::RefreshLists | Step::Linker)) => {
            let why = [format!("{} stopped with the lines above", failed.label())];
            eprint!("{}\n{}", log.tail(), report::by_hand(&why, rest, &facts.host));
            bail!("setup: not complete; the whole log is {}", log.path().display());
        }
        None => match plan::plan(&facts) {
            Plan::Nothing => Ok(facts),
            Plan::Install(left) | Plan::ByHand { steps: left, .. } => {
                let left = left.iter().map(Step::what).collect::<Vec<_>>().join(" and ");
                bail!(
                    "setup: every step succeeded, yet there is no {left}; log: {}",
                    log.path().display()
                )
            }
        },
    }
}

fn toolchain(facts: &Facts) -> Toolchain {
    Toolchain {
        bpf_rustc: match &facts.core {
            Core::Prebuilt(rustc) => Some(rustc.clone()),
            Core::RustSrc | Core::Missing => None,
        },
        linker_directory: facts.linker_off_path.clone(),
    }
}
