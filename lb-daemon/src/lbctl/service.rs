//! `lbctl service`.

use clap::{Args, Subcommand};
use comfy_table::Cell;

use super::{
    Context, Failure,
    table::{Column, bad, digest, good, table, text},
};
use crate::{
    config::edit::Edit,
    control::{Forwards, NewService, Service},
    service::{AddressError, Forwarding, Hash, Protocol, ServiceAddress},
};

mod show;

#[derive(Subcommand)]
pub(super) enum Verb {
    /// Lists the virtual services
    #[command(after_help = "Examples:\n  lbctl service list\n  lbctl service list -o json")]
    List,
    /// Shows one virtual service: its options, its table, the change in progress, its real servers
    #[command(after_help = "Examples:\n  lbctl service show web\n  lbctl service show web -o json")]
    Show {
        /// As `lbctl service list` shows it
        name: String,
    },
    /// Adds a virtual service without real servers, and writes it to the configuration file
    #[command(after_help = "\
Examples:
  lbctl service add web --address 10.77.0.100:80
  lbctl service add dns --address 10.77.0.100:53 --protocol udp
  lbctl service add ftp --address 10.77.0.100:5000-5999 --hash source --source-prefix 24
  lbctl service add all --address 10.77.0.100:any

Of services that have the same port, the one with the fewest takes its packets.
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
    /// VIP and a port, a range of ports such as 5000-5999, or any
    #[arg(long, value_name = "VIP:PORTS", value_parser = parse_address)]
    address: ServiceAddress,
    /// tcp or udp
    #[arg(long, default_value_t)]
    protocol: Protocol,
    /// How packets reach the real servers: dr
    #[arg(long, default_value_t)]
    forwarding: Forwarding,
    /// What a flow is hashed by: flow, or source, for all flows of a client to go to one real
    /// server [default: flow]
    #[arg(long, value_parser = parse_hash)]
    hash: Option<Hash>,
    /// How much of the source address is hashed [default: 32]
    #[arg(
        long,
        value_name = "LENGTH",
        requires = "hash",
        value_parser = clap::value_parser!(u8).range(1..=32)
    )]
    source_prefix: Option<u8>,
    /// Slots of the Maglev table, a prime [default: 65537]
    #[arg(long, value_name = "SLOTS")]
    table_size: Option<u32>,
}

pub(super) async fn run(verb: Verb, context: &Context) -> Result<String, Failure> {
    match verb {
        Verb::List => {
            let services = context.client.services().await?;
            Ok(context.show(&services, |services| list(services, context.colour)))
        }
        Verb::Show { name } => {
            let service = context.client.service(&name).await?;
            Ok(context.show(&service, |service| show::show(service, context.colour)))
        }
        Verb::Add(add) => {
            let Add { name, address, protocol, forwarding, table_size, .. } = &add;
            let done = format!("added {name} ({address}/{protocol}, {forwarding})\n");
            let edit = Edit::AddService(NewService {
                name: name.clone(),
                address: *address,
                protocol: *protocol,
                forwarding: *forwarding,
                hash: add.hash(),
                table_size: *table_size,
            });
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

impl Add {
    fn hash(&self) -> Option<Hash> {
        match (self.hash, self.source_prefix) {
            (Some(Hash::Source { .. }), Some(prefix_len)) => Some(Hash::Source { prefix_len }),
            (Some(Hash::Flow), Some(_)) => super::usage("--source-prefix needs --hash source"),
            (hash, None) | (hash @ None, Some(_)) => hash,
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
    let ready = format!("{}/{}", service.real_servers_ready, service.real_servers);
    let all_ready = service.real_servers_ready == service.real_servers;
    vec![
        text(&service.name),
        text(format!("{}/{}", service.address, service.protocol)),
        text(service.forwarding),
        forwards(service),
        if all_ready { text(ready) } else { bad(ready) },
        text(service.table_size),
        text(digest(&service.table_digest)),
    ]
}

fn forwards(service: &Service) -> Cell {
    match service.forwards {
        Forwards::Yes => good("yes"),
        Forwards::NotActive => text("no: not active"),
        Forwards::NoRealServer => bad("no: no real server"),
    }
}

fn parse_address(text: &str) -> Result<ServiceAddress, AddressError> {
    text.parse()
}

fn parse_hash(text: &str) -> Result<Hash, String> {
    match text {
        // The length of the prefix is an option of its own.
        "flow" | "source" => text.parse().map_err(|error| format!("{error}")),
        other => Err(format!("`{other}` is not supported, expected `flow` or `source`")),
    }
}
