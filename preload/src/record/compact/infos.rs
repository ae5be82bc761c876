//! Infos: what allocations have in common, so that an event is one word. Kept as nodes are.

use core::sync::atomic::{AtomicU32, Ordering};

use mtr_format::compact::word::{self, Family, NOT_TAKEN, Tag};

use super::nodes::{self, Nodes, next_id};
use super::store::{Record, Store};
use super::words;

/// IDs given so far.
static LAST_ID: AtomicU32 = AtomicU32::new(0);

/// To be called when a trace begins.
pub(super) fn start() {
    LAST_ID.store(0, Ordering::Relaxed);
}

#[derive(Clone, Copy)]
#[repr(C)]
struct Info {
    /// Size, and the family in the lowest 8 bits.
    key: u64,
    /// Number of the node.
    node: u32,
    /// ID in the trace.
    id: u32,
}

impl Record for Info {
    #[inline(always)]
    fn hash(&self) -> u64 {
        (self.key ^ u64::from(self.node) << 36).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

/// The infos of a thread. All zeros is none.
#[repr(C)]
pub(super) struct Infos {
    store: Store<Info>,
    /// Number of the info that was found last.
    last: u32,
}

impl Infos {
    /// The ID of an info, defined if it is new. `node` is a number of `nodes`.
    #[inline(always)]
    pub(super) fn get(
        &mut self,
        nodes: &mut Nodes,
        node: u32,
        size: usize,
        family: Family,
        align: usize,
    ) -> u32 {
        // Larger sizes fail; they would not fit into a word.
        let size = size.min((1 << 52) - 1);
        let key = (size as u64) << 8 | family as u64;
        let is_wanted = |info: &Info| info.key == key && info.node == node;
        // Alignments are rare: what has one is defined each time.
        if family.has_alignment() {
            return define(nodes.id(node), size, family, align);
        }
        for hint in [nodes.last_info(node), self.last + 1] {
            if let Some(info) = self.store.get(hint).filter(|info| is_wanted(info)) {
                self.last = hint;
                return info.id;
            }
        }
        let info = Info { key, node, id: 0 };
        let mut found = self.store.find(info.hash(), is_wanted);
        if found == 0 {
            let id = define(nodes.id(node), size, family, align);
            found = self.store.push(Info { id, ..info });
            if found == 0 {
                return id;
            }
        }
        nodes.set_last_info(node, found);
        self.last = found;
        self.store.get(found).map_or(0, |info| info.id)
    }

    /// Whether there is no room for another one.
    #[inline(always)]
    pub(super) fn is_full(&self) -> bool {
        self.store.is_full()
    }

    /// Forgets all and keeps no memory.
    pub(super) fn release(&mut self) {
        self.store.release();
    }

    /// Forgets all.
    pub(super) fn forget(&mut self) {
        self.store.clear();
        self.last = 0;
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

/// An info for an event that comes while this thread takes another stack.
#[cold]
pub(super) fn without_stack(size: usize, family: Family, align: usize) -> u32 {
    let root = nodes::define(0, nodes::root_of_this_thread());
    define(nodes::define(root, NOT_TAKEN), size, family, align)
}
