//! The clock of stamps: one that all threads share.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use mtr_format::tail;

use crate::hot::HOT;
use crate::log::file;
use crate::{arch, lifecycle, sys};

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

/// Ticks from one reading of the time to the next: to read it costs some 500.
const BETWEEN_READINGS: u64 = 1 << 22;
/// The stamp of the last reading.
static LAST_READING: AtomicU64 = AtomicU64::new(0);
/// Somebody is storing a reading.
static IS_READING: AtomicBool = AtomicBool::new(false);

/// To be called when a trace begins.
pub(crate) fn open() {
    LAST_READING.store(0, Ordering::Relaxed);
    IS_READING.store(false, Ordering::Relaxed);
}

/// Notes in the tail what time it is at `stamp`, which is now, so that stamps can be read as times
/// after a kill. It does so now and then.
#[cold]
#[inline(never)]
pub(super) fn note_time(stamp: u64) {
    let last = LAST_READING.load(Ordering::Relaxed);
    if stamp.saturating_sub(last) < BETWEEN_READINGS
        || sys::silence::is_silent()
        || IS_READING.swap(true, Ordering::AcqRel)
    {
        return;
    }
    LAST_READING.store(stamp, Ordering::Relaxed);
    if let Some((stamp, time)) = reading() {
        let word = |at: usize| {
            // SAFETY: the tail's first page stays mapped and is aligned; these words are only used as
            // atomics.
            unsafe { &*file::tail().add(at).cast::<AtomicU64>() }
        };
        let number = word(tail::CLOCK).load(Ordering::Relaxed) + 1;
        let place = tail::CLOCK_READINGS + 16 * (number & 1) as usize;
        word(place).store(stamp, Ordering::Relaxed);
        word(place + 8).store(time, Ordering::Relaxed);
        // The reading before stays until this one is whole.
        word(tail::CLOCK).store(number, Ordering::Release);
    }
    IS_READING.store(false, Ordering::Release);
}

/// A stamp and its time; `None` where stamps are no ticks of the processor, or this thread loses it
/// each time in between.
pub(crate) fn reading() -> Option<(u64, u64)> {
    /// Some 40 us.
    const LONGEST: u64 = 1 << 17;
    if IS_FORBIDDEN.load(Ordering::Relaxed) {
        return None;
    }
    (0..4).find_map(|_| {
        let (stamp, time) = (arch::ticks(), lifecycle::time());
        (arch::ticks().saturating_sub(stamp) < LONGEST).then_some((stamp, time))
    })
}
