//! A change of the pool is in progress for as long as flows of before may live, and no longer.
//! Needs root, and the programs of this workspace: `cargo xtask test` builds them first.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    net::Ipv4Addr,
    time::{Duration, SystemTime},
};

use lb_daemon::control::Change;
use tests::{
    director::{Director, Edit, READY_LIMIT},
    interrupt::{observe, wait_for},
    lab::{Lab, POOL, PORT},
    promise::{Deletion, violations},
    real_server::RealServer,
    traffic::Load,
};

const RS2: Ipv4Addr = POOL[1];
const DRAIN: Edit = Edit::SetWeight { real_server: RS2, weight: 0 };

#[test]
fn a_change_lasts_while_connections_of_before_speak_and_ends_when_they_are_silent_for_long() {
    let lab = Lab::new().unwrap();
    let _servers = RealServer::start_all(&lab, PORT).unwrap();
    let director = Director::start_alone_with(&lab, "idle-timeout = \"2s\"\n").unwrap();
    let load = Load::established(&lab, 100).unwrap();
    assert_eq!(change(&director), None, "the steady state");

    director.edit(DRAIN).unwrap();
    let begun = change(&director).unwrap();
    assert!(begun.slots > 65_537 / 4, "those of rs2: {begun:?}");
    observe(Duration::from_secs(8)).unwrap();
    let now = change(&director).unwrap();
    // It goes on in the slots of these alone.
    let most = u32::try_from(load.carried_by("rs2")).unwrap();
    assert!((1..=most).contains(&now.slots), "{now:?}, {most} connections");
    load.finish().unwrap().ensure_unbroken().unwrap();
    wait_steady(&director);
}

#[test]
fn a_change_ends_at_its_deadline_and_connections_of_before_are_given_up() {
    let lab = Lab::new().unwrap();
    let _servers = RealServer::start_all(&lab, PORT).unwrap();
    let director = Director::start_alone_with(&lab, "drain-timeout = \"4s\"\n").unwrap();
    let load = Load::established(&lab, 100).unwrap();
    let had = load.carried_by("rs2");

    let begun = SystemTime::now();
    director.edit(DRAIN).unwrap();
    assert!(change(&director).unwrap().ends_in_ms <= 4_000);
    wait_steady(&director);
    observe(Duration::from_secs(1)).unwrap();

    let report = load.finish().unwrap();
    let broken = report.long_lived.iter().filter(|life| life.failure.is_some()).count();
    assert_eq!(broken, had, "{:?}", report.connections);
    let given_up = Deletion {
        real_server: "rs2".to_owned(),
        // The datapath counts in whole seconds.
        begun: begun + Duration::from_secs(3),
        done: SystemTime::now(),
    };
    let violations = violations(&report.long_lived, &[given_up], Duration::ZERO, begun);
    assert!(violations.is_empty(), "{violations:#?}");
    assert_eq!(report.new_connections.succeeded, report.new_connections.attempted);
}

fn change(director: &Director<'_>) -> Option<Change> {
    director.status().unwrap().virtual_services.first().unwrap().change
}

fn wait_steady(director: &Director<'_>) {
    wait_for("the change to end", READY_LIMIT, || {
        let status = director.status()?;
        let change = status.virtual_services.first().and_then(|service| service.change);
        let seen = (change, status.exceptions.noted);
        Ok(if seen == (None, 0) { Ok(()) } else { Err(format!("{seen:?}")) })
    })
    .unwrap();
}
