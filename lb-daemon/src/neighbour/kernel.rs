//! The kernel's side of it, by rtnetlink.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, Ipv4Addr},
};

use futures_util::{Stream, StreamExt, TryStreamExt};
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    link::LinkAttribute,
    neighbour::{
        NeighbourAddress, NeighbourAttribute, NeighbourExtFlags, NeighbourMessage, NeighbourState,
    },
    route::{RouteAttribute, RouteMessage, RouteType},
};
use rtnetlink::{Error, Handle, MulticastGroup, RouteMessageBuilder};

use super::table::{Entry, Link, Table};

pub(super) struct Kernel(Handle);

/// What the kernel tells unasked.
pub(super) enum Change {
    Neighbour {
        ifindex: u32,
        address: Ipv4Addr,
        entry: Entry,
    },
    /// The kernel has forgotten a neighbour: its link went down, or somebody deleted it.
    NeighbourGone {
        ifindex: u32,
        address: Ipv4Addr,
    },
    /// A link or a route, or notifications were lost: read everything anew.
    Topology,
}

pub(super) struct Changes(
    Box<dyn Stream<Item = NetlinkMessage<RouteNetlinkMessage>> + Send + Unpin>,
);

impl Changes {
    pub(super) async fn next(&mut self) -> Option<Change> {
        loop {
            if let Some(change) = change(self.0.next().await?) {
                return Some(change);
            }
        }
    }
}

impl Kernel {
    pub(super) fn connect() -> io::Result<(Self, Changes)> {
        let (connection, handle, messages) = rtnetlink::new_multicast_connection(&[
            MulticastGroup::Link,
            MulticastGroup::Neigh,
            MulticastGroup::Ipv4Route,
        ])?;
        tokio::spawn(connection);
        Ok((Self(handle), Changes(Box::new(messages.map(|(message, _)| message)))))
    }

    /// All links and neighbours, and the routes of `addresses`.
    pub(super) async fn read(&mut self, addresses: &BTreeSet<Ipv4Addr>) -> Result<Table, Error> {
        let mut table = Table::default();
        let mut links = self.0.link().get().execute();
        while let Some(link) = links.try_next().await? {
            let (mut name, mut mac) = (None, [0; 6]);
            for attribute in link.attributes {
                if let LinkAttribute::IfName(found) = attribute {
                    name = Some(found);
                } else if let LinkAttribute::Address(bytes) = attribute {
                    mac = bytes.try_into().unwrap_or([0; 6]);
                }
            }
            if let Some(name) = name {
                table.links.insert(link.header.index, Link { name, mac });
            }
        }
        let mut neighbours =
            self.0.neighbours().get().set_address_family(AddressFamily::Inet).execute();
        while let Some(message) = neighbours.try_next().await? {
            if let Some((ifindex, address, entry)) = neighbour(&message) {
                table.neighbours.insert((ifindex, address), entry);
            }
        }
        for &address in addresses {
            if let Some(ifindex) = self.on_link_route(address).await? {
                table.routes.insert(address, ifindex);
            }
        }
        Ok(table)
    }

    /// The interface by which the kernel reaches the address without a gateway.
    async fn on_link_route(&mut self, address: Ipv4Addr) -> Result<Option<u32>, Error> {
        let request =
            RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(address, 32).build();
        let mut answers = self.0.route().get(request).execute();
        match answers.try_next().await {
            Ok(Some(route)) => Ok(on_link_interface(&route)),
            Ok(None) | Err(Error::NetlinkError(_)) => Ok(None), // unreachable
            Err(error) => Err(error),
        }
    }

    /// Has the kernel resolve the neighbour, and keep it so.
    pub(super) async fn manage(&mut self, ifindex: u32, address: Ipv4Addr) -> Result<(), Error> {
        let mut request = self
            .0
            .neighbours()
            .add(ifindex, IpAddr::V4(address))
            .state(NeighbourState::None)
            .replace();
        let message = request.message_mut();
        message.attributes.push(NeighbourAttribute::ExtFlags(NeighbourExtFlags::Managed));
        request.execute().await
    }

    /// Deletes the neighbour; the kernel resolves it anew when it needs it.
    pub(super) async fn forget(&mut self, ifindex: u32, address: Ipv4Addr) -> Result<(), Error> {
        let message = self.0.neighbours().add(ifindex, IpAddr::V4(address)).message_mut().clone();
        self.0.neighbours().del(message).execute().await
    }
}

fn on_link_interface(route: &RouteMessage) -> Option<u32> {
    let mut interface = None;
    for attribute in &route.attributes {
        if let RouteAttribute::Oif(index) = attribute {
            interface = Some(*index);
        } else if matches!(attribute, RouteAttribute::Gateway(_) | RouteAttribute::Via(_)) {
            return None;
        }
    }
    interface.filter(|_| route.header.kind == RouteType::Unicast)
}

fn change(message: NetlinkMessage<RouteNetlinkMessage>) -> Option<Change> {
    match message.payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNeighbour(message)) => {
            let (ifindex, address, entry) = neighbour(&message)?;
            Some(Change::Neighbour { ifindex, address, entry })
        }
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelNeighbour(message)) => {
            let (ifindex, address, _) = neighbour(&message)?;
            Some(Change::NeighbourGone { ifindex, address })
        }
        NetlinkPayload::InnerMessage(_) | NetlinkPayload::Overrun(_) => Some(Change::Topology),
        NetlinkPayload::Done(_) | NetlinkPayload::Error(_) | NetlinkPayload::Noop | _ => None,
    }
}

fn neighbour(message: &NeighbourMessage) -> Option<(u32, Ipv4Addr, Entry)> {
    let (mut address, mut mac, mut managed) = (None, None, false);
    for attribute in &message.attributes {
        if let NeighbourAttribute::Destination(NeighbourAddress::Inet(found)) = attribute {
            address = Some(*found);
        } else if let NeighbourAttribute::LinkLayerAddress(bytes) = attribute {
            mac = bytes.as_slice().try_into().ok();
        } else if let NeighbourAttribute::ExtFlags(flags) = attribute {
            managed = flags.contains(NeighbourExtFlags::Managed);
        }
    }
    // Stale is not wrong: the address was right when it was last needed, and the kernel checks it.
    let usable = matches!(
        message.header.state,
        NeighbourState::Reachable
            | NeighbourState::Stale
            | NeighbourState::Delay
            | NeighbourState::Probe
            | NeighbourState::Permanent
            | NeighbourState::Noarp
    );
    let fixed = matches!(message.header.state, NeighbourState::Permanent | NeighbourState::Noarp);
    Some((message.header.ifindex, address?, Entry { mac: mac.filter(|_| usable), fixed, managed }))
}
