//! The real datapath, with services as a large installation has them. All that the bench knows of
//! the daemon's own interfaces is here.

use std::{collections::BTreeMap, net::Ipv4Addr, num::NonZeroU16};

use anyhow::Context;
use aya::programs::Xdp;
use lb_daemon::{
    dataplane::Dataplane,
    reconcile::{Capacity, Desired, Hop, Installed, Noted, reconcile},
    service::{Forwarding, Hash, Protocol, RealServer, ServiceAddress, Tracking, VirtualService},
};

pub(super) const VIP: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 100);
pub(super) const TCP_PORT: u16 = 80;
pub(super) const UDP_PORT: u16 = 53;
/// Of the service all of whose slots change hands.
pub(super) const CHANGED_PORT: u16 = 8080;
/// The director's own.
pub(super) const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// Test runs come in by loopback.
const LOOPBACK: u32 = 1;

const SERVICES: u16 = 200;
const REAL_SERVERS: u8 = 100;
const TABLE_SIZE: u32 = 65_537;
/// Of the services that no packet is for.
const OTHER_TABLE_SIZE: u32 = 1_021;

/// The loaded program, and the maps that it reads.
pub(super) struct Director {
    dataplane: Dataplane,
}

impl Director {
    /// # Errors
    ///
    /// Among others: no root.
    pub(super) fn load() -> anyhow::Result<Self> {
        let mut dataplane =
            Dataplane::load(None, Capacity::default()).context("load the datapath")?;
        let mut desired = desired();
        let (ops, installed) = reconcile(&desired, &Installed::default(), &Noted::default())?;
        dataplane.apply(&ops).context("install the services")?;
        give_to_others(&mut desired)?;
        let (ops, _) = reconcile(&desired, &installed, &Noted::default())?;
        dataplane.apply(&ops).context("change the real servers of a service")?;
        Ok(Self { dataplane })
    }

    pub(super) fn program(&self) -> anyhow::Result<&Xdp> {
        Ok(self.dataplane.program()?)
    }

    /// How many packets were forwarded since it was loaded.
    #[cfg(test)]
    pub(super) fn forwarded(&self) -> u64 {
        self.dataplane.verdicts()[lb_ebpf::verdict::Verdict::Forwarded.name()]
    }
}

/// Drains the real servers of one service that have its slots, and gives them to all others.
fn give_to_others(desired: &mut Desired) -> anyhow::Result<()> {
    let changed = desired.services.iter_mut().find(|it| it.address.contains(CHANGED_PORT));
    let changed = changed.context("find the service to change")?;
    for server in &mut changed.real_servers {
        server.weight = 1 - server.weight;
    }
    Ok(())
}

fn desired() -> Desired {
    let pool: Vec<_> = (0..REAL_SERVERS)
        .map(|host| RealServer { address: Ipv4Addr::new(10, 77, 1, host), weight: 1 })
        .collect();
    let neighbours: BTreeMap<_, _> = pool
        .iter()
        .map(|server| {
            let [.., host] = server.address.octets();
            let destination_mac = [2, 0, 0, 0, 1, host];
            (server.address, Hop { ifindex: LOOPBACK, destination_mac, source_mac: MAC })
        })
        .collect();
    let service = |port, protocol, table_size| VirtualService {
        name: format!("{protocol}-{port}"),
        address: ServiceAddress::one(VIP, NonZeroU16::new(port).unwrap_or(NonZeroU16::MIN)),
        protocol,
        forwarding: Forwarding::Dr,
        hash: Hash::Flow,
        table_size,
        tracking: protocol.tracks_by_default().then(|| Tracking::default_for(protocol)),
        real_servers: pool.clone(),
    };
    let mut services = vec![
        service(TCP_PORT, Protocol::Tcp, TABLE_SIZE),
        service(UDP_PORT, Protocol::Udp, TABLE_SIZE),
        service(CHANGED_PORT, Protocol::Tcp, TABLE_SIZE),
    ];
    // One half of them has all slots, so that the other half can take them all.
    for (at, server) in (0..).zip(&mut services[2].real_servers) {
        server.weight = at % 2;
    }
    let others = (10_000..).take(usize::from(SERVICES) - services.len());
    services.extend(others.map(|port| service(port, Protocol::Tcp, OTHER_TABLE_SIZE)));
    Desired { services, routers: BTreeMap::new(), neighbours }
}
