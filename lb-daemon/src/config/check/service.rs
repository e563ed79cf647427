//! `[[virtual-service]]` and its real servers.

use std::{collections::BTreeMap, net::Ipv4Addr};

use toml::Spanned;

use super::{Seen, all, earlier, unique_name};
use crate::{
    config::{raw::Section, value},
    service::{
        DEFAULT_TABLE_SIZE, DEFAULT_WEIGHT, Forwarding, Protocol, RealServer, VirtualService,
    },
};

/// A service whose own keys are checked and whose real servers are not yet.
pub(super) struct Checked<'a> {
    /// Without real servers; `None` after a fault.
    service: Option<VirtualService>,
    vip: Option<Ipv4Addr>,
    real_servers: Vec<Section<'a>>,
}

pub(super) fn check<'a>(mut section: Section<'a>, seen: &mut Seen) -> Checked<'a> {
    let faults = section.faults;
    let name = section.required("name", value::name);
    let address = section.required("address", value::service_address);
    let protocol = section.optional("protocol", value::protocol, Protocol::Tcp);
    let forwarding = section.optional("forwarding", value::forwarding, Forwarding::Dr);
    let table_size = section.optional("table-size", value::table_size, DEFAULT_TABLE_SIZE);
    let real_servers = section.sections("real-server");

    unique_name(&section, &mut seen.service_names, name.as_ref());
    if let (Some(address), Some(protocol)) = (&address, &protocol) {
        let key = (*address.get_ref(), *protocol.get_ref());
        if let Some(first) = earlier(&mut seen.service_addresses, key, &section.path) {
            let problem = format!("{}/{} is already {first}", key.0, key.1);
            faults.add(address.span(), &section.field("address"), problem);
        }
    }
    let vip = address.as_ref().map(|address| *address.get_ref().ip());
    if let Some(vip) = vip {
        seen.vips.entry(vip).or_insert_with(|| section.path.clone());
    }
    section.close();
    let service = move || {
        Some(VirtualService {
            name: name?.into_inner(),
            address: { let a: std::net::SocketAddrV4 = address?.into_inner(); crate::service::ServiceAddress::one(*a.ip(), std::num::NonZeroU16::new(a.port())?) },
            hash: crate::service::Hash::Flow, tracking: if matches!(protocol.as_ref()?.get_ref(), Protocol::Tcp) { Some(crate::service::Tracking::default_for(Protocol::Tcp)) } else { None },
            protocol: protocol?.into_inner(),
            forwarding: forwarding?.into_inner(),
            table_size: table_size?.into_inner(),
            real_servers: Vec::new(),
        })
    };
    Checked { service: service(), vip, real_servers }
}

impl Checked<'_> {
    /// `None` after a fault.
    pub(super) fn real_servers(self, seen: &Seen) -> Option<VirtualService> {
        let mut addresses = BTreeMap::new();
        let real_servers = all(self.real_servers.into_iter().map(|mut section| {
            let address = section.required("address", value::real_server_address);
            let weight = section.optional("weight", value::weight, DEFAULT_WEIGHT);
            if let Some(address) = &address {
                check_address(&section, address, self.vip, &mut addresses, seen);
            }
            section.close();
            Some(RealServer { address: address?.into_inner(), weight: weight?.into_inner() })
        }));
        Some(VirtualService { real_servers: real_servers?, ..self.service? })
    }
}

fn check_address(
    section: &Section<'_>,
    address: &Spanned<Ipv4Addr>,
    vip: Option<Ipv4Addr>,
    addresses: &mut BTreeMap<Ipv4Addr, String>,
    seen: &Seen,
) {
    let (span, address) = (address.span(), *address.get_ref());
    let fault = |problem| section.faults.add(span.clone(), &section.field("address"), problem);
    if let Some(first) = earlier(addresses, address, &section.path) {
        fault(format!("{address} is already {first}"));
    }
    if vip == Some(address) {
        fault(format!("{address} is the VIP of this service, expected another address"));
    } else if let Some(holder) = seen.vips.get(&address) {
        fault(format!("{address} is the VIP of {holder}, expected another address"));
    }
}
