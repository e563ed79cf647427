use std::collections::BTreeMap;

use proptest::{
    collection::{btree_map, btree_set},
    prelude::*,
};

use super::*;

#[test]
fn a_thousand_equal_real_servers_have_equal_shares() {
    check_equal_shares(&equal(1000));
}

#[test]
fn removing_one_real_server_of_a_hundred_moves_few_other_slots() {
    let all = equal(100);
    let before = Table::new(&all, 65_537);
    for removed in 0..all.len() {
        check_removal(&before, &all, removed);
    }
}

#[test]
fn shares_follow_the_weights() {
    let servers = [server(1, 1), server(2, 2), server(3, 7), server(4, 0)];
    let counts = counts(&Table::new(&servers, 65_537));
    assert_eq!(counts.get(&servers[3].address), None, "weight 0 has no slot");
    for (server, parts) in servers.iter().zip([1.0, 2.0, 7.0]) {
        let want = 65_537.0 * parts / 10.0;
        let have = counts[&server.address] as f64;
        assert!((have - want).abs() <= 1.0, "{}: {have} slots, expected {want}", server.address);
    }
}

#[test]
fn a_table_without_real_servers_is_empty() {
    for servers in [vec![], vec![server(1, 0)]] {
        assert!(Table::new(&servers, 1021).slots().all(|server| server.is_none()));
    }
}

/// Both directors of a pair may run different releases during an upgrade.
#[test]
fn tables_never_change_between_releases() {
    check(&[server(11, 1), server(12, 1), server(13, 1)], 65_537, "cbd2acc26f7992c6");
    check(&[server(11, 1), server(12, 5), server(13, 100)], 1021, "d9d5731a15f6ef91");
    check(&[], 1021, "ee7a5499987defef");
}

proptest! {
    #[test]
    fn the_order_of_the_real_servers_does_not_matter(
        (servers, shuffled) in pool().prop_flat_map(|pool| (Just(pool.clone()), Just(pool).prop_shuffle()))
    ) {
        let (table, again) = (Table::new(&servers, 1021), Table::new(&shuffled, 1021));
        prop_assert_eq!(table.digest(), again.digest());
        prop_assert_eq!(table, again);
    }

    #[test]
    fn every_slot_is_filled_and_shares_are_proportional(servers in pool()) {
        let table = Table::new(&servers, 1021);
        let total: f64 = servers.iter().map(|server| f64::from(server.weight)).sum();
        let counts = counts(&table);
        prop_assert_eq!(counts.values().sum::<usize>(), if total > 0.0 { 1021 } else { 0 });
        for server in servers.iter().filter(|server| server.weight > 0) {
            let want = 1021.0 * f64::from(server.weight) / total;
            let have = *counts.get(&server.address).unwrap_or(&0) as f64;
            // Its own rounding and the last round, which the last slot cuts short; and its part
            // of what the others' rounding left.
            let bound = 1.5 + servers.len() as f64 / 2.0 * want / 1021.0;
            prop_assert!((have - want).abs() <= bound, "{} has {have} slots, expected {want}", server.address);
        }
    }

    #[test]
    fn another_pool_has_another_digest(servers in pool(), extra in 1..=u16::MAX) {
        let table = Table::new(&servers, 1021);
        let mut more = servers.clone();
        more.push(RealServer { address: Ipv4Addr::new(192, 0, 2, 1), weight: extra });
        let heavy = Table::new(&more, 1021);
        prop_assert_eq!(table.slots().eq(heavy.slots()), table.digest() == heavy.digest());
        prop_assert_ne!(table.digest(), Table::new(&servers, 1031).digest());
    }
}

proptest! {
    // Each case fills tables of 65,537 slots.
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn any_thousand_equal_real_servers_have_equal_shares(servers in any_equal(1000)) {
        check_equal_shares(&servers);
    }

    #[test]
    fn removing_one_of_any_hundred_real_servers_moves_few_other_slots(
        (all, removed) in (any_equal(100), 0..100_usize)
    ) {
        check_removal(&Table::new(&all, 65_537), &all, removed);
    }
}

#[track_caller]
fn check_equal_shares(servers: &[RealServer]) {
    let counts = counts(&Table::new(servers, 65_537));
    let (smallest, largest) = (counts.values().min().unwrap(), counts.values().max().unwrap());
    assert_eq!(counts.len(), servers.len());
    assert!(*largest as f64 <= 1.03 * *smallest as f64, "{smallest} to {largest} slots");
}

/// `before` is the table of `all`; of the slots of others, one in a hundred may move.
#[track_caller]
fn check_removal(before: &Table, all: &[RealServer], removed: usize) {
    let mut rest = all.to_vec();
    let gone = rest.remove(removed).address;
    let after = Table::new(&rest, 65_537);
    let (mut others, mut moved) = (0, 0);
    for (was, is) in before.slots().zip(after.slots()).filter(|(was, _)| *was != Some(gone)) {
        others += 1;
        moved += usize::from(was != is);
    }
    assert!(moved * 100 <= others, "without {gone}: {moved} of {others} slots moved");
}

#[track_caller]
fn check(servers: &[RealServer], size: u32, digest: &str) {
    assert_eq!(Table::new(servers, size).digest(), digest);
}

fn counts(table: &Table) -> BTreeMap<Ipv4Addr, usize> {
    let mut counts = BTreeMap::new();
    for server in table.slots().flatten() {
        *counts.entry(server).or_default() += 1;
    }
    counts
}

fn equal(count: u16) -> Vec<RealServer> {
    (1..=count).map(|i| server(i, 1)).collect()
}

fn server(host: u16, weight: u16) -> RealServer {
    let [high, low] = host.to_be_bytes();
    RealServer { address: Ipv4Addr::new(10, 77, high, low), weight }
}

fn any_equal(count: usize) -> impl Strategy<Value = Vec<RealServer>> {
    btree_set(any::<u32>(), count).prop_map(|addresses| {
        let server = |address| RealServer { address: Ipv4Addr::from_bits(address), weight: 1 };
        addresses.into_iter().map(server).collect()
    })
}

fn pool() -> impl Strategy<Value = Vec<RealServer>> {
    let weight = prop_oneof![Just(0), Just(1), 1..10_u16, 0..=u16::MAX];
    btree_map(any::<u16>(), weight, 0..40)
        .prop_map(|pool| pool.into_iter().map(|(host, weight)| server(host, weight)).collect())
}
