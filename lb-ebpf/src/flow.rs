//! From a packet to the flow that it belongs to.

use crate::{
    abi::ServiceKey,
    header::{Ethernet, Ipv4, Ports},
    packet::{Offset, Packet},
    verdict::Verdict,
};

/// The 5-tuple, in network byte order.
///
/// Aligned, because the compiler reads the arrays as integers, and the verifier refuses an
/// unaligned read from the stack whatever the target's features say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(4))]
pub struct FlowKey {
    pub src: [u8; 4],
    pub dst: [u8; 4],
    pub src_port: [u8; 2],
    pub dst_port: [u8; 2],
    pub protocol: u8,
}

impl FlowKey {
    /// The virtual service that the flow would belong to.
    #[inline(always)]
    pub fn service(&self) -> ServiceKey {
        ServiceKey { vip: self.dst, port: self.dst_port, protocol: self.protocol, zero: 0 }
    }
}

/// Reads the flow of an Ethernet frame.
///
/// # Errors
///
/// The verdict of a packet that has none.
#[inline(always)]
pub fn parse(packet: &Packet<'_>) -> Result<FlowKey, Verdict> {
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
    // Ethernet pads short packets: what lies beyond the stated length is not a port.
    if usize::from(ip.total_len()) < usize::from(header_len) + size_of::<Ports>() {
        return Err(Verdict::Truncated);
    }
    let l4 = l3.plus(header_len).ok_or(Verdict::Truncated)?;
    let ports = packet.view::<Ports>(l4).ok_or(Verdict::Truncated)?;
    Ok(FlowKey { src: ip.src, dst: ip.dst, src_port: ports.src, dst_port: ports.dst, protocol })
}
