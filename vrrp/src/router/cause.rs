//! Why a virtual router is in its state, for a person.

use std::{fmt, net::IpAddr, time::Duration};

use super::Heard;

/// Why a virtual router is in the state that it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It was never started.
    New,
    /// It was started.
    Started,
    /// It was started and owns the VIPs.
    Owner,
    /// It was started and had the VIPs already.
    Held,
    /// Nothing was heard from an active router for so long.
    Silence(Duration),
    /// The active router resigned.
    ActiveResigned(IpAddr),
    /// A router of lower priority was active.
    Preempted(Heard),
    /// A router of higher priority, or the same and a higher address, is active.
    Better(Heard),
    /// It was started and had the VIPs already, as an active router has, which it is not to preempt.
    ActiveAlready(IpAddr),
    /// Shut down while it had the VIPs.
    Resigned,
    /// Shut down without them.
    Stopped,
    /// Resigned, and another took over.
    Succeeded(IpAddr),
    /// Resigned, and nobody took over in time.
    NoSuccessor,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::New => f.write_str("not started"),
            Self::Started => f.write_str("started"),
            Self::Owner => f.write_str("started as the owner of the VIPs"),
            Self::Held => f.write_str("started with the VIPs in place"),
            Self::Silence(time) => write!(f, "no advertisement for {} ms", time.as_millis()),
            Self::ActiveResigned(from) => write!(f, "{from} resigned"),
            Self::Preempted(Heard { from, priority, .. }) => {
                write!(f, "{from} has the lower priority {priority}")
            }
            Self::Better(Heard { from, priority, .. }) => {
                write!(f, "{from} has priority {priority}")
            }
            Self::ActiveAlready(from) => write!(f, "{from} is active already"),
            Self::Resigned => f.write_str("resigned"),
            Self::Stopped => f.write_str("stopped"),
            Self::Succeeded(from) => write!(f, "{from} took over"),
            Self::NoSuccessor => f.write_str("nobody took over"),
        }
    }
}
