//! `[[virtual-service]]` and its real servers.

use std::{collections::BTreeMap, net::Ipv4Addr, num::NonZeroU16};

use toml::Spanned;

use super::{PortRange, Seen, all, earlier, unique_name};
use crate::{
    config::{raw::Section, value},
    service::{
        DEFAULT_TABLE_SIZE, DEFAULT_WEIGHT, Forwarding, Hash, Ports, Protocol, RealServer,
        ServiceAddress, VirtualService, WHOLE_ADDRESS,
    },
};

mod tracking;

/// A service whose own keys are checked and whose real servers are not yet.
pub(super) struct Checked<'a> {
    /// Without real servers; `None` after a fault.
    service: Option<VirtualService>,
    vip: Option<Ipv4Addr>,
    real_servers: Vec<Section<'a>>,
}

pub(super) fn check<'a>(mut section: Section<'a>, seen: &mut Seen) -> Checked<'a> {
    let name = section.required("name", value::name);
    let address = section.required("address", value::service_address);
    let protocol = section.optional("protocol", value::protocol, Protocol::Tcp);
    let forwarding = section.optional("forwarding", value::forwarding, Forwarding::Dr);
    let hash = hash(&mut section);
    let table_size = section.optional("table-size", value::table_size, DEFAULT_TABLE_SIZE);
    let protocol = protocol.map(Spanned::into_inner);
    let tracking = tracking::check(&mut section, protocol);
    let real_servers = section.sections("real-server");

    unique_name(&section, &mut seen.service_names, name.as_ref());
    if let (Some(address), Some(protocol)) = (&address, protocol) {
        unique_ports(&section, seen, address, protocol);
    }
    let vip = address.as_ref().map(|address| address.get_ref().vip);
    if let Some(vip) = vip {
        seen.vips.entry(vip).or_insert_with(|| section.path.clone());
    }
    section.close();
    let service = move || {
        Some(VirtualService {
            name: name?.into_inner(),
            address: address?.into_inner(),
            protocol: protocol?,
            forwarding: forwarding?.into_inner(),
            hash: hash?,
            table_size: table_size?.into_inner(),
            tracking: tracking?,
            real_servers: Vec::new(),
        })
    };
    Checked { service: service(), vip, real_servers }
}

/// `None` after a fault.
fn hash(section: &mut Section<'_>) -> Option<Hash> {
    let by_source = section.optional("hash", value::hash_by_source, false);
    let prefix = section.optional("source-prefix", value::source_prefix, WHOLE_ADDRESS);
    let (by_source, prefix) = (by_source?.into_inner(), prefix?);
    if by_source {
        return Some(Hash::Source { prefix_len: prefix.into_inner() });
    }
    if section.contains("source-prefix") {
        let problem = "has no effect without `hash = \"source\"`";
        section.faults.add(prefix.span(), &section.field("source-prefix"), problem);
        return None;
    }
    Some(Hash::Flow)
}

/// The narrowest service that has a port takes its packets, so only services of one width can be
/// in each other's way.
fn unique_ports(
    section: &Section<'_>,
    seen: &mut Seen,
    written: &Spanned<ServiceAddress>,
    protocol: Protocol,
) {
    let address = *written.get_ref();
    let fault = |problem| section.faults.add(written.span(), &section.field("address"), problem);
    let path = &section.path;
    if let Some(first) = earlier(&mut seen.service_addresses, (address, protocol), path) {
        return fault(format!("{address}/{protocol} is already {first}"));
    }
    let Ports::Range(first, last) = address.ports else { return };
    let key = |port| (address.vip, protocol, port);
    // Those before do not overlap each other, so the last that begins early enough is the one.
    let before = seen.service_ranges.range(key(NonZeroU16::MIN)..=key(last)).next_back();
    if let Some((_, other)) = before.filter(|(_, other)| other.last >= first) {
        return fault(format!("{address}/{protocol} overlaps {}, {}", other.address, other.path));
    }
    seen.service_ranges.insert(key(first), PortRange { address, last, path: path.clone() });
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
