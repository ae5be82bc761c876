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

mod changes; // of the stack that were met before

use core::ops::ControlFlow;
use core::sync::atomic::{Ordering, compiler_fence};

use super::bounds::Stack;
use super::cache::Rules;
use super::rule::Kind;
use super::search::{NewFrame, Search};
use super::step::{Caller, Registers, Room};
use super::walk::{End, Frame, walk_in};
use super::words::{MAX_WORDS, Words};
use changes::Changes;
pub(crate) use changes::Key;

/// Frames that are kept. Deeper stacks are left to [`LastStack::walk`].
pub(crate) const MAX_FRAMES: usize = 4096;

/// A frame of the last stack.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct StackFrame {
    /// A return address, or where a signal interrupted.
    pub(super) pc: u64,
    /// rsp in the frame, after its callee has returned.
    pub(super) rsp: u64,
    pub(super) rbp: u64,
    /// What the stack from the outermost frame to this one is known by.
    pub(super) node: u32,
    pub(super) needs: Needs,
}

/// Where a search for a frame further out ends.
const SENTINEL: StackFrame = StackFrame { pc: 0, rsp: u64::MAX, rbp: 0, node: 0, needs: Needs(0) };

/// What the walk outwards from a frame depends on, but for its PC and rsp.
///
/// ```text
/// bits 0..30  how many of the words, from the first; NEVER: more than words
/// bit 30      whether a signal interrupted the frame
/// bit 31      rbp
/// ```
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq)]
pub(super) struct Needs(u32);

impl Needs {
    const NEVER: usize = (1 << 30) - 1;
    const INTERRUPTED: u32 = 1 << 30;
    const RBP: u32 = 1 << 31;

    #[inline(always)]
    pub(super) fn words(self) -> usize {
        self.0 as usize & Needs::NEVER
    }

    #[inline(always)]
    pub(super) fn is_interrupted(self) -> bool {
        self.0 & Needs::INTERRUPTED != 0
    }

    #[inline(always)]
    pub(super) fn rbp(self) -> bool {
        self.0 & Needs::RBP != 0
    }
}

/// What the caller knows stacks by: a number for every chain of frames.
pub(crate) trait Names {
    /// Of what is outside of the outermost frame of a stack that ends so.
    fn outside(&mut self, end: End) -> u32;

    /// Of the frame with this address (as traces state it: readers look up the byte before it),
    /// which was called by `outer`.
    fn frame(&mut self, outer: u32, address: u64) -> u32;
}

/// The last call stack of a thread. All zeros is a sound value: none.
///
/// It belongs to one thread at a time, and to one level of it: a signal handler that interrupts
/// [`LastStack::update`] needs another one, or none.
#[repr(C)]
pub(crate) struct LastStack {
    /// The innermost frame, with rsp 0 (which no thread has) while there is none, or none that can be
    /// the last one again.
    top: StackFrame,
    /// Bounds and rules that the frames were found with.
    high: u64,
    epoch: u64,
    len: usize,
    pub(super) words: Words,
    /// Outermost first, behind a sentinel that is set when `high` is.
    pub(super) frames: [StackFrame; MAX_FRAMES + 1],
    /// Innermost first; used by `update` only.
    pub(super) new: [NewFrame; MAX_FRAMES],
    changes: Changes,
    pub(super) room: Room,
}

impl LastStack {
    /// Forgets the stack and what its frames are known by: for another thread, or another trace.
    pub(crate) fn clear(&mut self) {
        self.hold_none();
        self.changes.forget();
    }

    #[inline(always)]
    fn hold_none(&mut self) {
        self.len = 0;
        self.top.rsp = 0;
    }

    /// Outermost first.
    #[cfg(feature = "verify-stacks")]
    pub(super) fn frames(&self) -> &[StackFrame] {
        self.frames.get(1..self.len + 1).unwrap_or_default()
    }

    /// Where the stack of the frames ends.
    #[inline(always)]
    pub(super) fn high(&self) -> u64 {
        self.high
    }

    /// Visits the frames of the call stack from the hook's caller on, until the outermost one or until
    /// `visit` breaks. The last stack stays what it was.
    pub(crate) fn walk(
        &mut self,
        start: &Registers,
        stack: &Stack,
        visit: impl FnMut(Frame) -> ControlFlow<()>,
    ) -> End {
        walk_in(&mut self.room, start, stack, visit)
    }

    /// The node of the stack of the hook's caller, if that is the last stack. The thread's stack is
    /// known to be what it was in the last [`LastStack::update`]: who learns of another one clears
    /// this.
    #[inline(always)]
    pub(crate) fn unchanged(&self, caller: Caller) -> Option<u32> {
        let top = &self.top;
        let is_same = caller.rsp == top.rsp
            && caller.pc == top.pc
            && (caller.rbp == top.rbp || !top.needs.rbp())
            && Rules::current().are_of(self.epoch);
        if !is_same {
            return None;
        }
        let needed = top.needs.words();
        // SAFETY: as in `is_join` (search.rs); rsp is what it was then, and the thread's stack still
        // ends at `high`, so that is the stack that it is on. `finish` saw to it that there are so
        // many words.
        unsafe { self.words.all_unchanged(needed) }.then_some(top.node)
    }

    /// Brings the frames up to date with the stack of the hook's caller and names those that are
    /// new. Returns the node of the innermost one; `None`: there is no room for so many, and none is
    /// held. `key` is what [`LastStack::recall`] has found; `stack` is that of the thread, or
    /// [`Stack::NEW`] at first.
    #[inline(always)]
    pub(crate) fn update(
        &mut self,
        start: &Registers,
        key: Key,
        stack: &mut Stack,
        names: &mut impl Names,
    ) -> Option<u32> {
        let rules = Rules::current();
        let last = self.len;
        // A signal handler that ends this update by a jump leaves an empty stack behind.
        self.hold_none();
        compiler_fence(Ordering::SeqCst);
        if stack.holds(start.rsp) && stack.high() == self.high && rules.are_of(self.epoch) {
            match Search::run(self, last, start, rules) {
                Ok((kept, found)) => {
                    let node = self.append_plain(kept, found, names);
                    if self.changes.is_met_often(key) {
                        self.learn(key, kept, found);
                    }
                    node
                }
                Err(search) => self.go_on(search?, start, stack, rules, names),
            }
        } else {
            self.begin_anew(start, stack, rules, names)
        }
    }

    /// Bounds or rules are not those of the last stack, or not known: nothing can be taken over.
    #[cold]
    #[inline(never)]
    fn begin_anew(
        &mut self,
        start: &Registers,
        stack: &mut Stack,
        rules: Rules,
        names: &mut impl Names,
    ) -> Option<u32> {
        stack.update(start.rsp);
        // Where they are not known now, nothing can be taken over the next time.
        self.high = if stack.holds(start.rsp) { stack.high() } else { 0 };
        self.epoch = rules.epoch().unwrap_or(u64::MAX);
        self.changes.forget();
        *self.frames.first_mut()? = SENTINEL;
        self.go_on(Search::new(start, 0), start, stack, rules, names)
    }

    /// The last stack is complete: it has these frames. Returns the node.
    #[inline(always)]
    fn finish(&mut self, len: usize, top: StackFrame) -> Option<u32> {
        compiler_fence(Ordering::SeqCst);
        (self.len, self.top) = (len, top);
        if top.needs.words() > self.words.len() {
            self.top.rsp = 0;
        }
        Some(top.node)
    }

    /// Adds the frames that the search has found behind those that it keeps (one at least), from the
    /// outermost one on. All are plain.
    #[inline(always)]
    fn append_plain(&mut self, kept: usize, found: usize, names: &mut impl Names) -> Option<u32> {
        let mut outer = *self.frames.get(kept)?;
        let mut words_len = outer.needs.words();
        let len = kept + found;
        if words_len + 2 * found > MAX_WORDS {
            return None;
        }
        let places = self.frames.get_mut(kept + 1..len + 1)?;
        let new = self.new.get(..found)?;
        for (place, new) in places.iter_mut().zip(new.iter().rev()) {
            let rule = new.rule();
            let mut needs = u32::from(rule.is_plain_by_rbp()) << 31;
            // SAFETY: two words for each frame: they have room.
            unsafe { self.words.set(words_len, outer.rsp.wrapping_sub(8), outer.pc) };
            words_len += 1;
            if outer.needs.rbp() {
                match rule.rbp_below_cfa() {
                    0 => needs = Needs::RBP,
                    below => {
                        // SAFETY: as above.
                        unsafe {
                            self.words.set(words_len, outer.rsp.wrapping_sub(below), outer.rbp)
                        };
                        words_len += 1;
                    }
                }
            }
            let node = names.frame(outer.node, new.pc);
            let needs = Needs(needs | words_len as u32);
            outer = StackFrame { pc: new.pc, rsp: new.rsp, rbp: new.rbp, node, needs };
            *place = outer;
        }
        self.words.set_len(words_len);
        self.finish(len, outer)
    }

    /// Does the rest of [`LastStack::update`] where frames of any kind are to be expected.
    #[cold]
    #[inline(never)]
    fn go_on(
        &mut self,
        mut search: Search,
        start: &Registers,
        stack: &Stack,
        rules: Rules,
        names: &mut impl Names,
    ) -> Option<u32> {
        search.go_on(self, start, stack, rules)?;
        let mut outer = match self.frames.get(search.kept) {
            Some(frame) if search.kept > 0 => *frame,
            _ => outside(&search, names),
        };
        self.words.set_len(if search.kept > 0 { outer.needs.words() } else { 0 });
        // A frame that says itself that it has no caller depends on no word. One whose return
        // address is 0 depends on that.
        let mut has_caller = search.kept > 0 || search.pc == 0;
        let len = search.kept + search.found;
        let places = self.frames.get_mut(search.kept + 1..len + 1)?;
        let new = self.new.get(..search.found)?;
        for (place, new) in places.iter_mut().zip(new.iter().rev()) {
            let mut needs = match has_caller {
                true => depend(&mut self.words, new, &outer),
                false => outer.needs.0,
            };
            has_caller = true;
            let mut address = new.pc;
            if new.is_interrupted() {
                needs |= Needs::INTERRUPTED;
                address = address.wrapping_add(1);
            }
            let node = names.frame(outer.node, address);
            let needs = Needs(needs);
            outer = StackFrame { pc: new.pc, rsp: new.rsp, rbp: new.rbp, node, needs };
            *place = outer;
        }
        self.finish(len, outer)
    }
}

/// What stands for the frame outside of the outermost one, where the walk has ended. A stack that
/// ended too early may not do so the next time, and one whose bounds are not known may not be
/// readable then.
fn outside(search: &Search, names: &mut impl Names) -> StackFrame {
    let may_keep = search.end == End::Root && search.is_bounded;
    let needs = Needs(if may_keep { 0 } else { Needs::NEVER as u32 });
    let (pc, rsp, rbp, node) = (search.pc, search.rsp, search.rbp, names.outside(search.end));
    StackFrame { pc, rsp, rbp, node, needs }
}

/// Records the words that led from the frame `new` to the one `outer`. Returns what the walk
/// outwards from `new` depends on.
fn depend(words: &mut Words, new: &NewFrame, outer: &StackFrame) -> u32 {
    let rule = new.rule();
    let kind = rule.kind();
    if outer.needs.words() == Needs::NEVER || !matches!(kind, Kind::Rsp | Kind::Rbp | Kind::AtRbp) {
        return Needs::NEVER as u32;
    }
    let outer_needs_rbp = outer.needs.rbp();
    let below = rule.rbp_below_cfa();
    // A word below the frame's rsp may be gone the next time. The return address never is: the walk
    // goes outwards only.
    let mut is_sound = words.push(outer.rsp.wrapping_sub(8), outer.pc);
    let mut push = |address: u64, value| {
        is_sound &= address >= new.rsp && words.push(address, value);
    };
    if kind == Kind::AtRbp {
        push(new.rbp.wrapping_add(rule.offset()), outer.rsp);
        if outer_needs_rbp {
            push(new.rbp, outer.rbp);
        }
    } else if below != 0 && outer_needs_rbp {
        push(outer.rsp.wrapping_sub(below), outer.rbp);
    }
    if !is_sound {
        return Needs::NEVER as u32;
    }
    let needs_rbp = kind != Kind::Rsp || (below == 0 && outer_needs_rbp);
    words.len() as u32 | if needs_rbp { Needs::RBP } else { 0 }
}
