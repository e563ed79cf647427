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

use crate::{
    config::Config,
    dataplane::{
        self, ApplyError, AttachError, Dataplane, LoadError, Mode, PinError, RoleError, Roles,
    },
    failover::{GRACE, RoleWriter, Update, router_config},
    neighbour::{self, Follower, Targets},
    reconcile::{Desired, Installed, TooMany, reconcile},
};

/// How long a start or an edit waits for the MAC addresses of new real servers.
const RESOLVE_LIMIT: Duration = Duration::from_secs(1);
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
}

/// The kernel's side, and what this daemon knows to be in it.
pub(super) struct Datapath {
    pub(super) kernel: Dataplane,
    pub(super) installed: Installed,
    roles: Roles,
    /// Whether a former daemon left it.
    adopted: bool,
}

impl Running {
    pub(super) async fn start(config: Config, state_dir: &Path) -> Result<Self, StartError> {
        let (role_writer, role_updates) = RoleWriter::new();
        let nothing =
            Config { virtual_services: vec![], virtual_routers: vec![], ..config.clone() };
        let mut running = Self {
            config: nothing,
            state_dir: state_dir.to_owned(),
            datapath: None,
            neighbours: Follower::start().map_err(StartError::Neighbours)?,
            vrrp: Some(Vrrp::start(vec![], Box::new(role_writer))?),
            role_updates,
        };
        match running.install(&config, RESOLVE_LIMIT).await {
            Ok(()) => {
                running.config = config;
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

    /// Makes `config` what runs, or leaves what ran.
    pub(super) async fn apply(&mut self, config: Config) -> Result<(), StartError> {
        if let Err(error) = self.install(&config, RESOLVE_LIMIT).await {
            let before = self.config.clone();
            if let Err(again) = self.install(&before, Duration::ZERO).await {
                warn!(error = %again, "the former configuration did not come back whole");
            }
            return Err(error);
        }
        self.config = config;
        Ok(())
    }

    async fn install(&mut self, config: &Config, resolve: Duration) -> Result<(), StartError> {
        let routers: Vec<_> = config.virtual_routers.iter().map(router_config).collect();
        self.check(config, &routers)?;
        if config.virtual_services.is_empty() {
            self.reconfigure_routers(routers)?;
            self.neighbours.set_targets(Targets::default());
            return self.remove_datapath();
        }
        // MAC addresses first: a slot must not lead to a real server that cannot be reached only
        // because nobody has asked for it yet.
        let new = self.neighbours.set_targets(targets(config));
        self.neighbours.settled(&new, resolve).await;
        let view = self.neighbours.view().borrow().clone();
        if self.datapath.is_none() {
            self.datapath = Some(Datapath::open(&self.state_dir, &self.role_updates)?);
        }
        if let Some(datapath) = &mut self.datapath {
            block_in_place(|| datapath.reconcile(&desired(config, &view)))?;
            if !datapath.installed.roles.is_empty() {
                // Fails only when the VRRP thread has gone, which its own calls report.
                let indexes = datapath.installed.roles.clone();
                let _ = self.role_updates.send(Update::Indexes(indexes));
            }
            datapath.attach(config)?;
        }
        self.reconfigure_routers(routers)
    }

    /// What can be refused is, before anything has changed.
    fn check(&self, config: &Config, routers: &[RouterConfig]) -> Result<(), StartError> {
        let vrrp = self.vrrp.as_ref().ok_or(StartError::Stopping)?;
        block_in_place(|| vrrp.check(routers))?;
        if config.virtual_services.is_empty() {
            return Ok(());
        }
        for interface in &config.director.interfaces {
            dataplane::check_interface(interface)?;
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

    /// Tells the datapath the MAC addresses that have changed.
    pub(super) fn refresh_neighbours(&mut self) -> Result<(), StartError> {
        let view = self.neighbours.view().borrow().clone();
        match &mut self.datapath {
            Some(datapath) => datapath.reconcile(&desired(&self.config, &view)),
            None => Ok(()),
        }
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
    }

    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    pub(super) fn datapath(&self) -> Option<&Datapath> {
        self.datapath.as_ref()
    }

    pub(super) fn neighbours(&self) -> watch::Receiver<neighbour::View> {
        self.neighbours.view()
    }

    pub(super) fn routers(&self) -> Vec<RouterSnapshot> {
        self.vrrp.as_ref().map(|vrrp| block_in_place(|| vrrp.snapshot())).unwrap_or_default()
    }
}

impl Datapath {
    fn open(state_dir: &Path, updates: &mpsc::Sender<Update>) -> Result<Self, StartError> {
        let kernel = Dataplane::load(Some(dataplane::pins_in(state_dir)?))?;
        let installed = kernel.installed()?;
        let adopted = !installed.services.is_empty();
        if adopted {
            info!(services = installed.services.len(), "adopting the datapath of a former lbd");
        }
        let _ = updates.send(Update::Datapath(kernel.roles()?));
        Ok(Self { roles: kernel.roles()?, kernel, installed, adopted })
    }

    fn reconcile(&mut self, desired: &Desired) -> Result<(), StartError> {
        let (ops, next) = reconcile(desired, &self.installed)?;
        self.bridge_roles(&next)?;
        if let Err(error) = self.kernel.apply(&ops) {
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
            let (old, new) = (before.value.role, service.value.role);
            if old != new && self.roles.forwards(old) && !self.roles.forwards(new) {
                self.roles.forward_for(new, HANDOVER)?;
            }
        }
        Ok(())
    }

    /// Attaches to the interfaces of the configuration and to no others.
    fn attach(&mut self, config: &Config) -> Result<(), StartError> {
        for interface in &config.director.interfaces {
            if self.kernel.attached().contains_key(interface) {
                continue;
            }
            let attached = self.kernel.attach(interface, config.director.xdp_mode)?;
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
        self.kernel.detach_all_but(&config.director.interfaces)?;
        Ok(())
    }
}

/// A router that resigns holds its VIPs, and its services, until the successor is heard; one that
/// found them in place, until a better one is.
pub(super) fn holds_vips(router: &RouterSnapshot) -> bool {
    matches!(router.state, "active" | "resigning" | "resuming")
}

fn targets(config: &Config) -> Targets {
    let addresses = config
        .virtual_services
        .iter()
        .flat_map(|service| service.real_servers.iter().map(|server| server.address))
        .collect();
    Targets { addresses, interfaces: config.director.interfaces.iter().cloned().collect() }
}

fn desired(config: &Config, view: &neighbour::View) -> Desired {
    let routers: BTreeMap<Ipv4Addr, String> = config
        .virtual_routers
        .iter()
        .flat_map(|router| {
            let vips = router.vips.iter().chain(&router.more_vips);
            vips.map(|vip| (vip.address, router.name.clone()))
        })
        .collect();
    Desired {
        services: config.virtual_services.clone(),
        routers,
        neighbours: neighbour::hops(view),
    }
}
