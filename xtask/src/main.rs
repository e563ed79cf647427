//! Every chore of this repository: `cargo xtask --help`.
//!
//! One file per verb. A verb first lets [`setup`] look for what it needs, then starts cargo or a
//! binary of ours; nothing of ours is linked in, so that the chores work while the crates do not
//! compile.

mod bench;
mod build;
mod check;
mod drill;
mod process;
mod setup;
mod test;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

const EXAMPLES: &str = "\
Examples:
  cargo xtask drill                            two directors, one loses power; who notices?
  cargo xtask drill --scenario active-resigns  one scenario of it
  cargo xtask test                             every test (needs root: network namespaces)
  cargo xtask bench                            what a packet costs, in nanoseconds
  cargo xtask check                            what must pass before a commit
  cargo xtask setup --dry-run                  what would be installed here, and why

Each verb installs what it needs and does not find; a second run finds everything.";

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about = "Every chore of this repository", after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Setup(setup::Args),
    Build(build::Args),
    Test(test::Args),
    Drill(drill::Args),
    Bench(bench::Args),
    Check(check::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().verb {
        Verb::Setup(args) => setup::run(&args),
        Verb::Build(args) => build::run(&args),
        Verb::Test(args) => test::run(&args),
        Verb::Drill(args) => drill::run(&args),
        Verb::Bench(args) => bench::run(&args),
        Verb::Check(args) => check::run(&args),
    };
    result.unwrap_or_else(|error| {
        eprintln!("xtask: {error:#}");
        ExitCode::FAILURE
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_grammar_is_consistent_and_every_verb_teaches_by_example() {
        let mut cli = Cli::command();
        cli.build();
        cli.clone().debug_assert();
        for verb in cli.get_subcommands().filter(|verb| verb.get_name() != "help") {
            let help = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
            let example = format!("cargo xtask {}", verb.get_name());
            assert!(help.contains(&example), "`{example}` is in no example");
        }
    }
}
