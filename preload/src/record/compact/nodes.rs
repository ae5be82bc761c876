//! The nodes of a stream's call stacks, each stated in the trace when it is met first.
//!
//! Each stream has a trie of its own, so nothing here is shared. A node has the same number in the
//! trie and in the trace.

use super::stream::Stream;
use super::trie::{NOBODY, Trie};
use crate::modules;

/// See the module's documentation. All zeros is none.
#[repr(C)]
pub(super) struct Nodes {
    trie: Trie,
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
        let found = match self.trie.is(next, parent, address) {
            true => next,
            false => self.get_elsewhere(stream, parent, address),
        };
        self.last = found;
        found
    }

    /// The node is known, and as good as found.
    #[inline(always)]
    pub(super) fn find_last(&mut self, number: u32) {
        self.last = number;
    }

    #[inline(never)]
    fn get_elsewhere(&mut self, stream: &mut Stream, parent: u32, address: u64) -> u32 {
        match self.trie.find(parent, address) {
            NOBODY => self.define(stream, parent, address),
            found => found,
        }
    }

    #[cold]
    #[inline(never)]
    fn define(&mut self, stream: &mut Stream, parent: u32, address: u64) -> u32 {
        if !(self.module.0..self.module.1).contains(&address) {
            self.describe_module(stream, address as usize);
        }
        let number = stream.node(parent, address);
        // Without memory the two would count apart.
        let is_kept = self.trie.add(parent, address) == number;
        if !is_kept || self.trie.is_full() {
            stream.demand_forgetting();
        }
        if is_kept { number } else { 0 }
    }

    /// Makes sure that the trace speaks of the module of an address before the node does.
    fn describe_module(&mut self, stream: &mut Stream, address: usize) {
        let Some(module) = modules::find(address) else { return };
        // Another thread may have described it, at a stamp that is newer than the last one here.
        match modules::is_known(&module) {
            true => stream.store_stamp(),
            false => modules::write_line_of(&module, |line| stream.text(&[line, b"\n"])),
        }
        self.module = (module.start as u64, module.end as u64);
    }

    /// Forgets all: the trace is another, or addresses may mean something else.
    pub(super) fn forget(&mut self) {
        self.trie.clear();
        (self.last, self.module) = (0, (0, 0));
    }
}
