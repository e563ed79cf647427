//! The lab measures others, so here it is measured itself: each instrument sees the fault that
//! it is there for. Needs root.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    time::{Duration, SystemTime},
};

use etherparse::PacketBuilder;
use tests::{
    capture::{Capture, Judgement},
    interrupt::{observe, wait_for},
    lab::{CLIENT, Lab, PORT, TARGET, VIP},
    netns::Netns,
    payload::{Hello, Pace, Pattern, Trailer},
    probe::{Probe, Takeover},
    real_server::RealServer,
    traffic::Load,
};

#[test]
fn a_namespace_is_gone_after_a_panic() {
    let name = std::panic::catch_unwind(|| {
        let netns = Netns::new("panic").unwrap();
        assert!(handle(netns.name()).exists());
        netns.ip("link set nonesuch up").map_err(|error| (netns.name().to_owned(), error)).unwrap();
    })
    .unwrap_err()
    .downcast::<String>()
    .unwrap();
    assert!(name.contains("Cannot find device"), "{name}");
    let netns = name.split('"').nth(1).unwrap();
    assert!(netns.ends_with("-panic") && !handle(netns).exists(), "{netns}");
}

#[test]
fn a_thread_inside_sees_another_network_and_the_caller_does_not() {
    let netns = Netns::new("inside").unwrap();
    let inside = netns.enter(|| fs::read_link("/proc/thread-self/ns/net").unwrap()).unwrap();
    assert_ne!(inside, fs::read_link("/proc/thread-self/ns/net").unwrap());
}

#[test]
fn every_byte_of_many_connections_arrives_through_the_bridge() {
    let lab = lab_with_vip_on_rs1();
    let _server = RealServer::start(&lab.real_servers[0], PORT).unwrap();
    let load = Load::start(&lab.client, TARGET, 60).unwrap();
    load.wait_established(Duration::from_secs(10)).unwrap();
    let mark = load.mark();
    wait_for("progress", Duration::from_secs(5), || {
        let moving = load.moving_since(&mark);
        Ok(if moving == 60 { Ok(()) } else { Err(moving.to_string()) })
    })
    .unwrap();
    let report = load.finish().unwrap();
    assert_eq!((report.connections.opened, report.connections.survived), (60, 60), "{report:?}");
    assert!(report.new_connections.attempted > 0, "{report:?}");
    assert_eq!(report.new_connections.attempted, report.new_connections.succeeded, "{report:?}");
    assert_eq!(report.clients_seen, [CLIENT].into(), "{report:?}");
    assert_eq!(report.by_real_server.keys().collect::<Vec<_>>(), ["rs1"]);
}

#[test]
fn connections_to_a_server_that_ends_are_counted_as_reset() {
    let lab = lab_with_vip_on_rs1();
    let server = RealServer::start(&lab.real_servers[0], PORT).unwrap();
    let load = Load::start(&lab.client, TARGET, 10).unwrap();
    load.wait_established(Duration::from_secs(10)).unwrap();
    drop(server);
    let report = load.finish().unwrap();
    assert_eq!((report.connections.opened, report.connections.reset), (10, 10), "{report:?}");
}

#[test]
fn a_server_notices_one_flipped_bit() {
    let lab = lab_with_vip_on_rs1();
    let _server = RealServer::start(&lab.real_servers[0], PORT).unwrap();
    assert_eq!(upload_with_flipped_bit(&lab, None).fault, None);
    let fault = upload_with_flipped_bit(&lab, Some(1_234)).fault.unwrap();
    assert!(fault.starts_with("byte 1234 is "), "{fault}");
}

#[test]
fn the_probe_measures_an_outage_and_tells_who_answers() {
    let lab = lab_with_vip_on_rs1();
    let [rs1, rs2, ..] = &lab.real_servers;
    let probe = Probe::start(&lab.client, VIP).unwrap();
    let begin = SystemTime::now();
    wait_for("an answer", Duration::from_secs(5), || {
        Ok(if probe.answered(rs1.mac(), begin) { Ok(()) } else { Err("none".to_owned()) })
    })
    .unwrap();
    let (cut, first_probe) = (SystemTime::now(), probe.next_number());
    lab.switch.ip("link set rs1 down").unwrap();
    let down_after = cut.elapsed().unwrap();
    observe(Duration::from_millis(200)).unwrap();
    let up = SystemTime::now();
    move_vip_to(&lab, 1);
    wait_for("an answer", Duration::from_secs(5), || {
        Ok(if probe.answered(rs2.mac(), up) { Ok(()) } else { Err("none".to_owned()) })
    })
    .unwrap();
    let dark = cut.elapsed().unwrap();
    let (sightings, probes) = probe.finish(first_probe).unwrap();
    let takeover = Takeover::find(&sightings, cut, rs1.mac(), rs2.mac()).unwrap();
    let outage = takeover.outage().unwrap();
    let least = Duration::from_millis(199);
    assert!(outage >= least && outage <= dark, "{least:?} <= {outage:?} <= {dark:?}");
    assert!(takeover.first_garp.is_some(), "{takeover:?}");
    let expected = outage.as_millis();
    let tolerance = expected / 4 + down_after.as_millis();
    for count in [probes.lost, probes.longest_loss] {
        assert!(
            u128::from(count).abs_diff(expected) <= tolerance,
            "{probes:?}, expected about {expected}"
        );
    }
}

#[test]
fn the_judge_passes_real_traffic_and_finds_every_packet_that_is_malformed() {
    let lab = lab_with_vip_on_rs1();
    let _server = RealServer::start(&lab.real_servers[0], PORT).unwrap();
    let file = lab.dir().join("lab.pcapng");
    let capture = Capture::start(&lab.switch, &[("client", "")], &file).unwrap();
    let load = Load::start(&lab.client, TARGET, 20).unwrap();
    load.wait_established(Duration::from_secs(10)).unwrap();
    load.finish().unwrap();
    let clean = capture.finish().unwrap().judge().unwrap();
    assert_eq!((clean.packets.malformed, clean.packets.dropped), (0, 0), "{clean:?}");
    assert!(clean.packets.judged["tcp"] > 200 && clean.packets.judged["arp"] > 0, "{clean:?}");

    for (fault, packet) in malformed_packets() {
        let found = judge_packet(&lab, &packet);
        assert_eq!(found.packets.malformed, 1, "{fault}: {found:?}");
    }
    let found = judge_packet(&lab, &packet_with_checksum_minus_zero());
    assert_eq!((found.packets.malformed, found.packets.judged["tcp"]), (0, 1), "{found:?}");
}

fn lab_with_vip_on_rs1() -> Lab {
    let lab = Lab::new().unwrap();
    lab.real_servers[0].netns.ip(&format!("addr add {VIP}/24 dev eth0")).unwrap();
    lab
}

fn move_vip_to(lab: &Lab, index: usize) {
    let netns = &lab.real_servers[index].netns;
    netns.ip(&format!("addr add {VIP}/24 dev eth0")).unwrap();
    announce(lab, index);
}

fn announce(lab: &Lab, index: usize) {
    let mac = lab.real_servers[index].mac().0;
    let mut frame = vec![0xff; 6];
    frame.extend(mac);
    frame.extend([0x08, 0x06, 0, 1, 0x08, 0x00, 6, 4, 0, 1]);
    frame.extend(mac);
    frame.extend(VIP.octets());
    frame.extend([0; 6]);
    frame.extend(VIP.octets());
    lab.real_servers[index].send_frame(&frame).unwrap();
}

fn judge_packet(lab: &Lab, packet: &[u8]) -> Judgement {
    let file = lab.dir().join("packet.pcapng");
    let capture = Capture::start(&lab.switch, &[("client", "")], &file).unwrap();
    lab.client.send_frame(packet).unwrap();
    capture.finish().unwrap().judge().unwrap()
}

/// As if a director had forwarded it.
fn packet(sequence: u32) -> Vec<u8> {
    let mut packet = Vec::new();
    PacketBuilder::ethernet2([2, 0, 10, 77, 0, 1], [2, 0, 10, 77, 0, 11])
        .ipv4(CLIENT.octets(), VIP.octets(), 64)
        .tcp(40_000, PORT, sequence, 1_000)
        .write(&mut packet, b"payload")
        .unwrap();
    packet
}

fn malformed_packets() -> [(&'static str, Vec<u8>); 5] {
    let changed = |at: usize, xor: u8| {
        let mut packet = packet(1);
        packet[at] ^= xor;
        packet
    };
    [
        ("TCP checksum", changed(50, 0x01)),
        ("a changed payload byte", changed(55, 0x80)),
        ("IP header checksum", changed(24, 0x01)),
        ("an IP length beyond the packet", changed(16, 0x01)),
        ("a TCP header length below its minimum", changed(46, 0x40)),
    ]
}

/// 0xffff is the other zero of one's complement, and what Linux writes.
fn packet_with_checksum_minus_zero() -> Vec<u8> {
    let mut packet = (0..).map(packet).find(|packet| packet[50..52] == [0, 0]).unwrap();
    packet[50..52].copy_from_slice(&[0xff, 0xff]);
    packet
}

fn upload_with_flipped_bit(lab: &Lab, flip: Option<usize>) -> Trailer {
    let pace = Pace::Every(Duration::from_millis(10));
    let hello = Hello { connection: 42, pace, block: 100 };
    let mut upload = vec![0; 5_000];
    Pattern::upload(hello.connection).fill(0, &mut upload);
    if let Some(at) = flip {
        upload[at] ^= 0x10;
    }
    let mut bytes = hello.encode().to_vec();
    bytes.extend(5_000_u32.to_le_bytes());
    bytes.extend(upload);
    bytes.extend(0_u32.to_le_bytes());
    lab.client
        .netns
        .enter(|| {
            let mut stream = TcpStream::connect(TARGET).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            stream.write_all(&bytes).unwrap();
            read_trailer(&mut stream)
        })
        .unwrap()
}

fn read_trailer(stream: &mut TcpStream) -> Trailer {
    let mut name = [0; 1 + "rs1".len()];
    stream.read_exact(&mut name).unwrap();
    assert_eq!(&name, b"\x03rs1");
    loop {
        let mut header = [0; 12];
        stream.read_exact(&mut header).unwrap();
        let len = u32::from_le_bytes(header[..4].try_into().unwrap());
        let mut rest = vec![0; if len == 0 { 4 } else { len as usize }];
        stream.read_exact(&mut rest).unwrap();
        if len == 0 {
            let mut text = vec![0; u32::from_le_bytes(rest.try_into().unwrap()) as usize];
            stream.read_exact(&mut text).unwrap();
            return serde_json::from_slice(&text).unwrap();
        }
    }
}

fn handle(netns: &str) -> std::path::PathBuf {
    Path::new("/run/netns").join(netns)
}
