//! Three hosts and two cables: client, director, server. No bridge, so that all CPU time is that
//! of sending, forwarding and receiving.

use std::{net::Ipv4Addr, path::Path};

use anyhow::Context;
use tempfile::TempDir;

use crate::{
    leftovers,
    netns::{Netns, PREFIX},
};

pub(super) const VIP: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 100);
/// The host at the other end of the client's cable: what DR forwards goes back over that, as the
/// program sends by the interface that it received from.
pub(super) const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 11);
/// The host that routed packets go to.
pub(super) const SERVER: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 11);
pub(super) const DIRECTOR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// The director's interfaces.
pub(super) const TO_CLIENT: &str = "eth0";
const TO_SERVER: &str = "eth1";

/// Everything is removed when dropped.
pub(super) struct Cable {
    pub(super) client: Netns,
    pub(super) director: Netns,
    pub(super) server: Netns,
    dir: TempDir,
}

impl Cable {
    pub(super) fn new() -> anyhow::Result<Self> {
        let prefix = format!("{PREFIX}-{}-", std::process::id());
        let cable = Self {
            client: Netns::new("client")?,
            director: Netns::new("director")?,
            server: Netns::new("server")?,
            dir: tempfile::Builder::new().prefix(&prefix).tempdir().context("make a directory")?,
        };
        cable.plug(&cable.client, TO_CLIENT, &format!("{CLIENT}/24"), "10.77.0.2/24")?;
        cable.plug(&cable.server, TO_SERVER, &format!("{SERVER}/24"), "10.78.0.1/24")?;
        let director = &cable.director;
        director.ip("link set eth0 address 02:00:00:00:00:01")?;
        // Nobody's: the server drops what it receives as soon as it can tell.
        let nobody = "lladdr 02:00:00:00:00:ff nud permanent";
        director.ip(&format!("neigh replace {SERVER} {nobody} dev {TO_SERVER}"))?;
        director.sysctl("net/ipv4/ip_forward", "1")?;
        for interface in ["all", TO_CLIENT] {
            // The clients of a benchmark are behind no interface.
            director.sysctl(&format!("net/ipv4/conf/{interface}/rp_filter"), "0")?;
        }
        Ok(cable)
    }

    /// For files that live as long as the cables.
    pub(super) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Packets that the server's interface has received.
    pub(super) fn received(&self) -> anyhow::Result<u64> {
        let mut command = std::process::Command::new("ip");
        let output = self.server.run(command.args(["-s", "-j", "link", "show", "eth0"]))?;
        let links: serde_json::Value =
            serde_json::from_slice(&output.stdout).context("read what ip says")?;
        let packets = links.pointer("/0/stats64/rx/packets").and_then(serde_json::Value::as_u64);
        packets.context("ip does not tell the received packets")
    }

    /// `host` has `eth0`; the director's end is `interface`.
    fn plug(&self, host: &Netns, interface: &str, of: &str, its: &str) -> anyhow::Result<()> {
        let (name, director) = (host.name(), &self.director);
        director.ip(&format!("link add {interface} type veth peer name eth0 netns {name}"))?;
        for (netns, interface, address) in [(host, "eth0", of), (director, interface, its)] {
            netns.ip(&format!("addr add {address} dev {interface}"))?;
            netns.ip(&format!("link set {interface} up"))?;
        }
        Ok(())
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        leftovers::remove_dir(self.dir.path());
    }
}
