//! Counters with their rates, as they are printed.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;

use super::rates::{Rates, rate, rates};
use crate::control::{Counters, Exceptions, RealServerStats, ServiceStats, Stats};

/// A sample; its rates are those since the sample before.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) monotonic_ms: u64,
    /// Between the samples; `None` with the first.
    pub(super) interval_ms: Option<u64>,
    pub(super) services: Vec<Rated<ServiceStats>>,
    pub(super) real_servers: Vec<Rated<RealServerStats>>,
    pub(super) verdicts: BTreeMap<String, u64>,
    /// Those that have a rate.
    pub(super) verdicts_per_second: BTreeMap<String, f64>,
    pub(super) exceptions: Exceptions,
}

#[derive(Debug, Serialize)]
pub(super) struct Rated<T> {
    #[serde(flatten)]
    pub(super) stats: T,
    /// `None`: it cannot be told.
    pub(super) per_second: Option<Rates>,
}

impl Report {
    pub(super) fn of(after: Stats, before: Option<&Stats>) -> Self {
        // The clock has begun anew with the machine.
        let interval_ms =
            before.and_then(|before| after.monotonic_ms.checked_sub(before.monotonic_ms));
        let before = before.filter(|_| interval_ms.is_some());
        let elapsed = Duration::from_millis(interval_ms.unwrap_or(0));
        let since = |before: Option<&Counters>, after: &Counters| {
            before.and_then(|before| rates(before, after, elapsed))
        };
        let of_service: BTreeMap<_, _> = before
            .iter()
            .flat_map(|it| &it.services)
            .map(|it| ((&it.name, it.address, it.protocol), &it.counters))
            .collect();
        let of_server: BTreeMap<_, _> = before
            .iter()
            .flat_map(|it| &it.real_servers)
            .map(|it| (it.address, &it.counters))
            .collect();
        let services = after.services.into_iter().map(|stats| {
            let before = of_service.get(&(&stats.name, stats.address, stats.protocol)).copied();
            Rated { per_second: since(before, &stats.counters), stats }
        });
        let real_servers = after.real_servers.into_iter().map(|stats| {
            let before = of_server.get(&stats.address).copied();
            Rated { per_second: since(before, &stats.counters), stats }
        });
        let verdicts_per_second = after.verdicts.iter().filter_map(|(name, &packets)| {
            let before = *before?.verdicts.get(name)?;
            Some((name.clone(), rate(before, packets, elapsed)?))
        });
        Self {
            monotonic_ms: after.monotonic_ms,
            interval_ms,
            services: services.collect(),
            real_servers: real_servers.collect(),
            verdicts_per_second: verdicts_per_second.collect(),
            verdicts: after.verdicts,
            exceptions: after.exceptions,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::Protocol;

    #[test]
    fn each_row_is_compared_with_its_own_of_before() {
        let before = stats(1_000, &[("web", 80, 100), ("gone", 81, 7), ("moved", 82, 1)]);
        let after = stats(3_000, &[("new", 84, 9), ("moved", 83, 5), ("web", 80, 300)]);
        let report = Report::of(after, Some(&before));
        assert_eq!(report.interval_ms, Some(2_000));
        let packets: Vec<_> = report
            .services
            .iter()
            .map(|row| (row.stats.name.as_str(), row.per_second.map(|rates| rates.packets)))
            .collect();
        assert_eq!(packets, [("new", None), ("moved", None), ("web", Some(100.0))]);
        assert_eq!(report.verdicts_per_second, BTreeMap::from([("forwarded".to_owned(), 149.5)]));
    }

    #[test]
    fn the_first_sample_and_one_after_a_reboot_have_no_rates() {
        let sample = stats(1_000, &[("web", 80, 100)]);
        for before in [None, Some(stats(2_000, &[("web", 80, 50)]))] {
            let report = Report::of(sample.clone(), before.as_ref());
            assert_eq!(report.interval_ms, None);
            assert_eq!(report.services[0].per_second, None);
            assert!(report.verdicts_per_second.is_empty());
        }
    }

    fn stats(monotonic_ms: u64, services: &[(&str, u16, u64)]) -> Stats {
        let service = |&(name, port, packets): &(&str, u16, u64)| ServiceStats {
            name: name.to_owned(),
            address: format!("10.77.0.100:{port}").parse().unwrap(),
            protocol: Protocol::Tcp,
            counters: Counters { packets, bytes: packets * 60, new_flows: Some(packets) },
        };
        let (_, _, packets) = services[services.len() - 1];
        Stats {
            monotonic_ms,
            services: services.iter().map(service).collect(),
            real_servers: vec![],
            verdicts: BTreeMap::from([("forwarded".to_owned(), packets)]),
            exceptions: Exceptions::default(),
        }
    }
}
