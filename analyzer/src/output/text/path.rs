//! What is shown of a call stack: the program's own frames, and recursion once.

use std::collections::VecDeque;

use crate::profile::{Frame, StackFrame, StackId, Stacks, Step};

/// Something that a stack is shown by, from the allocation site outwards.
#[derive(Debug, Clone, Copy)]
pub(super) enum Item<'a> {
    /// A frame of the program.
    Own(Own<'a>),
    /// Frames were left out here.
    Cut,
    /// The rest is not known.
    Ended,
    /// The frames in front of it, so many of them, come so many times more.
    Again {
        /// Frames.
        frames: usize,
        /// Times.
        times: u64,
    },
}

/// A frame of the program; where a stack has none, a frame of a runtime.
#[derive(Debug, Clone, Copy)]
pub(super) struct Own<'a> {
    pub(super) frame: StackFrame<'a>,
    /// How it stands to the frame in front of it.
    pub(super) relation: &'static str,
    /// The function of a runtime that it called to get there.
    pub(super) through: Option<&'a str>,
}

impl Own<'_> {
    /// Whether it looks like another one. Their relations may differ, as recursive functions are
    /// inlined into themselves.
    fn is_like(&self, other: &Own<'_>) -> bool {
        let place = |frame: &Frame| (frame.function.is_some(), frame.line);
        let is_same_call = self.frame.call_id == other.frame.call_id;
        let is_same = is_same_call && self.frame.index == other.frame.index
            || match (self.frame.frame, other.frame.frame) {
                (Some(one), Some(another)) => {
                    place(one) == place(another)
                        && one.line.is_some()
                        && (&one.function, &one.file) == (&another.function, &another.file)
                }
                _ => false,
            };
        is_same && self.through == other.through
    }
}

/// The items of a stack.
pub(super) fn items(stack: StackId, stacks: &Stacks) -> impl Iterator<Item = Item<'_>> {
    Folded { items: own(stack, stacks), ahead: VecDeque::new(), out: VecDeque::new() }
}

/// The same without regard to recursion.
fn own(stack: StackId, stacks: &Stacks) -> impl Iterator<Item = Item<'_>> {
    let site = stacks.site(stack);
    let has_no_own = site.is_some_and(|site| site.is_runtime);
    let mut inner: Option<StackFrame<'_>> = None;
    let mut has_begun = false;
    // The last frame of a runtime, which the next one of the program called.
    let mut through: Option<StackFrame<'_>> = None;
    let mut is_interrupted = false;
    stacks.steps(stack).filter_map(move |step| {
        let frame = match step {
            Step::Frame(frame) => frame,
            _ if !has_begun => return None,
            Step::Cut => {
                inner = None;
                return Some(Item::Cut);
            }
            Step::Ended => return Some(Item::Ended),
        };
        if frame.call.place.ends_signal {
            (through, is_interrupted) = (None, true);
            return None;
        }
        let is_site = !has_begun && site == Some(frame);
        if !is_site && (!has_begun || frame.is_runtime && !has_no_own) {
            through = Some(frame);
            return None;
        }
        let relation = match through {
            _ if is_site => "",
            _ if is_interrupted => "called by a signal in ",
            Some(_) => CALLED_FROM,
            None => relation_to(inner.and_then(|inner| inner.frame)),
        };
        let through = through.take().and_then(|frame| frame.frame?.function.as_deref());
        (inner, has_begun, is_interrupted) = (Some(frame), true, false);
        Some(Item::Own(Own { frame, relation, through }))
    })
}

const CALLED_FROM: &str = "called from ";

/// How the next frame outwards stands to this one.
pub(super) fn relation_to(inner: Option<&Frame>) -> &'static str {
    match inner {
        Some(Frame { inlined: true, .. }) => "inlined into ",
        _ => CALLED_FROM,
    }
}

/// Most functions that recur in turn.
const MOST_FRAMES: usize = 8;
/// Recursion that is shorter is shown as it is.
const LEAST_TIMES: usize = 3;

/// Items, those of a recursion once.
struct Folded<'a, I> {
    items: I,
    /// What has been looked at.
    ahead: VecDeque<Item<'a>>,
    /// What comes before it.
    out: VecDeque<Item<'a>>,
}

impl<'a, I: Iterator<Item = Item<'a>>> Folded<'a, I> {
    /// The own frame at this place of what is ahead.
    fn own(&mut self, index: usize) -> Option<Own<'a>> {
        while self.ahead.len() <= index {
            self.ahead.push_back(self.items.next()?);
        }
        match self.ahead[index] {
            Item::Own(own) => Some(own),
            _ => None,
        }
    }

    /// Whether this many frames from `index` on are the same as from the beginning.
    fn recurs(&mut self, frames: usize, index: usize) -> bool {
        (0..frames).all(|at| match (self.own(at), self.own(index + at)) {
            (Some(one), Some(another)) => one.is_like(&another),
            _ => false,
        })
    }

    /// Leaves out what is the same as `out`, and says how often it came.
    fn pass_over(&mut self) -> u64 {
        let mut turn = Vec::new();
        for times in 0.. {
            turn.clear();
            for first in &self.out {
                let next = self.ahead.pop_front().or_else(|| self.items.next());
                let is_same = match (first, &next) {
                    (Item::Own(first), Some(Item::Own(next))) => next.is_like(first),
                    _ => false,
                };
                turn.extend(next);
                if !is_same {
                    turn.drain(..).rev().for_each(|item| self.ahead.push_front(item));
                    return times;
                }
            }
        }
        0
    }

    /// How many frames recur from the beginning.
    fn recursion(&mut self) -> Option<usize> {
        (1..=MOST_FRAMES)
            .find(|&frames| (1..LEAST_TIMES).all(|time| self.recurs(frames, time * frames)))
    }
}

impl<'a, I: Iterator<Item = Item<'a>>> Iterator for Folded<'a, I> {
    type Item = Item<'a>;

    fn next(&mut self) -> Option<Item<'a>> {
        if self.out.is_empty() {
            let Some(frames) = self.recursion() else {
                return self.ahead.pop_front().or_else(|| self.items.next());
            };
            self.out.extend(self.ahead.drain(..frames));
            let times = self.pass_over();
            self.out.push_back(Item::Again { frames, times });
        }
        self.out.pop_front()
    }
}
