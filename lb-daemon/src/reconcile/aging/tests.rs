use std::time::Duration;

use super::*;
use crate::{
    reconcile::{
        Installed, reconcile,
        tests::{address, desired, flow, install, kinds, note, service},
    },
    service::{Tracking, VirtualService},
};
use lb_ebpf::abi::{INDEX, Seconds};

#[test]
fn in_the_steady_state_nothing_is_to_be_done() {
    let desired = desired([service("web", 80, &[(11, 1), (12, 1)])]);
    let installed = install(&desired);
    assert_eq!(age(&desired, &installed, &at(LATER)), (vec![], installed));
}

#[test]
fn a_change_is_over_when_its_time_has_passed_and_everything_of_it_goes() {
    let (desired, installed) = drained();
    assert_eq!(age(&desired, &installed, &at(T0 + 899)).0, []);
    let (ops, over) = age(&desired, &installed, &at(T0 + 901));
    let slots = installed.tables[&1].generation.changed().count();
    let update = format!("update table 1: {slots}");
    assert_eq!(kinds(&ops), [&update, "service 0 :80 -> table 1 role 1", "delete previous [1]"]);
    assert!(over.tables[&1].generation.is_steady());
    assert_eq!(age(&desired, &over, &at(LATER)).0, []);
}

#[test]
fn a_deleted_real_server_is_freed_when_it_is_forgotten() {
    let (_, installed) = drained();
    let desired = desired([impatient(service("web", 80, &[(12, 1), (13, 1)]))]);
    let (_, gone) = reconcile(&desired, &installed, &at(T0 + 800)).unwrap();
    let table = gone.services.values().next().unwrap().table;
    let times = |now| kinds(&age(&desired, &gone, &at(now)).0);
    assert_eq!(times(T0 + 899), [""; 0]);
    // Idle, or 300 s after it was deleted.
    let over = times(T0 + 901);
    assert_eq!(over.last().unwrap(), "free real server 0", "table {table}: {over:?}");
}

#[test]
fn a_noted_flow_keeps_its_slot_alone() {
    let (desired, installed) = drained();
    let slot = a_changed_slot(&installed);
    let owner = installed.tables[&1].generation.slots()[slot as usize] & INDEX;
    let other = if owner == 1 { 2 } else { 1 };
    let noted = |seen, now| {
        let note = Note { slot, seen, ..note(0, other) };
        Noted { connections: vec![(flow(1), note)], ..at(now) }
    };
    let (ops, next) = age(&desired, &installed, &noted(T0 + 800, T0 + 901));
    let marked: Vec<_> = next.tables[&1].generation.changed().collect();
    assert_eq!(marked.len(), 1, "{:?}", kinds(&ops));
    let (index, previous) = marked[0];
    assert_eq!((index, previous.real_server), (slot, owner), "its flows without a note");
    assert_eq!(age(&desired, &next, &noted(T0 + 3500, T0 + 3599)).0, []);

    // Its slot changed hands an hour ago.
    let (ops, over) = age(&desired, &next, &noted(T0 + 3500, T0 + 3601));
    assert!(kinds(&ops).contains(&"forget 1".to_owned()), "{:?}", kinds(&ops));
    assert!(over.tables[&1].generation.is_steady());
}

#[test]
fn the_notes_of_a_slot_go_when_it_is_steady_again() {
    let (desired, installed) = drained();
    let slot = a_changed_slot(&installed);
    let owner = installed.tables[&1].generation.slots()[slot as usize] & INDEX;
    let seen = T0 + 899;
    let own = Note { slot, seen, ..note(0, owner) };
    let noted =
        Noted { connections: vec![(flow(1), own)], openings: vec![(flow(2), own)], ..at(T0 + 901) };
    let (ops, _) = age(&desired, &installed, &noted);
    let kinds = kinds(&ops);
    // After the slot: until then packets look for them.
    let place = |what: &str| kinds.iter().position(|kind| kind.starts_with(what)).unwrap();
    assert!(place("update table") < place("forget 1"), "{kinds:?}");
    assert!(place("update table") < place("forget opening 2"), "{kinds:?}");
}

#[test]
fn a_syn_that_nothing_followed_is_forgotten_and_a_connection_is_not() {
    let (desired, installed) = drained();
    let slot = a_changed_slot(&installed);
    let live = Note { slot, seen: T0, ..note(0, 1) };
    let noted = |now| Noted {
        connections: vec![(flow(1), live)],
        openings: vec![(flow(2), live)],
        ..at(now)
    };
    assert_eq!(age(&desired, &installed, &noted(T0 + 127)).0, []);
    assert_eq!(kinds(&age(&desired, &installed, &noted(T0 + 128)).0), ["forget opening 2"]);
}

#[test]
fn notes_of_no_service_and_of_steady_slots_are_deleted() {
    let (desired, installed) = drained();
    let generation = &installed.tables[&1].generation;
    let steady = (0..1021).find(|slot| generation.slots()[*slot as usize] & CHANGED == 0).unwrap();
    let connections =
        vec![(flow(1), note(9, 1)), (flow(2), Note { slot: steady, seen: T0, ..note(0, 1) })];
    let openings = vec![(flow(3), note(9, 1)), (flow(4), Note { slot: 5000, ..note(0, 1) })];
    let (ops, _) = age(&desired, &installed, &Noted { connections, openings, ..at(T0) });
    let mut kinds = kinds(&ops);
    kinds.sort();
    assert_eq!(kinds, ["forget 1", "forget 2", "forget opening 3", "forget opening 4"]);
}

#[test]
fn a_table_remembers_as_long_as_the_most_patient_of_its_services_says() {
    for (idle, over_at) in [(60, 900), (900, 900), (2000, 2000)] {
        let services = |pool: &[(u8, u16)]| {
            let tracking = |tracking: Tracking| Tracking {
                idle_timeout: Duration::from_secs(idle),
                ..tracking
            };
            let api = service("api", 81, pool);
            let api = VirtualService { tracking: api.tracking.map(tracking), ..api };
            desired([impatient(service("web", 80, pool)), api])
        };
        let before = install(&services(&[(11, 1), (12, 1)]));
        let next = services(&[(11, 0), (12, 1)]);
        let (_, installed) = reconcile(&next, &before, &at(T0)).unwrap();
        assert_eq!(installed.tables.len(), 1);
        let is_over = |now| age(&next, &installed, &at(now)).1.tables[&1].generation.is_steady();
        assert!(!is_over(T0 + over_at) && is_over(T0 + over_at + 1), "idle-timeout {idle}");
    }
}

#[test]
fn a_service_that_tracks_no_more_forgets_at_once() {
    let (mut desired, installed) = drained();
    desired.services[0].tracking = None;
    let (ops, next) = age(&desired, &installed, &at(T0 + 1));
    assert!(next.tables[&1].generation.is_steady(), "{:?}", kinds(&ops));
}

#[test]
fn services_that_a_change_parted_share_a_table_again_after_it() {
    let pool = [(11, 1), (12, 1)];
    let before = install(&desired([service("web", 80, &pool), service("api", 81, &pool)]));
    let parted = desired([service("web", 80, &[(12, 1)]), service("api", 81, &pool)]);
    let (_, installed) = reconcile(&parted, &before, &at(T0)).unwrap();
    let alike = desired([service("web", 80, &[(12, 1)]), service("api", 81, &[(12, 1)])]);
    let (_, installed) = reconcile(&alike, &installed, &at(T0 + 10)).unwrap();
    assert_eq!(installed.tables.len(), 2, "each remembers what it had");
    let (_, one_over) = age(&alike, &installed, &at(T0 + 300));
    assert_eq!(one_over.tables.len(), 2);
    let (ops, both_over) = age(&alike, &one_over, &at(T0 + 310));
    assert_eq!(both_over.tables.len(), 1);
    assert_eq!(kinds(&ops).iter().filter(|op| op.starts_with("delete table")).count(), 1);
    assert_eq!(both_over.real_servers.len(), 1);
    assert_eq!(both_over.real_servers.values().next().unwrap().address, address(12).octets());
}

const T0: Seconds = 10_000;
const LATER: Seconds = 1_000_000;

fn at(now: Seconds) -> Noted {
    Noted { now, ..Noted::default() }
}

/// It forgets idle flows after 15 minutes.
fn impatient(service: VirtualService) -> VirtualService {
    let tracking =
        |tracking: Tracking| Tracking { idle_timeout: Duration::from_secs(900), ..tracking };
    VirtualService { tracking: service.tracking.map(tracking), ..service }
}

/// A service with three real servers; that with index 0 was drained at [`T0`].
fn drained() -> (Desired, Installed) {
    let web = |weight| desired([impatient(service("web", 80, &[(11, weight), (12, 1), (13, 1)]))]);
    let (_, installed) = reconcile(&web(0), &install(&web(1)), &at(T0)).unwrap();
    (web(0), installed)
}

fn a_changed_slot(installed: &Installed) -> u32 {
    installed.tables[&1].generation.changed().next().unwrap().0
}
