//! `lbctl real`.

use std::net::Ipv4Addr;

use clap::{Args, Subcommand};
use comfy_table::Cell;

use super::{
    Context, Failure,
    table::{Column, bad, good, table, text},
};
use crate::{
    config::edit::Edit,
    control::{Neighbour, RealServer, RealServerState},
};

#[derive(Subcommand)]
pub(super) enum Verb {
    /// Lists the real servers of one service, or of all
    #[command(after_help = "\
Examples:
  lbctl real list
  lbctl real list web
  lbctl real list web -o json")]
    List {
        /// As `lbctl service list` shows it
        service: Option<String>,
    },
    /// Adds a real server to a service, and writes it to the configuration file
    #[command(after_help = "\
Examples:
  lbctl real add web 10.77.0.14
  lbctl real add web 10.77.0.14 --weight 2

The real server must hold the VIP on its loopback interface and not answer ARP for it.")]
    Add(Add),
    /// Changes the weight of a real server
    #[command(after_help = "\
Examples:
  lbctl real set web 10.77.0.14 --weight 2
  lbctl real set web 10.77.0.14 --weight 0    # drains: keeps its flows, takes no new ones

A service without tracking (udp, unless told otherwise) keeps none: its flows follow the weights.")]
    Set(Set),
    /// Deletes a real server from a service, also from the configuration file
    #[command(after_help = "Examples:\n  lbctl real delete web 10.77.0.14")]
    Delete(Delete),
}

#[derive(Args)]
pub(super) struct Add {
    /// As `lbctl service list` shows it
    service: String,
    /// IPv4, without a port
    #[arg(value_parser = parse_address)]
    address: Ipv4Addr,
    /// Its share relative to the others; 0 keeps its flows and takes no new ones
    #[arg(long, default_value_t = crate::service::DEFAULT_WEIGHT)]
    weight: u16,
}

#[derive(Args)]
pub(super) struct Set {
    /// As `lbctl service list` shows it
    service: String,
    /// IPv4, without a port
    #[arg(value_parser = parse_address)]
    address: Ipv4Addr,
    /// Its share relative to the others; 0 keeps its flows and takes no new ones
    #[arg(long)]
    weight: u16,
}

#[derive(Args)]
pub(super) struct Delete {
    /// As `lbctl service list` shows it
    service: String,
    /// IPv4, without a port
    #[arg(value_parser = parse_address)]
    address: Ipv4Addr,
}

pub(super) async fn run(verb: Verb, context: &Context) -> Result<String, Failure> {
    let (edit, done) = match verb {
        Verb::List { service } => {
            let real_servers = context.client.real_servers(service.as_deref()).await?;
            return Ok(context.show(&real_servers, |real| list(real, context.colour)));
        }
        Verb::Add(Add { service, address, weight }) => {
            let done = format!("added {address} (weight {weight}) to {service}\n");
            (Edit::AddRealServer { service, address, weight }, done)
        }
        Verb::Set(Set { service, address, weight }) => {
            let done = format!("set {address} of {service} to weight {weight}\n");
            (Edit::SetRealServer { service, address, weight }, done)
        }
        Verb::Delete(Delete { service, address }) => {
            let done = format!("deleted {address} from {service}\n");
            (Edit::DeleteRealServer { service, address }, done)
        }
    };
    context.client.edit(&edit).await?;
    Ok(context.show(&edit, |_| done))
}

fn list(real_servers: &[RealServer], colour: bool) -> String {
    if real_servers.is_empty() {
        return "no real servers: add one with `lbctl real add`\n".to_owned();
    }
    let columns = [
        Column::Left("SERVICE"),
        Column::Left("REAL SERVER"),
        Column::Right("WEIGHT"),
        Column::Left("STATE"),
        Column::Right("SHARE"),
        Column::Left("NEIGHBOUR"),
        Column::Left("MAC"),
        Column::Left("INTERFACE"),
    ];
    table(&columns, real_servers.iter().map(row), colour)
}

fn row(real_server: &RealServer) -> Vec<Cell> {
    vec![
        text(&real_server.service),
        text(real_server.address),
        text(real_server.weight),
        state(real_server.state),
        text(format!("{:.1} %", real_server.share * 100.0)),
        neighbour(real_server.neighbour),
        text(real_server.mac.as_deref().unwrap_or("-")),
        text(real_server.interface.as_deref().unwrap_or("-")),
    ]
}

pub(super) fn state(state: RealServerState) -> Cell {
    match state {
        RealServerState::Active => text("active"),
        RealServerState::Draining => bad("draining"),
    }
}

pub(super) fn neighbour(neighbour: Neighbour) -> Cell {
    match neighbour {
        Neighbour::Ready => good("ready"),
        Neighbour::Unresolved => bad("unresolved"),
        Neighbour::OffLink => bad("off-link"),
    }
}

fn parse_address(text: &str) -> Result<Ipv4Addr, String> {
    text.parse().map_err(|_| "expected IPv4 without a port, such as 10.77.0.14".to_owned())
}
