//! One virtual router with its sockets: hands events to the state machine and carries out its actions.

mod upkeep;

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    os::fd::{AsFd, BorrowedFd},
    time::Instant,
};

use tracing::{info, warn};

use self::upkeep::Upkeep;
use super::{
    Observer, Role, RouterConfig, RouterSnapshot, StartError, Vip, address::Addresses,
    attachment::Attachment, interfaces::Interfaces, now,
};
use crate::{
    filter::Accepted,
    packet::{Advertisement, Interval},
    router::{Action, Cause, Event, Heard, Params, State, VirtualRouter},
};

/// Packets read from a socket in one go: more than a receive buffer of the default size holds, so that
/// all that was queued is read, and bounded, so that a flood cannot keep us from our timers.
const MAX_QUEUED: usize = 1024;
/// More than the longest advertisement: 20 + 40 + 8 + 255 × 4 bytes.
const BUFFER_LEN: usize = 2048;

pub(super) struct Instance {
    config: RouterConfig,
    interval: Interval,
    attachment: Attachment,
    machine: VirtualRouter,
    upkeep: Upkeep,
    sent: u64,
    received: u64,
    other_vips: u64,
    discarded: BTreeMap<&'static str, u64>,
}

/// What the actions of all virtual routers change.
pub(super) struct World {
    pub(super) addresses: Addresses,
    pub(super) observer: Box<dyn Observer>,
}

impl Instance {
    /// Opens what a virtual router needs, without taking part yet.
    ///
    /// None of `vips`, which belong to any of the virtual routers, can be the primary address.
    pub(super) fn open(
        config: RouterConfig,
        vips: &[Ipv4Addr],
        addresses: &mut Addresses,
    ) -> Result<Self, StartError> {
        let interval = Interval::from_duration(config.interval)
            .ok_or_else(|| config.error("advertisement interval out of range"))?;
        let interfaces = Interfaces::read(addresses)
            .map_err(|error| config.error(format!("list the addresses: {error}")))?;
        let interface =
            interfaces.find(&config.interface, vips).map_err(|fault| config.error(fault))?;
        let attachment = Attachment::open(&config, interface, None)?;
        let machine = VirtualRouter::new(Params {
            primary: attachment.primary.into(),
            priority: config.priority,
            interval: config.interval,
            preempt: config.preempt,
            preempt_delay: config.preempt_delay,
        });
        Ok(Self {
            config,
            interval,
            attachment,
            machine,
            upkeep: Upkeep::default(),
            sent: 0,
            received: 0,
            other_vips: 0,
            discarded: BTreeMap::new(),
        })
    }

    pub(super) fn config(&self) -> &RouterConfig {
        &self.config
    }

    /// Whether it has taken part at some time.
    pub(super) fn is_started(&self) -> bool {
        self.machine.since().is_some()
    }

    /// Whether it takes no part any more, or not yet.
    pub(super) fn is_out(&self) -> bool {
        self.machine.state() == State::Initialize
    }

    /// Whether it resigned and nobody wanted the VIPs.
    pub(super) fn left_without_successor(&self) -> bool {
        self.machine.cause() == Cause::NoSuccessor
    }

    pub(super) fn role(&self) -> Role {
        match self.machine.state() {
            State::Initialize | State::Backup { .. } => Role::Inactive,
            State::Resuming { .. } | State::Active { .. } | State::Resigning { .. } => Role::Active,
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.machine.deadline()
    }

    /// Begins to take part. `holding`: the VIPs were on this director until now.
    pub(super) fn start(&mut self, holding: bool, world: &mut World) {
        let holding = holding || self.finds_vips(world);
        self.handle(Event::Startup { holding }, world);
    }

    /// Reads and handles all that is queued.
    pub(super) fn receive(&mut self, world: &mut World) {
        let mut buffer = [0; BUFFER_LEN];
        for _ in 0..MAX_QUEUED {
            let accepted = match self.attachment.socket.receive(&mut buffer) {
                Ok(Some(packet)) => self.attachment.filter.accept(packet),
                Ok(None) => return,
                // The link went down, say. The error is cleared by having been read, and comes before
                // packets that have been queued since.
                Err(_) => {
                    self.count("receive-failed");
                    continue;
                }
            };
            match accepted {
                Ok(Accepted { from, advertisement, same_vips }) => {
                    self.received += 1;
                    self.other_vips += u64::from(!same_vips);
                    let heard = Heard {
                        from: from.into(),
                        priority: advertisement.priority,
                        interval: advertisement.interval.duration(),
                    };
                    self.handle(Event::Advertisement(heard), world);
                }
                Err(discard) => self.count(discard.label()),
            }
        }
    }

    pub(super) fn handle(&mut self, event: Event, world: &mut World) {
        let before = self.machine.state().name();
        let actions = self.machine.handle(now(), event);
        let after = self.machine.state().name();
        for action in actions {
            self.carry_out(action, world);
        }
        if before != after {
            info!(
                router = self.config.name,
                interface = self.config.interface,
                vrid = self.config.vrid,
                from = before,
                to = after,
                cause = %self.machine.cause(),
                "virtual router changed state"
            );
        }
    }

    fn carry_out(&mut self, action: Action, world: &mut World) {
        match action {
            Action::TakeVips => {
                world.observer.role(&self.config.name, Role::Active);
                // Else the VIPs would be the first addresses there: see `keep_vips`.
                if !self.upkeep.is_detached() {
                    self.set_vips(|interface, vip| world.addresses.add(interface, vip));
                }
            }
            Action::ReleaseVips => {
                self.set_vips(|interface, vip| world.addresses.remove(interface, vip));
                world.observer.role(&self.config.name, Role::Inactive);
            }
            Action::Announce { copies } => {
                for _ in 0..copies {
                    self.announce();
                }
            }
            Action::Advertise { priority } => self.advertise(priority),
        }
    }

    fn set_vips(&mut self, mut set: impl FnMut(u32, Vip) -> std::io::Result<()>) {
        let vips: Vec<_> = self.config.all_vips().collect();
        for vip in vips {
            if let Err(error) = set(self.attachment.interface.index, vip) {
                self.count("address-failed");
                warn!(router = self.config.name, vip = %vip.address, %error, "cannot set VIP");
            }
        }
    }

    fn announce(&mut self) {
        let vips: Vec<_> = self.config.all_vips().collect();
        for vip in vips {
            if self.attachment.announcer.announce(vip.address).is_err() {
                self.count("announce-failed");
            }
        }
    }

    fn advertise(&mut self, priority: u8) {
        let advertisement = Advertisement {
            vrid: self.config.vrid,
            priority,
            interval: self.interval,
            addresses: self.config.vips.iter().map(|vip| vip.address).collect(),
        };
        let Attachment { socket, primary, .. } = &self.attachment;
        match socket.send(&advertisement.encode(*primary)) {
            Ok(()) => {
                self.sent += 1;
                self.upkeep.note_sent();
            }
            Err(error) => {
                self.count("send-failed");
                self.note_send_failed(&error);
            }
        }
    }

    /// Whether a VIP is on the interface already. One is enough: who is active has been taking them
    /// all, and may have been killed on the way.
    fn finds_vips(&self, world: &mut World) -> bool {
        world.addresses.list().is_ok_and(|found| {
            found.iter().any(|(on, found)| {
                *on == self.attachment.interface.index
                    && self.config.all_vips().any(|vip| vip.address == found.address)
            })
        })
    }

    fn count(&mut self, reason: &'static str) {
        *self.discarded.entry(reason).or_default() += 1;
    }

    pub(super) fn snapshot(&self) -> RouterSnapshot {
        let active_router = match self.machine.active_router() {
            Some(IpAddr::V4(address)) => Some(address),
            Some(IpAddr::V6(_)) | None => None,
        };
        RouterSnapshot {
            name: self.config.name.clone(),
            interface: self.config.interface.clone(),
            vrid: self.config.vrid.get(),
            priority: self.config.priority.get(),
            interval: self.config.interval,
            state: self.machine.state().name(),
            since: self.machine.since().map(|since| now() - since).unwrap_or_default(),
            cause: self.machine.cause().to_string(),
            vips: self.config.vips.clone(),
            active_router,
            transitions: self.machine.transitions(),
            advertisements_sent: self.sent,
            advertisements_received: self.received,
            other_vips: self.other_vips,
            discarded: self.discarded.clone(),
        }
    }
}

impl AsFd for Instance {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.attachment.socket.as_fd()
    }
}
