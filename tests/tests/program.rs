//! The loaded XDP program itself, run by `BPF_PROG_TEST_RUN` on frames of every shape.
//!
//! Each outcome is compared with that of the same code on the host, so that neither the compiler
//! for the BPF target nor the maps can make a difference unseen; and a change of a frame is judged
//! by somebody else's parser, so that an error that both share is seen as well. Needs root.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{cell::RefCell, collections::BTreeMap, net::Ipv4Addr, num::NonZeroU16};

use aya::programs::{TestRun, TestRunOptions};
use etherparse::{
    IpHeaders, IpNumber, LaxNetSlice, LaxSlicedPacket, NetSlice, PacketBuilder, PacketBuilderStep,
    SlicedPacket, TcpHeader, TransportSlice,
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
    tracking::{Memory, Why},
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

#[test]
fn in_a_change_every_packet_goes_where_the_host_says_and_is_remembered_alike() {
    let mut program = Program::load();
    let mut random = Xorshift(0x7461_6e64_656d);
    for weights in [[0, 2, 3], [0, 0, 3], [1, 0, 0], [1, 2, 3]] {
        for (server, weight) in program.desired.services[0].real_servers.iter_mut().zip(weights) {
            server.weight = weight;
        }
        program.install();
        for _ in 0..20_000 {
            let port = 1024 + u16::try_from(random.below(3000)).unwrap();
            let flags = [2, 2, 16, 16, 24, 16, 17, 4, random.byte()][random.below(9)];
            let sequence = if flags == 2 { 0 } else { [1, 1, 1 << 21][random.below(3)] };
            program.check(&tcp_with(port, flags, sequence));
        }
        let mut installed = program.installed.clone();
        let noted = program.kernel.noted(&mut installed).unwrap();
        let kernel: BTreeMap<_, _> = noted.connections.into_iter().map(timeless).collect();
        let host = program.host.notes.borrow();
        assert_eq!(kernel, host.clone().into_iter().map(timeless).collect());
        assert!(kernel.len() > 100, "{} connections are noted", kernel.len());
    }
    program.check_counters();
}

#[test]
fn a_drained_real_server_keeps_its_flows_and_gets_no_new_ones() {
    let mut program = Program::load();
    let flows: Vec<_> =
        (1024..3024).map(|port| (port, program.check(&ack(port)).frame[5])).collect();
    program.desired.services[0].real_servers[2].weight = 0;
    program.install();
    for (port, server) in flows {
        assert_eq!(program.check(&ack(port)).frame[5], server, "port {port}");
    }
    for port in 5000..6000 {
        let server = program.check(&syn(port)).frame[5];
        assert_ne!(server, 13);
        assert_eq!(program.check(&ack(port)).frame[5], server);
    }
}

#[test]
fn a_real_server_that_is_gone_has_its_flows_reset_where_the_service_says_so() {
    for on_down in [OnDown::Rehash, OnDown::Reset] {
        let mut program = Program::load();
        let service = &mut program.desired.services[0];
        service.tracking = service.tracking.map(|it| Tracking { on_down, ..it });
        program.install();
        let flows: Vec<_> =
            (1024..2024).map(|port| (port, program.check(&ack(port)).frame[5])).collect();
        program.desired.services[0].real_servers.retain(|server| server.address.octets()[3] != 13);
        program.install();
        for (port, server) in flows {
            let outcome = program.check(&ack(port));
            let resets = server == 13 && on_down == OnDown::Reset;
            assert_eq!(outcome.frame.len() == usize::from(reset::FRAME_LEN), resets, "port {port}");
            if resets {
                judge_reset(&outcome.frame, port);
            }
        }
        program.check_counters();
    }
}

#[test]
fn the_narrowest_service_with_the_port_has_the_packet() {
    let mut program = Program::load();
    let port = |port| NonZeroU16::new(port).unwrap();
    let of = |ports, host| VirtualService {
        name: format!("{ports:?}"),
        address: ServiceAddress { vip: VIP.into(), ports },
        real_servers: vec![RealServer { address: Ipv4Addr::new(10, 77, 0, host), weight: 1 }],
        ..program.desired.services[0].clone()
    };
    let services = [
        of(Ports::One(port(1000)), 11),
        of(Ports::Range(port(995), port(1200)), 12),
        of(Ports::Any, 13),
    ];
    program.desired.services = services.to_vec();
    program.install();
    for (port, server) in
        [(1000, 11), (999, 12), (995, 12), (1200, 12), (994, 13), (1201, 13), (1, 13), (65_535, 13)]
    {
        assert_eq!(program.check(&tcp(VIP, port)).frame[5], server, "port {port}");
    }
    assert_eq!(program.check(&udp(VIP, 1000)).action, XDP_PASS, "another protocol");
    program.desired.services.truncate(2);
    program.install();
    assert_eq!(program.check(&tcp(VIP, 994)).action, XDP_PASS);
    assert_eq!(program.check(&tcp(VIP, 996)).frame[5], 12);
}

#[test]
fn all_flows_of_a_client_have_one_real_server_where_the_source_is_hashed() {
    let mut program = Program::load();
    for service in &mut program.desired.services {
        service.hash = Hash::Source { prefix_len: 24 };
        service.real_servers.retain(|server| server.address.octets()[3] != 14);
    }
    program.desired.services[1].real_servers = program.desired.services[0].real_servers.clone();
    program.install();
    let mut seen = BTreeMap::<u8, u32>::new();
    for network in 0..200 {
        let from = |host, port| tcp_of([198, 18, network, host], port, VIP, 80);
        let server = program.check(&from(1, 4000)).frame[5];
        *seen.entry(server).or_default() += 1;
        for (host, port) in [(1, 4001), (1, 9), (254, 4000), (0, 77)] {
            assert_eq!(program.check(&from(host, port)).frame[5], server);
        }
        let mut other = Vec::new();
        let source = [198, 18, network, 3];
        let builder = PacketBuilder::ethernet2([0xaa; 6], DIRECTOR_MAC).ipv4(source, VIP, 64);
        builder.udp(5, 53).write(&mut other, b"payload").unwrap();
        assert_eq!(program.check(&other).frame[5], server, "the other service has the same pool");
    }
    assert_eq!(seen.len(), 3, "{seen:?}");
}

#[test]
fn what_is_forwarded_is_counted_for_the_service_and_the_real_server() {
    let mut program = Program::load();
    let mut bytes = 0;
    for port in 1024..1124 {
        for frame in [syn(port), ack(port), ack(port)] {
            bytes += frame.len() as u64;
            program.check(&frame);
        }
    }
    let id = program.installed.services.values().map(|service| service.id);
    let of_services: Vec<_> = id.map(|id| program.kernel.service_counters(id)).collect();
    let counted = Counters { packets: 300, bytes, new_flows: 100 };
    assert!(of_services.contains(&counted), "{of_services:?}");
    for (&index, counted) in program.host.counted.borrow().iter() {
        assert_eq!(program.kernel.real_server_counters(index), *counted);
    }
}

#[test]
fn an_explanation_is_what_a_packet_meets_and_touches_nothing() {
    let mut program = Program::load();
    for server in &mut program.desired.services[0].real_servers {
        server.weight = 1 - server.weight.min(1);
    }
    program.desired.services[0].real_servers[0].weight = 1;
    program.install();
    for (port, kind) in
        (1024..1324).zip([Why::Opening, Why::Noted, Why::Previous].into_iter().cycle())
    {
        let frame = match kind {
            Why::Opening => syn(port),
            Why::Noted => {
                program.check(&syn(port));
                ack(port)
            }
            Why::Previous | Why::Steady | Why::Rehashed | Why::Reset | Why::Overflow => ack(port),
        };
        let verdicts = program.kernel.verdicts();
        let noted = program.kernel.noted(&mut program.installed.clone()).unwrap();
        let first = program.kernel.explain(&frame, LOOPBACK).unwrap();
        assert_eq!(program.kernel.explain(&frame, LOOPBACK).unwrap(), first);
        assert_eq!(program.kernel.verdicts(), verdicts);
        let after = program.kernel.noted(&mut program.installed.clone()).unwrap();
        assert_eq!((after.connections, after.openings), (noted.connections, noted.openings));
        let explained = Verdict::ALL[usize::from(first.verdict)];
        let outcome = program.check(&frame);
        assert_eq!(explained == Verdict::Forwarded, outcome.action == 3);
        if explained == Verdict::Forwarded {
            let server = program.installed.real_servers[&first.real_server];
            assert_eq!(outcome.frame[..6], server.destination_mac, "{first:?}");
        }
    }
}

#[test]
fn metadata_of_somebody_else_changes_nothing() {
    let program = Program::load();
    let mut expected = tcp(VIP, 80);
    let verdict = director::handle(&mut Packet::from_frame(&mut expected), LOOPBACK, &program.host);
    assert_eq!(verdict, Verdict::Forwarded);
    for len in [4_u32, 8, 20, 32] {
        let data = [vec![0xab; len as usize], tcp(VIP, 80)].concat();
        let mut out = vec![0; data.len()];
        let end = u32::try_from(data.len()).unwrap();
        let context: Vec<u8> =
            [len, end, 0, LOOPBACK, 0, 0].into_iter().flat_map(u32::to_ne_bytes).collect();
        let options = TestRunOptions {
            data_in: Some(&data),
            data_out: Some(&mut out),
            ctx_in: Some(&context),
            ..Default::default()
        };
        let result = program.kernel.program().unwrap().test_run(options).unwrap();
        assert_eq!(result.return_value, 3, "{len} bytes of metadata");
        assert_eq!(out[len as usize..], expected);
    }
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
            assert!(
                is_of_a_service(frame, &self.desired.services),
                "changed, and of no service: {frame:02x?}"
            );
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

/// Whether etherparse takes a frame for a packet to one of the services, at the MAC address of the
/// director.
///
/// Laxly: a director needs no more of a packet than its ports, as the end may be cut off.
fn is_of_a_service(frame: &[u8], services: &[VirtualService]) -> bool {
    let Ok(packet) = LaxSlicedPacket::from_ethernet(frame) else { return false };
    let Some(LaxNetSlice::Ipv4(ip)) = packet.net else { return false };
    let payload = ip.payload();
    let Some(port) = payload.payload.get(2..4) else { return false };
    let port = u16::from_be_bytes([port[0], port[1]]);
    let protocol = |service: &VirtualService| match service.protocol {
        Protocol::Tcp => IpNumber::TCP,
        Protocol::Udp => IpNumber::UDP,
    };
    let is_its = |service: &VirtualService| {
        service.address.vip.octets() == ip.header().destination()
            && service.address.contains(port)
            && protocol(service) == payload.ip_number
    };
    frame[..6] == DIRECTOR_MAC && !payload.fragmented && services.iter().any(is_its)
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
                MapOp::DeletePrevious { tables } => {
                    self.previous.get_mut().retain(|table, _| !tables.contains(table));
                }
                MapOp::MarkNote { key, note } => {
                    self.notes.get_mut().insert(key, note);
                }
                MapOp::DeleteNote { key, .. } => {
                    self.notes.get_mut().remove(&key);
                }
                MapOp::DeleteOpening { key, .. } => {
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
    fn service(&self, key: &ServiceKey) -> Option<abi::Service> {
        self.services.get(key).copied()
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

fn tcp_of(from: [u8; 4], source_port: u16, to: [u8; 4], port: u16) -> Vec<u8> {
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2([0xaa; 6], DIRECTOR_MAC).ipv4(from, to, 64);
    builder.tcp(source_port, port, 7, 512).ack(1).write(&mut frame, b"payload").unwrap();
    frame
}

fn syn(source_port: u16) -> Vec<u8> {
    tcp_with(source_port, 2, 1000)
}

/// What follows [`syn`].
fn ack(source_port: u16) -> Vec<u8> {
    tcp_with(source_port, 16, 1001)
}

fn tcp_with(source_port: u16, flags: u8, sequence: u32) -> Vec<u8> {
    let mut header = TcpHeader::new(source_port, 80, sequence, 512);
    header.acknowledgment_number = 0x0102_0304;
    (header.fin, header.syn, header.rst) = (flags & 1 != 0, flags & 2 != 0, flags & 4 != 0);
    (header.psh, header.ack) = (flags & 8 != 0, flags & 16 != 0);
    let mut frame = Vec::new();
    ipv4(VIP).tcp_header(header).write(&mut frame, b"payload").unwrap();
    frame
}

/// As the client's TCP reads it (RFC 9293 §3.10.7, RFC 5961 §3).
fn judge_reset(frame: &[u8], source_port: u16) {
    let packet = SlicedPacket::from_ethernet(frame).unwrap();
    let (Some(NetSlice::Ipv4(ip)), Some(TransportSlice::Tcp(tcp))) = (packet.net, packet.transport)
    else {
        panic!("not TCP over IPv4: {frame:02x?}");
    };
    let header = ip.header().to_header();
    assert_eq!(header.header_checksum, header.calc_header_checksum());
    assert_eq!((header.source, header.destination), (VIP, [192, 0, 2, 1]));
    let tcp_header = tcp.to_header();
    assert_eq!(tcp_header.checksum, tcp_header.calc_checksum_ipv4(&header, &[]).unwrap());
    assert_eq!((tcp.source_port(), tcp.destination_port()), (80, source_port));
    assert!(tcp.rst() && !tcp.ack() && !tcp.syn() && !tcp.fin());
    assert_eq!(tcp.sequence_number(), 0x0102_0304, "what the client expects next");
}

/// The clocks of kernel and host differ.
fn timeless((key, note): (FlowKey, Note)) -> (FlowKey, Note) {
    (key, Note { seen: 0, ..note })
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
