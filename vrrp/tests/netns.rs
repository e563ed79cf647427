//! Two directors in network namespaces of their own, joined by a cable; needs root.
#![expect(clippy::unwrap_used, reason = "a test fails by it")]

use std::{
    collections::BTreeMap,
    fmt::Debug,
    fs::File,
    net::Ipv4Addr,
    num::NonZeroU8,
    os::unix::process::ExitStatusExt,
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use nix::{
    sched::{CloneFlags, setns},
    sys::signal::Signal,
};
use vrrp::{Observer, Role, RouterConfig, RouterSnapshot, StartError, Vip, Vrrp};

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

/// Runs itself: what is tested ends the process.
#[test]
fn a_panic_on_the_vrrp_thread_aborts_the_process() {
    const NETNS: &str = "VRRP_TEST_PANIC_IN_NETNS";
    if let Ok(netns) = std::env::var(NETNS) {
        setns(File::open(netns).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
        let _ = Vrrp::start(vec![router(150)], Box::new(Panics));
        return;
    }
    let lan = Lan::new();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_panic_on_the_vrrp_thread_aborts_the_process", "--nocapture"])
        .env(NETNS, lan.netns("a"))
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("an observer panics"), "{stderr}");
    assert_eq!(output.status.signal(), Some(Signal::SIGABRT as i32), "{stderr}");
}

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

/// Two namespaces, `a` and `b`, each with an end `e0` of a cable; deleted when dropped.
struct Lan {
    id: String,
    roles: Arc<Mutex<Vec<(&'static str, Role)>>>,
}

impl Lan {
    fn new() -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let n = COUNTER.fetch_add(1, Ordering::Relaxed);
        let lan = Self { id: format!("vrrp-{}-{n}", std::process::id()), roles: Arc::default() };
        for host in ["a", "b"] {
            ip(&format!("netns add {}-{host}", lan.id));
            lan.ip(host, "link set lo up");
        }
        lan.lay_cable();
        lan
    }

    fn lay_cable(&self) {
        self.ip("a", &format!("link add e0 type veth peer name e0 netns {}-b", self.id));
        for (host, address) in [("a", PRIMARY_A), ("b", PRIMARY_B)] {
            self.ip(host, &format!("addr add {address}/24 dev e0"));
            self.ip(host, "link set e0 up");
        }
    }

    /// A VRRP thread belongs to the namespace of the thread that starts it.
    fn start(&self, host: &'static str, routers: Vec<RouterConfig>) -> Result<Vrrp, StartError> {
        let netns = File::open(self.netns(host)).unwrap();
        let observer = Box::new(Recorder { host, roles: Arc::clone(&self.roles) });
        let start = move || {
            setns(netns, CloneFlags::CLONE_NEWNET).unwrap();
            Vrrp::start(routers, observer)
        };
        thread::spawn(start).join().unwrap()
    }

    fn netns(&self, host: &str) -> String {
        format!("/run/netns/{}-{host}", self.id)
    }

    fn ip(&self, host: &str, args: &str) -> String {
        ip(&format!("-n {}-{host} {args}", self.id))
    }

    fn addresses(&self, host: &str) -> String {
        self.ip(host, "-o -4 addr show")
    }

    fn has_vip(&self, host: &str) -> bool {
        self.addresses(host).contains("10.77.0.100/24")
    }

    fn roles(&self) -> Vec<(&'static str, Role)> {
        self.roles.lock().unwrap().clone()
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        for host in ["a", "b"] {
            // Not `ip`: a panic in `drop` while a test unwinds would abort the whole run.
            let _ =
                Command::new("ip").args(["netns", "del", &format!("{}-{host}", self.id)]).status();
        }
    }
}

struct Recorder {
    host: &'static str,
    roles: Arc<Mutex<Vec<(&'static str, Role)>>>,
}

impl Observer for Recorder {
    fn role(&mut self, _router: &str, role: Role) {
        self.roles.lock().unwrap().push((self.host, role));
    }
}

struct Panics;

impl Observer for Panics {
    fn role(&mut self, _router: &str, _role: Role) {
        panic!("an observer panics");
    }
}

const PRIMARY_A: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const PRIMARY_B: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);

/// The interval is long enough for a busy machine not to miss three of them.
fn router(priority: u8) -> RouterConfig {
    RouterConfig {
        name: "web".into(),
        interface: "e0".into(),
        vrid: NonZeroU8::new(51).unwrap(),
        priority: NonZeroU8::new(priority).unwrap(),
        interval: Duration::from_millis(100),
        preempt: true,
        preempt_delay: Duration::ZERO,
        vips: vec![vip(100)],
        more_vips: vec![],
    }
}

fn vip(last: u8) -> Vip {
    Vip { address: Ipv4Addr::new(10, 77, 0, last), prefix_len: 24 }
}

fn snapshot(vrrp: &Vrrp) -> RouterSnapshot {
    vrrp.snapshot().remove(0)
}

fn state(vrrp: &Vrrp) -> &'static str {
    snapshot(vrrp).state
}

/// Asks until the answer is right; says what it last was when that takes too long.
#[track_caller]
#[expect(clippy::disallowed_methods, reason = "a real system takes real time")]
fn wait_until<T: Debug>(what: &str, ask: impl Fn() -> T, right: impl Fn(&T) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let last = ask();
        if right(&last) {
            return;
        }
        assert!(Instant::now() < deadline, "waited for: {what}; last: {last:#?}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[track_caller]
fn ip(args: &str) -> String {
    let output = Command::new("ip").args(args.split_whitespace()).output().expect("run ip");
    assert!(output.status.success(), "ip {args}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
