//! What others do to the interface of a running virtual router: noticed and repaired.
//!
//! A VIP may be deleted by hand or by who configures the network, the interface may lose its addresses
//! and get others, or be replaced by another of its name. What has been opened does not follow.

use std::{io, mem, net::Ipv4Addr};

use tracing::{info, warn};

use super::{Attachment, Instance, Interfaces, World};
use crate::{io::Role, router::State};

/// As at a takeover: the network may lose one.
const RESTORED_COPIES: u8 = 3;

/// What is amiss, and what has been logged about it.
#[derive(Default)]
pub(super) struct Upkeep {
    /// Why the interface cannot be worked on, as logged.
    detached: Option<String>,
    /// Logged that advertisements cannot be sent, not yet that they can again.
    mute: bool,
    /// Since the last check.
    sent: bool,
    /// Since the last check.
    send_failed: bool,
}

impl Upkeep {
    /// Whether the interface was gone, or had no address of its own, at the last check.
    pub(super) fn is_detached(&self) -> bool {
        self.detached.is_some()
    }

    pub(super) fn note_sent(&mut self) {
        self.sent = true;
    }

    /// Whether to say so.
    fn note_send_failed(&mut self) -> bool {
        self.send_failed = true;
        !mem::replace(&mut self.mute, true)
    }

    /// Whether to say that sending works again: once it has from one check to the next, so that one
    /// failure now and then does not fill the log.
    fn sends_again(&mut self) -> bool {
        let sent = mem::take(&mut self.sent);
        let failed = mem::take(&mut self.send_failed);
        self.mute && sent && !failed && mem::take(&mut self.mute)
    }
}

impl Instance {
    /// Compares what is open with `interfaces`, and opens anew and adds what has changed or is gone.
    /// The state of the machine stays. None of `vips`, which belong to any of the virtual routers, can
    /// be the primary address. To be called about once a second.
    pub(in crate::io) fn keep_up(
        &mut self,
        interfaces: &io::Result<Interfaces>,
        vips: &[Ipv4Addr],
        world: &mut World,
    ) {
        if self.is_out() {
            return;
        }
        if self.upkeep.sends_again() {
            info!(
                router = self.config.name,
                interface = self.config.interface,
                "advertisements can be sent again"
            );
        }
        let Ok(interfaces) = interfaces else {
            return self.count("interfaces-unreadable");
        };
        let reopened = match self.keep_attached(interfaces, vips) {
            Ok(reopened) => reopened,
            Err(fault) => return self.detach(fault),
        };
        let restored = self.role() == Role::Active && self.keep_vips(interfaces, world);
        // In the other states somebody else may just have taken over and have announced them.
        let active = matches!(self.machine.state(), State::Active { .. });
        if active && (reopened || restored) {
            for _ in 0..RESTORED_COPIES {
                self.announce();
            }
        }
    }

    /// Whether it had to be opened anew.
    fn keep_attached(
        &mut self,
        interfaces: &Interfaces,
        vips: &[Ipv4Addr],
    ) -> Result<bool, String> {
        let interface = interfaces.find(&self.config.interface, vips)?;
        if interface == self.attachment.interface && !self.upkeep.is_detached() {
            return Ok(false);
        }
        let primary = self.attachment.primary;
        self.attachment = Attachment::open(&self.config, interface, Some(primary))
            .map_err(|error| error.to_string())?;
        self.machine.set_primary(self.attachment.primary.into());
        self.upkeep.detached = None;
        self.count("interface-reopened");
        info!(
            router = self.config.name,
            interface = self.config.interface,
            index = self.attachment.interface.index,
            primary = %self.attachment.primary,
            "interface has changed, opened again"
        );
        Ok(true)
    }

    fn detach(&mut self, fault: String) {
        self.count("interface-unusable");
        if self.upkeep.detached.as_ref() != Some(&fault) {
            warn!(
                router = self.config.name,
                interface = self.config.interface,
                fault,
                "interface cannot be used, waiting for it"
            );
            self.upkeep.detached = Some(fault);
        }
    }

    /// Adds the VIPs that are gone; whether there were any.
    ///
    /// Only where the interface has an address of its own: a VIP that comes first is the primary
    /// address of its subnet for the kernel, which removes all others of the subnet along with it.
    fn keep_vips(&mut self, interfaces: &Interfaces, world: &mut World) -> bool {
        let index = self.attachment.interface.index;
        let gone: Vec<_> = self
            .config
            .all_vips()
            .filter(|vip| !interfaces.addresses_of(index).any(|found| found == *vip))
            .collect();
        for vip in &gone {
            if world.addresses.add(index, *vip).is_ok() {
                self.count("vip-restored");
                warn!(router = self.config.name, vip = %vip.address, "VIP was gone, added again");
            } else {
                self.count("address-failed");
            }
        }
        !gone.is_empty()
    }

    pub(super) fn note_send_failed(&mut self, error: &io::Error) {
        if self.upkeep.note_send_failed() {
            warn!(
                router = self.config.name,
                interface = self.config.interface,
                %error,
                "cannot send advertisements"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn that_sending_fails_is_said_once_and_that_it_works_again_after_a_period_without_failure() {
        let mut upkeep = Upkeep::default();
        upkeep.note_sent();
        assert!(!upkeep.sends_again(), "it never failed");

        assert!(upkeep.note_send_failed());
        assert!(!upkeep.note_send_failed());
        upkeep.note_sent();
        assert!(!upkeep.sends_again(), "now and then");
        assert!(!upkeep.sends_again(), "nothing was sent");
        assert!(!upkeep.note_send_failed());
        assert!(!upkeep.sends_again());

        upkeep.note_sent();
        assert!(upkeep.sends_again());
        upkeep.note_sent();
        assert!(!upkeep.sends_again(), "said already");
        assert!(upkeep.note_send_failed());
    }
}
