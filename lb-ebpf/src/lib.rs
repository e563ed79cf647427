//! The XDP programs of a director, and what they share with the daemon.
//!
//! Everything but the entry points (`src/bin`) is plain `no_std` Rust without a helper call, so
//! that the very code that meets packets also runs in tests on the host: `director` takes its
//! maps through a trait.

#![no_std]

#[cfg(test)]
extern crate std;

pub mod abi;
pub mod director;
pub mod flow;
pub mod hash;
pub mod header;
pub mod packet;
pub mod reset;
pub mod tracking;
pub mod verdict;
