//! What a virtual router has opened on its interface, for the interface as it was then.

use std::net::Ipv4Addr;

use super::{
    RouterConfig, StartError, Vip, announce::Announcer, interfaces::Interface, socket::VrrpSocket,
};
use crate::filter::{Filter, Subnet};

pub(super) struct Attachment {
    pub(super) interface: Interface,
    /// Where our advertisements come from.
    pub(super) primary: Ipv4Addr,
    pub(super) filter: Filter,
    pub(super) socket: VrrpSocket,
    pub(super) announcer: Announcer,
}

impl Attachment {
    /// `primary` is kept as long as the interface has it; otherwise it is the first of its own.
    pub(super) fn open(
        config: &RouterConfig,
        interface: Interface,
        primary: Option<Ipv4Addr>,
    ) -> Result<Self, StartError> {
        let own = || interface.own.iter().map(|own| own.address);
        let primary = primary
            .filter(|primary| own().any(|own| own == *primary))
            .or_else(|| own().next())
            .ok_or_else(|| config.error("no IPv4 address, expected one"))?;
        let socket = VrrpSocket::open(&config.interface, interface.index, primary)
            .map_err(|error| config.error(format!("socket for IP protocol 112: {error}")))?;
        let announcer = Announcer::open(interface.link, interface.mac)
            .map_err(|error| config.error(format!("socket for gratuitous ARP: {error}")))?;
        let filter = Filter {
            vrid: config.vrid,
            own: primary,
            subnets: interface.own.iter().copied().map(subnet).collect(),
            vips: config.vips.iter().map(|vip| vip.address).collect(),
        };
        Ok(Self { interface, primary, filter, socket, announcer })
    }
}

fn subnet(own: Vip) -> Subnet {
    Subnet { address: own.address, prefix_len: own.prefix_len }
}
