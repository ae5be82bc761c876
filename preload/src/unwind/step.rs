//! One step outwards by all that a row of the CFI table says, for all registers: the slow way, which
//! defines what the fast one (rule.rs, walk.rs) has to agree with.

use super::cfi::{
    Aside, CfaRule, RBP, RBX, REGISTERS, RETURN_ADDRESS, RSP, RegisterRule, Row, run,
};
use super::cursor::Cursor;
use super::eh_frame;
use super::expression::evaluate;
use super::memory::Memory;

/// The registers of a hook's caller that a call leaves as they were, as `hook_with_registers!`
/// (arch/x86_64.rs) stores them.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Registers {
    /// After the hook has returned.
    pub(crate) rsp: u64,
    pub(crate) r15: u64,
    pub(crate) r14: u64,
    pub(crate) r13: u64,
    pub(crate) r12: u64,
    pub(crate) rbx: u64,
    pub(crate) rbp: u64,
    /// Where the hook returns to.
    pub(crate) return_address: u64,
}

impl Registers {
    /// What a walk over plain frames begins with.
    #[inline(always)]
    pub(crate) fn caller(&self) -> Caller {
        Caller { pc: self.return_address, rsp: self.rsp, rbp: self.rbp }
    }
}

/// A hook's caller, as far as nearly all walks need it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller {
    /// Where the hook returns to.
    pub(crate) pc: u64,
    /// After the hook has returned.
    pub(crate) rsp: u64,
    pub(crate) rbp: u64,
}

impl Caller {
    /// From the place of a hook's return address, and rbp as the hook has found it.
    #[inline(always)]
    pub(crate) fn of_hook(return_place: &usize, rbp: u64) -> Caller {
        let rsp = return_place as *const usize as u64 + 8;
        Caller { pc: *return_place as u64, rsp, rbp }
    }
}

/// Why a step was not possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Problem {
    /// No module has CFI for this PC.
    NoCfi,
    /// The CFI makes no sense, or is of a kind that is not known.
    BadCfi,
    /// It refers to a register whose value is not known here.
    UnknownRegister,
    /// It refers to memory that cannot be read.
    Unreadable,
}

/// What a step led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The frame that called.
    Called,
    /// The frame that a signal interrupted: its PC is no return address.
    Interrupted,
    /// Nothing: the frame was the outermost.
    Root,
}

/// Which registers a step has to recover.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// Those that nearly all rules are made of: rsp, rbp, the PC. The others become unknown, but for
    /// those that a signal frame holds.
    Frame,
    All,
}

/// Register values, as far as they are known.
#[derive(Clone, Copy)]
pub(super) struct Full {
    values: [u64; REGISTERS],
    known: u32,
}

/// What the slow way needs that would take much of the program's stack. All zeros is a sound value.
#[repr(C)]
pub(crate) struct Room {
    /// The registers of the frame that [`Room::step`] leaves, and then of its caller.
    pub(super) full: Full,
    /// Those of the last frame in which all were known.
    pub(super) checkpoint: Full,
    caller: Full,
    row: Row,
    aside: Aside,
}

impl Room {
    #[cfg(any(test, feature = "verify-stacks"))]
    pub(super) const EMPTY: Room = Room {
        full: Full::NOTHING,
        checkpoint: Full::NOTHING,
        caller: Full::NOTHING,
        row: Row::EMPTY,
        aside: Aside::EMPTY,
    };

    /// Steps outwards from the frame whose code at `lookup` is running. `lookup` is the PC, minus
    /// one if that is a return address: a call may be the last instruction of its function.
    #[inline(never)]
    pub(super) fn step(
        &mut self,
        lookup: u64,
        scope: Scope,
        memory: &mut Memory,
    ) -> Result<Outcome, Problem> {
        // One after the other, so that what finding it takes of the stack is free again.
        let (segment, is_signal) = self.find_row(lookup)?;
        self.step_by_row(segment, is_signal, scope, memory)
    }

    /// Makes `row` that of the code at `lookup`. Returns where its expressions are, and whether it
    /// is that of a signal frame.
    #[inline(never)]
    fn find_row(&mut self, lookup: u64) -> Result<(Cursor<'static>, bool), Problem> {
        let found = eh_frame::find(lookup);
        let fde = found.as_ref().ok_or(Problem::NoCfi)?;
        run(fde, lookup, &mut self.row, &mut self.aside).ok_or(Problem::BadCfi)?;
        Ok((fde.program, fde.cie.is_signal))
    }

    #[inline(never)]
    fn step_by_row(
        &mut self,
        segment: Cursor<'static>,
        is_signal: bool,
        scope: Scope,
        memory: &mut Memory,
    ) -> Result<Outcome, Problem> {
        let Room { full, caller, row, .. } = self;
        if row.register(RETURN_ADDRESS) == RegisterRule::Undefined {
            return Ok(Outcome::Root);
        }
        let all = scope == Scope::All || is_signal;
        let cfa = full.cfa(row, segment, memory)?;
        *caller = *full;
        for register in 0..REGISTERS as u8 {
            let is_frame = matches!(register, RBP | RSP | RETURN_ADDRESS);
            if !is_frame && !all {
                caller.known &= !(1 << register);
                continue;
            }
            match full.recover(row, register, cfa, segment, memory) {
                Ok(value) => caller.set(register, value),
                Err(problem) if is_frame => return Err(problem),
                Err(_) => caller.known &= !(1 << register),
            }
        }
        *full = *caller;
        Ok(if is_signal { Outcome::Interrupted } else { Outcome::Called })
    }
}

impl Full {
    #[cfg(any(test, feature = "verify-stacks"))]
    const NOTHING: Full = Full { values: [0; REGISTERS], known: 0 };

    /// Nothing but these three.
    pub(super) fn set_to_frame(&mut self, pc: u64, rsp: u64, rbp: u64) {
        self.known = 0;
        self.set(RETURN_ADDRESS, pc);
        self.set(RSP, rsp);
        self.set(RBP, rbp);
    }

    pub(super) fn set_to_caller(&mut self, start: &Registers) {
        self.set_to_frame(start.return_address, start.rsp, start.rbp);
        self.set(RBX, start.rbx);
        self.set(12, start.r12);
        self.set(13, start.r13);
        self.set(14, start.r14);
        self.set(15, start.r15);
    }

    pub(super) fn get(&self, register: u64) -> Option<u64> {
        let index = usize::try_from(register).ok()?;
        let value = *self.values.get(index)?;
        (self.known >> index & 1 == 1).then_some(value)
    }

    fn set(&mut self, register: u8, value: u64) {
        if let Some(place) = self.values.get_mut(usize::from(register)) {
            *place = value;
            self.known |= 1 << register;
        }
    }

    /// The three that are always known.
    pub(super) fn frame(&self) -> (u64, u64, u64) {
        let [.., rbp, rsp, _, _, _, _, _, _, _, _, pc] = self.values;
        (pc, rsp, rbp)
    }

    fn cfa(&self, row: &Row, segment: Cursor<'_>, memory: &mut Memory) -> Result<u64, Problem> {
        match row.cfa() {
            CfaRule::Offset(register, offset) => {
                let base = self.get(register.into()).ok_or(Problem::UnknownRegister)?;
                Ok(base.wrapping_add_signed(offset.into()))
            }
            CfaRule::Expression(position) => self.evaluate(position, None, segment, memory),
        }
    }

    /// The value that `register` had in the caller.
    fn recover(
        &self,
        row: &Row,
        register: u8,
        cfa: u64,
        segment: Cursor<'_>,
        memory: &mut Memory,
    ) -> Result<u64, Problem> {
        use RegisterRule::*;
        let mut word = |address| memory.word(address).ok_or(Problem::Unreadable);
        match row.register(register) {
            Unspecified if register == RSP => Ok(cfa),
            // The frame's own PC is never its caller's.
            Unspecified | SameValue | Undefined if register == RETURN_ADDRESS => {
                Err(Problem::BadCfi)
            }
            // What is lost is read as if unchanged: libgcc does so.
            Unspecified | SameValue | Undefined => {
                self.get(register.into()).ok_or(Problem::UnknownRegister)
            }
            Offset(offset) => word(cfa.wrapping_add_signed(offset.into())),
            ValOffset(offset) => Ok(cfa.wrapping_add_signed(offset.into())),
            Register(other) => self.get(other.into()).ok_or(Problem::UnknownRegister),
            Expression(position) => {
                let address = self.evaluate(position, Some(cfa), segment, memory)?;
                memory.word(address).ok_or(Problem::Unreadable)
            }
            ValExpression(position) => self.evaluate(position, Some(cfa), segment, memory),
        }
    }

    fn evaluate(
        &self,
        position: u32,
        first: Option<u64>,
        segment: Cursor<'_>,
        memory: &mut Memory,
    ) -> Result<u64, Problem> {
        let expression = segment.at_position(position as usize).ok_or(Problem::BadCfi)?;
        evaluate(expression, first, |register| self.get(register), memory)
    }
}
