//! Map keys and values: what the kernel side reads and the daemon writes.
//!
//! Addresses and ports are in network byte order, as they stand in packets; all other integers
//! are the machine's own. A change of any type here is a change of [`LAYOUT`].

/// Version of the maps' layout; the daemon keeps the pins of each version apart.
pub const LAYOUT: u32 = 2;

/// Most virtual services that a director can hold; the maps are made as large as is configured.
pub const MAX_SERVICES: usize = 16_384;
/// Most Maglev tables; twice the services, so that every new one stands beside the old.
pub const MAX_TABLES: usize = 2 * MAX_SERVICES;
/// Most real servers: as many as a [`Slot`] can name beside [`EMPTY`].
pub const MAX_REAL_SERVERS: usize = INDEX as usize;
/// Most virtual routers, and [`ALWAYS`] beside them.
pub const MAX_ROLES: usize = 1_024;
/// Most prefixes of port ranges.
pub const MAX_PORT_RANGES: usize = 65_536;
/// Exceptions that can be noted, unless configured otherwise.
pub const DEFAULT_FLOWS: usize = 65_536;

/// Key of the services map: a whole word, as [`crate::flow::FlowKey`] is, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct ServiceKey {
    /// VIP, port, protocol and kind as they would stand in a packet, read as a little-endian
    /// integer.
    word: u64,
}

impl ServiceKey {
    /// The kind of a service with one port, and of one with several, which has its first.
    pub const ONE_PORT: u8 = 0;
    pub const RANGE: u8 = 1;

    /// VIP and port in network byte order, the protocol as in the IPv4 header.
    #[inline(always)]
    pub const fn new(vip: [u8; 4], port: [u8; 2], protocol: u8, kind: u8) -> Self {
        let ([a, b, c, d], [p0, p1]) = (vip, port);
        Self { word: u64::from_le_bytes([a, b, c, d, p0, p1, protocol, kind]) }
    }

    pub(crate) const fn from_word(word: u64) -> Self {
        Self { word }
    }

    /// Where the service may stand in front of the services map.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "a few bits are left")]
    pub const fn place(&self) -> u32 {
        // Fibonacci hashing: the high bits of a product with 2^64 / golden ratio.
        (self.word.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - PLACES.ilog2())) as u32
    }

    pub const fn vip(&self) -> [u8; 4] {
        let [a, b, c, d, ..] = self.word.to_le_bytes();
        [a, b, c, d]
    }

    pub const fn port(&self) -> [u8; 2] {
        let [_, _, _, _, p0, p1, ..] = self.word.to_le_bytes();
        [p0, p1]
    }
}

/// Key of the port ranges map, whose value is a [`ServiceKey`]: a prefix of these bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C)]
pub struct PortPrefix {
    /// Always 0: the length of the prefix comes first, and what follows is to lie in a whole word.
    pub zero: [u8; 4],
    pub vip: [u8; 4],
    pub protocol: u8,
    pub more_zero: u8,
    pub port: [u8; 2],
    /// Beyond every prefix.
    pub rest: [u8; 4],
}

impl PortPrefix {
    /// Bits in front of those of the port.
    pub const BITS_BEFORE_PORT: u32 = 80;
    pub const BITS: u32 = 96;

    /// Addresses and ports in network byte order, the protocol as in the IPv4 header.
    #[inline(always)]
    pub const fn new(vip: [u8; 4], protocol: u8, port: [u8; 2]) -> Self {
        Self { zero: [0; 4], vip, protocol, more_zero: 0, port, rest: [0; 4] }
    }
}

/// Value of the services map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Service {
    /// Index of the Maglev table.
    pub table: u32,
    /// Its slots, at least 1.
    pub table_size: u32,
    /// Index of the [`Previous`] owners of that table's slots, which is the table's; or
    /// [`STEADY`].
    pub previous: u32,
    /// Index of the role that says whether this director forwards the service.
    pub role: u32,
    /// Index of its counters. No other service has it for as long as a note of a flow does.
    pub id: u32,
    /// The bits of the source address that a flow is hashed by; all zero: the whole flow is.
    pub source_mask: [u8; 4],
    /// [`Service::RESETS`] or 0.
    pub flags: u32,
}

impl Service {
    /// Flows of a real server that is gone are answered with a reset, else hashed again.
    pub const RESETS: u32 = 1;
}

/// Places in front of the services map; a power of two.
pub const PLACES: usize = 4_096;

/// A service where it is found without a call into the kernel: in one of the [`PLACES`] of an
/// array, that of its key, if no other service was there first. A copy: the services map has it
/// too.
///
/// What changes while packets look is one word, so that they see it before or after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Place {
    /// All zero: the place is free.
    pub key: ServiceKey,
    /// [`Service::pack`].
    pub service: u64,
    /// [`Service::id`], which a key keeps.
    pub id: u32,
    pub zero: u32,
}

impl Place {
    pub const FREE: Self = Self { key: ServiceKey { word: 0 }, service: 0, id: 0, zero: 0 };
}

impl Service {
    const TABLE_BITS: u32 = MAX_TABLES.ilog2();
    const SIZE_BITS: u32 = 20;
    const ROLE_BITS: u32 = MAX_ROLES.ilog2();
    const SIZE_AT: u32 = Self::TABLE_BITS;
    const ROLE_AT: u32 = Self::SIZE_AT + Self::SIZE_BITS;
    const PREFIX_AT: u32 = Self::ROLE_AT + Self::ROLE_BITS;
    const CHANGES_AT: u32 = Self::PREFIX_AT + 6;
    const RESETS_AT: u32 = Self::CHANGES_AT + 1;

    /// All but the id in one word. `previous` has the index of the table, or is [`STEADY`].
    pub const fn pack(&self) -> u64 {
        let prefix_len = u32::from_be_bytes(self.source_mask).count_ones();
        self.table as u64
            | (self.table_size as u64) << Self::SIZE_AT
            | (self.role as u64) << Self::ROLE_AT
            | (prefix_len as u64) << Self::PREFIX_AT
            | ((self.previous != STEADY) as u64) << Self::CHANGES_AT
            | ((self.flags & Self::RESETS) as u64) << Self::RESETS_AT
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "the bits that are asked for are few")]
    pub fn unpack(id: u32, word: u64) -> Self {
        let bits = |at: u32, bits: u32| (word >> at & ((1 << bits) - 1)) as u32;
        let table = bits(0, Self::TABLE_BITS);
        let prefix_len = bits(Self::PREFIX_AT, 6);
        // A shift of 64 bits, as one of all 32 would be none.
        let source_mask = (0xffff_ffff_0000_0000_u64 >> prefix_len) as u32;
        Self {
            table,
            table_size: bits(Self::SIZE_AT, Self::SIZE_BITS),
            previous: if bits(Self::CHANGES_AT, 1) == 0 { STEADY } else { table },
            role: bits(Self::ROLE_AT, Self::ROLE_BITS),
            id,
            source_mask: source_mask.to_be_bytes(),
            flags: bits(Self::RESETS_AT, 1),
        }
    }
}

/// Instead of an index of previous owners: no change is in progress.
pub const STEADY: u32 = u32::MAX;

/// Until when, in nanoseconds of `CLOCK_MONOTONIC`, this director forwards the services of a
/// virtual router: 0 while it is not active for it, [`FOREVER`] while it is.
pub type ForwardUntil = u64;
pub const FOREVER: ForwardUntil = u64::MAX;

/// The role of services whose VIP belongs to no virtual router.
pub const ALWAYS: u32 = 0;

/// A slot of a Maglev table: the index of a real server or [`EMPTY`], and [`CHANGED`].
pub type Slot = u16;
/// The bits of a slot that are an index.
pub const INDEX: Slot = 0x7fff;
/// The index of a slot without a real server.
pub const EMPTY: Slot = INDEX;
/// Flows of the slot may belong to others than its owner: look at its [`Previous`] and the notes.
pub const CHANGED: Slot = 0x8000;

/// A cell of a Maglev table: four slots. An array map rounds its values up to eight bytes, so
/// smaller ones would waste the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Cell {
    pub slots: [Slot; Self::SLOTS as usize],
}

impl Cell {
    pub const SLOTS: u32 = 4;
}

/// Whole seconds of `CLOCK_MONOTONIC`.
pub type Seconds = u32;

/// Who had a slot before the change in progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Previous {
    /// Its index, or [`EMPTY`]; with [`Previous::DOWN`].
    pub real_server: u16,
    /// Not 0 if there may be notes of flows of the slot.
    pub noted: u16,
    /// When a packet last went to it for want of a note.
    pub seen: Seconds,
    /// When it lost the slot, and when the slot last changed hands or this real server went.
    pub since: Seconds,
    pub changed: Seconds,
}

impl Previous {
    /// It is gone: its flows are hashed again, or reset.
    pub const DOWN: u16 = 0x8000;

    /// Of a slot without a change.
    pub const NONE: Self = Self { real_server: EMPTY, noted: 0, seen: 0, since: 0, changed: 0 };

    pub const fn index(self) -> u16 {
        self.real_server & INDEX
    }

    pub const fn is_down(self) -> bool {
        self.real_server & Self::DOWN != 0
    }
}

/// A note of the flow table: who has a flow of a slot that changes hands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Note {
    pub real_server: u16,
    /// Of [`Note::CLOSING`] and [`Note::DOWN`].
    pub state: u16,
    /// When its last packet came, or its real server went.
    pub seen: Seconds,
    /// [`Service::id`], and the slot of its table.
    pub service: u32,
    pub slot: u32,
    /// Sequence number of the SYN, by which the packets that follow it are told from those of an
    /// older flow with the same addresses and ports.
    pub sequence: u32,
    pub zero: u32,
}

impl Note {
    /// The client has sent a FIN or a RST.
    pub const CLOSING: u16 = 1;
    /// The real server is gone.
    pub const DOWN: u16 = 2;

    /// Whether two notes are of one flow, at whatever time.
    pub const fn is_of_the_same_flow(&self, other: &Self) -> bool {
        self.service == other.service
            && self.real_server == other.real_server
            && self.sequence == other.sequence
    }
}

/// A real server as the datapath sees it. All zero: the entry is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct RealServer {
    pub address: [u8; 4],
    /// The interface that it is behind; 0 while its MAC address is not known.
    pub ifindex: u32,
    /// Its own.
    pub destination_mac: [u8; 6],
    /// That interface's.
    pub source_mac: [u8; 6],
}

impl RealServer {
    pub const FREE: Self =
        Self { address: [0; 4], ifindex: 0, destination_mac: [0; 6], source_mac: [0; 6] };
}

/// What was forwarded, for a virtual service or a real server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Counters {
    pub packets: u64,
    /// Of whole frames, without the checksum sequence.
    pub bytes: u64,
    /// TCP packets that open a flow; a retransmitted one counts again.
    pub new_flows: u64,
}

/// What the datapath is told as a whole, and tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Settings {
    /// Not 0 if there are services with more than one port.
    pub port_ranges: u32,
    /// Set by the datapath when a note found no room, cleared by the daemon.
    pub flow_table_full: u32,
}

/// The question and the answer of `flow explain`: metadata in front of a frame of a test run.
///
/// The program decides about the frame as about any other, but counts, notes and rewrites
/// nothing, and writes down here what it decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Explanation {
    /// [`Explanation::QUESTION`]; metadata of others is not ours to read.
    pub question: u32,
    /// [`crate::verdict::Verdict`].
    pub verdict: u8,
    /// [`crate::tracking::Why`], or [`Explanation::NONE`].
    pub why: u8,
    /// The slot's own, with [`CHANGED`]; [`EMPTY`] if no slot was looked at.
    pub current: Slot,
    /// [`Previous::real_server`]; [`EMPTY`] if there was none.
    pub previous: u16,
    /// The chosen one, or [`EMPTY`].
    pub real_server: u16,
    pub slot: u32,
    /// [`Service::id`], or `u32::MAX`.
    pub service: u32,
}

impl Explanation {
    pub const QUESTION: u32 = u32::from_le_bytes(*b"why?");
    pub const NONE: u8 = u8::MAX;

    pub const fn question() -> Self {
        Self {
            question: Self::QUESTION,
            verdict: Self::NONE,
            why: Self::NONE,
            current: EMPTY,
            previous: EMPTY,
            real_server: EMPTY,
            slot: 0,
            service: u32::MAX,
        }
    }
}

const _: () = {
    assert!(size_of::<ServiceKey>() == 8);
    assert!(size_of::<PortPrefix>() == 16);
    assert!(size_of::<Service>() == 28);
    assert!(size_of::<Place>() == 24);
    assert!(Service::RESETS_AT < 64);
    assert!(PLACES.is_power_of_two());
    assert!(MAX_TABLES.is_power_of_two() && MAX_ROLES.is_power_of_two());
    assert!(size_of::<Cell>() == 8);
    assert!(size_of::<Previous>() == 16);
    assert!(size_of::<Note>() == 24);
    assert!(size_of::<RealServer>() == 20);
    assert!(size_of::<Counters>() == 24);
    assert!(size_of::<Settings>() == 8);
    // The kernel takes metadata of at most 32 bytes, in fours.
    assert!(size_of::<Explanation>() == 20);
};

#[cfg(feature = "userspace")]
#[expect(unsafe_code, reason = "`aya::Pod` is unsafe to implement")]
mod pod {
    use super::{
        Cell, Counters, Note, Place, PortPrefix, Previous, RealServer, Service, ServiceKey,
        Settings,
    };
    use crate::flow::FlowKey;

    // SAFETY: `repr(C)`, integers and arrays of integers only, without padding (the sizes above
    // are the sums of the fields').
    unsafe impl aya::Pod for ServiceKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for PortPrefix {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Service {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Place {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Cell {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Previous {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Note {}
    // SAFETY: as above.
    unsafe impl aya::Pod for RealServer {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Counters {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Settings {}
    // SAFETY: as above.
    unsafe impl aya::Pod for FlowKey {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_in_a_word_is_the_service() {
        let mask =
            |prefix_len: u32| u32::MAX.checked_shl(32 - prefix_len).unwrap_or(0).to_be_bytes();
        for prefix_len in [0, 1, 24, 31, 32] {
            for (table, table_size, role, flags) in [(0, 1, 0, 0), (32_767, 655_373, 1_023, 1)] {
                for previous in [STEADY, table] {
                    let source_mask = mask(prefix_len);
                    let service =
                        Service { table, table_size, previous, role, id: 7, source_mask, flags };
                    assert_eq!(Service::unpack(7, service.pack()), service);
                }
            }
        }
    }

    #[test]
    fn keys_have_places_all_over() {
        let mut taken = [0_u8; PLACES];
        for port in 0..1000_u16 {
            let key = ServiceKey::new([10, 77, 0, 100], port.to_be_bytes(), 6, 0);
            taken[key.place() as usize] += 1;
        }
        let alone = taken.iter().filter(|&&keys| keys == 1).count();
        assert!(alone > 700, "{alone} of 1000 have a place for themselves");
    }
}
