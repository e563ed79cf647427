//! The comparison for a person, at most 100 columns wide.

use std::fmt::Write as _;

use super::report::{Comparison, Spread};

/// The table, and what it can and cannot tell.
pub fn describe(comparison: &Comparison) -> String {
    let mut text = format!(
        "{:<15}{:>25}{:>24}{:>16}{:>16}\n{:<15}{:>25}{:>24}{:>16}{:>16}\n",
        "",
        "CPU ns per packet",
        "connections/s",
        "up Gbit/s",
        "down Gbit/s",
        "median, and from-to",
        "",
        "",
        "",
        ""
    );
    for system in &comparison.systems {
        let _ = writeln!(
            text,
            "{:<15}{:>25}{:>24}{:>16}{:>16}",
            system.name,
            cell(system.cpu_ns_per_packet, 0),
            cell(system.connections_per_second, 0),
            cell(system.upload_gbit_per_s, 1),
            cell(system.download_gbit_per_s, 1),
        );
    }
    let _ = writeln!(text, "\n{NOTE}\nKernel {}.", comparison.kernel);
    text
}

const NOTE: &str = "\
CPU per packet: all CPU time, that of generator, links and receiver included (`generator`: those
alone, over one cable; `xdp-tx`: and back), for 64-byte UDP packets of 16,384 flows over cables
without a bridge. Proxies forward no packets. For the comparison, this is the column to trust.
Connections: one byte each way, over the lab's bridge; client, director and real servers share the
CPUs, so a system that uses less leaves more to them.
Bulk: over virtual cables without offloads. It shows that bytes flow, not how fast a datapath is:
who gathers packets into larger ones wins. With DR, downloads do not pass the director at all.";

fn cell(spread: Option<Spread>, digits: usize) -> String {
    spread.map_or("-".to_owned(), |Spread { min, median, max }| {
        format!("{median:.digits$} ({min:.digits$}-{max:.digits$})")
    })
}

#[cfg(test)]
mod tests {
    use super::{super::report::tests::example, *};

    #[test]
    fn the_table_fits_a_hundred_columns_and_leaves_out_what_does_not_apply() {
        let text = describe(&example());
        for line in text.lines() {
            assert!(line.chars().count() <= 100, "{line}");
        }
        assert!(text.contains("300 (270-330)"), "{text}");
        assert!(text.contains("20000 (18000-22000)"), "{text}");
        let proxy = text.lines().find(|line| line.starts_with("nginx-stream")).unwrap();
        assert_eq!(proxy.split_whitespace().nth(1), Some("-"));
    }
}
