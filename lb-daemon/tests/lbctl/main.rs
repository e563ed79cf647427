//! `lbctl` as the operator meets it, and the API under it, against a daemon that is a fake.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod api;
mod errors;
mod fake;
mod stats;
mod tables;
