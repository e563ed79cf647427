use core::cell::{Cell, RefCell};
use std::{collections::BTreeMap, vec::Vec};

use etherparse::PacketBuilder;
use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{
    abi::{CHANGED, Note, Previous, Seconds},
    flow::FlowKey,
    tracking::memory::PlainMemory,
    verdict::{Action, Verdict},
};

#[test]
fn a_packet_of_a_service_leaves_for_its_real_server_under_new_macs_only() {
    let mut frame = tcp(VIP, 80);
    let before = frame.clone();
    assert_eq!(run(&mut frame, &Fake::new()), Verdict::Forwarded);
    assert_eq!(frame[..6], REAL_SERVER_MAC);
    assert_eq!(frame[6..12], DIRECTOR_MAC);
    assert_eq!(frame[12..], before[12..], "the packet itself is the client's own");
}

#[test]
fn ipv4_options_are_stepped_over() {
    let options = [1_u8; 40];
    for len in (0..=40).step_by(4) {
        let builder = PacketBuilder::ethernet2(CLIENT_MAC, DIRECTOR_MAC).ip(ip(&options[..len]));
        let mut frame = Vec::new();
        builder.tcp(4000, 80, 7, 512).write(&mut frame, b"payload").unwrap();
        assert_eq!(run(&mut frame, &Fake::new()), Verdict::Forwarded, "{len} bytes of options");
    }
}

#[test]
fn every_other_packet_has_its_own_verdict() {
    let maps = Fake::new();
    check("another address", tcp([10, 77, 0, 101], 80), &maps, Verdict::NotVirtualService);
    check("another port", tcp(VIP, 81), &maps, Verdict::NotVirtualService);
    check("another protocol", udp(VIP, 80), &maps, Verdict::NotVirtualService);
    check("ARP", with(|frame| frame[12..14].copy_from_slice(&[8, 6])), &maps, Verdict::NotIpv4);
    check("ICMP", with(|frame| frame[23] = 1), &maps, Verdict::OtherProtocol);
    check("a first fragment", with(|frame| frame[20] |= 0x20), &maps, Verdict::Fragment);
    check("a later fragment", with(|frame| frame[21] = 1), &maps, Verdict::Fragment);
    check("no fragment", with(|frame| frame[20] |= 0x40), &maps, Verdict::Forwarded);
    check("version 6", with(|frame| frame[14] = 0x65), &maps, Verdict::BadIpv4Header);
    check("a short IHL", with(|frame| frame[14] = 0x44), &maps, Verdict::BadIpv4Header);
    let short = with(|frame| frame[16..18].copy_from_slice(&23_u16.to_be_bytes()));
    check("ports in the padding", short, &maps, Verdict::Truncated);
    check("an empty frame", Vec::new(), &maps, Verdict::Truncated);
    let flooded = with(|frame| frame[0] ^= 2);
    check("flooded by a bridge", flooded, &maps, Verdict::NotAddressedToUs);
}

#[test]
fn what_the_maps_lack_is_a_verdict_too() {
    let mut maps = Fake::new();
    maps.slots = [(0, EMPTY)].into();
    check("an empty table", tcp(VIP, 80), &maps, Verdict::NoRealServer);
    maps.slots.clear();
    check("no table", tcp(VIP, 80), &maps, Verdict::NoRealServer);

    let mut maps = Fake::new();
    maps.real_server.ifindex = 0;
    check("no neighbour", tcp(VIP, 80), &maps, Verdict::NoNeighbour);
    maps.real_server.ifindex = IFINDEX + 1;
    check("behind another interface", tcp(VIP, 80), &maps, Verdict::OtherInterface);
}

#[test]
fn a_director_forwards_only_while_it_is_active_and_for_a_bounded_grace() {
    let mut maps = Fake::new();
    for (until, now, want) in [
        (0, 5, Verdict::NotActive),
        (FOREVER, u64::MAX, Verdict::Forwarded),
        (10, 9, Verdict::Forwarded),
        (10, 10, Verdict::NotActive),
    ] {
        (maps.forward_until, maps.now) = (until, now);
        check("role", tcp(VIP, 80), &maps, want);
    }
}

#[test]
fn every_truncation_of_a_packet_is_left_as_it_is() {
    let whole = tcp(VIP, 80);
    for len in 0..whole.len() {
        let mut frame = whole[..len].to_vec();
        let verdict = run(&mut frame, &Fake::new());
        let complete = len >= 14 + 20 + 20;
        assert_eq!(verdict == Verdict::Forwarded, complete, "{len} bytes: {verdict:?}");
        assert_eq!(frame[..] == whole[..len], !complete, "{len} bytes");
    }
}

#[test]
fn the_narrowest_service_that_has_a_port_takes_its_packets() {
    let mut maps = Fake::new();
    maps.add_range(BitsOfPort(0), 0, 20);
    maps.add_range(BitsOfPort(8), 0, 21);
    maps.add_range(BitsOfPort(14), 80, 22);
    for (port, id) in [(80, ID), (81, 22), (83, 22), (84, 21), (0, 21), (255, 21), (256, 20)] {
        let (verdict, steps) = explain(tcp(VIP, port), &maps);
        assert_eq!((verdict, steps[0]), (Verdict::Forwarded, Step::Service(id)), "port {port}");
    }
    check("another address", tcp([10, 77, 0, 101], 80), &maps, Verdict::NotVirtualService);
    check("another protocol", udp(VIP, 80), &maps, Verdict::NotVirtualService);

    maps.looks_for_ranges = false;
    check("no service with a range", tcp(VIP, 81), &maps, Verdict::NotVirtualService);
}

#[test]
fn a_port_range_whose_service_is_gone_is_no_service() {
    let mut maps = Fake::new();
    maps.add_range(BitsOfPort(0), 0, 20);
    maps.services.retain(|_, service| service.id == ID);
    check("between two operations", tcp(VIP, 81), &maps, Verdict::NotVirtualService);
}

#[test]
fn hashed_by_source_a_client_has_one_real_server_for_all_its_ports_and_services() {
    let mut maps = Fake::new();
    maps.port_80().source_mask = [255, 255, 255, 0];
    maps.add_range(BitsOfPort(0), 0, 20);
    let slot = |src, src_port, port, maps: &Fake| {
        assert_eq!(run(&mut tcp_from(src, src_port, VIP, port), maps), Verdict::Forwarded);
        maps.asked.get()
    };
    let expected = hash::slot(hash::source([192, 0, 2, 0]), SIZE);
    for (host, src_port, port) in [(1, 4000, 80), (1, 4001, 80), (254, 9, 80), (7, 9, 443)] {
        assert_eq!(slot([192, 0, 2, host], src_port, port, &maps), expected);
    }
    assert_ne!(slot([192, 0, 3, 1], 4000, 80, &maps), expected);

    maps.port_80().source_mask = [255; 4];
    assert_ne!(slot([192, 0, 2, 1], 4000, 80, &maps), slot([192, 0, 2, 2], 4000, 80, &maps));
    assert_eq!(slot([192, 0, 2, 1], 4000, 80, &maps), slot([192, 0, 2, 1], 4001, 80, &maps));
}

#[test]
fn what_is_forwarded_and_nothing_else_is_counted_for_service_and_real_server() {
    let maps = Fake::new();
    let syn = with(|frame| frame[TCP_FLAGS] = SYN);
    let bytes = syn.len() as u64;
    check("a flow begins", syn, &maps, Verdict::Forwarded);
    check("data", tcp(VIP, 80), &maps, Verdict::Forwarded);
    let syn_ack = with(|frame| frame[TCP_FLAGS] = SYN | ACK);
    check("a SYN that answers one begins nothing", syn_ack, &maps, Verdict::Forwarded);
    let counted = Counters { packets: 3, bytes: 3 * bytes, new_flows: 1 };
    assert_eq!(maps.counted.take(), BTreeMap::from([((ID, SERVER), counted)]));

    check("flooded by a bridge", with(|frame| frame[0] ^= 2), &maps, Verdict::NotAddressedToUs);
    check("of no service", tcp(VIP, 81), &maps, Verdict::NotVirtualService);
    assert!(maps.counted.take().is_empty());
}

#[test]
fn a_flow_whose_real_server_is_gone_is_reset_if_the_service_says_so() {
    let maps = Fake::changing(Previous::DOWN | 9, Service::RESETS);
    let mut frame = with(|frame| frame[TCP_FLAGS] = ACK);
    assert_eq!(run(&mut frame, &maps), Verdict::Reset);
    assert_eq!((&frame[..6], &frame[6..12]), (&CLIENT_MAC[..], &DIRECTOR_MAC[..]));
    assert_eq!(frame[26..34], [VIP, CLIENT].concat(), "from the VIP to the client");
    let rst = with(|frame| frame[TCP_FLAGS] = 4);
    check("a reset is not answered", rst, &maps, Verdict::RealServerGone);
    check("nor what acknowledges nothing", tcp(VIP, 80), &maps, Verdict::RealServerGone);
    assert!(maps.counted.take().is_empty());
    let syn = with(|frame| frame[TCP_FLAGS] = SYN);
    check("a new flow is forwarded", syn, &maps, Verdict::Forwarded);

    let maps = Fake::changing(Previous::DOWN | 9, 0);
    let ack = with(|frame| frame[TCP_FLAGS] = ACK);
    check("hashed again, its new real server answers", ack, &maps, Verdict::Forwarded);
}

#[test]
fn a_reset_is_for_who_is_forwarded_alone() {
    let mut maps = Fake::changing(Previous::DOWN | 9, Service::RESETS);
    let ack = || with(|frame| frame[TCP_FLAGS] = ACK);
    let flooded = with(|frame| (frame[0], frame[TCP_FLAGS]) = (frame[0] ^ 2, ACK));
    check("flooded by a bridge", flooded, &maps, Verdict::NotAddressedToUs);
    maps.forward_until = 0;
    check("of another director", ack(), &maps, Verdict::NotActive);
}

#[test]
fn the_decision_is_told_step_by_step() {
    let maps = Fake::changing(9, 0);
    let slot = hash::slot(hash::flow(&key(4000)), SIZE);
    let (verdict, steps) = explain(tcp(VIP, 80), &maps);
    assert_eq!(verdict, Verdict::Forwarded);
    assert_eq!(
        steps,
        [
            Step::Service(ID),
            Step::Slot { slot, owner: SERVER | CHANGED },
            Step::Change { table: TABLE, slot },
            Step::Choice(Choice { real_server: 9, why: Why::Previous }),
        ]
    );
    let (_, steps) = explain(tcp(VIP, 80), &Fake::new());
    let choice = Step::Choice(Choice { real_server: SERVER, why: Why::Steady });
    assert_eq!(steps, [Step::Service(ID), Step::Slot { slot, owner: SERVER }, choice]);
}

proptest! {
    #[test]
    fn only_a_forwarded_packet_is_changed(
        mut frame in prop_oneof![vec(any::<u8>(), 0..200), mutated()],
    ) {
        let before = frame.clone();
        let verdict = run(&mut frame, &Fake::new());
        if verdict.action() == Action::Transmit {
            prop_assert_eq!(&before[30..34], &VIP);
        } else {
            prop_assert_eq!(before, frame);
        }
    }

    #[test]
    fn a_flow_always_has_the_same_real_server(port in any::<u16>(), payload in vec(any::<u8>(), 0..100)) {
        let slots = |payload: &[u8]| {
            let maps = Fake { slots: (0..SIZE).zip(0..).collect(), ..Fake::new() };
            let mut frame = Vec::new();
            PacketBuilder::ethernet2(CLIENT_MAC, DIRECTOR_MAC)
                .ip(ip(&[]))
                .tcp(port, 80, 1, 512)
                .write(&mut frame, payload)
                .unwrap();
            let _ = run(&mut frame, &maps);
            maps.asked.get()
        };
        prop_assert_eq!(slots(&payload), slots(b""));
    }
}

const VIP: [u8; 4] = [10, 77, 0, 100];
const CLIENT: [u8; 4] = [192, 0, 2, 1];
const CLIENT_MAC: [u8; 6] = [0xaa; 6];
const DIRECTOR_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 1];
const REAL_SERVER_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 9];
const IFINDEX: u32 = 3;
const TABLE: u32 = 4;
const SIZE: u32 = 1021;
const ROLE: u32 = 2;
const ID: u32 = 5;
const SERVER: u16 = 7;
/// In a frame without IPv4 options.
const TCP_FLAGS: usize = 14 + 20 + 13;
const SYN: u8 = 2;
const ACK: u8 = 16;

/// One table, and the same real server whatever its index.
struct Fake {
    services: BTreeMap<ServiceKey, Service>,
    ranges: Vec<(BitsOfPort, u16, ServiceKey)>,
    looks_for_ranges: bool,
    slots: BTreeMap<u32, Slot>,
    memory: PlainMemory,
    real_server: RealServer,
    forward_until: u64,
    now: u64,
    asked: Cell<u32>,
    counted: RefCell<BTreeMap<(u32, u16), Counters>>,
    steps: RefCell<Vec<Step>>,
}

/// The length of a prefix of a port.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct BitsOfPort(u32);

impl Fake {
    /// A service for TCP port 80, in which no change is in progress.
    fn new() -> Self {
        let service = Service {
            table: TABLE,
            table_size: SIZE,
            previous: STEADY,
            role: ROLE,
            id: ID,
            source_mask: [0; 4],
            flags: 0,
        };
        Self {
            services: BTreeMap::from([(key(0).service(), service)]),
            ranges: Vec::new(),
            looks_for_ranges: false,
            slots: (0..SIZE).map(|slot| (slot, SERVER)).collect(),
            memory: PlainMemory::default(),
            real_server: RealServer {
                address: [10, 77, 0, 11],
                ifindex: IFINDEX,
                destination_mac: REAL_SERVER_MAC,
                source_mac: DIRECTOR_MAC,
            },
            forward_until: FOREVER,
            now: 0,
            asked: Cell::new(SIZE),
            counted: RefCell::default(),
            steps: RefCell::default(),
        }
    }

    /// Every slot changed hands just now.
    fn changing(previous: u16, flags: u32) -> Self {
        let mut maps = Self::new();
        maps.port_80().previous = TABLE;
        maps.port_80().flags = flags;
        maps.slots.values_mut().for_each(|slot| *slot |= CHANGED);
        let previous = Previous { real_server: previous, ..Previous::NONE };
        maps.memory.previous = RefCell::new((0..SIZE).map(|s| ((TABLE, s), previous)).collect());
        maps
    }

    fn port_80(&mut self) -> &mut Service {
        self.services.get_mut(&key(0).service()).unwrap()
    }

    fn add_range(&mut self, bits: BitsOfPort, first: u16, id: u32) {
        let service = Service { id, ..*self.port_80() };
        // The same first port may begin ranges of several lengths.
        let kind = ServiceKey::RANGE + u8::try_from(bits.0).unwrap();
        let key = ServiceKey::new(VIP, first.to_be_bytes(), Ipv4::TCP, kind);
        self.services.insert(key, service);
        self.ranges.push((bits, first, key));
        self.looks_for_ranges = true;
    }
}

impl Maps for Fake {
    fn service(&self, key: &ServiceKey) -> Option<Service> {
        self.services.get(key).copied()
    }

    fn has_port_ranges(&self) -> bool {
        self.looks_for_ranges
    }

    fn port_range(&self, wanted: &PortPrefix) -> Option<&ServiceKey> {
        let has = |(bits, first, key): &&(BitsOfPort, u16, ServiceKey)| {
            let port = u16::from_be_bytes(wanted.port);
            let differing = u32::from(port ^ first).checked_shr(16 - bits.0).unwrap();
            differing == 0 && (wanted.vip, wanted.protocol) == (key.vip(), Ipv4::TCP)
        };
        self.ranges.iter().filter(has).max_by_key(|(bits, ..)| *bits).map(|(.., key)| key)
    }

    fn forward_until(&self, role: u32) -> Option<u64> {
        (role == ROLE).then_some(self.forward_until)
    }

    fn slot(&self, table: u32, slot: u32) -> Option<Slot> {
        assert_eq!(table, TABLE);
        assert!(slot < SIZE);
        self.asked.set(slot);
        self.slots.get(&slot).or_else(|| self.slots.get(&0).filter(|&&only| only == EMPTY)).copied()
    }

    fn real_server(&self, _: u16) -> Option<&RealServer> {
        Some(&self.real_server)
    }

    fn count(&self, service: u32, real_server: u16, counters: Counters) {
        let mut counted = self.counted.borrow_mut();
        let sum = counted.entry((service, real_server)).or_default();
        sum.packets += counters.packets;
        sum.bytes += counters.bytes;
        sum.new_flows += counters.new_flows;
    }

    fn now(&self) -> u64 {
        self.now
    }

    fn saw(&self, step: Step) {
        self.steps.borrow_mut().push(step);
    }
}

impl Memory for Fake {
    fn previous(&self, table: u32, slot: u32) -> Option<Previous> {
        self.memory.previous(table, slot)
    }

    fn mark_noted(&self, table: u32, slot: u32) {
        self.memory.mark_noted(table, slot);
    }

    fn stamp_previous(&self, table: u32, slot: u32, seen: Seconds) {
        self.memory.stamp_previous(table, slot, seen);
    }

    fn note(&self, key: &FlowKey) -> Option<Note> {
        self.memory.note(key)
    }

    fn set_note(&self, key: &FlowKey, note: &Note) -> bool {
        self.memory.set_note(key, note)
    }

    fn touch_note(&self, key: &FlowKey, note: &Note) {
        self.memory.touch_note(key, note);
    }

    fn forget_note(&self, key: &FlowKey) {
        self.memory.forget_note(key);
    }

    fn opening(&self, key: &FlowKey) -> Option<Note> {
        self.memory.opening(key)
    }

    fn set_opening(&self, key: &FlowKey, note: &Note) -> bool {
        self.memory.set_opening(key, note)
    }

    fn forget_opening(&self, key: &FlowKey) {
        self.memory.forget_opening(key);
    }

    fn is_full(&self) -> bool {
        self.memory.is_full()
    }

    fn report_full(&self) {
        self.memory.report_full();
    }

    fn seconds(&self) -> Seconds {
        self.memory.seconds()
    }
}

#[track_caller]
fn check(what: &str, mut frame: Vec<u8>, maps: &Fake, want: Verdict) {
    assert_eq!(run(&mut frame, maps), want, "{what}");
}

fn run(frame: &mut [u8], maps: &Fake) -> Verdict {
    handle(&mut Packet::from_frame(frame), IFINDEX, maps)
}

/// And the steps that led to the verdict.
fn explain(mut frame: Vec<u8>, maps: &Fake) -> (Verdict, Vec<Step>) {
    maps.steps.take();
    let verdict = run(&mut frame, maps);
    (verdict, maps.steps.take())
}

/// Of a flow of the service.
fn key(src_port: u16) -> FlowKey {
    FlowKey::new(CLIENT, VIP, src_port.to_be_bytes(), [0, 80], Ipv4::TCP)
}

fn ip(options: &[u8]) -> etherparse::IpHeaders {
    let mut header =
        etherparse::Ipv4Header::new(0, 64, etherparse::IpNumber::TCP, CLIENT, VIP).unwrap();
    header.options = options.try_into().unwrap();
    etherparse::IpHeaders::Ipv4(header, etherparse::Ipv4Extensions::default())
}

fn tcp(to: [u8; 4], port: u16) -> Vec<u8> {
    tcp_from(CLIENT, 4000, to, port)
}

fn tcp_from(from: [u8; 4], src_port: u16, to: [u8; 4], port: u16) -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(CLIENT_MAC, DIRECTOR_MAC)
        .ipv4(from, to, 64)
        .tcp(src_port, port, 7, 512)
        .write(&mut frame, b"payload")
        .unwrap();
    frame
}

fn udp(to: [u8; 4], port: u16) -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(CLIENT_MAC, DIRECTOR_MAC)
        .ipv4(CLIENT, to, 64)
        .udp(4000, port)
        .write(&mut frame, b"payload")
        .unwrap();
    frame
}

fn with(change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut frame = tcp(VIP, 80);
    change(&mut frame);
    frame
}

/// A packet of the service with a few bytes changed, and cut somewhere.
fn mutated() -> impl Strategy<Value = Vec<u8>> {
    (vec((0..61_usize, any::<u8>()), 0..4), 0..62_usize).prop_map(|(changes, len)| {
        let mut frame = tcp(VIP, 80);
        for (at, byte) in changes {
            frame[at] = byte;
        }
        frame.truncate(len);
        frame
    })
}
