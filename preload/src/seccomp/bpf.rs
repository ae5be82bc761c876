//! What a filter of system calls says of one: an interpreter of the classic BPF that seccomp(2)
//! takes. What the kernel would refuse is `None` here.

/// `struct sock_filter` (linux/filter.h).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Instruction {
    pub(super) code: u16,
    /// Instructions passed when a comparison holds ...
    pub(super) then: u8,
    /// ... and when it does not.
    pub(super) otherwise: u8,
    pub(super) k: u32,
}

/// Most instructions of a filter (`BPF_MAXINSNS`).
pub(super) const MOST: usize = 4096;

/// What a filter sees of a system call, as 32-bit words: `struct seccomp_data` (linux/seccomp.h).
#[derive(Clone, Copy)]
pub(super) struct Call([u32; WORDS]);

const WORDS: usize = 16;

impl Call {
    /// A call of `number` by the instruction at `place`, of a 64-bit program.
    pub(super) fn new(number: i64, arguments: [u64; 6], place: u64) -> Call {
        /// linux/audit.h: EM_X86_64, 64 bits, little-endian.
        const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
        let halves = |value: u64| [value as u32, (value >> 32) as u32];
        let numbers = [number as u32, AUDIT_ARCH_X86_64];
        let mut words = [0; WORDS];
        let rest = [place].into_iter().chain(arguments).flat_map(halves);
        words.iter_mut().zip(numbers.into_iter().chain(rest)).for_each(|(to, from)| *to = from);
        Call(words)
    }

    fn word(&self, offset: u32) -> Option<u32> {
        let is_aligned = offset.is_multiple_of(4);
        is_aligned.then(|| self.0.get(offset as usize / 4).copied()).flatten()
    }
}

/// The names of linux/bpf_common.h.
mod code {
    pub(super) const LD_W_ABS: u16 = 0x20;
    pub(super) const LD_W_LEN: u16 = 0x80;
    pub(super) const LDX_W_LEN: u16 = 0x81;
    pub(super) const LD_IMM: u16 = 0x00;
    pub(super) const LDX_IMM: u16 = 0x01;
    pub(super) const LD_MEM: u16 = 0x60;
    pub(super) const LDX_MEM: u16 = 0x61;
    pub(super) const ST: u16 = 0x02;
    pub(super) const STX: u16 = 0x03;
    pub(super) const NEG: u16 = 0x84;
    pub(super) const TAX: u16 = 0x07;
    pub(super) const TXA: u16 = 0x87;
    pub(super) const RET_K: u16 = 0x06;
    pub(super) const RET_A: u16 = 0x16;
    pub(super) const JA: u16 = 0x05;
    /// The operand is X, not K.
    pub(super) const X: u16 = 0x08;
    /// Class and operation, the operand's kind taken out.
    pub(super) const ADD: u16 = 0x04;
    pub(super) const SUB: u16 = 0x14;
    pub(super) const MUL: u16 = 0x24;
    pub(super) const DIV: u16 = 0x34;
    pub(super) const OR: u16 = 0x44;
    pub(super) const AND: u16 = 0x54;
    pub(super) const LSH: u16 = 0x64;
    pub(super) const RSH: u16 = 0x74;
    pub(super) const XOR: u16 = 0xa4;
    pub(super) const JEQ: u16 = 0x15;
    pub(super) const JGT: u16 = 0x25;
    pub(super) const JGE: u16 = 0x35;
    pub(super) const JSET: u16 = 0x45;
}

/// The result (`SECCOMP_RET_...`) for a call of the filter whose instructions `fetch` gives. Jumps
/// lead forward, so it ends after [`MOST`] instructions at most.
pub(super) fn run(fetch: impl Fn(usize) -> Option<Instruction>, call: &Call) -> Option<u32> {
    use code::*;
    let (mut a, mut x) = (0u32, 0u32);
    let mut memory = [0u32; 16];
    let mut next = 0;
    while next < MOST {
        let Instruction { code, then, otherwise, k } = fetch(next)?;
        next += 1;
        match code {
            LD_W_ABS => a = call.word(k)?,
            LD_W_LEN => a = 4 * WORDS as u32,
            LDX_W_LEN => x = 4 * WORDS as u32,
            LD_IMM => a = k,
            LDX_IMM => x = k,
            LD_MEM => a = *memory.get(k as usize)?,
            LDX_MEM => x = *memory.get(k as usize)?,
            ST => *memory.get_mut(k as usize)? = a,
            STX => *memory.get_mut(k as usize)? = x,
            NEG => a = a.wrapping_neg(),
            TAX => x = a,
            TXA => a = x,
            RET_K => return Some(k),
            RET_A => return Some(a),
            JA => next = next.checked_add(k as usize)?,
            _ => {
                let operand = if code & X == 0 { k } else { x };
                if code & !X == DIV && operand == 0 {
                    return Some(0);
                }
                let holds = match code & !X {
                    JEQ => a == operand,
                    JGT => a > operand,
                    JGE => a >= operand,
                    JSET => a & operand != 0,
                    other => {
                        a = compute(other, a, operand)?;
                        continue;
                    }
                };
                next += usize::from(if holds { then } else { otherwise });
            }
        }
    }
    None
}

fn compute(operation: u16, a: u32, operand: u32) -> Option<u32> {
    use code::*;
    Some(match operation {
        ADD => a.wrapping_add(operand),
        SUB => a.wrapping_sub(operand),
        MUL => a.wrapping_mul(operand),
        DIV => a.checked_div(operand)?,
        OR => a | operand,
        AND => a & operand,
        LSH => a.wrapping_shl(operand),
        RSH => a.wrapping_shr(operand),
        XOR => a ^ operand,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(code: u16, then: u8, otherwise: u8, k: u32) -> Instruction {
        Instruction { code, then, otherwise, k }
    }

    fn result(program: &[Instruction], call: &Call) -> Option<u32> {
        run(|index| program.get(index).copied(), call)
    }

    fn some_call() -> Call {
        Call::new(18, [3, 0x1_2345_6789, 5, u64::MAX, 0, 7], 0xabcd_0000_1234)
    }

    #[test]
    fn every_word_of_a_call_is_seen() {
        let expected = [
            (0, 18),
            (4, 0xc000_003e),
            (8, 0x0000_1234),
            (12, 0xabcd),
            (16, 3),
            (20, 0),
            (24, 0x2345_6789),
            (28, 1),
            (40, u32::MAX),
            (44, u32::MAX),
            (56, 7),
            (60, 0),
        ];
        for (offset, word) in expected {
            let program = [at(0x20, 0, 0, offset), at(0x16, 0, 0, 0)];
            assert_eq!(result(&program, &some_call()), Some(word), "{offset}");
        }
        for offset in [1, 2, 63, 64, u32::MAX] {
            let program = [at(0x20, 0, 0, offset), at(0x16, 0, 0, 0)];
            assert_eq!(result(&program, &some_call()), None, "{offset}");
        }
    }

    #[test]
    fn comparisons_jump_to_where_they_should() {
        for (code, k, holds) in [
            (0x15, 18, true),
            (0x15, 17, false),
            (0x25, 17, true),
            (0x25, 18, false),
            (0x35, 18, true),
            (0x35, 19, false),
            (0x45, 2, true),
            (0x45, 4, false),
        ] {
            let ends = [at(0x06, 0, 0, 100), at(0x06, 0, 0, 200)];
            let by_k = [at(0x20, 0, 0, 0), at(code, 1, 0, k), ends[0], ends[1]];
            let expected = Some(if holds { 200 } else { 100 });
            assert_eq!(result(&by_k, &some_call()), expected, "{code:#x} {k}");
            let load = [at(0x01, 0, 0, k), at(0x20, 0, 0, 0)];
            let by_x = [load[0], load[1], at(code | 8, 1, 0, 0), ends[0], ends[1]];
            assert_eq!(result(&by_x, &some_call()), expected, "{code:#x} X {k}");
        }
    }

    #[test]
    fn arithmetic_is_that_of_32_bits() {
        let compute = |code, a, operand| {
            let by_k = [at(0x00, 0, 0, a), at(code, 0, 0, operand), at(0x16, 0, 0, 0)];
            let load = [at(0x01, 0, 0, operand), at(0x00, 0, 0, a)];
            let by_x = [load[0], load[1], at(code | 8, 0, 0, 0), at(0x16, 0, 0, 0)];
            let results = [result(&by_k, &some_call()), result(&by_x, &some_call())];
            assert_eq!(results[0], results[1]);
            results[0]
        };
        assert_eq!(compute(0x04, u32::MAX, 2), Some(1));
        assert_eq!(compute(0x14, 1, 2), Some(u32::MAX));
        assert_eq!(compute(0x24, 1 << 31, 3), Some(1 << 31));
        assert_eq!([compute(0x34, 7, 2), compute(0x34, 7, 0)], [Some(3), Some(0)]);
        assert_eq!([compute(0x44, 5, 2), compute(0x54, 5, 4)], [Some(7), Some(4)]);
        assert_eq!([compute(0x64, 1, 4), compute(0x74, 32, 4)], [Some(16), Some(2)]);
        assert_eq!([compute(0xa4, 6, 3), compute(0x94, 7, 4)], [Some(5), None], "mod is refused");
    }

    #[test]
    fn registers_and_memory_hold_values() {
        let program = [
            at(0x00, 0, 0, 7),  // A = 7
            at(0x02, 0, 0, 15), // M[15] = A
            at(0x84, 0, 0, 0),  // A = -A
            at(0x07, 0, 0, 0),  // X = A
            at(0x03, 0, 0, 0),  // M[0] = X
            at(0x61, 0, 0, 15), // X = M[15]
            at(0x60, 0, 0, 0),  // A = M[0]
            at(0x0c, 0, 0, 0),  // A += X
            at(0x05, 0, 0, 1),
            at(0x06, 0, 0, 99),
            at(0x16, 0, 0, 0),
        ];
        assert_eq!(result(&program, &some_call()), Some(0));
        assert_eq!(result(&[at(0x02, 0, 0, 16), at(0x06, 0, 0, 0)], &some_call()), None);
    }

    #[test]
    fn what_has_no_end_is_refused() {
        assert_eq!(result(&[], &some_call()), None);
        assert_eq!(result(&[at(0x05, 0, 0, u32::MAX)], &some_call()), None);
        assert_eq!(result(&[at(0x15, 255, 255, 0)], &some_call()), None);
        assert_eq!(run(|_| Some(at(0x00, 0, 0, 0)), &some_call()), None);
        assert_eq!(result(&[at(0xffff, 0, 0, 0)], &some_call()), None);
    }
}
