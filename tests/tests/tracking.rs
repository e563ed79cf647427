//! The pool of a service changes under its connections: those that the rules promise to keep live
//! on, and those of a real server that is gone hear of it at once. Needs root, and the programs of
//! this workspace: `cargo xtask test` builds them first.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    net::Ipv4Addr,
    time::{Duration, SystemTime},
};

use tests::{
    connection::{Failure, Silence},
    director::{Director, Edit, READY_LIMIT},
    draw::Draw,
    interrupt::{observe, wait_for},
    lab::{Lab, POOL, PORT, SPARE},
    promise::{Deletion, violations},
    random_pool::RandomPool,
    real_server::RealServer,
    tcp_counters::TcpCounters,
    traffic::{Life, Load, LoadReport, Shape},
};

const CONNECTIONS: usize = 200;
const RS1: Ipv4Addr = POOL[0];
const RS2: Ipv4Addr = POOL[1];

#[test]
fn real_servers_are_added_drained_reweighted_and_added_again_and_no_connection_breaks() {
    let lab = Lab::new().unwrap();
    let _servers = RealServer::start_all(&lab, PORT).unwrap();
    let director = Director::start_alone(&lab).unwrap();
    let load = Load::established_as(&lab, speaking_and_silent(CONNECTIONS, 4)).unwrap();
    let early = load.carried_by("rs2");

    director.edit(Edit::Add { real_server: SPARE, weight: 1 }).unwrap();
    let while_added = Load::established(&lab, CONNECTIONS).unwrap();
    assert!(while_added.carried_by("rs4") > 0, "the added one has connections");
    director.edit(Edit::SetWeight { real_server: RS2, weight: 0 }).unwrap();
    let drained = SystemTime::now();
    let while_drained = Load::established(&lab, CONNECTIONS).unwrap();
    assert_eq!(while_drained.carried_by("rs2"), 0);
    director.edit(Edit::SetWeight { real_server: RS1, weight: 5 }).unwrap();
    director.edit(Edit::SetWeight { real_server: SPARE, weight: 0 }).unwrap();
    observe(Duration::from_secs(3)).unwrap();
    let undrained = SystemTime::now();
    director.edit(Edit::SetWeight { real_server: RS2, weight: 7 }).unwrap();
    director.edit(Edit::SetWeight { real_server: SPARE, weight: 2 }).unwrap();
    let at_last = Load::established(&lab, CONNECTIONS).unwrap();
    assert!(at_last.carried_by("rs2") > 0 && at_last.carried_by("rs4") > 0);
    // Everybody has broken its silence since the last change.
    observe(Duration::from_secs(5)).unwrap();

    assert_eq!(load.carried_by("rs2"), early, "a drained one keeps what it has");
    for load in [load, while_added, while_drained, at_last] {
        let report = load.finish().unwrap();
        report.ensure_unbroken().unwrap();
        let meanwhile = report
            .new
            .iter()
            .filter(|life| life.opened > drained && life.opened < undrained && of(life, "rs2"));
        assert_eq!(meanwhile.count(), 0, "new ones for a drained real server");
    }
}

#[test]
fn a_deleted_real_server_that_is_dead_takes_its_own_connections_with_it_at_once() {
    deleted_after_its_death("");
}

#[test]
fn a_director_resets_the_connections_of_a_deleted_real_server_where_it_is_told_to() {
    let resets = deleted_after_its_death("on-down = \"reset\"\n");
    assert!(resets > 0, "the director itself answered");
}

#[test]
fn a_real_server_whose_process_was_killed_is_deleted_and_all_others_live_on() {
    let lab = Lab::new().unwrap();
    let mut servers = RealServer::start_all(&lab, PORT).unwrap();
    let director = Director::start_alone(&lab).unwrap();
    let load = Load::established(&lab, CONNECTIONS).unwrap();
    let had = load.carried_by("rs2");

    let begun = SystemTime::now();
    drop(servers.remove(1));
    observe(Duration::from_millis(300)).unwrap();
    director.edit(Edit::Delete { real_server: RS2 }).unwrap();
    let done = SystemTime::now();
    observe(Duration::from_secs(2)).unwrap();

    let report = load.finish().unwrap();
    assert_eq!((broken(&report), report.connections.timed_out), (had, 0));
    // Its process is gone before it is deleted: the time between is part of its end.
    let deletion = Deletion { real_server: "rs2".to_owned(), begun, done };
    assert_kept(&report, &[deletion], Duration::from_secs(2));
    assert_all_new_work_since(&report, done);
}

#[test]
fn random_changes_break_only_what_the_rules_give_up() {
    let changes = Changes { connections: 300, silent_secs: 5, lasting: Duration::from_secs(15) };
    changes.play(true);
}

#[test]
#[ignore = "takes minutes: two of random changes, with 2,000 connections that are silent for a minute"]
fn random_changes_for_two_minutes_break_no_connection() {
    let changes =
        Changes { connections: 2_000, silent_secs: 60, lasting: Duration::from_secs(120) };
    changes.play(false);
}

#[test]
#[ignore = "takes minutes: two of random changes, deletions among them, with 2,000 connections"]
fn random_changes_for_two_minutes_break_only_what_the_rules_give_up() {
    let changes =
        Changes { connections: 2_000, silent_secs: 60, lasting: Duration::from_secs(120) };
    changes.play(true);
}

#[test]
fn a_killed_daemon_is_replaced_and_not_one_packet_takes_another_way() {
    kill_and_restart(3);
}

#[test]
#[ignore = "takes minutes: twenty daemons killed and started again"]
fn twenty_killed_daemons_are_replaced_and_not_one_packet_takes_another_way() {
    kill_and_restart(20);
}

/// The link of a real server is cut, so that nobody but the director can tell its clients; returns
/// how many resets the director has sent.
fn deleted_after_its_death(service_keys: &str) -> u64 {
    let lab = Lab::new().unwrap();
    let _servers = RealServer::start_all(&lab, PORT).unwrap();
    let director = Director::start_alone_with(&lab, service_keys).unwrap();
    let load = Load::established(&lab, CONNECTIONS).unwrap();
    let had = load.carried_by("rs2");
    assert!(had > CONNECTIONS / 5, "{had} on rs2");

    let begun = SystemTime::now();
    lab.switch.ip("link set rs2 down").unwrap();
    director.edit(Edit::Delete { real_server: RS2 }).unwrap();
    let done = SystemTime::now();
    let mark = load.mark();
    let others = CONNECTIONS - had;
    wait_for("all others to move, and its own to break", READY_LIMIT, || {
        let seen = (load.moving_since(&mark), load.broken().len());
        Ok(if seen == (others, had) { Ok(()) } else { Err(format!("{seen:?} of {others}, {had}")) })
    })
    .unwrap();
    observe(Duration::from_millis(500)).unwrap();

    let report = load.finish().unwrap();
    let late = report.long_lived.iter().filter(|life| life.failure.is_some());
    let latest = late.map(|life| life.ended.duration_since(done).unwrap_or_default()).max();
    let dark = done.duration_since(begun).unwrap();
    println!("{had} connections reset within {latest:?} of the deletion, {dark:?} after the death");
    // TCP sends again after 200 ms at first, and doubles that each time.
    let deletion = Deletion { real_server: "rs2".to_owned(), begun, done };
    assert_kept(&report, &[deletion], Duration::from_millis(500) + dark * 2);
    assert_eq!((broken(&report), report.connections.timed_out), (had, 0));
    assert_all_new_work_since(&report, done);
    director.status().unwrap().verdicts["reset"]
}

/// Random changes of the pool under a load.
struct Changes {
    connections: usize,
    /// A third of the connections is silent for up to so long.
    silent_secs: u64,
    lasting: Duration,
}

impl Changes {
    fn play(&self, with_deletions: bool) {
        let mut draw = Draw::new();
        let lab = Lab::new().unwrap();
        let _servers = RealServer::start_all(&lab, PORT).unwrap();
        let director = Director::start_alone(&lab).unwrap();
        let shape = speaking_and_silent(self.connections, self.silent_secs);
        let begin = SystemTime::now();
        let load = Load::established_as(&lab, Shape { replace_broken: true, ..shape }).unwrap();

        let mut pool = RandomPool::new();
        let (mut deletions, mut edits) = (Vec::new(), 0);
        while begin.elapsed().unwrap() < self.lasting {
            let edit = pool.change(&mut draw, with_deletions);
            println!("{:6.2} s: {edit}", begin.elapsed().unwrap().as_secs_f64());
            let begun = SystemTime::now();
            director.edit(edit).unwrap();
            edits += 1;
            if let Edit::Delete { real_server } = edit {
                let host = lab.real_servers.iter().find(|host| host.address == real_server);
                let real_server = host.unwrap().name.to_owned();
                deletions.push(Deletion { real_server, begun, done: SystemTime::now() });
            }
            // Some follow at once, while the last one has not settled.
            observe(Duration::from_millis(u64::from(draw.below(4)) * 400)).unwrap();
        }
        // Whoever was silent at the last change has spoken since.
        let silence = Duration::from_secs(self.silent_secs);
        observe(silence + Duration::from_secs(2)).unwrap();

        let report = load.finish().unwrap();
        println!("{edits} changes; {:?}, {:?}", report.connections, report.new_connections);
        println!("{:?}, deletions: {}", report.by_real_server, deletions.len());
        assert_kept(&report, &deletions, silence + Duration::from_secs(2));
        if !with_deletions {
            report.ensure_unbroken().unwrap();
        }
    }
}

/// A director on its own, so that the VIP stays with the killed one; with a change in progress.
fn kill_and_restart(times: usize) {
    let lab = Lab::new().unwrap();
    let _servers = RealServer::start_all(&lab, PORT).unwrap();
    let mut director = Director::start_alone(&lab).unwrap();
    let load = Load::established_as(&lab, speaking_and_silent(CONNECTIONS, 2)).unwrap();
    director.edit(Edit::Add { real_server: SPARE, weight: 1 }).unwrap();
    director.edit(Edit::SetWeight { real_server: RS2, weight: 0 }).unwrap();
    let noted = Load::established(&lab, CONNECTIONS).unwrap();
    let resets = TcpCounters::resets_of_all(&lab).unwrap();
    let lost = astray(&director);

    for _ in 0..times {
        let former = director.attachment().unwrap();
        director.kill().unwrap();
        director.wait_exit(READY_LIMIT).unwrap();
        noted.wait_all_moving(&noted.mark()).unwrap();
        director.start().unwrap();
        director.wait_ready("active", READY_LIMIT).unwrap();
        noted.wait_all_moving(&noted.mark()).unwrap();
        let now = director.attachment().unwrap();
        assert_eq!(now.link, former.link, "the interface always had a program");
        assert_ne!(now.program, former.program);
    }

    // Whoever was silent all the time has spoken since.
    observe(Duration::from_secs(3)).unwrap();
    for load in [load, noted] {
        load.finish().unwrap().ensure_unbroken().unwrap();
    }
    assert_eq!(TcpCounters::resets_of_all(&lab).unwrap(), resets, "resets");
    assert_eq!(astray(&director), lost, "packets that were not forwarded");
    let segments = wait_for("every segment to arrive", READY_LIMIT, || {
        let (sent, received) = TcpCounters::sent_and_received(&lab)?;
        Ok(if sent == received { Ok(sent) } else { Err(format!("{received} of {sent}")) })
    })
    .unwrap();
    println!("{times} daemons killed; all of {segments} segments arrived");
}

/// Packets to the VIP that were not forwarded, by verdict.
fn astray(director: &Director<'_>) -> Vec<(String, u64)> {
    let mut verdicts = director.status().unwrap().verdicts;
    for innocent in ["forwarded", "not-ipv4", "other-protocol", "not-virtual-service"] {
        verdicts.remove(innocent).unwrap();
    }
    verdicts.into_iter().collect()
}

/// Every third connection is silent for up to `silent_secs` from time to time.
fn speaking_and_silent(connections: usize, silent_secs: u64) -> Shape {
    let at_most = Duration::from_secs(silent_secs);
    let silence = Silence { speaks: Duration::from_secs(1), at_most };
    // A thousand connections speak as much together as a hundred, so that the machine keeps up.
    let pace = Duration::from_millis(100) * u32::try_from(1 + connections / 500).unwrap();
    Shape { pace, silent: Some((3, silence)), ..Shape::new(connections) }
}

fn of(life: &Life, real_server: &str) -> bool {
    life.real_server.as_deref() == Some(real_server)
}

fn broken(report: &LoadReport) -> usize {
    report.long_lived.iter().filter(|life| life.failure.is_some()).count()
}

#[track_caller]
fn assert_kept(report: &LoadReport, deletions: &[Deletion], within: Duration) {
    let begin = report.long_lived.iter().map(|life| life.opened).min().unwrap();
    for lives in [&report.long_lived, &report.new] {
        let violations = violations(lives, deletions, within, begin);
        assert!(violations.is_empty(), "{}: {violations:#?}", violations.len());
    }
}

#[track_caller]
fn assert_all_new_work_since(report: &LoadReport, since: SystemTime) {
    let since: Vec<_> = report.new.iter().filter(|life| life.opened > since).collect();
    assert!(since.len() > 10, "{} new connections since", since.len());
    let failed: Vec<&Failure> = since.iter().filter_map(|life| life.failure.as_ref()).collect();
    assert!(failed.is_empty(), "{failed:?}");
    assert!(since.iter().all(|life| !of(life, "rs2")), "rs2 has new ones");
}
