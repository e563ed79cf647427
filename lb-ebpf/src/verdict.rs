//! How a packet ends. Every packet has exactly one verdict, and every verdict a counter.

/// The names are part of the interface: they appear in metrics and in `lbctl`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
#[must_use]
pub enum Verdict {
    /// Sent to a real server.
    Forwarded,
    /// Not IPv4: ARP, IPv6, a VLAN tag.
    NotIpv4,
    /// A header ends beyond the frame or beyond the length that it states.
    Truncated,
    /// IPv4 of another version or with a header length below 20 bytes.
    BadIpv4Header,
    /// Neither TCP nor UDP.
    OtherProtocol,
    /// A piece of a fragmented packet: ports are in the first alone.
    Fragment,
    /// No virtual service has this address, port and protocol.
    NotVirtualService,
    /// The virtual router of the VIP is not active on this director.
    NotActive,
    /// The frame was for another host's MAC address: a bridge flooded it.
    NotAddressedToUs,
    /// The virtual service has no real server that takes flows.
    NoRealServer,
    /// The MAC address of the flow's real server is not known.
    NoNeighbour,
    /// The flow's real server is behind another interface than the packet came in by.
    OtherInterface,
    /// The flow's real server is gone: answered with a reset, as the service says.
    Reset,
    /// As before, but of a packet that cannot be answered so.
    RealServerGone,
}

/// What the driver does with the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Out again by the interface it came in by.
    Transmit,
    /// On to the kernel, untouched.
    Pass,
    Drop,
}

impl Verdict {
    pub const ALL: [Self; 14] = [
        Self::Forwarded,
        Self::NotIpv4,
        Self::Truncated,
        Self::BadIpv4Header,
        Self::OtherProtocol,
        Self::Fragment,
        Self::NotVirtualService,
        Self::NotActive,
        Self::NotAddressedToUs,
        Self::NoRealServer,
        Self::NoNeighbour,
        Self::OtherInterface,
        Self::Reset,
        Self::RealServerGone,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Forwarded => "forwarded",
            Self::NotIpv4 => "not-ipv4",
            Self::Truncated => "truncated",
            Self::BadIpv4Header => "bad-ipv4-header",
            Self::OtherProtocol => "other-protocol",
            Self::Fragment => "fragment",
            Self::NotVirtualService => "not-virtual-service",
            Self::NotActive => "not-active",
            Self::NotAddressedToUs => "not-addressed-to-us",
            Self::NoRealServer => "no-real-server",
            Self::NoNeighbour => "no-neighbour",
            Self::OtherInterface => "other-interface",
            Self::Reset => "reset",
            Self::RealServerGone => "real-server-gone",
        }
    }

    /// A packet of a virtual service that cannot be forwarded is dropped, not passed: the kernel,
    /// which holds the VIP but has no such socket, would answer it with a reset.
    #[inline(always)]
    pub const fn action(self) -> Action {
        match self {
            Self::Forwarded | Self::Reset => Action::Transmit,
            Self::NotIpv4
            | Self::Truncated
            | Self::BadIpv4Header
            | Self::OtherProtocol
            | Self::Fragment
            | Self::NotVirtualService
            | Self::NotActive
            | Self::NotAddressedToUs => Action::Pass,
            Self::NoRealServer
            | Self::NoNeighbour
            | Self::OtherInterface
            | Self::RealServerGone => Action::Drop,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_are_listed_in_the_order_of_their_counters() {
        for (index, verdict) in Verdict::ALL.into_iter().enumerate() {
            assert_eq!(verdict as usize, index, "{}", verdict.name());
        }
        for (i, verdict) in Verdict::ALL.into_iter().enumerate() {
            assert!(Verdict::ALL[..i].iter().all(|other| other.name() != verdict.name()));
        }
    }
}
