//! DWARF expressions (DWARF 5, section 2.5), as far as CFA programs use them.

use super::cursor::{Cursor, encoding};
use super::memory::Memory;
use super::step::Problem;

/// Values on the stack of an expression at once. Those of real files need 4.
const MAX_DEPTH: usize = 16;
/// Operations that one expression may take, so that a loop in it ends.
const MAX_OPERATIONS: usize = 1000;

struct Stack {
    values: [u64; MAX_DEPTH],
    depth: usize,
}

impl Stack {
    fn push(&mut self, value: u64) -> Option<()> {
        *self.values.get_mut(self.depth)? = value;
        self.depth += 1;
        Some(())
    }

    fn pop(&mut self) -> Option<u64> {
        self.depth = self.depth.checked_sub(1)?;
        self.values.get(self.depth).copied()
    }

    /// The value below `above` others.
    fn pick(&self, above: usize) -> Option<u64> {
        self.values.get(self.depth.checked_sub(above + 1)?).copied()
    }
}

/// What the expression at `at` (its length first) computes, beginning with `first` on the stack.
pub(super) fn evaluate(
    mut at: Cursor<'_>,
    first: Option<u64>,
    register: impl Fn(u64) -> Option<u64>,
    memory: &mut Memory,
) -> Result<u64, Problem> {
    let len = at.uleb128().ok_or(Problem::BadCfi)?;
    let mut program = at.part(len).ok_or(Problem::BadCfi)?;
    let start = program;
    let mut stack = Stack { values: [0; MAX_DEPTH], depth: 0 };
    if let Some(first) = first {
        stack.push(first).ok_or(Problem::BadCfi)?;
    }
    let mut operations = 0;
    while !program.is_at_end() {
        operations += 1;
        if operations > MAX_OPERATIONS {
            return Err(Problem::BadCfi);
        }
        let opcode = program.u8().ok_or(Problem::BadCfi)?;
        match opcode {
            // breg0 to breg31, bregx
            0x70..=0x8f | 0x92 => {
                let number = match opcode {
                    0x92 => program.uleb128().ok_or(Problem::BadCfi)?,
                    _ => (opcode - 0x70).into(),
                };
                let offset = program.sleb128().ok_or(Problem::BadCfi)?;
                let value = register(number).ok_or(Problem::UnknownRegister)?;
                stack.push(value.wrapping_add(offset as u64)).ok_or(Problem::BadCfi)?;
            }
            // reg0 to reg31, regx
            0x50..=0x6f | 0x90 => {
                let number = match opcode {
                    0x90 => program.uleb128().ok_or(Problem::BadCfi)?,
                    _ => (opcode - 0x50).into(),
                };
                let value = register(number).ok_or(Problem::UnknownRegister)?;
                stack.push(value).ok_or(Problem::BadCfi)?;
            }
            // deref, deref_size
            0x06 | 0x94 => {
                let size = if opcode == 0x94 { program.u8().ok_or(Problem::BadCfi)? } else { 8 };
                let address = stack.pop().ok_or(Problem::BadCfi)?;
                let value = read(memory, address, size)?;
                stack.push(value).ok_or(Problem::BadCfi)?;
            }
            _ => operate(opcode, &mut program, &start, &mut stack).ok_or(Problem::BadCfi)?,
        }
    }
    stack.pop().ok_or(Problem::BadCfi)
}

/// The `size` bytes at `address`, which need not be aligned.
fn read(memory: &mut Memory, address: u64, size: u8) -> Result<u64, Problem> {
    if !matches!(size, 1 | 2 | 4 | 8) {
        return Err(Problem::BadCfi);
    }
    let shift = 8 * (address % 8);
    let first = memory.word(address & !7).ok_or(Problem::Unreadable)?;
    let mut value = first >> shift;
    if address % 8 + u64::from(size) > 8 {
        let next = memory.word((address & !7).wrapping_add(8)).ok_or(Problem::Unreadable)?;
        value |= next << (64 - shift);
    }
    Ok(if size == 8 { value } else { value & ((1 << (8 * size)) - 1) })
}

/// Operations on the stack alone. `None` for one that makes no sense or is not known.
fn operate<'a>(
    opcode: u8,
    program: &mut Cursor<'a>,
    start: &Cursor<'a>,
    stack: &mut Stack,
) -> Option<()> {
    let value = match opcode {
        // addr, const8u, const8s
        0x03 | 0x0e | 0x0f => program.u64()?,
        // const1u to const4s
        0x08 => program.u8()?.into(),
        0x09 => program.u8()? as i8 as u64,
        0x0a => program.u16()?.into(),
        0x0b => program.u16()? as i16 as u64,
        0x0c => program.u32()?.into(),
        0x0d => program.u32()? as i32 as u64,
        // constu, consts
        0x10 => program.uleb128()?,
        0x11 => program.sleb128()? as u64,
        // lit0 to lit31
        0x30..=0x4f => (opcode - 0x30).into(),
        // dup, over, pick
        0x12 => stack.pick(0)?,
        0x14 => stack.pick(1)?,
        0x15 => stack.pick(program.u8()?.into())?,
        // drop
        0x13 => {
            stack.pop()?;
            return Some(());
        }
        // swap
        0x16 => {
            let (top, second) = (stack.pop()?, stack.pop()?);
            stack.push(top)?;
            second
        }
        // rot: the top goes below the two others
        0x17 => {
            let (top, second, third) = (stack.pop()?, stack.pop()?, stack.pop()?);
            stack.push(top)?;
            stack.push(third)?;
            second
        }
        // abs, neg, not, plus_uconst
        0x19 => (stack.pop()? as i64).unsigned_abs(),
        0x1f => stack.pop()?.wrapping_neg(),
        0x20 => !stack.pop()?,
        0x23 => stack.pop()?.wrapping_add(program.uleb128()?),
        // skip, bra
        0x2f | 0x28 => {
            let distance = program.u16()? as i16;
            if opcode == 0x2f || stack.pop()? != 0 {
                program.jump(distance.into(), start)?;
            }
            return Some(());
        }
        // nop
        0x96 => return Some(()),
        // GNU_encoded_addr
        0xf1 => {
            let form = program.u8()?;
            program.encoded_pointer(form & !encoding::INDIRECT, 0)?
        }
        _ => {
            let (right, left) = (stack.pop()?, stack.pop()?);
            binary(opcode, left, right)?
        }
    };
    stack.push(value)
}

fn binary(opcode: u8, left: u64, right: u64) -> Option<u64> {
    let (signed_left, signed_right) = (left as i64, right as i64);
    let shift = u32::try_from(right).unwrap_or(u32::MAX);
    Some(match opcode {
        // and, or, xor
        0x1a => left & right,
        0x21 => left | right,
        0x27 => left ^ right,
        // div, minus, mod, mul, plus
        0x1b => signed_left.checked_div(signed_right)? as u64,
        0x1c => left.wrapping_sub(right),
        0x1d => left.checked_rem(right)?,
        0x1e => left.wrapping_mul(right),
        0x22 => left.wrapping_add(right),
        // shl, shr, shra
        0x24 => left.checked_shl(shift).unwrap_or(0),
        0x25 => left.checked_shr(shift).unwrap_or(0),
        0x26 => (signed_left >> shift.min(63)) as u64,
        // eq, ge, gt, le, lt, ne
        0x29 => (left == right).into(),
        0x2a => (signed_left >= signed_right).into(),
        0x2b => (signed_left > signed_right).into(),
        0x2c => (signed_left <= signed_right).into(),
        0x2d => (signed_left < signed_right).into(),
        0x2e => (left != right).into(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs operations with rsp (7) = 0x1000 and rip (16) = 0x40_000b.
    fn run(operations: &[u8]) -> Result<u64, Problem> {
        let mut bytes = vec![operations.len() as u8];
        bytes.extend_from_slice(operations);
        let register = |number| match number {
            7 => Some(0x1000),
            16 => Some(0x40_000b),
            _ => None,
        };
        evaluate(Cursor::new(&bytes, 0), None, register, &mut Memory::probing())
    }

    #[test]
    fn the_expression_of_a_plt_entry_depends_on_the_pc() {
        // breg7 8; breg16 0; lit15; and; lit11; ge; lit3; shl; plus, as GNU ld writes it.
        let plt = [0x77, 8, 0x80, 0, 0x3f, 0x1a, 0x3b, 0x2a, 0x33, 0x24, 0x22];
        assert_eq!(run(&plt), Ok(0x1010));
    }

    #[test]
    fn every_operation_computes_what_the_standard_says() {
        let cases: &[(&[u8], u64)] = &[
            (&[0x08, 200], 200),
            (&[0x09, 0xff], u64::MAX),
            (&[0x0a, 1, 2], 0x201),
            (&[0x0b, 0xfe, 0xff], -2i64 as u64),
            (&[0x0c, 1, 0, 0, 0x80], 0x8000_0001),
            (&[0x0d, 1, 0, 0, 0x80], 0xffff_ffff_8000_0001),
            (&[0x0e, 1, 2, 3, 4, 5, 6, 7, 8], 0x0807_0605_0403_0201),
            (&[0x03, 1, 2, 3, 4, 5, 6, 7, 8], 0x0807_0605_0403_0201),
            (&[0x10, 0x80, 1], 128),
            (&[0x11, 0x7f], u64::MAX),
            (&[0x35, 0x12, 0x22], 10),
            (&[0x31, 0x32, 0x14, 0x1c], 1),
            (&[0x31, 0x32, 0x33, 0x15, 2], 1),
            (&[0x31, 0x32, 0x13], 1),
            (&[0x31, 0x35, 0x16, 0x1c], 4),
            // rot of 1 2 3: 3 is now below 1 and 2, which is on top
            (&[0x31, 0x32, 0x33, 0x17], 2),
            (&[0x31, 0x32, 0x33, 0x17, 0x13], 1),
            (&[0x31, 0x32, 0x33, 0x17, 0x13, 0x13], 3),
            (&[0x09, 0xfb, 0x19], 5),
            (&[0x35, 0x1f], -5i64 as u64),
            (&[0x30, 0x20], u64::MAX),
            (&[0x35, 0x23, 0x80, 1], 133),
            (&[0x36, 0x33, 0x1a], 2),
            (&[0x36, 0x33, 0x21], 7),
            (&[0x36, 0x33, 0x27], 5),
            (&[0x09, 0xf7, 0x32, 0x1b], -4i64 as u64),
            (&[0x39, 0x34, 0x1d], 1),
            (&[0x39, 0x34, 0x1e], 36),
            (&[0x39, 0x34, 0x24], 144),
            (&[0x39, 0x32, 0x25], 2),
            (&[0x09, 0xf7, 0x31, 0x26], -5i64 as u64),
            (&[0x31, 0x08, 64, 0x24], 0),
            (&[0x39, 0x39, 0x29], 1),
            (&[0x39, 0x38, 0x2a], 1),
            (&[0x39, 0x38, 0x2b], 1),
            (&[0x39, 0x38, 0x2c], 0),
            (&[0x09, 0xff, 0x30, 0x2d], 1),
            (&[0x39, 0x38, 0x2e], 1),
            // skip over one operation
            (&[0x31, 0x2f, 1, 0, 0x32], 1),
            // bra is taken, then not
            (&[0x31, 0x31, 0x28, 1, 0, 0x32], 1),
            (&[0x31, 0x30, 0x28, 1, 0, 0x32], 2),
            (&[0x96, 0x57], 0x1000),
            (&[0x90, 7], 0x1000),
            (&[0x92, 7, 0x78], 0xff8),
        ];
        for (operations, expected) in cases {
            assert_eq!(run(operations), Ok(*expected), "{operations:x?}");
        }
    }

    #[test]
    fn memory_is_read_at_any_alignment() {
        let words = [0x0807_0605_0403_0201u64, 0x100f_0e0d_0c0b_0a09];
        let address = |offset: u64| {
            let mut operations = vec![0x0e];
            operations.extend((words.as_ptr() as u64 + offset).to_le_bytes());
            operations
        };
        assert_eq!(run(&[address(0), vec![0x06]].concat()), Ok(words[0]));
        assert_eq!(run(&[address(3), vec![0x06]].concat()), Ok(0x0b0a_0908_0706_0504));
        assert_eq!(run(&[address(6), vec![0x94, 4]].concat()), Ok(0x0a09_0807));
        assert_eq!(run(&[address(1), vec![0x94, 1]].concat()), Ok(2));
    }

    #[test]
    fn nonsense_ends_with_an_error() {
        assert_eq!(run(&[]), Err(Problem::BadCfi));
        assert_eq!(run(&[0x22]), Err(Problem::BadCfi));
        assert_eq!(run(&[0x31, 0x30, 0x1b]), Err(Problem::BadCfi));
        assert_eq!(run(&[0x31; 40]), Err(Problem::BadCfi));
        assert_eq!(run(&[0x2f, 0xfd, 0xff]), Err(Problem::BadCfi)); // for ever
        assert_eq!(run(&[0x2f, 0xff, 0x7f]), Err(Problem::BadCfi));
        assert_eq!(run(&[0xff]), Err(Problem::BadCfi));
        assert_eq!(run(&[0x70, 0]), Err(Problem::UnknownRegister));
        assert_eq!(run(&[0x31, 0x06]), Err(Problem::Unreadable));
    }
}
