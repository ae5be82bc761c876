//! Call frame information: the CFA program of an FDE, run up to a PC. The result is the row of the
//! table that the program describes (DWARF 5, section 6.4).

use super::cursor::Cursor;
use super::eh_frame::Fde;

/// Registers that are tracked: rax to r15 and the return address, as DWARF numbers them. A signal
/// frame restores all of them; vector registers and flags never matter.
pub(super) const REGISTERS: usize = 17;
pub(super) const RBX: u8 = 3;
pub(super) const RBP: u8 = 6;
pub(super) const RSP: u8 = 7;
pub(super) const RETURN_ADDRESS: u8 = 16;

/// States that `DW_CFA_remember_state` can put aside at once. Compilers nest no deeper than 1.
const MAX_REMEMBERED: usize = 2;

/// How the value that a register had in the caller is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RegisterRule {
    /// Nothing was said: the caller's value is still there (for rsp: it is the CFA).
    Unspecified,
    /// Said to be still there.
    SameValue,
    /// Lost. The return address of the outermost frame is.
    Undefined,
    /// Saved at CFA + offset.
    Offset(i32),
    /// Is CFA + offset.
    ValOffset(i32),
    /// In another register.
    Register(u8),
    /// Saved at the address that the expression at this position of the segment computes.
    Expression(u32),
    /// Is what that expression computes.
    ValExpression(u32),
}

/// How the CFA is found: the value of rsp in the caller before its call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CfaRule {
    /// Register + offset.
    Offset(u8, i32),
    /// Computed by the expression at this position of the segment.
    Expression(u32),
}

/// A row of the table. Kinds and values of the register rules are apart because that takes half the
/// stack.
#[derive(Clone, Copy)]
pub(super) struct Row {
    cfa_register: u8,
    cfa_is_expression: bool,
    cfa_offset: i32,
    cfa_expression: u32,
    kinds: [u8; REGISTERS],
    values: [i32; REGISTERS],
}

impl Row {
    pub(super) const EMPTY: Row = Row {
        cfa_register: 0,
        cfa_is_expression: false,
        cfa_offset: 0,
        cfa_expression: 0,
        kinds: [0; REGISTERS],
        values: [0; REGISTERS],
    };

    pub(super) fn cfa(&self) -> CfaRule {
        if self.cfa_is_expression {
            CfaRule::Expression(self.cfa_expression)
        } else {
            CfaRule::Offset(self.cfa_register, self.cfa_offset)
        }
    }

    pub(super) fn register(&self, register: u8) -> RegisterRule {
        use RegisterRule::*;
        let index = usize::from(register);
        let (Some(kind), Some(value)) = (self.kinds.get(index), self.values.get(index)) else {
            return Unspecified;
        };
        match kind {
            1 => SameValue,
            2 => Undefined,
            3 => Offset(*value),
            4 => ValOffset(*value),
            5 => Register(*value as u8),
            6 => Expression(*value as u32),
            7 => ValExpression(*value as u32),
            _ => Unspecified,
        }
    }

    fn set(&mut self, register: u64, rule: RegisterRule) {
        use RegisterRule::*;
        let (kind, value) = match rule {
            Unspecified => (0, 0),
            SameValue => (1, 0),
            Undefined => (2, 0),
            Offset(offset) => (3, offset),
            ValOffset(offset) => (4, offset),
            Register(other) => (5, other.into()),
            Expression(position) => (6, position as i32),
            ValExpression(position) => (7, position as i32),
        };
        let index = usize::try_from(register).unwrap_or(REGISTERS);
        if let (Some(kind_at), Some(value_at)) =
            (self.kinds.get_mut(index), self.values.get_mut(index))
        {
            (*kind_at, *value_at) = (kind, value);
        }
    }
}

/// The row of `fde` for `pc`. `None` for a program that makes no sense, or more than we hold.
#[inline(never)]
pub(super) fn row_at(fde: &Fde<'_>, pc: u64) -> Option<Row> {
    let (mut row, mut aside) = (Row::EMPTY, Aside::EMPTY);
    run(fde, pc, &mut row, &mut aside)?;
    Some(row)
}

/// Rows that a CFA program puts aside. All zeros is sound.
pub(super) struct Aside {
    /// What the CIE says: `DW_CFA_restore` goes back to it.
    initial: Row,
    remembered: [Row; MAX_REMEMBERED],
}

impl Aside {
    pub(super) const EMPTY: Aside =
        Aside { initial: Row::EMPTY, remembered: [Row::EMPTY; MAX_REMEMBERED] };
}

/// As [`row_at`], with the row in place of `row` and room for others in `aside`.
#[inline(never)]
pub(super) fn run(fde: &Fde<'_>, pc: u64, row: &mut Row, aside: &mut Aside) -> Option<()> {
    if fde.cie.return_register != u64::from(RETURN_ADDRESS) {
        return None;
    }
    *row = Row::EMPTY;
    aside.initial = Row::EMPTY;
    let mut machine = Machine { fde, location: fde.start, row, aside, depth: 0 };
    machine.run(fde.cie.program, u64::MAX)?;
    machine.aside.initial = *machine.row;
    machine.location = fde.start;
    machine.depth = 0;
    machine.run(fde.program, pc)
}

struct Machine<'a> {
    fde: &'a Fde<'a>,
    location: u64,
    row: &'a mut Row,
    aside: &'a mut Aside,
    depth: usize,
}

impl Machine<'_> {
    /// Runs until the row behind `pc` begins.
    fn run(&mut self, mut program: Cursor<'_>, pc: u64) -> Option<()> {
        while !program.is_at_end() && self.location <= pc {
            let opcode = program.u8()?;
            let operand = u64::from(opcode & 0x3f);
            match opcode >> 6 {
                1 => self.advance(operand),
                2 => {
                    let offset = program.uleb128()? as i64;
                    self.set_offset(operand, offset, RegisterRule::Offset)?;
                }
                3 => self.restore(operand),
                _ => self.extended(opcode, &mut program)?,
            }
        }
        Some(())
    }

    fn extended(&mut self, opcode: u8, program: &mut Cursor<'_>) -> Option<()> {
        use RegisterRule::*;
        match opcode {
            // nop
            0x00 => {}
            // set_loc
            0x01 => {
                self.location = program.encoded_pointer(self.fde.cie.pointer_encoding, 0)?;
            }
            // advance_loc1, 2, 4, MIPS_advance_loc8
            0x02 => self.advance(program.u8()?.into()),
            0x03 => self.advance(program.u16()?.into()),
            0x04 => self.advance(program.u32()?.into()),
            0x1d => self.advance(program.u64()?),
            // offset_extended
            0x05 => {
                let register = program.uleb128()?;
                self.set_offset(register, program.uleb128()? as i64, Offset)?;
            }
            // restore_extended
            0x06 => {
                let register = program.uleb128()?;
                self.restore(register);
            }
            // undefined
            0x07 => self.row.set(program.uleb128()?, Undefined),
            // same_value
            0x08 => self.row.set(program.uleb128()?, SameValue),
            // register
            0x09 => {
                let register = program.uleb128()?;
                let other = u8::try_from(program.uleb128()?).ok()?;
                self.row.set(register, Register(other));
            }
            // remember_state
            0x0a => {
                *self.aside.remembered.get_mut(self.depth)? = *self.row;
                self.depth += 1;
            }
            // restore_state
            0x0b => {
                self.depth = self.depth.checked_sub(1)?;
                *self.row = *self.aside.remembered.get(self.depth)?;
            }
            // def_cfa, def_cfa_sf
            0x0c => {
                let register = program.uleb128()?;
                self.set_cfa(register, program.uleb128()? as i64)?;
            }
            0x12 => {
                let register = program.uleb128()?;
                let offset = program.sleb128()?.wrapping_mul(self.fde.cie.data_alignment);
                self.set_cfa(register, offset)?;
            }
            // def_cfa_register
            0x0d => self.set_cfa(program.uleb128()?, self.row.cfa_offset.into())?,
            // def_cfa_offset, def_cfa_offset_sf: an expression stays one
            0x0e => self.row.cfa_offset = i32::try_from(program.uleb128()?).ok()?,
            0x13 => {
                let offset = program.sleb128()?.wrapping_mul(self.fde.cie.data_alignment);
                self.row.cfa_offset = i32::try_from(offset).ok()?;
            }
            // def_cfa_expression
            0x0f => {
                self.row.cfa_expression = skip_expression(program)?;
                self.row.cfa_is_expression = true;
            }
            // expression, val_expression
            0x10 => {
                let register = program.uleb128()?;
                self.row.set(register, Expression(skip_expression(program)?));
            }
            0x16 => {
                let register = program.uleb128()?;
                self.row.set(register, ValExpression(skip_expression(program)?));
            }
            // offset_extended_sf
            0x11 => {
                let register = program.uleb128()?;
                self.set_offset(register, program.sleb128()?, Offset)?;
            }
            // val_offset, val_offset_sf
            0x14 => {
                let register = program.uleb128()?;
                self.set_offset(register, program.uleb128()? as i64, ValOffset)?;
            }
            0x15 => {
                let register = program.uleb128()?;
                self.set_offset(register, program.sleb128()?, ValOffset)?;
            }
            // GNU_args_size
            0x2e => {
                program.uleb128()?;
            }
            // GNU_negative_offset_extended
            0x2f => {
                let register = program.uleb128()?;
                self.set_offset(register, (program.uleb128()? as i64).wrapping_neg(), Offset)?;
            }
            _ => return None,
        }
        Some(())
    }

    fn advance(&mut self, delta: u64) {
        let distance = delta.wrapping_mul(self.fde.cie.code_alignment);
        self.location = self.location.saturating_add(distance);
    }

    fn set_cfa(&mut self, register: u64, offset: i64) -> Option<()> {
        self.row.cfa_register = u8::try_from(register).ok()?;
        self.row.cfa_offset = i32::try_from(offset).ok()?;
        self.row.cfa_is_expression = false;
        Some(())
    }

    fn set_offset(
        &mut self,
        register: u64,
        factored: i64,
        rule: impl FnOnce(i32) -> RegisterRule,
    ) -> Option<()> {
        let offset = factored.wrapping_mul(self.fde.cie.data_alignment);
        self.row.set(register, rule(i32::try_from(offset).ok()?));
        Some(())
    }

    fn restore(&mut self, register: u64) {
        if let Ok(number) = u8::try_from(register) {
            self.row.set(register, self.aside.initial.register(number));
        }
    }
}

/// Skips an expression (its length, then its operations) and returns where it begins.
fn skip_expression(program: &mut Cursor<'_>) -> Option<u32> {
    let position = u32::try_from(program.position()).ok()?;
    let len = program.uleb128()?;
    program.skip(len)?;
    Some(position)
}

#[cfg(test)]
#[path = "cfi_tests.rs"]
mod tests;
