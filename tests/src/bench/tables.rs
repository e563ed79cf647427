//! What a change of real servers costs the daemon: a table built and published, and many services
//! loaded at once.

use std::{
    fmt::Write as _,
    net::Ipv4Addr,
    num::NonZeroU16,
    time::{Duration, Instant},
};

use anyhow::Context;
use lb_daemon::{
    dataplane::Dataplane,
    maglev::Table,
    reconcile::{Capacity, Desired, Installed, Noted, reconcile},
    service::{
        Forwarding, Hash, Ports, Protocol, RealServer, ServiceAddress, Tracking, VirtualService,
    },
};
use serde::Serialize;

const ROUNDS: usize = 21;
const LARGE_POOL: u32 = 1000;
const LARGE_TABLE: u32 = 65_537;
const MANY_SERVICES: u32 = 10_000;
const SMALL_POOL: u32 = 10;
const SMALL_TABLE: u32 = 1_021;
/// Services of one VIP: its ports from here on.
const FIRST_PORT: u32 = 1024;

/// Milliseconds are least, median and most of some rounds.
#[derive(Clone, Debug, Serialize)]
pub struct TableReport {
    pub slots: u32,
    pub real_servers: u32,
    pub build_ms: [f64; 3],
    /// From the table built to the service that names it.
    pub publish_ms: [f64; 3],
    /// Of 1,000 services over that one pool.
    pub shared_tables: usize,
    pub services: u32,
    /// From nothing to all services forwarded, each with a pool of its own.
    pub load_ms: f64,
    /// Bytes that the kernel accounts to the maps then, and with one service.
    pub memory_bytes: u64,
    pub memory_bytes_of_one: u64,
}

/// Some seconds; needs root.
pub fn measure() -> anyhow::Result<TableReport> {
    let (publish, shared_tables) = publish()?;
    let (load, memory_bytes) = load(MANY_SERVICES)?;
    Ok(TableReport {
        slots: LARGE_TABLE,
        real_servers: LARGE_POOL,
        build_ms: spread(build()),
        publish_ms: spread(publish),
        shared_tables,
        services: MANY_SERVICES,
        load_ms: milliseconds(load),
        memory_bytes,
        memory_bytes_of_one: load_one()?,
    })
}

pub(super) fn describe(report: &TableReport) -> String {
    let mut text = format!("\n{:<48}{:>8} {:>8} {:>8}\n", "tables, in ms", "min", "median", "max");
    let mut row = |what: String, [min, median, max]: [f64; 3]| {
        let _ = writeln!(text, "{what:<48}{min:>8.2} {median:>8.2} {max:>8.2}");
    };
    let TableReport { slots, real_servers, services, .. } = report;
    row(format!("build {slots} slots for {real_servers} real servers"), report.build_ms);
    row("publish it: filled, and named by its service".to_owned(), report.publish_ms);
    let _ = writeln!(
        text,
        "1000 services over one pool have {} table{}.\n{services} services of {SMALL_POOL} real \
         servers each, {SMALL_TABLE} slots: loaded in {:.1} s, {:.1} MiB of maps (one service: \
         {:.1} MiB).",
        report.shared_tables,
        if report.shared_tables == 1 { "" } else { "s" },
        report.load_ms / 1000.0,
        mebibytes(report.memory_bytes),
        mebibytes(report.memory_bytes_of_one),
    );
    text
}

fn build() -> Vec<Duration> {
    let pool = pool(0, LARGE_POOL);
    let round = |_| {
        let started = Instant::now();
        std::hint::black_box(Table::new(&pool, LARGE_TABLE));
        started.elapsed()
    };
    (0..ROUNDS).map(round).collect()
}

/// One real server gets another weight, again and again; and how many tables 1,000 services with
/// one pool have.
fn publish() -> anyhow::Result<(Vec<Duration>, usize)> {
    let mut dataplane = Dataplane::load(None, Capacity::default()).context("load the datapath")?;
    let mut installed = Installed::default();
    let services = (0..1000).map(|at| service(at, pool(0, LARGE_POOL), LARGE_TABLE)).collect();
    let mut desired = Desired { services, ..Desired::default() };
    let mut times = Vec::new();
    for round in 0..=ROUNDS {
        for service in &mut desired.services {
            service.real_servers[0].weight = if round % 2 == 0 { 1 } else { 2 };
        }
        let (ops, next) = reconcile(&desired, &installed, &Noted::default())?;
        let started = Instant::now();
        dataplane.apply(&ops).context("publish a table")?;
        if round > 0 {
            times.push(started.elapsed());
        }
        installed = next;
        dataplane.tidy(&mut installed).context("make ready for the next change")?;
    }
    Ok((times, installed.tables.len()))
}

fn load(services: u32) -> anyhow::Result<(Duration, u64)> {
    let started = Instant::now();
    let room = services as usize;
    let capacity = Capacity::with_room(room, room.min(3000) * SMALL_POOL as usize, 65_536);
    let mut dataplane = Dataplane::load(None, capacity).context("load the datapath")?;
    let own_pool = |at| service(at, pool(at % 3000 * SMALL_POOL, SMALL_POOL), SMALL_TABLE);
    let services = (0..services).map(own_pool).collect();
    let desired = Desired { services, ..Desired::default() };
    let (ops, installed) = reconcile(&desired, &Installed::default(), &Noted::default())?;
    dataplane.apply(&ops).context("install the services")?;
    Ok((started.elapsed(), dataplane.memory(&installed).total()))
}

fn load_one() -> anyhow::Result<u64> {
    Ok(load(1)?.1)
}

fn service(at: u32, real_servers: Vec<RealServer>, table_size: u32) -> VirtualService {
    let (vip, port) = (at / 30_000, at % 30_000);
    let port = u16::try_from(FIRST_PORT + port).ok().and_then(NonZeroU16::new);
    VirtualService {
        name: format!("service-{at}"),
        address: ServiceAddress {
            vip: Ipv4Addr::from(0x0a4d_0064 + vip),
            ports: port.map_or(Ports::Any, Ports::One),
        },
        protocol: Protocol::Tcp,
        forwarding: Forwarding::Dr,
        hash: Hash::Flow,
        table_size,
        tracking: Some(Tracking::default_for(Protocol::Tcp)),
        real_servers,
    }
}

fn pool(first: u32, real_servers: u32) -> Vec<RealServer> {
    let address = |at| Ipv4Addr::from(0x0b00_0000 + first + at);
    (0..real_servers).map(|at| RealServer { address: address(at), weight: 1 }).collect()
}

fn spread(mut times: Vec<Duration>) -> [f64; 3] {
    times.sort();
    let at = |index: usize| times.get(index).copied().map_or(0.0, milliseconds);
    [at(0), at(times.len() / 2), at(times.len().saturating_sub(1))]
}

/// To the hundredth.
fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 100_000.0).round() / 100.0
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
