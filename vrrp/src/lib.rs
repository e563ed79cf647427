//! VRRP version 3 over IPv4 (RFC 9568).
//!
//! **Invariant:** no clock and no socket outside [`io`].
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod io;
