//! The call stack of an event -> its node.

use core::ops::ControlFlow;

use mtr_format::compact::word::{FRAMES_CUT, WALK_ENDED};

use super::thread::Thread;
use crate::unwind::{self, End, Registers};

/// Innermost frames that are kept of a stack.
const INNER: usize = 1000;
/// Outermost frames that are kept of a deeper one.
const OUTER: usize = 24;

/// The frames of the last stack.
#[repr(C)]
pub(super) struct Frames {
    inner: [u64; INNER],
    /// The latest frames beyond those, at their index modulo [`OUTER`].
    outer: [u64; OUTER],
}

impl Frames {
    /// Forgets the last stack.
    pub(super) fn forget(&mut self) {}
}

/// The node of the hook's caller.
#[inline(always)]
pub(super) fn node(thread: &mut Thread, caller: &Registers) -> u32 {
    thread.bounds.update(caller.rsp);
    let bounds = thread.bounds;
    let frames = &mut thread.frames;
    let mut depth = 0;
    let end = unwind::walk(caller, &bounds, |frame| {
        // A signal interrupted this instruction; readers look up what is before an address.
        let address = frame.pc + u64::from(frame.is_interrupted);
        let place = match depth {
            0..INNER => frames.inner.get_mut(depth),
            _ => frames.outer.get_mut((depth - INNER) % OUTER),
        };
        if let Some(place) = place {
            *place = address;
        }
        depth += 1;
        ControlFlow::Continue(())
    });
    let mut node = thread.root();
    if matches!(end, End::Truncated(_)) {
        node = thread.nodes.get(node, WALK_ENDED);
    }
    if depth > INNER {
        node = outer_node(thread, node, depth);
    }
    for index in (0..depth.min(INNER)).rev() {
        let Some(address) = thread.frames.inner.get(index).copied() else { break };
        node = thread.nodes.get(node, address);
    }
    node
}

/// The node of the outermost frames of a stack that is too deep, and of the mark for what is left
/// out.
#[cold]
#[inline(never)]
fn outer_node(thread: &mut Thread, root: u32, depth: usize) -> u32 {
    let mut node = root;
    let beyond = depth - INNER;
    for index in (beyond.saturating_sub(OUTER)..beyond).rev() {
        let Some(address) = thread.frames.outer.get(index % OUTER).copied() else { break };
        node = thread.nodes.get(node, address);
    }
    if beyond > OUTER { thread.nodes.get(node, FRAMES_CUT) } else { node }
}
