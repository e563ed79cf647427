//! What a checked connection carries: in each direction a stream that only its number and the
//! offset determine, so that every byte lost, doubled, swapped or changed shows.
//!
//! Integers are little-endian. The client sends a [`Hello`], then blocks: length (`u32`), data;
//! length 0 ends. The server sends its name: length (`u8`), text; then blocks: length (`u32`),
//! bytes of the upload verified so far (`u64`), data; length 0 announces the [`Trailer`] as JSON:
//! length (`u32`), text.

use std::{fmt, net::Ipv4Addr, time::Duration};

use serde::{Deserialize, Serialize};

/// Blocks are shorter; a longer one is a stream out of step.
pub const MAX_BLOCK: usize = 64 * 1024;

/// The bytes of one direction of one connection.
#[derive(Clone, Copy, Debug)]
pub struct Pattern {
    key: u64,
}

impl Pattern {
    pub fn upload(connection: u64) -> Self {
        Self { key: mix(connection << 1) }
    }

    pub fn download(connection: u64) -> Self {
        Self { key: mix((connection << 1) | 1) }
    }

    /// Fills `bytes` with the stream from `offset` on.
    pub fn fill(self, offset: u64, bytes: &mut [u8]) {
        let mut at = offset;
        let mut rest = bytes;
        while !rest.is_empty() {
            let word = mix(self.key ^ (at / 8)).to_le_bytes();
            let from_word = word.iter().skip((at % 8) as usize);
            let filled = rest.iter_mut().zip(from_word).map(|(byte, value)| *byte = *value).count();
            at += filled as u64;
            rest = &mut rest[filled..];
        }
    }

    /// Compares `bytes` with the stream from `offset` on.
    pub fn check(self, offset: u64, bytes: &[u8]) -> Result<(), Mismatch> {
        let mut expected = vec![0; bytes.len()];
        self.fill(offset, &mut expected);
        match bytes.iter().zip(&expected).position(|(found, expected)| found != expected) {
            None => Ok(()),
            Some(at) => Err(Mismatch {
                offset: offset + at as u64,
                found: bytes[at],
                expected: expected[at],
            }),
        }
    }
}

/// SplitMix64: neighbouring words, and neighbouring connections, have nothing in common.
pub(crate) fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The first byte that is not what was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mismatch {
    pub offset: u64,
    pub found: u8,
    pub expected: u8,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { offset, found, expected } = self;
        write!(f, "byte {offset} is {found:#04x}, expected {expected:#04x}")
    }
}

/// When a block is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// So long after the last one; at least a millisecond.
    Every(Duration),
    /// When one has come from the other side: where that is silent, so is this.
    Answering,
}

/// What the client asks of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Determines the content of both directions.
    pub connection: u64,
    /// When the server sends a block.
    pub pace: Pace,
    /// The length of a block of the server, at most [`MAX_BLOCK`].
    pub block: u32,
}

impl Hello {
    pub const LEN: usize = 24;
    const MAGIC: [u8; 8] = *b"tandem 1";

    pub fn encode(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..8].copy_from_slice(&Self::MAGIC);
        bytes[8..16].copy_from_slice(&self.connection.to_le_bytes());
        let pace_ms = match self.pace {
            Pace::Every(pace) => u32::try_from(pace.as_millis()).unwrap_or(u32::MAX).max(1),
            Pace::Answering => 0,
        };
        bytes[16..20].copy_from_slice(&pace_ms.to_le_bytes());
        bytes[20..].copy_from_slice(&self.block.to_le_bytes());
        bytes
    }

    /// `None` for anything that is not one.
    pub fn decode(bytes: [u8; Self::LEN]) -> Option<Self> {
        let (magic, rest) = bytes.split_first_chunk::<8>()?;
        let (connection, rest) = rest.split_first_chunk::<8>()?;
        let (pace_ms, rest) = rest.split_first_chunk::<4>()?;
        let (block, _) = rest.split_first_chunk::<4>()?;
        let block = u32::from_le_bytes(*block);
        let valid = *magic == Self::MAGIC && (1..=MAX_BLOCK).contains(&(block as usize));
        valid.then(|| Self {
            connection: u64::from_le_bytes(*connection),
            pace: match u32::from_le_bytes(*pace_ms) {
                0 => Pace::Answering,
                ms => Pace::Every(Duration::from_millis(ms.into())),
            },
            block,
        })
    }
}

/// What the server says at the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trailer {
    pub real_server: String,
    /// As the real server saw it.
    pub client: Ipv4Addr,
    /// Bytes of upload received.
    pub received: u64,
    /// Bytes of download sent.
    pub sent: u64,
    /// What was wrong with the upload.
    pub fault: Option<String>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Hello, Mismatch, Pace, Pattern};

    proptest! {
        #[test]
        fn a_stream_is_the_same_however_it_is_cut(id: u64, cut in 0_usize..500, from in 0_u64..99) {
            let mut whole = vec![0; 500];
            Pattern::upload(id).fill(from, &mut whole);
            let (head, tail) = whole.split_at(cut);
            prop_assert_eq!(Pattern::upload(id).check(from, head), Ok(()));
            prop_assert_eq!(Pattern::upload(id).check(from + cut as u64, tail), Ok(()));
        }

        #[test]
        fn one_flipped_bit_is_found_at_its_place(id: u64, at in 0_usize..300, bit in 0_u8..8) {
            let mut bytes = vec![0; 300];
            Pattern::download(id).fill(1_000, &mut bytes);
            let expected = bytes[at];
            bytes[at] ^= 1 << bit;
            let mismatch = Mismatch { offset: 1_000 + at as u64, found: bytes[at], expected };
            prop_assert_eq!(Pattern::download(id).check(1_000, &bytes), Err(mismatch));
        }
    }

    #[test]
    fn connections_directions_and_offsets_differ() {
        let mut bytes = [0; 64];
        Pattern::upload(7).fill(0, &mut bytes);
        assert!(Pattern::upload(8).check(0, &bytes).is_err());
        assert!(Pattern::download(7).check(0, &bytes).is_err());
        assert!(Pattern::upload(7).check(1, &bytes).is_err());
    }

    #[test]
    fn a_hello_survives_the_wire_and_a_stranger_does_not() {
        let every = Pace::Every(std::time::Duration::from_millis(50));
        let hello = Hello { connection: 9, pace: every, block: 700 };
        for hello in [hello, Hello { pace: Pace::Answering, ..hello }] {
            assert_eq!(Hello::decode(hello.encode()), Some(hello));
        }
        assert_eq!(Hello::decode(*b"GET / HTTP/1.1\r\nHost: vi"), None);
        assert_eq!(Hello::decode(Hello { block: 0, ..hello }.encode()), None);
    }
}
