//! Keeps the VRRP thread from waiting for memory or for the processor.
#![expect(unsafe_code, reason = "no safe wrapper of sched_setscheduler among our dependencies")]

use nix::{
    errno::Errno,
    libc,
    sys::mman::{MlockAllFlags, mlockall},
};
use tracing::warn;

/// Above all that is not real-time, below the kernel's own threads.
const PRIORITY: i32 = 10;

/// Locks the memory of the process and gives the calling thread a real-time priority.
///
/// What is not permitted is left out with a warning: short advertisement intervals need both.
pub(super) fn enter() {
    if let Err(error) = lock_memory() {
        warn!(%error, "memory is not locked, a takeover may wait for the disk");
    }
    if let Err(error) = round_robin() {
        warn!(%error, "no real-time priority, advertisements may be late under load");
    }
}

/// What is mapped now is brought in now; what is mapped later is locked page by page as it is used,
/// so that the stacks of other threads do not take their whole size.
fn lock_memory() -> nix::Result<()> {
    mlockall(MlockAllFlags::MCL_CURRENT)?;
    let on_fault = MlockAllFlags::from_bits_retain(libc::MCL_ONFAULT);
    mlockall(MlockAllFlags::MCL_FUTURE | on_fault)
}

fn round_robin() -> nix::Result<()> {
    let parameters = libc::sched_param { sched_priority: PRIORITY };
    // SAFETY: `parameters` lives until the call returns, and the kernel only reads it.
    let result = unsafe {
        // 0 is the calling thread. What it spawns shall not inherit the priority.
        libc::sched_setscheduler(
            0,
            libc::SCHED_RR | libc::SCHED_RESET_ON_FORK,
            &raw const parameters,
        )
    };
    Errno::result(result).map(drop)
}
