//! The bench: what the XDP program costs per packet, measured with `BPF_PROG_TEST_RUN`.
//!
//! The kernel restores neither the packet nor its pointers between the repeats of a test run, so
//! a program would be timed on its own output. The entry program of `lb-ebpf/src/bin/lb-bench.rs`
//! restores both, gives every packet the next flow and tail-calls the program under test. What
//! that costs is measured beside everything else, and is taken off: a figure is what the program
//! would cost if the kernel's loop ran it directly.
//!
//! **Invariant:** cases are interleaved, and only repetitions beside which the control loop ran at
//! full speed count, so that a change of the machine's speed cannot pass for one of the program.

mod bar;
mod case;
mod chart;
pub mod compare;
mod director;
mod entry;
mod measure;
mod report;
mod speed;
mod table;
mod tables;

pub use bar::Bar;
pub use case::{Case, cases};
pub use chart::draw;
pub use measure::{Plan, Progress, run};
pub use report::{CaseReport, Report};
pub use table::describe;
pub use tables::{TableReport, measure as measure_tables};
