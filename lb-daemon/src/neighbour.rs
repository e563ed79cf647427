//! Where real servers are on their links: the kernel resolves them, we follow.
//!
//! Every real server is made a *managed* neighbour, which the kernel keeps resolved by itself
//! (Linux 5.16), so that a director that becomes active knows all MAC addresses already.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::Ipv4Addr,
    time::Duration,
};

use tokio::{
    sync::{oneshot, watch},
    task::JoinHandle,
    time::MissedTickBehavior,
};
use tracing::{info, warn};

mod kernel;
mod table;

pub(crate) use table::mac;
pub use table::{Neighbour, View};

use kernel::{Change, Kernel};
use table::Table;

/// How often everything is read anew, in case a notification was lost.
const RESYNC: Duration = Duration::from_secs(5);

/// What to resolve.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Targets {
    pub addresses: BTreeSet<Ipv4Addr>,
    /// Real servers behind others are off link.
    pub interfaces: BTreeSet<String>,
}

/// A task that keeps a [`View`] of the targets.
pub struct Follower {
    resolver: Resolver,
    stop: Option<oneshot::Sender<()>>,
    task: Option<JoinHandle<()>>,
}

/// A handle to ask for neighbours ahead of a change that needs them.
#[derive(Clone)]
pub struct Resolver {
    targets: watch::Sender<Targets>,
    view: watch::Receiver<View>,
}

impl Follower {
    /// Needs a tokio runtime, whose threads are in the director's network namespace. Neighbours
    /// that a killed daemon had managed, `left`, are given back unless they are targets again.
    pub fn start(left: BTreeSet<Ipv4Addr>) -> io::Result<Self> {
        let (kernel, changes) = Kernel::connect()?;
        let (targets, targets_seen) = watch::channel(Targets::default());
        let (view_published, view) = watch::channel(View::new());
        let (stop, stopped) = oneshot::channel();
        let follow = follow(kernel, changes, targets_seen, view_published, left, stopped);
        let task = Some(tokio::spawn(follow));
        Ok(Self { resolver: Resolver { targets, view }, stop: Some(stop), task })
    }

    pub fn resolver(&self) -> Resolver {
        self.resolver.clone()
    }

    pub fn set_targets(&self, targets: Targets) {
        self.resolver.targets.send_if_modified(|current| {
            let modified = *current != targets;
            *current = targets;
            modified
        });
    }

    /// The state of every target, as far as it is known.
    pub fn view(&self) -> watch::Receiver<View> {
        self.resolver.view.clone()
    }

    /// Gives the neighbours back to the kernel's own care.
    pub async fn stop(&mut self) {
        self.stop = None;
        if let Some(task) = self.task.take() {
            let _ = task.await;
        }
    }
}

impl Resolver {
    /// Makes `targets` targets beside those that are, and waits until every new one is ready, or
    /// off link, or `limit` has passed.
    pub async fn resolve(&self, targets: &Targets, limit: Duration) {
        let mut new = BTreeSet::new();
        self.targets.send_if_modified(|current| {
            new = targets.addresses.difference(&current.addresses).copied().collect();
            let before = current.clone();
            current.addresses.extend(&targets.addresses);
            current.interfaces.extend(targets.interfaces.iter().cloned());
            *current != before
        });
        let mut view = self.view.clone();
        let settled = view.wait_for(|view| {
            new.iter()
                .all(|address| !matches!(view.get(address), None | Some(Neighbour::Unresolved)))
        });
        let _ = tokio::time::timeout(limit, settled).await;
    }
}

async fn follow(
    mut kernel: Kernel,
    mut changes: kernel::Changes,
    mut targets: watch::Receiver<Targets>,
    view: watch::Sender<View>,
    left: BTreeSet<Ipv4Addr>,
    mut stopped: oneshot::Receiver<()>,
) {
    let mut table = Table::default();
    read_all(&mut kernel, &mut table, &targets).await;
    let mut managed = table.managed(&left);
    let mut resync = tokio::time::interval(RESYNC);
    resync.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = resync.tick() => read_all(&mut kernel, &mut table, &targets).await,
            _ = &mut stopped => break,
            Ok(()) = targets.changed() => read_all(&mut kernel, &mut table, &targets).await,
            change = changes.next() => match change {
                Some(Change::Neighbour { ifindex, address, entry }) => {
                    table.neighbours.insert((ifindex, address), entry);
                }
                Some(Change::NeighbourGone { ifindex, address }) => {
                    table.neighbours.remove(&(ifindex, address));
                }
                Some(Change::Topology) => read_all(&mut kernel, &mut table, &targets).await,
                None => {
                    warn!("the kernel's neighbour notifications have ended");
                    break;
                }
            },
        }
        let wanted = targets.borrow().clone();
        manage(&mut kernel, &table, &wanted, &mut managed).await;
        publish(&view, table.view(&wanted));
    }
    for (ifindex, address) in managed {
        let _ = kernel.forget(ifindex, address).await;
    }
}

async fn read_all(kernel: &mut Kernel, table: &mut Table, targets: &watch::Receiver<Targets>) {
    let addresses = targets.borrow().addresses.clone();
    match kernel.read(&addresses).await {
        Ok(read) => *table = read,
        Err(error) => warn!(%error, "read the kernel's links, routes and neighbours"),
    }
}

/// Hands the targets to the kernel to keep resolved, again those that it has forgotten, and takes
/// back what is none any more.
async fn manage(
    kernel: &mut Kernel,
    table: &Table,
    targets: &Targets,
    managed: &mut BTreeSet<(u32, Ipv4Addr)>,
) {
    let wanted = table.to_manage(targets);
    let known = |target: &(u32, Ipv4Addr)| table.neighbours.contains_key(target);
    for &(ifindex, address) in
        wanted.iter().filter(|target| !managed.contains(target) || !known(target))
    {
        if let Err(error) = kernel.manage(ifindex, address).await {
            warn!(%address, %error, "have the kernel resolve a real server");
        }
    }
    for &(ifindex, address) in managed.difference(&wanted) {
        let _ = kernel.forget(ifindex, address).await; // it may be gone with its link
    }
    *managed = wanted;
}

fn publish(view: &watch::Sender<View>, next: View) {
    view.send_if_modified(|current| {
        for (address, neighbour) in &next {
            if current.get(address) != Some(neighbour) {
                info!(%address, %neighbour, "real server's neighbour");
            }
        }
        let modified = *current != next;
        *current = next;
        modified
    });
}

/// The neighbours that are ready, as the datapath wants them.
pub fn hops(view: &View) -> BTreeMap<Ipv4Addr, crate::reconcile::Hop> {
    view.iter()
        .filter_map(|(&address, neighbour)| match neighbour {
            Neighbour::Ready { hop, .. } => Some((address, *hop)),
            Neighbour::Unresolved | Neighbour::OffLink => None,
        })
        .collect()
}
