//! The roles of virtual routers in the datapath, as the VRRP thread writes them.

use std::time::Duration;

use aya::maps::{Array, Map, MapData, MapError};
use lb_ebpf::abi::{ALWAYS, FOREVER, ForwardUntil, Seconds};
use nix::time::{ClockId, clock_gettime};

/// A handle of its own of the roles map: a write is one system call, under no lock of ours.
pub struct Roles(Array<MapData, ForwardUntil>);

#[derive(Debug, thiserror::Error)]
#[error("roles of the datapath")]
pub struct RoleError(#[from] MapError);

impl Roles {
    pub(super) fn open(id: u32) -> Result<Self, RoleError> {
        Ok(Self(Array::try_from(Map::Array(MapData::from_id(id)?))?))
    }

    /// Whether the services of the role are forwarded without an end.
    pub fn forwards(&self, role: u32) -> bool {
        role == ALWAYS || self.0.get(&role, 0).is_ok_and(|until| until == FOREVER)
    }

    /// Forwards the services of the role from now on.
    pub fn forward_always(&mut self, role: u32) -> Result<(), RoleError> {
        Ok(self.0.set(role, FOREVER, 0)?)
    }

    /// Forwards them for `grace` yet.
    pub fn forward_for(&mut self, role: u32, grace: Duration) -> Result<(), RoleError> {
        let until = monotonic_now() + grace;
        let until = ForwardUntil::try_from(until.as_nanos()).unwrap_or(FOREVER - 1);
        Ok(self.0.set(role, until, 0)?)
    }
}

/// The kernel's number of the roles map.
pub(super) fn id(roles: &Map) -> Option<u32> {
    if let Map::Array(data) = roles { Some(data.info().ok()?.id()) } else { None }
}

/// The clock that the program reads.
fn monotonic_now() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from)
}

/// Its whole seconds, as the program notes them.
pub(crate) fn monotonic_seconds() -> Seconds {
    Seconds::try_from(monotonic_now().as_secs()).unwrap_or(Seconds::MAX)
}
