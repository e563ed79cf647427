//! Rates from counters. Pure.

use std::time::Duration;

use serde::Serialize;

use crate::control::Counters;

/// Per second.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Rates {
    pub(super) packets: f64,
    pub(super) bytes: f64,
    pub(super) new_flows: Option<f64>,
}

/// `None` where no rate can be told: without time between, or after a counter has begun anew.
pub(super) fn rates(before: &Counters, after: &Counters, elapsed: Duration) -> Option<Rates> {
    let new_flows = match (before.new_flows, after.new_flows) {
        (Some(before), Some(after)) => Some(rate(before, after, elapsed)?),
        (None, Some(_)) | (Some(_), None) | (None, None) => None,
    };
    Some(Rates {
        packets: rate(before.packets, after.packets, elapsed)?,
        bytes: rate(before.bytes, after.bytes, elapsed)?,
        new_flows,
    })
}

/// As above, of one counter.
pub(super) fn rate(before: u64, after: u64, elapsed: Duration) -> Option<f64> {
    let counted = after.checked_sub(before)?;
    (!elapsed.is_zero()).then(|| counted as f64 / elapsed.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_what_was_counted_by_the_time_between() {
        let elapsed = Duration::from_millis(500);
        let between = rates(&counters(10, 1_000, Some(1)), &counters(20, 2_500, Some(1)), elapsed);
        let want = Rates { packets: 20.0, bytes: 3_000.0, new_flows: Some(0.0) };
        assert_eq!(between, Some(want));
        let udp = rates(&counters(10, 1_000, None), &counters(10, 1_000, None), elapsed);
        assert_eq!(udp, Some(Rates { packets: 0.0, bytes: 0.0, new_flows: None }));
    }

    #[test]
    fn counters_that_began_anew_have_no_rate_until_the_next_sample() {
        let second = Duration::from_secs(1);
        let before = counters(1_000_000, 1_000_000, Some(1_000));
        for after in [
            counters(5, 500, Some(1)),
            // Bytes have already overtaken what they were, packets have not.
            counters(999_999, 9_000_000, Some(2_000)),
            counters(2_000_000, 2_000_000, Some(0)),
        ] {
            assert_eq!(rates(&before, &after, second), None, "{after:?}");
        }
    }

    #[test]
    fn without_time_between_there_is_no_rate() {
        let counters = counters(1, 1, None);
        assert_eq!(rates(&counters, &counters, Duration::ZERO), None);
    }

    fn counters(packets: u64, bytes: u64, new_flows: Option<u64>) -> Counters {
        Counters { packets, bytes, new_flows }
    }
}
