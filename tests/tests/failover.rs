//! Two directors, real connections, and the VIP that moves between them. Needs root, and the
//! programs of this workspace: `cargo xtask test` builds them first.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    io::Write,
    os::unix::net::UnixStream,
    time::{Duration, SystemTime},
};

use tests::{
    director::{Binaries, Footprint, READY_LIMIT},
    lab::{CLIENT, Lab, PORT, VIP},
    probe::{Probe, Takeover},
    real_server::RealServer,
    scenario::Pair,
    traffic::{Load, LoadReport},
};

const INTERVAL: Duration = Duration::from_millis(100);
const CONNECTIONS: usize = 100;

#[test]
fn the_vip_moves_when_the_active_director_loses_power_and_connections_survive() {
    let lab = Lab::new().unwrap();
    let _servers = RealServer::start_all(&lab, PORT).unwrap();
    let mut pair = running_pair(&lab);
    let load = Load::established(&lab, CONNECTIONS).unwrap();
    let probe = Probe::start(&lab.client, VIP).unwrap();

    let mark = load.mark();
    let event = SystemTime::now();
    let cut = pair.lb1.arm_power_cut().unwrap();
    pair.lb1.lose_power(cut).unwrap();

    pair.lb2.wait_ready("active", READY_LIMIT).unwrap();
    load.wait_all_moving(&mark).unwrap();
    assert_everything_arrived(&load.finish().unwrap());
    let (sightings, _) = probe.finish(0).unwrap();
    let [lb1, lb2] = &lab.directors;
    let takeover = Takeover::find(&sightings, event, lb1.mac(), lb2.mac()).unwrap();
    assert!(takeover.first_garp.is_some(), "{takeover:?}");
}

#[test]
fn a_director_that_resigns_leaves_its_machine_as_it_was_and_breaks_nothing() {
    let lab = Lab::new().unwrap();
    let _servers = RealServer::start_all(&lab, PORT).unwrap();
    let mut pair = Pair::new(&lab, &Binaries::of_tests().unwrap(), INTERVAL).unwrap();
    let before = pair.lb1.footprint().unwrap();
    pair.start().unwrap();
    assert_changed_everything(&before, &pair.lb1.footprint().unwrap());
    let load = Load::established(&lab, CONNECTIONS).unwrap();

    let mark = load.mark();
    pair.lb1.terminate().unwrap();

    let exit = pair.lb1.wait_exit(READY_LIMIT).unwrap();
    assert!(exit.success(), "{exit}\n{}", pair.lb1.diagnosis());
    pair.lb2.wait_ready("active", READY_LIMIT).unwrap();
    load.wait_all_moving(&mark).unwrap();
    assert_everything_arrived(&load.finish().unwrap());
    assert_eq!(pair.lb1.footprint().unwrap(), before);
}

#[test]
fn a_request_that_never_ends_does_not_keep_a_director_from_resigning() {
    let lab = Lab::new().unwrap();
    let _servers = RealServer::start_all(&lab, PORT).unwrap();
    let mut pair = Pair::new(&lab, &Binaries::of_tests().unwrap(), INTERVAL).unwrap();
    let before = pair.lb1.footprint().unwrap();
    pair.start().unwrap();
    let mut client = UnixStream::connect(pair.lb1.socket()).unwrap();
    client.write_all(b"GET /v1/status HTTP/1.1\r\nHost: x\r\n").unwrap();
    // Another connection, accepted after this one.
    pair.lb1.status().unwrap();

    pair.lb1.terminate().unwrap();

    let exit = pair.lb1.wait_exit(READY_LIMIT).unwrap();
    assert!(exit.success(), "{exit}\n{}", pair.lb1.diagnosis());
    assert_eq!(pair.lb1.footprint().unwrap(), before);
    pair.lb2.wait_ready("active", READY_LIMIT).unwrap();
    drop(client);
}

fn running_pair(lab: &Lab) -> Pair<'_> {
    let mut pair = Pair::new(lab, &Binaries::of_tests().unwrap(), INTERVAL).unwrap();
    pair.start().unwrap();
    pair
}

fn assert_everything_arrived(report: &LoadReport) {
    report.ensure_unbroken().unwrap();
    assert_eq!(report.connections.opened, CONNECTIONS as u64, "{report:?}");
    assert_eq!(report.clients_seen, [CLIENT].into(), "DSR keeps the client's address: {report:?}");
    assert_eq!(report.by_real_server.len(), 3, "{report:?}");
}

/// What is compared at the end was there to be put back.
fn assert_changed_everything(before: &Footprint, running: &Footprint) {
    assert!(before.programs.is_empty() && running.programs.len() == 1, "{running:?}");
    assert!(before.mounts.is_empty() && running.mounts.len() == 1, "{running:?}");
    assert!(before.managed_neighbours.is_empty(), "{before:?}");
    assert_eq!(running.managed_neighbours.len(), 3, "{running:?}");
    assert!(!before.has_socket && running.has_socket, "{running:?}");
    assert_ne!(before.addresses, running.addresses);
}
