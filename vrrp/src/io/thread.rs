//! The loop of the VRRP thread.

use std::{
    io::{self, Read},
    net::Ipv4Addr,
    os::{fd::AsFd, unix::net::UnixStream},
    process,
    sync::mpsc::{Receiver, Sender, TryRecvError},
    thread,
    time::{Duration, Instant},
};

use nix::{
    poll::{PollFd, PollFlags, ppoll},
    sys::time::TimeSpec,
};
use tracing::error;

use super::{
    Observer, RouterConfig, RouterSnapshot, StartError,
    address::Addresses,
    config,
    instance::{Instance, World},
    interfaces::Interfaces,
    now, realtime,
};
use crate::router::Event;

/// How often to look at what others have done to the interfaces.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(1);

/// A request of [`super::Vrrp`], with where to answer.
pub(super) enum Command {
    Reconfigure(Vec<RouterConfig>, Sender<Result<(), StartError>>),
    Check(Vec<RouterConfig>, Sender<Result<(), StartError>>),
    Snapshot(Sender<Vec<RouterSnapshot>>),
}

pub(super) struct Thread {
    commands: Receiver<Command>,
    /// A byte here says that there is a command.
    woken: UnixStream,
    world: World,
    /// As configured. Some may wait for their predecessor to leave.
    instances: Vec<Instance>,
    /// Shut down, some of them still resigning.
    leaving: Vec<Instance>,
    upkeep_at: Instant,
    shutting_down: bool,
}

impl Thread {
    pub(super) fn open(
        commands: Receiver<Command>,
        woken: UnixStream,
        observer: Box<dyn Observer>,
    ) -> io::Result<Self> {
        Ok(Self {
            commands,
            woken,
            world: World { addresses: Addresses::open()?, observer },
            instances: Vec::new(),
            leaving: Vec::new(),
            upkeep_at: now(),
            shutting_down: false,
        })
    }

    /// Returns once the other end of the channel is gone and every virtual router has left.
    pub(super) fn run(mut self) {
        // Dropped before `self` is: nobody sees a thread without its routers.
        let _abort = AbortOnPanic;
        realtime::enter();
        while !(self.shutting_down && self.leaving.is_empty()) {
            self.wait();
            self.obey();
            // All that was queued when a deadline is found to have passed is read before it counts: a
            // thread that was kept from running must not take its own lateness for the silence of others.
            let woken_at = now();
            for instance in self.instances.iter_mut().chain(&mut self.leaving) {
                instance.receive(&mut self.world);
            }
            for instance in self.instances.iter_mut().chain(&mut self.leaving) {
                if instance.deadline().is_some_and(|deadline| deadline <= woken_at) {
                    instance.handle(Event::Timeout, &mut self.world);
                }
            }
            self.replace();
            // Last, so that no advertisement waits for it.
            if self.upkeep_at <= woken_at {
                self.upkeep_at = woken_at + UPKEEP_INTERVAL;
                self.keep_up();
            }
        }
    }

    /// Until a packet, a command, or the next deadline.
    fn wait(&self) {
        let routers = || self.instances.iter().chain(&self.leaving);
        // Once closed, its end would be reported without end.
        let woken = (!self.shutting_down).then(|| self.woken.as_fd());
        let mut fds: Vec<_> = routers()
            .map(Instance::as_fd)
            .chain(woken)
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
            .collect();
        let timeout = routers()
            .filter_map(Instance::deadline)
            .chain(self.takes_part().then_some(self.upkeep_at))
            .min()
            .map(|deadline| TimeSpec::from_duration(deadline.saturating_duration_since(now())));
        // Interrupted by a signal it returns early, which is harmless.
        let _ = ppoll(&mut fds, timeout, None);
    }

    fn obey(&mut self) {
        let mut bytes = [0; 64];
        // How many there are does not matter, and its end shows in the channel.
        while (&self.woken).read(&mut bytes).is_ok_and(|len| len > 0) {}
        loop {
            // Who no longer waits for an answer needs none.
            match self.commands.try_recv() {
                Ok(Command::Reconfigure(routers, reply)) => {
                    let _ = reply.send(self.reconfigure(routers));
                }
                Ok(Command::Check(routers, reply)) => {
                    let _ = reply.send(self.open_new(&routers).map(drop));
                }
                Ok(Command::Snapshot(reply)) => {
                    let _ = reply.send(self.snapshot());
                }
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => {
                    self.shutting_down = true;
                    let instances = std::mem::take(&mut self.instances);
                    return self.dismiss(instances);
                }
            }
        }
    }

    fn reconfigure(&mut self, routers: Vec<RouterConfig>) -> Result<(), StartError> {
        let opened = self.open_new(&routers)?;
        // From here on nothing can fail.
        let (kept, gone): (Vec<_>, Vec<_>) = std::mem::take(&mut self.instances)
            .into_iter()
            .partition(|i| routers.contains(i.config()));
        self.instances = kept;
        self.instances.extend(opened);
        self.instances.sort_by_key(|i| routers.iter().position(|config| config == i.config()));
        self.dismiss(gone);
        self.replace();
        self.report_roles();
        Ok(())
    }

    /// Opens those of `routers` that do not run as they are, without starting them.
    fn open_new(&mut self, routers: &[RouterConfig]) -> Result<Vec<Instance>, StartError> {
        config::check(routers)?;
        let vips = self.vips_of_all(routers);
        let is_new = |config: &&RouterConfig| !self.instances.iter().any(|i| i.config() == *config);
        routers
            .iter()
            .filter(is_new)
            .map(|config| Instance::open(config.clone(), &vips, &mut self.world.addresses))
            .collect()
    }

    /// All VIPs of now and of then: one that is on an interface now is nobody's primary address.
    fn vips_of_all(&self, routers: &[RouterConfig]) -> Vec<Ipv4Addr> {
        let running = self.instances.iter().chain(&self.leaving).map(Instance::config);
        routers
            .iter()
            .chain(running)
            .flat_map(RouterConfig::all_vips)
            .map(|vip| vip.address)
            .collect()
    }

    fn takes_part(&self) -> bool {
        self.instances.iter().chain(&self.leaving).any(|instance| !instance.is_out())
    }

    fn keep_up(&mut self) {
        if !self.takes_part() {
            return;
        }
        let vips = self.vips_of_all(&[]);
        let interfaces = Interfaces::read(&mut self.world.addresses);
        for instance in self.instances.iter_mut().chain(&mut self.leaving) {
            instance.keep_up(&interfaces, &vips, &mut self.world);
        }
    }

    fn dismiss(&mut self, instances: Vec<Instance>) {
        for mut instance in instances {
            instance.handle(Event::Shutdown, &mut self.world);
            self.leaving.push(instance);
        }
        self.drop_who_has_left();
    }

    /// Drops who has left, and starts who has waited for that.
    fn replace(&mut self) {
        let left = self.drop_who_has_left();
        for instance in self.instances.iter_mut().filter(|instance| !instance.is_started()) {
            if self.leaving.iter().any(|other| in_the_way(other.config(), instance.config())) {
                continue;
            }
            // When nobody took over from its predecessor, it need not wait for anybody either.
            let holding = left.iter().any(|other| {
                other.left_without_successor() && in_the_way(other.config(), instance.config())
            });
            instance.start(holding, &mut self.world);
        }
    }

    fn drop_who_has_left(&mut self) -> Vec<Instance> {
        self.leaving.extract_if(.., |instance| instance.is_out()).collect()
    }

    fn report_roles(&mut self) {
        for instance in one_per_name(&self.instances, &self.leaving) {
            self.world.observer.role(&instance.config().name, instance.role());
        }
    }

    fn snapshot(&self) -> Vec<RouterSnapshot> {
        one_per_name(&self.instances, &self.leaving).into_iter().map(Instance::snapshot).collect()
    }
}

struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            error!("vrrp thread panicked, the process aborts");
            process::abort();
        }
    }
}

/// All of them in configured order, then those that are leaving. One that still waits is represented
/// by its predecessor.
fn one_per_name<'a>(instances: &'a [Instance], leaving: &'a [Instance]) -> Vec<&'a Instance> {
    let mut leaving: Vec<_> = leaving.iter().collect();
    let mut all = Vec::new();
    for instance in instances {
        let predecessor = leaving.iter().position(|other| {
            !instance.is_started() && other.config().name == instance.config().name
        });
        all.push(predecessor.map_or(instance, |at| leaving.remove(at)));
    }
    all.extend(leaving);
    all
}

/// Whether two configurations cannot run side by side.
fn in_the_way(a: &RouterConfig, b: &RouterConfig) -> bool {
    let same_vip =
        || a.all_vips().any(|vip| b.all_vips().any(|other| vip.address == other.address));
    a.name == b.name || (a.interface == b.interface && (a.vrid == b.vrid || same_vip()))
}
