//! The load of the client: many checked connections at once, and new ones all the time.

use std::{
    net::SocketAddrV4,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, SystemTime},
};

use anyhow::{Context, bail};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::{
    sync::watch,
    task::{JoinSet, LocalSet},
    time::{MissedTickBehavior, interval, sleep, timeout},
};

use crate::{
    connection::{Failure, Plan, Progress, carry, open},
    director::READY_LIMIT,
    interrupt::wait_for,
    lab::{Host, Lab, TARGET},
};

mod outcome;
mod shape;

use outcome::Outcome;
pub use outcome::{Life, LoadReport};
pub use shape::Shape;

/// A new connection that has not done its job after this has failed: three lost SYNs.
const NEW_LIMIT: Duration = Duration::from_secs(10);
/// A long-lived connection that has not finished this long after it was told to has timed out.
const FINISH_LIMIT: Duration = Duration::from_secs(15);
/// Half of the connections upload much and download little, half the other way.
const HEAVY: usize = 2_000;
const LIGHT: usize = 100;

/// The traffic, in a thread of its own in the client's namespace.
pub struct Load {
    shared: Arc<Shared>,
    finish: watch::Sender<bool>,
    thread: Option<JoinHandle<anyhow::Result<LoadReport>>>,
}

/// What every connection had sent at a moment.
pub struct Mark(Vec<u64>);

struct Shared {
    target: SocketAddrV4,
    shape: Shape,
    /// By place: one for each long-lived connection.
    progress: Vec<Progress>,
    established: AtomicUsize,
    /// The number of the next connection.
    next: AtomicU64,
    ended: Mutex<LoadReport>,
    /// Why the first connection that did not come about did not.
    refused: Mutex<Option<String>>,
}

impl Load {
    /// Starts `connections` long-lived connections from `client` to `target`.
    pub fn start(client: &Host, target: SocketAddrV4, connections: usize) -> anyhow::Result<Self> {
        Self::start_as(client, target, Shape::new(connections))
    }

    pub fn start_as(client: &Host, target: SocketAddrV4, shape: Shape) -> anyhow::Result<Self> {
        allow_descriptors().context("raise the limit of open files")?;
        let shared = Arc::new(Shared {
            target,
            shape,
            progress: std::iter::repeat_with(Progress::default).take(shape.connections).collect(),
            established: AtomicUsize::new(0),
            next: AtomicU64::new(0),
            ended: Mutex::default(),
            refused: Mutex::new(None),
        });
        let (finish, finished) = watch::channel(false);
        let thread = client.netns.spawn_thread("load", {
            let shared = Arc::clone(&shared);
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                LocalSet::new().block_on(&runtime, run(Arc::clone(&shared), finished));
                let mut ended = shared.ended.lock().expect("no holder panics");
                Ok(std::mem::take(&mut *ended))
            }
        })?;
        Ok(Self { shared, finish, thread: Some(thread) })
    }

    /// Waits until every long-lived connection has carried a first block there and back.
    pub fn wait_established(&self, limit: Duration) -> anyhow::Result<()> {
        wait_for("open the connections", limit, || {
            if let Some(why) = &*self.shared.refused.lock().expect("no holder panics") {
                bail!("open the connections to {}: {why}", self.shared.target);
            }
            let moving = self.moving_since(&Mark(vec![0; self.shared.progress.len()]));
            let all = self.shared.progress.len();
            Ok(if moving == all { Ok(()) } else { Err(format!("{moving} of {all} carry data")) })
        })
    }

    /// For tests: a load from the lab's client to its VIP, established when this returns.
    pub fn established(lab: &Lab, connections: usize) -> anyhow::Result<Self> {
        Self::established_as(lab, Shape::new(connections))
    }

    pub fn established_as(lab: &Lab, shape: Shape) -> anyhow::Result<Self> {
        let load = Self::start_as(&lab.client, TARGET, shape)?;
        load.wait_established(READY_LIMIT)?;
        Ok(load)
    }

    /// How many long-lived connections `real_server` has now.
    pub fn carried_by(&self, real_server: &str) -> usize {
        let places = self.shared.progress.iter();
        places.filter(|place| place.real_server().as_deref() == Some(real_server)).count()
    }

    /// Long-lived connections that have broken so far.
    pub fn broken(&self) -> Vec<Life> {
        let ended = self.shared.ended.lock().expect("no holder panics");
        ended.long_lived.iter().filter(|life| life.failure.is_some()).cloned().collect()
    }

    /// Short connections that have ended so far.
    pub fn new_so_far(&self) -> Vec<Life> {
        self.shared.ended.lock().expect("no holder panics").new.clone()
    }

    /// For tests: waits until every connection has had something confirmed after `mark`.
    pub fn wait_all_moving(&self, mark: &Mark) -> anyhow::Result<()> {
        let all = self.shared.progress.len();
        wait_for("all connections to move", READY_LIMIT, || {
            let moving = self.moving_since(mark);
            Ok(if moving == all { Ok(()) } else { Err(format!("{moving} of {all} do")) })
        })
    }

    pub fn mark(&self) -> Mark {
        Mark(self.shared.progress.iter().map(|one| one.sent.load(Ordering::Relaxed)).collect())
    }

    /// How many connections have had something confirmed that was sent after `mark`.
    pub fn moving_since(&self, mark: &Mark) -> usize {
        let confirmed =
            self.shared.progress.iter().map(|one| one.confirmed.load(Ordering::Relaxed));
        confirmed.zip(&mark.0).filter(|(confirmed, sent)| *confirmed > **sent).count()
    }

    /// Ends all connections in order, and judges them.
    pub fn finish(mut self) -> anyhow::Result<LoadReport> {
        self.finish.send_replace(true);
        let Some(thread) = self.thread.take() else { bail!("the load has ended already") };
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for Load {
    /// Without `finish` nobody wants to know: the thread ends by itself, within its limits.
    fn drop(&mut self) {
        self.finish.send_replace(true);
    }
}

/// Client and real servers are one process, and a connection is a descriptor for each.
fn allow_descriptors() -> nix::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
}

async fn run(shared: Arc<Shared>, mut finish: watch::Receiver<bool>) {
    let mut long_lived = JoinSet::new();
    for place in 0..shared.progress.len() {
        long_lived.spawn_local(long_lived_connections(Arc::clone(&shared), place, finish.clone()));
    }
    let mut new = JoinSet::new();
    let mut ticks = interval(shared.shape.new_every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            _ = finish.wait_for(|finish| *finish) => break,
            _ = ticks.tick() => {
                // Until all long-lived ones are there, a new one would only be in their way.
                if shared.established.load(Ordering::Relaxed) == shared.progress.len() {
                    new.spawn_local(new_connection(Arc::clone(&shared)));
                }
            }
            Some(_) = new.join_next() => {}
        }
    }
    long_lived.join_all().await;
    new.join_all().await;
}

/// The connections that have one place, one after the other.
async fn long_lived_connections(shared: Arc<Shared>, place: usize, finish: watch::Receiver<bool>) {
    // Spread over the pace, as independent clients are.
    sleep(shared.shape.pace.mul_f64(place as f64 / shared.progress.len() as f64)).await;
    let mut is_first = true;
    loop {
        let opened = SystemTime::now();
        let Some(outcome) = long_lived_connection(&shared, place, is_first, finish.clone()).await
        else {
            return;
        };
        is_first = false;
        let broken = outcome.is_err();
        let real_server = shared.progress[place].real_server();
        shared.progress[place].forget_real_server();
        let life = Life { opened, ended: SystemTime::now(), real_server, failure: None };
        shared.ended.lock().expect("no holder panics").add_long_lived(life, outcome);
        if !broken || !shared.shape.replace_broken || *finish.borrow() {
            return;
        }
    }
}

/// `None`: it never was a connection, though it should have been there from the start.
async fn long_lived_connection(
    shared: &Shared,
    place: usize,
    is_first: bool,
    finish: watch::Receiver<bool>,
) -> Option<Outcome> {
    let refused = |failure: Failure| {
        if is_first { shared.refuse(failure.to_string()) } else { Some(Err(failure)) }
    };
    let stream = match timeout(NEW_LIMIT, open(shared.target)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(failure)) => return refused(failure),
        Err(_) => return refused(Failure::TimedOut(format!("no answer within {NEW_LIMIT:?}"))),
    };
    if is_first {
        shared.established.fetch_add(1, Ordering::Relaxed);
    }
    let progress = &shared.progress[place];
    let before = progress.sent.load(Ordering::Relaxed);
    let too_late = {
        let mut finish = finish.clone();
        async move {
            let _ = finish.wait_for(|finish| *finish).await;
            sleep(FINISH_LIMIT).await;
        }
    };
    Some(tokio::select! {
        outcome = carry(stream, shared.plan(place), progress, finish) => outcome,
        () = too_late => {
            let confirmed = progress.confirmed.load(Ordering::Relaxed).saturating_sub(before);
            let sent = progress.sent.load(Ordering::Relaxed) - before;
            Err(Failure::TimedOut(format!("place {place}: {confirmed} of {sent} bytes confirmed")))
        }
    })
}

/// Opens, sends a block each way, and closes.
async fn new_connection(shared: Arc<Shared>) {
    let plan = Plan {
        connection: shared.next_number(),
        upload_block: HEAVY,
        download_block: 2_000,
        pace: shared.shape.pace,
        silence: None,
    };
    let (_finish, finished) = watch::channel(true);
    let progress = Progress::default();
    let opened = SystemTime::now();
    let outcome = timeout(NEW_LIMIT, async {
        carry(open(shared.target).await?, plan, &progress, finished).await
    })
    .await
    .unwrap_or_else(|_| Err(Failure::TimedOut(format!("new connection after {NEW_LIMIT:?}"))));
    let real_server = progress.real_server();
    let life = Life { opened, ended: SystemTime::now(), real_server, failure: None };
    shared.ended.lock().expect("no holder panics").add_new(life, outcome);
}

impl Shared {
    fn plan(&self, place: usize) -> Plan {
        let (upload_block, download_block) =
            if place.is_multiple_of(2) { (HEAVY, LIGHT) } else { (LIGHT, HEAVY) };
        let silent = self.shape.silent.filter(|(one_of, _)| place.is_multiple_of(*one_of));
        Plan {
            connection: self.next_number(),
            upload_block,
            download_block: u32::try_from(download_block).unwrap_or(u32::MAX),
            pace: self.shape.pace,
            silence: silent.map(|(_, silence)| silence),
        }
    }

    fn next_number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    fn refuse(&self, why: String) -> Option<Outcome> {
        self.refused.lock().expect("no holder panics").get_or_insert(why);
        None
    }
}
