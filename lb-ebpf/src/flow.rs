//! From a packet to the flow that it belongs to.

use crate::{
    abi::{PortPrefix, ServiceKey},
    header::{Ethernet, Ipv4, Tcp, Udp},
    packet::{Offset, Packet},
    verdict::Verdict,
};

/// The 5-tuple; also the key of the flow table.
///
/// Two whole words, made at once: of fields side by side the compiler joins the writes as it
/// likes, and the verifier refuses an unaligned write to the stack whatever the target's features
/// say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct FlowKey {
    /// Source and destination as they stand in the packet, read as a little-endian integer.
    addresses: u64,
    /// Likewise source port, destination port, protocol and three zero bytes.
    ports: u64,
}

const _: () = assert!(size_of::<FlowKey>() == 16);

impl FlowKey {
    /// Addresses and ports in network byte order, the protocol as in the IPv4 header.
    #[inline(always)]
    pub const fn new(
        src: [u8; 4],
        dst: [u8; 4],
        src_port: [u8; 2],
        dst_port: [u8; 2],
        protocol: u8,
    ) -> Self {
        let ([a, b, c, d], [e, f, g, h]) = (src, dst);
        let ([s0, s1], [d0, d1]) = (src_port, dst_port);
        Self {
            addresses: u64::from_le_bytes([a, b, c, d, e, f, g, h]),
            ports: u64::from_le_bytes([s0, s1, d0, d1, protocol, 0, 0, 0]),
        }
    }

    #[inline(always)]
    pub const fn src(&self) -> [u8; 4] {
        let [a, b, c, d, ..] = self.addresses.to_le_bytes();
        [a, b, c, d]
    }

    #[inline(always)]
    pub const fn dst(&self) -> [u8; 4] {
        let [.., e, f, g, h] = self.addresses.to_le_bytes();
        [e, f, g, h]
    }

    #[inline(always)]
    pub const fn dst_port(&self) -> [u8; 2] {
        let [_, _, d0, d1, ..] = self.ports.to_le_bytes();
        [d0, d1]
    }

    #[inline(always)]
    pub const fn protocol(&self) -> u8 {
        let [_, _, _, _, protocol, ..] = self.ports.to_le_bytes();
        protocol
    }

    /// What a hash is made of: addresses, and ports with protocol.
    #[inline(always)]
    pub const fn words(&self) -> (u64, u64) {
        (self.addresses, self.ports)
    }

    /// The virtual service with this port alone that the flow would belong to.
    #[inline(always)]
    pub fn service(&self) -> ServiceKey {
        // Shifts of whole words: bytes that are written one by one and read as a word stall the
        // processor.
        let (vip, port) = (self.addresses >> 32, self.ports >> 16 & 0xffff);
        let protocol = self.ports >> 32 & 0xff;
        ServiceKey::from_word(vip | port << 32 | protocol << 48)
    }

    /// What a virtual service with several ports is found by.
    #[inline(always)]
    pub fn port(&self) -> PortPrefix {
        PortPrefix::new(self.dst(), self.protocol(), self.dst_port())
    }
}

/// What a packet does to its flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// A SYN without ACK: a flow begins.
    Opening,
    /// Also every packet of a protocol without connections.
    Middle,
    /// A FIN.
    Closing,
    /// A RST.
    Reset,
}

/// A packet of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parsed {
    pub key: FlowKey,
    pub phase: Phase,
    /// The TCP sequence number, else 0.
    pub sequence: u32,
    /// Where its TCP or UDP header begins.
    pub l4: Offset,
}

/// Reads the flow of an Ethernet frame.
///
/// # Errors
///
/// The verdict of a packet that has none.
#[inline(always)]
pub fn parse(packet: &Packet<'_>) -> Result<Parsed, Verdict> {
    let ethernet = packet.view::<Ethernet>(Offset::START).ok_or(Verdict::Truncated)?;
    if ethernet.ethertype != Ethernet::IPV4 {
        return Err(Verdict::NotIpv4);
    }
    let l3 = Offset::START.after::<Ethernet>().ok_or(Verdict::Truncated)?;
    let ip = packet.view::<Ipv4>(l3).ok_or(Verdict::Truncated)?;
    let header_len = ip.header_len().ok_or(Verdict::BadIpv4Header)?;
    let protocol = ip.protocol();
    if protocol != Ipv4::TCP && protocol != Ipv4::UDP {
        return Err(Verdict::OtherProtocol);
    }
    if ip.is_fragment() {
        return Err(Verdict::Fragment);
    }
    // Ethernet pads short packets: what lies beyond the stated length is not a header.
    let payload = usize::from(ip.total_len())
        .checked_sub(usize::from(header_len))
        .ok_or(Verdict::Truncated)?;
    let l4 = l3.plus(header_len).ok_or(Verdict::Truncated)?;
    let (src_port, dst_port, phase, sequence) = if protocol == Ipv4::TCP {
        let tcp = packet.view::<Tcp>(l4).ok_or(Verdict::Truncated)?;
        if payload < size_of::<Tcp>() {
            return Err(Verdict::Truncated);
        }
        (tcp.src, tcp.dst, tcp.phase(), u32::from_be_bytes(tcp.sequence))
    } else {
        let udp = packet.view::<Udp>(l4).ok_or(Verdict::Truncated)?;
        if payload < size_of::<Udp>() {
            return Err(Verdict::Truncated);
        }
        (udp.src, udp.dst, Phase::Middle, 0)
    };
    let key = FlowKey::new(ip.src, ip.dst, src_port, dst_port, protocol);
    Ok(Parsed { key, phase, sequence, l4 })
}
