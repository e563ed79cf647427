//! `lbctl service`.

use std::net::SocketAddrV4;

use clap::{Args, Subcommand};
use comfy_table::Cell;

use super::{
    Context, Failure,
    table::{Column, bad, digest, good, table, text},
};
use crate::{
    config::edit::Edit,
    control::{Forwards, Service},
    service::{Forwarding, Protocol},
};

#[derive(Subcommand)]
pub(super) enum Verb {
    /// Lists the virtual services
    #[command(after_help = "Examples:\n  lbctl service list\n  lbctl service list -o json")]
    List,
    /// Adds a virtual service without real servers, and writes it to the configuration file
    #[command(after_help = "\
Examples:
  lbctl service add web --address 10.77.0.100:80
  lbctl service add dns --address 10.77.0.100:53 --protocol udp

Then give it real servers: lbctl real add web 10.77.0.11")]
    Add(Add),
    /// Deletes a virtual service and its real servers, also from the configuration file
    #[command(after_help = "Examples:\n  lbctl service delete web")]
    Delete {
        /// As `lbctl service list` shows it
        name: String,
    },
}

#[derive(Args)]
pub(super) struct Add {
    /// Letters, digits, `.`, `_` and `-`
    name: String,
    /// VIP and port
    #[arg(long, value_name = "VIP:PORT", value_parser = parse_address)]
    address: SocketAddrV4,
    /// tcp or udp
    #[arg(long, default_value_t)]
    protocol: Protocol,
    /// How packets reach the real servers: dr
    #[arg(long, default_value_t)]
    forwarding: Forwarding,
}

pub(super) async fn run(verb: Verb, context: &Context) -> Result<String, Failure> {
    match verb {
        Verb::List => {
            let services = context.client.services().await?;
            Ok(context.show(&services, |services| list(services, context.colour)))
        }
        Verb::Add(Add { name, address, protocol, forwarding }) => {
            let done = format!("added {name} ({address}/{protocol}, {forwarding})\n");
            let edit = Edit::AddService { name, address, protocol, forwarding };
            context.client.edit(&edit).await?;
            Ok(context.show(&edit, |_| done))
        }
        Verb::Delete { name } => {
            let done = format!("deleted {name} and its real servers\n");
            let edit = Edit::DeleteService { name };
            context.client.edit(&edit).await?;
            Ok(context.show(&edit, |_| done))
        }
    }
}

pub(super) fn list(services: &[Service], colour: bool) -> String {
    if services.is_empty() {
        return "no virtual services: add one with `lbctl service add`\n".to_owned();
    }
    let columns = [
        Column::Left("SERVICE"),
        Column::Left("ADDRESS"),
        Column::Left("MODE"),
        Column::Left("FORWARDS"),
        Column::Right("READY"),
        Column::Right("SLOTS"),
        Column::Left("TABLE"),
    ];
    table(&columns, services.iter().map(row), colour)
}

fn row(service: &Service) -> Vec<Cell> {
    let forwards = match service.forwards {
        Forwards::Yes => good("yes"),
        Forwards::NotActive => text("no: not active"),
        Forwards::NoRealServer => bad("no: no real server"),
    };
    let ready = format!("{}/{}", service.real_servers_ready, service.real_servers);
    let all_ready = service.real_servers_ready == service.real_servers;
    vec![
        text(&service.name),
        text(format!("{}/{}", service.address, service.protocol)),
        text(service.forwarding),
        forwards,
        if all_ready { text(ready) } else { bad(ready) },
        text(service.table_size),
        text(digest(&service.table_digest)),
    ]
}

fn parse_address(text: &str) -> Result<SocketAddrV4, String> {
    text.parse().map_err(|_| "expected IPv4:PORT such as 10.77.0.100:80".to_owned())
}
