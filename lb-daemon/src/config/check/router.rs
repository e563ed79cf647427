//! `[[virtual-router]]`.

use std::{num::NonZeroU8, time::Duration};

use toml::Spanned;

use super::{Seen, earlier, unique_name};
use crate::config::{
    Vip, VirtualRouter,
    raw::{Element, Section},
    value,
};

/// RFC 9568 §6.1.
const DEFAULT_PRIORITY: NonZeroU8 = NonZeroU8::new(100).expect("100 is not 0");
const DEFAULT_INTERVAL: Duration = Duration::from_secs(1);
/// RFC 9568 §5.2.5: the number of addresses is one byte.
const MAX_VIPS: usize = 255;

/// `None` after a fault.
pub(super) fn check(mut section: Section<'_>, seen: &mut Seen) -> Option<VirtualRouter> {
    let name = section.required("name", value::name);
    let interface = section.required("interface", value::interface);
    section.optional("version", value::vrrp_version, ());
    let vrid = section.required("vrid", value::one_to_255);
    let priority = section.optional("priority", value::one_to_255, DEFAULT_PRIORITY);
    let interval =
        section.optional("advertisement-interval", value::advertisement_interval, DEFAULT_INTERVAL);
    let preempt = section.optional("preempt", value::boolean, true);
    let delay = section.optional("preempt-delay", value::preempt_delay, Duration::ZERO);
    let vips = section.list("vips", value::vip);
    let more_vips = section.list("more-vips", value::vip);

    unique_name(&section, &mut seen.router_names, name.as_ref());
    unique_vrid(&section, seen, interface.as_ref(), vrid.as_ref());
    check_number_of_vips(&section);
    if let (Some(false), Some(delay)) = (preempt.as_ref().map(|p| *p.get_ref()), &delay)
        && !delay.get_ref().is_zero()
    {
        let problem = "has no effect with `preempt = false`, expected one of the two";
        section.faults.add(delay.span(), &section.field("preempt-delay"), problem);
    }
    let vips = unique_vips(&section, seen, vips);
    let more_vips = unique_vips(&section, seen, more_vips);
    section.close();
    Some(VirtualRouter {
        name: name?.into_inner(),
        interface: interface?.into_inner(),
        vrid: vrid?.into_inner(),
        priority: priority?.into_inner(),
        advertisement_interval: interval?.into_inner(),
        preempt: preempt?.into_inner(),
        preempt_delay: delay?.into_inner(),
        vips,
        more_vips,
    })
}

fn unique_vrid(
    section: &Section<'_>,
    seen: &mut Seen,
    interface: Option<&Spanned<String>>,
    vrid: Option<&Spanned<NonZeroU8>>,
) {
    let (Some(interface), Some(vrid)) = (interface, vrid) else { return };
    let (interface, number) = (interface.get_ref(), *vrid.get_ref());
    if let Some(first) = earlier(&mut seen.vrids, (interface.clone(), number), &section.path) {
        let problem = format!("VRID {number} on {interface} is already {first}");
        section.faults.add(vrid.span(), &section.field("vrid"), problem);
    }
}

fn check_number_of_vips(section: &Section<'_>) {
    let problem = match section.elements("vips") {
        1..=MAX_VIPS => return,
        0 if !section.contains("vips") => return section.fault("`vips` is missing"),
        0 => "expected at least one VIP".to_owned(),
        many => format!("{many} VIPs do not fit an advertisement, expected at most {MAX_VIPS}"),
    };
    section.faults.add(section.place("vips"), &section.field("vips"), problem);
}

fn unique_vips(section: &Section<'_>, seen: &mut Seen, vips: Vec<Element<Vip>>) -> Vec<Vip> {
    vips.into_iter()
        .map(|Element { path, span, value: vip }| {
            if let Some(first) = earlier(&mut seen.router_vips, vip.address, &path) {
                section.faults.add(span, &path, format!("{} is already {first}", vip.address));
            }
            seen.vips.entry(vip.address).or_insert(path);
            vip
        })
        .collect()
}
