//! What is known of links, routes and neighbours, and what follows for the targets. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::Ipv4Addr,
};

use super::Targets;
use crate::reconcile::Hop;

/// The state of every target.
pub type View = BTreeMap<Ipv4Addr, Neighbour>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Neighbour {
    Ready {
        hop: Hop,
        interface: String,
    },
    /// It has not answered.
    Unresolved,
    /// No route through an interface of the director, or only through a gateway.
    OffLink,
}

impl fmt::Display for Neighbour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready { hop, interface } => {
                write!(f, "{} on {interface}", mac(hop.destination_mac))
            }
            Self::Unresolved => f.write_str("unresolved"),
            Self::OffLink => f.write_str("off link"),
        }
    }
}

/// A MAC address as people write it.
pub(crate) fn mac([a, b, c, d, e, f]: [u8; 6]) -> String {
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
}

/// The part of the kernel's tables that matters here.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// By index.
    pub(super) links: BTreeMap<u32, Link>,
    /// The interface of each address that is directly reachable.
    pub(super) routes: BTreeMap<Ipv4Addr, u32>,
    pub(super) neighbours: BTreeMap<(u32, Ipv4Addr), Entry>,
}

/// An entry of the kernel's neighbour table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Where there is one that the kernel would use.
    pub(super) mac: Option<[u8; 6]>,
    /// Set by the administrator: nothing to resolve, and not ours to change.
    pub(super) fixed: bool,
    /// Kept resolved by the kernel, because somebody asked for it.
    pub(super) managed: bool,
}

#[derive(Debug)]
pub(super) struct Link {
    pub(super) name: String,
    pub(super) mac: [u8; 6],
}

impl Table {
    /// The targets that are on a link of the director, with its index.
    pub(super) fn on_link(&self, targets: &Targets) -> BTreeSet<(u32, Ipv4Addr)> {
        targets
            .addresses
            .iter()
            .filter_map(|&address| {
                let ifindex = *self.routes.get(&address)?;
                let link = self.links.get(&ifindex)?;
                targets.interfaces.contains(&link.name).then_some((ifindex, address))
            })
            .collect()
    }

    /// Those of them that the kernel is to resolve.
    pub(super) fn to_manage(&self, targets: &Targets) -> BTreeSet<(u32, Ipv4Addr)> {
        let mut wanted = self.on_link(targets);
        wanted.retain(|target| !self.neighbours.get(target).is_some_and(|entry| entry.fixed));
        wanted
    }

    /// Those of `addresses` that are managed.
    pub(super) fn managed(&self, addresses: &BTreeSet<Ipv4Addr>) -> BTreeSet<(u32, Ipv4Addr)> {
        self.neighbours
            .iter()
            .filter(|((_, address), entry)| entry.managed && addresses.contains(address))
            .map(|(&target, _)| target)
            .collect()
    }

    pub(super) fn view(&self, targets: &Targets) -> View {
        let on_link = self.on_link(targets);
        let mut view: View =
            targets.addresses.iter().map(|&address| (address, Neighbour::OffLink)).collect();
        for (ifindex, address) in on_link {
            view.insert(address, self.neighbour(ifindex, address));
        }
        view
    }

    fn neighbour(&self, ifindex: u32, address: Ipv4Addr) -> Neighbour {
        match (self.links.get(&ifindex), self.neighbours.get(&(ifindex, address))) {
            (Some(link), Some(&Entry { mac: Some(destination_mac), .. })) => Neighbour::Ready {
                hop: Hop { ifindex, destination_mac, source_mac: link.mac },
                interface: link.name.clone(),
            },
            (None, _) | (_, None | Some(Entry { mac: None, .. })) => Neighbour::Unresolved,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_real_server_is_ready_only_on_a_link_of_the_director() {
        let table = Table {
            links: [(2, "eth0", 9), (3, "mgmt", 8)]
                .map(|(index, name, mac)| (index, Link { name: name.to_owned(), mac: [mac; 6] }))
                .into(),
            routes: [(address(11), 2), (address(12), 2), (address(13), 3)].into(),
            neighbours: [
                ((2, address(11)), entry(Some([1; 6]), true)),
                ((2, address(12)), entry(None, false)),
                ((3, address(13)), entry(Some([3; 6]), false)),
            ]
            .into(),
        };
        let targets = Targets {
            addresses: (11..=14).map(address).collect(),
            interfaces: ["eth0".to_owned()].into(),
        };
        let view: Vec<_> =
            table.view(&targets).values().map(|neighbour| neighbour.to_string()).collect();
        assert_eq!(view, ["01:01:01:01:01:01 on eth0", "unresolved", "off link", "off link"]);
        assert_eq!(table.on_link(&targets), [(2, address(11)), (2, address(12))].into());
        assert_eq!(
            table.to_manage(&targets),
            [(2, address(12))].into(),
            "11 is the administrator's"
        );
    }

    fn entry(mac: Option<[u8; 6]>, fixed: bool) -> Entry {
        Entry { mac, fixed, managed: false }
    }

    fn address(host: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, 0, host)
    }
}
