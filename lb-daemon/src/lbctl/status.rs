//! `lbctl status`.

use super::{
    Context, Failure, service, stats,
    table::{Column, bad, binary, duration, good, grouped, table, text, warning},
    vrrp,
};
use crate::control::{Interface, Memory, Status};

pub(super) const EXAMPLES: &str = "\
Examples:
  lbctl status
  lbctl status -o json
  watch -n1 lbctl status";

pub(super) async fn run(context: &Context) -> Result<String, Failure> {
    let status = context.client.status().await?;
    Ok(context.show(&status, |status| show(status, context.colour)))
}

/// Warnings first, then a section for each thing that there is.
fn show(status: &Status, colour: bool) -> String {
    let mut sections = Vec::new();
    let warnings = warnings(status, colour);
    if !warnings.is_empty() {
        sections.push(warnings);
    }
    sections.push(director(status));
    if !status.interfaces.is_empty() {
        sections.push(interfaces(&status.interfaces, colour));
    }
    if !status.virtual_services.is_empty() {
        sections.push(service::list(&status.virtual_services, colour));
    }
    if !status.virtual_routers.is_empty() {
        sections.push(vrrp::states(&status.virtual_routers, colour));
    }
    if status.verdicts.values().any(|packets| *packets > 0) {
        sections.push(verdicts(status, colour));
    }
    sections.join("\n")
}

/// Itself, and what its datapath takes and remembers, where it has one.
fn director(status: &Status) -> String {
    let mut lines = format!(
        "director {}: lbd {}, pid {}, up {}\nconfig {}{}\n",
        status.director,
        status.version,
        status.pid,
        duration(status.uptime_ms),
        status.config.file.display(),
        if status.config.refused.is_some() { " (as it was before the refused reload)" } else { "" },
    );
    let Memory { tables, services, flows, counters, total } = status.memory;
    if total > 0 {
        lines += &format!(
            "maps {}: tables {}, services {}, flow table {}, counters {}\n",
            binary(total),
            binary(tables),
            binary(services),
            binary(flows),
            binary(counters)
        );
    }
    if status.exceptions.capacity > 0 {
        lines += &stats::exceptions(status.exceptions);
    }
    let changing = status.virtual_services.iter().filter(|service| service.change.is_some());
    let changing: Vec<_> = changing.map(|service| service.name.as_str()).collect();
    if !changing.is_empty() {
        lines += &format!("changes in progress {}\n", shortened(&changing));
    }
    lines
}

/// The first names, and how many there are beside them.
fn shortened(names: &[&str]) -> String {
    const SHOWN: usize = 5;
    let shown = names[..names.len().min(SHOWN)].join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

fn warnings(status: &Status, colour: bool) -> String {
    let refused = status.config.refused.iter().map(|why| {
        // A line a fault, below each other.
        format!(
            "the last reload was refused, what ran before runs on:\n  {}",
            why.replace('\n', "\n  ")
        )
    });
    refused.chain(status.warnings.iter().cloned()).map(|text| warning(&text, colour)).collect()
}

fn interfaces(interfaces: &[Interface], colour: bool) -> String {
    let columns = [Column::Left("INTERFACE"), Column::Left("XDP"), Column::Left("REASON")];
    let row = |interface: &Interface| {
        let native = interface.xdp_mode == "native";
        vec![
            text(&interface.name),
            if native { good(&interface.xdp_mode) } else { bad(&interface.xdp_mode) },
            text(interface.reason.as_deref().unwrap_or("-")),
        ]
    };
    table(&columns, interfaces.iter().map(row), colour)
}

/// Those that occurred, the most frequent first.
fn verdicts(status: &Status, colour: bool) -> String {
    let mut verdicts: Vec<_> =
        status.verdicts.iter().filter(|(_, packets)| **packets > 0).collect();
    verdicts.sort_by_key(|(name, packets)| (std::cmp::Reverse(**packets), *name));
    let row = |(name, packets): (&String, &u64)| vec![text(name), text(grouped(*packets))];
    table(
        &[Column::Left("VERDICT"), Column::Right("PACKETS")],
        verdicts.into_iter().map(row),
        colour,
    )
}
