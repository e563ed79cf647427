//! `cargo xtask bench`: builds what the bench needs and becomes the bench.
//!
//! Becomes: `exec`, so that Ctrl-C reaches it alone and its exit code is ours.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::CommandFactory;

use crate::setup::{self, Needs, Toolchain};
use crate::{process, workspace};

const EXAMPLES: &str = "\
Examples:
  cargo xtask bench                          nanoseconds per packet in the XDP program
  cargo xtask bench --quick --check          in some seconds; fails where a ratio is too high
  cargo xtask bench --json bench.json --report charts
  cargo xtask bench --compare                beside nftables, plain forwarding, HAProxy and nginx

It needs root, to load programs and to make network namespaces; it touches nothing outside of them.
All options go to the bench itself: once it is built, `cargo xtask bench --help` lists them.";

/// Measures what a packet costs, in the XDP program alone or beside what one would use in its place
#[derive(clap::Args)]
#[command(after_help = EXAMPLES, disable_help_flag = true)]
pub(crate) struct Args {
    /// Options of the bench
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "OPTION")]
    options: Vec<OsString>,
}

/// The daemon as well: `--compare` runs it.
const BUILD: [&str; 7] = ["build", "--release", "-p", "lb-daemon", "-p", "tests", "--bins"];

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let release = workspace::target_dir().join("release");
    if args.options.iter().any(|option| option == "--help" || option == "-h") {
        return help(&release, &args.options);
    }
    if !process::is_root() {
        // A target folder of its own: files of root in the person's would spoil their next build.
        bail!(
            "the bench needs root, to load programs and to make network namespaces:\n\n    \
             sudo env \"PATH=$PATH\" \"HOME=$HOME\" CARGO_TARGET_DIR=target/root cargo xtask bench"
        );
    }
    let toolchain = setup::ensure(needs(&args.options))?;
    let status = process::status(toolchain.cargo().args(BUILD))?;
    if !status.success() {
        return Ok(process::exit_code(status));
    }
    become_bench(&toolchain, &release, &args.options)
}

fn needs(options: &[OsString]) -> Needs {
    if options.iter().any(|option| option == "--compare") { Needs::Peers } else { Needs::Lab }
}

/// The bench's own help where it is built; making a person wait for a build in order to read is no
/// answer.
fn help(release: &Path, options: &[OsString]) -> anyhow::Result<ExitCode> {
    if release.join("bench").exists() {
        eprintln!(
            "cargo xtask bench builds lbd and the bench, then runs it, which says of itself:\n"
        );
        return become_bench(&Toolchain::default(), release, options);
    }
    let mut cli = crate::Cli::command();
    cli.build();
    let bench =
        cli.find_subcommand_mut("bench").context("the verb `bench` is not in the grammar")?;
    bench.print_help()?;
    Ok(ExitCode::SUCCESS)
}

fn become_bench(
    toolchain: &Toolchain,
    release: &Path,
    options: &[OsString],
) -> anyhow::Result<ExitCode> {
    let mut command = toolchain.command(release.join("bench"));
    // Files that the options name are relative to where the person is.
    command.current_dir(std::env::current_dir().unwrap_or_else(|_| workspace::root().into()));
    command.arg("--bin-dir").arg(release).args(options);
    let error = command.exec();
    Err(error).with_context(|| format!("start {}", release.join("bench").display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_comparison_needs_the_peers() {
        assert_eq!(needs(&["--quick".into()]), Needs::Lab);
        assert_eq!(needs(&["--json".into(), "x".into(), "--compare".into()]), Needs::Peers);
    }
}
