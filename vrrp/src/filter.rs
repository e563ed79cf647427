//! Which received packets are advertisements that a virtual router heeds (RFC 9568 §7.1).
#![forbid(unsafe_code)]

use std::{collections::BTreeSet, net::Ipv4Addr, num::NonZeroU8};

use etherparse::Ipv4HeaderSlice;

use crate::packet::{Advertisement, DecodeError, GROUP, TTL};

/// What one virtual router listens for.
///
/// An advertisement whose list of VIPs differs from ours is heeded as long as one VIP is in both
/// lists: the lists differ for a while whenever a VIP is added to a running pair, and who refuses then
/// (as keepalived does) becomes a second active router. When the lists have nothing in common, two
/// configurations have the same VRID by accident; neither must silence the other.
#[derive(Clone, Debug)]
pub struct Filter {
    /// The virtual router's number.
    pub vrid: NonZeroU8,
    /// Our primary address.
    pub own: Ipv4Addr,
    /// The subnets of the interface, by any of their addresses.
    pub subnets: Vec<Subnet>,
    /// The VIPs that we advertise.
    pub vips: BTreeSet<Ipv4Addr>,
}

/// An address and the length of its prefix.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Subnet {
    /// Any address in it.
    pub address: Ipv4Addr,
    /// 0 to 32.
    pub prefix_len: u8,
}

impl Subnet {
    fn contains(self, address: Ipv4Addr) -> bool {
        let host_bits = 32u32.saturating_sub(self.prefix_len.into());
        let mask = u32::MAX.checked_shl(host_bits).unwrap_or(0);
        (self.address.to_bits() ^ address.to_bits()) & mask == 0
    }
}

/// An advertisement to heed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Accepted {
    /// Primary address of the sender.
    pub from: Ipv4Addr,
    /// What it says.
    pub advertisement: Advertisement,
    /// Whether it has the same VIPs as we have, in any order.
    pub same_vips: bool,
}

/// Why a packet is not heeded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Discard {
    /// No complete IPv4 header, or shorter than it says.
    Header,
    /// For another virtual router: nothing wrong.
    OtherVrid,
    /// A TTL that is not 255: the packet has passed a router.
    Ttl(u8),
    /// Not sent to the group.
    Destination(Ipv4Addr),
    /// From ourselves, or from somebody who has our address.
    OwnAddress,
    /// From outside of the interface's subnets.
    Source(Ipv4Addr),
    /// Not an advertisement.
    Decode(DecodeError),
    /// No VIP in common.
    OtherVips,
}

impl Discard {
    /// The reason that it is counted under; part of the metrics interface.
    pub fn label(self) -> &'static str {
        match self {
            Self::Header => "ip-header",
            Self::OtherVrid => "vrid",
            Self::Ttl(_) => "ttl",
            Self::Destination(_) => "destination",
            Self::OwnAddress => "own-address",
            Self::Source(_) => "source",
            Self::Decode(error) => error.label(),
            Self::OtherVips => "address-list",
        }
    }
}

impl Filter {
    /// The advertisement in `packet`, which begins with the IPv4 header.
    pub fn accept(&self, packet: &[u8]) -> Result<Accepted, Discard> {
        let header = Ipv4HeaderSlice::from_slice(packet).map_err(|_| Discard::Header)?;
        let message =
            packet.get(header.slice().len()..header.total_len().into()).ok_or(Discard::Header)?;
        // Before all else: the faults of another virtual router are not ours to count. The VRID is
        // in the same place in version 2.
        if message.get(1).is_some_and(|&vrid| vrid != self.vrid.get()) {
            return Err(Discard::OtherVrid);
        }
        if header.ttl() != TTL {
            return Err(Discard::Ttl(header.ttl()));
        }
        if header.destination_addr() != GROUP {
            return Err(Discard::Destination(header.destination_addr()));
        }
        let from = header.source_addr();
        if from == self.own {
            return Err(Discard::OwnAddress);
        }
        if !self.subnets.iter().any(|subnet| subnet.contains(from)) {
            return Err(Discard::Source(from));
        }
        let advertisement = Advertisement::decode(message, from).map_err(Discard::Decode)?;
        let theirs: BTreeSet<_> = advertisement.addresses.iter().copied().collect();
        if self.vips.is_disjoint(&theirs) {
            return Err(Discard::OtherVips);
        }
        Ok(Accepted { from, same_vips: theirs == self.vips, advertisement })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use etherparse::{IpNumber, Ipv4Header};
    use proptest::prelude::*;

    use super::*;
    use crate::packet::Interval;

    #[test]
    fn a_peers_advertisement_is_heeded() {
        let accepted = filter().accept(&packet(|_| {}, |_| {})).unwrap();
        assert_eq!(accepted.from, Ipv4Addr::new(10, 77, 0, 2));
        assert_eq!(accepted.advertisement.interval.duration(), Duration::from_millis(100));
        assert!(accepted.same_vips);
    }

    #[test]
    fn strangers_are_told_apart() {
        let check = |label: &str, ip: fn(&mut Ipv4Header), vrrp: fn(&mut Advertisement)| {
            let discard = filter().accept(&packet(ip, vrrp)).unwrap_err();
            assert_eq!(discard.label(), label);
        };
        check("ttl", |ip| ip.time_to_live = 254, |_| {});
        check("destination", |ip| ip.destination = [10, 77, 0, 1], |_| {});
        check("own-address", |ip| ip.source = [10, 77, 0, 1], |_| {});
        check("source", |ip| ip.source = [10, 78, 0, 2], |_| {});
        check("source", |ip| ip.source = [0, 0, 0, 0], |_| {});
        check("vrid", |ip| ip.time_to_live = 1, |ad| ad.vrid = NonZeroU8::MIN);
        check("address-list", |_| {}, |ad| ad.addresses = vec![[10, 77, 0, 99].into()]);
        check("checksum", |ip| ip.source = [10, 77, 0, 3], |_| {});
        check("ip-header", |ip| ip.total_len += 1, |_| {});
    }

    #[test]
    fn lists_that_overlap_are_heeded_and_noted() {
        for (vips, same) in [
            (vec![[10, 77, 0, 101], [10, 77, 0, 100]], true),
            (vec![[10, 77, 0, 100]], false),
            (vec![[10, 77, 0, 100], [10, 77, 0, 101], [10, 77, 0, 102]], false),
        ] {
            let mut sent = advertisement();
            sent.addresses = vips.iter().copied().map(Ipv4Addr::from).collect();
            let accepted = filter().accept(&carry(&header(), &sent)).unwrap();
            assert_eq!(accepted.same_vips, same, "{vips:?}");
        }
    }

    #[test]
    fn padding_after_the_packet_is_no_part_of_it() {
        let mut padded = packet(|_| {}, |_| {});
        padded.resize(46, 0);
        assert!(filter().accept(&padded).is_ok());
    }

    #[test]
    fn subnets_have_any_prefix_length() {
        let contains = |text: &str, prefix_len, other: &str| {
            Subnet { address: text.parse().unwrap(), prefix_len }.contains(other.parse().unwrap())
        };
        assert!(contains("10.77.0.1", 24, "10.77.0.255"));
        assert!(!contains("10.77.0.1", 24, "10.77.1.0"));
        assert!(contains("10.77.0.1", 0, "192.0.2.1"));
        assert!(contains("10.77.0.1", 32, "10.77.0.1"));
        assert!(!contains("10.77.0.1", 32, "10.77.0.0"));
    }

    proptest! {
        #[test]
        fn no_packet_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = filter().accept(&bytes);
        }

        #[test]
        fn no_mutation_of_a_good_packet_makes_it_panic(at in 0usize..36, to: u8, keep in 0usize..37) {
            let mut bytes = packet(|_| {}, |_| {});
            bytes[at] = to;
            bytes.truncate(keep);
            let _ = filter().accept(&bytes);
        }
    }

    fn filter() -> Filter {
        Filter {
            vrid: NonZeroU8::new(51).unwrap(),
            own: Ipv4Addr::new(10, 77, 0, 1),
            subnets: vec![Subnet { address: Ipv4Addr::new(10, 77, 0, 1), prefix_len: 24 }],
            vips: advertisement().addresses.into_iter().collect(),
        }
    }

    /// A packet that would be heeded but for the changes. The checksum is that of the unchanged source.
    fn packet(ip: fn(&mut Ipv4Header), vrrp: fn(&mut Advertisement)) -> Vec<u8> {
        let mut sent = advertisement();
        vrrp(&mut sent);
        let mut header = header();
        header.total_len = 20 + 8 + 4 * u16::try_from(sent.addresses.len()).unwrap();
        ip(&mut header);
        let mut bytes = header.to_bytes().to_vec();
        bytes.extend(sent.encode(PEER));
        bytes
    }

    fn carry(header: &Ipv4Header, sent: &Advertisement) -> Vec<u8> {
        let message = sent.encode(PEER);
        let mut header = header.clone();
        header.total_len = 20 + u16::try_from(message.len()).unwrap();
        let mut bytes = header.to_bytes().to_vec();
        bytes.extend(message);
        bytes
    }

    fn header() -> Ipv4Header {
        Ipv4Header::new(0, TTL, IpNumber::VRRP, PEER.octets(), GROUP.octets()).unwrap()
    }

    fn advertisement() -> Advertisement {
        Advertisement {
            vrid: NonZeroU8::new(51).unwrap(),
            priority: 150,
            interval: Interval::new(10).unwrap(),
            addresses: vec![[10, 77, 0, 100].into(), [10, 77, 0, 101].into()],
        }
    }

    const PEER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
}
