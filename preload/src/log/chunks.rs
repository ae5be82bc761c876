//! Where chunks of a compact trace are filled: slots of the mapped tail file, one for each stream.
//!
//! The whole file is mapped at once, as long as it can ever get, but for the first slots it has no
//! blocks on the disk as yet. A slot gets them when it is taken (room.rs), by its pages being touched:
//! that needs neither a name nor a descriptor, so it does not matter what the process may still open by
//! then. Where there is no room for them, the slot is memory alone: a kill loses what is in it, and the
//! tail says how many such slots there are.

mod room;

use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use mtr_format::compact::chunk;
use mtr_format::tail;

use super::open;
use crate::hot::HOT;
use crate::record::compact::clock;
use crate::sys;

/// Most slots.
pub(crate) const MOST: usize = 4096;
/// Slots that have room from the first.
const FIRST: usize = 8;

/// The mapped tail.
static TAIL: AtomicPtr<u8> = AtomicPtr::new(core::ptr::null_mut());
/// Slots that memory is reserved for.
static RESERVED: AtomicUsize = AtomicUsize::new(0);
/// Slots, from the first, that the file is mapped for; 0: there is no file.
static IN_FILE: AtomicUsize = AtomicUsize::new(0);
/// Slots, from the first, that have room in the file whether they are taken or not.
static WITH_ROOM: AtomicUsize = AtomicUsize::new(0);
/// Slots, from the first, that are taken.
static TAKEN: AtomicUsize = AtomicUsize::new(0);
/// A bit for each slot that is memory alone although the file was mapped for it.
static IN_MEMORY: [AtomicU64; MOST / 64] = [const { AtomicU64::new(0) }; MOST / 64];
/// The trace is being finished: what is recorded is written out at once.
static IS_CLOSED: AtomicBool = AtomicBool::new(false);

/// Bytes of a tail with this many slots.
pub(super) const fn len(slots: usize) -> usize {
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

/// Makes all slots of a new tail free. False where it is no file.
///
/// # Safety
/// `tail` is what [`reserve`] returned, of a process that records nothing yet.
pub(super) unsafe fn open(tail: *mut u8, id: u64) -> bool {
    let reserved = RESERVED.load(Ordering::Relaxed);
    TAIL.store(tail, Ordering::Relaxed);
    TAKEN.store(0, Ordering::Relaxed);
    IN_MEMORY.iter().for_each(|bits| bits.store(0, Ordering::Relaxed));
    IS_CLOSED.store(false, Ordering::Relaxed);
    // The front of the trace is room for one chunk.
    HOT.cursor.0.store(chunk::CHUNK as u64, Ordering::Relaxed);
    HOT.latest.0.store(0, Ordering::Relaxed);
    clock::open();
    // SAFETY: the caller's promise; no slot has been taken.
    let in_file = unsafe { open::map_chunks(tail, FIRST, reserved) }.unwrap_or(0);
    IN_FILE.store(in_file, Ordering::Relaxed);
    WITH_ROOM.store(in_file.min(FIRST), Ordering::Relaxed);
    // SAFETY: the front of the tail; the words lie in it at their natural alignment.
    unsafe {
        tail.add(tail::ID).cast::<u64>().write(id);
        tail.add(tail::BLOCK_SIZE).cast::<u32>().write(chunk::CHUNK as u32);
        tail.add(tail::BLOCK_COUNT).cast::<u32>().write(in_file.min(FIRST) as u32);
        tail.cast::<[u8; 8]>().write(tail::MAGIC2);
    }
    in_file > 0
}

/// A slot that nobody has.
pub(crate) fn take() -> Option<*mut u8> {
    // Without system calls no slot gets room any more, and one that is memory alone would never be
    // written out.
    let available = match sys::silence::is_silent() {
        true => &WITH_ROOM,
        false => &RESERVED,
    };
    let available = available.load(Ordering::Acquire);
    let next = |taken| (taken < available).then_some(taken + 1);
    let index = TAKEN.fetch_update(Ordering::AcqRel, Ordering::Acquire, next).ok()?;
    let tail = TAIL.load(Ordering::Relaxed);
    // SAFETY: below the number of reserved slots.
    let slot = unsafe { tail.add(len(index)) };
    if index >= IN_FILE.load(Ordering::Relaxed) {
        // It has been memory from the first.
        note_unsaved(tail);
    } else if index < WITH_ROOM.load(Ordering::Acquire)
        // SAFETY: this slot has just been taken, by this thread.
        || unsafe { room::make(slot, chunk::CHUNK) }
    {
        // Somebody may have taken a later one meanwhile.
        count(tail, tail::BLOCK_COUNT).fetch_max(index as u32 + 1, Ordering::AcqRel);
    } else {
        // SAFETY: as above.
        unsafe { sys::map_anonymous_at(slot, chunk::CHUNK) }.ok()?;
        bit_of(index, |bits, bit| bits.fetch_or(bit, Ordering::AcqRel));
        note_unsaved(tail);
    }
    Some(slot)
}

/// A word in the front of the tail.
fn count<'a>(tail: *mut u8, at: usize) -> &'a AtomicU32 {
    // SAFETY: the front of a tail stays mapped, its fields lie in it at their natural alignment, and
    // readers of the file may look at any time.
    unsafe { &*tail.add(at).cast::<AtomicU32>() }
}

fn bit_of(index: usize, change: impl Fn(&AtomicU64, u64) -> u64) -> bool {
    let bit = 1 << (index % 64);
    IN_MEMORY.get(index / 64).is_some_and(|bits| change(bits, bit) & bit != 0)
}

/// One more chunk is in memory alone.
fn note_unsaved(tail: *mut u8) {
    count(tail, tail::UNSAVED).fetch_add(1, Ordering::AcqRel);
}

/// Whether a slot, or where `at` points in it, is in the tail file.
pub(crate) fn is_in_file(at: *const u8) -> bool {
    let from_tail = at.addr().wrapping_sub(TAIL.load(Ordering::Relaxed).addr());
    let index = from_tail.wrapping_sub(tail::SLOTS) / chunk::CHUNK;
    index < IN_FILE.load(Ordering::Relaxed)
        && !bit_of(index, |bits, _| bits.load(Ordering::Acquire))
}

/// To be called once for a slot when what is in it needs no tail any more, and what will be is to be
/// written out at once.
pub(crate) fn note_saved(at: *const u8) {
    if !is_in_file(at) {
        let unsaved = count(TAIL.load(Ordering::Relaxed), tail::UNSAVED);
        let less = |unsaved: u32| unsaved.checked_sub(1);
        let _ = unsaved.fetch_update(Ordering::AcqRel, Ordering::Acquire, less);
    }
}

/// Gives room to free slots, up to so many: the last chance, because system calls are about to become
/// impossible.
pub(crate) fn make_room(slots: usize) {
    let (taken, in_file) = (TAKEN.load(Ordering::Acquire), IN_FILE.load(Ordering::Relaxed));
    // A disk that has no room for all of them may have some for less.
    let less = |slots: &usize| (*slots > FIRST).then_some(slots / 4);
    let sizes = || core::iter::successors(Some(slots), less).map(|n| (taken + n).min(in_file));
    let from_disk = || sizes().find(|end| open::make_room_in_tail(len(*end)).is_ok());
    // Pages are dearer than blocks.
    let by_touch = || {
        let tail = TAIL.load(Ordering::Relaxed);
        // SAFETY: the slots `taken..end` lie in the mapping of the file.
        let touch = |end: &usize| unsafe {
            room::touch(tail.add(len(taken)), (end - taken) * chunk::CHUNK).is_ok()
        };
        sizes().skip(1).filter(|end| *end > taken).find(touch)
    };
    if let Some(end) = from_disk().or_else(by_touch) {
        WITH_ROOM.fetch_max(end, Ordering::AcqRel);
        count(TAIL.load(Ordering::Relaxed), tail::BLOCK_COUNT)
            .fetch_max(end as u32, Ordering::AcqRel);
    }
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
