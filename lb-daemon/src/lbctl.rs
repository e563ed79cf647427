//! `lbctl`: one request to the daemon, printed as a table or as JSON.

use std::{
    env,
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum, error::ErrorKind};
use serde::Serialize;

use crate::control::{
    DEFAULT_SOCKET,
    client::{Client, ClientError},
};

mod config;
mod flow;
mod real;
mod service;
mod stats;
mod status;
mod table;
mod vrrp;

/// In the help, after the options of the verb.
const LAST: usize = 100;
const SOCKET_VARIABLE: &str = "LBD_SOCKET";

/// Controls lbd, the daemon of a director.
#[derive(Parser)]
#[command(name = "lbctl", version, after_help = EXAMPLES)]
struct Cli {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    noun: Noun,
}

#[derive(Args)]
struct Options {
    /// The daemon's socket [default: $LBD_SOCKET, or /run/lbd/lbd.sock]
    #[arg(long, global = true, value_name = "PATH", display_order = LAST)]
    socket: Option<PathBuf>,
    /// How to print
    #[arg(
        short,
        long,
        global = true,
        value_name = "FORMAT",
        default_value = "table",
        display_order = LAST
    )]
    output: Output,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
}

#[derive(Subcommand)]
enum Noun {
    /// Everything about this director at a glance
    #[command(after_help = status::EXAMPLES)]
    Status,
    /// Virtual services: a VIP, port and protocol, with the real servers behind it
    #[command(subcommand)]
    Service(service::Verb),
    /// Real servers: where the packets of a virtual service go
    #[command(subcommand)]
    Real(real::Verb),
    /// Flows: where their packets go, and why
    #[command(subcommand)]
    Flow(flow::Verb),
    /// Packets, bytes and new flows, in all and per second
    #[command(after_help = stats::EXAMPLES)]
    Stats(stats::Options),
    /// Virtual routers: which director holds a VIP
    #[command(subcommand)]
    Vrrp(vrrp::Verb),
    /// The configuration file
    #[command(subcommand)]
    Config(config::Verb),
}

const EXAMPLES: &str = "\
Examples:
  lbctl status
  lbctl service add web --address 10.77.0.100:80
  lbctl real add web 10.77.0.14 --weight 2
  lbctl real list web -o json
  lbctl stats --watch
  lbctl flow explain --src 10.77.0.1:40000 --dst 10.77.0.100:80 --proto tcp
  lbctl config check /etc/lbd/lbd.toml

Exit codes: 0 done, 1 refused or failed, 2 usage or invalid configuration.";

/// What a verb needs to run.
struct Context {
    client: Client,
    output: Output,
    /// Whether the terminal shows colours and the operator wants them.
    colour: bool,
}

/// What there is to print, besides what went wrong.
#[derive(Debug)]
enum Failure {
    Request(ClientError),
    Output(io::Error),
    /// Each fault on its line, and what goes to the standard output all the same.
    InvalidConfig {
        faults: String,
        output: String,
    },
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Self::Request(error)
    }
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let Cli { options, noun } = Cli::parse();
    let context = Context {
        client: Client::new(&options.socket.unwrap_or_else(default_socket)),
        output: options.output,
        // https://no-color.org: set to anything but the empty string.
        colour: io::stdout().is_terminal()
            && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("lbctl: start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(noun, &context)) {
        Ok(output) => print(&output, ExitCode::SUCCESS),
        Err(Failure::Request(error)) => {
            eprintln!("lbctl: {error}");
            ExitCode::FAILURE
        }
        Err(Failure::Output(error)) => output_failed(&error),
        Err(Failure::InvalidConfig { faults, output }) => {
            eprintln!("{faults}");
            print(&output, ExitCode::from(2))
        }
    }
}

async fn run(noun: Noun, context: &Context) -> Result<String, Failure> {
    match noun {
        Noun::Status => status::run(context).await,
        Noun::Service(verb) => service::run(verb, context).await,
        Noun::Real(verb) => real::run(verb, context).await,
        Noun::Flow(verb) => flow::run(verb, context).await,
        Noun::Stats(options) => stats::run(options, context).await,
        Noun::Vrrp(verb) => vrrp::run(verb, context).await,
        Noun::Config(verb) => config::run(verb, context).await,
    }
}

fn default_socket() -> PathBuf {
    env::var_os(SOCKET_VARIABLE)
        .filter(|socket| !socket.is_empty())
        .map_or_else(|| Path::new(DEFAULT_SOCKET).to_owned(), PathBuf::from)
}

fn print(output: &str, code: ExitCode) -> ExitCode {
    match write(output) {
        Ok(()) => code,
        // Whoever reads has seen enough, as `head` does.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => code,
        Err(error) => output_failed(&error),
    }
}

fn write(output: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(output.as_bytes())?;
    stdout.flush()
}

fn output_failed(error: &io::Error) -> ExitCode {
    eprintln!("lbctl: standard output: {error}");
    ExitCode::FAILURE
}

/// Ends with exit code 2, for what clap does not see.
fn usage(problem: &str) -> ! {
    Cli::command().error(ErrorKind::ArgumentConflict, problem).exit()
}

impl Context {
    /// The value as JSON or as the operator reads it.
    fn show<T: Serialize>(&self, value: &T, text: impl FnOnce(&T) -> String) -> String {
        match self.output {
            Output::Table => text(value),
            Output::Json => match serde_json::to_string_pretty(value) {
                Ok(json) => json + "\n",
                Err(error) => format!("{error}\n"),
            },
        }
    }
}

/// The faults of the whole command line are found by clap in a debug build.
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_help_of_every_verb_teaches_by_example() {
        let mut without = Vec::new();
        visit(&Cli::command(), &mut |verb| {
            if verb.get_after_help().is_none_or(|help| !help.to_string().contains("lbctl ")) {
                without.push(verb.get_name().to_owned());
            }
        });
        assert!(without.is_empty(), "{without:?}");
    }

    fn visit(command: &clap::Command, see: &mut dyn FnMut(&clap::Command)) {
        if command.has_subcommands() {
            command.get_subcommands().for_each(|command| visit(command, see));
        } else {
            see(command);
        }
    }
}
