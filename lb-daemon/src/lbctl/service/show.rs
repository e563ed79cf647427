//! `lbctl service show`.

use comfy_table::Cell;

use super::{
    super::{
        real,
        stats::traffic,
        table::{Column, digest, duration, fields, grouped, percent, table, text},
    },
    forwards,
};
use crate::{
    control::{Change, RealServerDetail, Service, ServiceDetail},
    service::Hash,
};

/// What it is, its table, the change in progress, and its real servers.
pub(super) fn show(detail: &ServiceDetail, colour: bool) -> String {
    let service = &detail.service;
    let is = format!(
        "{}, {}/{}, {}",
        service.name, service.address, service.protocol, service.forwarding
    );
    let mut rows = vec![
        ("service", text(is)),
        ("forwards", forwards(service)),
        ("hash", text(hash(service.hash))),
        ("tracking", text(tracking(service))),
        ("table", text(slots(service))),
        ("deviation", text(deviation(service))),
    ];
    if let Some(moved) = service.slots_moved {
        let share = f64::from(moved) / f64::from(service.table_size.max(1));
        let moved = grouped(moved.into());
        rows.push((
            "moved",
            text(format!("{moved} slots ({}) by the last change", percent(share))),
        ));
    }
    rows.push(("change", text(service.change.map_or("none in progress".to_owned(), change))));
    rows.push(("traffic", text(traffic(&detail.counters))));
    let mut sections = vec![fields(rows, colour)];
    if !detail.real_servers.is_empty() {
        sections.push(real_servers(&detail.real_servers, colour));
    }
    sections.join("\n")
}

fn hash(hash: Hash) -> String {
    match hash {
        Hash::Flow => "flow: addresses, ports and protocol".to_owned(),
        Hash::Source { prefix_len } => {
            format!("{hash}: all flows of a client /{prefix_len} go to one real server")
        }
    }
}

fn tracking(service: &Service) -> String {
    match service.tracking {
        None => "off: when real servers change, flows follow the table at once".to_owned(),
        Some(tracking) => format!(
            "on-down {}, drain-timeout {}, idle-timeout {}",
            tracking.on_down,
            duration(tracking.drain_timeout_ms),
            duration(tracking.idle_timeout_ms)
        ),
    }
}

fn slots(service: &Service) -> String {
    let shared = match service.table_shared_with {
        0 => String::new(),
        1 => ", shared with 1 other service".to_owned(),
        others => format!(", shared with {} other services", grouped(others as u64)),
    };
    let slots = grouped(service.table_size.into());
    format!("{slots} slots, digest {}{shared}", digest(&service.table_digest))
}

fn deviation(service: &Service) -> String {
    format!("{} (the largest of a share from the exact one)", percent(service.largest_deviation))
}

fn change(change: Change) -> String {
    let Change { slots, exceptions, since_ms, ends_in_ms } = change;
    format!(
        "{} slots had another owner, {} newer flows noted; since {}, for {} at most",
        grouped(slots.into()),
        grouped(exceptions),
        duration(since_ms),
        duration(ends_in_ms)
    )
}

fn real_servers(real_servers: &[RealServerDetail], colour: bool) -> String {
    let columns = [
        Column::Left("REAL SERVER"),
        Column::Right("WEIGHT"),
        Column::Left("STATE"),
        Column::Right("SHARE"),
        Column::Right("EXACT"),
        Column::Right("KEPT"),
        Column::Right("NOTED"),
        Column::Left("NEIGHBOUR"),
        Column::Right("PACKETS"),
    ];
    let mut printed = table(&columns, real_servers.iter().map(row), colour);
    if real_servers.iter().any(|real_server| real_server.services > 1) {
        printed += "PACKETS of a real server are those of all its services.\n";
    }
    printed
}

fn row(detail: &RealServerDetail) -> Vec<Cell> {
    let real_server = &detail.real_server;
    vec![
        text(real_server.address),
        text(real_server.weight),
        real::state(real_server.state),
        text(percent(real_server.share)),
        text(percent(real_server.exact_share)),
        text(grouped(real_server.slots_previous.into())),
        text(grouped(real_server.exceptions)),
        real::neighbour(real_server.neighbour),
        text(grouped(detail.counters.packets)),
    ]
}
