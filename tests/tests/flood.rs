//! Floods of packets from sources that do not exist, while real connections run: they break none,
//! and leave the memory of the datapath as it was. Needs root, and the programs of this workspace:
//! `cargo xtask test` builds them first.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::time::Duration;

use tests::{
    connection::Silence,
    director::{Director, Edit},
    flood::{self, Injected, Packets, XDP_TX},
    interrupt::observe,
    lab::{Lab, POOL, PORT, SPARE},
    real_server::RealServer,
    traffic::{Load, Shape},
};

/// Injected, of each kind.
const SOME: u64 = 300_000;
const MANY: u64 = 10_000_000;
/// In one go, as fast as the program is, of each kind.
const BURST: u32 = 10_000_000;
/// Sent as frames, of each kind.
const FRAMES: u64 = 60_000;

#[test]
fn floods_in_the_steady_state_break_nothing_and_leave_nothing() {
    Flooded { in_a_change: false, packets: SOME }.check();
}

#[test]
fn floods_in_the_middle_of_a_change_break_nothing_and_leave_nothing() {
    Flooded { in_a_change: true, packets: SOME }.check();
}

#[test]
fn syns_with_the_addresses_of_connections_that_live_break_none_of_them() {
    let lab = Lab::new().unwrap();
    let _servers = RealServer::start_all(&lab, PORT).unwrap();
    let director = Director::start_alone(&lab).unwrap();
    let load = Load::established_as(&lab, shape()).unwrap();
    director.edit(Edit::SetWeight { real_server: POOL[1], weight: 0 }).unwrap();
    let impostors = flood::inject(&director, Packets::Impostor, 0..65_536).unwrap();
    report(Packets::Impostor, &impostors.join().unwrap().unwrap());
    observe(SILENCE + Duration::from_secs(1)).unwrap();
    let report = load.finish().unwrap();
    assert_eq!(report.connections.survived, report.connections.opened, "{:#?}", report.faults);
}

#[test]
#[ignore = "takes minutes: ten million sources"]
fn ten_million_sources_in_the_steady_state_break_nothing_and_leave_nothing() {
    Flooded { in_a_change: false, packets: MANY }.check();
}

#[test]
#[ignore = "takes minutes: ten million sources"]
fn ten_million_sources_in_the_middle_of_a_change_break_nothing_and_leave_nothing() {
    Flooded { in_a_change: true, packets: MANY }.check();
}

struct Flooded {
    in_a_change: bool,
    packets: u64,
}

impl Flooded {
    fn check(&self) {
        let lab = Lab::new().unwrap();
        let _servers = RealServer::start_all(&lab, PORT).unwrap();
        let director = Director::start_alone(&lab).unwrap();
        let mut loads = vec![Load::established_as(&lab, shape()).unwrap()];
        if self.in_a_change {
            director.edit(Edit::Add { real_server: SPARE, weight: 1 }).unwrap();
            director.edit(Edit::SetWeight { real_server: POOL[1], weight: 0 }).unwrap();
            // These are the ones that live by what is noted of them.
            loads.push(Load::established_as(&lab, shape()).unwrap());
        }
        let program = director.program().unwrap();
        let memory = || (program.map_memory().unwrap(), director.status().unwrap().memory);
        let before = memory();

        for packets in [Packets::Syn, Packets::MidFlow, Packets::Handshake] {
            let injected = flood::inject(&director, packets, 0..self.packets).unwrap();
            report(packets, &injected.join().unwrap().unwrap());
        }
        for packets in [Packets::Syn, Packets::MidFlow] {
            let took = flood::burst(&director, packets, BURST).unwrap();
            println!("{packets:?}: {BURST} in {took:?}");
        }
        for packets in [Packets::Syn, Packets::MidFlow, Packets::Handshake] {
            let sent = flood::send(&lab, packets, 0..FRAMES, director.host).unwrap();
            assert_eq!(sent.join().unwrap().unwrap(), FRAMES);
        }
        // Everybody has broken its silence since.
        observe(SILENCE + Duration::from_secs(1)).unwrap();

        for load in loads {
            let report = load.finish().unwrap();
            println!("{:?}, {:?}", report.connections, report.new_connections);
            report.ensure_kept().unwrap();
        }
        // Tables are the daemon's own: it makes and removes spare ones as a change settles.
        let after = memory();
        assert_eq!(after.0, before.0);
        assert_eq!(
            (after.1.services, after.1.flows, after.1.counters),
            (before.1.services, before.1.flows, before.1.counters)
        );
        println!("{:?}", before.1);
        println!("{:?}", director.status().unwrap().exceptions);
    }
}

#[track_caller]
fn report(packets: Packets, injected: &Injected) {
    println!("{packets:?}: {injected:?}");
    assert_eq!(injected.actions[XDP_TX], injected.packets, "all of them reach a real server");
}

const SILENCE: Duration = Duration::from_secs(3);

fn shape() -> Shape {
    let silence = Silence { speaks: Duration::from_secs(1), at_most: SILENCE };
    Shape { silent: Some((3, silence)), ..Shape::new(150) }
}
