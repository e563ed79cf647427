//! Packets of an attacker: from sources that do not exist, for no connection that anybody has.

use std::{
    net::Ipv4Addr,
    ops::Range,
    thread::{self, JoinHandle},
    time::Instant,
};

use anyhow::{Context, ensure};
use etherparse::{PacketBuilder, PacketBuilderStep, TcpHeader};

use crate::{
    director::Director,
    interrupt,
    lab::{CLIENT, FrameSender, Host, Lab, Mac, PORT, VIP},
    payload::mix,
};

mod burst;

pub use burst::burst;

/// What each of them looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packets {
    /// A SYN, each from a source address of its own.
    Syn,
    /// From the middle of a connection: acknowledgements, data, ends and resets.
    MidFlow,
    /// A SYN, and the acknowledgement that would complete its handshake.
    Handshake,
    /// A SYN with the client's own address; the number is the port, so that 65,536 of them have
    /// those of all of its connections.
    Impostor,
}

/// What became of packets that were injected.
#[derive(Debug, Default)]
pub struct Injected {
    pub packets: u64,
    /// By XDP action, which is less than 5.
    pub actions: [u64; 5],
    pub ns_per_packet: u64,
}

/// The XDP action of a packet that is forwarded.
pub const XDP_TX: usize = 3;

/// Every source of a [`Packets::Syn`] differs for so many packets.
const SOURCES: u64 = 1 << 24;

/// Hands packets to the program of `director`, one after the other, in a thread of its own: they
/// take no wire and reach no real server, and are as many as a wire could not carry here.
pub fn inject(
    director: &Director<'_>,
    packets: Packets,
    numbers: Range<u64>,
) -> anyhow::Result<JoinHandle<anyhow::Result<Injected>>> {
    let (program, to) = (director.program()?, director.host.mac());
    director.host.netns.spawn_thread("flood", move || {
        let mut injected = Injected::default();
        let begin = Instant::now();
        for number in numbers {
            if number % 4_096 == 0 {
                interrupt::check()?;
            }
            let action = program.run(&packets.frame(number, to)?)?;
            *injected.actions.get_mut(action as usize).context("an unknown XDP action")? += 1;
            injected.packets += 1;
        }
        let ns = begin.elapsed().as_nanos() / u128::from(injected.packets.max(1));
        injected.ns_per_packet = u64::try_from(ns)?;
        Ok(injected)
    })
}

/// Sends real frames from the client's interface, with sources that the real servers answer by
/// way of the client, which wants nothing of it.
pub fn send(
    lab: &Lab,
    packets: Packets,
    numbers: Range<u64>,
    to: &Host,
) -> anyhow::Result<JoinHandle<anyhow::Result<u64>>> {
    for host in &lab.real_servers {
        let route = format!("route replace {SOURCE_NETWORK} via {} dev eth0", lab.client.address);
        host.netns.ip(&route)?;
    }
    let to = to.mac();
    lab.client.netns.spawn_thread("flood", move || {
        let sender = FrameSender::open()?;
        let count = numbers.end - numbers.start;
        for number in numbers {
            if number % 4_096 == 0 {
                interrupt::check()?;
            }
            let frame = packets.frame(number, to)?;
            while let Err(error) = sender.send(&frame) {
                // The real servers are behind: a flood goes as fast as they take it.
                ensure!(error == nix::Error::ENOBUFS, "send a frame: {error}");
                interrupt::check()?;
                thread::yield_now();
            }
        }
        Ok(count)
    })
}

/// Those of the sources below.
const SOURCE_NETWORK: &str = "96.0.0.0/8";
const FIRST_SOURCE: Ipv4Addr = Ipv4Addr::new(96, 0, 0, 0);

impl Packets {
    /// A whole frame with right checksums; the number determines it.
    fn frame(self, number: u64, to: Mac) -> anyhow::Result<Vec<u8>> {
        let pair = match self {
            Self::Syn | Self::MidFlow | Self::Impostor => number,
            Self::Handshake => number / 2,
        };
        let [port_a, port_b, seq_a, seq_b, seq_c, seq_d, kind, _] = mix(pair).to_le_bytes();
        let port = match self {
            Self::Syn | Self::MidFlow | Self::Handshake => u16::from_le_bytes([port_a, port_b]),
            Self::Impostor => u16::try_from(number % 0x1_0000)?,
        };
        let sequence = u32::from_le_bytes([seq_a, seq_b, seq_c, seq_d]);
        // An odd factor visits every source once before any a second time.
        let host = u32::try_from(pair.wrapping_mul(0x9e_3779) % SOURCES)?;
        let source = match self {
            Self::Syn | Self::MidFlow | Self::Handshake => {
                Ipv4Addr::from_bits(FIRST_SOURCE.to_bits() | host)
            }
            Self::Impostor => CLIENT,
        };
        let from = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], to.0).ipv4(
            source.octets(),
            VIP.octets(),
            64,
        );
        let tcp = |sequence| from.tcp(port.max(1), PORT, sequence, 64_240);
        let (packet, payload): (PacketBuilderStep<TcpHeader>, &[u8]) = match self {
            Self::Syn | Self::Impostor => (tcp(sequence).syn(), b""),
            Self::Handshake if number.is_multiple_of(2) => (tcp(sequence).syn(), b""),
            Self::Handshake => (tcp(sequence.wrapping_add(1)).ack(1), b""),
            Self::MidFlow => match kind % 4 {
                0 => (tcp(sequence).ack(sequence), b""),
                1 => (tcp(sequence).ack(sequence).psh(), b"not what was asked for"),
                2 => (tcp(sequence).ack(sequence).fin(), b""),
                _ => (tcp(sequence).rst(), b""),
            },
        };
        let mut frame = Vec::with_capacity(packet.size(payload.len()));
        packet.write(&mut frame, payload).context("write a frame")?;
        Ok(frame)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_syn_has_a_source_of_its_own() {
        let frames = (0..100_000).map(|number| Packets::Syn.frame(number, TO).unwrap());
        let sources: HashSet<_> = frames.map(|frame| frame[26..30].to_vec()).collect();
        assert_eq!(sources.len(), 100_000);
    }

    #[test]
    fn a_handshake_is_a_syn_and_an_acknowledgement_of_the_same_flow() {
        let [syn, ack] = [8, 9].map(|number| Packets::Handshake.frame(number, TO).unwrap());
        assert_eq!(syn[26..38], ack[26..38], "addresses and ports");
        assert_eq!((syn[47], ack[47]), (0x02, 0x10), "flags");
        assert_ne!(Packets::Handshake.frame(10, TO).unwrap()[26..38], syn[26..38]);
    }

    const TO: Mac = Mac([2, 0, 10, 77, 0, 2]);
}
