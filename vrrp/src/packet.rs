//! VRRPv3 advertisement, as bytes (RFC 9568 §5.2).
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-------+-------+---------------+---------------+---------------+
//! |Version| Type  |     VRID      |   Priority    | Address count |
//! +-------+-------+---------------+---------------+---------------+
//! | zero  |  Interval (centisec.) |           Checksum            |
//! +-------+-----------------------+-------------------------------+
//! |                     Addresses, 4 bytes each                   |
//! ```
#![forbid(unsafe_code)]

use std::{fmt, net::Ipv4Addr, num::NonZeroU8, time::Duration};

use crate::checksum;

/// Where advertisements go.
pub const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);
/// TTL of an advertisement; any other has passed a router (RFC 9568 §5.1.1.3).
pub const TTL: u8 = 255;

const VERSION: u8 = 3;
const ADVERTISEMENT: u8 = 1;
const HEADER_LEN: usize = 8;
const ADDRESS_LEN: usize = 4;

/// An advertisement.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Advertisement {
    /// Number of the virtual router.
    pub vrid: NonZeroU8,
    /// 0 when the sender resigns, 255 when it owns the VIPs.
    pub priority: u8,
    /// How often the sender advertises while it is active.
    pub interval: Interval,
    /// The VIPs. Only the first 255 fit.
    pub addresses: Vec<Ipv4Addr>,
}

impl Advertisement {
    /// The message that follows an IPv4 header from `source` to [`GROUP`].
    ///
    /// The checksum covers the pseudo-header, as keepalived and Wireshark have it by default.
    pub fn encode(&self, source: Ipv4Addr) -> Vec<u8> {
        let count = u8::try_from(self.addresses.len()).unwrap_or(u8::MAX);
        let [high, low] = self.interval.0.to_be_bytes();
        let version_kind = VERSION << 4 | ADVERTISEMENT;
        let mut message =
            vec![version_kind, self.vrid.get(), self.priority, count, high, low, 0, 0];
        for address in self.addresses.iter().take(count.into()) {
            message.extend(address.octets());
        }
        let sum = checksum::with_pseudo_header(&message, source, GROUP);
        message[6..HEADER_LEN].copy_from_slice(&sum);
        message
    }

    /// The advertisement in `message`, the payload of an IPv4 packet from `source` to [`GROUP`].
    ///
    /// The checksum may or may not cover the pseudo-header: RFC 5798 was read both ways (Cisco leaves
    /// it out) and RFC 9568 leaves it out, while keepalived puts it in.
    pub fn decode(message: &[u8], source: Ipv4Addr) -> Result<Self, DecodeError> {
        let Some((header, addresses)) = message.split_first_chunk::<HEADER_LEN>() else {
            return Err(DecodeError::Truncated { have: message.len(), need: HEADER_LEN });
        };
        let [version_kind, vrid, priority, count, interval @ .., _, _] = *header;
        match (version_kind >> 4, version_kind & 0x0f) {
            (VERSION, ADVERTISEMENT) => {}
            (VERSION, kind) => return Err(DecodeError::Kind(kind)),
            (version, _) => return Err(DecodeError::Version(version)),
        }
        let need = HEADER_LEN + usize::from(count) * ADDRESS_LEN;
        if message.len() < need {
            return Err(DecodeError::Truncated { have: message.len(), need });
        }
        if message.len() > need {
            return Err(DecodeError::TooLong { have: message.len(), need });
        }
        if checksum::with_pseudo_header(message, source, GROUP) != [0, 0]
            && checksum::plain(message) != [0, 0]
        {
            return Err(DecodeError::Checksum);
        }
        let vrid = NonZeroU8::new(vrid).ok_or(DecodeError::VridZero)?;
        if count == 0 {
            return Err(DecodeError::NoAddress);
        }
        // The upper four bits are reserved, to be ignored on receipt.
        let interval = Interval::new(u16::from_be_bytes(interval) & Interval::MAX)
            .ok_or(DecodeError::IntervalZero)?;
        let (addresses, _) = addresses.as_chunks::<ADDRESS_LEN>();
        let addresses = addresses.iter().copied().map(Ipv4Addr::from).collect();
        Ok(Self { vrid, priority, interval, addresses })
    }
}

/// An advertisement interval as the wire can say it: 1 to 4095 centiseconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Interval(u16);

impl Interval {
    const MAX: u16 = 0x0fff;

    /// `None` when out of range.
    pub fn new(centiseconds: u16) -> Option<Self> {
        (1..=Self::MAX).contains(&centiseconds).then_some(Self(centiseconds))
    }

    /// `None` when out of range or no whole number of centiseconds.
    pub fn from_duration(duration: Duration) -> Option<Self> {
        let centiseconds = u16::try_from(duration.as_millis() / 10).ok()?;
        Self::new(centiseconds).filter(|interval| interval.duration() == duration)
    }

    /// The same as a duration.
    pub fn duration(self) -> Duration {
        Duration::from_millis(u64::from(self.0) * 10)
    }
}

/// Why a message is not an advertisement that we act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// Shorter than the header, or than its address count says. Both in bytes.
    Truncated {
        /// Bytes received.
        have: usize,
        /// Bytes expected.
        need: usize,
    },
    /// Longer than its address count says. Both in bytes.
    TooLong {
        /// Bytes received.
        have: usize,
        /// Bytes expected.
        need: usize,
    },
    /// Another version of the protocol.
    Version(u8),
    /// Another type of message.
    Kind(u8),
    /// The checksum is right neither with nor without the pseudo-header.
    Checksum,
    /// VRID 0.
    VridZero,
    /// No VIP in it.
    NoAddress,
    /// Interval 0: a backup that adopted it would take over at once, and again and again.
    IntervalZero,
}

impl DecodeError {
    /// The reason that it is counted under; part of the metrics interface.
    pub fn label(self) -> &'static str {
        match self {
            Self::Truncated { .. } | Self::TooLong { .. } => "length",
            Self::Version(_) => "version",
            Self::Kind(_) => "type",
            Self::Checksum => "checksum",
            Self::VridZero => "vrid",
            Self::NoAddress => "address-list",
            Self::IntervalZero => "interval",
        }
    }
}

impl std::error::Error for DecodeError {}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated { have, need } => write!(f, "truncated: {have} of {need} bytes"),
            Self::TooLong { have, need } => write!(f, "{have} bytes, expected {need}"),
            Self::Version(version) => write!(f, "version {version}, expected 3"),
            Self::Kind(kind) => write!(f, "type {kind}, expected 1 (ADVERTISEMENT)"),
            Self::Checksum => f.write_str("wrong checksum"),
            Self::VridZero => f.write_str("VRID 0, expected 1 to 255"),
            Self::NoAddress => f.write_str("no address, expected 1 to 255"),
            Self::IntervalZero => f.write_str("interval 0, expected 10 ms or more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn encodes_what_keepalived_sends() {
        // Captured from keepalived 2.2.7: VRID 51, priority 150, 100 ms, 10.77.0.100, from 10.77.0.1.
        let bytes = KEEPALIVED;
        assert_eq!(Advertisement::decode(&bytes, SOURCE), Ok(advertisement()));
        assert_eq!(advertisement().encode(SOURCE), bytes);
    }

    #[test]
    fn decodes_or_says_why_not() {
        check(&[0x31, 51, 150], "truncated: 3 of 8 bytes");
        check(&[0x31, 51, 150, 1, 0, 10, 0, 0], "truncated: 8 of 12 bytes");
        check(&[0x31, 51, 150, 0, 0, 10, 0, 0, 1], "9 bytes, expected 8");
        check(&[0x21, 51, 150, 1, 0, 100, 0, 0], "version 2, expected 3");
        check(&[0x32, 51, 150, 1, 0, 100, 0, 0], "type 2, expected 1 (ADVERTISEMENT)");
        check(&[0x31, 51, 150, 1, 0, 10, 0xab, 0xcd, 10, 77, 0, 100], "wrong checksum");
        check(&summed([0x31, 0, 150, 1, 0, 10, 0, 0, 10, 77, 0, 100]), "VRID 0, expected 1 to 255");
        check(&summed([0x31, 51, 150, 0, 0, 10, 0, 0]), "no address, expected 1 to 255");
        check(
            &summed([0x31, 51, 150, 1, 0xf0, 0, 0, 0, 10, 77, 0, 100]),
            "interval 0, expected 10 ms or more",
        );
        check(&summed([0x31, 51, 150, 1, 0xf0, 10, 0, 0, 10, 77, 0, 100]), "");
    }

    #[test]
    fn an_interval_is_a_whole_number_of_centiseconds() {
        for (micros, centiseconds) in [
            (0, None),
            (9_999, None),
            (10_000, Some(1)),
            (10_001, None),
            (15_000, None),
            (40_950_000, Some(4095)),
            (40_960_000, None),
        ] {
            let interval = Interval::from_duration(Duration::from_micros(micros));
            assert_eq!(interval, centiseconds.map(Interval), "{micros} µs");
        }
    }

    proptest! {
        #[test]
        fn decode_returns_what_encode_was_given(
            vrid in 1u8..,
            priority: u8,
            centiseconds in 1u16..4096,
            addresses in prop::collection::vec(any::<u32>().prop_map(Ipv4Addr::from), 1..256),
            source in any::<u32>().prop_map(Ipv4Addr::from),
        ) {
            let vrid = NonZeroU8::new(vrid).unwrap();
            let sent = Advertisement { vrid, priority, interval: Interval(centiseconds), addresses };
            prop_assert_eq!(Advertisement::decode(&sent.encode(source), source), Ok(sent));
        }

        #[test]
        fn no_bytes_make_decode_panic(bytes in prop::collection::vec(any::<u8>(), 0..1100)) {
            let _ = Advertisement::decode(&bytes, SOURCE);
        }

        #[test]
        fn a_flipped_bit_is_noticed(bit in 0usize..12 * 8) {
            let mut bytes = KEEPALIVED;
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(Advertisement::decode(&bytes, SOURCE).is_err());
        }
    }

    const SOURCE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
    const KEEPALIVED: [u8; 12] = [0x31, 51, 150, 1, 0, 10, 0x43, 0x33, 10, 77, 0, 100];

    fn advertisement() -> Advertisement {
        Advertisement {
            vrid: NonZeroU8::new(51).unwrap(),
            priority: 150,
            interval: Interval(10),
            addresses: vec![Ipv4Addr::new(10, 77, 0, 100)],
        }
    }

    fn summed<const N: usize>(mut message: [u8; N]) -> [u8; N] {
        let sum = checksum::plain(&message);
        message[6..8].copy_from_slice(&sum);
        message
    }

    #[track_caller]
    fn check(message: &[u8], want: &str) {
        let error = Advertisement::decode(message, SOURCE).err();
        assert_eq!(error.map_or(String::new(), |error| error.to_string()), want);
    }
}
