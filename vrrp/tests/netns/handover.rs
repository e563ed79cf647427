//! Who is active, and how the VIP goes from one to the other.

use std::{collections::BTreeMap, time::Duration};

use vrrp::{Role, RouterConfig};

use crate::lan::*;

#[test]
fn the_vip_is_handed_over_without_a_gap_when_the_active_director_shuts_down() {
    let lan = Lan::new();
    let a = lan.start("a", vec![router(150)]).unwrap();
    wait_until("a is active", || state(&a), |state| *state == "active");
    let b = lan.start("b", vec![router(100)]).unwrap();
    wait_until("b hears a", || snapshot(&b), |b| b.active_router == Some(PRIMARY_A));
    assert_eq!(state(&b), "backup");
    assert!(lan.has_vip("a") && !lan.has_vip("b"));

    a.shutdown();

    assert!(lan.has_vip("b") && !lan.has_vip("a"));
    assert_eq!(snapshot(&b).cause, "10.77.0.1 resigned");
    // The successor answers before the predecessor stops.
    let roles = [
        ("a", Role::Inactive),
        ("a", Role::Active),
        ("b", Role::Inactive),
        ("b", Role::Active),
        ("a", Role::Inactive),
    ];
    assert_eq!(lan.roles(), roles);
    b.shutdown();
    assert!(!lan.has_vip("b"));
}

#[test]
fn a_better_director_takes_over_and_the_other_steps_back() {
    let lan = Lan::new();
    let b = lan.start("b", vec![router(100)]).unwrap();
    wait_until("b is active", || state(&b), |state| *state == "active");
    let a = lan.start("a", vec![router(150)]).unwrap();
    wait_until("b steps back", || state(&b), |state| *state == "backup");
    wait_until("b has no VIP", || lan.has_vip("b"), |has| !has);
    assert_eq!(snapshot(&b).cause, "10.77.0.1 has priority 150");
    assert_eq!(snapshot(&a).cause, "10.77.0.2 has the lower priority 100");
    assert!(lan.has_vip("a"));
    assert_eq!(snapshot(&a).discarded, BTreeMap::new());
    assert_eq!(snapshot(&b).discarded, BTreeMap::new());
}

#[test]
fn both_are_active_while_the_cable_is_cut_and_one_remains_when_it_is_mended() {
    let lan = Lan::new();
    let a = lan.start("a", vec![router(150)]).unwrap();
    let b = lan.start("b", vec![router(100)]).unwrap();
    wait_until("a is active", || state(&a), |state| *state == "active");
    wait_until("b hears a", || snapshot(&b), |b| b.active_router == Some(PRIMARY_A));

    lan.ip("a", "link set e0 down");
    wait_until("b is active", || state(&b), |state| *state == "active");
    let cause = snapshot(&b).cause;
    assert!(cause.starts_with("no advertisement for "), "{cause}");
    assert_eq!(state(&a), "active", "it cannot know");

    lan.ip("a", "link set e0 up");
    wait_until("b steps back", || state(&b), |state| *state == "backup");
    assert_eq!(state(&a), "active");
    wait_until("b has no VIP", || lan.has_vip("b"), |has| !has);
}

#[test]
fn a_killed_predecessors_vip_is_taken_over_at_once() {
    let lan = Lan::new();
    lan.ip("a", "addr add 10.77.0.100/24 dev e0");
    let a = lan.start("a", vec![router(150)]).unwrap();
    // No interval has to pass: the answer comes after the first turn of the loop.
    assert_eq!(snapshot(&a).cause, "started with the VIPs in place");
    assert_eq!(state(&a), "active");
    assert_eq!(snapshot(&a).active_router, Some(PRIMARY_A), "the VIP is not the primary address");
    a.shutdown();
    assert!(!lan.has_vip("a"));
}

#[test]
fn a_director_that_was_killed_leaves_the_vip_to_its_successor_if_it_is_not_to_preempt() {
    let lan = Lan::new();
    let b = lan.start("b", vec![router(100)]).unwrap();
    wait_until("b is active", || state(&b), |state| *state == "active");
    lan.ip("a", "addr add 10.77.0.100/24 dev e0");

    let a = lan.start("a", vec![RouterConfig { preempt: false, ..router(150) }]).unwrap();
    wait_until("a hears b", || state(&a), |state| *state == "backup");
    wait_until("a has no VIP", || lan.has_vip("a"), |has| !has);
    assert_eq!(snapshot(&a).cause, "10.77.0.2 is active already");
    assert_eq!(a.snapshot()[0].transitions, 2, "resuming and backup");
    assert_eq!((state(&b), snapshot(&b).transitions), ("active", 2));
    // Taken, reported at the end of the start, released.
    let roles = [("a", Role::Active), ("a", Role::Active), ("a", Role::Inactive)];
    assert_eq!(lan.roles()[2..], roles);
}

#[test]
fn a_director_that_was_killed_alone_resumes_and_is_active_in_time_if_it_is_not_to_preempt() {
    let lan = Lan::new();
    lan.ip("a", "addr add 10.77.0.100/24 dev e0");
    let interval = Duration::from_millis(500);
    let a = lan.start("a", vec![RouterConfig { preempt: false, interval, ..router(150) }]).unwrap();
    let resuming = snapshot(&a);
    assert_eq!((resuming.state, resuming.advertisements_sent), ("resuming", 0));
    assert_eq!(lan.roles().last(), Some(&("a", Role::Active)));
    wait_until("a is active", || state(&a), |state| *state == "active");
    assert!(lan.has_vip("a"));
    assert!(!lan.roles().contains(&("a", Role::Inactive)), "at no time");
}
