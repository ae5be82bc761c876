//! Infos: what allocations have in common, so that an event is one word.
//!
//! Each thread remembers those that it used lately, by a direct-mapped table. One that has been
//! displaced is simply defined again, under another ID: the reader does not mind, and memory is
//! bounded.

use core::sync::atomic::{AtomicU32, Ordering};

use mtr_format::compact::word::{self, Family, MAX_ID, NOT_TAKEN, Tag};

use super::{nodes, words};

/// Entries per thread, 16 bytes each.
const ENTRIES: usize = 1 << 13;

/// IDs given so far.
static LAST_ID: AtomicU32 = AtomicU32::new(0);

/// To be called when a trace begins.
pub(super) fn start() {
    LAST_ID.store(0, Ordering::Relaxed);
}

#[repr(C)]
struct Entry {
    /// Size, and the family in the lowest 8 bits.
    key: u64,
    node: u32,
    /// 0: unused.
    id: u32,
}

/// What a thread remembers. All zeros is empty.
#[repr(C)]
pub(super) struct Infos {
    entries: [Entry; ENTRIES],
}

impl Infos {
    /// The ID of an info, defined anew if it is not remembered.
    #[inline(always)]
    pub(super) fn get(&mut self, node: u32, size: usize, family: Family, align: usize) -> u32 {
        let key = (size as u64) << 8 | family as u64;
        let mixed = (key ^ u64::from(node) << 40).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let index = (mixed >> 48) as usize % ENTRIES;
        let Some(entry) = self.entries.get_mut(index) else { return 0 };
        // Alignments are rare: they are not remembered.
        if entry.key == key && entry.node == node && entry.id != 0 && !family.has_alignment() {
            return entry.id;
        }
        let id = define(node, size, family, align);
        if id != 0 {
            *entry = Entry { key, node, id };
        }
        id
    }

    /// Forgets all, for another trace.
    pub(super) fn forget(&mut self) {
        self.entries.iter_mut().for_each(|entry| entry.id = 0);
    }
}

#[cold]
#[inline(never)]
fn define(node: u32, size: usize, family: Family, align: usize) -> u32 {
    let Some(id) = next_id(&LAST_ID) else { return 0 };
    let first = word::first(Tag::Info as u8, id, node);
    let size = word::size_and_family(size as u64, family);
    if family.has_alignment() {
        words::record(&[first, size, word::alignment(align as u64)]);
    } else {
        words::record(&[first, size]);
    }
    id
}

/// The next ID, while there are any.
pub(super) fn next_id(last: &AtomicU32) -> Option<u32> {
    let id = last.fetch_add(1, Ordering::Relaxed) + 1;
    if id <= MAX_ID {
        return Some(id);
    }
    last.store(MAX_ID, Ordering::Relaxed);
    None
}

/// An info for an event that comes while this thread takes another stack.
#[cold]
pub(super) fn without_stack(size: usize, family: Family, align: usize) -> u32 {
    let root = nodes::define(0, nodes::root_of_this_thread());
    define(nodes::define(root, NOT_TAKEN), size, family, align)
}
