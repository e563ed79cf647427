//! `cargo xtask drill`: builds what the drill needs and becomes the drill.
//!
//! Becomes: `exec`, so that Ctrl-C reaches it alone and its exit code is ours.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::Context;
use clap::CommandFactory;

use crate::setup::{self, Needs, Toolchain};
use crate::{process, workspace};

const EXAMPLES: &str = "\
Examples:
  cargo xtask drill                                             every scenario, at 100 ms adverts
  cargo xtask drill --scenario active-dies --advert 10ms        power loss of the active director
  cargo xtask drill --scenario real-server-drained              a change of the pool
  cargo xtask drill --scenario active-dies --repeat 10 --json drill.json

It needs root, to make network namespaces; it touches nothing outside of them.
All options go to the drill itself: once it is built, `cargo xtask drill --help` lists them.";

/// Runs the failover drill: the lab, real connections, and what breaks or changes under them
#[derive(clap::Args)]
#[command(after_help = EXAMPLES, disable_help_flag = true)]
pub(crate) struct Args {
    /// Options of the drill
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "OPTION")]
    options: Vec<OsString>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let release = workspace::target_dir().join("release");
    if args.options.iter().any(|option| option == "--help" || option == "-h") {
        return help(&release, &args.options);
    }
    if !process::is_root() {
        eprintln!(
            "drill: it needs root, to make network namespaces; this builds it, then shows the command to run"
        );
    }
    let toolchain = setup::ensure(Needs::Lab)?;
    let status = process::status(toolchain.cargo().args(BUILD))?;
    if !status.success() {
        return Ok(process::exit_code(status));
    }
    if !process::is_root() {
        eprintln!("drill: built; run it as root:\n\n    {}\n", as_root(&release, &args.options));
        return Ok(ExitCode::FAILURE);
    }
    become_drill(&toolchain, &release, &args.options)
}

/// One cargo run for the daemon and the drill: the crates that both use are built once, with the
/// same features.
const BUILD: [&str; 7] = ["build", "--release", "-p", "lb-daemon", "-p", "tests", "--bins"];

/// The drill's own help where it is built; making a person wait for a build in order to read is no
/// answer.
fn help(release: &Path, options: &[OsString]) -> anyhow::Result<ExitCode> {
    if release.join("drill").exists() {
        eprintln!(
            "cargo xtask drill builds lbd, lbctl and the drill, then runs the drill, which says of itself:\n"
        );
        return become_drill(&Toolchain::default(), release, options);
    }
    let mut cli = crate::Cli::command();
    cli.build();
    let drill =
        cli.find_subcommand_mut("drill").context("the verb `drill` is not in the grammar")?;
    drill.print_help()?;
    Ok(ExitCode::SUCCESS)
}

fn become_drill(
    toolchain: &Toolchain,
    release: &Path,
    options: &[OsString],
) -> anyhow::Result<ExitCode> {
    let mut command: Command = toolchain.command(release.join("drill"));
    // Files that the options name are relative to where the person is.
    command
        .current_dir(std::env::current_dir().unwrap_or_else(|_| PathBuf::from(workspace::root())));
    command.arg("--bin-dir").arg(release).args(options);
    let error = command.exec();
    Err(error).with_context(|| format!("start {}", release.join("drill").display()))
}

fn as_root(release: &Path, options: &[OsString]) -> String {
    let drill = release.join("drill").into_os_string();
    let words = ["sudo".into(), drill, "--bin-dir".into(), release.into()];
    words.iter().chain(options).map(|word| process::quote(word)).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_for_root_keeps_every_option() {
        let options = ["--report", "my reports"].map(OsString::from);
        assert_eq!(
            as_root(Path::new("/src/target/release"), &options),
            "sudo /src/target/release/drill --bin-dir /src/target/release --report 'my reports'"
        );
    }

    #[test]
    fn options_of_the_drill_are_not_read_here() {
        use clap::Parser;
        let cli = crate::Cli::try_parse_from([
            "cargo xtask",
            "drill",
            "--scenario",
            "active-dies",
            "--help",
        ])
        .unwrap();
        let crate::Verb::Drill(args) = cli.verb else { panic!("another verb") };
        assert_eq!(args.options, ["--scenario", "active-dies", "--help"]);
    }
}
