//! What glibc's thread descriptor says of a thread's stack: it costs less than half a microsecond
//! where the kernel's answer costs four.
//!
//! The descriptor (`struct pthread`, nptl/descr.h) is at the thread pointer. It has three words that
//! follow each other in every version: where the memory of the stack begins, how long it is, and how
//! much of it, from the beginning, is guard. Where in the descriptor is another matter, so that is
//! learned: from the first thread whose stack the kernel has described, by finding what it said.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::sys;

/// Distance of the three words from the thread pointer; 0: not known.
static PLACE: AtomicU64 = AtomicU64::new(0);

/// Where the words are looked for: the descriptor is smaller (2,304 bytes in glibc 2.36).
const SEARCHED: u64 = 4096;
/// How far behind the thread pointer the memory of a stack may end: the descriptor, up to a page.
const MOST_BEHIND: u64 = 16 << 10;
const PAGE: u64 = 4096;

/// The three words.
#[repr(C)]
#[derive(Clone, Copy)]
struct Words {
    start: u64,
    len: u64,
    guard: u64,
}

impl Words {
    /// Where the stack of the thread begins, above its guard; `None` if this cannot be one: it is
    /// the program's (it has no guard then) or not glibc's.
    fn stack(&self, thread_pointer: u64) -> Option<u64> {
        let low = self.start.checked_add(self.guard)?;
        let behind = self.start.checked_add(self.len)?.checked_sub(thread_pointer)?;
        let is_sound = self.guard != 0
            && (self.start | self.guard).is_multiple_of(PAGE)
            && low < thread_pointer
            && behind <= MOST_BEHIND;
        is_sound.then_some(low)
    }
}

/// Where this thread's stack begins, if its descriptor says so in a way that can be trusted.
pub(super) fn stack(thread_pointer: u64) -> Option<u64> {
    let place = PLACE.load(Ordering::Relaxed);
    if place == 0 {
        return None;
    }
    let at = thread_pointer.checked_add(place)?;
    // A thread of the bare system call may have less behind its thread pointer.
    if !sys::is_readable(at) || !sys::is_readable(at + 16) {
        return None;
    }
    // SAFETY: just asked for; the descriptor of a running thread stays.
    let words = unsafe { (at as *const Words).read_volatile() };
    words.stack(thread_pointer)
}

/// Learns from a thread whose stack the kernel has described: its guard is `guard..low`.
///
/// # Safety
/// The thread is this one, and `low..end` can be read.
pub(super) unsafe fn learn(thread_pointer: u64, guard: u64, low: u64, end: u64) {
    let end = end.min(thread_pointer + SEARCHED);
    let mut at = thread_pointer + 8;
    while at + size_of::<Words>() as u64 <= end && PLACE.load(Ordering::Relaxed) == 0 {
        // SAFETY: the caller's promise; a multiple of 8, as the thread pointer is.
        let words = unsafe { (at as *const Words).read_volatile() };
        if words.start == guard && words.stack(thread_pointer) == Some(low) {
            PLACE.store(at - thread_pointer, Ordering::Relaxed);
        }
        at += 8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_make_no_stack_are_none() {
        let words = |start, len, guard| Words { start, len, guard };
        let (start, len) = (0x7f00_0000_0000, 0x10_0000);
        let pointer = start + len - 0x900;
        assert_eq!(words(start, len, 0x1000).stack(pointer), Some(start + 0x1000));
        // The program's own stack, the main thread's, and what is anything else.
        assert_eq!(words(start, len, 0).stack(pointer), None);
        assert_eq!(words(0, start + len, 0).stack(pointer), None);
        assert_eq!(words(start + 8, len, 0x1000).stack(pointer), None);
        assert_eq!(words(start, len, len).stack(pointer), None);
        assert_eq!(words(start, len + 0x10_0000, 0x1000).stack(pointer), None);
        assert_eq!(words(start, 0x1000, 0x1000).stack(pointer), None);
        assert_eq!(words(u64::MAX, len, 0x1000).stack(pointer), None);
        assert_eq!(words(start, u64::MAX, 0x1000).stack(pointer), None);
    }
}
