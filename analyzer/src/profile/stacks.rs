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
    pub fn steps(&self, stack: StackId) -> Steps<'_> {
        Steps {
            stacks: self,
            stack,
            depth: 0,
            next: self.nodes.get(stack as usize),
            call: None,
            is_in_lang_start: false,
            was_in_lang_start: false,
            backtrace: None,
        }
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

/// Goes through the steps of a stack.
#[derive(Debug)]
pub struct Steps<'a> {
    stacks: &'a Stacks,
    stack: StackId,
    /// Nodes that have been gone through.
    depth: usize,
    next: Option<&'a StackNode>,
    /// The call that was reached, and its next frame.
    call: Option<(&'a Call, SiteId, usize)>,
    /// It is std's start of a program,
    is_in_lang_start: bool,
    /// or the call inside of it was: a function `main` made by rustc, which has no source.
    was_in_lang_start: bool,
    /// See [`Stacks::backtrace`]; looked for when a frame asks.
    backtrace: Option<Option<usize>>,
}

impl<'a> Steps<'a> {
    /// The next frame of the call that was reached.
    fn frame(&mut self) -> Option<StackFrame<'a>> {
        let (call, call_id, index) = self.call?;
        let frames = &call.place.frames;
        self.call = Some((call, call_id, index + 1)).filter(|_| index + 1 < frames.len());
        let frame = frames.get(index);
        let is_shim = self.was_in_lang_start && frame.is_some_and(is_bare_main);
        let is_runtime = is_shim
            || call.owners.get(index).is_some_and(|owner| match owner {
                Owner::Program => false,
                Owner::Runtime => true,
                Owner::Backtrace => {
                    let (stacks, stack) = (self.stacks, self.stack);
                    let outermost = *self.backtrace.get_or_insert_with(|| stacks.backtrace(stack));
                    outermost.is_some_and(|outermost| self.depth <= outermost + 1)
                }
            });
        Some(StackFrame { call, call_id, index, frame, is_runtime })
    }
}

impl<'a> Iterator for Steps<'a> {
    type Item = Step<'a>;

    fn next(&mut self) -> Option<Step<'a>> {
        loop {
            if let Some(frame) = self.frame() {
                return Some(Step::Frame(frame));
            }
            let node = self.next?;
            self.next = node.parent.and_then(|parent| self.stacks.nodes.get(parent as usize));
            self.depth += 1;
            self.was_in_lang_start = self.is_in_lang_start;
            match node.link {
                Link::Call(id) => {
                    let Some(call) = self.stacks.calls.get(id as usize) else { continue };
                    self.is_in_lang_start = call.place.frames.iter().any(is_lang_start);
                    self.call = Some((call, id, 0));
                }
                Link::Cut => return Some(Step::Cut),
                Link::Ended => return Some(Step::Ended),
                Link::Unknown => {}
            }
        }
    }
}

fn is_lang_start(frame: &Frame) -> bool {
    let function = frame.function.as_deref().unwrap_or_default();
    function.starts_with("std::rt::lang_start") || function.starts_with("lang_start")
}

fn is_bare_main(frame: &Frame) -> bool {
    frame.file.is_none() && frame.function.as_deref() == Some("main")
}
