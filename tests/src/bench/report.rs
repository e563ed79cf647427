//! What a bench found out, as people's scripts read it.

use anyhow::Context;
use serde::Serialize;

use super::{
    bar::{Bar, bars},
    case::{Case, Subject},
    tables::TableReport,
};
use crate::report::Verdict;

/// The report as JSON has it: fields are added, never renamed.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub kernel: String,
    /// What `insns` counts.
    pub insns_unit: &'static str,
    /// What the entry program costs with one flow; taken off every `ns_*`, part of every
    /// `gross_ns_*`.
    pub entry_ns: f64,
    pub cases: Vec<CaseReport>,
    /// What the daemon's part costs, where that was measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tables: Option<TableReport>,
    pub bars: Vec<Bar>,
    pub verdict: Verdict,
}

/// Nanoseconds per packet; without the entry program, as if the kernel's loop ran the program
/// itself.
#[derive(Clone, Debug, Serialize)]
pub struct CaseReport {
    pub name: String,
    pub flows: u32,
    pub ns_min: f64,
    pub ns_median: f64,
    pub ns_max: f64,
    pub insns: u32,
    /// With the entry program.
    pub gross_ns_min: f64,
    pub gross_ns_median: f64,
    pub gross_ns_max: f64,
    /// The entry program's part.
    pub entry_ns: f64,
    /// Repetitions at full speed, of all.
    pub kept: usize,
    pub repetitions: usize,
}

/// A case's repetitions at full speed.
pub(super) struct Taken {
    pub(super) case: Case,
    /// Per packet.
    pub(super) ns: Vec<f64>,
    pub(super) of: usize,
    pub(super) instructions: u32,
}

impl Report {
    /// `floor` is the case that needs no entry program.
    pub(super) fn new(taken: &[Taken], floor: &Taken) -> anyhow::Result<Self> {
        let floor_ns = spread(&floor.ns).context("the floor has no repetition")?[1];
        let entry = |flows| -> anyhow::Result<f64> {
            let entry = taken.iter().find(|one| one.case.is_entry_for(flows));
            let entry = entry.and_then(|entry| spread(&entry.ns));
            Ok(entry.with_context(|| format!("no entry for {flows} flows"))?[1] - floor_ns)
        };
        let mut cases = Vec::new();
        for one in taken {
            let entry_ns = match one.case.subject {
                Subject::FloorPass => 0.0,
                // Its figure is the floor's by definition.
                Subject::Entry => continue,
                Subject::FloorTx | Subject::Director => entry(one.case.flows)?,
            };
            cases.push(CaseReport::new(one, entry_ns)?);
        }
        let bars = bars(&cases);
        let passed = bars.iter().all(|bar| bar.verdict == Verdict::Pass);
        let uname = nix::sys::utsname::uname().context("ask for the kernel's release")?;
        Ok(Self {
            kernel: uname.release().to_string_lossy().into_owned(),
            insns_unit: "BPF instructions after the verifier, before the JIT (xlated)",
            entry_ns: tenth(entry(1)?),
            cases,
            tables: None,
            bars,
            verdict: if passed { Verdict::Pass } else { Verdict::Fail },
        })
    }
}

impl CaseReport {
    fn new(taken: &Taken, entry_ns: f64) -> anyhow::Result<Self> {
        let name = taken.case.name;
        let [min, median, max] =
            spread(&taken.ns).with_context(|| format!("{name} has no repetition"))?;
        Ok(Self {
            name: name.to_owned(),
            flows: taken.case.flows,
            ns_min: tenth(min - entry_ns),
            ns_median: tenth(median - entry_ns),
            ns_max: tenth(max - entry_ns),
            insns: taken.instructions,
            gross_ns_min: tenth(min),
            gross_ns_median: tenth(median),
            gross_ns_max: tenth(max),
            entry_ns: tenth(entry_ns),
            kept: taken.ns.len(),
            repetitions: taken.of,
        })
    }
}

/// No measurement here is good for more.
fn tenth(ns: f64) -> f64 {
    (ns * 10.0).round() / 10.0
}

/// Minimum, median and maximum.
pub(super) fn spread(values: &[f64]) -> Option<[f64; 3]> {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    Some([*values.first()?, *values.get(values.len() / 2)?, *values.last()?])
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::bench::case::cases;

    #[test]
    fn the_json_has_the_firm_fields_and_the_entry_is_taken_off() {
        let mut report = example();
        report.kernel = "6.18".to_owned();
        report.cases.truncate(2);
        report.bars.truncate(1);
        insta::assert_snapshot!(serde_json::to_string_pretty(&report).unwrap());
    }

    #[test]
    fn the_median_is_one_that_was_measured() {
        assert_eq!(spread(&[5.0, 1.0, 9.0]), Some([1.0, 5.0, 9.0]));
        assert_eq!(spread(&[]), None);
    }

    /// Each case a nanosecond dearer than the one before.
    pub(in crate::bench) fn example() -> Report {
        let taken: Vec<_> = cases()
            .into_iter()
            .zip(10_u32..)
            .map(|(case, ns)| Taken {
                ns: [0.0, 0.26, 0.5].map(|more| f64::from(ns) + more).to_vec(),
                of: 4,
                instructions: ns,
                case,
            })
            .collect();
        Report::new(&taken, &taken[0]).unwrap()
    }
}
