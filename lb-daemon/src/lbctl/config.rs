//! `lbctl config`.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde::Serialize;

use super::{Context, Failure};
use crate::{
    config::{self, Config, Fault, ReadError},
    control::{Refusal, RefusalKind, client::ClientError},
};

#[derive(Subcommand)]
pub(super) enum Verb {
    /// Checks a configuration file and reports every fault; needs no daemon
    #[command(after_help = "\
Examples:
  lbctl config check /etc/lbd/lbd.toml
  lbctl config check lbd.toml -o json

Exit code 2 where the file has faults, each as FILE:LINE:COLUMN: FIELD: PROBLEM.")]
    Check { file: PathBuf },
    /// Has the daemon read its configuration file again
    #[command(after_help = "\
Examples:
  lbctl config reload

A file with faults is refused as a whole, with exit code 2; what runs stays as it is.")]
    Reload,
}

/// The answer of `config check -o json`.
#[derive(Serialize)]
struct Checked<'a> {
    file: &'a Path,
    valid: bool,
    virtual_services: usize,
    real_servers: usize,
    virtual_routers: usize,
    faults: &'a [Fault],
}

#[derive(Serialize)]
struct Reloaded {
    reloaded: bool,
}

pub(super) async fn run(verb: Verb, context: &Context) -> Result<String, Failure> {
    match verb {
        Verb::Check { file } => check(&file, context),
        Verb::Reload => {
            context.client.reload().await.map_err(reload_failure)?;
            Ok(context.show(&Reloaded { reloaded: true }, |_| {
                "reloaded: what the configuration file says now runs\n".to_owned()
            }))
        }
    }
}

/// A file with faults is reported alike, whoever reads it.
fn reload_failure(error: ClientError) -> Failure {
    if let ClientError::Refused(Refusal { kind: RefusalKind::Invalid, message }) = error {
        Failure::InvalidConfig { faults: message, output: String::new() }
    } else {
        Failure::Request(error)
    }
}

fn check(file: &Path, context: &Context) -> Result<String, Failure> {
    match config::read(file) {
        Ok((config, _)) => {
            let checked = Checked {
                file,
                valid: true,
                virtual_services: config.virtual_services.len(),
                real_servers: real_servers(&config),
                virtual_routers: config.virtual_routers.len(),
                faults: &[],
            };
            Ok(context.show(&checked, summary))
        }
        Err(error) => {
            let faults = match &error {
                ReadError::Invalid(errors) => errors.faults(),
                ReadError::Io { .. } | ReadError::NotUtf8 { .. } => &[],
            };
            let checked = Checked {
                file,
                valid: false,
                virtual_services: 0,
                real_servers: 0,
                virtual_routers: 0,
                faults,
            };
            let output = context.show(&checked, |_| String::new());
            Err(Failure::InvalidConfig { faults: error.to_string(), output })
        }
    }
}

fn summary(checked: &Checked<'_>) -> String {
    format!(
        "{}: ok: {}, {}, {}\n",
        checked.file.display(),
        counted(checked.virtual_services, "virtual service"),
        counted(checked.real_servers, "real server"),
        counted(checked.virtual_routers, "virtual router"),
    )
}

fn real_servers(config: &Config) -> usize {
    config.virtual_services.iter().map(|service| service.real_servers.len()).sum()
}

fn counted(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}
