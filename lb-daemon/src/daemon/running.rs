//! What runs: the datapath, the neighbours and the virtual routers of one configuration, and the
//! one path by which a start, a reload and an edit make them those of the next.

use std::{
    collections::BTreeMap,
    io,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::mpsc,
    time::Duration,
};

use tokio::{sync::watch, task::block_in_place};
use tracing::{info, warn};
use vrrp::io::{RouterConfig, RouterSnapshot, Vrrp};

use super::traces::Traces;
use crate::{
    config::Config,
    dataplane::{
        self, ApplyError, AttachError, Dataplane, LoadError, Mode, PinError, RoleError, Roles,
    },
    failover::{GRACE, RoleWriter, Update, router_config},
    neighbour::{self, Follower, Resolver, Targets},
    reconcile::{Capacity, Desired, Installed, MapOp, Noted, TooMany, age, reconcile},
};

/// How long a start or an edit waits for the MAC addresses of new real servers: a neighbour on the
/// link answers within milliseconds.
const RESOLVE_LIMIT: Duration = Duration::from_millis(300);
/// How long a service that was forwarded is so yet when its VIP goes to another virtual router,
/// which has to become active first.
const HANDOVER: Duration = Duration::from_secs(10);

/// Why a configuration cannot run on this machine.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("follow the kernel's neighbours")]
    Neighbours(#[source] io::Error),
    #[error(transparent)]
    Pins(#[from] PinError),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Fit(#[from] TooMany),
    #[error(transparent)]
    Apply(#[from] ApplyError),
    #[error(transparent)]
    Attach(#[from] AttachError),
    #[error(transparent)]
    Roles(#[from] RoleError),
    #[error(transparent)]
    Vrrp(#[from] vrrp::io::StartError),
    #[error(
        "{interface}: XDP runs in {} mode, which cannot change while packets flow; \
         stop lbd and start it again", mode.name()
    )]
    XdpMode { interface: String, mode: Mode },
    #[error("lbd is stopping")]
    Stopping,
}

pub(super) struct Running {
    config: Config,
    state_dir: PathBuf,
    datapath: Option<Datapath>,
    neighbours: Follower,
    /// `None` once stopped.
    vrrp: Option<Vrrp>,
    role_updates: mpsc::Sender<Update>,
    /// What a killed daemon put on the machine, until it is taken over or back.
    left: Traces,
}

/// The kernel's side, and what this daemon knows to be in it.
pub(super) struct Datapath {
    pub(super) kernel: Dataplane,
    pub(super) installed: Installed,
    roles: Roles,
    /// Whether a former daemon left it.
    adopted: bool,
    /// Whether owners or flows of before a change may be remembered.
    pub(super) remembers: bool,
}

impl Running {
    pub(super) async fn start(config: Config, state_dir: &Path) -> Result<Self, StartError> {
        let (role_writer, role_updates) = RoleWriter::new();
        let left = Traces::load(state_dir);
        let nothing =
            Config { virtual_services: vec![], virtual_routers: vec![], ..config.clone() };
        let mut running = Self {
            config: nothing,
            state_dir: state_dir.to_owned(),
            datapath: None,
            neighbours: Follower::start(left.real_servers.clone())
                .map_err(StartError::Neighbours)?,
            vrrp: Some(Vrrp::start(vec![], Box::new(role_writer))?),
            role_updates,
            left: left.clone(),
        };
        resolve(&running.resolver(), &config).await;
        match running.install(&config) {
            Ok(()) => {
                running.config = config;
                // Not before the virtual routers have found them, and gone on with theirs.
                left.remove_vips_except(&Traces::of(&running.config)).await;
                running.left = Traces::default();
                running.remember(&Traces::of(&running.config));
                Ok(running)
            }
            Err(error) => {
                // What a killed daemon left forwards on, as if we had never been.
                if running.datapath.as_ref().is_some_and(|datapath| datapath.adopted) {
                    running.datapath = None;
                }
                running.stop().await;
                Err(error)
            }
        }
    }

    pub(super) fn resolver(&self) -> Resolver {
        self.neighbours.resolver()
    }

    /// Makes `config` what runs, or leaves what ran. Its neighbours should be resolved before.
    pub(super) fn apply(&mut self, config: Config) -> Result<(), StartError> {
        if let Err(error) = self.install(&config) {
            let before = self.config.clone();
            if let Err(again) = self.install(&before) {
                warn!(error = %again, "the former configuration did not come back whole");
            }
            return Err(error);
        }
        self.remember(&Traces::of(&config));
        self.config = config;
        Ok(())
    }

    fn install(&mut self, config: &Config) -> Result<(), StartError> {
        let routers: Vec<_> = config.virtual_routers.iter().map(router_config).collect();
        self.check(config, &routers)?;
        self.remember(&Traces::of(config).and(&Traces::of(&self.config)).and(&self.left));
        if config.virtual_services.is_empty() {
            self.reconfigure_routers(routers)?;
            self.neighbours.set_targets(Targets::default());
            return self.remove_datapath();
        }
        self.neighbours.set_targets(targets(config));
        let view = self.neighbours.view().borrow().clone();
        if self.datapath.is_none() {
            let capacity = Capacity::of(config);
            self.datapath = Some(Datapath::open(&self.state_dir, capacity, &self.role_updates)?);
        }
        if let Some(datapath) = &mut self.datapath {
            block_in_place(|| datapath.reconcile(&desired(config, &view)))?;
            if !datapath.installed.roles.is_empty() {
                // Fails only when the VRRP thread has gone, which its own calls report.
                let indexes = datapath.installed.roles.clone();
                let _ = self.role_updates.send(Update::Indexes(indexes));
            }
            datapath.attach(config)?;
            datapath.kernel.detach_all_but(&config.director.interfaces)?;
        }
        self.reconfigure_routers(routers)
    }

    /// For the next daemon, should this one be killed. That it cannot is no reason not to go on.
    fn remember(&self, traces: &Traces) {
        if let Err(error) = traces.save(&self.state_dir) {
            warn!(%error, "what a kill would leave behind was not written down");
        }
    }

    /// What can be refused is, before anything has changed.
    fn check(&self, config: &Config, routers: &[RouterConfig]) -> Result<(), StartError> {
        let vrrp = self.vrrp.as_ref().ok_or(StartError::Stopping)?;
        block_in_place(|| vrrp.check(routers))?;
        if config.virtual_services.is_empty() {
            return Ok(());
        }
        for interface in &config.director.interfaces {
            dataplane::find_interface(interface)?;
            let attached = self
                .datapath
                .as_ref()
                .and_then(|datapath| datapath.kernel.attached().get(interface));
            if let Some(attached) = attached
                && !attached.mode.fits(config.director.xdp_mode)
            {
                let (interface, mode) = (interface.clone(), attached.mode);
                return Err(StartError::XdpMode { interface, mode });
            }
        }
        Ok(())
    }

    /// Ends with a report of every role to the datapath, whose indexes may be others now.
    fn reconfigure_routers(&self, routers: Vec<RouterConfig>) -> Result<(), StartError> {
        let vrrp = self.vrrp.as_ref().ok_or(StartError::Stopping)?;
        Ok(block_in_place(|| vrrp.reconfigure(routers))?)
    }

    /// Nothing is forwarded any more, nor by what a killed daemon left.
    fn remove_datapath(&mut self) -> Result<(), StartError> {
        match self.datapath.take() {
            Some(datapath) => datapath.kernel.remove()?,
            None => {
                if let Some(left) = dataplane::pins_left_in(&self.state_dir)? {
                    info!("removing the datapath of a former lbd: there is no virtual service");
                    left.remove()?;
                }
            }
        }
        Ok(())
    }

    /// Tells the datapath the MAC addresses that have changed, and attaches it to an interface that
    /// was made anew.
    pub(super) fn refresh_neighbours(&mut self) -> Result<(), StartError> {
        let view = self.neighbours.view().borrow().clone();
        let Some(datapath) = &mut self.datapath else { return Ok(()) };
        block_in_place(|| datapath.reconcile(&desired(&self.config, &view)))?;
        match datapath.attach(&self.config) {
            // Its status says so; it may come back.
            Err(StartError::Attach(AttachError::NoInterface(_))) => Ok(()),
            result => result,
        }
    }

    /// Forgets what has been remembered of a change for long enough.
    pub(super) fn age(&mut self) -> Result<(), StartError> {
        let Some(datapath) = &mut self.datapath else { return Ok(()) };
        let view = self.neighbours.view().borrow().clone();
        block_in_place(|| {
            if datapath.remembers {
                datapath.age(&desired(&self.config, &view))?;
            }
            Ok(datapath.kernel.tidy(&mut datapath.installed)?)
        })
    }

    /// Resigns, waits for the successor, and takes everything back that was put into the kernel.
    pub(super) async fn stop(&mut self) {
        let forwarded = self.datapath.is_some() && self.routers().iter().any(holds_vips);
        if let Some(vrrp) = self.vrrp.take() {
            block_in_place(|| vrrp.shutdown());
        }
        if forwarded {
            tokio::time::sleep(GRACE).await;
        }
        if let Some(datapath) = self.datapath.take()
            && let Err(error) = datapath.kernel.remove()
        {
            warn!(error = %crate::error_chain(&error), "the datapath was not removed");
        }
        self.neighbours.stop().await;
        if self.left == Traces::default() {
            Traces::forget(&self.state_dir);
        }
    }

    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    pub(super) fn datapath(&self) -> Option<&Datapath> {
        self.datapath.as_ref()
    }

    pub(super) fn datapath_mut(&mut self) -> Option<&mut Datapath> {
        self.datapath.as_mut()
    }

    pub(super) fn neighbours(&self) -> watch::Receiver<neighbour::View> {
        self.neighbours.view()
    }

    pub(super) fn routers(&self) -> Vec<RouterSnapshot> {
        self.vrrp.as_ref().map(|vrrp| block_in_place(|| vrrp.snapshot())).unwrap_or_default()
    }
}

impl Datapath {
    fn open(
        state_dir: &Path,
        capacity: Capacity,
        updates: &mpsc::Sender<Update>,
    ) -> Result<Self, StartError> {
        let mut kernel = Dataplane::load(Some(dataplane::pins_in(state_dir)?), capacity)?;
        let installed = kernel.installed()?;
        let adopted = !installed.services.is_empty();
        if adopted {
            info!(services = installed.services.len(), "adopting the datapath of a former lbd");
        }
        let _ = updates.send(Update::Datapath(kernel.roles()?));
        Ok(Self { roles: kernel.roles()?, kernel, installed, adopted, remembers: adopted })
    }

    fn reconcile(&mut self, desired: &Desired) -> Result<(), StartError> {
        let noted = self.noted()?;
        let (ops, next) = reconcile(desired, &self.installed, &noted)?;
        self.bridge_roles(&next)?;
        self.apply(&ops, next)
    }

    fn age(&mut self, desired: &Desired) -> Result<(), StartError> {
        let noted = self.noted()?;
        let (ops, next) = age(desired, &self.installed, &noted);
        let quiet = ops.is_empty()
            && next.tables.values().all(|table| table.generation.is_steady())
            && noted.is_empty();
        self.apply(&ops, next)?;
        // With a margin, or it would be full again at once, and the flows that begin in between
        // without a note.
        if noted.connections.len() < self.installed.capacity.notes / 16 * 15 {
            self.kernel.clear_full()?;
        }
        self.remembers = !quiet;
        Ok(())
    }

    fn noted(&mut self) -> Result<Noted, StartError> {
        if self.remembers {
            Ok(self.kernel.noted(&mut self.installed)?)
        } else {
            Ok(Dataplane::nothing_noted())
        }
    }

    fn apply(&mut self, ops: &[MapOp], next: Installed) -> Result<(), StartError> {
        self.remembers |= next.tables.values().any(|table| !table.generation.is_steady());
        if let Err(error) = self.kernel.apply(ops) {
            // Some operations were carried out: the maps alone know which.
            let roles = self.installed.roles.clone();
            self.installed = Installed { roles, ..self.kernel.installed()? };
            return Err(error.into());
        }
        self.installed = next;
        Ok(())
    }

    /// Until the virtual router that is new to a service has become active, packets of the service
    /// must not reach a kernel that has the VIP and no such socket.
    fn bridge_roles(&mut self, next: &Installed) -> Result<(), StartError> {
        for (key, service) in &next.services {
            let Some(before) = self.installed.services.get(key) else { continue };
            let (old, new) = (before.role, service.role);
            if old != new && self.roles.forwards(old) && !self.roles.forwards(new) {
                self.roles.forward_for(new, HANDOVER)?;
            }
        }
        Ok(())
    }

    /// Attaches to those interfaces of the configuration that it is not attached to.
    fn attach(&mut self, config: &Config) -> Result<(), StartError> {
        for interface in &config.director.interfaces {
            let Some(attached) = self.kernel.attach(interface, config.director.xdp_mode)? else {
                continue;
            };
            let (mode, adopted) = (attached.mode.name(), attached.adopted);
            match &attached.reason {
                None => info!(interface, mode, adopted, "attached the XDP program"),
                Some(reason) => {
                    warn!(
                        interface,
                        mode, reason, "attached the XDP program, several times slower"
                    );
                }
            }
        }
        Ok(())
    }
}

/// A router that resigns holds its VIPs, and its services, until the successor is heard; one that
/// found them in place, until a better one is.
pub(super) fn holds_vips(router: &RouterSnapshot) -> bool {
    matches!(router.state, "active" | "resigning" | "resuming")
}

/// Asks for the MAC addresses that `config` will need. Before it is installed, because a slot must
/// not lead to a real server that cannot be reached only because nobody has asked for it yet; and
/// not under a lock, because that would hold up those who only look.
pub(super) async fn resolve(resolver: &Resolver, config: &Config) {
    if !config.virtual_services.is_empty() {
        resolver.resolve(&targets(config), RESOLVE_LIMIT).await;
    }
}

fn targets(config: &Config) -> Targets {
    Targets {
        addresses: config.real_server_addresses(),
        interfaces: config.director.interfaces.iter().cloned().collect(),
    }
}

fn desired(config: &Config, view: &neighbour::View) -> Desired {
    let routers: BTreeMap<Ipv4Addr, String> = config
        .virtual_routers
        .iter()
        .flat_map(|router| router.all_vips().map(|vip| (vip.address, router.name.clone())))
        .collect();
    Desired {
        services: config.virtual_services.clone(),
        routers,
        neighbours: neighbour::hops(view),
    }
}
