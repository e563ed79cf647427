//! The loaded XDP program itself, run by `BPF_PROG_TEST_RUN` on frames of every shape.
//!
//! Each outcome is compared with that of the same code on the host, so that neither the compiler
//! for the BPF target nor the maps can make a difference unseen; and a change of a frame is judged
//! by somebody else's parser, so that an error that both share is seen as well. Needs root.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{cell::RefCell, collections::BTreeMap, net::Ipv4Addr, num::NonZeroU16};

use etherparse::{
    IpHeaders, IpNumber, LaxNetSlice, LaxSlicedPacket, PacketBuilder, PacketBuilderStep,
};
use lb_daemon::{
    dataplane::{Dataplane, TestRunOutcome},
    reconcile::{Capacity, Desired, Hop, Installed, MapOp, reconcile},
    service::{
        Forwarding, Hash, OnDown, Ports, Protocol, RealServer, ServiceAddress, Tracking,
        VirtualService,
    },
};
use lb_ebpf::{
    abi::{self, Counters, Note, PortPrefix, Previous, Seconds, ServiceKey},
    director::{self, Maps},
    flow::FlowKey,
    packet::Packet,
    reset,
    tracking::Memory,
    verdict::{Action, Verdict},
};
use proptest::{
    prelude::*,
    strategy::ValueTree,
    test_runner::{Config, TestRunner},
};

const VIP: [u8; 4] = [10, 77, 0, 100];
const DIRECTOR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const XDP_PASS: u32 = 2;
/// Test runs come in by loopback.
const LOOPBACK: u32 = 1;

#[test]
fn every_truncation_of_a_packet_has_the_verdict_that_the_host_gives() {
    let mut program = Program::load();
    for whole in [tcp(VIP, 80), udp(VIP, 53), tcp([10, 77, 0, 101], 80)] {
        // The kernel gives no frame to a program that is shorter than an Ethernet header.
        for len in 14..=whole.len() {
            program.check(&whole[..len]);
        }
    }
    assert!(program.seen[&Verdict::Truncated] > 0 && program.seen[&Verdict::Forwarded] > 0);
    program.check_counters();
}

#[test]
fn a_million_random_and_mutated_packets_change_only_what_is_forwarded() {
    const PACKETS: usize = 1_000_000;
    let mut program = Program::load();
    // One value of the strategy gives the shape; the bytes are cheap and come from a generator.
    let mut runner = TestRunner::new(Config::default());
    let shapes = (0..1000).map(|_| shape().new_tree(&mut runner).unwrap().current());
    let shapes: Vec<Vec<u8>> = shapes.collect();
    let mut random = Xorshift(runner.new_rng().random::<u64>() | 1);
    for _ in 0..PACKETS {
        let mut frame = shapes[random.below(shapes.len())].clone();
        for _ in 0..random.below(4) {
            let at = random.below(frame.len());
            frame[at] = random.byte();
        }
        let len = 14 + random.below(frame.len() - 13);
        if random.below(4) == 0 {
            frame.truncate(len);
        }
        program.check(&frame);
    }
    assert_eq!(program.seen.values().sum::<u64>(), PACKETS as u64);
    for verdict in [
        Verdict::Forwarded,
        Verdict::NotVirtualService,
        Verdict::NotAddressedToUs,
        Verdict::Truncated,
        Verdict::BadIpv4Header,
        Verdict::OtherProtocol,
        Verdict::Fragment,
        Verdict::NotIpv4,
        Verdict::NoNeighbour,
        Verdict::NoRealServer,
    ] {
        assert!(program.seen.contains_key(&verdict), "no packet was {}", verdict.name());
    }
    program.check_counters();
}

#[test]
fn a_packet_to_any_other_address_or_port_or_director_is_left_alone() {
    let mut program = Program::load();
    let mut frames = Vec::new();
    for bit in 0..32 {
        let other = (u32::from_be_bytes(VIP) ^ (1 << bit)).to_be_bytes();
        frames.extend([tcp(other, 80), udp(other, 53)]);
    }
    for bit in 0..16 {
        frames.push(udp(VIP, 53 ^ (1 << bit)));
    }
    // Not bit 0: port 81 is a service too, without real servers.
    for bit in 1..16 {
        frames.push(tcp(VIP, 80 ^ (1 << bit)));
    }
    frames.extend([tcp(VIP, 53), udp(VIP, 80)]);
    for bit in 0..48 {
        let mut frame = tcp(VIP, 80);
        frame[bit / 8] ^= 1 << (bit % 8);
        frames.push(frame);
    }
    for frame in frames {
        let outcome = program.check(&frame);
        assert_eq!((outcome.action, outcome.frame), (XDP_PASS, frame));
    }
    program.check_counters();
}

#[test]
fn flows_reach_real_servers_in_proportion_to_their_weights() {
    let mut program = Program::load();
    let mut flows = BTreeMap::<u8, u32>::new();
    for port in 1024..11_024_u16 {
        *flows.entry(program.check(&tcp_from(port, VIP, 80)).frame[5]).or_default() += 1;
    }
    // Weights 1, 2 and 3; the standard deviation is about 50.
    for (server, expected) in [(11, 1667), (12, 3333), (13, 5000)] {
        let flows = i64::from(flows[&server]);
        assert!((flows - expected).abs() < 250, "real server {server} has {flows} of 10,000 flows");
    }
}

#[test]
fn a_new_table_is_taken_into_use_as_a_whole() {
    let mut program = Program::load();
    let frame = tcp(VIP, 80);
    let first = program.check(&frame).frame[5];
    for service in &mut program.desired.services {
        service.real_servers.retain(|server| server.address.octets()[3] != first);
    }
    program.install();
    assert_ne!(program.check(&frame).frame[5], first);
    program.desired.services.clear();
    program.install();
    assert_eq!(program.check(&frame).frame, frame, "no service, no change");
}

/// The program in the kernel, and what its maps are to hold.
struct Program {
    kernel: Dataplane,
    desired: Desired,
    installed: Installed,
    host: HostMaps,
    seen: BTreeMap<Verdict, u64>,
}

impl Program {
    /// Services for TCP port 80 and UDP port 53, whose real server 14 has no neighbour, and one
    /// for TCP port 81 without real servers.
    fn load() -> Self {
        let address = |host| Ipv4Addr::new(10, 77, 0, host);
        let pool = |hosts: &[(u8, u16)]| {
            hosts
                .iter()
                .map(|&(host, weight)| RealServer { address: address(host), weight })
                .collect()
        };
        let service = |port, protocol, real_servers| VirtualService {
            name: format!("{protocol}-{port}"),
            address: ServiceAddress::one(VIP.into(), NonZeroU16::new(port).unwrap()),
            protocol,
            forwarding: Forwarding::Dr,
            hash: Hash::Flow,
            table_size: 65_537,
            tracking: (protocol == Protocol::Tcp).then(|| Tracking::default_for(protocol)),
            real_servers,
        };
        let hop = |host| Hop {
            ifindex: LOOPBACK,
            destination_mac: [2, 0, 0, 0, 0, host],
            source_mac: DIRECTOR_MAC,
        };
        let desired = Desired {
            services: vec![
                service(80, Protocol::Tcp, pool(&[(11, 1), (12, 2), (13, 3)])),
                service(53, Protocol::Udp, pool(&[(11, 1), (14, 1)])),
                service(81, Protocol::Tcp, vec![]),
            ],
            routers: BTreeMap::new(),
            neighbours: (11..=13).map(|host| (address(host), hop(host))).collect(),
        };
        let kernel =
            Dataplane::load(None, Capacity::default()).expect("load the program; this needs root");
        let (installed, host) = (Installed::default(), HostMaps::default());
        let mut program = Self { kernel, desired, installed, host, seen: BTreeMap::new() };
        program.install();
        program
    }

    fn install(&mut self) {
        let noted = self.kernel.noted(&mut self.installed).unwrap();
        let (ops, installed) = reconcile(&self.desired, &self.installed, &noted).unwrap();
        self.kernel.apply(&ops).unwrap();
        self.host.apply(&ops);
        self.installed = installed;
    }

    /// Runs one frame in the kernel and on the host.
    fn check(&mut self, frame: &[u8]) -> TestRunOutcome {
        let outcome = self.kernel.test_run(frame).unwrap();
        let mut expected = frame.to_vec();
        let packet = &mut Packet::from_frame(&mut expected);
        let verdict = director::handle(packet, LOOPBACK, &self.host);
        if verdict == Verdict::Reset {
            expected.truncate(reset::FRAME_LEN.into());
        }
        *self.seen.entry(verdict).or_default() += 1;
        let action = match verdict.action() {
            Action::Drop => 1,
            Action::Pass => XDP_PASS,
            Action::Transmit => 3,
        };
        assert_eq!(outcome.action, action, "{verdict:?}: {frame:02x?}");
        assert_eq!(outcome.frame, expected, "{verdict:?}: {frame:02x?}");
        if outcome.frame != frame && verdict == Verdict::Forwarded {
            assert_eq!(outcome.frame[12..], frame[12..], "only MAC addresses change: {frame:02x?}");
            assert!(is_of_a_service(frame), "changed, and of no service: {frame:02x?}");
        }
        outcome
    }

    /// Every frame was counted once, under its verdict.
    fn check_counters(&self) {
        for (name, packets) in self.kernel.verdicts() {
            let verdict = Verdict::ALL.into_iter().find(|verdict| verdict.name() == name).unwrap();
            assert_eq!(packets, self.seen.get(&verdict).copied().unwrap_or(0), "{name}");
        }
    }
}

/// Whether etherparse takes a frame for a packet to one of the services of [`Program::load`], at
/// the MAC address of the director.
///
/// Laxly: a director needs no more of a packet than its ports, as the end may be cut off.
fn is_of_a_service(frame: &[u8]) -> bool {
    let Ok(packet) = LaxSlicedPacket::from_ethernet(frame) else { return false };
    let Some(LaxNetSlice::Ipv4(ip)) = packet.net else { return false };
    let payload = ip.payload();
    let Some(port) = payload.payload.get(2..4) else { return false };
    let service =
        (ip.header().destination(), payload.ip_number, u16::from_be_bytes([port[0], port[1]]));
    frame[..6] == DIRECTOR_MAC
        && !payload.fragmented
        && [(VIP, IpNumber::TCP, 80), (VIP, IpNumber::UDP, 53)].contains(&service)
}

/// The maps on the host, changed by the operations that change the kernel's.
#[derive(Default)]
struct HostMaps {
    services: BTreeMap<ServiceKey, abi::Service>,
    port_ranges: BTreeMap<(u32, PortPrefix), ServiceKey>,
    tables: BTreeMap<u32, Vec<u16>>,
    previous: RefCell<BTreeMap<u32, Vec<Previous>>>,
    notes: RefCell<BTreeMap<FlowKey, Note>>,
    openings: RefCell<BTreeMap<FlowKey, Note>>,
    real_servers: BTreeMap<u16, abi::RealServer>,
    counted: RefCell<BTreeMap<u16, Counters>>,
}

impl HostMaps {
    fn apply(&mut self, ops: &[MapOp]) {
        for op in ops {
            match op.clone() {
                MapOp::SetRealServer { index, value } => {
                    self.real_servers.insert(index, value);
                }
                MapOp::InstallTable { table, slots, previous } => {
                    self.tables.insert(table, slots);
                    self.previous.get_mut().insert(table, previous);
                }
                MapOp::UpdateTable { table, updates } => {
                    for update in updates {
                        let index = update.index as usize;
                        self.tables.get_mut(&table).unwrap()[index] = update.slot;
                        self.previous.get_mut().get_mut(&table).unwrap()[index] = update.previous;
                    }
                }
                MapOp::SetService { key, value } => {
                    self.services.insert(key, value);
                }
                MapOp::SetPortRange { prefix, key } => {
                    self.port_ranges.insert(prefix, key);
                }
                MapOp::DeletePortRange { prefix } => {
                    self.port_ranges.remove(&prefix);
                }
                MapOp::DeleteService { key } => {
                    self.services.remove(&key);
                }
                MapOp::DeleteTable { table, .. } => {
                    self.tables.remove(&table);
                }
                MapOp::DeletePrevious { table } => {
                    self.previous.get_mut().remove(&table);
                }
                MapOp::SetNote { key, note } => {
                    self.notes.get_mut().insert(key, note);
                }
                MapOp::DeleteNote { key } => {
                    self.notes.get_mut().remove(&key);
                }
                MapOp::DeleteOpening { key } => {
                    self.openings.get_mut().remove(&key);
                }
                MapOp::FreeRealServer { index } => {
                    self.real_servers.remove(&index);
                }
                MapOp::ClearRealServerCounters { index } => {
                    self.counted.get_mut().remove(&index);
                }
                MapOp::ClearServiceCounters { .. } | MapOp::LookForPortRanges(_) => {}
            }
        }
    }
}

impl Maps for HostMaps {
    fn service(&self, key: &ServiceKey) -> Option<&abi::Service> {
        self.services.get(key)
    }

    fn has_port_ranges(&self) -> bool {
        !self.port_ranges.is_empty()
    }

    fn port_range(&self, port: &PortPrefix) -> Option<&ServiceKey> {
        let bits = |prefix: &PortPrefix| {
            let [a, b, c, d] = prefix.vip;
            let [high, low] = prefix.port;
            u64::from_be_bytes([a, b, c, d, prefix.protocol, 0, high, low])
        };
        let matches = |(len, prefix): &(u32, PortPrefix)| {
            (bits(prefix) ^ bits(port)).leading_zeros() + 32 >= *len
        };
        let longest = self.port_ranges.iter().filter(|(prefix, _)| matches(prefix));
        longest.max_by_key(|((len, _), _)| *len).map(|(_, key)| key)
    }

    fn forward_until(&self, role: u32) -> Option<u64> {
        (role == abi::ALWAYS).then_some(abi::FOREVER)
    }

    fn slot(&self, table: u32, slot: u32) -> Option<u16> {
        self.tables.get(&table)?.get(slot as usize).copied()
    }

    fn real_server(&self, index: u16) -> Option<&abi::RealServer> {
        self.real_servers.get(&index)
    }

    fn count(&self, _: u32, real_server: u16, counters: Counters) {
        let mut counted = self.counted.borrow_mut();
        let sum = counted.entry(real_server).or_default();
        sum.packets += counters.packets;
        sum.bytes += counters.bytes;
        sum.new_flows += counters.new_flows;
    }

    fn now(&self) -> u64 {
        0
    }
}

impl Memory for HostMaps {
    fn previous(&self, table: u32, slot: u32) -> Option<Previous> {
        self.previous.borrow().get(&table)?.get(slot as usize).copied()
    }

    fn mark_noted(&self, table: u32, slot: u32) {
        self.previous.borrow_mut().get_mut(&table).unwrap()[slot as usize].noted = 1;
    }

    fn stamp_previous(&self, table: u32, slot: u32, seen: Seconds) {
        self.previous.borrow_mut().get_mut(&table).unwrap()[slot as usize].seen = seen;
    }

    fn note(&self, key: &FlowKey) -> Option<Note> {
        self.notes.borrow().get(key).copied()
    }

    fn set_note(&self, key: &FlowKey, note: &Note) -> bool {
        self.notes.borrow_mut().insert(*key, *note);
        true
    }

    fn touch_note(&self, key: &FlowKey, note: &Note) {
        self.notes.borrow_mut().insert(*key, *note);
    }

    fn forget_note(&self, key: &FlowKey) {
        self.notes.borrow_mut().remove(key);
    }

    fn opening(&self, key: &FlowKey) -> Option<Note> {
        self.openings.borrow().get(key).copied()
    }

    fn set_opening(&self, key: &FlowKey, note: &Note) -> bool {
        self.openings.borrow_mut().insert(*key, *note);
        true
    }

    fn forget_opening(&self, key: &FlowKey) {
        self.openings.borrow_mut().remove(key);
    }

    fn is_full(&self) -> bool {
        false
    }

    fn report_full(&self) {}

    fn seconds(&self) -> Seconds {
        0
    }
}

/// Frames that are near to something: of a service or not, and noise.
fn shape() -> impl Strategy<Value = Vec<u8>> {
    let to = prop_oneof![4 => Just(VIP), 1 => any::<[u8; 4]>()];
    let port = prop_oneof![3 => Just(80_u16), 2 => Just(53), 1 => Just(81), 1 => any::<u16>()];
    prop_oneof![
        4 => (to.clone(), port.clone()).prop_map(|(to, port)| tcp(to, port)),
        2 => (to, port).prop_map(|(to, port)| udp(to, port)),
        1 => prop::collection::vec(any::<u8>(), 14..200),
    ]
}

fn tcp(to: [u8; 4], port: u16) -> Vec<u8> {
    tcp_from(4000, to, port)
}

fn tcp_from(source_port: u16, to: [u8; 4], port: u16) -> Vec<u8> {
    let mut frame = Vec::new();
    ipv4(to).tcp(source_port, port, 7, 512).write(&mut frame, b"payload").unwrap();
    frame
}

fn udp(to: [u8; 4], port: u16) -> Vec<u8> {
    let mut frame = Vec::new();
    ipv4(to).udp(4000, port).write(&mut frame, b"payload").unwrap();
    frame
}

fn ipv4(to: [u8; 4]) -> PacketBuilderStep<IpHeaders> {
    PacketBuilder::ethernet2([0xaa; 6], DIRECTOR_MAC).ipv4([192, 0, 2, 1], to, 64)
}

/// Marsaglia's generator: a million frames need many bytes, not good ones.
struct Xorshift(u64);

impl Xorshift {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() >> 33).unwrap() % bound
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[4]
    }
}
