//! The bench measures what it says: every repeat meets a restored packet of the next flow. Needs
//! root.

use std::time::Duration;

use tests::bench::{self, Plan, Progress};

#[test]
fn a_short_bench_measures_every_case() {
    let plan = Plan { keep: 1, packets: 2_000, limit: Duration::from_secs(30) };
    let report = bench::run(plan, &Silent).unwrap();
    for case in bench::cases() {
        if case.name == "entry" {
            continue;
        }
        let found =
            report.cases.iter().find(|one| one.name == case.name && one.flows == case.flows);
        let found = found.unwrap_or_else(|| panic!("{} of {} flows", case.name, case.flows));
        assert!(found.gross_ns_min > 0.0 && found.insns > 0, "{found:?}");
    }
    assert_eq!(report.bars.len(), 6);
}

struct Silent;

impl Progress for Silent {
    fn step(&self, _: &str) {}

    fn kept(&self, _: usize, _: usize) {}
}
