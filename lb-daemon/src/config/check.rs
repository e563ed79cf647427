//! The file as a whole: every section, and what sections say of each other.

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    num::{NonZeroU8, NonZeroU16},
};

use toml::Spanned;

use super::{Config, Director, VirtualRouter, XdpMode, raw::Section};
use crate::service::{DEFAULT_FLOW_TABLE_SIZE, Protocol, ServiceAddress, VirtualService};

mod director;
mod router;
mod service;

/// What has been seen so far and must not be said twice, each with the place that said it first.
#[derive(Default)]
struct Seen {
    service_names: BTreeMap<String, String>,
    service_addresses: BTreeMap<(ServiceAddress, Protocol), String>,
    /// By VIP, protocol and first port; no two overlap.
    service_ranges: BTreeMap<(Ipv4Addr, Protocol, NonZeroU16), PortRange>,
    router_names: BTreeMap<String, String>,
    vrids: BTreeMap<(String, NonZeroU8), String>,
    /// Of routers; services may share them.
    router_vips: BTreeMap<Ipv4Addr, String>,
    /// Of routers and services: what a director holds or forwards itself.
    vips: BTreeMap<Ipv4Addr, String>,
}

/// A range of ports, and the service that has it.
struct PortRange {
    address: ServiceAddress,
    last: NonZeroU16,
    path: String,
}

/// `None` after a fault.
pub(super) fn file(mut root: Section<'_>) -> Option<Config> {
    let faults = root.faults;
    let mut seen = Seen::default();
    let director = root.section("director");
    let services = root.sections("virtual-service");
    let routers = root.sections("virtual-router");
    let first_service =
        services.first().map(|service| (service.span.clone(), service.path.clone()));

    let virtual_routers: Option<Vec<VirtualRouter>> =
        all(routers.into_iter().map(|section| router::check(section, &mut seen)));
    // Real servers are compared with every VIP of the file, so they come second.
    let checked: Vec<_> =
        services.into_iter().map(|section| service::check(section, &mut seen)).collect();
    let virtual_services: Option<Vec<VirtualService>> =
        all(checked.into_iter().map(|service| service.real_servers(&seen)));
    let director = match director {
        Some(section) => director::check(section, first_service),
        None => {
            if let (Some((span, path)), false) = (first_service, root.contains("director")) {
                faults.add(span, &path, "needs `interfaces` in [director]");
            }
            Some(Director {
                id: None,
                interfaces: Vec::new(),
                xdp_mode: XdpMode::Auto,
                flow_table_size: DEFAULT_FLOW_TABLE_SIZE,
            })
        }
    };
    root.close();

    let config = Config {
        director: director?,
        virtual_services: virtual_services?,
        virtual_routers: virtual_routers?,
    };
    if config.virtual_services.is_empty() && config.virtual_routers.is_empty() && faults.is_empty()
    {
        let problem = "nothing to do: expected at least one virtual-service or virtual-router";
        faults.add(0..0, "", problem);
    }
    Some(config)
}

/// Unlike `collect`, goes on after the first `None`, so that every section is checked.
fn all<T>(checked: impl Iterator<Item = Option<T>>) -> Option<Vec<T>> {
    let checked: Vec<Option<T>> = checked.collect();
    checked.into_iter().collect()
}

/// The place that said `key` before, if any; else remembers `place`.
fn earlier<K: Ord>(seen: &mut BTreeMap<K, String>, key: K, place: &str) -> Option<String> {
    if let Some(first) = seen.get(&key) {
        return Some(first.clone());
    }
    seen.insert(key, place.to_owned());
    None
}

/// A fault at the name if another section of the same kind has it.
fn unique_name(
    section: &Section<'_>,
    seen: &mut BTreeMap<String, String>,
    name: Option<&Spanned<String>>,
) {
    let Some(name) = name else { return };
    if let Some(first) = earlier(seen, name.get_ref().clone(), &section.path) {
        let problem = format!("`{}` is already {first}", name.get_ref());
        section.faults.add(name.span(), &section.field("name"), problem);
    }
}
