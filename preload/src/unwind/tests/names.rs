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
}

impl Chains {
    pub(super) fn new() -> Chains {
        let nodes = map_anonymous(MAX_NODES * size_of::<(u32, u64)>()).unwrap().cast();
        Chains { nodes, len: 1 }
    }

    /// How many names were given.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    fn get(&self, node: u32) -> (u32, u64) {
        assert!((node as usize) < self.len);
        // SAFETY: below the length.
        unsafe { *self.nodes.add(node as usize) }
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
        self.push(0, end as u64)
    }

    fn frame(&mut self, outer: u32, address: u64) -> u32 {
        self.push(outer, address)
    }
}

/// The node of the stack of the hook's caller, as record/compact/stack.rs finds it.
pub(super) fn node_of(
    last: &mut LastStack,
    start: &Registers,
    stack: &mut Stack,
    names: &mut Chains,
) -> Option<u32> {
    if names.len + crate::unwind::MAX_FRAMES + 1 >= MAX_NODES {
        names.len = 1;
        last.clear();
    }
    match last.unchanged(start.caller()) {
        Some(node) => Some(node),
        None => last.update(start, stack, names),
    }
}
