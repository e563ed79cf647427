//! `lbd`, the daemon of a director, and `lbctl`, its command line.
//!
//! Pure modules (`config`, `maglev`, `reconcile`, `service`) do no I/O and read no clock.

pub mod config;
pub mod control;
pub mod daemon;
pub mod dataplane;
pub mod failover;
pub mod lbctl;
pub mod maglev;
pub mod neighbour;
pub mod reconcile;
pub mod service;
