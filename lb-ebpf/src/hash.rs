//! Hashes that both directors must agree on, bit for bit, in every release.
//!
//! A change of either function moves live flows during a rolling upgrade, so the tests hold
//! golden values.

use crate::flow::FlowKey;

/// A finaliser with full avalanche (David Stafford's variant 13 of MurmurHash3's); one step
/// costs two multiplications, which BPF has in 64 bits.
#[inline(always)]
pub const fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// The hash of a flow. Its bytes are read in wire order as little-endian integers, so that the
/// value does not depend on the machine.
#[inline(always)]
pub fn flow(key: &FlowKey) -> u32 {
    let (addresses, ports) = key.words();
    // An odd multiplier spreads the ports over all bits before they meet the addresses, so that
    // no port can cancel an address.
    let bits = mix(addresses ^ ports.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    (bits >> 32) as u32
}

/// The hash of a client, by its address or the network that `address` has been masked to. Nothing
/// else goes in, so that services with the same table send a client to the same real server.
#[inline(always)]
pub const fn source(address: [u8; 4]) -> u32 {
    (mix(u32::from_le_bytes(address) as u64 | 1 << 32) >> 32) as u32
}

/// The slot of a hash in a table of `size` slots: multiply and shift, no division.
#[inline(always)]
pub const fn slot(hash: u32, size: u32) -> u32 {
    ((hash as u64 * size as u64) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    #[test]
    fn the_hash_of_a_flow_never_changes() {
        assert_eq!(flow(&key([10, 77, 0, 1], 40_000)), 0x7b36_2550);
        assert_eq!(flow(&key([192, 0, 2, 255], 1)), 0xe9c6_77d3);
        assert_eq!(flow(&key([0, 0, 0, 0], 0)), 0x7914_3635);
    }

    #[test]
    fn the_hash_of_a_client_never_changes() {
        assert_eq!(source([10, 77, 0, 1]), 0x2808_837b);
        assert_eq!(source([0, 0, 0, 0]), 0xd820_b7e9);
    }

    #[test]
    fn flows_spread_evenly_whatever_varies() {
        // Chi-squared with 250 degrees of freedom: 99.99 % of good hashes stay below 340.
        let ports = (0..60_000_u16).map(|port| key([10, 77, 0, 1], port));
        assert!(chi_squared(ports) < 340.0);
        let hosts = (0..60_000_u32).map(|i| {
            let [_, b, c, d] = i.to_be_bytes();
            key([10, b, c, d], 40_000)
        });
        assert!(chi_squared(hosts) < 340.0);
        let both = (0..60_000_u32).map(|i| {
            let [_, _, c, d] = i.to_be_bytes();
            key([10, 0, d, c], 1024 + u16::from(d))
        });
        assert!(chi_squared(both) < 340.0);
    }

    #[test]
    fn a_slot_lies_in_the_table() {
        for size in [1, 2, 1021, 65_537, 655_373] {
            assert_eq!(slot(0, size), 0);
            assert_eq!(slot(u32::MAX, size), size - 1);
        }
    }

    fn chi_squared(keys: impl Iterator<Item = FlowKey>) -> f64 {
        const BINS: u32 = 251;
        let mut counts = vec![0_u32; BINS as usize];
        let mut total = 0;
        for key in keys {
            counts[slot(flow(&key), BINS) as usize] += 1;
            total += 1;
        }
        let expected = f64::from(total) / f64::from(BINS);
        counts.iter().map(|&count| (f64::from(count) - expected).powi(2) / expected).sum()
    }

    fn key(src: [u8; 4], src_port: u16) -> FlowKey {
        let dst_port = 80_u16.to_be_bytes();
        FlowKey::new(src, [10, 77, 0, 100], src_port.to_be_bytes(), dst_port, 6)
    }
}
