//! Names of frames for tests: each is the number of a node, which knows the frame and the one outside
//! of it. Mapped memory, so that it serves in signal handlers and inside of malloc.

use crate::sys::map_anonymous;
use crate::unwind::walk::Cut;
use crate::unwind::{End, LastStack, Names, Registers, Stack};

/// Nodes that there is room for. Only those in use take memory.
const MAX_NODES: usize = 1 << 22;

pub(super) struct Chains {
    /// Outer node and address; of what is outside of a stack: 0, and how it ends.
    nodes: *mut (u32, u64),
    len: usize,
    /// Nodes by their hash, or in one of the next places. 0: none.
    index: *mut u32,
}

const PLACES: usize = 2 * MAX_NODES;

impl Chains {
    pub(super) fn new() -> Chains {
        let nodes = map_anonymous(MAX_NODES * size_of::<(u32, u64)>()).unwrap().cast();
        let index = map_anonymous(PLACES * size_of::<u32>()).unwrap().cast();
        Chains { nodes, len: 1, index }
    }

    /// Forgets all names.
    fn clear(&mut self) {
        self.len = 1;
        // SAFETY: the mapping of `new`.
        unsafe { self.index.write_bytes(0, PLACES) };
    }

    fn get(&self, node: u32) -> (u32, u64) {
        assert!((node as usize) < self.len);
        // SAFETY: below the length.
        unsafe { *self.nodes.add(node as usize) }
    }

    /// The node with this outer one and this address: the same chain has the same name, as in a trie.
    fn name(&mut self, outer: u32, address: u64) -> u32 {
        let hash = (address ^ u64::from(outer) << 34).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for place in (hash >> 41) as usize.. {
            // SAFETY: a place of the index. There are fewer nodes than places.
            let place = unsafe { &mut *self.index.add(place % PLACES) };
            match *place {
                0 => {
                    *place = self.push(outer, address);
                    return *place;
                }
                node if self.get(node) == (outer, address) => return node,
                _ => {}
            }
        }
        unreachable!()
    }

    fn push(&mut self, outer: u32, address: u64) -> u32 {
        assert!(self.len < MAX_NODES);
        // SAFETY: just checked.
        unsafe { *self.nodes.add(self.len) = (outer, address) };
        self.len += 1;
        self.len as u32 - 1
    }

    /// Addresses of the frames from `node` outwards.
    pub(super) fn addresses(&self, node: u32) -> impl Iterator<Item = u64> {
        let mut at = self.get(node);
        core::iter::from_fn(move || {
            let (outer, address) = at;
            at = (outer != 0).then(|| self.get(outer))?;
            Some(address)
        })
    }

    /// How the stack of `node` ends.
    pub(super) fn end(&self, node: u32) -> End {
        let mut at = self.get(node);
        while at.0 != 0 {
            at = self.get(at.0);
        }
        ENDS[at.1 as usize]
    }
}

const ENDS: [End; 5] = [
    End::Root,
    End::Truncated(Cut::NoCfi),
    End::Truncated(Cut::BadCfi),
    End::Truncated(Cut::Bounds),
    End::Truncated(Cut::Unreadable),
];

impl Names for Chains {
    fn outside(&mut self, end: End) -> u32 {
        let end = ENDS.iter().position(|known| *known == end).unwrap();
        self.name(0, end as u64)
    }

    fn frame(&mut self, outer: u32, address: u64) -> u32 {
        self.name(outer, address)
    }
}

/// How [`node_of`] has found a stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Unchanged,
    Recalled,
    Walked,
}

/// The node of the stack of the hook's caller, as record/compact/stack.rs finds it.
pub(super) fn node_of(
    last: &mut LastStack,
    start: &Registers,
    stack: &mut Stack,
    names: &mut Chains,
) -> Option<(u32, Way)> {
    if names.len + crate::unwind::MAX_FRAMES + 1 >= MAX_NODES {
        names.clear();
        last.clear();
    }
    if let Some(node) = last.unchanged(start.caller()) {
        return Some((node, Way::Unchanged));
    }
    match last.recall(start.caller()) {
        Ok(node) => Some((node, Way::Recalled)),
        Err(key) => Some((last.update(start, key, stack, names)?, Way::Walked)),
    }
}
