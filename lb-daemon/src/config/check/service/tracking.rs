//! `tracking` of a virtual service, and what has an effect only with it.

use std::time::Duration;

use toml::Spanned;

use crate::{
    config::{raw::Section, value},
    service::{OnDown, Protocol, Tracking},
};

/// What says how flows are tracked, and says nothing where they are not.
const OPTIONS: [&str; 3] = ["on-down", "drain-timeout", "idle-timeout"];

/// `None` after a fault, of which that of the protocol is one.
pub(super) fn check(
    section: &mut Section<'_>,
    protocol: Option<Protocol>,
) -> Option<Option<Tracking>> {
    let tracks = section.optional("tracking", value::boolean, true);
    let default = Tracking::default_for(protocol.unwrap_or_default());
    let on_down = section.optional("on-down", value::on_down, default.on_down);
    let mut timeout = |key, default: Duration| section.optional(key, value::flow_timeout, default);
    let drain_timeout = timeout("drain-timeout", default.drain_timeout);
    let idle_timeout = timeout("idle-timeout", default.idle_timeout);

    let protocol = protocol?;
    if let Some(on_down) = &on_down {
        check_reset(section, protocol, on_down);
    }
    let written = tracks?.into_inner();
    let tracks = if section.contains("tracking") { written } else { protocol.tracks_by_default() };
    if !tracks {
        check_without_effect(section);
        return Some(None);
    }
    Some(Some(Tracking {
        on_down: on_down?.into_inner(),
        drain_timeout: drain_timeout?.into_inner(),
        idle_timeout: idle_timeout?.into_inner(),
    }))
}

fn check_reset(section: &Section<'_>, protocol: Protocol, on_down: &Spanned<OnDown>) {
    if (protocol, *on_down.get_ref()) == (Protocol::Udp, OnDown::Reset) {
        let problem = "udp has no reset, expected `rehash`";
        section.faults.add(on_down.span(), &section.field("on-down"), problem);
    }
}

fn check_without_effect(section: &Section<'_>) {
    let problem = if section.contains("tracking") {
        "has no effect with `tracking = false`"
    } else {
        "has no effect without `tracking = true`, which a udp service needs"
    };
    for key in OPTIONS.into_iter().filter(|key| section.contains(key)) {
        section.faults.add(section.place(key), &section.field(key), problem);
    }
}
