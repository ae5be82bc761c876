//! The stack trie: a call stack is a chain of nodes (parent, return address).
//!
//! Each stream has a trie of its own, so nothing here is shared. Within it a node has a number, its
//! place in the [`Store`], by which the trace knows it too.

use super::store::{Record, Store};
use super::stream::Stream;
use crate::modules;

#[derive(Clone, Copy)]
#[repr(C)]
struct Node {
    address: u64,
    /// Number of the parent.
    parent: u32,
    /// Number of the child that was looked for last.
    child: u32,
    /// Number of the node that was looked for after this one, the last time.
    next: u32,
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

/// The trie of a stream. All zeros is an empty one.
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
    pub(super) fn get(&mut self, stream: &mut Stream, parent: u32, address: u64) -> u32 {
        let next = self.last + 1;
        let found = if self.store.get(next).is_some_and(|node| node.is(parent, address)) {
            next
        } else {
            self.get_elsewhere(stream, parent, address)
        };
        self.last = found;
        found
    }

    #[inline]
    fn get_elsewhere(&mut self, stream: &mut Stream, parent: u32, address: u64) -> u32 {
        let is_wanted = |node: &Node| node.is(parent, address);
        let next = self.store.get(self.last).map_or(0, |node| node.next);
        if self.store.get(next).is_some_and(is_wanted) {
            return next;
        }
        let child = self.store.get(parent).map_or(0, |node| node.child);
        let found = match self.store.get(child).is_some_and(is_wanted) {
            true => child,
            false => {
                let found = self.find(stream, parent, address);
                if let Some(parent) = self.store.get_mut(parent) {
                    parent.child = found;
                }
                found
            }
        };
        if let Some(last) = self.store.get_mut(self.last) {
            last.next = found;
        }
        found
    }

    fn find(&mut self, stream: &mut Stream, parent: u32, address: u64) -> u32 {
        let node = Node { address, parent, child: 0, next: 0 };
        match self.store.find(node.hash(), |node| node.is(parent, address)) {
            0 => self.define(stream, node),
            found => found,
        }
    }

    #[cold]
    #[inline(never)]
    fn define(&mut self, stream: &mut Stream, node: Node) -> u32 {
        if !(self.module.0..self.module.1).contains(&node.address) {
            self.describe_module(stream, node.address as usize);
        }
        let number = stream.node(node.parent, node.address);
        // Without memory the two would count apart.
        let is_kept = self.store.push(node) == number;
        if !is_kept || self.store.is_full() {
            stream.demand_forgetting();
        }
        if is_kept { number } else { 0 }
    }

    /// Makes sure that the trace speaks of the module of an address before the node does.
    fn describe_module(&mut self, stream: &mut Stream, address: usize) {
        let Some(module) = modules::find(address) else { return };
        // Another thread may have described it, at a stamp that is newer than the last one here.
        match modules::is_known(&module) {
            true => stream.stamp_now(),
            false => modules::write_line_of(&module, |line| stream.text(&[line, b"\n"])),
        }
        self.module = (module.start as u64, module.end as u64);
    }

    /// Forgets all: the trace is another, or addresses may mean something else.
    pub(super) fn forget(&mut self) {
        self.store.clear();
        (self.last, self.module) = (0, (0, 0));
    }
}
