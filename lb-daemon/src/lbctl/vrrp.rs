//! `lbctl vrrp`.

use clap::Subcommand;
use comfy_table::Cell;

use super::{
    Context, Failure,
    table::{Column, duration, good, grouped, table, text},
};
use crate::control::VirtualRouter;

#[derive(Subcommand)]
pub(super) enum Verb {
    /// Shows the virtual routers: state, why, and what was sent and received
    #[command(after_help = "Examples:\n  lbctl vrrp show\n  lbctl vrrp show -o json")]
    Show,
}

pub(super) async fn run(verb: Verb, context: &Context) -> Result<String, Failure> {
    match verb {
        Verb::Show => {
            let routers = context.client.virtual_routers().await?;
            Ok(context.show(&routers, |routers| show(routers, context.colour)))
        }
    }
}

fn show(routers: &[VirtualRouter], colour: bool) -> String {
    if routers.is_empty() {
        return "no virtual routers in the configuration\n".to_owned();
    }
    [states(routers, colour), settings(routers, colour), counters(routers, colour)].join("\n")
}

/// State, for how long, and why.
pub(super) fn states(routers: &[VirtualRouter], colour: bool) -> String {
    let columns = [
        Column::Left("VIRTUAL ROUTER"),
        Column::Left("STATE"),
        Column::Right("FOR"),
        Column::Left("ACTIVE ROUTER"),
        Column::Left("CAUSE"),
    ];
    let row = |router: &VirtualRouter| {
        vec![
            text(&router.name),
            state(router),
            text(duration(router.since_ms)),
            text(match router.active_router {
                Some(address) => address.to_string(),
                None if router.state == "active" => "this one".to_owned(),
                None => "-".to_owned(),
            }),
            text(&router.cause),
        ]
    };
    table(&columns, routers.iter().map(row), colour)
}

fn state(router: &VirtualRouter) -> Cell {
    if router.state == "active" { good(&router.state) } else { text(&router.state) }
}

fn settings(routers: &[VirtualRouter], colour: bool) -> String {
    let columns = [
        Column::Left("VIRTUAL ROUTER"),
        Column::Left("INTERFACE"),
        Column::Right("VRID"),
        Column::Right("PRIORITY"),
        Column::Right("INTERVAL"),
        Column::Left("VIPS"),
    ];
    let row = |router: &VirtualRouter| {
        vec![
            text(&router.name),
            text(&router.interface),
            text(router.vrid),
            text(router.priority),
            text(format!("{} ms", grouped(router.advertisement_interval_ms))),
            text(router.vips.join(" ")),
        ]
    };
    table(&columns, routers.iter().map(row), colour)
}

fn counters(routers: &[VirtualRouter], colour: bool) -> String {
    let columns = [
        Column::Left("VIRTUAL ROUTER"),
        Column::Right("TRANSITIONS"),
        Column::Right("SENT"),
        Column::Right("RECEIVED"),
        Column::Left("DISCARDED"),
    ];
    let row = |router: &VirtualRouter| {
        let discarded = router.discarded.iter().filter(|(_, count)| **count > 0);
        let discarded: Vec<String> =
            discarded.map(|(reason, count)| format!("{} {reason}", grouped(*count))).collect();
        vec![
            text(&router.name),
            text(grouped(router.transitions)),
            text(grouped(router.advertisements_sent)),
            text(grouped(router.advertisements_received)),
            text(if discarded.is_empty() { "-".to_owned() } else { discarded.join(", ") }),
        ]
    };
    table(&columns, routers.iter().map(row), colour)
}
