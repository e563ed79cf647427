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

/// A task that keeps a [`View`] of the targets. Ends when it is dropped.
pub struct Follower {
    targets: watch::Sender<Targets>,
    view: watch::Receiver<View>,
    stop: Option<oneshot::Sender<()>>,
    task: Option<JoinHandle<()>>,
}

impl Follower {
    /// Needs a tokio runtime, whose threads are in the director's network namespace.
    pub fn start() -> io::Result<Self> {
        let (kernel, changes) = Kernel::connect()?;
        let (targets, targets_seen) = watch::channel(Targets::default());
        let (view_published, view) = watch::channel(View::new());
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(follow(kernel, changes, targets_seen, view_published, stopped));
        Ok(Self { targets, view, stop: Some(stop), task: Some(task) })
    }

    /// Replaces the targets, and says which of the addresses are new.
    pub fn set_targets(&self, targets: Targets) -> BTreeSet<Ipv4Addr> {
        let mut new = BTreeSet::new();
        self.targets.send_if_modified(|current| {
            new = targets.addresses.difference(&current.addresses).copied().collect();
            let modified = *current != targets;
            *current = targets;
            modified
        });
        new
    }

    /// The state of every target, as far as it is known.
    pub fn view(&self) -> watch::Receiver<View> {
        self.view.clone()
    }

    /// Waits until every one of `addresses` is ready, or off link, or `limit` has passed.
    pub async fn settled(&self, addresses: &BTreeSet<Ipv4Addr>, limit: Duration) {
        let mut view = self.view();
        let settled = view.wait_for(|view| {
            addresses
                .iter()
                .all(|address| !matches!(view.get(address), None | Some(Neighbour::Unresolved)))
        });
        let _ = tokio::time::timeout(limit, settled).await;
    }

    /// Gives the neighbours back to the kernel's own care.
    pub async fn stop(&mut self) {
        self.stop = None;
        if let Some(task) = self.task.take() {
            let _ = task.await;
        }
    }
}

async fn follow(
    mut kernel: Kernel,
    mut changes: kernel::Changes,
    mut targets: watch::Receiver<Targets>,
    view: watch::Sender<View>,
    mut stopped: oneshot::Receiver<()>,
) {
    let mut table = Table::default();
    let mut managed: BTreeSet<(u32, Ipv4Addr)> = BTreeSet::new();
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
