//! VRRPv3 virtual router, as the state machine of RFC 9568 §6.4.
//!
//! The machine does no I/O and reads no clock. The caller feeds it events with the current time,
//! carries out the returned actions in order, and calls again with [`Event::Timeout`] once
//! [`VirtualRouter::deadline`] has passed. A timeout that comes early is harmless.
//!
//! It departs from the RFC where that leaves somebody in the dark:
//!
//! - An active router that shuts down resigns, but keeps the VIPs until it hears its successor
//!   ([`State::Resigning`]). The RFC has it drop them a skew time earlier than anybody takes over.
//! - It follows that who takes over takes the VIPs first and advertises last: the advertisement is
//!   what makes the other let go.
//! - A router that loses a double-active sends one last advertisement, so that the winner learns
//!   that there was another, and announces the VIPs again. Otherwise who heard the loser's
//!   announcements last goes on sending to the loser.
//! - A lesser advertisement is answered at once, but at most once per interval, and leaves the
//!   schedule of our own as it is. The RFC restarts the timer with each, so that a stranger who sends
//!   them fast enough decides when we advertise.
//! - A router that finds its VIPs in place at startup, left by a predecessor that was killed, goes on
//!   as active. A better router, if there is one, makes itself heard.
//! - If it is not to preempt, it goes on answering for them, but advertises only when it has heard
//!   nobody for the active-down interval ([`State::Resuming`]). Who is heard has taken over meanwhile
//!   and keeps the VIPs whatever its priority; it is sent a resignation, which makes it announce them
//!   again to hosts that have been answered here.
#![forbid(unsafe_code)]

mod cause;

use std::{
    net::IpAddr,
    num::NonZeroU8,
    time::{Duration, Instant},
};

pub use cause::Cause;

/// Priority of the router that owns the VIPs as its real addresses.
pub const PRIORITY_OWNER: u8 = 255;
/// Priority in the last advertisement of a router that resigns.
pub const PRIORITY_RESIGN: u8 = 0;
/// Intervals that a resigning router waits for a successor. The slowest backup needs less than one
/// (its skew time), and as much again is for its scheduling.
const RESIGN_INTERVALS: u32 = 2;
/// Announcements of each VIP at a takeover: the network may lose one.
const TAKEOVER_COPIES: u8 = 3;
/// When to announce once more after a takeover, for hosts and switches that were not ready.
const ANNOUNCE_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// One virtual router on this director.
#[derive(Clone, Debug)]
pub struct VirtualRouter {
    params: Params,
    state: State,
    since: Option<Instant>,
    cause: Cause,
    transitions: u64,
}

/// What a virtual router is configured to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Params {
    /// The source of our advertisements; breaks a tie of priorities.
    pub primary: IpAddr,
    /// 255 for the owner of the VIPs.
    pub priority: NonZeroU8,
    /// How often we advertise while active. Not zero.
    pub interval: Duration,
    /// Whether to take over from an active router of lower priority.
    pub preempt: bool,
    /// How long to know an active router of lower priority before it is preempted.
    pub preempt_delay: Duration,
}

/// Timers live in the state that owns them, so leaving the state cancels them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Not running.
    Initialize,
    /// Another router is active, or nobody is and the timer runs.
    Backup {
        /// When the active router counts as gone.
        active_down_at: Instant,
        /// How often the active router advertises, by its own account.
        active_interval: Duration,
        /// The last advertisement, and when it came.
        heard: Option<(Heard, Instant)>,
        /// Since when routers of lower priority alone have been heard.
        lower_since: Option<Instant>,
    },
    /// This router has found the VIPs in place and answers for them, and listens for who else does.
    Resuming {
        /// When to advertise, if nobody else has.
        claim_at: Instant,
    },
    /// This router answers for the VIPs.
    Active {
        /// When the next advertisement is due.
        advertise_at: Instant,
        /// When to announce the VIPs again.
        announce_at: Option<Instant>,
        /// When a lesser advertisement may be answered again.
        answer_at: Instant,
    },
    /// This router has resigned and answers for the VIPs until another does.
    Resigning {
        /// When to stop waiting for a successor.
        leave_at: Instant,
    },
}

impl State {
    /// Lower case, for people and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Initialize => "initialize",
            Self::Backup { .. } => "backup",
            Self::Resuming { .. } => "resuming",
            Self::Active { .. } => "active",
            Self::Resigning { .. } => "resigning",
        }
    }
}

/// What can happen to a virtual router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Begin to take part.
    Startup {
        /// The VIPs are already on this director.
        holding: bool,
    },
    /// Leave, in good order.
    Shutdown,
    /// The deadline may have passed. Received advertisements are to be handed over before it.
    Timeout,
    /// A valid advertisement for our VRID; the codec has already refused all others.
    Advertisement(Heard),
}

/// What the state machine needs from a received advertisement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Primary address of the sender; never our own.
    pub from: IpAddr,
    /// 0 when the sender resigns.
    pub priority: u8,
    /// How often the sender advertises. Not zero.
    pub interval: Duration,
}

/// What the caller is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Answer for the VIPs: forward, then add the addresses.
    TakeVips,
    /// Send gratuitous ARP for each VIP.
    Announce {
        /// How many for each VIP, without a pause.
        copies: u8,
    },
    /// Send an advertisement.
    Advertise {
        /// The priority to send.
        priority: u8,
    },
    /// Remove the addresses, then cease to forward.
    ReleaseVips,
}

impl VirtualRouter {
    /// A router that waits for [`Event::Startup`].
    pub fn new(params: Params) -> Self {
        Self { params, state: State::Initialize, since: None, cause: Cause::New, transitions: 0 }
    }

    /// Our advertisements come from another address from now on, which breaks ties.
    pub fn set_primary(&mut self, primary: IpAddr) {
        self.params.primary = primary;
    }

    /// The state it is in.
    pub fn state(&self) -> State {
        self.state
    }

    /// When it entered the state; `None` before the first event that changed it.
    pub fn since(&self) -> Option<Instant> {
        self.since
    }

    /// Why it entered the state.
    pub fn cause(&self) -> Cause {
        self.cause
    }

    /// How often the state has changed.
    pub fn transitions(&self) -> u64 {
        self.transitions
    }

    /// Primary address of the router that is active as far as this one knows.
    pub fn active_router(&self) -> Option<IpAddr> {
        match self.state {
            // What it does not claim may be another's.
            State::Initialize | State::Resuming { .. } => None,
            State::Backup { heard, .. } => {
                heard.filter(|(ad, _)| ad.priority != PRIORITY_RESIGN).map(|(ad, _)| ad.from)
            }
            State::Active { .. } | State::Resigning { .. } => Some(self.params.primary),
        }
    }

    /// When to hand over [`Event::Timeout`] next.
    pub fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Initialize => None,
            State::Backup { active_down_at, .. } => Some(active_down_at),
            State::Resuming { claim_at } => Some(claim_at),
            State::Active { advertise_at, announce_at, .. } => {
                Some(announce_at.map_or(advertise_at, |at| at.min(advertise_at)))
            }
            State::Resigning { leave_at } => Some(leave_at),
        }
    }

    /// Takes in an event; the actions are to be carried out in order.
    ///
    /// `now` must not run backwards from call to call.
    pub fn handle(&mut self, now: Instant, event: Event) -> Vec<Action> {
        match (self.state, event) {
            (State::Initialize, Event::Startup { holding }) => self.start(now, holding),
            (State::Initialize, Event::Shutdown | Event::Timeout | Event::Advertisement(_)) => {
                vec![]
            }

            (State::Backup { .. }, Event::Shutdown) => {
                self.enter(now, Cause::Stopped, State::Initialize);
                vec![]
            }
            (State::Backup { active_down_at, .. }, Event::Timeout) if now >= active_down_at => {
                self.take_over(now, self.takeover_cause(now))
            }
            (State::Backup { .. }, Event::Advertisement(ad)) => {
                self.listen(now, ad);
                vec![]
            }
            (State::Backup { .. }, Event::Timeout | Event::Startup { .. }) => vec![],

            (State::Resuming { .. }, Event::Advertisement(ad)) => self.listen_resuming(now, ad),
            (State::Resuming { claim_at }, Event::Timeout) if now >= claim_at => {
                self.become_active(now, Cause::Held)
            }
            (State::Resuming { .. }, Event::Timeout | Event::Startup { .. }) => vec![],

            (State::Resuming { .. } | State::Active { .. }, Event::Shutdown) => {
                let leave_at = now + RESIGN_INTERVALS * self.params.interval;
                self.enter(now, Cause::Resigned, State::Resigning { leave_at });
                vec![Action::Advertise { priority: PRIORITY_RESIGN }]
            }
            (State::Active { .. }, Event::Timeout) => self.keep_active(now),
            (State::Active { .. }, Event::Advertisement(ad)) if self.yields_to(ad) => {
                let last = Action::Advertise { priority: self.params.priority.get() };
                self.become_backup(now, Cause::Better(ad), ad.interval, Some((ad, now)));
                vec![last, Action::ReleaseVips]
            }
            (State::Active { .. }, Event::Advertisement(_)) => self.answer(now),
            (State::Active { .. }, Event::Startup { .. }) => vec![],

            (State::Resigning { .. }, Event::Advertisement(ad))
                if ad.priority != PRIORITY_RESIGN =>
            {
                self.enter(now, Cause::Succeeded(ad.from), State::Initialize);
                vec![Action::ReleaseVips]
            }
            (State::Resigning { leave_at }, Event::Timeout) if now >= leave_at => {
                self.enter(now, Cause::NoSuccessor, State::Initialize);
                vec![Action::ReleaseVips]
            }
            // What is on the wire cannot be taken back: a startup has to wait for the end.
            (
                State::Resigning { .. },
                Event::Advertisement(_) | Event::Timeout | Event::Startup { .. } | Event::Shutdown,
            ) => vec![],
        }
    }

    fn start(&mut self, now: Instant, holding: bool) -> Vec<Action> {
        if self.is_owner() {
            return self.take_over(now, Cause::Owner);
        }
        if !holding {
            return self.become_backup(now, Cause::Started, self.params.interval, None);
        }
        if self.params.preempt {
            return self.take_over(now, Cause::Held);
        }
        let claim_at = now + self.active_down_interval(self.params.interval);
        self.enter(now, Cause::Held, State::Resuming { claim_at });
        // The predecessor may have been killed when it had taken some of them only.
        vec![Action::TakeVips]
    }

    fn take_over(&mut self, now: Instant, cause: Cause) -> Vec<Action> {
        let mut actions = vec![Action::TakeVips];
        actions.extend(self.become_active(now, cause));
        actions
    }

    /// With the VIPs taken.
    fn become_active(&mut self, now: Instant, cause: Cause) -> Vec<Action> {
        let state = State::Active {
            advertise_at: now + self.params.interval,
            announce_at: Some(now + ANNOUNCE_AGAIN_AFTER),
            answer_at: now,
        };
        self.enter(now, cause, state);
        vec![
            Action::Announce { copies: TAKEOVER_COPIES },
            Action::Advertise { priority: self.params.priority.get() },
        ]
    }

    fn become_backup(
        &mut self,
        now: Instant,
        cause: Cause,
        active_interval: Duration,
        heard: Option<(Heard, Instant)>,
    ) -> Vec<Action> {
        let active_down_at = now + self.active_down_interval(active_interval);
        let state = State::Backup { active_down_at, active_interval, heard, lower_since: None };
        self.enter(now, cause, state);
        vec![]
    }

    fn enter(&mut self, now: Instant, cause: Cause, state: State) {
        self.state = state;
        self.since = Some(now);
        self.cause = cause;
        self.transitions += 1;
    }

    /// An advertisement in Backup: RFC 9568 §6.4.2, and the preemption delay.
    fn listen(&mut self, now: Instant, ad: Heard) {
        let own = self.params.priority.get();
        let (preempt, delay) = (self.params.preempt, self.params.preempt_delay);
        let skew = |interval| self.skew_time(interval);
        let down_in = |interval| self.active_down_interval(interval);
        let State::Backup { mut active_down_at, mut active_interval, mut lower_since, .. } =
            self.state
        else {
            return;
        };
        if ad.priority == PRIORITY_RESIGN {
            active_down_at = now + skew(active_interval);
            lower_since = None;
        } else {
            let lower = ad.priority < own;
            let known_since = lower_since.unwrap_or(now);
            lower_since = lower.then_some(known_since);
            // Preempting means letting the timer run out.
            if !lower || !preempt || now < known_since + delay {
                active_interval = ad.interval;
                active_down_at = now + down_in(active_interval);
            }
        }
        let heard = Some((ad, now));
        self.state = State::Backup { active_down_at, active_interval, heard, lower_since };
    }

    /// An advertisement in Resuming.
    fn listen_resuming(&mut self, now: Instant, ad: Heard) -> Vec<Action> {
        if ad.priority != PRIORITY_RESIGN {
            self.become_backup(now, Cause::ActiveAlready(ad.from), ad.interval, Some((ad, now)));
            return vec![Action::Advertise { priority: PRIORITY_RESIGN }, Action::ReleaseVips];
        }
        let sooner = now + self.skew_time(self.params.interval);
        if let State::Resuming { claim_at } = &mut self.state {
            *claim_at = sooner.min(*claim_at);
        }
        vec![]
    }

    /// A timeout in Active.
    fn keep_active(&mut self, now: Instant) -> Vec<Action> {
        let interval = self.params.interval;
        let State::Active { mut advertise_at, mut announce_at, answer_at } = self.state else {
            return vec![];
        };
        let mut actions = vec![];
        if now >= advertise_at {
            actions.push(Action::Advertise { priority: self.params.priority.get() });
            // Our last one is three intervals ago: a backup may have taken over and have announced
            // the VIPs, and its advertisements may have been lost while nobody read them here.
            if now >= advertise_at + 2 * interval {
                announce_at = Some(now);
            }
            // Counted from when it was due, so that lateness does not add up.
            let next = advertise_at + interval;
            advertise_at = if next > now { next } else { now + interval };
        }
        if announce_at.is_some_and(|at| now >= at) {
            actions.push(Action::Announce { copies: 1 });
            announce_at = self.after_announcing(now);
        }
        self.state = State::Active { advertise_at, announce_at, answer_at };
        actions
    }

    /// An advertisement in Active that does not beat us: RFC 9568 §6.4.3.
    ///
    /// Its sender may have announced the VIPs as well. An announcement that comes too soon after the
    /// last one is put off, not dropped: the one that says that the other has left may be the second.
    fn answer(&mut self, now: Instant) -> Vec<Action> {
        let State::Active { advertise_at, announce_at, answer_at } = self.state else {
            return vec![];
        };
        if now < answer_at {
            let announce_at = Some(announce_at.map_or(answer_at, |at| at.min(answer_at)));
            self.state = State::Active { advertise_at, announce_at, answer_at };
            return vec![];
        }
        let answer_at = now + self.params.interval;
        let announce_at = self.after_announcing(now);
        self.state = State::Active { advertise_at, announce_at, answer_at };
        let priority = self.params.priority.get();
        vec![Action::Advertise { priority }, Action::Announce { copies: 1 }]
    }

    /// When to announce again, after having done so now.
    fn after_announcing(&self, now: Instant) -> Option<Instant> {
        self.since.map(|since| since + ANNOUNCE_AGAIN_AFTER).filter(|&at| at > now)
    }

    fn takeover_cause(&self, now: Instant) -> Cause {
        let State::Backup { heard, active_interval, .. } = self.state else {
            return self.cause;
        };
        match heard {
            Some((ad, _)) if ad.priority == PRIORITY_RESIGN => Cause::ActiveResigned(ad.from),
            Some((ad, at))
                if ad.priority < self.params.priority.get() && now < at + 3 * active_interval =>
            {
                Cause::Preempted(ad)
            }
            Some((_, at)) => Cause::Silence(now - at),
            None => Cause::Silence(self.since.map_or(Duration::ZERO, |since| now - since)),
        }
    }

    fn yields_to(&self, ad: Heard) -> bool {
        (ad.priority, ad.from) > (self.params.priority.get(), self.params.primary)
    }

    fn is_owner(&self) -> bool {
        self.params.priority.get() == PRIORITY_OWNER
    }

    fn active_down_interval(&self, active_interval: Duration) -> Duration {
        3 * active_interval + self.skew_time(active_interval)
    }

    /// RFC 9568 §6.1: the higher our priority, the sooner we claim.
    fn skew_time(&self, active_interval: Duration) -> Duration {
        active_interval * (256 - u32::from(self.params.priority.get())) / 256
    }
}

#[cfg(test)]
mod tests;
