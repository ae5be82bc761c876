//! Where lines wait to be written out: blocks in the mapped tail file.
//!
//! The log is addressed by position. A thread takes `[position, position + len)` by one addition to
//! the cursor and stores its line in the slot that holds this block of the log, or straight in the
//! file when there is none. Who takes a place that reaches the end of a block writes out what lies
//! behind the cursor and gives slots to the blocks ahead of it. Nobody ever waits for anybody:
//!
//! - *A slot is only recycled when its block has no hole left*: no NUL byte. Places are NUL until
//!   their line is stored, and the first bytes of a line are stored last (TSO keeps this order), so no
//!   hole means that nobody will store there any more, and that every byte is final. A thread that was
//!   stopped in the middle of its line keeps its slot; the others go on with the rest.
//! - *Writing is idempotent*, because a byte has one position and one value. So it does not matter
//!   whether a line reaches the file through a slot or beside it.
//! - A block that gets its slot late, when some of its lines have already gone straight to the file,
//!   would keep holes for ever: [`heal`] fills them from the file.
//! - One thread at a time has a slot in hand: the one that sets [`tail::BUSY`] in its number.
//! - When the ring is closed (`closing.rs`), a thread writes its line beside the ring as well.

mod closing;
mod losses;

use core::sync::atomic::{AtomicU64, Ordering, compiler_fence};

use mtr_format::tail;

use super::file;
use crate::hot::{HOT, WINDOW, single_threaded};
use crate::{arch, sys};

pub(crate) use closing::finish;
pub(super) use losses::count_cut;

/// Bytes per block: write(2) costs little more than 0.25 ns per byte from 32 KiB on, the slots in use
/// stay in the second-level cache, and the tail of a process that is killed stays small.
pub(crate) const BLOCK: usize = 1 << 15;
/// Slots. One is filled, [`AHEAD`] wait, the others are for lines that take their time. The lowest
/// free one is taken first, so that the cached ones are used again.
pub(crate) const SLOTS: usize = 8;
/// Blocks ahead of the cursor that have a slot.
const AHEAD: u64 = 2;

/// Makes all slots free and gives the first blocks theirs.
pub(crate) fn open() {
    losses::forget();
    HOT.is_ring_closed.store(false, Ordering::Relaxed);
    HOT.cursor.0.store(0, Ordering::Relaxed);
    HOT.window.iter().for_each(|entry| entry.store(EMPTY, Ordering::Relaxed));
    (0..SLOTS).for_each(|slot| number(slot).store(tail::UNUSED, Ordering::Relaxed));
    (0..=AHEAD).for_each(give_slot);
}

/// Takes the place of a line of `len` bytes: the moment that orders it among all others.
#[inline(always)]
pub(crate) fn reserve(len: usize) -> u64 {
    let cursor = &HOT.cursor.0;
    if single_threaded() {
        arch::fetch_add_single_threaded(cursor, len as u64)
    } else {
        cursor.fetch_add(len as u64, Ordering::AcqRel)
    }
}

/// The memory of a reserved place, if it ends before its block does and the block has a slot. Else
/// the line is one for [`put`].
#[inline(always)]
pub(crate) fn place(position: u64, len: usize) -> Option<*mut u8> {
    if position as usize % BLOCK + len >= BLOCK { None } else { memory_at(position) }
}

/// Whether the ring is closed: to be asked behind each store of a line. If it is, the line is one for
/// [`put_beside`] too, because its block may have been written out before.
#[inline(always)]
pub(crate) fn is_closed() -> bool {
    // That the processor keeps the order as well is up to who closes the ring.
    compiler_fence(Ordering::SeqCst);
    HOT.is_ring_closed.load(Ordering::Relaxed)
}

/// Entry of the window for a block without a slot. Zero, so that a window that fork has wiped leads
/// nowhere.
const EMPTY: u64 = 0;

/// The entry of the window for a block in a slot.
const fn entry(block: u64, slot: usize) -> u64 {
    (block + 1) << 8 | slot as u64
}

#[inline(always)]
fn window(block: u64) -> &'static AtomicU64 {
    // The remainder is in bounds; a slice pattern would not tell the compiler so.
    // SAFETY: the window has WINDOW entries.
    unsafe { HOT.window.get_unchecked(block as usize % WINDOW) }
}

/// Whether this is a child that a signal handler forked while the hook below it was at work: the
/// rest of that hook must not touch the parent's log.
fn is_wiped() -> bool {
    HOT.blocks.load(Ordering::Relaxed).is_null()
}

/// The memory for a position of the log, valid up to the end of its block.
#[inline(always)]
fn memory_at(position: u64) -> Option<*mut u8> {
    // Before the window: who finds an entry there has a pointer from before any fork.
    let blocks = HOT.blocks.load(Ordering::Acquire);
    let block = position / BLOCK as u64;
    let found = window(block).load(Ordering::Acquire);
    if found >> 8 != block + 1 {
        return None;
    }
    // SAFETY: `blocks` is a mapping of SLOTS blocks, and the slot of an entry is below SLOTS.
    let slot = unsafe { blocks.add((found as usize & 0xff) * BLOCK) };
    // SAFETY: inside the slot.
    Some(unsafe { slot.add(position as usize % BLOCK) })
}

/// The number of the block in a slot: [`tail::UNUSED`] when free.
#[inline(always)]
fn number(slot: usize) -> &'static AtomicU64 {
    // SAFETY: `numbers` points to SLOTS numbers in the first page of the tail, which stays mapped.
    unsafe { &*HOT.numbers.load(Ordering::Relaxed).add(slot % SLOTS) }
}

fn slot_memory(slot: usize) -> *mut u8 {
    // SAFETY: `blocks` is a mapping of SLOTS blocks.
    unsafe { HOT.blocks.load(Ordering::Relaxed).add(slot % SLOTS * BLOCK) }
}

/// Stores a line, given in parts, at a place of any kind, and moves the ring on when the place ends
/// its block.
#[cold]
#[inline(never)]
pub(crate) fn put(position: u64, parts: &[&[u8]]) {
    if is_wiped() {
        return;
    }
    let len = len_of(parts);
    losses::note_line(position, parts);
    put_from(position, parts, 0, Elsewhere::Nowhere);
    if len >= BLOCK - position as usize % BLOCK {
        advance();
    }
}

/// Stores all of a line but its first bytes, by which it does not count yet.
#[cold]
#[inline(never)]
pub(crate) fn announce(position: u64, parts: &[&[u8]]) {
    if !is_wiped() {
        put_from(position, parts, LAST, Elsewhere::Later);
    }
}

/// Writes a line to its place in the file, whatever the ring has there.
#[cold]
#[inline(never)]
pub(crate) fn put_beside(position: u64, parts: &[&[u8]]) {
    if !is_wiped() {
        write_piece(position, parts, 0, len_of(parts), Elsewhere::InSlot);
    }
}

/// Bytes of a line that are stored last.
const LAST: usize = mtr_format::text::encode::PUBLISHED_LAST;

/// Length of a line that is given in parts.
pub(crate) fn len_of(parts: &[&[u8]]) -> usize {
    parts.iter().map(|part| part.len()).sum()
}

/// A byte of a line.
fn byte_of(parts: &[&[u8]], mut index: usize) -> u8 {
    for part in parts {
        match part.get(index) {
            Some(byte) => return *byte,
            None => index -= part.len(),
        }
    }
    0
}

/// Where else the bytes of a line are that are written to the file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Elsewhere {
    Nowhere,
    InSlot,
    /// They will be written again, with the whole line.
    Later,
}

/// Stores a line from its byte `from` on.
fn put_from(position: u64, parts: &[&[u8]], from: usize, elsewhere: Elsewhere) {
    let (len, to_block_end) = (len_of(parts), BLOCK - position as usize % BLOCK);
    // The end first: the line counts once its first bytes are there.
    if len > to_block_end {
        put_piece(position, parts, to_block_end.max(from), len, elsewhere);
    }
    put_piece(position, parts, from, len.min(to_block_end), elsewhere);
}

/// Stores the bytes `from..to` of a line at `position`, all in one block.
fn put_piece(position: u64, parts: &[&[u8]], from: usize, to: usize, elsewhere: Elsewhere) {
    let Some(memory) = memory_at(position + from as u64) else {
        return write_piece(position, parts, from, to, elsewhere);
    };
    // One byte at a time, and each only once: memcpy may store a byte twice, and the second store
    // could hit a slot that was recycled after the first.
    let store = |index| {
        // SAFETY: `index` is in `from..to`, and the piece is inside one block.
        unsafe { memory.add(index - from).write_volatile(byte_of(parts, index)) }
    };
    let last = (from + LAST).min(to);
    (last..to).for_each(store);
    (from..last).for_each(store);
    if is_closed() {
        let elsewhere = match elsewhere {
            Elsewhere::Nowhere => Elsewhere::InSlot,
            other => other,
        };
        write_piece(position, parts, from, to, elsewhere);
    }
}

/// Writes the bytes `from..to` of a line at `position` to the file, the end first. The end of the
/// process cuts a write off between pages, so each is on one page: a line that is not all there lacks
/// its beginning.
#[inline(never)]
fn write_piece(position: u64, parts: &[&[u8]], from: usize, to: usize, elsewhere: Elsewhere) {
    const PAGE: u64 = 4096;
    let mut chunk = [0; 128];
    let (mut end, mut failed) = (to, None);
    while end > from {
        let on_page = (position + end as u64 - 1) % PAGE + 1;
        let len = (end - from).min(chunk.len()).min(on_page as usize);
        let start = end - len;
        (start..end).zip(&mut chunk).for_each(|(index, byte)| *byte = byte_of(parts, index));
        let (_, errno) = file::write_at(position + start as u64, chunk.get(..len).unwrap_or(&[]));
        failed = failed.or(errno);
        end = start;
    }
    let is_kept = |errno| match elsewhere {
        Elsewhere::Nowhere => false,
        Elsewhere::InSlot => file::stays_in_tail(errno),
        Elsewhere::Later => true,
    };
    if let Some(errno) = failed.filter(|errno| !is_kept(*errno)) {
        losses::lose_part(position, parts, from, to, errno);
    }
}

/// Writes out the blocks that lie behind the cursor, and gives slots to the next ones.
///
/// No signal handler runs meanwhile: one that forks would leave the child here, to go on with the
/// slots of its parent.
#[cold]
#[inline(never)]
fn advance() {
    let signals = sys::block_signals();
    if !is_wiped() && !is_closed() {
        advance_undisturbed();
    }
    sys::restore_signals(signals);
}

fn advance_undisturbed() {
    let current = HOT.cursor.0.load(Ordering::Acquire) / BLOCK as u64;
    // Other threads may still be storing the last lines of the block before the current one.
    let behind = if single_threaded() { current } else { current.saturating_sub(1) };
    // What cannot be written out stays, for as long as there are free slots.
    let drained = if sys::silence::is_silent() { 0 } else { SLOTS };
    for slot in 0..drained {
        let block = number(slot).load(Ordering::Acquire);
        if block < behind && claim(slot, block, block | tail::BUSY) {
            drain(slot, block, current);
        }
    }
    (current..=current + AHEAD).for_each(give_slot);
}

/// Whether a slot has a hole.
fn has_hole(memory: *mut u8) -> bool {
    // SAFETY: a slot is BLOCK bytes, aligned to a page.
    unsafe { arch::contains_nul(memory, BLOCK) }
}

/// Takes a slot in hand, by changing its number from what it was last seen to be.
fn claim(slot: usize, from: u64, to: u64) -> bool {
    number(slot).compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed).is_ok()
}

/// Gives a block a free slot, unless it has one.
fn give_slot(block: u64) {
    let before = window(block).load(Ordering::Acquire);
    // A block of an earlier round whose slot is still needed keeps the entry.
    if before != EMPTY {
        return;
    }
    let claimed = (0..SLOTS).find(|slot| claim(*slot, tail::UNUSED, block | tail::BUSY));
    let Some(slot) = claimed else { return };
    let entry = entry(block, slot);
    let (order, otherwise) = (Ordering::AcqRel, Ordering::Relaxed);
    // Asked when the slot is claimed, a locked instruction: who closes the ring has seen all slots
    // that are given to a block.
    let given =
        !is_closed() && window(block).compare_exchange(EMPTY, entry, order, otherwise).is_ok();
    number(slot).store(if given { block } else { tail::UNUSED }, Ordering::Release);
}

/// Writes out a slot that this thread has in hand and frees it. One with holes goes back as it was.
fn drain(slot: usize, block: u64, current: u64) {
    let memory = slot_memory(slot);
    let mut has_holes = has_hole(memory);
    if has_holes && block + (2 * AHEAD) < current && (current - block).is_power_of_two() {
        heal(memory, block);
        has_holes = has_hole(memory);
    }
    if has_holes {
        number(slot).store(block, Ordering::Release);
        return;
    }
    // SAFETY: a slot is BLOCK bytes, and one without holes changes no more.
    let bytes = unsafe { core::slice::from_raw_parts(memory, BLOCK) };
    losses::write_block(block, bytes);
    window(block).store(EMPTY, Ordering::Release);
    // SAFETY: as above; nobody refers to it any more.
    unsafe { memory.write_bytes(0, BLOCK) };
    number(slot).store(tail::UNUSED, Ordering::Release);
}

/// Fills the holes of a claimed block with what the file has there: lines that were written beside
/// the ring before the slot was opened.
#[inline(never)] // its buffer would be on the stack while blocks are written
fn heal(memory: *mut u8, block: u64) {
    let mut chunk = [0; 256];
    for start in (0..BLOCK).step_by(chunk.len()) {
        let Ok(len) = file::read_at(block * BLOCK as u64 + start as u64, &mut chunk) else {
            return;
        };
        for (i, byte) in chunk.iter().enumerate().take(len).filter(|(_, byte)| **byte != 0) {
            // SAFETY: `start + i` is below BLOCK. If somebody is storing this byte right now, it is
            // the same value.
            unsafe {
                let place = memory.add(start + i);
                if place.read_volatile() == 0 {
                    place.write_volatile(*byte);
                }
            }
        }
    }
}

/// Calls `each` with the place and the bytes of everything between the holes of a block.
pub(super) fn for_each_run(block: &[u8], mut each: impl FnMut(usize, &[u8])) {
    let is_hole = |byte: &&u8| **byte == 0;
    let mut at = 0;
    while let Some(rest) = block.get(at..).filter(|rest| !rest.is_empty()) {
        let holes = rest.iter().take_while(is_hole).count();
        let rest = rest.get(holes..).unwrap_or(&[]);
        let run = rest.iter().take_while(|byte| !is_hole(byte)).count();
        let run = rest.get(..run).unwrap_or(&[]);
        if !run.is_empty() {
            each(at + holes, run);
        }
        at += holes + run.len();
    }
}
