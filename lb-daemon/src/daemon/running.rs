//! What runs: the datapath, the neighbours and the virtual routers of one configuration, and the
//! one path by which a start, a reload and an edit make them those of the next.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::mpsc,
    time::Duration,
};

use tokio::{sync::watch, task::block_in_place};
use tracing::{info, warn};
use vrrp::io::{RouterSnapshot, Vrrp};

use crate::{
    config::Config,
    dataplane::{self, ApplyError, AttachError, Dataplane, LoadError, PinError, RoleError, Roles},
    failover::{RoleWriter, Update, router_config},
    neighbour::{self, Follower, Targets},
    reconcile::{Desired, Installed, TooMany, reconcile},
};

/// How long a start or an edit waits for the MAC addresses of new real servers.
const RESOLVE_LIMIT: Duration = Duration::from_secs(1);
/// How long the datapath goes on as a killed daemon left it, until VRRP has said what it is now.
const ADOPTION_GRACE: Duration = Duration::from_secs(10);

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
}

pub(super) struct Running {
    config: Config,
    state_dir: PathBuf,
    datapath: Option<Datapath>,
    neighbours: Follower,
    /// `None` until the datapath is ready for it.
    vrrp: Option<Vrrp>,
    role_updates: mpsc::Sender<Update>,
    role_writer: Option<RoleWriter>,
}

/// The kernel's side, and what this daemon knows to be in it.
pub(super) struct Datapath {
    pub(super) kernel: Dataplane,
    pub(super) installed: Installed,
    roles: Roles,
}

impl Running {
    pub(super) async fn start(config: Config, state_dir: &Path) -> Result<Self, StartError> {
        let neighbours = Follower::start().map_err(StartError::Neighbours)?;
        let (role_writer, role_updates) = RoleWriter::new();
        let empty = Config { virtual_services: vec![], virtual_routers: vec![], ..config.clone() };
        let mut running = Self {
            config: empty,
            state_dir: state_dir.to_owned(),
            datapath: None,
            neighbours,
            vrrp: None,
            role_updates,
            role_writer: Some(role_writer),
        };
        match running.install(&config).await {
            Ok(()) => {
                running.config = config;
                Ok(running)
            }
            Err(error) => {
                running.stop().await;
                Err(error)
            }
        }
    }

    /// Makes `config` what runs, or leaves what ran.
    pub(super) async fn apply(&mut self, config: Config) -> Result<(), StartError> {
        if let Err(error) = self.install(&config).await {
            let before = self.config.clone();
            if let Err(again) = self.install(&before).await {
                warn!(error = %again, "the former configuration did not come back whole");
            }
            return Err(error);
        }
        self.config = config;
        Ok(())
    }

    async fn install(&mut self, config: &Config) -> Result<(), StartError> {
        if self.datapath.is_none() && !config.virtual_services.is_empty() {
            self.datapath = Some(Datapath::open(&self.state_dir, &self.role_updates)?);
        }
        if self.datapath.is_some() {
            // MAC addresses first: a slot must not lead to a real server that cannot be reached
            // only because nobody has asked for it yet.
            self.neighbours.set_targets(targets(config));
            self.neighbours.settled(RESOLVE_LIMIT).await;
        }
        let view = self.neighbours.view().borrow().clone();
        if let Some(datapath) = &mut self.datapath {
            datapath.reconcile(&desired(config, &view))?;
            let roles = datapath.installed.roles.clone();
            // Fails only when the VRRP thread has gone, which its own calls report.
            let _ = self.role_updates.send(Update::Indexes(roles));
            datapath.attach(config)?;
        }
        self.install_routers(config)
    }

    fn install_routers(&mut self, config: &Config) -> Result<(), StartError> {
        let routers = config.virtual_routers.iter().map(router_config).collect();
        match (&self.vrrp, self.role_writer.take()) {
            (Some(vrrp), _) => block_in_place(|| vrrp.reconfigure(routers))?,
            (None, Some(writer)) => self.vrrp = Some(Vrrp::start(routers, Box::new(writer))?),
            (None, None) => {}
        }
        self.catch_up_roles()
    }

    /// A virtual router that was active before the datapath knew its role reports nothing new.
    fn catch_up_roles(&mut self) -> Result<(), StartError> {
        for active in [true, false] {
            let routers = self.routers();
            let Some(datapath) = &mut self.datapath else { return Ok(()) };
            for router in routers {
                let Some(&role) = datapath.installed.roles.get(&router.name) else { continue };
                let forwards = datapath.kernel.forwards(role);
                // Once more after the write: the thread may have left the state meanwhile.
                match (active, holds_vips(&router), forwards) {
                    (true, true, false) => datapath.roles.activate(role)?,
                    (false, false, true) => datapath.roles.deactivate(role, ADOPTION_GRACE)?,
                    (true, true, true) | (false, true, _) | (_, false, _) => {}
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
    pub(super) async fn stop(self) {
        if let Some(vrrp) = self.vrrp {
            block_in_place(|| vrrp.shutdown());
        }
        if let Some(datapath) = self.datapath
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
        let pins = dataplane::pins_in(state_dir)?;
        let kernel = Dataplane::load(Some(pins))?;
        let installed = kernel.installed()?;
        let mut roles = kernel.roles()?;
        // A router that is not active any more must not be forwarded for ever.
        let left: BTreeSet<u32> = installed
            .services
            .values()
            .map(|service| service.value.role)
            .filter(|&role| role != lb_ebpf::abi::ALWAYS && kernel.forwards(role))
            .collect();
        for role in left {
            roles.deactivate(role, ADOPTION_GRACE)?;
        }
        if !installed.services.is_empty() {
            info!(services = installed.services.len(), "adopted the datapath of a former lbd");
        }
        let _ = updates.send(Update::Datapath(kernel.roles()?));
        Ok(Self { kernel, installed, roles })
    }

    fn reconcile(&mut self, desired: &Desired) -> Result<(), StartError> {
        let (ops, next) = reconcile(desired, &self.installed)?;
        if let Err(error) = self.kernel.apply(&ops) {
            // Some operations were carried out: the maps alone know which.
            let roles = self.installed.roles.clone();
            self.installed = Installed { roles, ..self.kernel.installed()? };
            return Err(error.into());
        }
        self.installed = next;
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

/// A router that resigns holds its VIPs, and its services, until the successor is heard.
pub(super) fn holds_vips(router: &RouterSnapshot) -> bool {
    matches!(router.state, "active" | "resigning")
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
