//! `cargo xtask build`: release binaries of the daemon and its command line.

use std::process::ExitCode;

use crate::setup::{self, Needs};
use crate::{process, workspace};

const EXAMPLES: &str = "\
Examples:
  cargo xtask build                                      lbd and lbctl, in target/release
  cargo xtask build && target/release/lbctl config check lb.toml";

/// Builds lbd and lbctl for release, with the XDP programs inside
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {}

pub(crate) fn run(_args: &Args) -> anyhow::Result<ExitCode> {
    let toolchain = setup::ensure(Needs::Build)?;
    let status = process::status(toolchain.cargo().args([
        "build",
        "--release",
        "-p",
        "lb-daemon",
        "--bins",
    ]))?;
    if status.success() {
        let release = workspace::target_dir().join("release");
        for name in ["lbd", "lbctl"] {
            println!("{}", release.join(name).display());
        }
    }
    Ok(process::exit_code(status))
}
