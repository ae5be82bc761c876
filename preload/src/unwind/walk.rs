//! The call stack, frame by frame from the innermost.

mod guess; // without CFI

use core::ops::ControlFlow;

use super::bounds::Stack;
use super::cache::Rules;
use super::memory::Memory;
use super::rule::{Kind, Rule};
use super::step::{Outcome, Problem, Registers, Room, Scope};

/// A frame of the call stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    /// A return address, or where a signal interrupted.
    pub(crate) pc: u64,
    /// rsp in the frame, after its callee has returned.
    pub(crate) rsp: u64,
    /// Whether a signal interrupted the frame: its `pc` is not behind a call.
    pub(crate) is_interrupted: bool,
}

impl Frame {
    /// The frame's address as traces state it: a reader looks up the byte before it.
    #[inline(always)]
    pub(crate) fn return_address(&self) -> u64 {
        self.pc.wrapping_add(self.is_interrupted.into())
    }
}

/// Why a walk ended. All zeros is `Root`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum End {
    /// The outermost frame was reached.
    Root,
    /// There are more frames, but not for us.
    Truncated(Cut),
    /// The visitor had enough.
    Limit,
}

/// Why a walk was cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Cut {
    /// Code that nobody describes, and no frame pointer.
    NoCfi,
    /// CFI that makes no sense or is not supported.
    BadCfi,
    /// The next frame would not be further out on the stack.
    Bounds,
    /// Memory that cannot be read.
    Unreadable,
}

/// Changes of the stack (alternate signal stacks, one nested in the other) in one walk.
const MAX_STACK_CHANGES: u32 = 8;

/// As [`walk_in`], with room on the stack.
#[cfg(any(test, feature = "verify-stacks"))]
pub(crate) fn walk(
    start: &Registers,
    stack: &Stack,
    visit: impl FnMut(Frame) -> ControlFlow<()>,
) -> End {
    let mut room = Room::EMPTY;
    walk_in(&mut room, start, stack, visit)
}

/// Visits the frames of the call stack from the hook's caller on, until the outermost one or until
/// `visit` breaks. `stack` is that of the thread, see [`Stack::update`].
#[inline]
pub(super) fn walk_in(
    room: &mut Room,
    start: &Registers,
    stack: &Stack,
    mut visit: impl FnMut(Frame) -> ControlFlow<()>,
) -> End {
    let (mut at, mut walker) = Walker::new(start, stack, Rules::current(), room);
    loop {
        let frame = Frame { pc: at.pc, rsp: at.rsp, is_interrupted: at.is_interrupted };
        if visit(frame).is_break() {
            return End::Limit;
        }
        let rule = walker.rule(&at);
        if let Err(end) = walker.step(&mut at, rule) {
            return end;
        }
    }
}

/// The innermost frame that has not been left yet. Apart from [`Walker`], so that it can live in
/// registers.
#[derive(Clone, Copy)]
pub(super) struct Position {
    pub(super) pc: u64,
    pub(super) rsp: u64,
    pub(super) rbp: u64,
    pub(super) is_interrupted: bool,
    pub(super) memory: Memory,
    /// Since the last checkpoint.
    steps: usize,
}

impl Position {
    /// Address of an instruction of the frame's code: a return address may be behind the last one.
    #[inline(always)]
    fn lookup(&self) -> u64 {
        self.pc.wrapping_sub((!self.is_interrupted).into())
    }

    /// The frame that called this one, if a plain rule and readable memory suffice to say.
    #[inline(always)]
    fn caller(self, rule: Rule) -> Option<Position> {
        if !self.memory.holds(self.rsp) {
            return None;
        }
        let (pc, rsp, rbp) = plain_caller(self.rsp, self.rbp, rule, &self.memory)?;
        Some(Position { pc, rsp, rbp, is_interrupted: false, steps: self.steps + 1, ..self })
    }

    /// From the hook's caller to the frame that so many plain steps led to.
    pub(super) fn move_plainly(&mut self, pc: u64, rsp: u64, rbp: u64, steps: usize) {
        (self.pc, self.rsp, self.rbp, self.steps) = (pc, rsp, rbp, steps);
    }
}

/// PC, rsp and rbp of the caller of a frame, if a plain rule and words of `memory` suffice to say.
/// `memory` holds `rsp`.
#[inline(always)]
pub(super) fn plain_caller(
    rsp: u64,
    rbp: u64,
    rule: Rule,
    memory: &Memory,
) -> Option<(u64, u64, u64)> {
    let below = rule.rbp_below_cfa();
    let cfa = match rule.kind() {
        // Such a rule has the return address, and rbp if it is saved, at rsp or above.
        Kind::Rsp => rsp.wrapping_add(rule.offset()),
        Kind::Rbp => {
            let cfa = rbp.wrapping_add(rule.offset());
            let slot = cfa.wrapping_sub(8);
            if slot < rsp || !rbp.is_multiple_of(8) || cfa - rsp < below {
                return None;
            }
            cfa
        }
        _ => return None,
    };
    let slot = cfa.wrapping_sub(8);
    if slot >= memory.high() {
        return None;
    }
    // SAFETY: at least `rsp`, below `high`, a multiple of 8.
    let pc = unsafe { memory.word_unchecked(slot) };
    let caller_rbp = match below {
        0 => rbp,
        // SAFETY: as above.
        _ => unsafe { memory.word_unchecked(cfa.wrapping_sub(below)) },
    };
    Some((pc, cfa, caller_rbp))
}

/// What a walk knows besides its position.
pub(super) struct Walker<'a> {
    rules: Rules,
    /// The position, in steps that are not plain.
    at: Position,
    stack_changes: u32,
    start: &'a Registers,
    room: &'a mut Room,
    /// Whether all registers, as of `Position::steps` steps ago, are in `Room::checkpoint`; else they
    /// are those of `start`.
    has_checkpoint: bool,
    checkpoint_is_interrupted: bool,
}

impl<'a> Walker<'a> {
    /// At the hook's caller.
    #[inline(always)]
    pub(super) fn new(
        start: &'a Registers,
        stack: &Stack,
        rules: Rules,
        room: &'a mut Room,
    ) -> (Position, Self) {
        let memory = if stack.holds(start.rsp) {
            // SAFETY: the thread runs on this stack, above whose rsp everything is readable.
            unsafe { Memory::direct(start.rsp, stack.high()) }
        } else {
            // SAFETY: the hook's return address was there a moment ago.
            unsafe { Memory::probing_from(start.rsp.wrapping_sub(8)) }
        };
        let at = Position {
            pc: start.return_address,
            rsp: start.rsp,
            rbp: start.rbp,
            is_interrupted: false,
            memory,
            steps: 0,
        };
        let walker = Walker {
            rules,
            at,
            stack_changes: 0,
            start,
            room,
            has_checkpoint: false,
            checkpoint_is_interrupted: false,
        };
        (at, walker)
    }

    /// How the next frame outwards is found.
    #[inline(always)]
    pub(super) fn rule(&self, at: &Position) -> Rule {
        self.rules.get(at.lookup())
    }

    /// Goes one frame outwards by [`Walker::rule`].
    #[inline(always)]
    pub(super) fn step(&mut self, at: &mut Position, rule: Rule) -> Result<(), End> {
        if let Some(caller) = at.caller(rule) {
            *at = caller;
            return if caller.pc == 0 { Err(End::Root) } else { Ok(()) };
        }
        self.at = *at;
        let result = self.step_rarely(rule);
        *at = self.at;
        result
    }

    /// All that is not a plain frame in readable memory.
    #[cold]
    #[inline(never)]
    fn step_rarely(&mut self, rule: Rule) -> Result<(), End> {
        let result = match rule.kind() {
            Kind::Root => return Err(End::Root),
            Kind::Unknown => self.guess(),
            Kind::Complex => self.step_by_cfi(),
            Kind::Rsp => self.step_by_rule(rule, self.at.rsp.wrapping_add(rule.offset())),
            Kind::Rbp => self.step_by_rule(rule, self.at.rbp.wrapping_add(rule.offset())),
            Kind::AtRbp => match self.at.memory.word(self.at.rbp.wrapping_add(rule.offset())) {
                Some(cfa) => self.step_by_rule(rule, cfa),
                None => Err(End::Truncated(Cut::Unreadable)),
            },
        };
        result?;
        if self.at.pc == 0 { Err(End::Root) } else { Ok(()) }
    }

    /// Moves to the caller at `rsp`, which must be further out on the stack.
    fn move_to(&mut self, pc: u64, rsp: u64, rbp: u64) -> Result<(), End> {
        if rsp < self.at.rsp.wrapping_add(8) || !rsp.is_multiple_of(8) {
            return Err(End::Truncated(Cut::Bounds));
        }
        (self.at.pc, self.at.rsp, self.at.rbp) = (pc, rsp, rbp);
        self.at.is_interrupted = false;
        self.at.steps += 1;
        Ok(())
    }

    #[inline(never)]
    fn step_by_rule(&mut self, rule: Rule, cfa: u64) -> Result<(), End> {
        if cfa < self.at.rsp.wrapping_add(8) || !cfa.is_multiple_of(8) {
            return Err(End::Truncated(Cut::Bounds));
        }
        let rbp_at = match rule.kind() {
            Kind::AtRbp => Some(self.at.rbp),
            _ if rule.rbp_below_cfa() == 0 => None,
            _ => Some(cfa.wrapping_sub(rule.rbp_below_cfa())),
        };
        let mut word =
            |address| self.at.memory.word(address).ok_or(End::Truncated(Cut::Unreadable));
        let pc = word(cfa.wrapping_sub(8))?;
        let rbp = match rbp_at {
            Some(address) => word(address)?,
            None => self.at.rbp,
        };
        self.move_to(pc, cfa, rbp)
    }

    /// Runs the CFI: with the three registers of every frame, or if these do not suffice with all of
    /// them, recovered once more from the last frame where they were known.
    #[inline(never)]
    fn step_by_cfi(&mut self) -> Result<(), End> {
        let lookup = self.at.lookup();
        self.room.full.set_to_frame(self.at.pc, self.at.rsp, self.at.rbp);
        let mut outcome = self.room.step(lookup, Scope::Frame, &mut self.at.memory);
        let replayed = outcome == Err(Problem::UnknownRegister);
        if replayed {
            self.replay()?;
            outcome = self.room.step(lookup, Scope::All, &mut self.at.memory);
        }
        let (pc, rsp, rbp) = self.room.full.frame();
        match outcome.map_err(cut)? {
            Outcome::Root => return Err(End::Root),
            Outcome::Called => self.move_to(pc, rsp, rbp)?,
            Outcome::Interrupted => self.move_to_interrupted(pc, rsp, rbp)?,
        }
        if replayed || self.at.is_interrupted {
            self.set_checkpoint();
        }
        Ok(())
    }

    /// Makes the registers of the current frame, which are in `Room::full`, those to replay from.
    fn set_checkpoint(&mut self) {
        self.room.checkpoint = self.room.full;
        self.has_checkpoint = true;
        self.checkpoint_is_interrupted = self.at.is_interrupted;
        self.at.steps = 0;
    }

    /// Makes `Room::full` all registers of the current frame.
    #[inline(never)]
    fn replay(&mut self) -> Result<(), End> {
        if self.has_checkpoint {
            self.room.full = self.room.checkpoint;
        } else {
            self.room.full.set_to_caller(self.start);
        }
        let mut is_interrupted = self.checkpoint_is_interrupted;
        for _ in 0..self.at.steps {
            let lookup = self.room.full.frame().0.wrapping_sub((!is_interrupted).into());
            self.room.step(lookup, Scope::All, &mut self.at.memory).map_err(cut)?;
            is_interrupted = false;
        }
        if self.room.full.frame() == (self.at.pc, self.at.rsp, self.at.rbp) {
            Ok(())
        } else {
            Err(End::Truncated(Cut::BadCfi))
        }
    }

    /// Moves to the frame that a signal interrupted: further out, or on another stack.
    fn move_to_interrupted(&mut self, pc: u64, rsp: u64, rbp: u64) -> Result<(), End> {
        if rsp < self.at.rsp || !self.at.memory.is_bounded() || rsp >= self.at.memory.high() {
            self.stack_changes += 1;
            if self.stack_changes > MAX_STACK_CHANGES {
                return Err(End::Truncated(Cut::Bounds));
            }
            self.at.memory.distrust();
        }
        (self.at.pc, self.at.rsp, self.at.rbp) = (pc, rsp, rbp);
        self.at.is_interrupted = true;
        Ok(())
    }
}

fn cut(problem: Problem) -> End {
    End::Truncated(match problem {
        Problem::NoCfi => Cut::NoCfi,
        // After a replay an unknown register is one that its code does not keep.
        Problem::BadCfi | Problem::UnknownRegister => Cut::BadCfi,
        Problem::Unreadable => Cut::Unreadable,
    })
}
