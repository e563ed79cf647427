//! Map keys and values: what the kernel side reads and the daemon writes.
//!
//! Addresses and ports are in network byte order, as they stand in packets; all other integers
//! are the machine's own. A change of any type here is a change of [`LAYOUT`].

/// Version of the maps' layout; the daemon keeps the pins of each version apart.
pub const LAYOUT: u32 = 1;

/// Most virtual services that a director can hold.
pub const MAX_SERVICES: usize = 16_384;
/// Most Maglev tables; twice the services, so that every new one stands beside the old.
pub const MAX_TABLES: usize = 2 * MAX_SERVICES;
/// Most real servers. One less than [`Cell`]'s integers can name, as [`EMPTY`] names none.
pub const MAX_REAL_SERVERS: usize = 65_535;
/// Most virtual routers, and [`ALWAYS`] beside them.
pub const MAX_ROLES: usize = 1_024;

/// Key of the services map. Aligned as [`crate::flow::FlowKey`] is, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C, align(4))]
pub struct ServiceKey {
    pub vip: [u8; 4],
    pub port: [u8; 2],
    /// As in the IPv4 header.
    pub protocol: u8,
    /// Always 0: the map compares all bytes of a key.
    pub zero: u8,
}

/// Value of the services map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Service {
    /// Index of the Maglev table.
    pub table: u32,
    /// Its slots, at least 1.
    pub table_size: u32,
    /// Index of the role that says whether this director forwards the service.
    pub role: u32,
}

/// Until when, in nanoseconds of `CLOCK_MONOTONIC`, this director forwards the services of a
/// virtual router: 0 while it is not active for it, [`FOREVER`] while it is.
pub type ForwardUntil = u64;
pub const FOREVER: ForwardUntil = u64::MAX;

/// The role of services whose VIP belongs to no virtual router.
pub const ALWAYS: u32 = 0;

/// A cell of a Maglev table: four slots, each the index of a real server. An array map rounds
/// its values up to eight bytes, so smaller ones would waste the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Cell {
    pub slots: [u16; Self::SLOTS as usize],
}

impl Cell {
    pub const SLOTS: u32 = 4;
}

/// The slot of a table without real servers.
pub const EMPTY: u16 = u16::MAX;

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

const _: () = {
    assert!(size_of::<ServiceKey>() == 8);
    assert!(size_of::<Service>() == 12);
    assert!(size_of::<Cell>() == 8);
    assert!(size_of::<RealServer>() == 20);
    assert!(MAX_REAL_SERVERS <= EMPTY as usize);
};

#[cfg(feature = "userspace")]
#[expect(unsafe_code, reason = "`aya::Pod` is unsafe to implement")]
mod pod {
    use super::{Cell, RealServer, Service, ServiceKey};

    // SAFETY: `repr(C)`, integers and arrays of integers only, without padding (the sizes above
    // are the sums of the fields').
    unsafe impl aya::Pod for ServiceKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Service {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Cell {}
    // SAFETY: as above.
    unsafe impl aya::Pod for RealServer {}
}
