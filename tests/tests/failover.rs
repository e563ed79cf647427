//! Two directors, real connections, and the VIP that moves between them. Needs root, and the
//! programs of this workspace: `cargo xtask test` builds them first.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    net::SocketAddrV4,
    time::{Duration, SystemTime},
};

use tests::{
    director::{Binaries, Director, Settings},
    interrupt::wait_for,
    lab::{CLIENT, Lab, PORT, VIP},
    probe::{Probe, Takeover},
    real_server::RealServer,
    scenario::Pair,
    traffic::{Load, LoadReport},
};

const TARGET: SocketAddrV4 = SocketAddrV4::new(VIP, PORT);
const INTERVAL: Duration = Duration::from_millis(100);
const LIMIT: Duration = Duration::from_secs(20);
const CONNECTIONS: usize = 100;

#[test]
fn the_vip_moves_when_the_active_director_loses_power_and_connections_survive() {
    let lab = Lab::new().unwrap();
    let _servers = RealServer::start_all(&lab, PORT).unwrap();
    let mut pair = running_pair(&lab);
    let load = established_load(&lab);
    let probe = Probe::start(&lab.client, VIP).unwrap();

    let mark = load.mark();
    let event = SystemTime::now();
    let cut = pair.lb1.arm_power_cut().unwrap();
    pair.lb1.lose_power(cut).unwrap();

    pair.lb2.wait_ready("active", LIMIT).unwrap();
    wait_until_all_move(&load, &mark);
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
    let before = network_of(&lab);
    let mut pair = running_pair(&lab);
    let load = established_load(&lab);

    let mark = load.mark();
    pair.lb1.terminate().unwrap();

    let exit = pair.lb1.wait_exit(LIMIT).unwrap();
    assert!(exit.success(), "{exit}\n{}", pair.lb1.diagnosis());
    pair.lb2.wait_ready("active", LIMIT).unwrap();
    wait_until_all_move(&load, &mark);
    assert_everything_arrived(&load.finish().unwrap());
    assert_eq!(network_of(&lab), before);
}

#[test]
fn the_datapath_of_a_killed_daemon_forwards_on_and_the_next_one_adopts_it() {
    let lab = Lab::new().unwrap();
    let _servers = RealServer::start_all(&lab, PORT).unwrap();
    let mut lb1 = director(&lab, 0, 150);
    lb1.start().unwrap();
    lb1.wait_ready("active", LIMIT).unwrap();
    let load = established_load(&lab);

    let mark = load.mark();
    lb1.kill().unwrap();
    lb1.wait_exit(LIMIT).unwrap();
    wait_until_all_move(&load, &mark);

    let mark = load.mark();
    lb1.start().unwrap();
    lb1.wait_ready("active", LIMIT).unwrap();
    wait_until_all_move(&load, &mark);
    assert_everything_arrived(&load.finish().unwrap());
}

fn director(lab: &Lab, index: usize, priority: u8) -> Director<'_> {
    let settings = Settings { priority, advertisement_interval: INTERVAL };
    Director::new(lab, &lab.directors[index], &Binaries::of_tests().unwrap(), settings).unwrap()
}

fn running_pair(lab: &Lab) -> Pair<'_> {
    let mut pair = Pair { lb1: director(lab, 0, 150), lb2: director(lab, 1, 100) };
    pair.lb1.start().unwrap();
    pair.lb2.start().unwrap();
    let first = pair.lb1.wait_ready("active", LIMIT).unwrap();
    let second = pair.lb2.wait_ready("backup", LIMIT).unwrap();
    let digest = |status: &lb_daemon::control::Status| {
        status.virtual_services.first().unwrap().table_digest.clone()
    };
    assert_eq!(digest(&first), digest(&second), "both directors have to choose alike");
    pair
}

fn established_load(lab: &Lab) -> Load {
    let load = Load::start(&lab.client, TARGET, CONNECTIONS).unwrap();
    load.wait_established(LIMIT).unwrap();
    load
}

fn wait_until_all_move(load: &Load, mark: &tests::traffic::Mark) {
    wait_for("all connections to move", LIMIT, || {
        let moving = load.moving_since(mark);
        Ok(if moving == CONNECTIONS { Ok(()) } else { Err(format!("{moving} do")) })
    })
    .unwrap();
}

fn assert_everything_arrived(report: &LoadReport) {
    assert_eq!(report.connections.opened, CONNECTIONS as u64, "{report:?}");
    assert_eq!(report.connections.survived, CONNECTIONS as u64, "{report:?}");
    assert_eq!(report.new_connections.succeeded, report.new_connections.attempted, "{report:?}");
    assert_eq!(report.clients_seen, [CLIENT].into(), "DSR keeps the client's address: {report:?}");
    assert_eq!(report.by_real_server.len(), 3, "{report:?}");
}

/// Addresses and XDP programs of the first director.
fn network_of(lab: &Lab) -> String {
    let mut ip = std::process::Command::new("ip");
    let output = lab.directors[0].netns.run(ip.args(["-o", "addr"])).unwrap();
    let mut link = std::process::Command::new("ip");
    let link = lab.directors[0].netns.run(link.args(["-br", "link", "show", "type", "veth"]));
    [output.stdout, link.unwrap().stdout].map(|text| String::from_utf8(text).unwrap()).concat()
}
