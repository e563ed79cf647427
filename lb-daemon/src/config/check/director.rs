//! `[director]`.

use std::{collections::BTreeMap, ops::Range};

use super::earlier;
use crate::{
    config::{Director, XdpMode, raw::Section, value},
    service::DEFAULT_FLOW_TABLE_SIZE,
};

/// `None` after a fault. `first_service` is the place and path of a service, which needs interfaces.
pub(super) fn check(
    mut section: Section<'_>,
    first_service: Option<(Range<usize>, String)>,
) -> Option<Director> {
    let faults = section.faults;
    let id = section.optional("id", |id| value::name(id).map(Some), None);
    let written = section.list("interfaces", value::interface);
    let xdp_mode = section.optional("xdp-mode", value::xdp_mode, XdpMode::Auto);
    let flow_table_size =
        section.optional("flow-table-size", value::flow_table_size, DEFAULT_FLOW_TABLE_SIZE);

    if let Some((_, service)) = first_service
        && section.elements("interfaces") == 0
    {
        let problem = format!("expected at least one interface, as there is {service}");
        faults.add(section.place("interfaces"), &section.field("interfaces"), problem);
    }
    let mut seen = BTreeMap::new();
    let mut interfaces = Vec::new();
    for element in written {
        if let Some(first) = earlier(&mut seen, element.value.clone(), &element.path) {
            let problem = format!("`{}` is already {first}", element.value);
            faults.add(element.span, &element.path, problem);
        }
        interfaces.push(element.value);
    }
    section.close();
    Some(Director {
        id: id?.into_inner(),
        interfaces,
        xdp_mode: xdp_mode?.into_inner(),
        flow_table_size: flow_table_size?.into_inner(),
    })
}
