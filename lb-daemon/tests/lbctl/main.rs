//! `lbctl` as the operator meets it, and the API under it, against a daemon that is a fake.

mod api;
mod errors;
mod fake;
mod tables;
