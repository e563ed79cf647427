//! Changes of the configuration while it runs.

use std::num::NonZeroU8;

use vrrp::{Role, RouterConfig};

use crate::lan::*;

#[test]
fn every_reconfiguration_ends_with_a_report_of_the_roles() {
    let lan = Lan::new();
    let a = lan.start("a", vec![router(150)]).unwrap();
    wait_until("a is active", || state(&a), |state| *state == "active");
    let reported = || lan.roles().len();
    let before = reported();

    a.reconfigure(vec![router(150)]).unwrap();
    assert_eq!(lan.roles()[before..], [("a", Role::Active)]);

    // The changed one waits for its predecessor, which resigns.
    let before = reported();
    a.reconfigure(vec![router(151)]).unwrap();
    wait_until("it is active again", || snapshot(&a), |a| a.priority == 151 && a.state == "active");
    let roles = [("a", Role::Active), ("a", Role::Inactive), ("a", Role::Active)];
    assert_eq!(lan.roles()[before..], roles, "first its predecessor's");

    let before = reported();
    a.reconfigure(vec![router(151), RouterConfig { interface: "nope".into(), ..router(1) }])
        .unwrap_err();
    assert_eq!(reported(), before, "nothing has changed");
}

#[test]
fn a_check_refuses_what_a_reconfiguration_would_and_changes_nothing() {
    let lan = Lan::new();
    let a = lan.start("a", vec![router(150)]).unwrap();
    wait_until("a is active", || state(&a), |state| *state == "active");
    let other = |interface: &str| RouterConfig {
        name: "other".into(),
        interface: interface.into(),
        vrid: NonZeroU8::MIN,
        vips: vec![vip(101)],
        ..router(150)
    };
    let (roles, addresses) = (lan.roles(), lan.addresses("a"));

    a.check(&[other("e0")]).unwrap();
    let refused = |routers: &[RouterConfig]| a.check(routers).unwrap_err().to_string();
    assert_eq!(
        refused(&[router(150), other("nope")]),
        "virtual router other on nope: no such interface"
    );
    assert_eq!(
        refused(&[router(150), router(100)]),
        "virtual router web on e0: another virtual router has the same name"
    );

    let after = a.snapshot();
    assert_eq!(after.len(), 1);
    assert_eq!(
        (after[0].name.as_str(), after[0].state, after[0].transitions),
        ("web", "active", 2)
    );
    assert_eq!((lan.roles(), lan.addresses("a")), (roles, addresses));
}

#[test]
fn reconfiguring_touches_only_what_has_changed() {
    let lan = Lan::new();
    let other = || RouterConfig {
        name: "other".into(),
        vrid: NonZeroU8::MIN,
        vips: vec![vip(101)],
        more_vips: vec![vip(103)],
        ..router(150)
    };
    let a = lan.start("a", vec![router(150), other()]).unwrap();
    let states = || a.snapshot().iter().map(|router| router.state).collect::<Vec<_>>();
    wait_until("both are active", states, |states| *states == ["active", "active"]);
    let sent = snapshot(&a).advertisements_sent;
    assert!(lan.addresses("a").contains("10.77.0.103/24"), "follows without being advertised");

    let mut broken = other();
    broken.interface = "nope".into();
    let error = a.reconfigure(vec![router(100), broken]).unwrap_err();
    assert_eq!(error.to_string(), "virtual router other on nope: no such interface");
    assert_eq!(states(), ["active", "active"], "nothing has changed");

    let with_one_more = RouterConfig { vips: vec![vip(101), vip(102)], ..other() };
    a.reconfigure(vec![with_one_more, router(150)]).unwrap();
    let changed = || a.snapshot().remove(0);
    wait_until("it is active again", changed, |it| it.vips.len() == 2 && it.state == "active");
    assert_eq!(changed().cause, "started with the VIPs in place", "nobody else wanted them");
    let untouched = a.snapshot().remove(1);
    assert_eq!((untouched.state, untouched.transitions), ("active", 2));
    assert!(untouched.advertisements_sent > sent);

    a.reconfigure(vec![router(150)]).unwrap();
    wait_until("it has left", || a.snapshot().len(), |len| *len == 1);
    let left = lan.addresses("a");
    let gone = ["10.77.0.101", "10.77.0.102", "10.77.0.103"];
    assert!(gone.iter().all(|address| !left.contains(address)), "{left}");
    assert!(lan.has_vip("a"));
}

#[test]
fn what_cannot_run_is_refused_with_its_name() {
    let lan = Lan::new();
    let on = |interface: &str| RouterConfig { interface: interface.into(), ..router(150) };
    let refused = |routers| lan.start("a", routers).err().unwrap().to_string();
    assert_eq!(refused(vec![on("nope")]), "virtual router web on nope: no such interface");
    assert_eq!(
        refused(vec![on("lo")]),
        "virtual router web on lo: hardware type 772, expected 1 (Ethernet)"
    );
    lan.ip("a", "addr flush dev e0");
    assert_eq!(
        refused(vec![on("e0")]),
        "virtual router web on e0: no IPv4 address other than VIPs, expected one"
    );
}
