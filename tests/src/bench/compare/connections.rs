//! TCP through each system, on the lab with its bridge: connections per second, and bulk.

use std::{net::SocketAddrV4, time::Duration};

use anyhow::Context;

use super::{
    load::{Servers, Use, measure as load},
    peer::{self, Proxy},
    report::{Spread, System},
};
use crate::{
    bench::Progress,
    director::{Binaries, Director, READY_LIMIT, Settings},
    lab::{CLIENT, Lab, PORT, TARGET, VIP},
};

/// Every system that can carry a connection, in the order of the report.
pub(super) fn measure(binaries: &Binaries, progress: &dyn Progress) -> anyhow::Result<Vec<System>> {
    progress.step("connections: the lab is built");
    let lab = Lab::new().context("build the lab")?;
    let _servers = Servers::start(&lab.real_servers)?;
    let director = &lab.directors[0];
    director.netns.sysctl("net/ipv4/ip_local_port_range", "1024 65535")?;
    let mut systems = Vec::new();

    progress.step("connections: DR");
    {
        let settings =
            Settings { priority: 200, advertisement_interval: Duration::from_millis(100) };
        let mut lbd = Director::new(&lab, director, binaries, settings)?;
        lbd.start()?;
        lbd.wait_ready("active", READY_LIMIT)?;
        systems.push(measured("dr", &lab, TARGET)?);
        lbd.terminate()?;
        lbd.wait_exit(READY_LIMIT)?;
    }
    // Others have no VRRP: the VIP is simply theirs.
    director.netns.ip(&format!("addr replace {VIP}/24 dev eth0"))?;
    // A new owner: nobody's cache may name the old one's MAC address. It is the same one here.
    progress.step("connections: plain forwarding");
    {
        let _routes = Routes::through_the_director(&lab)?;
        let target = SocketAddrV4::new(lab.real_servers[0].address, PORT);
        systems.push(measured("forwarding", &lab, target)?);
        progress.step("connections: nftables DNAT");
        peer::dnat(&director.netns, &peer::spread_rule())?;
        systems.push(measured("nftables-dnat", &lab, TARGET)?);
        peer::remove_dnat(&director.netns)?;
    }
    progress.step("connections: HAProxy in TCP mode");
    {
        let _proxy = Proxy::haproxy(director, lab.dir())?;
        systems.push(measured("haproxy", &lab, TARGET)?);
    }
    progress.step("connections: nginx stream");
    {
        let _proxy = Proxy::nginx_stream(director, lab.dir())?;
        systems.push(measured("nginx-stream", &lab, TARGET)?);
    }
    Ok(systems)
}

fn measured(name: &'static str, lab: &Lab, target: SocketAddrV4) -> anyhow::Result<System> {
    let measured = |what| load(&lab.client, target, what).with_context(|| name.to_owned());
    let gbit = |rates: Vec<f64>| -> Vec<_> { rates.iter().map(|rate| rate * 8e-9).collect() };
    Ok(System {
        name,
        connections_per_second: Spread::of(&measured(Use::Once)?, 0),
        upload_gbit_per_s: Spread::of(&gbit(measured(Use::Upload)?), 2),
        download_gbit_per_s: Spread::of(&gbit(measured(Use::Download)?), 2),
        ..System::default()
    })
}

/// Routes by which client and real servers, neighbours on one bridge, meet through the director.
struct Routes<'lab>(&'lab Lab);

impl<'lab> Routes<'lab> {
    fn through_the_director(lab: &'lab Lab) -> anyhow::Result<Self> {
        let director = &lab.directors[0];
        director.netns.sysctl("net/ipv4/ip_forward", "1")?;
        for interface in ["all", "eth0"] {
            // It would tell them of the shorter way.
            director.netns.sysctl(&format!("net/ipv4/conf/{interface}/send_redirects"), "0")?;
        }
        let routes = Self(lab);
        for server in &lab.real_servers {
            let (client, via) = (&lab.client, director.address);
            client.netns.ip(&format!("route replace {}/32 via {via}", server.address))?;
            server.netns.ip(&format!("route replace {CLIENT}/32 via {via}"))?;
        }
        Ok(routes)
    }
}

impl Drop for Routes<'_> {
    fn drop(&mut self) {
        for server in &self.0.real_servers {
            let _ = self.0.client.netns.ip(&format!("route del {}/32", server.address));
            let _ = server.netns.ip(&format!("route del {CLIENT}/32"));
        }
    }
}
