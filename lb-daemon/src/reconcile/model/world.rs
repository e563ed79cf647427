//! Clients, the operator, time, and what was promised.

use std::time::Duration;

use lb_ebpf::{
    flow::{FlowKey, Phase},
    hash,
    tracking::Why,
};

use super::*;
use crate::{
    maglev::Table,
    reconcile::tests::{address, service},
    service::Tracking,
};

/// Few, so that flows share a slot.
const SLOTS: u32 = 31;
const START: Seconds = 1000;
/// A client that has had no answer gives up.
const GIVES_UP: Seconds = 128;
/// Then a real server that was deleted may be back and have its flows.
const BACK_WITHIN: Seconds = 300;
/// What may yet come after a FIN.
const LINGERS: Seconds = 60;

#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    pub(super) idle: Seconds,
    pub(super) drain: Seconds,
}

/// The first service hashes flows of deleted real servers again, the second has them reset.
pub(super) struct World {
    rules: Rules,
    kernel: Kernel,
    desired: Desired,
    installed: Installed,
    /// By service and slot, as Maglev says.
    owners: [Vec<Option<Ipv4Addr>>; 2],
    flows: Vec<Flow>,
    clients: u32,
    /// The initial sequence number of the last client.
    sequence: u32,
}

#[derive(Clone, Debug)]
struct Flow {
    service: usize,
    key: FlowKey,
    slot: usize,
    /// Of its SYN.
    sequence: u32,
    state: State,
    /// That it began with.
    server: Ipv4Addr,
    /// When its last packet came, or when its slot changed hands for the first time.
    seen: Seconds,
    /// Since when another has its slot.
    lost: Option<Seconds>,
    /// Since when its real server is deleted.
    gone: Option<Seconds>,
    /// Its slot has always had this owner.
    is_stateless: bool,
    /// It must reach its real server.
    is_promised: bool,
    /// A note of it was seen in the maps.
    was_noted: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    /// Since the first SYN, and whether the pool has changed meanwhile.
    Opening {
        since: Seconds,
        changed: bool,
    },
    Established,
    Closing,
}

impl World {
    pub(super) fn new(rules: Rules, room: (usize, usize)) -> Self {
        let pool = [(11, 1), (12, 1), (13, 1)];
        let services = [OnDown::Rehash, OnDown::Reset].into_iter().zip([80, 81]);
        let services = services.map(|(on_down, port)| {
            let seconds = |seconds: Seconds| Duration::from_secs(seconds.into());
            let tracking = Tracking {
                on_down,
                drain_timeout: seconds(rules.drain),
                idle_timeout: seconds(rules.idle),
            };
            VirtualService {
                table_size: SLOTS,
                tracking: Some(tracking),
                ..service("", port, &pool)
            }
        });
        let desired = Desired { services: services.collect(), ..Desired::default() };
        let mut world = Self {
            rules,
            kernel: Kernel::new(START, room),
            desired,
            installed: Installed::default(),
            owners: [vec![], vec![]],
            flows: Vec::new(),
            clients: 0,
            sequence: 0,
        };
        world.reconcile(None);
        world
    }

    pub(super) fn step(&mut self, step: &Step) {
        match step {
            Step::Change(change) => self.change(change, None),
            Step::Crash(change, done) => self.change(change, Some(*done)),
            Step::Restart => {
                self.installed = self.kernel.installed();
                let mut ops = self.reconcile(None);
                // What an aging has made free goes with the next.
                ops.retain(|op| !matches!(op, MapOp::FreeRealServer { .. }));
                assert_eq!(ops, [], "a restart changes nothing");
            }
            Step::Age => {
                self.age();
            }
            Step::Wait(seconds) => self.wait(*seconds),
            Step::Open(service) => {
                let key = self.stranger(*service);
                let sequence = self.new_sequence();
                self.begin(*service, key, sequence);
            }
            Step::RepeatSyn(flow) => self.with(*flow, Self::repeat_syn),
            Step::Talk(flow) => self.with(*flow, |world, flow| world.send(flow, Phase::Middle)),
            Step::TalkAll => {
                for flow in std::mem::take(&mut self.flows) {
                    self.send(flow, Phase::Middle);
                }
            }
            Step::Close(flow) => self.with(*flow, |world, flow| {
                // Who has had no answer has nothing to close.
                match flow.state {
                    State::Opening { .. } => world.flows.push(flow),
                    State::Established | State::Closing => world.send(flow, Phase::Closing),
                }
            }),
            Step::Reopen(flow) => self.with(*flow, |world, flow| match flow.state {
                State::Closing => {
                    world.begin(flow.service, flow.key, flow.sequence.wrapping_add(1 << 30));
                }
                State::Opening { .. } | State::Established => world.flows.push(flow),
            }),
            Step::Vanish(flow) => self.with(*flow, |_, _| ()),
            Step::Impostor(flow) => self.with(*flow, |world, flow| {
                let sequence = flow.sequence.wrapping_add(1 << 31);
                world.packet(flow.service, &flow.key, Phase::Opening, sequence);
                // One that begins or ends, or whose real server is gone, has no note that stands.
                let is_kept = flow.state == State::Established && flow.gone.is_none();
                let is_promised = flow.is_promised && is_kept;
                world.flows.push(Flow { is_promised, ..flow });
            }),
            Step::SynFlood(packets) => self.flood(*packets, &[Phase::Opening]),
            Step::SpoofedData(packets) => self.flood(*packets, &[Phase::Middle]),
            Step::SpoofedConnections(packets) => {
                self.flood(*packets, &[Phase::Opening, Phase::Middle]);
            }
        }
    }

    /// Takes a flow out; what is done with it puts it back if it goes on.
    fn with(&mut self, flow: usize, act: impl FnOnce(&mut Self, Flow)) {
        if !self.flows.is_empty() {
            let flow = self.flows.remove(flow % self.flows.len());
            act(self, flow);
        }
    }

    /// A new flow, or one that uses the port of another again.
    fn begin(&mut self, service: usize, key: FlowKey, sequence: u32) {
        let slot = hash::slot(hash::flow(&key), SLOTS) as usize;
        let owner = self.owners[service][slot];
        let outcome = self.packet(service, &key, Phase::Opening, sequence);
        match outcome.why {
            Why::Steady | Why::Opening => assert_eq!(outcome.to, owner, "{outcome:?}"),
            Why::Overflow => {
                assert!(self.kernel.overflowed.get(), "there was room");
                assert!(self.is_member(service, outcome.to), "{outcome:?}");
            }
            // It never was a connection: its FIN is not noted.
            Why::Noted => assert!(self.kernel.overflowed.get(), "{outcome:?}"),
            Why::Previous | Why::Rehashed | Why::Reset => {
                panic!("not as a new flow: {outcome:?}")
            }
        }
        let Some(server) = outcome.to else { return };
        let now = self.kernel.now;
        let mut flow = Flow {
            service,
            key,
            slot,
            sequence,
            state: State::Opening { since: now, changed: false },
            server,
            seen: now,
            lost: None,
            gone: None,
            is_stateless: outcome.why == Why::Steady,
            // It took the way of the owner of before, whose time may be over soon.
            is_promised: outcome.why != Why::Overflow,
            was_noted: false,
        };
        flow.was_noted = self.is_noted(&flow);
        self.flows.push(flow);
    }

    fn repeat_syn(&mut self, flow: Flow) {
        let State::Opening { since, changed } = flow.state else {
            self.flows.push(flow);
            return;
        };
        let owner = self.owners[flow.service][flow.slot];
        let outcome = self.packet(flow.service, &flow.key, Phase::Opening, flow.sequence);
        let same = outcome.to == Some(flow.server);
        if same {
            assert_eq!(flow.gone, None);
            let flow = Flow { seen: self.kernel.now, ..flow };
            self.flows.push(flow);
            return;
        }
        let has_waited = self.kernel.now - since >= GIVES_UP;
        let was_kept = flow.is_promised && !changed && !has_waited && !self.has_lost_note(&flow);
        assert!(!was_kept, "{flow:?}: {outcome:?}");
        if outcome.why != Why::Overflow {
            assert_eq!(outcome.to, owner, "{flow:?}: {outcome:?}");
        }
        // It has begun anew, elsewhere; both may answer, and nothing can be promised.
    }

    fn send(&mut self, mut flow: Flow, phase: Phase) {
        if self.has_lost_note(&flow) {
            flow.is_promised = false;
        }
        let owner = self.owners[flow.service][flow.slot];
        // A connection that lives may be anywhere, but not where an impostor would be believed.
        let sent = if flow.is_opening() { 1 } else { self.kernel.now << 8 };
        let sequence = flow.sequence.wrapping_add(sent);
        let outcome = self.packet(flow.service, &flow.key, phase, sequence);
        if flow.gone.is_some() {
            assert_ne!(outcome.to, Some(flow.server), "deleted: {flow:?}: {outcome:?}");
            if flow.is_promised {
                let (to, why) =
                    if flow.service == 0 { (owner, Why::Rehashed) } else { (None, Why::Reset) };
                assert_eq!(outcome, Outcome { to, why }, "{flow:?}");
            }
            return;
        }
        if flow.is_promised {
            assert_eq!(outcome.to, Some(flow.server), "{flow:?}: {outcome:?}");
        }
        if outcome.to != Some(flow.server) {
            return;
        }
        flow.seen = self.kernel.now;
        flow.state = match (flow.state, phase) {
            (_, Phase::Closing | Phase::Reset) | (State::Closing, _) => State::Closing,
            (State::Opening { .. } | State::Established, Phase::Opening | Phase::Middle) => {
                State::Established
            }
        };
        flow.was_noted |= self.is_noted(&flow);
        if self.kernel.overflowed.get() && self.has_opening(&flow) {
            // It found no room, and may be forgotten at any time.
            flow.is_promised = false;
        }
        self.flows.push(flow);
    }

    /// Packets of strangers: they find no connection's note, and push none out.
    fn flood(&mut self, packets: u16, phases: &[Phase]) {
        let before = self.kernel.notes.borrow().clone();
        let openings = self.kernel.openings.borrow().clone();
        for packet in 0..packets {
            let service = usize::from(packet % 2);
            let key = self.stranger(service);
            let sequence = self.new_sequence();
            for (sent, &phase) in (0..).zip(phases) {
                self.packet(service, &key, phase, sequence.wrapping_add(sent));
            }
        }
        let mut after = self.kernel.notes.borrow().clone();
        if phases.len() > 1 {
            after.retain(|key, _| before.contains_key(key));
        }
        assert_eq!(after, before);
        if phases == [Phase::Middle] {
            assert_eq!(*self.kernel.openings.borrow(), openings);
        }
    }

    fn change(&mut self, change: &Change, done: Option<usize>) {
        for (service, changes) in self.desired.services.iter_mut().zip(change.services) {
            let pool = &mut service.real_servers;
            let server = address(change.server);
            if changes {
                pool.retain(|other| other.address != server);
                pool.extend(change.weight.map(|weight| RealServer { address: server, weight }));
            }
        }
        self.reconcile(done);
    }

    /// Killed after `done` operations, the daemon starts again and finds the same to do.
    fn reconcile(&mut self, done: Option<usize>) -> Vec<MapOp> {
        let noted = self.kernel.noted(&mut self.installed);
        let (ops, next) = reconcile(&self.desired, &self.installed, &noted).unwrap();
        if let Some(done) = done {
            self.kernel.apply(&ops[..done.min(ops.len())]);
            self.installed = self.kernel.installed();
            return self.reconcile(None);
        }
        self.kernel.apply(&ops);
        self.installed = next;
        let noted = self.kernel.noted(&mut self.installed);
        let (again, next) = reconcile(&self.desired, &self.installed, &noted).unwrap();
        assert_eq!(again, [], "what is right is not touched");
        assert_eq!(next, self.installed);
        self.follow_change();
        ops
    }

    fn follow_change(&mut self) {
        let now = self.kernel.now;
        let size = SLOTS;
        let owners = [0, 1].map(|service: usize| {
            let table = Table::new(&self.desired.services[service].real_servers, size);
            table.slots().collect::<Vec<_>>()
        });
        let before = std::mem::replace(&mut self.owners, owners);
        for flow in &mut self.flows {
            let owner = self.owners[flow.service][flow.slot];
            let pool = &self.desired.services[flow.service].real_servers;
            if flow.is_stateless && before[flow.service][flow.slot] != owner {
                flow.is_stateless = false;
                flow.seen = now;
            }
            if let State::Opening { since, .. } = flow.state {
                flow.state = State::Opening { since, changed: true };
            }
            let keeps = owner == Some(flow.server);
            flow.lost = if keeps { None } else { flow.lost.or(Some(now)) };
            let is_member = pool.iter().any(|server| server.address == flow.server);
            flow.gone = if is_member { None } else { flow.gone.or(Some(now)) };
            // Of half a connection nothing is kept: whoever it reaches resets it.
            flow.is_promised &= is_member || !(flow.is_opening() && flow.was_noted);
        }
    }

    fn age(&mut self) -> Vec<MapOp> {
        let noted = self.kernel.noted(&mut self.installed);
        let (ops, next) = age(&self.desired, &self.installed, &noted);
        self.kernel.apply(&ops);
        self.installed = next;
        self.installed.spares = self.kernel.tidy();
        ops
    }

    fn wait(&mut self, seconds: Seconds) {
        self.kernel.now += seconds;
        let (now, rules) = (self.kernel.now, self.rules);
        let since = |time: Option<Seconds>| time.map_or(0, |time| now - time);
        for flow in &mut self.flows {
            let patience = match flow.state {
                State::Opening { since, .. } => GIVES_UP.saturating_sub(flow.seen - since),
                State::Established => rules.idle,
                State::Closing => LINGERS,
            };
            let kept = (flow.is_stateless || now - flow.seen < patience)
                && since(flow.lost) < rules.drain
                && since(flow.gone) < BACK_WITHIN;
            flow.is_promised &= kept;
        }
    }

    /// All flows go, and in time everything that was remembered of them.
    pub(super) fn end(&mut self) {
        self.flows.clear();
        let limit = self.kernel.now + self.rules.idle + 2 * self.rules.drain + 1000;
        while self.kernel.now < limit {
            self.wait(50);
            self.age();
        }
        assert_eq!(self.age(), [], "nothing is left to be done");
        let [first, second] = &self.desired.services[..] else { panic!("two services") };
        let servers = first.real_servers.iter().chain(&second.real_servers);
        self.kernel.assert_forgotten(&servers.map(|server| server.address).collect());
        assert!(self.installed.tables.values().all(|table| table.generation.is_steady()));
        let sorted = |service: &VirtualService| {
            service.real_servers.iter().copied().collect::<BTreeSet<_>>()
        };
        let tables = if sorted(first) == sorted(second) { 1 } else { 2 };
        assert_eq!(self.installed.tables.len(), tables, "the same pool shares a table");
    }

    pub(super) fn assert_room_was_enough(&self) {
        assert!(!self.kernel.overflowed.get());
    }

    fn packet(&self, service: usize, key: &FlowKey, phase: Phase, sequence: u32) -> Outcome {
        let service = &self.desired.services[service];
        let service = super::key(&service.address, service.protocol);
        self.kernel.packet(service, key, phase, sequence)
    }

    fn new_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(0x9e37_79b9);
        self.sequence
    }

    /// A flow that there was never before.
    fn stranger(&mut self, service: usize) -> FlowKey {
        self.clients += 1;
        let [a, b, port @ ..] = self.clients.to_be_bytes();
        let vip = address(100).octets();
        FlowKey::new([192, 0, a, b], vip, port, [0, [80, 81][service]], Ipv4::TCP)
    }

    fn is_member(&self, service: usize, server: Option<Ipv4Addr>) -> bool {
        let pool = &self.desired.services[service].real_servers;
        pool.iter().any(|member| Some(member.address) == server)
    }

    fn has_opening(&self, flow: &Flow) -> bool {
        self.kernel.openings.borrow().iter().any(|(key, _)| *key == flow.key)
    }

    fn is_noted(&self, flow: &Flow) -> bool {
        self.has_opening(flow) || self.kernel.notes.borrow().contains_key(&flow.key)
    }

    /// Whether strangers have pushed its note out before it was a connection.
    fn has_lost_note(&self, flow: &Flow) -> bool {
        flow.is_opening() && flow.was_noted && self.kernel.overflowed.get() && !self.is_noted(flow)
    }
}

impl Flow {
    fn is_opening(&self) -> bool {
        matches!(self.state, State::Opening { .. })
    }
}
