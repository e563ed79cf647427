//! VRRP version 3 over IPv4 (RFC 9568).
//!
//! [`packet`] has the advertisement as bytes, [`filter`] decides which received packets to heed, and
//! [`router`] is the protocol as a state machine. [`io`] drives it on a thread of its own, with
//! sockets, timers, addresses and announcements.
//!
//! ```
//! use std::time::{Duration, Instant};
//! use vrrp::router::{Action, Event, Params, VirtualRouter};
//!
//! let mut router = VirtualRouter::new(Params {
//!     primary: [192, 0, 2, 5].into(),
//!     priority: 100.try_into()?,
//!     interval: Duration::from_secs(1),
//!     preempt: true,
//!     preempt_delay: Duration::ZERO,
//! });
//! let now = Instant::now();
//! assert_eq!(router.handle(now, Event::Startup { holding: false }), []);
//! // Nobody is heard for three intervals and the skew time.
//! let later = now + Duration::from_micros(3_609_375);
//! assert_eq!(router.deadline(), Some(later));
//! assert_eq!(router.handle(later, Event::Timeout)[0], Action::TakeVips);
//! # Ok::<(), std::num::TryFromIntError>(())
//! ```
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
