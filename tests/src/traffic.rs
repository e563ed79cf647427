//! The load of the client: many checked connections at once, and new ones all the time.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddrV4},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::{
    sync::watch,
    task::{JoinSet, LocalSet},
    time::{MissedTickBehavior, interval, sleep, timeout},
};

use crate::{
    connection::{Failure, Finished, Plan, Progress, carry, open},
    director::READY_LIMIT,
    interrupt::wait_for,
    lab::{Host, Lab, TARGET},
    report::{Connections, NewConnections},
};

/// Between two blocks of a long-lived connection, in each direction.
const PACE: Duration = Duration::from_millis(100);
/// Between two new connections.
const NEW_EVERY: Duration = Duration::from_millis(10);
/// A new connection that has not done its job after this has failed: three lost SYNs.
const NEW_LIMIT: Duration = Duration::from_secs(10);
/// A long-lived connection that has not finished this long after it was told to has timed out.
const FINISH_LIMIT: Duration = Duration::from_secs(15);
/// Half of the connections upload much and download little, half the other way.
const HEAVY: usize = 2_000;
const LIGHT: usize = 100;
/// Faults quoted in full; the rest is only counted.
const FAULTS_SHOWN: usize = 8;

/// The traffic, in a thread of its own in the client's namespace.
pub struct Load {
    shared: Arc<Shared>,
    finish: watch::Sender<bool>,
    thread: Option<JoinHandle<anyhow::Result<LoadReport>>>,
}

/// What every connection had sent at a moment.
pub struct Mark(Vec<u64>);

/// What became of the connections.
#[derive(Debug, Default)]
pub struct LoadReport {
    pub connections: Connections,
    pub new_connections: NewConnections,
    pub longest_stall: Duration,
    /// Connections, long-lived and new, by the real server that carried them.
    pub by_real_server: BTreeMap<String, u64>,
    /// The addresses of the client as the real servers saw them.
    pub clients_seen: BTreeSet<Ipv4Addr>,
    /// For a person; the first few.
    pub faults: Vec<String>,
}

struct Shared {
    target: SocketAddrV4,
    progress: Vec<Progress>,
    established: AtomicUsize,
    /// Why the first connection that did not come about did not.
    refused: Mutex<Option<String>>,
}

impl LoadReport {
    /// For tests: whether every connection, old and new, has lived to its end.
    pub fn ensure_unbroken(&self) -> anyhow::Result<()> {
        let Self { connections, new_connections, .. } = self;
        ensure!(
            connections.opened > 0
                && connections.survived == connections.opened
                && new_connections.succeeded == new_connections.attempted,
            "connections were broken: {self:?}"
        );
        Ok(())
    }
}

impl Load {
    /// Starts `connections` long-lived connections from `client` to `target`.
    pub fn start(client: &Host, target: SocketAddrV4, connections: usize) -> anyhow::Result<Self> {
        allow_descriptors().context("raise the limit of open files")?;
        let shared = Arc::new(Shared {
            target,
            progress: std::iter::repeat_with(Progress::default).take(connections).collect(),
            established: AtomicUsize::new(0),
            refused: Mutex::new(None),
        });
        let (finish, finished) = watch::channel(false);
        let thread = client.netns.spawn_thread("load", {
            let shared = Arc::clone(&shared);
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                Ok(LocalSet::new().block_on(&runtime, run(shared, finished)))
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
        let load = Self::start(&lab.client, TARGET, connections)?;
        load.wait_established(READY_LIMIT)?;
        Ok(load)
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

async fn run(shared: Arc<Shared>, mut finish: watch::Receiver<bool>) -> LoadReport {
    let mut long_lived = JoinSet::new();
    for index in 0..shared.progress.len() {
        long_lived.spawn_local(long_lived_connection(Arc::clone(&shared), index, finish.clone()));
    }
    let mut new = JoinSet::new();
    let mut report = LoadReport::default();
    let mut ticks = interval(NEW_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut next_id = shared.progress.len() as u64;
    loop {
        tokio::select! {
            _ = finish.wait_for(|finish| *finish) => break,
            _ = ticks.tick() => {
                // Until all long-lived ones are there, a new one would only be in their way.
                if shared.established.load(Ordering::Relaxed) == shared.progress.len() {
                    new.spawn_local(new_connection(shared.target, next_id));
                    next_id += 1;
                }
            }
            Some(result) = new.join_next() => report.add_new(flatten(result)),
        }
    }
    for result in long_lived.join_all().await {
        report.add_long_lived(result);
    }
    while let Some(result) = new.join_next().await {
        report.add_new(flatten(result));
    }
    report
}

type Outcome = Result<Finished, Failure>;

fn flatten(result: Result<Outcome, tokio::task::JoinError>) -> Outcome {
    result.unwrap_or_else(|error| Err(Failure::Reset(error.to_string())))
}

/// `None`: it never was a connection.
async fn long_lived_connection(
    shared: Arc<Shared>,
    index: usize,
    finish: watch::Receiver<bool>,
) -> Option<Outcome> {
    let (upload_block, download_block) =
        if index.is_multiple_of(2) { (HEAVY, LIGHT) } else { (LIGHT, HEAVY) };
    let plan = Plan {
        connection: index as u64,
        upload_block,
        download_block: u32::try_from(download_block).unwrap_or(u32::MAX),
        pace: PACE,
    };
    // Spread over the pace, as independent clients are.
    sleep(PACE.mul_f64(index as f64 / shared.progress.len() as f64)).await;
    let stream = match timeout(NEW_LIMIT, open(shared.target)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(failure)) => return shared.refuse(failure.to_string()),
        Err(_) => return shared.refuse(format!("no answer within {NEW_LIMIT:?}")),
    };
    shared.established.fetch_add(1, Ordering::Relaxed);
    let too_late = {
        let mut finish = finish.clone();
        async move {
            let _ = finish.wait_for(|finish| *finish).await;
            sleep(FINISH_LIMIT).await;
        }
    };
    Some(tokio::select! {
        outcome = carry(stream, plan, &shared.progress[index], finish) => outcome,
        () = too_late => {
            let progress = &shared.progress[index];
            let confirmed = progress.confirmed.load(Ordering::Relaxed);
            let sent = progress.sent.load(Ordering::Relaxed);
            Err(Failure::TimedOut(format!("connection {index}: {confirmed} of {sent} bytes confirmed")))
        }
    })
}

/// Opens, sends a block each way, and closes.
async fn new_connection(target: SocketAddrV4, connection: u64) -> Outcome {
    let plan = Plan { connection, upload_block: HEAVY, download_block: 2_000, pace: PACE };
    let (_finish, finished) = watch::channel(true);
    timeout(NEW_LIMIT, async {
        carry(open(target).await?, plan, &Progress::default(), finished).await
    })
    .await
    .unwrap_or_else(|_| Err(Failure::TimedOut(format!("new connection after {NEW_LIMIT:?}"))))
}

impl Shared {
    fn refuse(&self, why: String) -> Option<Outcome> {
        self.refused.lock().expect("no holder panics").get_or_insert(why);
        None
    }
}

impl LoadReport {
    fn add_long_lived(&mut self, outcome: Option<Outcome>) {
        let Some(outcome) = outcome else { return };
        let count = &mut self.connections;
        count.opened += 1;
        match &outcome {
            Ok(finished) => {
                count.survived += 1;
                self.longest_stall = self.longest_stall.max(finished.longest_stall);
            }
            Err(Failure::Reset(_)) => count.reset += 1,
            Err(Failure::TimedOut(_)) => count.timed_out += 1,
            Err(Failure::Corrupted(_)) => count.corrupted += 1,
        }
        self.add(outcome);
    }

    fn add_new(&mut self, outcome: Outcome) {
        self.new_connections.attempted += 1;
        self.new_connections.succeeded += u64::from(outcome.is_ok());
        self.add(outcome);
    }

    fn add(&mut self, outcome: Outcome) {
        match outcome {
            Ok(Finished { trailer, .. }) => {
                *self.by_real_server.entry(trailer.real_server).or_default() += 1;
                self.clients_seen.insert(trailer.client);
            }
            Err(failure) if self.faults.len() < FAULTS_SHOWN => {
                self.faults.push(failure.to_string())
            }
            Err(_) => {}
        }
    }
}
