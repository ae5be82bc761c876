//! Calls and jumps in x86_64 machine code, as far as byte patterns tell.
//!
//! Nothing here disassembles: a pattern may be found where the processor never starts to decode.
//! All users are built so that such a false find makes them less sure, never wrong.

use super::address::Svma;

/// A call or jump and where it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// To a fixed address.
    Direct(Svma),
    /// To a fixed address at most 128 bytes away: one in the same section of the same source file,
    /// as only an assembler makes jumps short.
    Near(Svma),
    /// To the address in the word at a fixed address (GOT slot).
    Slot(Svma),
    /// To an address in a register or in computed memory.
    Computed,
}

/// The calls that end exactly at `end`; `code` is what precedes it.
///
/// `E8 rel32`, and `FF /2` in all forms of its operand. Prefixes (REX, BND, addr32 padding) come
/// before the opcode and need no attention.
pub(super) fn calls_ending_at(code: &[u8], end: Svma) -> impl Iterator<Item = Target> + '_ {
    let direct = tail::<5>(code)
        .filter(|bytes| bytes[0] == 0xe8)
        .map(|bytes| Target::Direct(end.wrapping_add(rel32(&bytes[1..]))));
    let indirect = [2, 3, 4, 6, 7].into_iter().filter_map(move |length| {
        let bytes = &code[code.len().checked_sub(length)?..];
        (bytes[0] == 0xff && operand_length(&bytes[1..]) == Some((2, length - 1)))
            .then(|| memory_or_register(bytes, end))
    });
    direct.into_iter().chain(indirect)
}

/// Whether `code` is what a signal handler returns to: the call of rt_sigreturn, which brings the
/// interrupted code back.
pub(super) fn ends_signal(code: &[u8]) -> bool {
    const SYSCALL: &[u8] = &[0x0f, 0x05];
    // mov $15, %rax (the C library's) or %eax
    let forms: [&[u8]; 2] = [&[0x48, 0xc7, 0xc0, 15, 0, 0, 0], &[0xb8, 15, 0, 0, 0]];
    forms.iter().any(|form| code.strip_prefix(*form).is_some_and(|rest| rest.starts_with(SYSCALL)))
}

/// Bytes of ModRM, SIB and displacement, and the opcode extension in ModRM.
fn operand_length(bytes: &[u8]) -> Option<(u8, usize)> {
    let modrm = *bytes.first()?;
    let (mode, extension, rm) = (modrm >> 6, modrm >> 3 & 7, modrm & 7);
    if mode == 3 {
        return Some((extension, 1));
    }
    let sib = if rm == 4 { Some(*bytes.get(1)?) } else { None };
    let displacement = match mode {
        0 if rm == 5 => 4,                             // rip-relative
        0 if sib.is_some_and(|sib| sib & 7 == 5) => 4, // no base
        0 => 0,
        1 => 1,
        _ => 4,
    };
    Some((extension, 1 + usize::from(sib.is_some()) + displacement))
}

/// Target of `FF /2` or `FF /4`.
fn memory_or_register(bytes: &[u8], end: Svma) -> Target {
    match bytes {
        [0xff, modrm, displacement @ ..] if modrm & 0xc7 == 0x05 && displacement.len() >= 4 => {
            Target::Slot(end.wrapping_add(rel32(displacement)))
        }
        _ => Target::Computed,
    }
}

/// What a PLT stub at `at` jumps through: `[endbr64] [bnd] jmp *slot(%rip)`.
pub(super) fn plt_slot(code: &[u8], at: Svma) -> Option<Svma> {
    let mut rest = code.strip_prefix(b"\xf3\x0f\x1e\xfa").unwrap_or(code);
    rest = rest.strip_prefix(b"\xf2").unwrap_or(rest);
    let displacement = rest.strip_prefix(b"\xff\x25")?.get(..4)?;
    let length = code.len() - rest.len() + 6;
    Some(at.wrapping_add(length as i64 + rel32(displacement)))
}

/// Every jump that the bytes could contain, wherever one might start.
pub(super) fn jumps(code: &[u8], start: Svma) -> impl Iterator<Item = Target> + '_ {
    (0..code.len()).filter_map(move |at| {
        let bytes = &code[at..];
        let end_of = |length: usize| start.wrapping_add((at + length) as i64);
        match *bytes {
            [0xe9, _, _, _, _, ..] => {
                Some(Target::Direct(end_of(5).wrapping_add(rel32(&bytes[1..]))))
            }
            [0x0f, 0x80..=0x8f, _, _, _, _, ..] => {
                Some(Target::Direct(end_of(6).wrapping_add(rel32(&bytes[2..]))))
            }
            [0xeb | 0x70..=0x7f | 0xe0..=0xe3, by, ..] => {
                Some(Target::Near(end_of(2).wrapping_add(i64::from(by as i8))))
            }
            [0xff, ..] => match operand_length(&bytes[1..]) {
                Some((4, length)) => Some(memory_or_register(bytes, end_of(1 + length))),
                _ => None,
            },
            _ => None,
        }
    })
}

/// Whether the bytes could return to an address that they stored themselves (retpoline thunks:
/// `mov %reg,(%rsp); ret` or `push %reg; ret`).
pub(super) fn returns_elsewhere(code: &[u8]) -> bool {
    code.windows(4).any(|w| w[0] == 0x89 && w[1] & 0xc7 == 0x04 && w[2] == 0x24 && w[3] == 0xc3)
        || code.windows(2).any(|w| matches!(w, [0x50..=0x57, 0xc3]))
}

fn tail<const N: usize>(code: &[u8]) -> Option<&[u8; N]> {
    code.last_chunk::<N>()
}

fn rel32(bytes: &[u8]) -> i64 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[..4]);
    i64::from(i32::from_le_bytes(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calls(code: &[u8]) -> Vec<Target> {
        calls_ending_at(code, Svma(0x1000)).collect()
    }

    #[test]
    fn every_form_of_call_is_seen() {
        assert_eq!(calls(b"\xe8\xfb\xff\xff\xff"), [Target::Direct(Svma(0xffb))]);
        assert_eq!(calls(b"\x67\xe8\x10\x00\x00\x00"), [Target::Direct(Svma(0x1010))]);
        assert_eq!(calls(b"\xff\x15\x10\x20\x00\x00"), [Target::Slot(Svma(0x3010))]);
        for code in [
            &b"\xff\xd0"[..],                // call *%rax
            b"\x41\xff\xd4",                 // call *%r12
            b"\xff\x10",                     // call *(%rax)
            b"\x41\xff\x14\x24",             // call *(%r12)
            b"\xff\x50\x18",                 // call *0x18(%rax)
            b"\xff\x54\x24\x08",             // call *8(%rsp)
            b"\x41\xff\x54\x24\x18",         // call *0x18(%r12)
            b"\xff\x90\x80\x01\x00\x00",     // call *0x180(%rax)
            b"\xff\x94\x24\x80\x01\x00\x00", // call *0x180(%rsp)
            b"\xff\x14\xc5\x00\x10\x40\x00", // call *0x401000(,%rax,8)
            b"\xff\x14\xd0",                 // call *(%rax,%rdx,8)
            b"\x3e\xff\xd0",                 // notrack call *%rax
        ] {
            assert_eq!(calls(code), [Target::Computed], "{code:x?}");
        }
    }

    #[test]
    fn the_end_of_a_signal_handler_is_told_by_its_system_call() {
        let ends = [0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05, 0x90];
        assert!(ends_signal(&ends));
        assert!(ends_signal(&[0xb8, 0x0f, 0, 0, 0, 0x0f, 0x05]));
        assert!(!ends_signal(&ends[..8]));
        assert!(!ends_signal(&[0xb8, 0x0e, 0, 0, 0, 0x0f, 0x05]));
        assert!(!ends_signal(&[]));
    }

    #[test]
    fn what_is_no_call_is_not_seen() {
        for code in [
            &b""[..],
            b"\xe8",
            b"\xff\xe0",                 // jmp *%rax
            b"\xff\x25\x10\x20\x00\x00", // jmp *slot
            b"\xe9\x00\x00\x00\x00",     // jmp
            b"\xff\x15\x10\x20\x00",     // cut
            b"\xff\x14\x25",             // SIB without its displacement
            b"\x90\x90\x90\x90\x90\x90\x90",
        ] {
            assert_eq!(calls(code), [], "{code:x?}");
        }
    }

    #[test]
    fn plt_stubs_of_all_shapes() {
        let plain = b"\xff\x25\x00\x10\x00\x00\x68\x00\x00\x00\x00";
        assert_eq!(plt_slot(plain, Svma(0x1000)), Some(Svma(0x2006)));
        let bnd = b"\xf2\xff\x25\x00\x10\x00\x00\x0f\x1f\x44\x00\x00";
        assert_eq!(plt_slot(bnd, Svma(0x1000)), Some(Svma(0x2007)));
        let ibt = b"\xf3\x0f\x1e\xfa\xff\x25\x00\x10\x00\x00";
        assert_eq!(plt_slot(ibt, Svma(0x1000)), Some(Svma(0x200a)));
        let both = b"\xf3\x0f\x1e\xfa\xf2\xff\x25\x00\x10\x00\x00";
        assert_eq!(plt_slot(both, Svma(0x1000)), Some(Svma(0x200b)));
        assert_eq!(plt_slot(b"\x55\x48\x89\xe5", Svma(0)), None);
    }

    #[test]
    fn jumps_out_are_found_anywhere() {
        let code = b"\x90\xe9\x00\x01\x00\x00\xeb\xfe\xff\x25\x00\x00\x00\x00\xff\xe0";
        let found: Vec<Target> = jumps(code, Svma(0)).collect();
        assert!(found.contains(&Target::Direct(Svma(0x106))));
        assert!(found.contains(&Target::Near(Svma(6))));
        assert!(found.contains(&Target::Slot(Svma(14))));
        assert!(found.contains(&Target::Computed));
    }
}
