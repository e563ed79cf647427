//! Drives virtual routers: sockets, timers and actions in order, on a thread of their own.
//!
//! The thread waits for nothing but the sockets, its timers and [`Vrrp`]'s requests. It holds no lock,
//! opens no file and asks no name server; on its way lie the kernel and the [`Observer`].

mod address;
mod announce;
mod attachment;
mod config;
mod instance;
mod interfaces;
mod realtime;
mod socket;
mod thread;

use std::{
    collections::BTreeMap,
    io::Write,
    net::Ipv4Addr,
    os::unix::net::UnixStream,
    sync::mpsc::{Sender, channel},
    thread::{Builder, JoinHandle},
    time::{Duration, Instant},
};

pub use self::config::{RouterConfig, StartError, Vip};
use self::thread::{Command, Thread};

/// The VRRP thread.
///
/// To drop it resigns all virtual routers without waiting for it; [`Vrrp::shutdown`] waits.
///
/// A panic on the thread, by the [`Observer`] say, aborts the process: the VIPs would stay where
/// nobody advertises them any more. Started again, it finds them in place and goes on.
pub struct Vrrp {
    commands: Sender<Command>,
    wake: UnixStream,
    thread: JoinHandle<()>,
}

impl Vrrp {
    /// Starts the thread, in the network namespace of the caller, and on it the virtual routers.
    ///
    /// # Errors
    ///
    /// An interface that does not exist, is not Ethernet or has no IPv4 address of its own; two
    /// routers with the same name, VRID or VIP; an interval that the protocol cannot express; a
    /// socket that is not permitted.
    pub fn start(
        routers: Vec<RouterConfig>,
        observer: Box<dyn Observer>,
    ) -> Result<Self, StartError> {
        let (commands, requests) = channel();
        let (wake, woken) = UnixStream::pair().map_err(cannot_start)?;
        wake.set_nonblocking(true).map_err(cannot_start)?;
        woken.set_nonblocking(true).map_err(cannot_start)?;
        let state = Thread::open(requests, woken, observer).map_err(cannot_start)?;
        let thread =
            Builder::new().name("vrrp".into()).spawn(|| state.run()).map_err(cannot_start)?;
        let vrrp = Self { commands, wake, thread };
        match vrrp.reconfigure(routers) {
            Ok(()) => Ok(vrrp),
            Err(error) => {
                vrrp.shutdown();
                Err(error)
            }
        }
    }

    /// Makes `routers` the set that runs; told apart by name.
    ///
    /// A router that is as it was is not touched. One that is gone or has changed resigns first, and
    /// the changed one starts once it has left: that goes on after the return.
    ///
    /// Before it returns, the observer has been told the present role of every virtual router again,
    /// also when `routers` is the set that runs already. Who has changed what a role leads to calls
    /// this to have it done.
    ///
    /// # Errors
    ///
    /// As [`Vrrp::start`]; then nothing has changed, and nothing is reported.
    pub fn reconfigure(&self, routers: Vec<RouterConfig>) -> Result<(), StartError> {
        self.ask(|reply| Command::Reconfigure(routers, reply))
            .unwrap_or_else(|| Err(cannot_start("it has ended")))
    }

    /// Tries what [`Vrrp::reconfigure`] would need for `routers`, and changes nothing.
    ///
    /// # Errors
    ///
    /// As [`Vrrp::reconfigure`] would return now. What happens to the interfaces until it is called
    /// can still make it fail.
    pub fn check(&self, routers: &[RouterConfig]) -> Result<(), StartError> {
        self.ask(|reply| Command::Check(routers.to_vec(), reply))
            .unwrap_or_else(|| Err(cannot_start("it has ended")))
    }

    /// The state of every virtual router, in configured order, then of those that are leaving.
    pub fn snapshot(&self) -> Vec<RouterSnapshot> {
        self.ask(Command::Snapshot).unwrap_or_default()
    }

    /// Resigns all virtual routers and returns once each has left: at once when none is active, else
    /// when the successor is heard, within twice the advertisement interval.
    pub fn shutdown(self) {
        let Self { commands, wake, thread } = self;
        // The thread takes the closed channel as the request.
        drop((commands, wake));
        // A panic has aborted the process.
        let _ = thread.join();
    }

    /// `None` when the thread has ended.
    fn ask<T>(&self, command: impl FnOnce(Sender<T>) -> Command) -> Option<T> {
        let (reply, answer) = channel();
        self.commands.send(command(reply)).ok()?;
        // When it is full, the thread has enough to wake up for.
        let _ = (&self.wake).write(&[0]);
        answer.recv().ok()
    }
}

/// Whether this director answers for the VIPs of a virtual router.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// In the states Resuming, Active and Resigning.
    Active,
    /// In all other states, and before the first report.
    Inactive,
}

/// Learns the role of each virtual router. Called on the VRRP thread; must not block.
pub trait Observer: Send {
    /// [`Role::Active`] is reported before the VIPs are added and announced,
    /// [`Role::Inactive`] after they have been removed.
    ///
    /// Moreover [`Vrrp::start`] and [`Vrrp::reconfigure`] end by reporting the role of every virtual
    /// router, those that are still leaving included: the same role may be reported again, and
    /// [`Role::Inactive`] may be the first report. A router that waits for its predecessor of the same
    /// name to leave has the predecessor's role.
    fn role(&mut self, router: &str, role: Role);
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
    /// `initialize`, `backup`, `resuming`, `active` or `resigning`.
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
    /// Advertisements heeded although their list of VIPs differs from ours: the configurations of two
    /// directors do not agree.
    pub other_vips: u64,
    /// Packets not heeded, and what could not be sent or set, by reason.
    pub discarded: BTreeMap<&'static str, u64>,
}

fn cannot_start(cause: impl ToString) -> StartError {
    StartError::Thread(cause.to_string())
}

#[expect(clippy::disallowed_methods, reason = "the one clock that the state machines are fed from")]
fn now() -> Instant {
    Instant::now()
}
