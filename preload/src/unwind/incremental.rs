//! The call stack of a thread, as far as it has changed since the last time.
//!
//! Most frames are those of the last event. The walk begins at the top and ends at the first frame
//! that is known from last time and whose outer frames must be the same: the walk outwards from a
//! frame is determined by its PC, rsp and rbp, by the words that it reads, and by the rules. So
//! every word that was read outwards of the frame is read again and compared; only then are the
//! outer frames taken over. That the frame itself is the same (same PC at the same place) does not
//! suffice: another path may have led there.
//!
//! Not taken over is what depends on more than that: frames inside of (called by) one whose step was
//! interpreted, all frames of a stack that ended too early, and those of a stack whose bounds are
//! not known (which may vanish before its words are read again).

use core::sync::atomic::{Ordering, compiler_fence};

use super::bounds::Stack;
use super::cache::Rules;
use super::rule::{Kind, Rule};
use super::step::Registers;
use super::walk::{End, Position, Walker};

/// Frames that are kept. Deeper stacks are left to [`walk`](super::walk()).
pub(crate) const MAX_FRAMES: usize = 4096;
const MAX_WORDS: usize = 2 * MAX_FRAMES;

/// A frame of the last stack.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct StackFrame {
    /// A return address, or where a signal interrupted.
    pub(crate) pc: u64,
    /// rsp in the frame, after its callee has returned.
    rsp: u64,
    rbp: u64,
    /// What the caller knows this stack by, from the outermost frame to this one. 0 in a frame that
    /// is new.
    pub(crate) node: u32,
    /// See [`Needs`].
    needs: Needs,
}

/// What the walk outwards from a frame depends on, but for its PC and rsp.
///
/// ```text
/// bits 0..30  how many of the words, from the first; NEVER: more than words
/// bit 30      whether a signal interrupted the frame
/// bit 31      rbp
/// ```
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq)]
struct Needs(u32);

impl Needs {
    const NEVER: usize = (1 << 30) - 1;
    const INTERRUPTED: u32 = 1 << 30;
    const RBP: u32 = 1 << 31;

    #[inline(always)]
    fn words(self) -> usize {
        self.0 as usize & Needs::NEVER
    }
}

/// A word of the stack that a frame was recovered from.
#[repr(C)]
#[derive(Clone, Copy)]
struct Word {
    address: u64,
    value: u64,
}

/// A frame that the walk has found, before it is known what is outside of it.
#[repr(C)]
#[derive(Clone, Copy)]
struct NewFrame {
    pc: u64,
    rsp: u64,
    rbp: u64,
    rule: u32,
    is_interrupted: bool,
}

/// The last call stack of a thread. All zeros is a sound value: none.
///
/// It belongs to one thread at a time, and to one level of it: a signal handler that interrupts
/// [`LastStack::update`] needs another one, or none.
#[repr(C)]
pub(crate) struct LastStack {
    /// Bounds and rules that the frames were found with.
    high: u64,
    epoch: u64,
    len: usize,
    words_len: usize,
    end: End,
    /// Outermost first.
    frames: [StackFrame; MAX_FRAMES],
    /// Those of the outermost frame first.
    words: [Word; MAX_WORDS],
    /// Innermost first; used by `update` only.
    new: [NewFrame; MAX_FRAMES],
}

/// What [`LastStack::update`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Update {
    /// How many frames, from the outermost one, are those of the last stack.
    pub(crate) kept: usize,
    /// How the stack ends on the outside; [`End::Limit`]: it has more than [`MAX_FRAMES`], and none
    /// is held.
    pub(crate) end: End,
}

impl LastStack {
    /// The frames, outermost first. Those that the last update did not keep have node 0; the caller
    /// sets it.
    #[inline(always)]
    pub(crate) fn frames(&mut self) -> &mut [StackFrame] {
        self.frames.get_mut(..self.len).unwrap_or_default()
    }

    /// Forgets the stack, for another thread.
    pub(crate) fn clear(&mut self) {
        self.len = 0;
    }

    /// Brings the frames up to date with the stack of the hook's caller. `stack` is that of the
    /// thread, see [`Stack::update`].
    #[inline]
    pub(crate) fn update(&mut self, start: &Registers, stack: &Stack) -> Update {
        let rules = Rules::current();
        let (at, mut walker) = Walker::new(start, stack, rules);
        // A signal handler that ends this update by a jump leaves an empty stack behind.
        let last = core::mem::take(&mut self.len);
        compiler_fence(Ordering::SeqCst);
        let (update, len) = self.update_from(at, &mut walker, last, rules);
        compiler_fence(Ordering::SeqCst);
        self.len = len;
        update
    }

    /// As [`LastStack::update`], with `last` frames from last time. Returns how many there are now.
    #[inline(always)]
    fn update_from(
        &mut self,
        mut at: Position,
        walker: &mut Walker<'_>,
        last: usize,
        rules: Rules,
    ) -> (Update, usize) {
        // Where the bounds are not known, or rules are about to change, nothing can be taken over.
        let high = if at.memory.is_bounded() { at.memory.high() } else { 0 };
        let epoch = rules.epoch().unwrap_or(u64::MAX);
        let may_keep = high != 0 && high == self.high && Some(self.epoch) == rules.epoch();
        (self.high, self.epoch) = (high, epoch);

        let too_deep = (Update { kept: 0, end: End::Limit }, 0);
        let mut found = 0;
        let mut candidate = if may_keep { last } else { 0 };
        let mut sound_words = None;
        let kept = loop {
            if let Some(kept) = self.join(&at, &mut candidate, &mut sound_words) {
                break kept;
            }
            let rule = walker.rule(&at);
            let Some(place) = self.new.get_mut(found) else { return too_deep };
            *place = NewFrame {
                pc: at.pc,
                rsp: at.rsp,
                rbp: at.rbp,
                rule: rule.bits() as u32,
                is_interrupted: at.is_interrupted,
            };
            found += 1;
            if let Err(end) = walker.step(&mut at, rule) {
                self.end = end;
                break 0;
            }
        };
        let outer = match kept.checked_sub(1).and_then(|innermost| self.frames.get(innermost)) {
            Some(frame) => *frame,
            None => self.outside(&at),
        };
        self.words_len = if kept > 0 { outer.needs.words() } else { 0 };
        if kept + found > MAX_FRAMES {
            return too_deep;
        }
        self.append(kept, found, outer);
        (Update { kept, end: self.end }, kept + found)
    }

    /// What stands for the frame outside of the outermost one, where the walk has ended. A stack
    /// that ended too early may not do so the next time, and one whose bounds are not known may not
    /// be readable then.
    fn outside(&self, at: &Position) -> StackFrame {
        let may_keep = self.end == End::Root && at.memory.is_bounded();
        let needs = if may_keep { 0 } else { Needs::NEVER as u32 };
        let (pc, rsp, rbp) = (at.pc, at.rsp, at.rbp);
        StackFrame { pc, rsp, rbp, node: 0, needs: Needs(needs) }
    }

    /// How many frames can be taken over because the walk has reached the innermost of them.
    /// `candidate`: how many there are that it has not passed. `sound`: how many of the words are
    /// known to be unchanged.
    #[inline(always)]
    fn join(
        &self,
        at: &Position,
        candidate: &mut usize,
        sound: &mut Option<usize>,
    ) -> Option<usize> {
        let frame = loop {
            let frame = self.frames.get(candidate.checked_sub(1)?)?;
            if frame.rsp >= at.rsp {
                break frame;
            }
            *candidate -= 1;
        };
        let is_same = frame.rsp == at.rsp
            && frame.pc == at.pc
            && (frame.needs.0 & Needs::INTERRUPTED != 0) == at.is_interrupted
            && (frame.needs.0 & Needs::RBP == 0 || frame.rbp == at.rbp)
            && at.memory.is_bounded();
        let needed = frame.needs.words();
        if !is_same || needed > self.words_len {
            return None;
        }
        let unchanged = match *sound {
            Some(unchanged) => unchanged,
            None => *sound.insert(self.unchanged_words(needed, at)),
        };
        (needed <= unchanged).then_some(*candidate)
    }

    /// How many of the first `len` words are what they were.
    #[inline(always)]
    fn unchanged_words(&self, len: usize, at: &Position) -> usize {
        let words = self.words.get(..len).unwrap_or(&[]);
        // SAFETY: words that a frame needs were inside of `rsp..high` when they were recorded, with
        // the rsp of that frame, which is the position's now, and the same `high`: `append` and
        // `update` see to both. Above the current rsp the thread's own stack stays mapped.
        let read = |word: &Word| unsafe { at.memory.word_unchecked(word.address) };
        let difference = words.iter().fold(0, |all, word| all | (read(word) ^ word.value));
        if difference == 0 {
            return len;
        }
        words.iter().take_while(|word| read(word) == word.value).count()
    }

    /// Adds the first `found` new frames behind the `kept` ones, from the outermost one on. `outer`
    /// is outside of all of them.
    #[inline(always)]
    fn append(&mut self, kept: usize, found: usize, mut outer: StackFrame) {
        // A frame that says itself that it has no caller depends on no word. One whose return
        // address is 0 depends on that.
        let mut has_caller = kept > 0 || outer.pc == 0;
        for (at, index) in (kept..).zip((0..found).rev()) {
            let Some(new) = self.new.get(index).copied() else { return };
            let mut needs = match has_caller {
                true => self.depend(&new, Rule::from_bits(new.rule.into()), &outer),
                false => outer.needs.0,
            };
            has_caller = true;
            if new.is_interrupted {
                needs |= Needs::INTERRUPTED;
            }
            let needs = Needs(needs);
            outer = StackFrame { pc: new.pc, rsp: new.rsp, rbp: new.rbp, node: 0, needs };
            if let Some(place) = self.frames.get_mut(at) {
                *place = outer;
            }
        }
    }

    /// Records the words that led from the frame `new` to the one `outer`. Returns what the walk
    /// outwards from `new` depends on.
    #[inline(always)]
    fn depend(&mut self, new: &NewFrame, rule: Rule, outer: &StackFrame) -> u32 {
        let kind = rule.kind();
        let needed = outer.needs.words();
        if needed == Needs::NEVER || !matches!(kind, Kind::Rsp | Kind::Rbp | Kind::AtRbp) {
            return Needs::NEVER as u32;
        }
        let outer_needs_rbp = outer.needs.0 & Needs::RBP != 0;
        let below = rule.rbp_below_cfa();
        let mut is_sound = self.record(outer.rsp.wrapping_sub(8), outer.pc, new.rsp);
        if kind == Kind::AtRbp {
            is_sound &= self.record(new.rbp.wrapping_add(rule.offset()), outer.rsp, new.rsp);
            is_sound &= !outer_needs_rbp || self.record(new.rbp, outer.rbp, new.rsp);
        } else if below != 0 && outer_needs_rbp {
            is_sound &= self.record(outer.rsp.wrapping_sub(below), outer.rbp, new.rsp);
        }
        if !is_sound {
            return Needs::NEVER as u32;
        }
        let needs_rbp = kind != Kind::Rsp || (below == 0 && outer_needs_rbp);
        self.words_len as u32 | if needs_rbp { Needs::RBP } else { 0 }
    }

    /// Adds a word. False if there is no room, or if it is below the rsp of its frame (where it may
    /// be gone the next time).
    #[inline(always)]
    fn record(&mut self, address: u64, value: u64, rsp: u64) -> bool {
        let Some(place) = self.words.get_mut(self.words_len) else { return false };
        *place = Word { address, value };
        self.words_len += 1;
        address >= rsp
    }
}
