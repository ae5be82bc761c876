//! Where chunks of a compact trace are filled: slots of the mapped tail file, one for each stream.
//!
//! Memory for all slots is reserved at once. The file is given to as many as there are streams, some
//! ahead; where it cannot be (no room, no way to open it any more), a slot is memory alone, and a
//! kill loses what is in it.

use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicUsize, Ordering};

use mtr_format::compact::chunk;
use mtr_format::tail;

use super::open;
use crate::hot::HOT;
use crate::record::compact::clock;
use crate::sys;

/// Most slots.
pub(crate) const MOST: usize = 4096;
/// Slots that the file has at first.
const FIRST: usize = 8;

/// The mapped tail.
static TAIL: AtomicPtr<u8> = AtomicPtr::new(core::ptr::null_mut());
/// Slots that memory is reserved for.
static RESERVED: AtomicUsize = AtomicUsize::new(0);
/// Slots, from the first, that the file has.
static IN_FILE: AtomicUsize = AtomicUsize::new(0);
/// Slots, from the first, that are taken.
static TAKEN: AtomicUsize = AtomicUsize::new(0);
/// Slots, from the last, that are taken, and stay memory alone.
static TAKEN_AT_END: AtomicUsize = AtomicUsize::new(0);
/// No more slots can be given to the file.
static IS_FULL: AtomicBool = AtomicBool::new(false);
/// The trace is being finished: what is recorded is written out at once.
static IS_CLOSED: AtomicBool = AtomicBool::new(false);

/// Bytes of a tail with this many slots.
const fn len(slots: usize) -> usize {
    tail::SLOTS + slots * chunk::CHUNK
}

/// Bytes of the mapping.
pub(super) fn mapped_len() -> usize {
    len(RESERVED.load(Ordering::Relaxed))
}

/// Reserves memory for a tail; zeroed.
pub(super) fn reserve() -> sys::Result<*mut u8> {
    let mut slots = MOST;
    loop {
        match sys::map_anonymous(len(slots)) {
            Ok(at) => {
                RESERVED.store(slots, Ordering::Relaxed);
                return Ok(at);
            }
            Err(_) if slots > FIRST => slots /= 8,
            Err(errno) => return Err(errno),
        }
    }
}

/// Makes all slots of a new tail free.
///
/// # Safety
/// `tail` is what [`reserve`] returned, of a process that records nothing yet.
pub(super) unsafe fn open(tail: *mut u8, id: u64) {
    TAIL.store(tail, Ordering::Relaxed);
    IN_FILE.store(0, Ordering::Relaxed);
    TAKEN.store(0, Ordering::Relaxed);
    TAKEN_AT_END.store(0, Ordering::Relaxed);
    IS_FULL.store(false, Ordering::Relaxed);
    IS_CLOSED.store(false, Ordering::Relaxed);
    // The front of the trace is room for one chunk.
    HOT.cursor.0.store(chunk::CHUNK as u64, Ordering::Relaxed);
    HOT.latest.0.store(0, Ordering::Relaxed);
    clock::open();
    grow(FIRST);
    // SAFETY: the front of the tail; the words lie in it at their natural alignment.
    unsafe {
        tail.add(tail::ID).cast::<u64>().write(id);
        tail.add(tail::BLOCK_SIZE).cast::<u32>().write(chunk::CHUNK as u32);
        tail.cast::<[u8; 8]>().write(tail::MAGIC2);
    }
}

/// A slot that nobody has.
pub(crate) fn take() -> Option<*mut u8> {
    // Without system calls a slot that is memory alone would never be written out.
    let at_end = || if sys::silence::is_silent() { None } else { take_at_end() };
    let slot = take_in_file().or_else(at_end)?;
    // SAFETY: below the number of reserved slots.
    Some(unsafe { TAIL.load(Ordering::Relaxed).add(len(slot)) })
}

fn take_in_file() -> Option<usize> {
    loop {
        let taken = TAKEN.load(Ordering::Acquire);
        if taken >= IN_FILE.load(Ordering::Acquire) {
            // Where others are at it too, each of them does it: nobody waits.
            if IS_FULL.load(Ordering::Relaxed) || !grow(IN_FILE.load(Ordering::Relaxed) * 2) {
                // There is no point in trying each time.
                IS_FULL.store(true, Ordering::Relaxed);
                return None;
            }
            continue;
        }
        let (order, otherwise) = (Ordering::AcqRel, Ordering::Relaxed);
        if TAKEN.compare_exchange(taken, taken + 1, order, otherwise).is_ok() {
            return Some(taken);
        }
    }
}

/// Gives free slots to the file, up to so many: the last chance, because system calls are about to
/// become impossible.
pub(crate) fn make_room(slots: usize) {
    let taken = TAKEN.load(Ordering::Acquire);
    // A disk that has no room for all of them may have some for less.
    let less = |slots: &usize| (*slots > FIRST).then_some(slots / 4);
    let mut sizes = core::iter::successors(Some(slots), less);
    sizes.any(|slots| grow(taken + slots));
}

fn take_at_end() -> Option<usize> {
    let reserved = RESERVED.load(Ordering::Relaxed);
    let from_end = TAKEN_AT_END.fetch_add(1, Ordering::AcqRel) + 1;
    // The lower half may become the file's.
    (from_end <= reserved / 2).then(|| reserved - from_end)
}

/// Gives so many slots to the file, up to half of all; true also where somebody else has. Several
/// threads may be here: they map the same bytes of the file to the same place, which changes nothing of
/// what is in them already.
fn grow(wanted: usize) -> bool {
    let (reserved, now) = (RESERVED.load(Ordering::Relaxed), IN_FILE.load(Ordering::Acquire));
    let slots = wanted.max(FIRST).min(reserved / 2);
    let tail = TAIL.load(Ordering::Relaxed);
    // What is in the file already stays mapped as it is: its front has been written to.
    let from = if now == 0 { 0 } else { len(now) };
    // SAFETY: the part of the reserved memory of which no slot has been taken, or one of this file.
    if slots <= now || unsafe { open::map_into_tail(tail, from, len(slots)) }.is_err() {
        return IN_FILE.load(Ordering::Acquire) > now;
    }
    // SAFETY: the front of the tail, at its natural alignment; readers may look at any time.
    let count = unsafe { &*tail.add(tail::BLOCK_COUNT).cast::<AtomicU32>() };
    // Somebody may have come further meanwhile.
    count.fetch_max(slots as u32, Ordering::AcqRel);
    IN_FILE.fetch_max(slots, Ordering::AcqRel);
    true
}

/// A place in the trace for a chunk of so many bytes. A small one is on one page: the end of the
/// process cuts writes off between pages, and what is written after exit() has no tail.
pub(crate) fn place(len: usize) -> u64 {
    const PAGE: u64 = 4096;
    let len = len.next_multiple_of(chunk::ALIGN) as u64;
    loop {
        let at = HOT.cursor.0.fetch_add(len, Ordering::Relaxed);
        // One that was refused has reached into the next page, which has room for another then.
        if len > PAGE / 2 || at / PAGE == (at + len - 1) / PAGE {
            return at;
        }
    }
}

/// From here on, what is recorded is written out at once.
pub(crate) fn close() {
    IS_CLOSED.store(true, Ordering::Release);
}

/// Whether [`close`] was called.
pub(crate) fn is_closed() -> bool {
    IS_CLOSED.load(Ordering::Acquire)
}
