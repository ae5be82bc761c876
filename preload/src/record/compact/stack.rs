//! The call stack of an event -> its node.

use core::ops::ControlFlow;

use mtr_format::compact::word::{FRAMES_CUT, WALK_ENDED};

use super::nodes::Nodes;
use super::thread::State;
use crate::unwind::{End, Names, Registers};

/// The node of the hook's caller. `root` is that of the thread.
#[inline(always)]
pub(super) fn node(state: &mut State, root: u32, caller: &Registers) -> u32 {
    let last = state.last.unchanged(caller, &state.bounds);
    let node = match last {
        Some(node) => node,
        None => node_of_new_stack(state, root, caller),
    };
    #[cfg(feature = "verify-stacks")]
    crate::unwind::verify::verify(&state.last, caller, &state.bounds, node, last.is_some());
    node
}

/// As [`node`], of a stack that is not the last one.
#[inline(never)]
fn node_of_new_stack(state: &mut State, root: u32, caller: &Registers) -> u32 {
    let mut names = Trie { nodes: &mut state.nodes, root };
    match state.last.update(caller, &mut state.bounds, &mut names) {
        Some(node) => node,
        None => node_of_deep_stack(state, root, caller),
    }
}

/// Frames are known by their nodes.
struct Trie<'a> {
    nodes: &'a mut Nodes,
    root: u32,
}

impl Names for Trie<'_> {
    fn outside(&mut self, end: End) -> u32 {
        match end {
            End::Truncated(_) => self.nodes.get(self.root, WALK_ENDED),
            End::Root | End::Limit => self.root,
        }
    }

    #[inline(always)]
    fn frame(&mut self, outer: u32, address: u64) -> u32 {
        self.nodes.get(outer, address)
    }
}

/// Innermost frames that are kept of a stack that is too deep.
const INNER: usize = 1000;
/// Outermost frames that are kept of it.
const OUTER: usize = 24;

/// Room for the frames of such a stack.
#[repr(C)]
pub(super) struct DeepStack {
    inner: [u64; INNER],
    /// The latest frames beyond those, at their index modulo [`OUTER`].
    outer: [u64; OUTER],
}

/// As [`node`], frame by frame, of a stack with more frames than are remembered.
#[cold]
#[inline(never)]
fn node_of_deep_stack(state: &mut State, root: u32, caller: &Registers) -> u32 {
    let State { deep: frames, last, bounds, .. } = state;
    let mut depth = 0;
    let end = last.walk(caller, bounds, |frame| {
        let place = match depth {
            0..INNER => frames.inner.get_mut(depth),
            _ => frames.outer.get_mut((depth - INNER) % OUTER),
        };
        if let Some(place) = place {
            *place = frame.return_address();
        }
        depth += 1;
        ControlFlow::Continue(())
    });
    let mut node = root;
    if matches!(end, End::Truncated(_)) {
        node = state.nodes.get(node, WALK_ENDED);
    }
    let beyond = depth.saturating_sub(INNER);
    for index in (beyond.saturating_sub(OUTER)..beyond).rev() {
        let Some(address) = state.deep.outer.get(index % OUTER).copied() else { break };
        node = state.nodes.get(node, address);
    }
    if beyond > OUTER {
        node = state.nodes.get(node, FRAMES_CUT);
    }
    for index in (0..depth.min(INNER)).rev() {
        let Some(address) = state.deep.inner.get(index).copied() else { break };
        node = state.nodes.get(node, address);
    }
    node
}
