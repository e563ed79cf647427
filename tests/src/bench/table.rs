//! The report for a person, at most 100 columns wide.

use std::fmt::Write as _;

use super::{
    report::{CaseReport, Report},
    tables,
};

/// The table, what it means, and the bars.
pub fn describe(report: &Report) -> String {
    let mut text = format!(
        "{:<22}{:>10}   {:>26}   {:>9}{:>8}{:>8}\n{:<22}{:>10}   {:>8} {:>8} {:>8}   {:>9}{:>8}{:>8}\n",
        "",
        "",
        "net ns per packet",
        "gross",
        "",
        "",
        "case",
        "flows",
        "min",
        "median",
        "max",
        "median",
        "insns",
        "kept"
    );
    for case in &report.cases {
        let _ = writeln!(text, "{}", row(case));
    }
    let _ = writeln!(
        text,
        "\nnet: without the entry program, which restores the packet and varies the flow; that is \
         {:.1} ns,\npart of gross. floor-pass is the kernel's own loop, and part of every figure{}.\n\
         insns: {}.\n\
         kept: repetitions, in per cent, beside which the machine ran at full speed. Kernel {}.",
        report.entry_ns,
        alone(report),
        report.insns_unit,
        report.kernel
    );
    let _ = writeln!(text, "\n{:<48}{:>8}{:>10}", "medians, one to another", "ratio", "at most");
    for bar in &report.bars {
        let verdict = bar.verdict.as_str();
        let _ = writeln!(text, "{:<48}{:>8.2}{:>10.1}   {verdict}", bar.what, bar.ratio, bar.limit);
    }
    text.extend(report.tables.as_ref().map(tables::describe));
    text
}

/// What the ratios would be of, did a packet cost the kernel nothing: they depend on the machine.
fn alone(report: &Report) -> String {
    let median = |name: &str| {
        let case = report.cases.iter().find(|case| case.name == name && case.flows == 1);
        case.map(|case| case.ns_median)
    };
    let (Some(pass), Some(tx), Some(dr)) =
        (median("floor-pass"), median("floor-tx"), median("tcp4-dr"))
    else {
        return String::new();
    };
    format!(";\nwithout that loop floor-tx is {:.1} ns and tcp4-dr {:.1} ns", tx - pass, dr - pass)
}

fn row(case: &CaseReport) -> String {
    let kept = case.kept * 100 / case.repetitions.max(1);
    format!(
        "{:<22}{:>10}   {:>8.1} {:>8.1} {:>8.1}   {:>9.1}{:>8}{kept:>7}%",
        case.name,
        case.flows,
        case.ns_min,
        case.ns_median,
        case.ns_max,
        case.gross_ns_median,
        case.insns
    )
}

#[cfg(test)]
mod tests {
    use super::{super::report::tests::example, *};

    #[test]
    fn the_table_has_every_case_and_fits_a_hundred_columns() {
        let report = example();
        let text = describe(&report);
        for line in text.lines() {
            assert!(line.chars().count() <= 100, "{line}");
        }
        for case in &report.cases {
            let row = row(case);
            assert!(text.contains(&row) && row.contains(&case.name), "{row}");
        }
        assert_eq!(text.matches("pass\n").count() + text.matches("fail\n").count(), 6);
    }
}
