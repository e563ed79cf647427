//! A LAN of virtual routers with a simulated clock: loss, delay, partitions, freezes, kills and
//! restarts, all from a seed; then quiet, in which one active router is to remain.

use std::{cmp::Reverse, collections::BinaryHeap};

use proptest::prelude::*;

use super::{super::*, MS, start};

const INTERVAL: Duration = Duration::from_millis(100);
/// How long things go wrong.
const TROUBLE: Duration = Duration::from_secs(20);
/// How long things have to be right until all must have settled: the slowest active-down interval is
/// four intervals, and a preemption delay comes before it.
const QUIET: Duration = Duration::from_secs(2);

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn one_active_router_remains_when_packets_are_no_longer_lost(seed: u64, count in 1usize..6) {
        let mut lan = Lan::new(seed, count, Trouble { loss_percent: 30, preempt_always: false });
        lan.run();
        prop_assert_eq!(lan.active().len(), 1, "{}", lan.describe());
        prop_assert_eq!(lan.holding(), lan.active(), "{}", lan.describe());
    }

    #[test]
    fn with_preemption_the_highest_priority_remains(seed: u64, count in 1usize..6) {
        let mut lan = Lan::new(seed, count, Trouble { loss_percent: 30, preempt_always: true });
        lan.run();
        let priorities: Vec<_> = lan.active().iter().map(|&i| lan.priority(i)).collect();
        let best = (0..count).map(|i| lan.priority(i)).max();
        prop_assert_eq!(priorities, Vec::from_iter(best), "{}", lan.describe());
    }

    /// The finding that others leave clients in the dark for seconds after a partition.
    #[test]
    fn clients_end_at_the_active_router(seed: u64, count in 2usize..5) {
        let mut lan = Lan::new(seed, count, Trouble { loss_percent: 0, preempt_always: false });
        lan.run();
        prop_assert_eq!(lan.active(), Vec::from_iter(lan.client), "{}", lan.describe());
    }
}

#[test]
fn a_router_that_was_killed_leaves_the_vips_to_its_successor_unless_it_preempts() {
    for seed in 0..100 {
        for preempt in [false, true] {
            let mut lan = Lan::killed_and_succeeded(seed, preempt);
            let handed_over = lan.hosts[1].router.transitions();
            assert_eq!((lan.active(), lan.holding()), (vec![1], vec![0, 1]), "{}", lan.describe());

            lan.handle(0, Event::Startup { holding: true });
            lan.pass(QUIET);
            let remaining = usize::from(!preempt);
            assert_eq!(lan.active(), [remaining], "{}", lan.describe());
            assert_eq!(lan.holding(), [remaining], "{}", lan.describe());
            assert_eq!(lan.client, Some(remaining), "{}", lan.describe());
            let undisturbed = lan.hosts[1].router.transitions() == handed_over;
            assert_eq!(undisturbed, !preempt, "{}", lan.describe());
        }
    }
}

#[test]
fn a_router_that_is_killed_and_resumes_while_another_takes_over_leaves_no_gap() {
    for seed in 0..100 {
        let mut lan = Lan::settled_on_the_first(seed, false);
        lan.hosts[0].router = VirtualRouter::new(lan.hosts[0].params);
        let pause = u32::try_from(lan.random.below(500)).unwrap();
        lan.pass(pause * MS);
        lan.handle(0, Event::Startup { holding: true });
        for _ in 0..QUIET.as_millis() {
            lan.pass(MS);
            assert!(!lan.holding().is_empty(), "{}", lan.describe());
        }
        assert_eq!(lan.active().len(), 1, "{}", lan.describe());
        assert_eq!(lan.active(), Vec::from_iter(lan.client), "{}", lan.describe());
    }
}

#[derive(Clone, Copy)]
struct Trouble {
    loss_percent: u64,
    preempt_always: bool,
}

struct Lan {
    now: Instant,
    random: Random,
    trouble: Trouble,
    hosts: Vec<Host>,
    in_flight: BinaryHeap<Reverse<(Instant, u64, usize, Packet)>>,
    sequence: u64,
    /// The host whose announcement the client heard last.
    client: Option<usize>,
}

struct Host {
    router: VirtualRouter,
    params: Params,
    holding: bool,
    /// Handles nothing before.
    frozen_until: Instant,
    /// Hears only those on the same side.
    side: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Packet {
    Advertisement { to: usize, priority: u8 },
    Announcement,
}

impl Lan {
    fn new(seed: u64, count: usize, trouble: Trouble) -> Self {
        let mut random = Random(seed);
        let hosts = (0..count)
            .map(|i| {
                let params = Params {
                    primary: IpAddr::from([10, 77, 0, u8::try_from(i).unwrap() + 1]),
                    // Few values, so that ties are common.
                    priority: NonZeroU8::new([50, 100, 150, 255][random.below(4)]).unwrap(),
                    interval: INTERVAL,
                    preempt: trouble.preempt_always || random.below(2) == 0,
                    preempt_delay: [0, 500][random.below(2)] * MS,
                };
                let router = VirtualRouter::new(params);
                Host { router, params, holding: false, frozen_until: start(), side: false }
            })
            .collect();
        let in_flight = BinaryHeap::new();
        Self { now: start(), random, trouble, hosts, in_flight, sequence: 0, client: None }
    }

    /// Two hosts, of which the first has the higher priority and is active.
    fn settled_on_the_first(seed: u64, preempt: bool) -> Self {
        let mut lan = Self::new(seed, 2, Trouble { loss_percent: 0, preempt_always: preempt });
        for (i, priority) in [150, 50].into_iter().enumerate() {
            let host = &mut lan.hosts[i];
            host.params.priority = NonZeroU8::new(priority).unwrap();
            host.params.preempt = preempt;
            host.params.preempt_delay = Duration::ZERO;
            host.router = VirtualRouter::new(host.params);
            lan.handle(i, Event::Startup { holding: false });
        }
        lan.pass(QUIET);
        assert_eq!(lan.active(), [0], "{}", lan.describe());
        lan
    }

    /// The first was killed, its VIPs are in place, and the second is active.
    fn killed_and_succeeded(seed: u64, preempt: bool) -> Self {
        let mut lan = Self::settled_on_the_first(seed, preempt);
        lan.hosts[0].router = VirtualRouter::new(lan.hosts[0].params);
        lan.pass(QUIET);
        // A host has asked who has the VIP, and the killed one's kernel was the first to answer.
        lan.client = Some(0);
        lan
    }

    fn run(&mut self) {
        for i in 0..self.hosts.len() {
            self.handle(i, Event::Startup { holding: false });
        }
        while self.now < start() + TROUBLE {
            let pause = u32::try_from(self.random.below(1500)).unwrap();
            self.pass(pause * MS);
            self.make_trouble();
        }
        self.trouble.loss_percent = 0;
        for i in 0..self.hosts.len() {
            self.hosts[i].side = false;
            self.hosts[i].frozen_until = self.now;
            self.handle(i, Event::Startup { holding: self.hosts[i].holding });
        }
        self.pass(QUIET);
        // Those who were still resigning have left by now, and can be started.
        for i in 0..self.hosts.len() {
            self.handle(i, Event::Startup { holding: self.hosts[i].holding });
        }
        self.pass(QUIET);
    }

    fn make_trouble(&mut self) {
        let i = self.random.below(self.hosts.len());
        match self.random.below(6) {
            // A loser that is cut off before its last advertisement is through cannot be made up for.
            0 if self.trouble.loss_percent > 0 || self.is_settled() => {
                self.hosts[i].side = !self.hosts[i].side;
            }
            0 => {}
            1 => self.hosts.iter_mut().for_each(|host| host.side = false),
            2 => self.hosts[i].frozen_until = self.now + [50, 250, 1000][self.random.below(3)] * MS,
            // Who leaves unheard can tell nobody that clients have to look elsewhere.
            3 if self.trouble.loss_percent > 0 || !self.is_partitioned() => {
                self.handle(i, Event::Shutdown);
            }
            3 => {}
            4 => self.handle(i, Event::Startup { holding: self.hosts[i].holding }),
            _ => {
                // Killed, and started at once by a supervisor.
                let host = &mut self.hosts[i];
                host.router = VirtualRouter::new(host.params);
                self.handle(i, Event::Startup { holding: self.hosts[i].holding });
            }
        }
    }

    /// Lets time pass: what arrives is handled before a timeout of the same moment.
    fn pass(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            let arrival = self.in_flight.peek().map(|Reverse((at, ..))| *at);
            let timeout = (0..self.hosts.len())
                .filter_map(|i| {
                    let host = &self.hosts[i];
                    Some((host.router.deadline()?.max(host.frozen_until), i))
                })
                .min();
            match (arrival, timeout) {
                (Some(at), timeout) if at <= end && timeout.is_none_or(|(due, _)| at <= due) => {
                    self.now = self.now.max(at);
                    self.deliver();
                }
                (_, Some((due, i))) if due <= end => {
                    self.now = self.now.max(due);
                    self.handle(i, Event::Timeout);
                    let deadline = self.hosts[i].router.deadline();
                    assert!(deadline.is_none_or(|at| at > self.now), "busy loop");
                }
                _ => break,
            }
        }
        self.now = end;
    }

    fn deliver(&mut self) {
        let Some(Reverse((_, sequence, from, packet))) = self.in_flight.pop() else { return };
        match packet {
            Packet::Announcement => self.client = Some(from),
            Packet::Advertisement { to, .. } if self.hosts[to].frozen_until > self.now => {
                // Waits in the socket's queue.
                let at = self.hosts[to].frozen_until;
                self.in_flight.push(Reverse((at, sequence, from, packet)));
            }
            Packet::Advertisement { to, priority } => {
                let Params { primary, interval, .. } = self.hosts[from].params;
                let heard = Heard { from: primary, priority, interval };
                self.handle(to, Event::Advertisement(heard));
            }
        }
    }

    fn handle(&mut self, i: usize, event: Event) {
        for action in self.hosts[i].router.handle(self.now, event) {
            match action {
                Action::TakeVips => self.hosts[i].holding = true,
                Action::ReleaseVips => self.hosts[i].holding = false,
                Action::Announce { .. } => self.send(i, MS, Packet::Announcement),
                Action::Advertise { priority } => self.advertise(i, priority),
            }
        }
    }

    fn advertise(&mut self, from: usize, priority: u8) {
        for to in (0..self.hosts.len()).filter(|&to| to != from) {
            let cut = self.hosts[to].side != self.hosts[from].side;
            let lost = self.random.next() % 100 < self.trouble.loss_percent;
            // At least as slow as an announcement: those of one host do not overtake each other.
            let delay = u32::try_from(1 + self.random.below(20)).unwrap() * MS;
            if !cut && !lost {
                self.send(from, delay, Packet::Advertisement { to, priority });
            }
        }
    }

    fn send(&mut self, from: usize, delay: Duration, packet: Packet) {
        self.sequence += 1;
        self.in_flight.push(Reverse((self.now + delay, self.sequence, from, packet)));
    }

    fn is_settled(&self) -> bool {
        self.active().len() <= 1 && self.in_flight.is_empty()
    }

    fn is_partitioned(&self) -> bool {
        self.hosts.iter().any(|host| host.side != self.hosts[0].side)
    }

    fn active(&self) -> Vec<usize> {
        let is_active = |&i: &usize| matches!(self.hosts[i].router.state(), State::Active { .. });
        (0..self.hosts.len()).filter(is_active).collect()
    }

    fn holding(&self) -> Vec<usize> {
        (0..self.hosts.len()).filter(|&i| self.hosts[i].holding).collect()
    }

    fn priority(&self, i: usize) -> NonZeroU8 {
        self.hosts[i].params.priority
    }

    fn describe(&self) -> String {
        let hosts: Vec<_> = self
            .hosts
            .iter()
            .map(|host| {
                let Params { priority, preempt, .. } = host.params;
                let (state, cause) = (host.router.state().name(), host.router.cause());
                format!("priority {priority}, preempt {preempt}: {state}, {cause}")
            })
            .collect();
        format!("{hosts:#?}, client at {:?}", self.client)
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(bound).unwrap()).unwrap()
    }
}
