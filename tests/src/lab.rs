//! The standard LAN: a client, two directors and four real servers on one bridge.
//!
//! Every packet in it is complete: transmit offloads are off, so that no checksum is left for
//! hardware that does not exist, and a capture anywhere may be judged in full.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::{AsRawFd, OwnedFd},
    path::Path,
    process::Command,
};

use anyhow::Context;
use nix::{
    ifaddrs::getifaddrs,
    sys::socket::{AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, sendto, socket},
};
use tempfile::TempDir;

use crate::{
    leftovers,
    netns::{Netns, PREFIX},
    xdp_pass::XdpPass,
};

pub const VIP: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 100);
/// The TCP port of the virtual service, and so (DSR) of the real servers.
pub const PORT: u16 = 80;
/// The virtual service.
pub const TARGET: SocketAddrV4 = SocketAddrV4::new(VIP, PORT);
/// The real servers that the virtual service has at first.
pub const POOL: [Ipv4Addr; 3] =
    [Ipv4Addr::new(10, 77, 0, 11), Ipv4Addr::new(10, 77, 0, 12), Ipv4Addr::new(10, 77, 0, 13)];
/// One that is ready to be added.
pub const SPARE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 14);
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const DIRECTORS: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 77, 0, 2), Ipv4Addr::new(10, 77, 0, 3)];

/// A host on the LAN. Its interface is `eth0`; its port of the bridge is named after the host.
pub struct Host {
    pub name: &'static str,
    pub address: Ipv4Addr,
    pub netns: Netns,
}

impl Host {
    fn new(name: &'static str, address: Ipv4Addr) -> anyhow::Result<Self> {
        let netns = Netns::new(name).with_context(|| format!("make the namespace of {name}"))?;
        Ok(Self { name, address, netns })
    }

    /// Fixed, so that an answer tells who gave it, and that a host keeps it over a reboot.
    pub fn mac(&self) -> Mac {
        let [a, b, c, d] = self.address.octets();
        Mac([0x02, 0x00, a, b, c, d])
    }

    /// Sends a whole Ethernet frame, as it is, out of `eth0`.
    pub fn send_frame(&self, frame: &[u8]) -> anyhow::Result<()> {
        self.netns
            .enter(|| FrameSender::open()?.send(frame))?
            .with_context(|| format!("send a frame from {}", self.name))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

impl std::fmt::Display for Mac {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, c, d, e, f] = self.0;
        write!(out, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

/// Everything is removed when dropped.
pub struct Lab {
    pub client: Host,
    pub directors: [Host; 2],
    /// Those of [`POOL`], and [`SPARE`].
    pub real_servers: [Host; 4],
    /// The bridge `br0` with a port per host.
    pub switch: Netns,
    dir: WorkDir,
}

impl Lab {
    pub fn new() -> anyhow::Result<Self> {
        anyhow::ensure!(
            nix::unistd::geteuid().is_root(),
            "network namespaces need root; run it as root or with sudo"
        );
        let ([lb1, lb2], [rs1, rs2, rs3]) = (DIRECTORS, POOL);
        let lab = Self {
            client: Host::new("client", CLIENT)?,
            directors: [Host::new("lb1", lb1)?, Host::new("lb2", lb2)?],
            real_servers: [
                Host::new("rs1", rs1)?,
                Host::new("rs2", rs2)?,
                Host::new("rs3", rs3)?,
                Host::new("rs4", SPARE)?,
            ],
            switch: Netns::new("switch")?,
            dir: WorkDir::new()?,
        };
        lab.make_bridge().context("make the bridge")?;
        for host in lab.hosts() {
            lab.plug(host).with_context(|| format!("plug {} in", host.name))?;
        }
        for host in &lab.real_servers {
            hold_vip_silently(&host.netns)?;
        }
        // Short connections are opened for as long as the lab lives, each from a port of its own.
        lab.client.netns.sysctl("net/ipv4/ip_local_port_range", "1024 65535")?;
        Ok(lab)
    }

    pub fn hosts(&self) -> impl Iterator<Item = &Host> {
        std::iter::once(&self.client).chain(&self.directors).chain(&self.real_servers)
    }

    /// The name of who has this address on the LAN.
    pub fn name_of(&self, mac: Mac) -> Option<&'static str> {
        self.hosts().find(|host| host.mac() == mac).map(|host| host.name)
    }

    /// For files that live as long as the lab.
    pub fn dir(&self) -> &Path {
        self.dir.0.path()
    }

    /// Native XDP on a director's `eth0`: what its far end needs. Detached when dropped.
    pub fn allow_native_xdp(&self, director: &Host) -> anyhow::Result<XdpPass> {
        XdpPass::attach(&self.switch, director.name)
    }

    /// A new cable and a new network card: no address, neighbour or XDP program survives.
    pub fn replug(&self, host: &Host) -> anyhow::Result<()> {
        self.switch.ip(&format!("link del {}", host.name))?;
        self.plug(host).with_context(|| format!("plug {} in again", host.name))
    }

    fn make_bridge(&self) -> anyhow::Result<()> {
        self.switch.ip("link add br0 type bridge mcast_snooping 0")?;
        // Where it exists it is on by default, in new namespaces too, and sends what is bridged
        // through iptables.
        if Path::new("/proc/sys/net/bridge/bridge-nf-call-iptables").exists() {
            self.switch.sysctl("net/bridge/bridge-nf-call-iptables", "0")?;
        }
        self.switch.ip("link set br0 up")
    }

    fn plug(&self, host: &Host) -> anyhow::Result<()> {
        let (port, netns, mac) = (host.name, host.netns.name(), host.mac());
        self.switch
            .ip(&format!("link add {port} type veth peer name eth0 address {mac} netns {netns}"))?;
        for (netns, interface) in [(&self.switch, port), (&host.netns, "eth0")] {
            // A veth hands packets on with their checksums unfinished; XDP_TX sends those as they are.
            netns.run(Command::new("ethtool").args(["-K", interface, "tx", "off"]))?;
        }
        self.switch.ip(&format!("link set {port} master br0 up"))?;
        host.netns.ip(&format!("addr add {}/24 dev eth0", host.address))?;
        host.netns.ip("link set eth0 up")
    }
}

/// Sends whole Ethernet frames out of `eth0` of the namespace that it was opened in.
pub(crate) struct FrameSender {
    socket: OwnedFd,
    eth0: LinkAddr,
}

impl FrameSender {
    pub(crate) fn open() -> nix::Result<Self> {
        let eth0 = getifaddrs()?
            .filter(|interface| interface.interface_name == "eth0")
            .find_map(|interface| interface.address?.as_link_addr().copied())
            .ok_or(nix::Error::ENODEV)?;
        let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)?;
        Ok(Self { socket, eth0 })
    }

    pub(crate) fn send(&self, frame: &[u8]) -> nix::Result<()> {
        sendto(self.socket.as_raw_fd(), frame, &self.eth0, MsgFlags::empty()).map(drop)
    }
}

/// DSR: the real server accepts packets to the VIP, but never says that it has it.
fn hold_vip_silently(netns: &Netns) -> anyhow::Result<()> {
    netns.sysctl("net/ipv4/conf/all/arp_ignore", "1")?;
    netns.sysctl("net/ipv4/conf/all/arp_announce", "2")?;
    netns.ip(&format!("addr add {VIP}/32 dev lo"))
}

/// A directory under which a daemon may mount.
struct WorkDir(TempDir);

impl WorkDir {
    fn new() -> anyhow::Result<Self> {
        let prefix = format!("{PREFIX}-{}-", std::process::id());
        tempfile::Builder::new().prefix(&prefix).tempdir().map(Self).context("make a directory")
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        leftovers::remove_dir(self.0.path());
    }
}
