//! States of threads that have ended: a list without locks, the last one put is the first one taken,
//! because its memory is in the cache.
//!
//! A state is never unmapped, so the link of one that somebody else has just taken can be read. The
//! upper bits of the head count what was put, so that a head which was taken and put again meanwhile
//! is not taken for the one that was read.

use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use super::thread::State;

/// The next state in the pool.
pub(super) type Link = AtomicPtr<State>;

/// Bits of the address of a state.
const ADDRESS_BITS: u32 = 48;

/// Address of the first state and, above it, the count. A fork's child finds it as it was at some
/// moment, which is a sound list.
static HEAD: AtomicU64 = AtomicU64::new(0);

fn address(head: u64) -> *mut State {
    (head & ((1 << ADDRESS_BITS) - 1)) as *mut State
}

pub(super) fn take() -> Option<*mut State> {
    let mut head = HEAD.load(Ordering::Acquire);
    loop {
        let state = address(head);
        // SAFETY: a state, which is never unmapped.
        let next = unsafe { &state.as_ref()?.next }.load(Ordering::Relaxed) as u64;
        let without = head >> ADDRESS_BITS << ADDRESS_BITS | next;
        match HEAD.compare_exchange(head, without, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => return Some(state),
            Err(found) => head = found,
        }
    }
}

/// # Safety
/// `state` is a state that nobody has in use.
pub(super) unsafe fn put(state: *mut State) {
    let mut head = HEAD.load(Ordering::Relaxed);
    loop {
        // SAFETY: the caller's promise.
        unsafe { &(*state).next }.store(address(head), Ordering::Relaxed);
        let count = (head >> ADDRESS_BITS).wrapping_add(1) << ADDRESS_BITS;
        let with = count | state as u64;
        match HEAD.compare_exchange(head, with, Ordering::AcqRel, Ordering::Relaxed) {
            Ok(_) => return,
            Err(found) => head = found,
        }
    }
}
