//! What the figures must not exceed: ratios, as those hold on another machine as well.

use serde::Serialize;

use super::report::CaseReport;
use crate::report::Verdict;

/// One case's median against another's of the same run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Bar {
    pub what: String,
    pub ratio: f64,
    pub limit: f64,
    pub verdict: Verdict,
}

/// A case by name and flows.
type Of = (&'static str, u32);

const BARS: [(Of, Of, f64); 6] = [
    (("tcp4-dr", 1), ("floor-tx", 1), 3.0),
    (("tcp4-dr", 65_536), ("tcp4-dr", 1), 1.3),
    (("tcp4-dr", 1_000_000), ("tcp4-dr", 1), 1.3),
    (("syn4-dr", 1), ("tcp4-dr", 1), 1.2),
    (("syn4-dr", 1_000_000), ("tcp4-dr", 1_000_000), 1.2),
    (("non-vip", 1), ("floor-tx", 1), 2.0),
];

/// Those whose cases were both measured.
pub(super) fn bars(cases: &[CaseReport]) -> Vec<Bar> {
    let median = |(name, flows): Of| {
        let case = cases.iter().find(|case| case.name == name && case.flows == flows);
        case.map(|case| case.ns_median)
    };
    let judged = |&(of, to, limit): &(Of, Of, f64)| {
        let ratio = (median(of)? / median(to)? * 100.0).round() / 100.0;
        let verdict = if ratio <= limit { Verdict::Pass } else { Verdict::Fail };
        Some(Bar { what: described(of, to), ratio, limit, verdict })
    };
    BARS.iter().filter_map(judged).collect()
}

fn described((name, flows): Of, (to, to_flows): Of) -> String {
    let of_flows =
        |flows: u32| if flows == 1 { "1 flow".to_owned() } else { format!("{flows} flows") };
    match (name == to, flows == to_flows) {
        (true, _) => format!("{name}: {} to {}", of_flows(flows), of_flows(to_flows)),
        (false, true) => format!("{name} to {to}, {}", of_flows(flows)),
        (false, false) => format!("{name}, {} to {to}, {}", of_flows(flows), of_flows(to_flows)),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::report::tests::example, *};

    #[test]
    fn a_bar_fails_where_the_ratio_is_above_its_limit() {
        let mut cases = example().cases;
        for case in &mut cases {
            case.ns_median = match (case.name.as_str(), case.flows) {
                ("floor-tx", _) => 10.0,
                ("tcp4-dr", 1) => 30.0,
                ("tcp4-dr", _) => 40.0,
                _ => 20.0,
            };
        }
        let bars = bars(&cases);
        assert_eq!(bars.len(), BARS.len());
        assert_eq!((bars[0].ratio, bars[0].verdict), (3.0, Verdict::Pass));
        assert_eq!((bars[1].ratio, bars[1].verdict), (1.33, Verdict::Fail));
        assert_eq!(bars[1].what, "tcp4-dr: 65536 flows to 1 flow");
        assert_eq!(bars[3].what, "syn4-dr to tcp4-dr, 1 flow");
    }

    #[test]
    fn what_was_not_measured_is_not_judged() {
        assert_eq!(bars(&example().cases[..2]), []);
    }
}
