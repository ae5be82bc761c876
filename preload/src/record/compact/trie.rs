//! The stack trie: a call stack is a chain of nodes (parent, return address), known by numbers.
//!
//! A program that does a thing again meets its stacks in the order in which it met them first, so
//! the node that was made after the one found last is tried first: it is in the cache, where a probe
//! of a large index is not. Then come the parent's children, the latest first. Most functions call
//! from a few places only; the children of those that call from many are in an index.

use super::index::Index;
use super::store::Store;

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
    /// What the outermost frames have as parent; as a child or sibling: none.
    const NOBODY: Node = Node { address: 0, parent: 0, child: 0, sibling: 0, has_many: false };

    #[inline(always)]
    fn is(&self, parent: u32, address: u64) -> bool {
        self.address == address && self.parent == parent
    }
}

/// The number of [`Node::NOBODY`].
pub(super) const NOBODY: u32 = 0;

/// Children that a parent has without an index.
const FEW: usize = 8;
/// Of a parent that has more, those that are tried first.
const LATEST: usize = 2;

/// See the module's documentation. All zeros is an empty one.
#[repr(C)]
pub(super) struct Trie {
    nodes: Store<Node>,
    /// Children of parents that have many, by parent and address.
    index: Index,
}

impl Trie {
    /// Whether `number` is that of the node with this parent and this address.
    #[inline(always)]
    pub(super) fn is(&self, number: u32, parent: u32, address: u64) -> bool {
        self.nodes.get(number).is_some_and(|node| node.is(parent, address))
    }

    /// The number of the node with this parent and this address; [`NOBODY`] when there is none.
    #[inline(always)]
    pub(super) fn find(&mut self, parent: u32, address: u64) -> u32 {
        let Some(of) = self.nodes.get(parent) else { return NOBODY };
        let tries = if of.has_many { LATEST } else { FEW };
        let (mut before, mut number) = (NOBODY, of.child);
        for _ in 0..tries {
            let Some(node) = self.nodes.get(number).filter(|_| number != NOBODY) else { break };
            if node.address == address {
                if before != NOBODY {
                    self.move_to_front(parent, before, number);
                }
                return number;
            }
            (before, number) = (number, node.sibling);
        }
        match number {
            NOBODY => NOBODY,
            _ => self.find_among_many(parent, address),
        }
    }

    /// Makes `number`, the one after `before`, the child of `parent` that is tried first.
    #[inline(always)]
    fn move_to_front(&mut self, parent: u32, before: u32, number: u32) {
        let first = self.nodes.get(parent).map_or(NOBODY, |node| node.child);
        let next = self.nodes.get(number).map_or(NOBODY, |node| node.sibling);
        self.nodes.update(before, |node| node.sibling = next);
        self.nodes.update(number, |node| node.sibling = first);
        self.nodes.update(parent, |node| node.child = number);
    }

    #[cold]
    #[inline(never)]
    fn find_among_many(&mut self, parent: u32, address: u64) -> u32 {
        if self.nodes.get(parent).is_some_and(|node| !node.has_many) {
            self.index_children(parent);
        }
        let is_wanted = |number| self.is(number, parent, address);
        self.index.find(hash(parent, address), is_wanted)
    }

    /// Enters the children of a parent into the index.
    fn index_children(&mut self, parent: u32) {
        let mut number = self.nodes.get(parent).map_or(NOBODY, |node| node.child);
        while let Some(node) = self.nodes.get(number).filter(|_| number != NOBODY) {
            // Without memory it will be made once more.
            self.index.insert(hash(parent, node.address), number);
            number = node.sibling;
        }
        self.nodes.update(parent, |node| node.has_many = true);
    }

    /// Makes a node, which [`Trie::find`] did not find, and returns its number: one more than that of
    /// the last one. [`NOBODY`] when there is no memory.
    pub(super) fn add(&mut self, parent: u32, address: u64) -> u32 {
        if self.nodes.is_empty() {
            self.nodes.push(Node::NOBODY);
        }
        let Some(of) = self.nodes.get(parent) else { return NOBODY };
        let has_many = of.has_many;
        let number = self.nodes.push(Node { address, parent, sibling: of.child, ..Node::NOBODY });
        if number != NOBODY {
            self.nodes.update(parent, |node| node.child = number);
            if has_many {
                self.index.insert(hash(parent, address), number);
            }
        }
        number
    }

    /// Whether there may be no room for the nodes of one more event.
    pub(super) fn is_full(&self) -> bool {
        self.nodes.is_full()
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        self.nodes.clear();
        self.index.clear();
    }
}

/// Spreads over all 64 bits.
fn hash(parent: u32, address: u64) -> u64 {
    (address ^ u64::from(parent) << 34).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    /// A trie on zeroed memory, as a thread's state is.
    fn empty() -> &'static mut Trie {
        let memory = crate::sys::map_anonymous(size_of::<Trie>()).unwrap().cast::<Trie>();
        // SAFETY: all zeros is an empty trie; nobody else refers to it.
        unsafe { &mut *memory }
    }

    /// Looks nodes up in a trie and in a map, and makes those that are new.
    struct Both {
        trie: &'static mut Trie,
        map: HashMap<(u32, u64), u32>,
    }

    impl Both {
        #[track_caller]
        fn get(&mut self, parent: u32, address: u64) -> u32 {
            let known = self.map.get(&(parent, address)).copied();
            let found = self.trie.find(parent, address);
            assert_eq!(found, known.unwrap_or(NOBODY), "{address:#x} below {parent}");
            match known {
                Some(number) => number,
                None => {
                    let number = self.trie.add(parent, address);
                    assert_eq!(number as usize, self.map.len() + 1);
                    assert!(self.trie.is(number, parent, address));
                    self.map.insert((parent, address), number);
                    number
                }
            }
        }
    }

    /// A sequence of numbers that looks random.
    fn random(seed: u64) -> impl FnMut(u64) -> u64 {
        let mut state = seed;
        move |below| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        }
    }

    #[test]
    fn a_trie_finds_what_a_map_of_parents_and_addresses_finds() {
        for seed in 0..20 {
            let mut both = Both { trie: empty(), map: HashMap::new() };
            let mut random = random(seed);
            // Parents with a child or two and parents with thousands.
            let (places, depth) = [(2, 40), (7, 6), (9, 6), (50, 4), (5000, 2)][seed as usize % 5];
            for _ in 0..3_000 {
                let mut parent = NOBODY;
                for _ in 0..=random(depth) {
                    parent = both.get(parent, 0x5555_0000_0000 + random(places) * 16);
                }
            }
            both.trie.clear();
            both.map.clear();
            assert_eq!(both.trie.find(NOBODY, 0x5555_0000_0000), NOBODY);
            assert_eq!(both.get(NOBODY, 16), 1);
        }
    }

    #[test]
    fn the_children_that_were_looked_for_last_come_first() {
        let trie = empty();
        let numbers: Vec<u32> = (1..=4).map(|address| trie.add(NOBODY, address)).collect();
        assert_eq!(trie.find(NOBODY, 2), numbers[1]);
        let mut order = Vec::new();
        let mut at = trie.nodes.get(NOBODY).unwrap().child;
        while at != NOBODY {
            let node = trie.nodes.get(at).unwrap();
            order.push(node.address);
            at = node.sibling;
        }
        assert_eq!(order, [2, 4, 3, 1]);
    }
}
