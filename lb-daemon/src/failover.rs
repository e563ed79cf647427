//! From the states of virtual routers to what the datapath forwards.

use std::{collections::BTreeMap, sync::mpsc, time::Duration};

use tracing::error;
use vrrp::io::{Observer, Role};

use crate::{
    config,
    dataplane::{RoleError, Roles},
};

/// How long a director forwards after it has given a VIP up: frames are on their way from hosts
/// that have not yet heard the successor.
pub(crate) const GRACE: Duration = Duration::from_secs(1);

/// The index of each virtual router's role in the datapath.
pub type RoleIndexes = BTreeMap<String, u32>;

/// Writes roles on the VRRP thread: no lock, and one system call a transition.
///
/// Its order is what breaks no connection: a VIP that the kernel holds before the datapath
/// forwards it would be answered with resets.
pub struct RoleWriter {
    roles: Option<Roles>,
    indexes: RoleIndexes,
    updates: mpsc::Receiver<Update>,
}

/// What the control side tells the writer before a virtual router can need it.
pub enum Update {
    Indexes(RoleIndexes),
    Datapath(Roles),
}

impl RoleWriter {
    pub fn new() -> (Self, mpsc::Sender<Update>) {
        let (sender, updates) = mpsc::channel();
        (Self { roles: None, indexes: RoleIndexes::new(), updates }, sender)
    }

    fn write(&mut self, router: &str, role: Role) -> Result<(), RoleError> {
        let (Some(roles), Some(&index)) = (&mut self.roles, self.indexes.get(router)) else {
            return Ok(()); // no virtual service has a VIP of this router
        };
        match role {
            Role::Active => roles.forward_always(index),
            // Once: another report of the same must not prolong it.
            Role::Inactive if roles.forwards(index) => roles.forward_for(index, GRACE),
            Role::Inactive => Ok(()),
        }
    }
}

impl Observer for RoleWriter {
    fn role(&mut self, router: &str, role: Role) {
        for update in self.updates.try_iter() {
            match update {
                Update::Indexes(indexes) => self.indexes = indexes,
                Update::Datapath(roles) => self.roles = Some(roles),
            }
        }
        if let Err(source) = self.write(router, role) {
            error!(router, error = %source, "the datapath did not take the role");
        }
    }
}

/// A virtual router as the VRRP thread wants it.
pub fn router_config(router: &config::VirtualRouter) -> vrrp::io::RouterConfig {
    let vip =
        |vip: &config::Vip| vrrp::io::Vip { address: vip.address, prefix_len: vip.prefix_len };
    vrrp::io::RouterConfig {
        name: router.name.clone(),
        interface: router.interface.clone(),
        vrid: router.vrid,
        priority: router.priority,
        interval: router.advertisement_interval,
        preempt: router.preempt,
        preempt_delay: router.preempt_delay,
        vips: router.vips.iter().map(vip).collect(),
        more_vips: router.more_vips.iter().map(vip).collect(),
    }
}
