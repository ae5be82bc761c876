//! The stack trie: a call stack is a chain of nodes (parent, return address).
//!
//! Each thread remembers the nodes that it used lately; one that has been displaced is defined again
//! (see infos.rs). Tries of two threads have different roots, so nothing here is shared but the
//! counter of IDs.

use core::sync::atomic::{AtomicU32, Ordering};

use mtr_format::compact::word::{self, THREAD_SHIFT, Tag};

use super::infos::next_id;
use super::words;
use crate::{modules, sys};

/// Entries per thread, 16 bytes each; sets of two.
const ENTRIES: usize = 1 << 15;

/// IDs given so far.
static LAST_ID: AtomicU32 = AtomicU32::new(0);

/// To be called when a trace begins.
pub(super) fn start() {
    LAST_ID.store(0, Ordering::Relaxed);
}

#[derive(Clone, Copy)]
#[repr(C)]
struct Entry {
    address: u64,
    parent: u32,
    /// 0: unused.
    id: u32,
}

/// What a thread remembers. All zeros is empty.
#[repr(C)]
pub(super) struct Nodes {
    sets: [[Entry; 2]; ENTRIES / 2],
    /// Module of the node that was defined last.
    module: (u64, u64),
}

impl Nodes {
    /// The ID of a node, defined anew if it is not remembered; 0 when there are no IDs left.
    #[inline(always)]
    pub(super) fn get(&mut self, parent: u32, address: u64) -> u32 {
        let mixed = (address ^ u64::from(parent) << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let index = (mixed >> 48) as usize % (ENTRIES / 2);
        let Some(set) = self.sets.get_mut(index) else { return 0 };
        for entry in &*set {
            if entry.address == address && entry.parent == parent && entry.id != 0 {
                return entry.id;
            }
        }
        self.define(index, parent, address)
    }

    #[cold]
    #[inline(never)]
    fn define(&mut self, index: usize, parent: u32, address: u64) -> u32 {
        if !(self.module.0..self.module.1).contains(&address)
            && let Some(module) = modules::describe_once(address as usize)
        {
            self.module = (module.start as u64, module.end as u64);
        }
        let id = define(parent, address);
        if let Some(set) = self.sets.get_mut(index) {
            *set = [Entry { address, parent, id }, set[0]];
        }
        id
    }

    /// Forgets all: the trace is another, or addresses may mean something else.
    pub(super) fn forget(&mut self) {
        self.module = (0, 0);
        self.sets.iter_mut().flatten().for_each(|entry| entry.id = 0);
    }
}

/// Defines a node without remembering it.
pub(super) fn define(parent: u32, address: u64) -> u32 {
    let Some(id) = next_id(&LAST_ID) else { return 0 };
    words::record(&[word::first(Tag::Node as u8, id, parent), word::continuation(address)]);
    id
}

/// The "return address" of the root of this thread's stacks.
pub(super) fn root_of_this_thread() -> u64 {
    (sys::gettid() as u64) << THREAD_SHIFT
}
