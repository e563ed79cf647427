//! The reset that a director answers with, in the place of a real server that is gone.

use crate::{
    header::{Ethernet, Ipv4, Tcp},
    packet::{Offset, Packet},
};

/// Ethernet, IPv4 and TCP without options: all that is left of the frame.
#[expect(clippy::cast_possible_truncation, reason = "headers are tens of bytes long")]
pub const FRAME_LEN: u16 = (size_of::<Ethernet>() + size_of::<Ipv4>() + size_of::<Tcp>()) as u16;

#[expect(clippy::cast_possible_truncation, reason = "headers are tens of bytes long")]
const IPV4_LEN: u16 = (size_of::<Ipv4>() + size_of::<Tcp>()) as u16;
const TTL: u8 = 64;

/// Makes the first [`FRAME_LEN`] bytes of a TCP packet the reset that answers it, to the host that
/// the frame came from. `None`, and nothing changed, if it must not be answered so: a reset is
/// answered by nobody, and what acknowledges nothing tells no sequence number that its sender would
/// believe (RFC 9293 §3.10.7.1, RFC 5961 §3).
#[inline(always)]
pub fn answer(packet: &mut Packet<'_>, l4: Offset) -> Option<()> {
    let received = *packet.view::<Tcp>(l4)?;
    let [flags] = received.flags;
    if flags & Tcp::RST != 0 || flags & Tcp::ACK == 0 {
        return None;
    }
    let l3 = Offset::START.after::<Ethernet>()?;
    let (src, dst) = {
        let ip = packet.view::<Ipv4>(l3)?;
        (ip.src, ip.dst)
    };
    let reset = Tcp {
        src: received.dst,
        dst: received.src,
        sequence: received.acknowledgment,
        acknowledgment: [0; 4],
        offset: [5 << 4],
        flags: [Tcp::RST],
        window: [0; 2],
        checksum: [0; 2],
        urgent: [0; 2],
    };
    let ip = Ipv4 {
        version_ihl: [0x45],
        tos: [0],
        total_len: IPV4_LEN.to_be_bytes(),
        id: [0; 2],
        // Do not fragment, so that the identification may be 0 (RFC 6864 §4.1).
        flags_fragment: [0x40, 0],
        ttl: [TTL],
        protocol: [Ipv4::TCP],
        checksum: [0; 2],
        src: dst,
        dst: src,
    };
    // A TCP packet has these bytes, wherever its options end.
    *packet.view_mut::<Tcp>(l3.after::<Ipv4>()?)? =
        Tcp { checksum: tcp_checksum(&ip, &reset), ..reset };
    *packet.view_mut::<Ipv4>(l3)? = Ipv4 { checksum: ipv4_checksum(&ip), ..ip };
    let ethernet = packet.view_mut::<Ethernet>(Offset::START)?;
    core::mem::swap(&mut ethernet.dst, &mut ethernet.src);
    Some(())
}

/// With the checksum field zero.
#[inline(always)]
fn ipv4_checksum(ip: &Ipv4) -> [u8; 2] {
    let sum = words([ip.version_ihl[0], ip.tos[0]])
        + words(ip.total_len)
        + words(ip.id)
        + words(ip.flags_fragment)
        + words([ip.ttl[0], ip.protocol[0]])
        + address(ip.src)
        + address(ip.dst);
    complement(sum)
}

/// With the checksum field zero, over the pseudo-header too (RFC 9293 §3.1).
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "headers are tens of bytes long")]
fn tcp_checksum(ip: &Ipv4, tcp: &Tcp) -> [u8; 2] {
    let sum = address(ip.src)
        + address(ip.dst)
        + u32::from(Ipv4::TCP)
        + size_of::<Tcp>() as u32
        + words(tcp.src)
        + words(tcp.dst)
        + address(tcp.sequence)
        + words([tcp.offset[0], tcp.flags[0]]);
    complement(sum)
}

#[inline(always)]
const fn words(bytes: [u8; 2]) -> u32 {
    u16::from_be_bytes(bytes) as u32
}

#[inline(always)]
const fn address([a, b, c, d]: [u8; 4]) -> u32 {
    words([a, b]) + words([c, d])
}

/// A sum of few words needs its carry added twice.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "folded to 16 bits")]
const fn complement(sum: u32) -> [u8; 2] {
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    (!(folded as u16)).to_be_bytes()
}

#[cfg(test)]
mod tests;
