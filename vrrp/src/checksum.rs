//! The checksum of an advertisement (RFC 9568 §5.2.8).
#![forbid(unsafe_code)]

use std::net::Ipv4Addr;

use etherparse::checksum::Sum16BitWords;

/// IP protocol number of VRRP.
pub(crate) const PROTOCOL: u8 = 112;

/// The internet checksum of `message` alone, as bytes of the wire.
///
/// Over a message whose checksum field is filled in it is `[0, 0]` exactly when that field is right.
pub(crate) fn plain(message: &[u8]) -> [u8; 2] {
    Sum16BitWords::new().add_slice(message).ones_complement().to_ne_bytes()
}

/// The internet checksum of `message` and the pseudo-header of the packet that carries it.
pub(crate) fn with_pseudo_header(
    message: &[u8],
    source: Ipv4Addr,
    destination: Ipv4Addr,
) -> [u8; 2] {
    // A message that is longer than an IPv4 packet can be is nowhere to come from.
    let len = u16::try_from(message.len()).unwrap_or(u16::MAX);
    Sum16BitWords::new()
        .add_4bytes(source.octets())
        .add_4bytes(destination.octets())
        .add_2bytes([0, PROTOCOL])
        .add_2bytes(len.to_be_bytes())
        .add_slice(message)
        .ones_complement()
        .to_ne_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_those_of_rfc_1071() {
        // The example of RFC 1071 §3: the sum is ddf2.
        assert_eq!(plain(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), [0x22, 0x0d]);
        assert_eq!(plain(&[0x01]), [0xfe, 0xff], "an odd byte is the high one");
    }

    #[test]
    fn the_pseudo_header_counts() {
        // c0a8 + 0001 + e000 + 0012 + 0070 + 0002 + 3101 = 1d22e, folded d22f.
        let sum =
            with_pseudo_header(&[0x31, 0x01], [192, 168, 0, 1].into(), [224, 0, 0, 18].into());
        assert_eq!(sum, [0x2d, 0xd0]);
    }
}
