//! The stack trie: a call stack is a chain of nodes (parent, return address).
//!
//! Each stream has a trie of its own, so nothing here is shared. Within it a node has a number, by
//! which the trace knows it too.
//!
//! A program that does a thing again meets its stacks in the order in which it met them first, so
//! the node that was defined after the one found last is tried first: it is in the cache, where a
//! probe of a large index is not. Then come the parent's children, the latest first. Most functions
//! call from a few places only; the children of those that call from many are in an index.

use super::index::Index;
use super::store::Store;
use super::stream::Stream;
use crate::modules;

/// All zeros is the root's parent.
#[derive(Clone, Copy)]
#[repr(C)]
struct Node {
    address: u64,
    /// Number of the parent.
    parent: u32,
    /// Number of the child that was looked for last.
    child: u32,
    /// Number of the parent's child that was looked for before this one.
    sibling: u32,
    /// Whether its children are in the index.
    has_many: bool,
}

impl Node {
    const NOBODY: Node = Node { address: 0, parent: 0, child: 0, sibling: 0, has_many: false };

    #[inline(always)]
    fn is(&self, parent: u32, address: u64) -> bool {
        self.address == address && self.parent == parent
    }
}

/// Spreads over all 64 bits.
fn hash(parent: u32, address: u64) -> u64 {
    (address ^ u64::from(parent) << 34).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Children that a parent has without an index.
const FEW: usize = 8;
/// Of a parent that has more, those that are tried first.
const LATEST: usize = 2;

/// The number of the root's parent.
const NOBODY: u32 = 0;

/// The trie of a stream. All zeros is an empty one.
#[repr(C)]
pub(super) struct Nodes {
    store: Store<Node>,
    /// Children of parents that have many, by parent and address.
    index: Index,
    /// Number of the node that was found last.
    last: u32,
    /// Module of the node that was defined last.
    module: (u64, u64),
}

impl Nodes {
    /// The number of a node, defined if it is new. 0 (as which the root's parent goes) when there is
    /// no memory.
    #[inline(always)]
    pub(super) fn get(&mut self, stream: &mut Stream, parent: u32, address: u64) -> u32 {
        let next = self.last + 1;
        let is_next = self.store.get(next).is_some_and(|node| node.is(parent, address));
        let found = if is_next { next } else { self.child(stream, parent, address) };
        self.last = found;
        found
    }

    #[inline(never)]
    fn child(&mut self, stream: &mut Stream, parent: u32, address: u64) -> u32 {
        let Some(of) = self.store.get(parent) else { return self.define(stream, parent, address) };
        let tries = if of.has_many { LATEST } else { FEW };
        let (mut before, mut number) = (NOBODY, of.child);
        for _ in 0..tries {
            let Some(node) = self.store.get(number).filter(|_| number != NOBODY) else { break };
            if node.address == address {
                if before != NOBODY {
                    self.move_to_front(parent, before, number);
                }
                return number;
            }
            (before, number) = (number, node.sibling);
        }
        match number {
            NOBODY => self.define(stream, parent, address),
            _ => self.child_of_many(stream, parent, address),
        }
    }

    /// Makes `number`, the one after `before`, the child of `parent` that is tried first.
    #[inline(always)]
    fn move_to_front(&mut self, parent: u32, before: u32, number: u32) {
        let (Some(of), Some(node)) = (self.store.get(parent), self.store.get(number)) else {
            return;
        };
        let (first, next) = (of.child, node.sibling);
        self.store.update(before, |node| node.sibling = next);
        self.store.update(number, |node| node.sibling = first);
        self.store.update(parent, |node| node.child = number);
    }

    #[cold]
    #[inline(never)]
    fn child_of_many(&mut self, stream: &mut Stream, parent: u32, address: u64) -> u32 {
        if self.store.get(parent).is_some_and(|node| !node.has_many) {
            self.index_children(parent);
        }
        let store = &self.store;
        let is_wanted = |number| store.get(number).is_some_and(|node| node.is(parent, address));
        match self.index.find(hash(parent, address), is_wanted) {
            NOBODY => self.define(stream, parent, address),
            found => found,
        }
    }

    /// Enters the children of a parent into the index.
    fn index_children(&mut self, parent: u32) {
        let mut number = self.store.get(parent).map_or(NOBODY, |node| node.child);
        while let Some(node) = self.store.get(number).filter(|_| number != NOBODY) {
            // Without memory it will be defined once more.
            self.index.insert(hash(parent, node.address), number);
            number = node.sibling;
        }
        self.store.update(parent, |node| node.has_many = true);
    }

    #[cold]
    #[inline(never)]
    fn define(&mut self, stream: &mut Stream, parent: u32, address: u64) -> u32 {
        if !(self.module.0..self.module.1).contains(&address) {
            self.describe_module(stream, address as usize);
        }
        let number = stream.node(parent, address);
        // Without memory the two would count apart.
        let is_kept = self.keep(parent, address) == number;
        if !is_kept || self.store.is_full() {
            stream.demand_forgetting();
        }
        if is_kept { number } else { 0 }
    }

    /// Makes a node and returns its number; 0 when there is no memory.
    fn keep(&mut self, parent: u32, address: u64) -> u32 {
        if self.store.is_empty() {
            self.store.push(Node::NOBODY);
        }
        let Some(of) = self.store.get(parent) else { return 0 };
        let node = Node { address, parent, sibling: of.child, ..Node::NOBODY };
        let has_many = of.has_many;
        let number = self.store.push(node);
        if number != 0 {
            self.store.update(parent, |node| node.child = number);
            if has_many {
                self.index.insert(hash(parent, address), number);
            }
        }
        number
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
        self.index.clear();
        (self.last, self.module) = (0, (0, 0));
    }
}
