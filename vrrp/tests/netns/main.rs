//! Two directors in network namespaces of their own, joined by a cable; needs root.
#![expect(clippy::unwrap_used, reason = "a test fails by it")]

mod handover;
mod lan;
mod panic;
mod reconfiguration;
mod upkeep;
