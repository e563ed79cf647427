//! Port ranges as prefixes of bits, by which the datapath finds the narrowest that has a port.

use std::ops::RangeInclusive;

use lb_ebpf::abi::{PortPrefix, ServiceKey};

use crate::service::{Ports, ServiceAddress};

/// A prefix and its length in bits: the key of the port ranges map.
pub(crate) type Prefix = (u32, PortPrefix);

/// What the datapath finds a service by, and the prefixes that lead there; none if it has one port
/// alone.
pub(crate) fn keys(address: &ServiceAddress, protocol: u8) -> (ServiceKey, Vec<Prefix>) {
    let vip = address.vip.octets();
    let key = |port: u16, ports| ServiceKey::new(vip, port.to_be_bytes(), protocol, ports);
    let range = |ports: RangeInclusive<u16>| {
        let prefix = |(port, bits): (u16, u32)| {
            let port = PortPrefix::new(vip, protocol, port.to_be_bytes());
            (PortPrefix::BITS_BEFORE_PORT + bits, port)
        };
        cover(ports).into_iter().map(prefix).collect()
    };
    match address.ports {
        Ports::One(port) => (key(port.get(), ServiceKey::ONE_PORT), Vec::new()),
        Ports::Range(first, last) => {
            (key(first.get(), ServiceKey::RANGE), range(first.get()..=last.get()))
        }
        Ports::Any => (key(0, ServiceKey::RANGE), range(0..=u16::MAX)),
    }
}

/// The fewest prefixes that cover a range: first port and number of leading bits of each.
fn cover(ports: RangeInclusive<u16>) -> Vec<(u16, u32)> {
    let (mut first, last) = (u32::from(*ports.start()), u32::from(*ports.end()));
    let mut prefixes = Vec::new();
    while first <= last {
        // The largest aligned block that begins here and does not pass the end.
        let aligned = first.trailing_zeros().min(16);
        let fits = (last - first + 1).ilog2();
        let free = aligned.min(fits);
        if let Ok(port) = u16::try_from(first) {
            prefixes.push((port, 16 - free));
        }
        first += 1 << free;
    }
    prefixes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn all_ports_are_one_prefix_and_a_range_is_few() {
        assert_eq!(cover(0..=u16::MAX), [(0, 0)]);
        assert_eq!(cover(80..=80), [(80, 16)]);
        assert_eq!(cover(5000..=5003), [(5000, 14)]);
        assert_eq!(cover(1..=u16::MAX).len(), 16);
    }

    proptest! {
        #[test]
        fn prefixes_cover_the_range_exactly_once(a: u16, b: u16, port: u16) {
            let range = a.min(b)..=a.max(b);
            let covering = cover(range.clone())
                .into_iter()
                .filter(|&(first, bits)| {
                    let free = 16 - bits;
                    u32::from(port) >> free == u32::from(first) >> free
                })
                .count();
            prop_assert_eq!(covering, usize::from(range.contains(&port)));
        }
    }
}
