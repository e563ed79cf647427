//! The pipeline: flow, virtual service, role, slot, real server, rewrite.

use crate::{
    abi::{EMPTY, FOREVER, ForwardUntil, RealServer, Service, ServiceKey},
    flow, hash,
    header::Ethernet,
    packet::{Offset, Packet},
    verdict::Verdict,
};

/// The state that the daemon keeps for the datapath: BPF maps in the kernel, plain memory in
/// tests on the host.
pub trait Maps {
    fn service(&self, key: &ServiceKey) -> Option<&Service>;
    fn forward_until(&self, role: u32) -> Option<ForwardUntil>;
    /// `slot` is below the table's size.
    fn slot(&self, table: u32, slot: u32) -> Option<u16>;
    fn real_server(&self, index: u16) -> Option<&RealServer>;
    /// Nanoseconds of `CLOCK_MONOTONIC`.
    fn now(&self) -> u64;
}

/// Decides the fate of one frame that came in by `ifindex`, and rewrites it if it is to be
/// forwarded; any other verdict leaves it as it was.
#[inline(always)]
pub fn handle<M: Maps>(packet: &mut Packet<'_>, ifindex: u32, maps: &M) -> Verdict {
    match forward(packet, ifindex, maps) {
        Ok(()) => Verdict::Forwarded,
        Err(verdict) => verdict,
    }
}

#[inline(always)]
fn forward<M: Maps>(packet: &mut Packet<'_>, ifindex: u32, maps: &M) -> Result<(), Verdict> {
    let key = flow::parse(packet)?;
    let service = maps.service(&key.service()).ok_or(Verdict::NotVirtualService)?;
    if !is_active(service, maps) {
        return Err(Verdict::NotActive);
    }
    let slot = hash::slot(hash::flow(&key), service.table_size);
    let real_server = match maps.slot(service.table, slot) {
        None | Some(EMPTY) => return Err(Verdict::NoRealServer),
        Some(index) => maps.real_server(index).ok_or(Verdict::NoRealServer)?,
    };
    direct_return(packet, ifindex, real_server)
}

/// Loops are impossible by construction: a director that is not active for a VIP, and whose
/// grace after being so has passed, forwards nothing for it.
#[inline(always)]
fn is_active<M: Maps>(service: &Service, maps: &M) -> bool {
    match maps.forward_until(service.role) {
        // The common cases do not read the clock.
        None | Some(0) => false,
        Some(FOREVER) => true,
        Some(deadline) => maps.now() < deadline,
    }
}

/// Direct server return: the packet goes to the real server as it is, under other MAC addresses.
/// The source is rewritten too, or a switch would learn the client's address on our port.
#[inline(always)]
fn direct_return(packet: &mut Packet<'_>, ifindex: u32, to: &RealServer) -> Result<(), Verdict> {
    if to.ifindex == 0 {
        return Err(Verdict::NoNeighbour);
    }
    if to.ifindex != ifindex {
        return Err(Verdict::OtherInterface);
    }
    let ethernet = packet.view_mut::<Ethernet>(Offset::START).ok_or(Verdict::Truncated)?;
    if ethernet.dst != to.source_mac {
        return Err(Verdict::NotAddressedToUs);
    }
    ethernet.dst = to.destination_mac;
    ethernet.src = to.source_mac;
    Ok(())
}

#[cfg(test)]
mod tests;
