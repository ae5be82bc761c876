//! Which addresses fit into one word: those in one of four segments of 64 GiB, in the order in which
//! they were met. A program's heap needs two: brk's and mmap's.

use core::sync::atomic::Ordering;

use mtr_format::compact::word::{self, Tag};

use super::words;
use crate::hot::HOT;

/// Bits of an address below those of its segment.
const OFFSET_BITS: u32 = 36;
/// Value of an entry that is being defined.
const CLAIMED: u32 = u32::MAX;

/// Segment and offset, in units of 16 bytes, of an address; `None` if it needs two words.
#[inline(always)]
pub(super) fn find(ptr: usize) -> Option<(u8, u32)> {
    let wanted = (ptr >> OFFSET_BITS) as u32 + 1;
    if ptr.is_multiple_of(16) {
        for (index, segment) in HOT.segments.iter().enumerate() {
            if segment.load(Ordering::Acquire) == wanted {
                return Some((index as u8, (ptr >> 4) as u32));
            }
        }
        define(wanted);
    }
    None
}

/// Defines the segment of an address, for the next that is in it, while there is an entry left.
#[cold]
#[inline(never)]
fn define(wanted: u32) {
    let (order, otherwise) = (Ordering::AcqRel, Ordering::Acquire);
    for (index, segment) in HOT.segments.iter().enumerate() {
        match segment.compare_exchange(0, CLAIMED, order, otherwise) {
            Ok(_) => {
                words::event(word::first(Tag::Segment as u8, index as u32, wanted - 1));
                segment.store(wanted, Ordering::Release);
                return;
            }
            // Somebody else has defined it, or is about to (or another one).
            Err(found) if found == wanted || found == CLAIMED => return,
            Err(_) => {}
        }
    }
    const { assert!(word::SEGMENTS == 4) };
}
