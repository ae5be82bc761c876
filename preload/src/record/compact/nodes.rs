//! The stack trie: a call stack is a chain of nodes (parent, return address).
//!
//! Each thread has a trie of its own, with its own root, so nothing here is shared but the counter
//! of IDs. Within a thread a node has a number, its place in the [`Store`]; the trace knows it by its
//! ID.

use core::sync::atomic::{AtomicU32, Ordering};

use mtr_format::compact::word::{self, MAX_ID, THREAD_SHIFT, Tag};

use super::store::{Record, Store};
use super::words;
use crate::{modules, sys};

/// IDs given so far.
static LAST_ID: AtomicU32 = AtomicU32::new(0);

/// To be called when a trace begins.
pub(super) fn start() {
    LAST_ID.store(0, Ordering::Relaxed);
}

#[derive(Clone, Copy)]
#[repr(C)]
struct Node {
    address: u64,
    /// Number of the parent.
    parent: u32,
    /// ID in the trace.
    id: u32,
    /// Numbers of the children that were looked for last, the latest first.
    children: [u32; 2],
    /// Number of the node that was looked for after this one, the last time.
    next: u32,
    /// Number of the info (infos.rs) that was looked for last.
    last_info: u32,
}

impl Node {
    #[inline(always)]
    fn is(&self, parent: u32, address: u64) -> bool {
        self.address == address && self.parent == parent
    }
}

impl Record for Node {
    #[inline(always)]
    fn hash(&self) -> u64 {
        (self.address ^ u64::from(self.parent) << 34).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

/// The trie of a thread. All zeros is an empty one.
#[repr(C)]
pub(super) struct Nodes {
    store: Store<Node>,
    /// Number of the node that was found last.
    last: u32,
    /// Module of the node that was defined last.
    module: (u64, u64),
}

impl Nodes {
    /// The number of a node, defined if it is new. 0 (as which the root's parent goes) when there is
    /// no memory.
    ///
    /// Tried first: the node defined after the one found last, the one looked for after that one
    /// the last time, and the latest children of the parent. All of them lie together or have just
    /// been in use; the index of a large store would be a cache miss.
    #[inline(always)]
    pub(super) fn get(&mut self, parent: u32, address: u64) -> u32 {
        let next = self.last + 1;
        let found = if self.store.get(next).is_some_and(|node| node.is(parent, address)) {
            next
        } else {
            self.get_elsewhere(parent, address)
        };
        self.last = found;
        found
    }

    #[inline]
    fn get_elsewhere(&mut self, parent: u32, address: u64) -> u32 {
        let is_wanted = |node: &Node| node.is(parent, address);
        let next = self.store.get(self.last).map_or(0, |node| node.next);
        if self.store.get(next).is_some_and(is_wanted) {
            return next;
        }
        let children = self.store.get(parent).map_or([0; 2], |node| node.children);
        let found = match children {
            [first, _] if self.store.get(first).is_some_and(is_wanted) => first,
            [_, second] if self.store.get(second).is_some_and(is_wanted) => second,
            [first, _] => {
                let found = self.find(parent, address);
                if let Some(parent) = self.store.get_mut(parent) {
                    parent.children = [found, first];
                }
                found
            }
        };
        if let Some(last) = self.store.get_mut(self.last) {
            last.next = found;
        }
        found
    }

    fn find(&mut self, parent: u32, address: u64) -> u32 {
        let node = Node { address, parent, id: 0, children: [0; 2], next: 0, last_info: 0 };
        match self.store.find(node.hash(), |node| node.is(parent, address)) {
            0 => self.define(node),
            found => found,
        }
    }

    #[cold]
    #[inline(never)]
    fn define(&mut self, node: Node) -> u32 {
        if !(self.module.0..self.module.1).contains(&node.address)
            && let Some(module) = modules::describe_once(node.address as usize)
        {
            self.module = (module.start as u64, module.end as u64);
        }
        let id = define(self.id(node.parent), node.address);
        self.store.push(Node { id, ..node })
    }

    /// The ID of a node.
    #[inline(always)]
    pub(super) fn id(&self, number: u32) -> u32 {
        self.store.get(number).map_or(0, |node| node.id)
    }

    /// Number of the info that was looked for last with this node.
    #[inline(always)]
    pub(super) fn last_info(&self, number: u32) -> u32 {
        self.store.get(number).map_or(0, |node| node.last_info)
    }

    /// See [`Nodes::last_info`].
    #[inline(always)]
    pub(super) fn set_last_info(&mut self, number: u32, info: u32) {
        if let Some(node) = self.store.get_mut(number) {
            node.last_info = info;
        }
    }

    /// Whether there is room for the nodes of one more stack.
    #[inline(always)]
    pub(super) fn is_full(&self) -> bool {
        self.store.is_full()
    }

    /// Forgets all and keeps no memory.
    pub(super) fn release(&mut self) {
        self.store.release();
    }

    /// Forgets all: the trace is another, or addresses may mean something else.
    pub(super) fn forget(&mut self) {
        self.store.clear();
        (self.last, self.module) = (0, (0, 0));
    }
}

/// Defines a node by IDs.
pub(super) fn define(parent: u32, address: u64) -> u32 {
    let Some(id) = next_id(&LAST_ID) else { return 0 };
    words::record(&[word::first(Tag::Node as u8, id, parent), word::continuation(address)]);
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

/// The "return address" of the root of this thread's stacks.
pub(super) fn root_of_this_thread() -> u64 {
    (sys::gettid() as u64) << THREAD_SHIFT
}
