//! VRRP version 3 over IPv4 (RFC 9568).
//!
//! [`packet`] has the advertisement as bytes, [`filter`] decides which received packets to heed, and
//! [`router`] is the protocol as a state machine. [`io`] drives it on a thread of its own, with
//! sockets, timers, addresses and announcements.
//!
//! **Invariant:** no clock and no socket outside [`io`].
//!
//! **Invariant:** nothing that a stranger can send causes a panic or a line in the log; it is counted.
#![warn(missing_docs)]

mod checksum;
pub mod filter;
pub mod io;
pub mod packet;
pub mod router;

pub use io::{Observer, Role, RouterConfig, RouterSnapshot, StartError, Vip, Vrrp};
