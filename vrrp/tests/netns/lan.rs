//! The namespaces, the cable, and what the tests ask of the directors in them.

use std::{
    fmt::Debug,
    fs::File,
    net::Ipv4Addr,
    num::NonZeroU8,
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use nix::sched::{CloneFlags, setns};
use vrrp::{Observer, Role, RouterConfig, RouterSnapshot, StartError, Vip, Vrrp};

/// Two namespaces, `a` and `b`, each with an end `e0` of a cable; deleted when dropped.
pub(crate) struct Lan {
    id: String,
    roles: Arc<Mutex<Vec<(&'static str, Role)>>>,
}

impl Lan {
    pub(crate) fn new() -> Self {
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

    pub(crate) fn lay_cable(&self) {
        self.ip("a", &format!("link add e0 type veth peer name e0 netns {}-b", self.id));
        for (host, address) in [("a", PRIMARY_A), ("b", PRIMARY_B)] {
            self.ip(host, &format!("addr add {address}/24 dev e0"));
            self.ip(host, "link set e0 up");
        }
    }

    /// A VRRP thread belongs to the namespace of the thread that starts it.
    pub(crate) fn start(
        &self,
        host: &'static str,
        routers: Vec<RouterConfig>,
    ) -> Result<Vrrp, StartError> {
        let netns = File::open(self.netns(host)).unwrap();
        let observer = Box::new(Recorder { host, roles: Arc::clone(&self.roles) });
        let start = move || {
            setns(netns, CloneFlags::CLONE_NEWNET).unwrap();
            Vrrp::start(routers, observer)
        };
        thread::spawn(start).join().unwrap()
    }

    pub(crate) fn netns(&self, host: &str) -> String {
        format!("/run/netns/{}-{host}", self.id)
    }

    pub(crate) fn ip(&self, host: &str, args: &str) -> String {
        ip(&format!("-n {}-{host} {args}", self.id))
    }

    pub(crate) fn addresses(&self, host: &str) -> String {
        self.ip(host, "-o -4 addr show")
    }

    pub(crate) fn has_vip(&self, host: &str) -> bool {
        self.addresses(host).contains("10.77.0.100/24")
    }

    pub(crate) fn roles(&self) -> Vec<(&'static str, Role)> {
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

pub(crate) struct Recorder {
    host: &'static str,
    roles: Arc<Mutex<Vec<(&'static str, Role)>>>,
}

impl Observer for Recorder {
    fn role(&mut self, _router: &str, role: Role) {
        self.roles.lock().unwrap().push((self.host, role));
    }
}

pub(crate) struct Panics;

impl Observer for Panics {
    fn role(&mut self, _router: &str, _role: Role) {
        panic!("an observer panics");
    }
}

pub(crate) const PRIMARY_A: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
pub(crate) const PRIMARY_B: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);

/// The interval is long enough for a busy machine not to miss three of them.
pub(crate) fn router(priority: u8) -> RouterConfig {
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

pub(crate) fn vip(last: u8) -> Vip {
    Vip { address: Ipv4Addr::new(10, 77, 0, last), prefix_len: 24 }
}

pub(crate) fn snapshot(vrrp: &Vrrp) -> RouterSnapshot {
    vrrp.snapshot().remove(0)
}

pub(crate) fn state(vrrp: &Vrrp) -> &'static str {
    snapshot(vrrp).state
}

/// Asks until the answer is right; says what it last was when that takes too long.
#[track_caller]
#[expect(clippy::disallowed_methods, reason = "a real system takes real time")]
pub(crate) fn wait_until<T: Debug>(what: &str, ask: impl Fn() -> T, right: impl Fn(&T) -> bool) {
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
pub(crate) fn ip(args: &str) -> String {
    let output = Command::new("ip").args(args.split_whitespace()).output().expect("run ip");
    assert!(output.status.success(), "ip {args}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
