//! lbd is killed outright, and the next one finds what it left. Needs root, and the programs of
//! this workspace: `cargo xtask test` builds them first.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;

use tests::{
    director::{Attachment, Director, READY_LIMIT},
    interrupt::wait_for,
    lab::{Lab, PORT},
    real_server::RealServer,
    traffic::Load,
};

const CONNECTIONS: usize = 100;

#[test]
fn the_datapath_of_a_killed_daemon_forwards_on_and_the_next_one_adopts_it() {
    let lab = Lab::new().unwrap();
    let _servers = RealServer::start_all(&lab, PORT).unwrap();
    let mut director = Director::start_alone(&lab).unwrap();
    let load = Load::established(&lab, CONNECTIONS).unwrap();
    let former = director.attachment().unwrap();
    let verdicts = director.status().unwrap().verdicts;

    kill(&mut director);
    load.wait_all_moving(&load.mark()).unwrap();
    assert_eq!(director.attachment().unwrap(), former, "it stays as it was");

    director.start().unwrap();
    let status = director.wait_ready("active", READY_LIMIT).unwrap();
    load.wait_all_moving(&load.mark()).unwrap();
    assert_adopted(&director, former);
    assert!(status.verdicts["forwarded"] > verdicts["forwarded"], "the same maps: {status:?}");
    assert_eq!(status.verdicts["not-active"], verdicts["not-active"], "without a gap");
    load.finish().unwrap().ensure_unbroken().unwrap();
}

#[test]
fn maps_of_another_size_are_adopted_as_they_are() {
    let lab = Lab::new().unwrap();
    let _servers = RealServer::start_all(&lab, PORT).unwrap();
    let mut director = Director::start_alone(&lab).unwrap();
    let load = Load::established(&lab, CONNECTIONS).unwrap();
    let former = director.attachment().unwrap();
    let capacity = director.status().unwrap().exceptions.capacity;
    kill(&mut director);

    // More services than the maps were made twice for, and a larger flow table.
    let mut text = fs::read_to_string(director.config_file()).unwrap();
    text = text.replacen("[director]\n", "[director]\nflow-table-size = 262144\n", 1);
    for port in 20_000..20_700 {
        text += &format!(
            "\n[[virtual-service]]\nname = \"s{port}\"\naddress = \"10.77.0.100:{port}\"\n\
             table-size = 1021\n"
        );
    }
    fs::write(director.config_file(), text).unwrap();
    director.start().unwrap();
    director.wait_state("active", READY_LIMIT).unwrap();
    assert_adopted(&director, former);
    let status = director.status().unwrap();
    assert_eq!(status.virtual_services.len(), 701);
    assert_eq!(status.exceptions.capacity, capacity, "a map keeps its size while it is used");
    load.wait_all_moving(&load.mark()).unwrap();
    load.finish().unwrap().ensure_unbroken().unwrap();
}

#[test]
fn a_start_that_fails_leaves_the_datapath_of_a_killed_daemon_to_the_next_one() {
    let lab = Lab::new().unwrap();
    let _servers = RealServer::start_all(&lab, PORT).unwrap();
    let mut director = Director::start_alone(&lab).unwrap();
    let load = Load::established(&lab, CONNECTIONS).unwrap();
    let former = director.attachment().unwrap();
    let good = fs::read_to_string(director.config_file()).unwrap();
    kill(&mut director);

    let router = "\n[[virtual-router]]\nname = \"nowhere\"\ninterface = \"eth9\"\nvrid = 52\n\
        vips = [\"10.77.9.100/24\"]\n";
    fs::write(director.config_file(), format!("{good}{router}")).unwrap();
    director.start().unwrap();
    let exit = director.wait_exit(READY_LIMIT).unwrap();
    assert_eq!(exit.code(), Some(1), "{}", director.diagnosis());
    assert!(director.diagnosis().contains("eth9"), "{}", director.diagnosis());
    assert_eq!(director.attachment().unwrap().link, former.link);
    load.wait_all_moving(&load.mark()).unwrap();

    fs::write(director.config_file(), good).unwrap();
    director.start().unwrap();
    director.wait_ready("active", READY_LIMIT).unwrap();
    load.wait_all_moving(&load.mark()).unwrap();
    assert_adopted(&director, former);
    load.finish().unwrap().ensure_unbroken().unwrap();
}

#[test]
fn a_daemon_without_services_removes_the_datapath_of_a_killed_one() {
    let lab = Lab::new().unwrap();
    let _servers = RealServer::start_all(&lab, PORT).unwrap();
    let mut director = Director::start_alone(&lab).unwrap();
    kill(&mut director);
    let left = director.footprint().unwrap();
    assert_eq!((left.programs.len(), left.mounts.len()), (1, 1), "{left:?}");

    let text = fs::read_to_string(director.config_file()).unwrap();
    let (routers, _) = text.split_once("[[virtual-service]]").unwrap();
    fs::write(director.config_file(), routers).unwrap();
    director.start().unwrap();
    director.wait_state("active", READY_LIMIT).unwrap();

    let now = director.footprint().unwrap();
    assert!(now.programs.is_empty() && now.mounts.is_empty(), "{now:?}");
}

#[test]
fn what_a_killed_daemon_left_and_nobody_wants_any_more_is_taken_back() {
    let lab = Lab::new().unwrap();
    let mut director = Director::start_alone(&lab).unwrap();
    let before = {
        // As the lab made the machine: nothing of lbd's.
        director.terminate().unwrap();
        director.wait_exit(READY_LIMIT).unwrap();
        director.footprint().unwrap()
    };
    director.start().unwrap();
    director.wait_ready("active", READY_LIMIT).unwrap();
    kill(&mut director);

    let text = fs::read_to_string(director.config_file()).unwrap();
    let text = text.replace("10.77.0.100", "10.77.0.101").replace("10.77.0.13\"", "10.77.0.12\"");
    let (one_less, _) = text.rsplit_once("[[virtual-service.real-server]]").unwrap();
    fs::write(director.config_file(), one_less).unwrap();
    director.start().unwrap();
    director.wait_ready("active", READY_LIMIT).unwrap();
    wait_for("the leftovers to be gone", READY_LIMIT, || {
        let now = director.footprint()?;
        let left = now.addresses.iter().chain(&now.managed_neighbours);
        let left: Vec<_> = left
            .filter(|line| line.contains("10.77.0.100/") || line.contains("10.77.0.13 "))
            .collect();
        Ok(if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) })
    })
    .unwrap();

    director.terminate().unwrap();
    director.wait_exit(READY_LIMIT).unwrap();
    assert_eq!(director.footprint().unwrap(), before);
}

#[test]
fn what_the_administrator_has_set_is_used_and_stays() {
    let lab = Lab::new().unwrap();
    let host = &lab.directors[0];
    let static_neighbour =
        format!("10.77.0.11 lladdr {} dev eth0 nud permanent", lab.real_servers[0].mac());
    host.netns.ip(&format!("neigh replace {static_neighbour}")).unwrap();
    host.netns.ip("addr add 10.77.0.100/32 dev eth0").unwrap();
    let mut director = Director::start_alone(&lab).unwrap();
    assert_eq!(director.footprint().unwrap().managed_neighbours.len(), 2, "the other two");

    director.terminate().unwrap();
    director.wait_exit(READY_LIMIT).unwrap();
    let shown = |args: &[&str]| {
        let mut ip = std::process::Command::new("ip");
        String::from_utf8(host.netns.run(ip.args(args)).unwrap().stdout).unwrap()
    };
    assert!(shown(&["neigh", "show"]).contains("PERMANENT"), "{}", shown(&["neigh", "show"]));
    let addresses = shown(&["-o", "addr", "show", "dev", "eth0"]);
    assert!(addresses.contains("10.77.0.100/32"), "{addresses}");
    assert!(!addresses.contains("10.77.0.100/24"), "{addresses}");
}

fn kill(director: &mut Director<'_>) {
    director.kill().unwrap();
    director.wait_exit(READY_LIMIT).unwrap();
}

/// The same link, which had a program at every moment, and a new program behind it.
#[track_caller]
fn assert_adopted(director: &Director<'_>, former: Attachment) {
    let now = director.attachment().unwrap();
    assert_eq!(now.link, former.link);
    assert_ne!(now.program, former.program);
}
