use std::vec::Vec;

use etherparse::{Ipv4Header, PacketBuilder, SlicedPacket, TransportSlice};
use proptest::{collection::vec, prelude::*};

use super::*;
use crate::flow;

#[test]
fn the_reset_is_what_the_client_believes() {
    let frame = request(&[], b"payload", ACK);
    let reset = reset_of(&frame).unwrap();
    let packet = SlicedPacket::from_ethernet(&reset).unwrap();
    assert_eq!((&reset[..6], &reset[6..12]), (&CLIENT_MAC[..], &DIRECTOR_MAC[..]));
    let Some(etherparse::NetSlice::Ipv4(ip)) = packet.net else { panic!("no IPv4: {reset:02x?}") };
    let ip = ip.header();
    assert_eq!((ip.source(), ip.destination()), (VIP, CLIENT));
    assert_eq!((ip.ttl(), ip.dont_fragment(), ip.total_len()), (64, true, 40));
    let Some(TransportSlice::Tcp(tcp)) = packet.transport else { panic!("no TCP: {reset:02x?}") };
    assert_eq!((tcp.source_port(), tcp.destination_port()), (80, 4000));
    assert_eq!(tcp.sequence_number(), 0x89ab_cdef, "what the client has acknowledged");
    assert_eq!(tcp.acknowledgment_number(), 0);
    let flags = (tcp.rst(), tcp.ack(), tcp.syn(), tcp.fin(), tcp.psh(), tcp.urg());
    assert_eq!(flags, (true, false, false, false, false, false));
    assert_eq!((tcp.window_size(), tcp.urgent_pointer()), (0, 0));
    assert!(tcp.payload().is_empty() && tcp.options().is_empty());
}

#[test]
fn what_acknowledges_nothing_or_is_a_reset_itself_is_left_as_it_is() {
    for flags in 0..=u8::MAX {
        let frame = request(&[], b"payload", flags);
        let answered = flags & (Tcp::ACK | Tcp::RST) == Tcp::ACK;
        // `reset_of` sees to it that nothing has changed.
        assert_eq!(reset_of(&frame).is_some(), answered, "flags {flags:#x}");
    }
}

proptest! {
    #[test]
    fn checksums_are_those_that_another_makes_from_scratch(
        options in (0..=10_usize).prop_flat_map(|words| vec(any::<u8>(), 4 * words)),
        payload in vec(any::<u8>(), 0..40),
        (client, vip) in any::<([u8; 4], [u8; 4])>(),
        (port, acknowledgment) in any::<(u16, [u8; 4])>(),
    ) {
        let mut frame = request(&options, &payload, ACK);
        frame[26..30].copy_from_slice(&client);
        frame[30..34].copy_from_slice(&vip);
        let l4 = 34 + options.len();
        frame[l4..l4 + 2].copy_from_slice(&port.to_be_bytes());
        frame[l4 + 8..l4 + 12].copy_from_slice(&acknowledgment);

        let reset = reset_of(&frame).unwrap();
        let packet = SlicedPacket::from_ethernet(&reset).unwrap();
        let Some(etherparse::NetSlice::Ipv4(ip)) = packet.net else { panic!("no IPv4") };
        let ip = ip.header().to_header();
        prop_assert_eq!((ip.source, ip.destination), (vip, client));
        prop_assert_eq!(ip.header_checksum, ip.calc_header_checksum());
        let Some(TransportSlice::Tcp(tcp)) = packet.transport else { panic!("no TCP") };
        prop_assert_eq!((tcp.source_port(), tcp.destination_port()), (80, port));
        prop_assert_eq!(tcp.sequence_number().to_be_bytes(), acknowledgment);
        let from_scratch = tcp.to_header().calc_checksum_ipv4(&ip, &[]).unwrap();
        prop_assert_eq!(tcp.checksum(), from_scratch);
    }
}

const CLIENT: [u8; 4] = [192, 0, 2, 1];
const VIP: [u8; 4] = [10, 77, 0, 100];
const CLIENT_MAC: [u8; 6] = [0xaa; 6];
const DIRECTOR_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 1];
const ACK: u8 = Tcp::ACK;

/// What is to be sent; else the frame is as it was.
fn reset_of(frame: &[u8]) -> Option<Vec<u8>> {
    let mut answer = frame.to_vec();
    let mut packet = Packet::from_frame(&mut answer);
    let parsed = flow::parse(&packet).unwrap();
    let answered = super::answer(&mut packet, parsed.l4);
    if answered.is_none() {
        assert_eq!(answer, frame, "changed, and not answered");
    }
    answered.map(|()| answer[..usize::from(FRAME_LEN)].to_vec())
}

fn request(options: &[u8], payload: &[u8], flags: u8) -> Vec<u8> {
    let mut ip = Ipv4Header::new(0, 7, etherparse::IpNumber::TCP, CLIENT, VIP).unwrap();
    ip.options = options.try_into().unwrap();
    ip.identification = 77;
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(CLIENT_MAC, DIRECTOR_MAC)
        .ip(etherparse::IpHeaders::Ipv4(ip, etherparse::Ipv4Extensions::default()))
        .tcp(4000, 80, 0x0123_4567, 512)
        .ack(0x89ab_cdef)
        .options_raw(&[1, 1, 1, 1])
        .unwrap()
        .write(&mut frame, payload)
        .unwrap();
    frame[34 + options.len() + 13] = flags;
    frame
}
