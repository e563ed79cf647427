use super::*;
use crate::service::{Forwarding, Hash};

#[test]
fn a_first_start_installs_everything_before_the_service_refers_to_it() {
    let desired = desired([service("web", 80, &[(11, 1), (12, 1)])]);
    let (ops, installed) = reconcile(&desired, &Installed::default()).unwrap();
    assert_eq!(
        kinds(&ops),
        ["real server 0", "real server 1", "table 0", "service :80 -> table 0 role 1"]
    );
    assert_eq!(installed.roles, BTreeMap::from([("vip".to_owned(), 1)]));
    assert_eq!(after(&desired, &installed), [""; 0], "what is right is not touched");
}

#[test]
fn a_new_weight_swaps_one_table_and_touches_nothing_else() {
    let pool = [(11, 1), (12, 1)];
    let installed = install(&desired([service("web", 80, &pool), service("api", 81, &pool)]));
    let next = desired([service("web", 80, &[(11, 1), (12, 2)]), service("api", 81, &pool)]);
    assert_eq!(
        after(&next, &installed),
        ["table 2", "service :80 -> table 2 role 1", "delete table 0"]
    );
}

#[test]
fn a_service_goes_before_its_table_and_its_real_servers() {
    let installed = install(&desired([
        service("web", 80, &[(11, 1)]),
        service("api", 81, &[(11, 1), (12, 1)]),
    ]));
    assert_eq!(
        after(&desired([service("web", 80, &[(11, 1)])]), &installed),
        ["delete service :81", "delete table 1", "free real server 1"]
    );
}

#[test]
fn a_real_server_keeps_its_index() {
    let installed = install(&desired([service("web", 80, &[(11, 1), (12, 1), (13, 1)])]));
    let next = desired([service("web", 80, &[(10, 1), (13, 1)])]);
    let (_, installed) = reconcile(&next, &installed).unwrap();
    let addresses: Vec<_> =
        installed.real_servers.iter().map(|(index, server)| (*index, server.address[3])).collect();
    assert_eq!(addresses, [(2, 13), (3, 10)], "an index given up is not reused in the same plan");
}

#[test]
fn adopted_maps_keep_indexes_roles_and_mac_addresses() {
    let first = desired([service("web", 80, &[(11, 1), (12, 1)])]);
    let mut adopted = install(&first);
    // What can be read back from the maps.
    adopted.roles.clear();
    for service in adopted.services.values_mut() {
        service.table = None;
        service.value.role = 7;
    }
    let next = Desired { neighbours: BTreeMap::new(), ..first };
    let (ops, installed) = reconcile(&next, &adopted).unwrap();
    assert_eq!(
        kinds(&ops),
        ["table 1", "service :80 -> table 1 role 7", "delete table 0"],
        "the tables alone are made again; MAC addresses not yet known again stay"
    );
    assert_eq!(installed.roles["vip"], 7);
}

#[test]
fn a_vip_without_a_virtual_router_is_always_forwarded() {
    let mut desired = desired([service("web", 80, &[(11, 1)])]);
    desired.routers.clear();
    assert_eq!(
        after(&desired, &Installed::default()),
        ["real server 0", "table 0", "service :80 -> table 0 role 0"]
    );
}

#[test]
fn a_new_mac_address_changes_one_entry() {
    let mut desired = desired([service("web", 80, &[(11, 1), (12, 1)])]);
    let installed = install(&desired);
    desired.neighbours.get_mut(&address(12)).unwrap().destination_mac = [2; 6];
    assert_eq!(after(&desired, &installed), ["real server 1"]);
    desired.neighbours.remove(&address(12));
    let (_, installed) = reconcile(&desired, &installed).unwrap();
    assert_eq!(after(&desired, &installed), [""; 0], "the last known address stays in use");
}

#[test]
fn more_than_the_maps_hold_is_refused() {
    let services = (1..=u16::MAX).map(|port| service(&port.to_string(), port, &[]));
    let error = reconcile(&desired(services), &Installed::default()).unwrap_err();
    assert_eq!(error.to_string(), "more virtual services than the datapath holds (16384)");
}

fn after(desired: &Desired, installed: &Installed) -> Vec<String> {
    kinds(&reconcile(desired, installed).unwrap().0)
}

fn install(desired: &Desired) -> Installed {
    reconcile(desired, &Installed::default()).unwrap().1
}

fn kinds(ops: &[MapOp]) -> Vec<String> {
    let port = |key: &ServiceKey| u16::from_be_bytes(key.port);
    ops.iter()
        .map(|op| match op {
            MapOp::SetRealServer { index, .. } => format!("real server {index}"),
            MapOp::InstallTable { table, .. } => format!("table {table}"),
            MapOp::SetService { key, value } => {
                format!("service :{} -> table {} role {}", port(key), value.table, value.role)
            }
            MapOp::DeleteService { key } => format!("delete service :{}", port(key)),
            MapOp::DeleteTable { table } => format!("delete table {table}"),
            MapOp::FreeRealServer { index } => format!("free real server {index}"),
        })
        .collect()
}

/// Services of the VIP of one virtual router, with all neighbours known.
fn desired(services: impl IntoIterator<Item = VirtualService>) -> Desired {
    let services: Vec<_> = services.into_iter().collect();
    let neighbours = services
        .iter()
        .flat_map(|service| &service.real_servers)
        .map(|server| {
            let hop = Hop { ifindex: 2, destination_mac: [1; 6], source_mac: [9; 6] };
            (server.address, hop)
        })
        .collect();
    Desired { services, routers: BTreeMap::from([(address(100), "vip".to_owned())]), neighbours }
}

fn service(name: &str, port: u16, pool: &[(u8, u16)]) -> VirtualService {
    VirtualService {
        name: name.to_owned(),
        address: format!("10.77.0.100:{port}").parse().unwrap(),
        protocol: Protocol::Tcp,
        forwarding: Forwarding::Dr,
        hash: Hash::Flow,
        tracking: None,
        table_size: 1021,
        real_servers: pool
            .iter()
            .map(|&(host, weight)| RealServer { address: address(host), weight })
            .collect(),
    }
}

fn address(host: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, host)
}
