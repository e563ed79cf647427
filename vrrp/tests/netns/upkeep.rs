//! Addresses and interfaces that change under a running director.

use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};

use vrrp::{Role, RouterConfig, RouterSnapshot, Vip};

use crate::lan::*;

#[test]
fn neither_a_vip_deleted_by_hand_nor_an_interface_that_vanishes_ends_the_thread() {
    let lan = Lan::new();
    let a = lan.start("a", vec![router(150)]).unwrap();
    wait_until("a is active", || state(&a), |state| *state == "active");
    lan.ip("a", "addr del 10.77.0.100/24 dev e0");
    lan.ip("a", "link del e0");
    wait_until("sends fail", || snapshot(&a), |a| a.discarded.get("send-failed") > Some(&2));
    assert_eq!(state(&a), "active");
    a.shutdown();
    let roles = [("a", Role::Inactive), ("a", Role::Active), ("a", Role::Inactive)];
    assert_eq!(lan.roles(), roles);
}

#[test]
fn the_same_address_with_another_prefix_length_is_the_operators_and_stays() {
    for (ours, theirs) in [(24, 32), (32, 24)] {
        let lan = Lan::new();
        // The kernel lists it first.
        lan.ip("a", &format!("addr add 10.77.0.100/{theirs} dev e0"));
        let vips = vec![Vip { prefix_len: ours, ..vip(100) }];
        let a = lan.start("a", vec![RouterConfig { vips, ..router(150) }]).unwrap();
        wait_until("a is active", || state(&a), |state| *state == "active");
        let has = |prefix_len| lan.addresses("a").contains(&format!("10.77.0.100/{prefix_len} "));
        assert!(has(ours) && has(theirs), "{}", lan.addresses("a"));
        a.shutdown();
        assert!(!has(ours) && has(theirs), "ours /{ours}: {}", lan.addresses("a"));
    }
}

#[test]
fn a_vip_that_vanishes_from_the_active_director_is_back_and_announced() {
    let lan = Lan::new();
    let vips = RouterConfig { more_vips: vec![vip(101)], ..router(150) };
    let a = lan.start("a", vec![vips]).unwrap();
    // From then on nothing but a repair makes it announce the VIPs.
    let announced_again = Duration::from_millis(5_500);
    let active_for = || (state(&a), snapshot(&a).since);
    wait_until("a is active", active_for, |now| now.0 == "active" && now.1 > announced_again);
    lan.ip("b", "neigh replace 10.77.0.100 lladdr 02:00:00:00:00:99 nud stale dev e0");
    let sent = snapshot(&a).advertisements_sent;

    lan.ip("a", "addr del 10.77.0.100/24 dev e0");
    wait_until("the VIP is back", || lan.has_vip("a"), |has| *has);
    let heard = || lan.ip("b", "neigh show 10.77.0.100 dev e0");
    wait_until("b has heard so", heard, |neigh| !neigh.contains("02:00:00:00:00:99"));
    lan.ip("a", "addr del 10.77.0.101/24 dev e0");
    wait_until("the other is back", || lan.addresses("a"), |now| now.contains("10.77.0.101/24"));

    let after = snapshot(&a);
    assert_eq!((after.state, after.transitions), ("active", 2));
    assert_eq!(after.discarded, BTreeMap::from([("vip-restored", 2)]));
    assert!(after.advertisements_sent > sent);
}

#[test]
fn a_backup_leaves_the_vips_alone() {
    let lan = Lan::new();
    let b = lan.start("b", vec![router(100)]).unwrap();
    wait_until("b is active", || state(&b), |state| *state == "active");
    let a = lan.start("a", vec![RouterConfig { preempt: false, ..router(150) }]).unwrap();
    // Two checks at least.
    wait_until("it has been for a while", || snapshot(&a), |a| a.since > Duration::from_secs(3));
    assert_eq!((state(&a), snapshot(&a).discarded), ("backup", BTreeMap::new()));
    assert!(!lan.has_vip("a"));
}

#[test]
fn directors_go_on_when_their_interfaces_are_replaced_by_others_of_the_same_name() {
    let lan = Lan::new();
    let a = lan.start("a", vec![router(150)]).unwrap();
    wait_until("a is active", || state(&a), |state| *state == "active");
    let b = lan.start("b", vec![router(100)]).unwrap();
    wait_until("b hears a", || snapshot(&b), |b| b.active_router == Some(PRIMARY_A));

    let before = lan.ip("a", "-o link show e0");
    lan.ip("a", "link del e0");
    let unusable = |router: &RouterSnapshot| router.discarded.contains_key("interface-unusable");
    wait_until("a has seen it", || snapshot(&a), unusable);
    wait_until("b has seen it", || snapshot(&b), unusable);
    wait_until("b is active", || state(&b), |state| *state == "active");
    let received = snapshot(&b).advertisements_received;

    lan.lay_cable();
    assert_ne!(lan.ip("a", "-o link show e0"), before, "at least the index is another");
    wait_until("b steps back", || state(&b), |state| *state == "backup");
    wait_until("b hears a", || snapshot(&b), |b| b.active_router == Some(PRIMARY_A));
    wait_until("a has the VIP", || lan.has_vip("a"), |has| *has);
    wait_until("b has no VIP", || lan.has_vip("b"), |has| !has);
    assert!(snapshot(&b).advertisements_received > received);
    let after = snapshot(&a);
    assert_eq!((after.state, after.transitions), ("active", 2), "at no time anything else");
    assert_eq!(after.discarded.get("interface-reopened"), Some(&1));
    assert_eq!(after.discarded.get("vip-restored"), Some(&1));

    a.shutdown();
    assert_eq!(snapshot(&b).cause, "10.77.0.1 resigned");
    assert!(lan.has_vip("b"));
}

#[test]
fn an_active_director_goes_on_with_the_addresses_that_its_interface_is_given() {
    let lan = Lan::new();
    let a = lan.start("a", vec![router(150)]).unwrap();
    wait_until("a is active", || state(&a), |state| *state == "active");
    let b = lan.start("b", vec![router(100)]).unwrap();
    wait_until("b hears a", || snapshot(&b), |b| b.active_router == Some(PRIMARY_A));

    lan.ip("a", "addr flush dev e0");
    let unusable = |a: &RouterSnapshot| a.discarded.get("interface-unusable") > Some(&1);
    wait_until("a has seen it", || snapshot(&a), unusable);
    wait_until("b is active", || state(&b), |state| *state == "active");
    assert!(!lan.has_vip("a"), "as the first address it would take the others with it");

    lan.ip("a", "addr add 10.77.0.5/24 dev e0");
    let new = Some(Ipv4Addr::new(10, 77, 0, 5));
    wait_until("b hears a", || snapshot(&b), |b| b.active_router == new && b.state == "backup");
    wait_until("a has the VIP", || lan.has_vip("a"), |has| *has);
    assert_eq!((state(&a), snapshot(&a).active_router), ("active", new));
    a.shutdown();
    let left = lan.addresses("a");
    assert!(!left.contains("10.77.0.100") && left.contains("10.77.0.5/24"), "{left}");
}

#[test]
fn a_backup_whose_primary_address_changes_listens_on_and_takes_over_with_the_new_one() {
    let lan = Lan::new();
    let slow = |priority| RouterConfig { interval: Duration::from_secs(1), ..router(priority) };
    lan.ip("a", "addr add 10.77.0.100/24 dev e0");
    let a = lan.start("a", vec![slow(150)]).unwrap();
    let b = lan.start("b", vec![slow(100)]).unwrap();
    wait_until("b hears a", || snapshot(&b), |b| b.active_router == Some(PRIMARY_A));

    lan.ip("b", "addr del 10.77.0.2/24 dev e0");
    lan.ip("b", "addr add 10.77.0.6/24 dev e0");
    let reopened = |b: &RouterSnapshot| b.discarded.contains_key("interface-reopened");
    wait_until("b has seen it", || snapshot(&b), reopened);
    let received = snapshot(&b).advertisements_received;
    wait_until("b hears a", || snapshot(&b), |b| b.advertisements_received > received);
    assert_eq!((state(&b), snapshot(&b).transitions), ("backup", 1));

    a.shutdown();
    let b = snapshot(&b);
    assert_eq!((b.state, b.active_router), ("active", Some(Ipv4Addr::new(10, 77, 0, 6))));
}
