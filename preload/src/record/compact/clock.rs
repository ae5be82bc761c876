//! The clock of stamps: one that all threads share.

use core::sync::atomic::{AtomicBool, Ordering};

use crate::arch;
use crate::hot::HOT;

/// The processor's time stamp counter must not be read: it would be a signal.
static IS_FORBIDDEN: AtomicBool = AtomicBool::new(false);

/// To be called before the program gives up reading the time stamp counter (prctl(2), PR_SET_TSC;
/// strict seccomp does the same).
pub(crate) fn forbid() {
    /// Ticks by which a stamp that another thread is about to take may be newer.
    const MARGIN: u64 = 1 << 34;
    if IS_FORBIDDEN.load(Ordering::Acquire) {
        return;
    }
    // What is counted from here on is newer than what was read.
    HOT.latest.0.fetch_max(arch::ticks_after_loads() + MARGIN, Ordering::AcqRel);
    IS_FORBIDDEN.store(true, Ordering::Release);
}

/// Ticks.
#[inline(always)]
pub(super) fn now() -> u64 {
    if IS_FORBIDDEN.load(Ordering::Relaxed) { count() } else { arch::ticks() }
}

/// Ticks. Whoever has learned of another thread's event gets a larger number than that thread did
/// before it.
#[inline(always)]
pub(super) fn now_after_all() -> u64 {
    if IS_FORBIDDEN.load(Ordering::Relaxed) { count() } else { arch::ticks_after_loads() }
}

/// A clock that ticks when it is read.
#[cold]
fn count() -> u64 {
    HOT.latest.0.fetch_add(1, Ordering::AcqRel) + 1
}
