//! The transition table, and what holds for any sequence of events.

mod lan;

use proptest::prelude::*;

use super::*;

#[test]
fn backup_takes_over_after_the_active_down_interval() {
    let t0 = start();
    let mut router = router(100);
    assert_eq!(router.handle(t0, STARTUP), []);

    // 3 × 1000 ms + 1000 ms × 156/256.
    let down_at = t0 + Duration::from_micros(3_609_375);
    assert_eq!(router.deadline(), Some(down_at));
    assert_eq!(router.handle(down_at - MS, Event::Timeout), []);
    assert_eq!(router.handle(down_at, Event::Timeout), takeover(100));
    assert_eq!(router.cause().to_string(), "no advertisement for 3609 ms");
}

#[test]
fn the_owner_and_who_holds_the_vips_are_active_at_once() {
    for (priority, holding) in [(255, false), (255, true), (100, true)] {
        let mut router = router(priority);
        let actions = router.handle(start(), Event::Startup { holding });
        assert_eq!(actions, takeover(priority), "priority {priority}, holding {holding}");
    }
}

#[test]
fn who_holds_the_vips_and_does_not_preempt_listens_before_it_claims_them() {
    let t0 = start();
    let (mut router, actions) = resuming(t0, 100);
    assert_eq!(actions, [Action::TakeVips]);
    assert_eq!((router.state().name(), router.active_router()), ("resuming", None));

    let claim_at = t0 + Duration::from_micros(3_609_375);
    assert_eq!(router.deadline(), Some(claim_at));
    assert_eq!(router.handle(claim_at - MS, Event::Timeout), []);
    assert_eq!(router.handle(claim_at, Event::Timeout), takeover(100)[1..]);
    assert_eq!((router.state().name(), router.cause()), ("active", Cause::Held));

    let (mut owner, actions) = resuming(t0, 255);
    assert_eq!(actions, takeover(255), "the owner preempts whatever is configured");
    assert_eq!(owner.handle(t0, ad(254, PEER, SECOND)).len(), 2);
    assert_eq!(owner.state().name(), "active");
}

#[test]
fn a_tie_is_broken_by_the_primary_address_of_now() {
    let t0 = start();
    let mut router = router(100);
    router.handle(t0, Event::Startup { holding: true });
    router.set_primary([10, 77, 0, 9].into());
    assert_eq!(router.active_router(), Some([10, 77, 0, 9].into()));
    router.handle(t0 + MS, ad(100, "10.77.0.8", SECOND));
    assert_eq!(router.state().name(), "active");
    router.set_primary([10, 77, 0, 7].into());
    router.handle(t0 + 2 * MS, ad(100, "10.77.0.8", SECOND));
    assert_eq!(router.state().name(), "backup");
}

#[test]
fn a_resuming_router_leaves_the_vips_to_whoever_is_active() {
    for priority in [1, 100, 255] {
        let t0 = start();
        let (mut router, _) = resuming(t0, 100);
        let actions = router.handle(t0, ad(priority, PEER, 100 * MS));
        // That one shall announce the VIPs again: so far they were answered for here as well.
        assert_eq!(actions, [Action::Advertise { priority: 0 }, Action::ReleaseVips]);
        assert_eq!(router.state().name(), "backup");
        assert_eq!(router.cause().to_string(), "10.77.0.2 is active already");
        assert_eq!(router.active_router(), Some(PEER.parse().unwrap()));
        assert_eq!(router.deadline(), Some(t0 + Duration::from_nanos(360_937_500)), "its interval");
    }
}

#[test]
fn a_resuming_router_claims_the_vips_sooner_once_the_active_one_resigns() {
    let t0 = start();
    let (mut router, _) = resuming(t0, 100);
    assert_eq!(router.handle(t0 + SECOND, ad(0, PEER, 40 * SECOND)), []);
    let skewed = t0 + SECOND + Duration::from_micros(609_375);
    assert_eq!(router.deadline(), Some(skewed));
    router.handle(t0 + SECOND + MS, ad(0, PEER, SECOND));
    assert_eq!(router.deadline(), Some(skewed), "nobody can put it off by resigning again");
}

#[test]
fn a_resuming_router_resigns_as_an_active_one_does() {
    let t0 = start();
    let (mut router, _) = resuming(t0, 100);
    assert_eq!(router.handle(t0, Event::Shutdown), [Action::Advertise { priority: 0 }]);
    assert_eq!(router.cause(), Cause::Resigned);
    assert_eq!(router.handle(t0 + 2 * SECOND, Event::Timeout), [Action::ReleaseVips]);
    assert_eq!(router.state(), State::Initialize);
}

#[test]
fn backup_adopts_the_interval_of_the_active_router_and_skews_by_it() {
    let t0 = start();
    let mut router = backup(t0, params(100));
    router.handle(t0, ad(150, PEER, 200 * MS));
    // 3 × 200 ms + 200 ms × 156/256.
    assert_eq!(router.deadline(), Some(t0 + Duration::from_micros(721_875)));
    assert_eq!(router.active_router(), Some(PEER.parse().unwrap()));
}

#[test]
fn backup_heeds_who_is_at_least_as_good() {
    let cases = [
        // priority heard, preempt, timer restarted
        (101, true, true),
        (100, true, true),
        (99, true, false),
        (99, false, true),
    ];
    for (priority, preempt, restarted) in cases {
        let t0 = start();
        let mut router = backup(t0, Params { preempt, ..params(100) });
        let before = router.deadline();
        assert_eq!(router.handle(t0 + 500 * MS, ad(priority, PEER, SECOND)), []);
        assert_eq!(router.deadline() != before, restarted, "{priority}, preempt {preempt}");
    }
}

#[test]
fn a_resigned_active_router_is_followed_after_the_skew_time() {
    let t0 = start();
    let mut router = backup(t0, params(100));
    router.handle(t0, ad(150, PEER, 100 * MS));
    router.handle(t0 + 50 * MS, ad(0, PEER, 100 * MS));
    let at = t0 + 50 * MS + Duration::from_nanos(60_937_500);
    assert_eq!(router.deadline(), Some(at));
    assert_eq!(router.active_router(), None);
    assert_eq!(router.handle(at, Event::Timeout), takeover(100));
    assert_eq!(router.cause().to_string(), "10.77.0.2 resigned");
}

#[test]
fn active_yields_only_to_a_better_router() {
    let cases = [
        // priority, sender, yields
        (101, "10.77.0.1", true),
        (100, "10.77.0.9", true),
        (100, "10.77.0.1", false),
        (99, "10.77.0.9", false),
        (0, "10.77.0.9", false),
    ];
    for (priority, from, yields) in cases {
        let t0 = start();
        let mut router = active(t0, params(100));
        let actions = router.handle(t0, ad(priority, from, SECOND));
        // The one answers so that the other leaves; the other so that the one announces the VIPs.
        let second = if yields { Action::ReleaseVips } else { Action::Announce { copies: 1 } };
        let want = [Action::Advertise { priority: 100 }, second];
        assert_eq!(actions, want, "priority {priority} from {from}");
    }
}

#[test]
fn who_yields_waits_by_the_winners_interval() {
    let t0 = start();
    let mut router = active(t0, params(100));
    router.handle(t0, ad(150, PEER, 100 * MS));
    assert_eq!(router.cause().to_string(), "10.77.0.2 has priority 150");
    assert_eq!(router.deadline(), Some(t0 + Duration::from_nanos(360_937_500)));
}

#[test]
fn lesser_advertisements_neither_starve_nor_multiply_ours() {
    let t0 = start();
    let mut router = active(t0, params(100));
    let mut sent = Vec::new();
    let mut announced = 0;
    for at in (0..4000).map(|ms| t0 + ms * MS) {
        for event in [ad(99, PEER, SECOND), Event::Timeout] {
            for action in router.handle(at, event) {
                match action {
                    Action::Advertise { .. } => sent.push(at),
                    Action::Announce { copies } => announced += copies,
                    Action::TakeVips | Action::ReleaseVips => panic!("{action:?}"),
                }
            }
        }
    }
    let on_schedule = (1..4).map(|n| t0 + n * SECOND).all(|at| sent.contains(&at));
    assert!(on_schedule, "{sent:?}");
    assert!(sent.len() <= 8, "at most one answer per interval: {sent:?}");
    assert!(announced <= 8, "{announced}");
}

#[test]
fn an_announcement_that_comes_too_soon_is_put_off() {
    let t0 = start();
    let mut router = active(t0, params(100));
    assert_eq!(router.handle(t0, ad(99, PEER, SECOND)).len(), 2);
    assert_eq!(router.handle(t0 + MS, ad(99, PEER, SECOND)), []);
    assert_eq!(
        router.handle(t0 + SECOND, Event::Timeout),
        [Action::Advertise { priority: 100 }, Action::Announce { copies: 1 }],
    );
}

#[test]
fn the_vips_are_announced_once_more_after_five_seconds() {
    let t0 = start();
    let mut router = active(t0, params(100));
    let announced: Vec<_> = (1..20)
        .filter(|&s| {
            let actions = router.handle(t0 + s * SECOND, Event::Timeout);
            actions.contains(&Action::Announce { copies: 1 })
        })
        .collect();
    assert_eq!(announced, [5]);
}

#[test]
fn a_late_active_router_announces_the_vips_again() {
    for (late, announces) in [(1999, false), (2000, true), (60_000, true)] {
        let t0 = start();
        let mut router = active(t0, params(100));
        router.handle(t0 + 5 * SECOND, Event::Timeout);
        let actions = router.handle(t0 + 6 * SECOND + late * MS, Event::Timeout);
        assert_eq!(actions.contains(&Action::Announce { copies: 1 }), announces, "{late} ms late");
    }
}

#[test]
fn the_schedule_does_not_drift() {
    let t0 = start();
    let mut router = active(t0, params(100));
    router.handle(t0 + SECOND + 30 * MS, Event::Timeout);
    assert_eq!(router.deadline(), Some(t0 + 2 * SECOND));
}

#[test]
fn a_resigning_router_keeps_the_vips_until_it_hears_its_successor() {
    let t0 = start();
    let mut router = active(t0, params(100));
    assert_eq!(router.handle(t0, Event::Shutdown), [Action::Advertise { priority: 0 }]);
    assert_eq!(router.handle(t0, Event::Shutdown), []);
    assert_eq!(router.handle(t0 + MS, ad(0, PEER, SECOND)), [], "that one resigns as well");
    assert_eq!(router.handle(t0 + 2 * MS, ad(1, PEER, SECOND)), [Action::ReleaseVips]);
    assert_eq!(router.cause().to_string(), "10.77.0.2 took over");
    assert_eq!(router.deadline(), None);
}

#[test]
fn a_resigning_router_without_successor_leaves_after_two_intervals() {
    let t0 = start();
    let mut router = active(t0, params(100));
    router.handle(t0, Event::Shutdown);
    assert_eq!(router.handle(t0 + 2 * SECOND - MS, Event::Timeout), []);
    assert_eq!(router.handle(t0 + 2 * SECOND, Event::Timeout), [Action::ReleaseVips]);
    assert_eq!(router.cause(), Cause::NoSuccessor);
}

#[test]
fn preemption_waits_for_the_delay_while_a_lower_router_is_active() {
    let t0 = start();
    let delay = 10 * SECOND;
    let mut router = backup(t0, Params { preempt_delay: delay, ..params(100) });
    let took_over = (0..20).find(|&s| {
        let now = t0 + s * SECOND;
        router.handle(now, ad(50, PEER, SECOND));
        !router.handle(now, Event::Timeout).is_empty()
    });
    // Heeded up to 9 s; the timer runs out 3.6 s later.
    assert_eq!(took_over, Some(13));
    assert_eq!(router.cause().to_string(), "10.77.0.2 has the lower priority 50");
}

#[test]
fn the_preemption_delay_does_not_apply_when_nobody_is_active() {
    let t0 = start();
    let mut router = backup(t0, Params { preempt_delay: 10 * SECOND, ..params(100) });
    router.handle(t0 + SECOND, ad(50, PEER, SECOND));
    assert_eq!(router.deadline(), Some(t0 + SECOND + Duration::from_micros(3_609_375)));
}

#[test]
fn a_better_router_ends_the_wait_for_preemption() {
    let t0 = start();
    let mut router = backup(t0, Params { preempt_delay: 2 * SECOND, ..params(100) });
    router.handle(t0, ad(50, PEER, SECOND));
    router.handle(t0 + SECOND, ad(150, PEER, SECOND));
    router.handle(t0 + 3 * SECOND, ad(50, PEER, SECOND));
    let heeded = t0 + 3 * SECOND + Duration::from_micros(3_609_375);
    assert_eq!(router.deadline(), Some(heeded));
}

#[test]
fn events_that_change_nothing_are_listed() {
    let t0 = start();
    for (mut router, events) in [
        (router(100), vec![Event::Shutdown, Event::Timeout, ad(255, PEER, SECOND)]),
        (backup(t0, params(100)), vec![STARTUP, Event::Timeout, ad(50, PEER, SECOND)]),
        (resuming(t0, 100).0, vec![STARTUP, Event::Timeout]),
        (active(t0, params(100)), vec![STARTUP, Event::Timeout]),
    ] {
        let before = (router.state().name(), router.transitions(), router.deadline());
        for event in events {
            assert_eq!(router.handle(t0, event), [], "{event:?} in {}", before.0);
        }
        assert_eq!((router.state().name(), router.transitions(), router.deadline()), before);
    }
}

#[test]
fn backup_stops_without_a_word() {
    let mut router = backup(start(), params(100));
    assert_eq!(router.handle(start(), Event::Shutdown), []);
    assert_eq!(router.state(), State::Initialize);
}

proptest! {
    #[test]
    fn any_sequence_of_events_keeps_the_machine_sound(
        priority in 1u8..,
        preempt: bool,
        preempt_delay in (0u32..3000).prop_map(|ms| ms * MS),
        events in prop::collection::vec((0u32..400, any_event()), 1..200),
    ) {
        let mut now = start();
        let mut router = VirtualRouter::new(Params { preempt, preempt_delay, ..params(priority) });
        let mut holding = false;
        for (pause_ms, event) in events {
            now += pause_ms * MS;
            let (before, transitions) = (router.state().name(), router.transitions());
            for action in router.handle(now, event) {
                match action {
                    Action::TakeVips => {
                        prop_assert!(!holding, "taken twice");
                        holding = true;
                    }
                    Action::ReleaseVips => {
                        prop_assert!(holding, "released twice");
                        holding = false;
                    }
                    Action::Announce { .. } => prop_assert!(holding, "announced but not held"),
                    Action::Advertise { .. } => {}
                }
            }
            let after = router.state();
            let responsible = match after {
                State::Initialize | State::Backup { .. } => false,
                State::Resuming { .. } | State::Active { .. } | State::Resigning { .. } => true,
            };
            prop_assert_eq!(holding, responsible);
            let changed = u64::from(before != after.name());
            prop_assert_eq!(router.transitions(), transitions + changed);
            if event == Event::Timeout {
                prop_assert!(router.deadline().is_none_or(|at| at > now), "busy loop");
            }
        }
    }
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        1 => any::<bool>().prop_map(|holding| Event::Startup { holding }),
        1 => Just(Event::Shutdown),
        6 => Just(Event::Timeout),
        4 => (any::<u8>(), 1u8..20, 1u32..4096).prop_map(|(priority, host, centiseconds)| {
            let from = IpAddr::from([10, 77, 0, if host == 5 { 6 } else { host }]);
            Event::Advertisement(Heard { from, priority, interval: centiseconds * 10 * MS })
        }),
    ]
}

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const PEER: &str = "10.77.0.2";
const STARTUP: Event = Event::Startup { holding: false };

/// Some instant; all others are counted from it.
#[expect(clippy::disallowed_methods, reason = "there is no other way to make an Instant")]
fn start() -> Instant {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    *START.get_or_init(Instant::now)
}

fn params(priority: u8) -> Params {
    Params {
        primary: "10.77.0.5".parse().unwrap(),
        priority: NonZeroU8::new(priority).unwrap(),
        interval: SECOND,
        preempt: true,
        preempt_delay: Duration::ZERO,
    }
}

fn router(priority: u8) -> VirtualRouter {
    VirtualRouter::new(params(priority))
}

fn backup(t0: Instant, params: Params) -> VirtualRouter {
    let mut router = VirtualRouter::new(params);
    router.handle(t0, STARTUP);
    router
}

fn active(t0: Instant, params: Params) -> VirtualRouter {
    let mut router = VirtualRouter::new(params);
    router.handle(t0, Event::Startup { holding: true });
    router
}

/// A router without preemption that has just found the VIPs, and what it did.
fn resuming(t0: Instant, priority: u8) -> (VirtualRouter, Vec<Action>) {
    let mut router = VirtualRouter::new(Params { preempt: false, ..params(priority) });
    let actions = router.handle(t0, Event::Startup { holding: true });
    (router, actions)
}

fn ad(priority: u8, from: &str, interval: Duration) -> Event {
    Event::Advertisement(Heard { from: from.parse().unwrap(), priority, interval })
}

/// The order matters: see the module's documentation.
fn takeover(priority: u8) -> Vec<Action> {
    vec![Action::TakeVips, Action::Announce { copies: 3 }, Action::Advertise { priority }]
}
