use std::{collections::BTreeMap, vec::Vec};

use etherparse::PacketBuilder;
use proptest::{collection::vec, prelude::*};

use super::*;
use crate::verdict::{Action, Verdict};

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
        let complete = len >= 14 + 20 + 4;
        assert_eq!(verdict == Verdict::Forwarded, complete, "{len} bytes: {verdict:?}");
        assert_eq!(frame[..] == whole[..len], !complete, "{len} bytes");
    }
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
const CLIENT_MAC: [u8; 6] = [0xaa; 6];
const DIRECTOR_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 1];
const REAL_SERVER_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 9];
const IFINDEX: u32 = 3;
const SIZE: u32 = 1021;

/// One service, one table, one real server in every slot.
struct Fake {
    service: Service,
    slots: BTreeMap<u32, u16>,
    real_server: RealServer,
    forward_until: u64,
    now: u64,
    asked: core::cell::Cell<u32>,
}

impl Fake {
    fn new() -> Self {
        Self {
            service: Service { table: 4, table_size: SIZE, role: 2 },
            slots: (0..SIZE).map(|slot| (slot, 7)).collect(),
            real_server: RealServer {
                address: [10, 77, 0, 11],
                ifindex: IFINDEX,
                destination_mac: REAL_SERVER_MAC,
                source_mac: DIRECTOR_MAC,
            },
            forward_until: FOREVER,
            now: 0,
            asked: core::cell::Cell::new(SIZE),
        }
    }
}

impl Maps for Fake {
    fn service(&self, key: &ServiceKey) -> Option<&Service> {
        let configured = ServiceKey { vip: VIP, port: [0, 80], protocol: 6, zero: 0 };
        (*key == configured).then_some(&self.service)
    }

    fn forward_until(&self, role: u32) -> Option<u64> {
        (role == 2).then_some(self.forward_until)
    }

    fn slot(&self, table: u32, slot: u32) -> Option<u16> {
        assert_eq!(table, 4);
        assert!(slot < SIZE);
        self.asked.set(slot);
        self.slots.get(&slot).or_else(|| self.slots.get(&0).filter(|&&only| only == EMPTY)).copied()
    }

    fn real_server(&self, _: u16) -> Option<&RealServer> {
        Some(&self.real_server)
    }

    fn now(&self) -> u64 {
        self.now
    }
}

#[track_caller]
fn check(what: &str, mut frame: Vec<u8>, maps: &Fake, want: Verdict) {
    assert_eq!(run(&mut frame, maps), want, "{what}");
}

fn run(frame: &mut [u8], maps: &Fake) -> Verdict {
    handle(&mut Packet::from_frame(frame), IFINDEX, maps)
}

fn ip(options: &[u8]) -> etherparse::IpHeaders {
    let mut header =
        etherparse::Ipv4Header::new(0, 64, etherparse::IpNumber::TCP, [192, 0, 2, 1], VIP).unwrap();
    header.options = options.try_into().unwrap();
    etherparse::IpHeaders::Ipv4(header, etherparse::Ipv4Extensions::default())
}

fn tcp(to: [u8; 4], port: u16) -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(CLIENT_MAC, DIRECTOR_MAC)
        .ipv4([192, 0, 2, 1], to, 64)
        .tcp(4000, port, 7, 512)
        .write(&mut frame, b"payload")
        .unwrap();
    frame
}

fn udp(to: [u8; 4], port: u16) -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(CLIENT_MAC, DIRECTOR_MAC)
        .ipv4([192, 0, 2, 1], to, 64)
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
