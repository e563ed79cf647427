//! `lbd`, the daemon of a director, and `lbctl`, its command line.
//!
//! Pure modules (`config`, `generation`, `maglev`, `ports`, `reconcile`, `service`) do no I/O and read no clock.

pub mod config;
pub mod control;
pub mod daemon;
pub mod dataplane;
pub mod failover;
pub mod generation;
pub mod lbctl;
pub mod maglev;
pub mod neighbour;
mod ports;
pub mod reconcile;
pub mod service;

/// An error and all its causes, in one line.
pub fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
