//! Call stacks: which calls they are made of, and which frame names the allocation site.

use super::alone::{self, is_plumbing};
use super::runtime::{Owner, makes_backtrace, owner};
use super::{Frame, Link, Place, SiteId, StackId, StackNode};

/// A call, and what to call it where nothing is known of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Call {
    /// Module, address, frames.
    pub place: Place,
    /// The place as the trace states it: `object+0xaddr`.
    pub stated: String,
    /// Whose code each frame is; one answer for a call without frames.
    pub owners: Vec<Owner>,
}

impl Call {
    /// A call with this place.
    pub fn new(place: Place, stated: String) -> Call {
        let module = place.module.as_deref();
        let owners = match &place.frames[..] {
            [] => vec![owner(module, None)],
            frames => frames.iter().map(|frame| owner(module, Some(frame))).collect(),
        };
        Call { place, stated, owners }
    }
}

/// The call stacks of a profile.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Stacks {
    /// Distinct calls.
    pub calls: Vec<Call>,
    /// Distinct stacks, each with its innermost link and the stack that it continues.
    pub nodes: Vec<StackNode>,
    /// They are whole; else each is the one call that the trace states.
    pub are_whole: bool,
}

/// A step from the innermost frame of a stack towards its root.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Step<'a> {
    /// A frame; those that inlining merged into one call are steps of their own.
    Frame(StackFrame<'a>),
    /// Frames were left out here.
    Cut,
    /// The rest is not known.
    Ended,
}

/// A frame of a stack.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StackFrame<'a> {
    /// Its call.
    pub call: &'a Call,
    /// Index of the call.
    pub call_id: SiteId,
    /// Its index among the frames of the call.
    pub index: usize,
    /// The frame; `None` where only the address is known.
    pub frame: Option<&'a Frame>,
    /// It belongs to a runtime.
    pub is_runtime: bool,
}

impl Stacks {
    /// All steps of a stack, innermost first.
    pub fn steps(&self, stack: StackId) -> impl Iterator<Item = Step<'_>> {
        // A function `main` made by rustc, which has no source.
        let mut is_in_lang_start = false;
        // Looked for when a frame asks.
        let mut backtrace = None;
        self.nodes_of(stack).enumerate().flat_map(move |(depth, node)| {
            let (mark, call_id) = match node.link {
                Link::Call(id) => (None, id),
                Link::Cut => (Some(Step::Cut), 0),
                Link::Ended => (Some(Step::Ended), 0),
                Link::Unknown => (None, SiteId::MAX),
            };
            let call = self.calls.get(call_id as usize).filter(|_| mark.is_none());
            let count = call.map_or(0, |call| call.place.frames.len().max(1));
            let was_in_lang_start = is_in_lang_start;
            if let Some(call) = call {
                is_in_lang_start = call.place.frames.iter().any(is_lang_start);
            }
            let asks = call.is_some_and(|call| call.owners.contains(&Owner::Backtrace));
            let is_in_backtrace = asks
                && backtrace
                    .get_or_insert_with(|| self.backtrace(stack))
                    .is_some_and(|outermost| depth <= outermost);
            let frames = (0..count).filter_map(move |index| {
                let call = call?;
                let frame = call.place.frames.get(index);
                let is_shim = was_in_lang_start && frame.is_some_and(is_bare_main);
                let is_runtime = is_shim
                    || call.owners.get(index).is_some_and(|owner| match owner {
                        Owner::Program => false,
                        Owner::Runtime => true,
                        Owner::Backtrace => is_in_backtrace,
                    });
                Some(Step::Frame(StackFrame { call, call_id, index, frame, is_runtime }))
            });
            mark.into_iter().chain(frames)
        })
    }

    /// The nodes of a stack, innermost first.
    fn nodes_of(&self, stack: StackId) -> impl Iterator<Item = &StackNode> {
        let next = |node: &&StackNode| self.nodes.get(node.parent? as usize);
        std::iter::successors(self.nodes.get(stack as usize), next)
    }

    /// At which depth of a stack the outermost frame is inside of which std makes a backtrace.
    fn backtrace(&self, stack: StackId) -> Option<usize> {
        let makes = |node: &StackNode| match node.link {
            Link::Call(id) => self
                .calls
                .get(id as usize)
                .is_some_and(|call| call.place.frames.iter().any(makes_backtrace)),
            _ => false,
        };
        let nodes = self.nodes_of(stack).enumerate().filter(|(_, node)| makes(node));
        nodes.map(|(depth, _)| depth).last()
    }

    /// The frame that names the allocation site: the innermost one that does not belong to a
    /// runtime, else the innermost one that says what the runtime wanted memory for.
    pub fn site(&self, stack: StackId) -> Option<StackFrame<'_>> {
        let (mut telling, mut innermost) = (None, None);
        for step in self.steps(stack) {
            match step {
                Step::Frame(frame) if !frame.is_runtime => return Some(frame),
                Step::Frame(frame) => {
                    innermost.get_or_insert(frame);
                    if telling.is_none() && !frame.frame.is_some_and(is_plumbing) {
                        telling = Some(frame);
                    }
                }
                _ => {}
            }
        }
        telling.or(innermost)
    }

    /// The runtime that allocated of its own accord: all frames of the stack are known, and none is
    /// the program's.
    pub fn runtime_alone(&self, stack: StackId) -> Option<String> {
        let is_known = |step| matches!(step, Step::Frame(frame) if frame.is_runtime);
        let site = self.site(stack).filter(|site| site.is_runtime)?;
        let is_alone = self.are_whole && self.steps(stack).all(is_known);
        is_alone.then(|| alone::name(site.call.place.module.as_deref(), site.frame))
    }
}

fn is_lang_start(frame: &Frame) -> bool {
    let function = frame.function.as_deref().unwrap_or_default();
    function.starts_with("std::rt::lang_start") || function.starts_with("lang_start")
}

fn is_bare_main(frame: &Frame) -> bool {
    frame.file.is_none() && frame.function.as_deref() == Some("main")
}
