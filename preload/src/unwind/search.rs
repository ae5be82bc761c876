//! The walk outwards to the first frame that is known from last time.

use super::bounds::Stack;
use super::cache::Rules;
use super::incremental::{LastStack, MAX_FRAMES, StackFrame};
use super::memory::Memory;
use super::rule::{BITS, Rule};
use super::step::Registers;
use super::walk::{End, Walker, plain_caller};
use super::words::Words;

/// A frame that the walk has found, before it is known what is outside of it.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct NewFrame {
    pub(super) pc: u64,
    pub(super) rsp: u64,
    pub(super) rbp: u64,
    /// Its rule; and above that whether a signal interrupted it.
    rule: u32,
}

impl NewFrame {
    #[inline(always)]
    pub(super) fn rule(&self) -> Rule {
        Rule::from_bits(self.rule.into())
    }

    #[inline(always)]
    pub(super) fn is_interrupted(&self) -> bool {
        self.rule >> BITS != 0
    }
}

/// Where the walk has come to.
#[derive(Clone, Copy)]
pub(super) struct Search {
    /// Frames that were left: they are in [`LastStack::new`].
    pub(super) found: usize,
    /// How many frames of the last stack can be taken over. While the walk goes on: how many it has
    /// not passed.
    pub(super) kept: usize,
    /// The frame that it is at; at the end of the stack its last one, or what stands for its caller
    /// (PC 0).
    pub(super) pc: u64,
    pub(super) rsp: u64,
    pub(super) rbp: u64,
    /// How the stack ends, if the walk came to its end.
    pub(super) end: End,
    /// Whether all of it was on the thread's own stack.
    pub(super) is_bounded: bool,
    is_interrupted: bool,
    /// How many of the last stack's words are known to be what they were.
    sound: Option<usize>,
}

/// Whether a walk that is at this place is at `frame` of the last stack, and the frames outside of
/// it are as they were. `sound`: how many of `words` are known to be unchanged.
#[inline(always)]
fn is_join(
    frame: &StackFrame,
    words: &Words,
    sound: &mut Option<usize>,
    (pc, rsp, rbp): (u64, u64, u64),
    is_interrupted: bool,
) -> bool {
    let is_same = frame.rsp == rsp
        && frame.pc == pc
        && (!frame.needs.rbp() || frame.rbp == rbp)
        && frame.needs.is_interrupted() == is_interrupted;
    let needed = frame.needs.words();
    if !is_same || needed > words.len() {
        return false;
    }
    let sound = match *sound {
        Some(sound) => sound,
        // SAFETY: words that a frame needs were inside of `rsp..high` when they were recorded, with
        // the rsp of that frame, which is this one's, and the same `high`: `depend`, `append_plain`
        // and `LastStack::update` see to both. Above the current rsp the thread's own stack stays
        // mapped.
        None => *sound.insert(unsafe { words.unchanged_apart(needed) }),
    };
    needed <= sound
}

/// The frames of the last stack that the walk has not passed.
struct Known<'a> {
    /// The innermost of them, or the sentinel.
    next: *const StackFrame,
    all: &'a [StackFrame; MAX_FRAMES + 1],
}

impl<'a> Known<'a> {
    /// The first `len` of `all`, whose first entry is the sentinel.
    #[inline(always)]
    fn of(all: &'a [StackFrame; MAX_FRAMES + 1], len: usize) -> Self {
        // SAFETY: an entry of `all`.
        Known { next: unsafe { all.as_ptr().add(len.min(MAX_FRAMES)) }, all }
    }

    #[inline(always)]
    fn len(&self) -> usize {
        // Else the compiler counts along in the loop of `outside_of`.
        let next = core::hint::black_box(self.next);
        (next as usize - self.all.as_ptr() as usize) / size_of::<StackFrame>()
    }

    /// Passes frames that are inside of `rsp`, and returns the next one.
    #[inline(always)]
    fn outside_of(&mut self, rsp: u64) -> &'a StackFrame {
        // SAFETY: an entry of `all`: the sentinel has the highest rsp that there is, so the pointer
        // never moves beyond it.
        unsafe {
            while (*self.next).rsp < rsp {
                self.next = self.next.sub(1);
            }
            &*self.next
        }
    }
}

impl Search {
    /// At the hook's caller. Of the last stack, `kept` frames are known.
    pub(super) fn new(start: &Registers, kept: usize) -> Search {
        Search {
            found: 0,
            kept,
            pc: start.return_address,
            rsp: start.rsp,
            rbp: start.rbp,
            end: End::Root,
            is_bounded: true,
            is_interrupted: false,
            sound: None,
        }
    }

    /// From the hook's caller to the innermost frame of `last` that is as it was, of which `known`
    /// are to be considered. Returns how many can be taken over, and how many were found before, if
    /// there are only plain ones. Bounds and rules are those of `last`. `Err(None)`: there are more
    /// frames than it has room for.
    #[inline(always)]
    pub(super) fn run(
        last: &mut LastStack,
        known: usize,
        start: &Registers,
        rules: Rules,
    ) -> Result<(usize, usize), Option<Search>> {
        if !start.rsp.is_multiple_of(8) {
            return Err(Some(Search::new(start, known)));
        }
        // SAFETY: the thread runs on this stack, above whose rsp everything is readable.
        let memory = unsafe { Memory::direct(start.rsp, last.high()) };
        let mut known = Known::of(&last.frames, known);
        let mut places = last.new.iter_mut();
        let (mut pc, mut rsp, mut rbp) = (start.return_address, start.rsp, start.rbp);
        let mut sound = None;
        let (is_joined, places) = loop {
            let frame = known.outside_of(rsp);
            if is_join(frame, &last.words, &mut sound, (pc, rsp, rbp), false) {
                break (true, places);
            }
            let rule = rules.get_settled(pc.wrapping_sub(1));
            // Where the stack may end, the walk goes on elsewhere.
            let Some(caller) = plain_caller(rsp, rbp, rule, &memory).filter(|caller| caller.0 != 0)
            else {
                break (false, places);
            };
            let Some(place) = places.next() else { return Err(None) };
            *place = NewFrame { pc, rsp, rbp, rule: rule.bits() as u32 };
            (pc, rsp, rbp) = caller;
        };
        let (kept, found) = (known.len(), MAX_FRAMES - places.len());
        if is_joined {
            return Ok((kept, found));
        }
        Err(Some(Search { found, pc, rsp, rbp, sound, ..Search::new(start, kept) }))
    }

    /// Goes on over frames of any kind, to one that is as it was or to the end of the stack. `None`:
    /// there are more frames than `last` has room for.
    pub(super) fn go_on(
        &mut self,
        last: &mut LastStack,
        start: &Registers,
        stack: &Stack,
        rules: Rules,
    ) -> Option<()> {
        let LastStack { frames, words, new, room, .. } = last;
        let (mut at, mut walker) = Walker::new(start, stack, rules, room);
        at.move_plainly(self.pc, self.rsp, self.rbp, self.found);
        let mut result = Ok(());
        loop {
            (self.pc, self.rsp, self.rbp) = (at.pc, at.rsp, at.rbp);
            self.is_interrupted = at.is_interrupted;
            self.is_bounded = at.memory.is_bounded();
            if let Err(end) = result {
                (self.end, self.kept) = (end, 0);
                return Some(());
            }
            if self.is_bounded && self.joins(frames, words) {
                return Some(());
            }
            let rule = walker.rule(&at);
            *new.get_mut(self.found)? = NewFrame {
                pc: at.pc,
                rsp: at.rsp,
                rbp: at.rbp,
                rule: rule.bits() as u32 | u32::from(at.is_interrupted) << BITS,
            };
            self.found += 1;
            result = walker.step(&mut at, rule);
        }
    }

    fn joins(&mut self, frames: &[StackFrame; MAX_FRAMES + 1], words: &Words) -> bool {
        let mut known = Known::of(frames, self.kept);
        let frame = known.outside_of(self.rsp);
        self.kept = known.len();
        let at = (self.pc, self.rsp, self.rbp);
        is_join(frame, words, &mut self.sound, at, self.is_interrupted)
    }
}
