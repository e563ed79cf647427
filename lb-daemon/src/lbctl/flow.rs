//! `lbctl flow`.

use std::net::SocketAddrV4;

use clap::{Args, Subcommand};
use comfy_table::Cell;

use super::{
    Context, Failure,
    table::{bad, fields, good, grouped, text, warning},
};
use crate::{
    control::{Explanation, FlowQuery, Hop, Neighbour, PacketKind},
    service::Protocol,
};

#[derive(Subcommand)]
pub(super) enum Verb {
    /// Says where a packet of a flow goes, and why, by running the loaded program on one
    #[command(after_help = "\
Examples:
  lbctl flow explain --src 10.77.0.1:40000 --dst 10.77.0.100:80 --proto tcp
  lbctl flow explain --src 10.77.0.1:40000 --dst 10.77.0.100:80 --opening
  lbctl flow explain --src 10.77.0.1:40000 --dst 10.77.0.100:53 --proto udp -o json

Nothing is sent and nothing is remembered.")]
    Explain(Explain),
}

#[derive(Args)]
pub(super) struct Explain {
    /// The client's address and port
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = parse_address)]
    src: SocketAddrV4,
    /// The VIP and port
    #[arg(long, value_name = "VIP:PORT", value_parser = parse_address)]
    dst: SocketAddrV4,
    /// tcp or udp
    #[arg(long = "proto", alias = "protocol", default_value_t)]
    protocol: Protocol,
    /// The packet that opens the flow, a TCP SYN; else any other
    #[arg(long)]
    opening: bool,
    /// By which it comes in [default: the first of the director]
    #[arg(long, value_name = "NAME")]
    interface: Option<String>,
}

pub(super) async fn run(verb: Verb, context: &Context) -> Result<String, Failure> {
    match verb {
        Verb::Explain(Explain { src, dst, protocol, opening, interface }) => {
            let packet = if opening { PacketKind::Opening } else { PacketKind::Other };
            let query = FlowQuery { src, dst, protocol, packet, interface };
            if let Err(refusal) = query.check() {
                super::usage(&refusal.message);
            }
            let explanation = context.client.explain(&query).await?;
            Ok(context.show(&explanation, |explanation| show(explanation, context.colour)))
        }
    }
}

/// The packet's way, from top to bottom.
fn show(explanation: &Explanation, colour: bool) -> String {
    let mut rows = vec![("flow", text(flow(explanation)))];
    match &explanation.service {
        None => rows.push(("service", text("none"))),
        Some(name) => {
            let active =
                if explanation.active { "active on this director" } else { "not active here" };
            let hash = explanation.hash.map_or(String::new(), |hash| format!(", hash {hash}"));
            rows.push(("service", text(format!("{name}, {active}{hash}"))));
        }
    }
    rows.extend(owners(explanation));
    if let Some(real_server) = explanation.real_server {
        rows.push(("real server", text(real_server)));
    }
    rows.push(("why", text(&explanation.why)));
    if let Some(mode) = explanation.mode.filter(|_| explanation.real_server.is_some()) {
        let mtu = explanation.mtu.map_or(String::new(), |mtu| format!(", MTU {mtu}"));
        rows.push(("mode", text(format!("{mode}{mtu}"))));
    }
    rows.extend(explanation.neighbour.as_ref().map(|hop| ("neighbour", neighbour(hop))));
    rows.push(("verdict", verdict(explanation)));
    let warnings = explanation.warnings.iter().map(|text| warning(text, colour));
    warnings.chain([fields(rows, colour)]).collect()
}

fn flow(explanation: &Explanation) -> String {
    let Explanation { src, dst, protocol, interface, .. } = explanation;
    let packet = match (protocol, explanation.packet) {
        (Protocol::Tcp, PacketKind::Opening) => "a SYN",
        (Protocol::Tcp, PacketKind::Other) => "no SYN",
        (Protocol::Udp, PacketKind::Opening | PacketKind::Other) => "a packet",
    };
    format!("{src} to {dst}/{protocol}, {packet}, in by {interface}")
}

/// Slot, current and previous owner, as far as there are.
fn owners(explanation: &Explanation) -> Vec<(&'static str, Cell)> {
    let mut rows = Vec::new();
    if let Some(slot) = explanation.slot {
        rows.push(("slot", text(grouped(slot.into()))));
    }
    if let Some(current) = explanation.current {
        rows.push(("current", text(current)));
    }
    if let Some(previous) = explanation.previous {
        let down = if previous.down { " (gone)" } else { "" };
        rows.push(("previous", text(format!("{}{down}", previous.address))));
    }
    rows
}

fn neighbour(hop: &Hop) -> Cell {
    let place = match (&hop.mac, &hop.interface) {
        (Some(mac), Some(interface)) => format!("{mac} on {interface}, "),
        (Some(_), None) | (None, Some(_)) | (None, None) => String::new(),
    };
    match hop.state {
        Neighbour::Ready => good(format!("{place}ready")),
        Neighbour::Unresolved => bad(format!("{place}unresolved")),
        Neighbour::OffLink => bad(format!("{place}off-link")),
    }
}

fn verdict(explanation: &Explanation) -> Cell {
    let verdict = &explanation.verdict;
    match explanation.action.as_str() {
        "transmit" => good(format!("{verdict}: transmitted")),
        "pass" => text(format!("{verdict}: passed to the kernel")),
        "drop" => bad(format!("{verdict}: dropped")),
        other => text(format!("{verdict}: {other}")),
    }
}

fn parse_address(text: &str) -> Result<SocketAddrV4, String> {
    text.parse().map_err(|_| "expected IPv4:PORT such as 10.77.0.100:80".to_owned())
}
