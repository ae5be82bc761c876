//! The call stack of an event -> its node.

use core::ops::ControlFlow;

use mtr_format::compact::encode::{AllocHead, FreeTail};
use mtr_format::compact::op::{FRAMES_CUT, WALK_ENDED};

use super::nodes::Nodes;
use super::stream::Stream;
use super::thread::State;
#[cfg(feature = "verify-stacks")]
use crate::unwind::verify::Way;
use crate::unwind::{Caller, End, Key, Names, Registers};
use crate::{config, dlclose};

/// What the outermost frame of a stack has as parent.
const ROOT: u32 = 0;

/// The node of the hook's caller.
#[inline(always)]
pub(super) fn node(state: &mut State, caller: &Registers) -> u32 {
    if config::get().caller_only {
        return node_of_caller(state, caller.return_address);
    }
    if let Some(node) = state.last.unchanged(caller.caller()) {
        #[cfg(feature = "verify-stacks")]
        verify(state, caller, node, Way::Unchanged);
        return node;
    }
    node_of_changed_stack(state, caller)
}

/// As [`node`], where [`head_usually`] has found none.
#[inline(always)]
pub(super) fn new_node(state: &mut State, caller: &Registers) -> u32 {
    if config::get().caller_only {
        return node_of_caller(state, caller.return_address);
    }
    node_of_changed_stack(state, caller)
}

/// As [`node`], of a stack that is not the last one.
#[inline(always)]
fn node_of_changed_stack(state: &mut State, caller: &Registers) -> u32 {
    match state.last.recall(caller.caller()) {
        Ok(node) => {
            state.head = AllocHead::of(node);
            state.nodes.find_last(node);
            #[cfg(feature = "verify-stacks")]
            verify(state, caller, node, Way::Recalled);
            node
        }
        Err(key) => {
            let node = node_of_new_stack(state, caller, key);
            #[cfg(feature = "verify-stacks")]
            verify(state, caller, node, Way::Walked);
            node
        }
    }
}

#[cfg(feature = "verify-stacks")]
fn verify(state: &State, caller: &Registers, node: u32, way: Way) {
    crate::unwind::verify::verify(&state.last, caller, &state.bounds, node, way);
}

/// As [`node`], of a stack that has changed in a new way.
#[inline(never)]
fn node_of_new_stack(state: &mut State, caller: &Registers, key: Key) -> u32 {
    let mut names = Trie { nodes: &mut state.nodes, stream: &mut state.stream };
    match state.last.update(caller, key, &mut state.bounds, &mut names) {
        Some(node) => {
            state.head = AllocHead::of(node);
            node
        }
        None => node_of_deep_stack(state, caller),
    }
}

/// What the record of an allocation at the node of the hook's caller begins with, if that takes no
/// call to find.
#[inline(always)]
pub(super) fn head_usually(state: &mut State, caller: Caller) -> Option<AllocHead> {
    if config::get().caller_only {
        let known = state.callers.place(caller.pc);
        return (known.address == caller.pc).then(|| AllocHead::of(known.node));
    }
    // Of the last stack's node.
    state.last.unchanged(caller).map(|_| state.head)
}

/// Frames are known by their nodes.
struct Trie<'a> {
    nodes: &'a mut Nodes,
    stream: &'a mut Stream,
}

impl Names for Trie<'_> {
    fn outside(&mut self, end: End) -> u32 {
        match end {
            End::Truncated(_) => self.nodes.get(self.stream, ROOT, WALK_ENDED),
            End::Root | End::Limit => ROOT,
        }
    }

    #[inline(always)]
    fn frame(&mut self, outer: u32, address: u64) -> u32 {
        self.nodes.get(self.stream, outer, address)
    }
}

/// A caller that was met lately. All zeros is none.
#[repr(C)]
#[derive(Clone, Copy)]
struct KnownCaller {
    address: u64,
    node: u32,
    free_tail: Option<FreeTail>,
}

/// Callers that were met lately, by address.
#[repr(C)]
pub(super) struct Callers([KnownCaller; 64]);

impl Callers {
    /// Forgets all.
    pub(super) fn forget(&mut self) {
        self.0 = [KnownCaller { address: 0, node: ROOT, free_tail: None }; 64];
    }

    #[inline(always)]
    fn place(&mut self, address: u64) -> &mut KnownCaller {
        let Callers(callers) = self;
        let index = address as usize % callers.len();
        // SAFETY: just made smaller than that.
        unsafe { callers.get_unchecked_mut(index) }
    }

    /// What the record of a free ends with that returns there, if such a one was met lately.
    #[inline(always)]
    pub(super) fn free_tail(&mut self, address: u64) -> Option<FreeTail> {
        let known = self.place(address);
        if known.address == address { known.free_tail } else { None }
    }
}

/// The node of a caller, of which nothing further out is recorded.
#[inline(always)]
pub(super) fn node_of_caller(state: &mut State, address: u64) -> u32 {
    let known = state.callers.place(address);
    if known.address == address {
        return known.node;
    }
    let node = state.nodes.get(&mut state.stream, ROOT, address);
    // Each free of the loader's has to be looked at (dlclose.rs).
    if !dlclose::is_loaders(address as usize) {
        *known = KnownCaller { address, node, free_tail: FreeTail::of(node) };
    }
    node
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
fn node_of_deep_stack(state: &mut State, caller: &Registers) -> u32 {
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
    let mut node = ROOT;
    if matches!(end, End::Truncated(_)) {
        node = state.nodes.get(&mut state.stream, node, WALK_ENDED);
    }
    let beyond = depth.saturating_sub(INNER);
    for index in (beyond.saturating_sub(OUTER)..beyond).rev() {
        let Some(address) = state.deep.outer.get(index % OUTER).copied() else { break };
        node = state.nodes.get(&mut state.stream, node, address);
    }
    if beyond > OUTER {
        node = state.nodes.get(&mut state.stream, node, FRAMES_CUT);
    }
    for index in (0..depth.min(INNER)).rev() {
        let Some(address) = state.deep.inner.get(index).copied() else { break };
        node = state.nodes.get(&mut state.stream, node, address);
    }
    node
}
