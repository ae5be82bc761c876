//! Records -> lines of the log.
//!
//! A line is `WHERE-TEXT OP PTR [SIZE]\n`, where the WHERE text (`@ FILE:[0xADDR] `) is made once
//! per call site. [`Line`] knows its length before any byte is written, so that a writer can take
//! its place first; [`Line::fill`] then writes it there, the first eight bytes last.

/// Kind of a record: its letter in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Op {
    /// An allocation, or a failed one when the pointer is NULL.
    Alloc = b'+',
    /// A free.
    Free = b'-',
    /// realloc: the old block ends.
    ReallocOld = b'<',
    /// realloc: the new block begins.
    ReallocNew = b'>',
    /// A realloc that failed.
    ReallocFailed = b'!',
}

impl Op {
    /// Whether the record has a size.
    #[inline(always)]
    pub const fn has_size(self) -> bool {
        !matches!(self, Op::Free | Op::ReallocOld)
    }
}

/// Bytes of a line that are stored last; until then they are NUL (docs/log-format.md).
pub const PUBLISHED_LAST: usize = 8;

/// Longest text behind WHERE: `+ 0x` and 16 digits, ` 0x` and 16 digits, newline.
pub const MAX_OP_TEXT: usize = 4 + 16 + 3 + 16 + 1;

/// Hex digits of `value`, at least one.
#[inline(always)]
pub const fn hex_digits(value: u64) -> usize {
    (67 - (value | 1).leading_zeros() as usize) / 4
}

/// Writes the hex digits of `value` to the front of `out` and returns their number.
pub fn hex(value: u64, out: &mut [u8]) -> usize {
    let digits = hex_digits(value);
    for (i, place) in out.iter_mut().take(digits).enumerate() {
        let nibble = (value >> ((digits - 1 - i) * 4)) as u8 & 15;
        *place = nibble + if nibble > 9 { b'a' - 10 } else { b'0' };
    }
    digits.min(out.len())
}

/// Writes `value` in decimal to the front of `out` and returns the number of bytes.
pub fn decimal(value: u64, out: &mut [u8]) -> usize {
    let mut digits = [0; 20];
    let (mut rest, mut first) = (value, digits.len());
    loop {
        first -= 1;
        digits[first] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    let len = (digits.len() - first).min(out.len());
    out[..len].copy_from_slice(&digits[first..first + len]);
    len
}

/// The part of a line behind WHERE, in the slow and obvious way. Returns its length.
pub fn op_text(op: Op, ptr: u64, size: u64, out: &mut [u8; MAX_OP_TEXT]) -> usize {
    let mut len = 0;
    let mut put = |bytes: &[u8]| {
        out[len..len + bytes.len()].copy_from_slice(bytes);
        len += bytes.len();
    };
    let mut digits = [0; 16];
    put(&[op as u8, b' ']);
    if ptr == 0 {
        put(b"(nil)");
    } else {
        put(b"0x");
        let n = hex(ptr, &mut digits);
        put(&digits[..n]);
    }
    if op.has_size() && size == 0 {
        put(b" 0");
    } else if op.has_size() {
        put(b" 0x");
        let n = hex(size, &mut digits);
        put(&digits[..n]);
    }
    put(b"\n");
    len
}

/// A record that [`Line::fill`] can write: its pointer is not NULL, its size (if it has one) not 0,
/// and its WHERE text is no shorter than 16 bytes. Everything else takes [`op_text`].
#[derive(Debug, Clone, Copy)]
pub struct Line {
    op: Op,
    ptr: u64,
    size: u64,
    where_len: usize,
    ptr_digits: usize,
    len: usize,
}

impl Line {
    /// `None` when the record is not of the common form.
    #[inline(always)]
    pub fn new(op: Op, ptr: u64, size: u64, where_len: usize) -> Option<Line> {
        let ptr_digits = hex_digits(ptr);
        // `fill` stores 16 digits that end where the pointer's end, and must not reach back into
        // the bytes that are published last.
        if ptr == 0 || where_len < 16 || where_len + ptr_digits < 16 - 4 + PUBLISHED_LAST {
            return None;
        }
        let mut len = where_len + 4 + ptr_digits + 1;
        if op.has_size() {
            if size == 0 {
                return None;
            }
            len += 3 + hex_digits(size);
        }
        Some(Line { op, ptr, size, where_len, ptr_digits, len })
    }

    /// Length in bytes, newline included.
    #[inline(always)]
    #[allow(clippy::len_without_is_empty)] // a line is never empty
    pub fn len(&self) -> usize {
        self.len
    }

    /// Offset of the letter of the record.
    #[inline(always)]
    pub fn op_offset(&self) -> usize {
        self.where_len
    }

    /// Writes the line to `out` but for its first [`PUBLISHED_LAST`] bytes, which are those of the
    /// WHERE text.
    ///
    /// Stores from the back to the front: each store of 16 digits spills over what stands before
    /// them, which is written after it.
    ///
    /// # Safety
    /// - `out` is valid for writes of `self.len()` bytes, and nobody else writes there.
    /// - `where_text` is valid for reads of the length that the line was made with.
    #[inline(always)]
    pub unsafe fn fill(&self, out: *mut u8, where_text: *const u8) {
        // SAFETY: all offsets are below `self.len` because they follow the layout that `new`
        // summed up; the lowest one touched is `PUBLISHED_LAST` by the check in `new`. The reads
        // stay below `where_len`. The caller keeps both areas valid.
        unsafe {
            let mut end = out.add(self.len - 1);
            end.write(b'\n');
            if self.op.has_size() {
                end.sub(16).cast::<[u8; 16]>().write_unaligned(sixteen_digits(self.size));
                end = out.add(self.where_len + 4 + self.ptr_digits);
                end.cast::<[u8; 2]>().write_unaligned(*b" 0");
                end.add(2).write(b'x');
            }
            end.sub(16).cast::<[u8; 16]>().write_unaligned(sixteen_digits(self.ptr));
            let op = out.add(self.where_len);
            op.cast::<[u8; 4]>().write_unaligned([self.op as u8, b' ', b'0', b'x']);
            let mut at = PUBLISHED_LAST;
            while at + 16 <= self.where_len {
                let chunk = where_text.add(at).cast::<[u8; 16]>().read_unaligned();
                out.add(at).cast::<[u8; 16]>().write_unaligned(chunk);
                at += 16;
            }
            if at + 8 <= self.where_len {
                let chunk = where_text.add(at).cast::<[u8; 8]>().read_unaligned();
                out.add(at).cast::<[u8; 8]>().write_unaligned(chunk);
            }
            let last = self.where_len - 8;
            let chunk = where_text.add(last).cast::<[u8; 8]>().read_unaligned();
            out.add(last).cast::<[u8; 8]>().write_unaligned(chunk);
        }
    }
}

/// All 16 hex digits of `value`, leading zeros included.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn sixteen_digits(value: u64) -> [u8; 16] {
    use core::arch::x86_64::*;
    // SAFETY: SSE2 is part of x86_64.
    unsafe {
        let bytes = _mm_cvtsi64_si128(value.swap_bytes() as i64);
        let low_nibbles = _mm_set1_epi8(15);
        let high = _mm_and_si128(_mm_srli_epi16(bytes, 4), low_nibbles);
        let low = _mm_and_si128(bytes, low_nibbles);
        let nibbles = _mm_unpacklo_epi8(high, low);
        let letters = _mm_cmpgt_epi8(nibbles, _mm_set1_epi8(9));
        let digits = _mm_add_epi8(nibbles, _mm_set1_epi8(b'0' as i8));
        let text = _mm_add_epi8(digits, _mm_and_si128(letters, _mm_set1_epi8(39)));
        core::mem::transmute::<__m128i, [u8; 16]>(text)
    }
}

/// All 16 hex digits of `value`, leading zeros included.
#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn sixteen_digits(value: u64) -> [u8; 16] {
    let mut out = [b'0'; 16];
    let first = 16 - hex_digits(value);
    hex(value, &mut out[first..]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::{format, string::String, vec, vec::Vec};

    /// What the log should say, in the words of `format!`.
    fn oracle(op: Op, ptr: u64, size: u64) -> String {
        let ptr = if ptr == 0 { "(nil)".into() } else { format!("{ptr:#x}") };
        let size = match size {
            _ if !op.has_size() => String::new(),
            0 => " 0".into(),
            _ => format!(" {size:#x}"),
        };
        format!("{} {ptr}{size}\n", op as u8 as char)
    }

    fn any_op() -> impl Strategy<Value = Op> {
        prop::sample::select(vec![
            Op::Alloc,
            Op::Free,
            Op::ReallocOld,
            Op::ReallocNew,
            Op::ReallocFailed,
        ])
    }

    /// Values of every length, small ones as often as large ones.
    fn any_length() -> impl Strategy<Value = u64> {
        (any::<u64>(), 0..64u32).prop_map(|(value, shift)| value >> shift)
    }

    proptest! {
        #[test]
        fn op_text_is_what_printf_writes(op in any_op(), ptr in any_length(), size in any_length()) {
            let mut out = [0; MAX_OP_TEXT];
            let len = op_text(op, ptr, size, &mut out);
            let expected = oracle(op, ptr, size);
            prop_assert_eq!(&out[..len], expected.as_bytes());
        }

        #[test]
        fn a_filled_line_is_where_and_op_text(
            op in any_op(),
            ptr in any_length(),
            size in any_length(),
            where_text in prop::collection::vec(33u8.., 0..100),
        ) {
            let Some(line) = Line::new(op, ptr, size, where_text.len()) else { return Ok(()) };
            let guard = [0xee; 32];
            let mut out = [&guard[..], &vec![0; line.len()], &guard].concat();
            // SAFETY: both vectors are as long as the contract asks.
            unsafe { line.fill(out[32..].as_mut_ptr(), where_text.as_ptr()) };
            prop_assert_eq!(&out[32..32 + PUBLISHED_LAST], [0; PUBLISHED_LAST]);
            out[32..32 + PUBLISHED_LAST].copy_from_slice(&where_text[..PUBLISHED_LAST]);
            let text = [&where_text[..], oracle(op, ptr, size).as_bytes()].concat();
            prop_assert_eq!(out, [&guard[..], &text, &guard].concat());
        }

        #[test]
        fn decimal_is_what_printf_writes(value in any_length()) {
            let mut out = [0; 20];
            let len = decimal(value, &mut out);
            let expected = format!("{value}");
            prop_assert_eq!(&out[..len], expected.as_bytes());
        }
    }

    #[test]
    fn records_of_a_usual_program_have_the_common_form() {
        assert!(Line::new(Op::Alloc, 0x5555_5555_92a0, 100, 22).is_some());
        assert!(Line::new(Op::Free, 0x4052a0, 0, 17).is_some());
        let short: Vec<_> =
            (0..20).filter(|n| Line::new(Op::Free, 0x4052a0, 0, *n).is_some()).collect();
        assert_eq!(short, [16, 17, 18, 19]);
    }
}
