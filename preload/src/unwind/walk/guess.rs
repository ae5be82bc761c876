//! The caller of a frame that no CFI describes: by a frame pointer, if there is one.

use super::{Cut, End, Walker};
use crate::modules;
use crate::unwind::bounds::stack_end;
use crate::unwind::eh_frame;
use crate::unwind::rule::Rule;

impl Walker<'_> {
    /// A frame without CFI. Its frame pointer is believed only if it leads further out on a stack
    /// whose end is known (a new coroutine's rbp can be that of its creator), and to what can be a
    /// caller.
    #[inline(never)]
    pub(super) fn guess(&mut self) -> Result<(), End> {
        // Nothing is called before the first instruction of a function: who set up this stack (a
        // coroutine's) made its first function return there.
        if is_start(self.at.pc) {
            return Err(End::Root);
        }
        if self.is_first_code() {
            return Err(End::Root);
        }
        let none = End::Truncated(Cut::NoCfi);
        let is_inside = self.at.memory.is_bounded() && self.at.memory.holds(self.at.rbp);
        if self.at.rbp < self.at.rsp || !is_inside {
            return Err(none);
        }
        let rbp = self.at.memory.word(self.at.rbp).ok_or(none)?;
        let pc = self.at.memory.word(self.at.rbp.wrapping_add(8)).ok_or(none)?;
        if pc == 0 || !self.may_be_called_from(pc) {
            return Err(none);
        }
        self.move_to(pc, self.at.rbp.wrapping_add(16), rbp)?;
        self.room.full.set_to_frame(self.at.pc, self.at.rsp, self.at.rbp);
        self.set_checkpoint();
        Ok(())
    }

    /// Whether the frame is one that nothing has called: the loader's, whose first code has no CFI, or
    /// the program's, where its CFI is not found. Both align rsp.
    fn is_first_code(&self) -> bool {
        /// More than the first code of a program has, and more than it uses of the stack.
        const SIZE: u64 = 64;
        let end = stack_end() & !15;
        // SAFETY: reads the auxiliary vector.
        let entry = || unsafe { libc::getauxval(libc::AT_ENTRY) };
        let is_by_program = || self.at.pc.wrapping_sub(entry()) < SIZE;
        self.at.memory.is_bounded()
            && self.at.memory.high() > end
            && (self.at.rsp >= end || (self.at.rsp >= end - SIZE && is_by_program()))
    }

    /// Whether the frame can return to `pc`: to code that has CFI. A module may have been built
    /// without CFI as a whole: then one frame of it leads to another. Code that was made at run time
    /// is trusted with one step only, and never reached by one.
    fn may_be_called_from(&self, pc: u64) -> bool {
        self.rules.get(pc.wrapping_sub(1)) != Rule::UNKNOWN
            || (code_before::<1>(self.at.lookup().wrapping_add(1)).is_some()
                && code_before(pc).is_some_and(|code| ends_with_call(&code)))
    }
}

/// Whether `pc` is the first instruction of a function.
#[inline(never)] // what it takes of the stack is free again when the caller is judged
fn is_start(pc: u64) -> bool {
    eh_frame::find(pc).is_some_and(|fde| fde.start == pc)
}

/// The bytes before `pc`, if they are a module's code.
fn code_before<const N: usize>(pc: u64) -> Option<[u8; N]> {
    let module = modules::find(pc.wrapping_sub(1) as usize)?;
    modules::code_before(&module, pc as usize)
}

/// Whether the last of these bytes can be a call instruction. (Intel's manual, CALL: E8 with a
/// distance, or FF /2 with a ModRM byte and what that asks for. Prefixes stand in front.)
fn ends_with_call(code: &[u8; 7]) -> bool {
    // mod and r/m of a ModRM byte whose other field is 2.
    let operand = |byte: u8| (byte >> 3 & 7 == 2).then_some((byte >> 6, byte & 7));
    // Operand forms by what follows the ModRM byte: a SIB byte if r/m is 4, and a displacement.
    match *code {
        [.., 0xff, by] if matches!(operand(by), Some((3, _) | (0, 0..=3 | 6..))) => true,
        [.., 0xff, by, base] if operand(by) == Some((0, 4)) && base & 7 != 5 => true,
        [.., 0xff, by, _] if matches!(operand(by), Some((1, 0..=3 | 5..))) => true,
        [.., 0xff, by, _, _] if operand(by) == Some((1, 4)) => true,
        [_, _, 0xe8, ..] => true,
        [_, 0xff, by, ..] if matches!(operand(by), Some((0, 5) | (2, 0..=3 | 5..))) => true,
        [0xff, by, base, ..] => match operand(by) {
            Some((0, 4)) => base & 7 == 5,
            form => form == Some((2, 4)),
        },
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_call_is_known() {
        let calls: &[&[u8]] = &[
            &[0xe8, 1, 2, 3, 4],             // call near
            &[0x67, 0xe8, 1, 2, 3, 4],       // as a linker writes it
            &[0xff, 0xd0],                   // *%rax
            &[0x41, 0xff, 0xd4],             // *%r12
            &[0x3e, 0xff, 0xd7],             // notrack *%rdi
            &[0xff, 0x10],                   // *(%rax)
            &[0xff, 0x16],                   // *(%rsi)
            &[0xff, 0x14, 0x24],             // *(%rsp)
            &[0xff, 0x14, 0xc7],             // *(%rdi,%rax,8)
            &[0xff, 0x50, 0x18],             // *24(%rax)
            &[0xff, 0x55, 0xf8],             // *-8(%rbp)
            &[0xff, 0x54, 0x24, 8],          // *8(%rsp)
            &[0xff, 0x15, 1, 2, 3, 4],       // *distance(%rip)
            &[0xff, 0x90, 1, 2, 3, 4],       // *distance(%rax)
            &[0xff, 0x94, 0x24, 1, 2, 3, 4], // *distance(%rsp)
            &[0xff, 0x14, 0xc5, 1, 2, 3, 4], // *table(,%rax,8)
        ];
        for call in calls {
            let mut code = [0x90; 7];
            for (place, byte) in code.iter_mut().rev().zip(call.iter().rev()) {
                *place = *byte;
            }
            assert!(ends_with_call(&code), "{call:x?}");
        }
    }

    #[test]
    fn what_is_no_call_is_told() {
        for code in [
            [0x90; 7],
            [0; 7],
            [0x90, 0x90, 0xe9, 1, 2, 3, 4],             // jmp
            [0x90, 0x90, 0x90, 0x90, 0x90, 0xff, 0xe0], // jmp *%rax
            [0x90, 0xff, 0x25, 1, 2, 3, 4],             // jmp *distance(%rip)
            [0x90, 0x90, 0x90, 0x90, 0x90, 0xff, 0x15], // less than a call
            [0x90, 0x90, 0x90, 0x90, 0xe8, 1, 2],
            [0x90, 0x90, 0x90, 0x90, 0x90, 0xff, 0x75], // push
        ] {
            assert!(!ends_with_call(&code), "{code:x?}");
        }
    }
}
