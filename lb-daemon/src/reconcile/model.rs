//! The promises of just enough tracking, tried with random histories: no packets, no kernel.
//!
//! [`Kernel`] has the maps: operations change them, and the datapath's own rules read them.
//! [`World`] plays clients, the operator, time and a daemon that dies, and knows of a flow only what
//! its client knows and what was promised to it.

use proptest::{collection::vec, prelude::*, sample::select};

use super::*;

mod kernel;
mod world;

use kernel::{Kernel, Outcome};
use world::{Rules, World};

/// What happens next. Flows are counted round: any number is one of those that live.
#[derive(Clone, Debug)]
enum Step {
    Change(Change),
    /// The daemon dies after so many operations of a change; the next one finds it in the file.
    Crash(Change, usize),
    Restart,
    Age,
    Wait(Seconds),
    /// A client of one of the services sends a SYN.
    Open(usize),
    RepeatSyn(usize),
    /// The next packet of a flow, and of all.
    Talk(usize),
    TalkAll,
    Close(usize),
    /// A client uses the port of a flow that it has closed again.
    Reopen(usize),
    Vanish(usize),
    /// Somebody else sends a SYN with the addresses and ports of a flow.
    Impostor(usize),
    /// Of as many sources as packets.
    SynFlood(u16),
    SpoofedData(u16),
    SpoofedConnections(u16),
}

/// `weight` is 0 for a drained real server and `None` for a deleted one.
#[derive(Clone, Debug)]
struct Change {
    /// Which of the two services it is for.
    services: [bool; 2],
    /// Last byte of the address.
    server: u8,
    weight: Option<u16>,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn every_flow_that_could_be_kept_was_kept(
        rules in rules(),
        steps in vec(step(), 1..80),
    ) {
        let mut world = World::new(rules, PLENTY);
        for step in &steps {
            world.step(step);
        }
        world.assert_room_was_enough();
        world.end();
    }

    #[test]
    fn without_room_for_notes_flows_of_before_and_noted_ones_are_kept(
        rules in rules(),
        steps in vec(prop_oneof![6 => step(), 1 => pressure()], 1..80),
    ) {
        let mut world = World::new(rules, (6, 3));
        for step in &steps {
            world.step(step);
        }
        world.end();
    }
}

/// Notes and openings.
const PLENTY: (usize, usize) = (10_000, 10_000);

fn rules() -> impl Strategy<Value = Rules> {
    let idle = select(vec![130, 400, 900]);
    (idle, select(vec![100, 700, 3600])).prop_map(|(idle, drain)| Rules { idle, drain })
}

fn step() -> impl Strategy<Value = Step> {
    let flow = || 0..64_usize;
    let second = || 1..3_u32;
    let waits = select(vec![30, 59, 61, 100, 127, 129, 299, 301, 399, 500, 899, 1000]);
    prop_oneof![
        4 => change().prop_map(Step::Change),
        1 => (change(), 0..8_usize).prop_map(|(change, done)| Step::Crash(change, done)),
        1 => Just(Step::Restart),
        3 => Just(Step::Age),
        2 => second().prop_map(Step::Wait),
        3 => waits.prop_map(Step::Wait),
        8 => (0..2_usize).prop_map(Step::Open),
        1 => flow().prop_map(Step::RepeatSyn),
        6 => flow().prop_map(Step::Talk),
        4 => Just(Step::TalkAll),
        1 => flow().prop_map(Step::Close),
        1 => flow().prop_map(Step::Reopen),
        1 => flow().prop_map(Step::Vanish),
        2 => flow().prop_map(Step::Impostor),
        1 => (1..20_u16).prop_map(Step::SynFlood),
        1 => (1..20_u16).prop_map(Step::SpoofedData),
    ]
}

/// Takes the room that notes have.
fn pressure() -> impl Strategy<Value = Step> {
    (1..10_u16).prop_map(Step::SpoofedConnections)
}

fn change() -> impl Strategy<Value = Change> {
    let services = select(vec![[true, true], [true, true], [true, false], [false, true]]);
    let weight = select(vec![None, Some(0), Some(1), Some(1), Some(2), Some(5)]);
    (services, 11..16_u8, weight).prop_map(|(services, server, weight)| Change {
        services,
        server,
        weight,
    })
}
