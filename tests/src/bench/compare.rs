//! The comparison: DR by `lbd` beside what one would use in its place, on the same lab.
//!
//! [`packets`] counts CPU time per packet over cables, without a bridge; [`connections`] opens TCP
//! connections and moves bytes on the [`Lab`](crate::lab::Lab), through each system in turn.

mod cable;
mod chart;
mod connections;
mod generator;
mod lbd;
mod load;
mod packets;
mod peer;
mod report;
mod table;

use std::path::Path;

use anyhow::Context;

pub use chart::draw;
pub use report::Comparison;
pub use table::describe;

use super::Progress;
use crate::{director::Binaries, leftovers};

/// Compares all systems.
pub fn run(bin_dir: &Path, progress: &dyn Progress) -> anyhow::Result<Comparison> {
    let binaries = Binaries::in_dir(bin_dir)?;
    leftovers::sweep();
    let mut systems = packets::measure(&binaries, progress).context("CPU time per packet")?;
    for measured in connections::measure(&binaries, progress).context("connections")? {
        match systems.iter_mut().find(|system| system.name == measured.name) {
            Some(system) => system.add(measured),
            None => systems.push(measured),
        }
    }
    let uname = nix::sys::utsname::uname().context("ask for the kernel's release")?;
    Ok(Comparison { kernel: uname.release().to_string_lossy().into_owned(), systems })
}
