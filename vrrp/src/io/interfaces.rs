//! The interfaces of the network namespace and their IPv4 addresses, at one moment.

use std::{io, net::Ipv4Addr};

use nix::{
    ifaddrs::getifaddrs,
    sys::socket::{LinkAddr, SockaddrStorage},
};

use super::{Vip, address::Addresses};

/// Hardware type of Ethernet (`ARPHRD_ETHER`).
const ETHERNET: u16 = 1;

/// All interfaces, read in one go: how long that takes does not depend on how many virtual routers
/// ask.
pub(super) struct Interfaces {
    links: Vec<(String, LinkAddr)>,
    /// With the index of the interface, in the kernel's order.
    addresses: Vec<(u32, Vip)>,
}

/// An interface that a virtual router can work on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Interface {
    pub(super) index: u32,
    pub(super) link: LinkAddr,
    pub(super) mac: [u8; 6],
    /// Those that are not VIPs, at least one, in the kernel's order.
    pub(super) own: Vec<Vip>,
}

impl Interfaces {
    pub(super) fn read(addresses: &mut Addresses) -> io::Result<Self> {
        // The one address of AF_PACKET that can be had without unsafe code is the kernel's own. IPv4
        // addresses are not taken from here: they come under their label, not the interface's name.
        let links = getifaddrs()?
            .filter_map(|found| {
                let link = found.address.as_ref().and_then(SockaddrStorage::as_link_addr).copied();
                link.map(|link| (found.interface_name, link))
            })
            .collect();
        Ok(Self { links, addresses: addresses.list()? })
    }

    /// The interface `name`, or what is wrong with it. None of `vips` is an address of its own.
    pub(super) fn find(&self, name: &str, vips: &[Ipv4Addr]) -> Result<Interface, String> {
        let link = self.links.iter().find(|(found, _)| found == name).map(|&(_, link)| link);
        let link = link.ok_or("no such interface")?;
        let mac = link
            .addr()
            .filter(|_| link.hatype() == ETHERNET)
            .ok_or_else(|| format!("hardware type {}, expected 1 (Ethernet)", link.hatype()))?;
        let index = u32::try_from(link.ifindex()).map_err(|error| error.to_string())?;
        let own: Vec<_> =
            self.addresses_of(index).filter(|found| !vips.contains(&found.address)).collect();
        if own.is_empty() {
            return Err("no IPv4 address other than VIPs, expected one".into());
        }
        Ok(Interface { index, link, mac, own })
    }

    pub(super) fn addresses_of(&self, index: u32) -> impl Iterator<Item = Vip> {
        self.addresses.iter().filter(move |(on, _)| *on == index).map(|&(_, found)| found)
    }
}
