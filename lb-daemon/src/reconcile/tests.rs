use std::{num::NonZeroU16, time::Duration};

use lb_ebpf::abi::CHANGED;

use super::*;
use crate::service::{Forwarding, Ports, Tracking};

#[test]
fn a_first_start_installs_everything_before_the_service_refers_to_it() {
    let desired = desired([service("web", 80, &[(11, 1), (12, 1)])]);
    let (ops, installed) = reconcile(&desired, &Installed::default(), &NOTHING).unwrap();
    assert_eq!(
        kinds(&ops),
        [
            "clear server 0",
            "real server 0",
            "clear server 1",
            "real server 1",
            "table 0",
            "clear service 0",
            "service 0 :80 -> table 0 role 1",
        ]
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
        ["table 1 changing", "service 0 :80 -> table 1 changing role 1"]
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
fn a_real_server_keeps_its_index_for_as_long_as_it_is_remembered() {
    let installed = install(&desired([service("web", 80, &[(11, 1), (12, 1), (13, 1)])]));
    let next = desired([service("web", 80, &[(10, 1), (13, 1)])]);
    let (ops, changing) = reconcile(&next, &installed, &NOTHING).unwrap();
    assert_eq!(indexes(&changing), [(0, 11), (1, 12), (2, 13), (3, 10)]);
    assert!(!kinds(&ops).iter().any(|op| op.starts_with("free")), "{ops:?}");

    let table = &changing.tables[&changing.services.values().next().unwrap().table];
    let down = table.generation.previous().iter().filter(|previous| previous.is_down()).count();
    let of_deleted =
        installed.tables[&0].generation.owners().filter(|owner| [0, 1].contains(owner)).count();
    assert_eq!(down, of_deleted, "all that the two had, and nothing else");

    let again = desired([service("web", 80, &[(11, 1), (12, 1), (13, 1)])]);
    let (_, back) = reconcile(&again, &changing, &NOTHING).unwrap();
    assert_eq!(indexes(&back), [(0, 11), (1, 12), (2, 13)], "nothing remembers 10");
    let table = &back.tables[&back.services.values().next().unwrap().table];
    assert!(table.generation.previous().iter().all(|previous| !previous.is_down()));
}

#[test]
fn an_untracked_service_follows_its_table_at_once() {
    let udp = |pool: &[(u8, u16)]| {
        let service = service("dns", 53, pool);
        VirtualService { protocol: Protocol::Udp, tracking: None, ..service }
    };
    let installed = install(&desired([udp(&[(11, 1), (12, 1)])]));
    assert_eq!(
        after(&desired([udp(&[(12, 1)])]), &installed),
        ["table 1", "service 0 :53 -> table 1 role 1", "delete table 0", "free real server 0"]
    );
}

#[test]
fn a_service_that_tracks_makes_its_table_remember_for_it_alone() {
    let both = |pool: &[(u8, u16)]| {
        let udp = service("dns", 53, pool);
        let udp = VirtualService { protocol: Protocol::Udp, tracking: None, ..udp };
        desired([udp, service("web", 80, pool)])
    };
    let installed = install(&both(&[(11, 1), (12, 1)]));
    assert_eq!(
        after(&both(&[(12, 1)]), &installed),
        [
            "table 1 changing",
            "service 0 :53 -> table 1 role 1",
            "service 1 :80 -> table 1 changing role 1",
            "delete table 0",
        ]
    );
}

#[test]
fn another_table_size_has_other_slots_and_remembers_nothing() {
    let pool = [(11, 1), (12, 1)];
    let installed = install(&desired([service("web", 80, &pool)]));
    let larger = VirtualService { table_size: 2039, ..service("web", 80, &pool) };
    assert_eq!(
        after(&desired([larger]), &installed),
        ["table 1", "service 0 :80 -> table 1 role 1", "delete table 0"]
    );
}

#[test]
fn a_thousand_services_over_one_pool_have_one_table() {
    let pool: Vec<_> = (1..=90).map(|host| (host, u16::from(host))).collect();
    let mut reversed = pool.clone();
    reversed.reverse();
    let services = |odd: &[(u8, u16)]| {
        let order = |port| {
            if port == 700 {
                odd
            } else if port % 2 == 0 {
                &pool
            } else {
                &reversed
            }
        };
        desired((1..=1000).map(|port| service(&port.to_string(), port, order(port))))
    };
    let (ops, installed) = reconcile(&services(&pool), &Installed::default(), &NOTHING).unwrap();
    assert_eq!(tables(&ops), 1);
    assert_eq!(installed.tables.len(), 1);

    let (ops, parted) = reconcile(&services(&pool[..89]), &installed, &NOTHING).unwrap();
    assert_eq!((tables(&ops), services_set(&ops)), (1, 1), "one parts from the others");
    assert_eq!(parted.tables.len(), 2);

    // And back: it remembers, so it cannot share yet.
    let desired = services(&pool);
    let (ops, back) = reconcile(&desired, &parted, &NOTHING).unwrap();
    assert_eq!((tables(&ops), services_set(&ops)), (1, 1));
    assert_eq!(back.tables.len(), 2);
    let (ops, shared) = age(&desired, &back, &NOTHING);
    assert_eq!(services_set(&ops), 2, "steady, then with the others: {:?}", kinds(&ops));
    assert_eq!(shared.tables.len(), 1);
    assert_eq!(after(&desired, &shared), [""; 0]);
}

#[test]
fn services_that_change_alike_stay_together() {
    let pools = |pool: &[(u8, u16)]| desired((1..=50).map(|port| service("", port, pool)));
    let installed = install(&pools(&[(11, 1), (12, 1)]));
    let next = pools(&[(11, 1), (12, 1), (13, 1)]);
    let (ops, changing) = reconcile(&next, &installed, &NOTHING).unwrap();
    assert_eq!((tables(&ops), services_set(&ops)), (1, 50));
    assert_eq!(changing.tables.len(), 1);

    let mut more = next.services.clone();
    more.push(service("", 51, &[(11, 1), (12, 1), (13, 1)]));
    let (ops, _) = reconcile(&desired(more), &changing, &NOTHING).unwrap();
    assert_eq!(tables(&ops), 1, "a new one has no flows of before to remember");
}

#[test]
fn a_table_is_written_into_a_spare_of_its_size() {
    let mut installed = install(&desired([service("web", 80, &[(11, 1)])]));
    installed.spares = BTreeMap::from([(40, 2039), (41, 1021), (42, 1021)]);
    let next = desired([service("web", 80, &[(12, 1)])]);
    let (ops, next) = reconcile(&next, &installed, &NOTHING).unwrap();
    let expected = "service 0 :80 -> table 41 changing role 1".to_owned();
    assert!(kinds(&ops).contains(&expected), "{:?}", kinds(&ops));
    assert_eq!(next.spares, BTreeMap::from([(40, 2039), (42, 1021)]));

    let three = [service("web", 80, &[(13, 1)]), service("api", 81, &[(14, 1)])];
    let more = desired(three.into_iter().chain([service("dev", 82, &[(15, 1)])]));
    let (_, more) = reconcile(&more, &next, &NOTHING).unwrap();
    let used: Vec<_> = more.services.values().map(|service| service.table).collect();
    assert_eq!(used, [42, 0, 1], "the spare, then what is free; not one given up just now");
}

#[test]
fn a_service_keeps_its_number_and_a_number_that_is_noted_is_not_given_away() {
    let installed =
        install(&desired([service("web", 80, &[(11, 1)]), service("api", 81, &[(11, 1)])]));
    let numbers = |installed: &Installed| -> Vec<u32> {
        installed.services.values().map(|service| service.id).collect()
    };
    assert_eq!(numbers(&installed), [0, 1]);
    let api = || service("api", 81, &[(11, 1)]);
    let (_, only_api) = reconcile(&desired([api()]), &installed, &NOTHING).unwrap();
    assert_eq!(numbers(&only_api), [1]);

    let web = desired([api(), service("dev", 82, &[(11, 1)])]);
    let (_, next) = reconcile(&web, &only_api, &NOTHING).unwrap();
    assert_eq!(numbers(&next), [1, 0]);
    for noted in [
        Noted { connections: vec![(flow(1), note(0, 0))], ..NOTHING },
        Noted { openings: vec![(flow(1), note(0, 0))], ..NOTHING },
    ] {
        let (ops, next) = reconcile(&web, &only_api, &noted).unwrap();
        assert_eq!(numbers(&next), [1, 2]);
        assert!(kinds(&ops).iter().any(|op| op.starts_with("forget")), "{:?}", kinds(&ops));
    }
}

#[test]
fn notes_of_a_real_server_that_goes_say_so_until_it_comes_back() {
    let pool = [(11, 1), (12, 1)];
    let installed = install(&desired([service("web", 80, &pool)]));
    let closing = Note { state: Note::CLOSING, ..note(0, 1) };
    let mut noted = Noted {
        connections: vec![(flow(1), note(0, 0)), (flow(2), note(0, 1)), (flow(3), closing)],
        openings: vec![(flow(4), note(0, 0)), (flow(5), note(0, 1))],
        ..NOTHING
    };
    let without = desired([service("web", 80, &[(11, 1)])]);
    let (ops, gone) = reconcile(&without, &installed, &noted).unwrap();
    assert_eq!(
        kinds(&ops)[2..],
        ["delete table 0", "note 2 state 2", "note 3 state 3", "forget opening 5"]
    );
    assert_eq!(indexes(&gone), [(0, 11), (1, 12)], "noted flows remember it");

    noted.connections[1].1.state |= Note::DOWN;
    noted.connections[2].1.state |= Note::DOWN;
    noted.openings.clear();
    let (ops, _) = reconcile(&desired([service("web", 80, &pool)]), &gone, &noted).unwrap();
    let notes = kinds(&ops).into_iter().filter(|op| op.starts_with("note"));
    assert_eq!(notes.collect::<Vec<_>>(), ["note 2 state 0", "note 3 state 1"]);
}

#[test]
fn a_drained_real_server_keeps_its_flows() {
    let installed = install(&desired([service("web", 80, &[(11, 1), (12, 1)])]));
    let noted = Noted { connections: vec![(flow(1), note(0, 1))], ..NOTHING };
    let drained = desired([service("web", 80, &[(11, 1), (12, 0)])]);
    let (ops, next) = reconcile(&drained, &installed, &noted).unwrap();
    assert_eq!(tables(&ops), 1);
    assert!(!kinds(&ops).iter().any(|op| op.starts_with("note")), "{:?}", kinds(&ops));
    let generation = &next.tables[&1].generation;
    assert!(generation.owners().all(|owner| owner == 0));
    assert!(generation.changed().all(|(_, previous)| previous.real_server == 1));
}

#[test]
fn adopted_maps_are_left_as_they_are_if_they_say_what_is_configured() {
    let first = desired([service("web", 80, &[(11, 1), (12, 1)]), service("api", 81, &[(12, 1)])]);
    let next = desired([service("web", 80, &[(12, 1)]), service("api", 81, &[(12, 1)])]);
    let (_, changing) = reconcile(&next, &install(&first), &NOTHING).unwrap();
    let mut adopted = adopt(&changing);
    for service in adopted.services.values_mut() {
        service.role = 7;
    }
    // MAC addresses not yet known again stay.
    let next = Desired { neighbours: BTreeMap::new(), ..next };
    let (ops, installed) = reconcile(&next, &adopted, &NOTHING).unwrap();
    assert_eq!(kinds(&ops), [""; 0]);
    assert_eq!(installed.roles["vip"], 7);
    let made = installed.tables.values().map(|table| table.made.is_some());
    assert!(made.eq([true, true]), "from then on it is known what they are");
}

#[test]
fn a_change_made_while_no_daemon_ran_is_one_like_any_other() {
    let first = desired([service("web", 80, &[(11, 1), (12, 1)])]);
    let next = desired([service("web", 80, &[(12, 1)])]);
    let installed = install(&first);
    let (with_daemon, _) = reconcile(&next, &installed, &NOTHING).unwrap();
    let (without, _) = reconcile(&next, &adopt(&installed), &NOTHING).unwrap();
    assert_eq!(with_daemon, without);
}

#[test]
fn a_drained_real_server_that_was_deleted_while_no_daemon_ran_is_gone() {
    let pool = |weight: Option<u16>| {
        let second = weight.map(|weight| (12, weight));
        desired([service("web", 80, &[(11, 1)].into_iter().chain(second).collect::<Vec<_>>())])
    };
    let (_, drained) = reconcile(&pool(Some(0)), &install(&pool(Some(1))), &NOTHING).unwrap();
    let (ops, gone) = reconcile(&pool(None), &adopt(&drained), &NOTHING).unwrap();
    assert_eq!(tables(&ops), 1);
    let table = gone.services.values().next().unwrap().table;
    assert!(gone.tables[&table].generation.changed().all(|(_, previous)| previous.is_down()));
}

#[test]
fn a_service_with_several_ports_is_found_by_prefixes() {
    let with = |ports| VirtualService {
        address: ServiceAddress { vip: address(100), ports },
        ..service("range", 1, &[(11, 1)])
    };
    let port = |port| NonZeroU16::new(port).unwrap();
    let range = desired([with(Ports::Range(port(8080), port(8084)))]);
    let (ops, installed) = reconcile(&range, &Installed::default(), &NOTHING).unwrap();
    assert_eq!(
        kinds(&ops)[4..],
        ["service 0 :8080 -> table 0 role 1", "range :8080/14", "range :8084/16", "ranges: true"]
    );
    assert_eq!(after(&range, &installed), [""; 0]);

    // The key of a range is its first port: the service stays, and a prefix goes.
    let narrower = desired([with(Ports::Range(port(8080), port(8083)))]);
    assert_eq!(after(&narrower, &installed), ["delete range :8084/16"]);

    let any = desired([with(Ports::Any)]);
    assert_eq!(
        after(&any, &installed),
        [
            "clear service 1",
            "service 1 :0 -> table 0 role 1",
            "range :0/0",
            "delete range :8080/14",
            "delete range :8084/16",
            "delete service :8080",
        ]
    );
    let one = after(&desired([service("web", 80, &[(11, 1)])]), &installed);
    assert!(one.contains(&"ranges: false".to_owned()), "{one:?}");
}

#[test]
fn a_service_hashes_and_resets_as_it_says() {
    let flags = |service: VirtualService| {
        let installed = install(&desired([service]));
        let value = *installed.services.values().next().unwrap();
        (value.source_mask, value.flags)
    };
    let web = || service("web", 80, &[(11, 1)]);
    assert_eq!(flags(web()), ([0; 4], 0));
    for (prefix_len, mask) in
        [(1, [0x80, 0, 0, 0]), (20, [255, 255, 240, 0]), (24, [255, 255, 255, 0]), (32, [255; 4])]
    {
        let hash = Hash::Source { prefix_len };
        assert_eq!(flags(VirtualService { hash, ..web() }).0, mask, "/{prefix_len}");
    }
    let tracking = web().tracking.map(|t| Tracking { on_down: OnDown::Reset, ..t });
    assert_eq!(flags(VirtualService { tracking, ..web() }).1, abi::Service::RESETS);
}

#[test]
fn a_vip_without_a_virtual_router_is_always_forwarded() {
    let mut desired = desired([service("web", 80, &[(11, 1)])]);
    desired.routers.clear();
    let ops = after(&desired, &Installed::default());
    assert_eq!(ops.last().unwrap(), "service 0 :80 -> table 0 role 0");
}

#[test]
fn a_new_mac_address_changes_one_entry() {
    let mut desired = desired([service("web", 80, &[(11, 1), (12, 1)])]);
    let installed = install(&desired);
    desired.neighbours.get_mut(&address(12)).unwrap().destination_mac = [2; 6];
    assert_eq!(after(&desired, &installed), ["real server 1"]);
    desired.neighbours.remove(&address(12));
    let (_, installed) = reconcile(&desired, &installed, &NOTHING).unwrap();
    assert_eq!(after(&desired, &installed), [""; 0], "the last known address stays in use");
}

#[test]
fn more_than_the_maps_hold_is_refused() {
    let refused = |desired: &Desired, capacity| {
        let installed = Installed { capacity, ..Installed::default() };
        reconcile(desired, &installed, &NOTHING).unwrap_err().to_string()
    };
    let capacity = Capacity { services: 2, tables: 4, real_servers: 3, notes: 1 };
    let three = desired((1..4).map(|port| service("", port, &[])));
    assert!(
        refused(&three, capacity).starts_with("more virtual services than the datapath holds (2)")
    );
    let servers = desired([service("", 1, &[(1, 1), (2, 1), (3, 1), (4, 1)])]);
    assert!(
        refused(&servers, capacity).starts_with("more real servers than the datapath holds (3)")
    );
    let tables = desired([service("", 1, &[(1, 1)]), service("", 2, &[(2, 1)])]);
    let capacity = Capacity { tables: 1, ..capacity };
    assert!(
        refused(&tables, capacity).starts_with("more Maglev tables than the datapath holds (1)")
    );
}

/// Of a datapath without notes, when nobody cares what time it is.
const NOTHING: Noted = Noted { now: 5000, connections: vec![], openings: vec![] };

fn after(desired: &Desired, installed: &Installed) -> Vec<String> {
    kinds(&reconcile(desired, installed, &NOTHING).unwrap().0)
}

pub(super) fn install(desired: &Desired) -> Installed {
    reconcile(desired, &Installed::default(), &NOTHING).unwrap().1
}

/// What another daemon can read back from the maps.
fn adopt(installed: &Installed) -> Installed {
    let table = |(&index, table): (&u32, &InstalledTable)| {
        let generation = table.generation.clone();
        (index, InstalledTable { generation, made: None, moved: None })
    };
    Installed {
        tables: installed.tables.iter().map(table).collect(),
        roles: BTreeMap::new(),
        spares: BTreeMap::new(),
        ..installed.clone()
    }
}

fn indexes(installed: &Installed) -> Vec<(u16, u8)> {
    installed.real_servers.iter().map(|(index, server)| (*index, server.address[3])).collect()
}

fn tables(ops: &[MapOp]) -> usize {
    kinds(ops).iter().filter(|op| op.starts_with("table")).count()
}

fn services_set(ops: &[MapOp]) -> usize {
    kinds(ops).iter().filter(|op| op.starts_with("service")).count()
}

pub(super) fn kinds(ops: &[MapOp]) -> Vec<String> {
    ops.iter().map(kind).collect()
}

fn kind(op: &MapOp) -> String {
    let port = |key: &ServiceKey| u16::from_be_bytes(key.port());
    let range = |(bits, prefix): &Prefix| {
        format!("range :{}/{}", u16::from_be_bytes(prefix.port), bits - 80)
    };
    let flow = |key: &FlowKey| u32::from_be_bytes(key.src());
    let changing = |is_changing| if is_changing { " changing" } else { "" };
    match op {
        MapOp::SetRealServer { index, .. } => format!("real server {index}"),
        MapOp::ClearRealServerCounters { index } => format!("clear server {index}"),
        MapOp::ClearServiceCounters { id } => format!("clear service {id}"),
        MapOp::InstallTable { table, slots, previous } => {
            let marked = slots.iter().any(|slot| slot & CHANGED != 0);
            assert_eq!(marked, !previous.is_empty());
            format!("table {table}{}", changing(marked))
        }
        MapOp::UpdateTable { table, updates } => format!("update table {table}: {}", updates.len()),
        MapOp::SetService { key, value } => {
            assert!(value.previous == STEADY || value.previous == value.table);
            let (id, table, role) = (value.id, value.table, value.role);
            let changing = changing(value.previous != STEADY);
            format!("service {id} :{} -> table {table}{changing} role {role}", port(key))
        }
        MapOp::SetPortRange { prefix, .. } => range(prefix),
        MapOp::DeletePortRange { prefix } => format!("delete {}", range(prefix)),
        MapOp::LookForPortRanges(wanted) => format!("ranges: {wanted}"),
        MapOp::DeleteService { key } => format!("delete service :{}", port(key)),
        MapOp::DeleteTable { table, .. } => format!("delete table {table}"),
        MapOp::DeletePrevious { tables } => format!("delete previous {tables:?}"),
        MapOp::MarkNote { key, note } => format!("note {} state {}", flow(key), note.state),
        MapOp::DeleteNote { key, .. } => format!("forget {}", flow(key)),
        MapOp::DeleteOpening { key, .. } => format!("forget opening {}", flow(key)),
        MapOp::FreeRealServer { index } => format!("free real server {index}"),
    }
}

/// Services of the VIP of one virtual router, with all neighbours known.
pub(super) fn desired(services: impl IntoIterator<Item = VirtualService>) -> Desired {
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

/// One that tracks and forgets nothing by itself for an hour.
pub(super) fn service(name: &str, port: u16, pool: &[(u8, u16)]) -> VirtualService {
    VirtualService {
        name: name.to_owned(),
        address: ServiceAddress::one(address(100), NonZeroU16::new(port).unwrap()),
        protocol: Protocol::Tcp,
        forwarding: Forwarding::Dr,
        hash: Hash::Flow,
        table_size: 1021,
        tracking: Some(Tracking {
            on_down: OnDown::Rehash,
            drain_timeout: Duration::from_secs(3600),
            idle_timeout: Duration::from_secs(3600),
        }),
        real_servers: pool
            .iter()
            .map(|&(host, weight)| RealServer { address: address(host), weight })
            .collect(),
    }
}

pub(super) fn address(host: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, host)
}

/// By its client's number.
pub(super) fn flow(client: u32) -> FlowKey {
    FlowKey::new(client.to_be_bytes(), address(100).octets(), [15, 160], [0, 80], Ipv4::TCP)
}

/// Of a flow in slot 3 that was seen just now.
pub(super) fn note(service: u32, real_server: u16) -> Note {
    Note { real_server, state: 0, seen: NOTHING.now, service, slot: 3, sequence: 0, zero: 0 }
}
