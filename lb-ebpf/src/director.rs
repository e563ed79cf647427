//! The pipeline: flow, virtual service, role, slot, real server, rewrite.

use crate::{
    abi::{
        Counters, EMPTY, FOREVER, ForwardUntil, PortPrefix, RealServer, STEADY, Service,
        ServiceKey, Slot,
    },
    flow::{self, Parsed, Phase},
    hash,
    header::{Ethernet, Ipv4},
    packet::{Offset, Packet},
    reset,
    tracking::{Arrival, Choice, Memory, Why},
    verdict::Verdict,
};

/// The state that the daemon keeps for the datapath: BPF maps in the kernel, plain memory in
/// tests on the host.
pub trait Maps: Memory {
    fn service(&self, key: &ServiceKey) -> Option<Service>;
    /// Whether there is any service with more than one port.
    fn has_port_ranges(&self) -> bool;
    /// The key of the service with the narrowest range that has the port.
    fn port_range(&self, port: &PortPrefix) -> Option<&ServiceKey>;
    fn forward_until(&self, role: u32) -> Option<ForwardUntil>;
    /// `slot` is below the table's size.
    fn slot(&self, table: u32, slot: u32) -> Option<Slot>;
    fn real_server(&self, index: u16) -> Option<&RealServer>;
    /// Adds what was forwarded to the counters of a service and a real server.
    fn count(&self, service: u32, real_server: u16, counters: Counters);
    /// Nanoseconds of `CLOCK_MONOTONIC`.
    fn now(&self) -> u64;

    /// Told of each step of the decision, for `flow explain`.
    #[inline(always)]
    fn saw(&self, _: Step) {}
}

/// What the pipeline has found out about a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// [`Service::id`].
    Service(u32),
    Slot {
        slot: u32,
        owner: Slot,
    },
    /// [`Service::previous`] of a slot that changes hands.
    Change {
        table: u32,
        slot: u32,
    },
    Choice(Choice),
}

/// Decides the fate of one frame that came in by `ifindex`, and rewrites it if it is to be
/// transmitted; any other verdict leaves it as it was. After [`Verdict::Reset`] only the first
/// [`reset::FRAME_LEN`] bytes are to be sent.
#[inline(always)]
pub fn handle<M: Maps>(packet: &mut Packet<'_>, ifindex: u32, maps: &M) -> Verdict {
    match forward(packet, ifindex, maps) {
        Ok(verdict) | Err(verdict) => verdict,
    }
}

#[inline(always)]
fn forward<M: Maps>(packet: &mut Packet<'_>, ifindex: u32, maps: &M) -> Result<Verdict, Verdict> {
    let parsed = flow::parse(packet)?;
    let service = &find(&parsed, maps).ok_or(Verdict::NotVirtualService)?;
    maps.saw(Step::Service(service.id));
    if !is_active(service, maps) {
        return Err(Verdict::NotActive);
    }
    let choice = choose(&parsed, service, maps)?;
    maps.saw(Step::Choice(choice));
    if choice.real_server == EMPTY {
        return Err(Verdict::NoRealServer);
    }
    let to = maps.real_server(choice.real_server).ok_or(Verdict::NoRealServer)?;
    check_link(packet, ifindex, to)?;
    if choice.why == Why::Reset && parsed.key.protocol() == Ipv4::TCP {
        reset::answer(packet, parsed.l4).ok_or(Verdict::RealServerGone)?;
        return Ok(Verdict::Reset);
    }
    let bytes = packet.len();
    direct_return(packet, to)?;
    let new_flows = u64::from(parsed.phase == Phase::Opening);
    maps.count(service.id, choice.real_server, Counters { packets: 1, bytes, new_flows });
    Ok(Verdict::Forwarded)
}

/// The narrowest service that has the port: with it alone, else with a range, else with all.
#[inline(always)]
fn find<M: Maps>(parsed: &Parsed, maps: &M) -> Option<Service> {
    if let Some(service) = maps.service(&parsed.key.service()) {
        return Some(service);
    }
    if !maps.has_port_ranges() {
        return None;
    }
    maps.service(maps.port_range(&parsed.key.port())?)
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

#[inline(always)]
fn choose<M: Maps>(parsed: &Parsed, service: &Service, maps: &M) -> Result<Choice, Verdict> {
    let mask = u32::from_ne_bytes(service.source_mask);
    let hash = if mask == 0 {
        hash::flow(&parsed.key)
    } else {
        hash::source((u32::from_ne_bytes(parsed.key.src()) & mask).to_ne_bytes())
    };
    let slot = hash::slot(hash, service.table_size);
    let owner = maps.slot(service.table, slot).ok_or(Verdict::NoRealServer)?;
    maps.saw(Step::Slot { slot, owner });
    if service.previous != STEADY {
        maps.saw(Step::Change { table: service.previous, slot });
    }
    let Parsed { key, phase, sequence, .. } = parsed;
    let arrival = Arrival { key, phase: *phase, sequence: *sequence, service, slot, owner };
    Ok(arrival.choose(maps))
}

/// Whether the real server can be reached by where the packet came from, and the packet was meant
/// for this host.
#[inline(always)]
fn check_link(packet: &Packet<'_>, ifindex: u32, to: &RealServer) -> Result<(), Verdict> {
    if to.ifindex == 0 {
        return Err(Verdict::NoNeighbour);
    }
    if to.ifindex != ifindex {
        return Err(Verdict::OtherInterface);
    }
    let ethernet = packet.view::<Ethernet>(Offset::START).ok_or(Verdict::Truncated)?;
    if ethernet.dst == to.source_mac { Ok(()) } else { Err(Verdict::NotAddressedToUs) }
}

/// Direct server return: the packet goes to the real server as it is, under other MAC addresses.
/// The source is rewritten too, or a switch would learn the client's address on our port.
#[inline(always)]
fn direct_return(packet: &mut Packet<'_>, to: &RealServer) -> Result<(), Verdict> {
    let ethernet = packet.view_mut::<Ethernet>(Offset::START).ok_or(Verdict::Truncated)?;
    ethernet.dst = to.destination_mac;
    ethernet.src = to.source_mac;
    Ok(())
}

#[cfg(test)]
mod tests;
