//! The end of the ring: the log becomes whole without its tail, while other threads go on.
//!
//! The lines that are on their way are handed over. Who closes the ring says so and then looks at
//! the slots; every other thread stores its line and then asks whether the ring is closed: if it is,
//! it writes the line to the file itself. So each line is seen by one of the two, or by both, which
//! does no harm. Only a processor that puts off the store behind the question could hide it from
//! both. A barrier at each line would cost more than the line does, so there is none: membarrier(2)
//! makes every thread pass one, once, when a line is missing at the end. (tests.rs has all
//! interleavings.)

#[cfg(test)]
mod tests;

use core::sync::atomic::Ordering;

use mtr_format::tail;

use super::losses::{self, write_from_slot};
use super::{BLOCK, EMPTY, SLOTS, claim, for_each_run, heal, number, slot_memory, window};
use crate::hot::{HOT, single_threaded};
use crate::sys;

/// Blocks of the slots that were claimed to stay so.
type Claimed = [Option<u64>; SLOTS];

/// Writes out all that is in the ring, so that the log is whole without its tail; from then on lines
/// go straight to the file. False when the tail is still needed.
pub(crate) fn finish() -> bool {
    /// Other threads get this many chances to end the line or the drain that they are at.
    const PATIENCE: usize = 200;
    // Locked, as the addition to the cursor is: who takes a place from `end` on sees it.
    HOT.is_ring_closed.swap(true, Ordering::SeqCst);
    let end = HOT.cursor.0.load(Ordering::SeqCst);
    let mut claimed = Claimed::default();
    let is_whole = (0..PATIENCE).any(|_| {
        let is_whole = claim_all(&mut claimed, end);
        if !is_whole {
            sys::yield_processor();
        }
        is_whole
    });
    // What is not in its slot behind the barrier, its thread will write.
    let is_handed_over = is_whole || single_threaded() || sys::pass_barrier_in_threads().is_ok();
    let mut is_in_file = true;
    for (slot, claimed) in claimed.iter().enumerate() {
        let number = number(slot).load(Ordering::Acquire);
        if let Some(block) = *claimed {
            window(block).store(EMPTY, Ordering::Release);
        }
        if number == tail::UNUSED {
            continue;
        }
        if !write_out(slot, number & !tail::BUSY) {
            is_in_file = false;
        } else if claimed.is_some() && is_handed_over {
            // Should the tail stay, readers would take what is counted as lost for something else.
            self::number(slot).store(tail::UNUSED, Ordering::Release);
        }
    }
    is_handed_over && is_in_file
}

/// Claims the slots that nobody has in hand. True when all are claimed, and all lines before `end` in
/// them.
fn claim_all(claimed: &mut Claimed, end: u64) -> bool {
    let mut is_whole = true;
    for (slot, claimed) in claimed.iter_mut().enumerate() {
        let block = number(slot).load(Ordering::Acquire);
        if block & tail::BUSY == 0 && claim(slot, block, block | tail::BUSY) {
            *claimed = Some(block);
        }
        is_whole &= match *claimed {
            Some(block) if has_hole_before(end, slot, block) => {
                heal(slot_memory(slot), block);
                !has_hole_before(end, slot, block)
            }
            Some(_) => true,
            None => block == tail::UNUSED,
        };
    }
    is_whole
}

fn has_hole_before(end: u64, slot: usize, block: u64) -> bool {
    let used = end.saturating_sub(block * BLOCK as u64).min(BLOCK as u64) as usize;
    let memory = slot_memory(slot);
    // SAFETY: `used` is at most BLOCK. Volatile, because others may be storing there.
    (0..used).any(|index| unsafe { memory.add(index).read_volatile() } == 0)
}

/// Writes what is not a hole of a block to its positions. By way of a copy: a slot that somebody else
/// has in hand may be wiped meanwhile, which he does when all of it is in the file. No slot is given
/// to another block any more. False where the tail is still needed.
fn write_out(slot: usize, block: u64) -> bool {
    let (memory, mut is_in_file) = (slot_memory(slot), true);
    let (mut copy, mut start, mut begins_in_comment) = ([0; 512], 0, false);
    while start < BLOCK {
        for (byte, index) in copy.iter_mut().zip(start..BLOCK) {
            // SAFETY: below BLOCK. Volatile, because others may be storing there.
            *byte = unsafe { memory.add(index).read_volatile() };
        }
        // Whole lines, because each that cannot be written is counted.
        let piece = copy.get(..BLOCK - start).unwrap_or(&copy);
        let len = piece.iter().rposition(|byte| *byte == b'\n').map_or(piece.len(), |at| at + 1);
        let position = block * BLOCK as u64 + start as u64;
        let lines = piece.get(..len).unwrap_or(piece);
        for_each_run(lines, |at, run| {
            let begins_in_comment = begins_in_comment && at == 0;
            is_in_file &= write_from_slot(position + at as u64, run, begins_in_comment);
        });
        // A line may be longer than the copy.
        let is_cut = !lines.ends_with(b"\n");
        begins_in_comment = is_cut && (begins_in_comment || losses::is_comment(lines));
        start += len;
    }
    is_in_file
}
