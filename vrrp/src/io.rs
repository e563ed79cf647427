//! Drives virtual routers: sockets, timers and actions in order, on a thread of their own.

use std::{collections::BTreeMap, net::Ipv4Addr, num::NonZeroU8, time::Duration};

/// One virtual router, as configured.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RouterConfig {
    /// Unique; tells a changed router from a new one in [`Vrrp::reconfigure`].
    pub name: String,
    /// The interface that the VIPs live on and advertisements go through.
    pub interface: String,
    /// Unique on its interface.
    pub vrid: NonZeroU8,
    /// 255 for the owner of the VIPs.
    pub priority: NonZeroU8,
    /// Advertisement interval: whole centiseconds, 10 ms to 40.95 s.
    pub interval: Duration,
    /// Whether to take over from an active router of lower priority.
    pub preempt: bool,
    /// How long to know an active router of lower priority before it is preempted.
    pub preempt_delay: Duration,
    /// Follow the state and are advertised; 1 to 255 of them.
    pub vips: Vec<Vip>,
    /// Follow the state without being advertised.
    pub more_vips: Vec<Vip>,
}

/// An address that follows the state of a virtual router.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Vip {
    /// The VIP.
    pub address: Ipv4Addr,
    /// Length of the prefix that it is added with, 0 to 32.
    pub prefix_len: u8,
}

/// Whether this node answers for the VIPs of a virtual router.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// In the states Active and Resigning.
    Active,
    /// In all other states, and before the first report.
    Inactive,
}

/// Learns of each change of role. Called on the VRRP thread; must not block.
pub trait Observer: Send {
    /// [`Role::Active`] is reported before the VIPs are added and announced,
    /// [`Role::Inactive`] after they have been removed.
    fn role(&mut self, router: &str, role: Role);
}

/// Why a set of virtual routers cannot be run.
#[derive(thiserror::Error, Debug)]
#[error("virtual router {router} on {interface}: {cause}")]
pub struct StartError {
    /// Name of the virtual router.
    pub router: String,
    /// Its interface.
    pub interface: String,
    /// What was found, what was expected.
    pub cause: String,
}

/// What a virtual router does, at one moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RouterSnapshot {
    /// As configured.
    pub name: String,
    /// As configured.
    pub interface: String,
    /// As configured.
    pub vrid: u8,
    /// As configured.
    pub priority: u8,
    /// As configured.
    pub interval: Duration,
    /// `initialize`, `backup`, `active` or `resigning`.
    pub state: &'static str,
    /// How long it has been in this state.
    pub since: Duration,
    /// Why it is in this state, for a person.
    pub cause: String,
    /// As configured.
    pub vips: Vec<Vip>,
    /// Primary address of the router that is known to be active; our own when it is us.
    pub active_router: Option<Ipv4Addr>,
    /// Changes of state since the start.
    pub transitions: u64,
    /// Advertisements sent, resignations included.
    pub advertisements_sent: u64,
    /// Advertisements that were heeded.
    pub advertisements_received: u64,
    /// Packets not heeded, and sends that failed, by reason.
    pub discarded: BTreeMap<&'static str, u64>,
}

/// The VRRP thread.
pub struct Vrrp;

impl Vrrp {
    /// Starts the thread and on it the virtual routers.
    pub fn start(
        _routers: Vec<RouterConfig>,
        _observer: Box<dyn Observer>,
    ) -> Result<Self, StartError> {
        Ok(Self)
    }

    /// Makes `routers` the set that runs; compared by name.
    pub fn reconfigure(&self, _routers: Vec<RouterConfig>) -> Result<(), StartError> {
        Ok(())
    }

    /// The state of every virtual router, in configured order.
    pub fn snapshot(&self) -> Vec<RouterSnapshot> {
        Vec::new()
    }

    /// Resigns all virtual routers and returns once each has left.
    pub fn shutdown(self) {}
}
