//! Numbers as perl's `hex` reads them and its `printf` writes them.

use std::io::{self, Write};

/// What `hex` returned, as far as `%x` can show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Number {
    /// Clamped to 64 bits, as `%x` clamps it.
    pub(super) value: u64,
    /// More than 1,024 bits: a perl number overflows to `Inf`, and `%x` writes that word.
    pub(super) infinite: bool,
}

/// perl's `hex`: a prefix `x` or `0x` in either case, single underscores before digits, and an end
/// at the first byte that is no digit. Nothing is an error; nothing readable is 0.
pub(super) fn hex(text: &[u8]) -> Number {
    let digits = match text {
        [b'x' | b'X', rest @ ..] | [b'0', b'x' | b'X', rest @ ..] => rest,
        _ => text,
    };
    let mut value = 0u64;
    // perl goes on in floating point where 64 bits end. Only the step to infinity shows.
    let mut wide = None;
    for (i, &byte) in digits.iter().enumerate() {
        let Some(digit) = digit(byte) else {
            if byte == b'_' && digits.get(i + 1).is_some_and(|&next| digit(next).is_some()) {
                continue;
            }
            break;
        };
        match &mut wide {
            None if value >> 60 == 0 => value = value << 4 | u64::from(digit),
            None => wide = Some(value as f64 * 16.0 + f64::from(digit)),
            Some(wide) => *wide = *wide * 16.0 + f64::from(digit),
        }
    }
    match wide {
        None => Number { value, infinite: false },
        Some(wide) => Number { value: u64::MAX, infinite: wide.is_infinite() },
    }
}

/// Value of every byte as a digit. A table, because a branch on digit or letter is mispredicted at
/// every other digit of an address.
static DIGITS: [u8; 256] = {
    let mut table = [NO_DIGIT; 256];
    let mut value = 0;
    while value < 16 {
        table[b"0123456789abcdef"[value as usize] as usize] = value;
        table[b"0123456789ABCDEF"[value as usize] as usize] = value;
        value += 1;
    }
    table
};

const NO_DIGIT: u8 = 0xff;

fn digit(byte: u8) -> Option<u8> {
    Some(DIGITS[usize::from(byte)]).filter(|&value| value != NO_DIGIT)
}

/// The number whose text, as `%p` writes it, is this: `0x` and one to sixteen lower-case digits
/// without a zero in front.
pub(super) fn pointer(text: &[u8]) -> Option<u64> {
    let digits = text.strip_prefix(b"0x")?;
    if digits.is_empty() || digits.len() > 16 || (digits[0] == b'0' && digits.len() > 1) {
        return None;
    }
    let (mut value, mut seen) = (0, 0);
    for &byte in digits {
        let digit = DIGITS[usize::from(byte)];
        // 0x20 tells letters of the two cases apart, and digits have it as well.
        seen |= digit | (!byte & 0x20);
        value = value << 4 | u64::from(digit & 15);
    }
    (seen < 16).then_some(value)
}

/// `%#0WIDTHx`: padded with zeros behind the `0x`, which perl does not write before a zero.
pub(super) fn write_zero_padded(
    out: &mut dyn Write,
    number: Number,
    width: usize,
) -> io::Result<()> {
    write_number(out, number, width, b'0')
}

/// `%#WIDTHx`: padded with blanks in front.
pub(super) fn write_blank_padded(
    out: &mut dyn Write,
    number: Number,
    width: usize,
) -> io::Result<()> {
    write_number(out, number, width, b' ')
}

/// Written by hand because a report may have a million rows, and `write!` costs more than all the
/// rest of a row.
fn write_number(out: &mut dyn Write, number: Number, width: usize, pad: u8) -> io::Result<()> {
    const LONGEST: usize = 2 + 16;
    debug_assert!(width <= LONGEST);
    let mut text = [pad; LONGEST];
    let mut start = LONGEST;
    let mut push = |byte| {
        start -= 1;
        text[start] = byte;
    };
    let (mut value, prefix): (u64, &[u8]) = match number {
        Number { infinite: true, .. } => (0, b"Inf"),
        Number { value: 0, .. } => (0, b"0"),
        Number { value, .. } => (value, b"0x"),
    };
    let mut digits = 0;
    while value != 0 {
        push(b"0123456789abcdef"[(value & 15) as usize]);
        value >>= 4;
        digits += 1;
    }
    if pad == b'0' && prefix == b"0x" {
        for _ in digits + prefix.len()..width {
            push(b'0');
        }
    }
    prefix.iter().rev().for_each(|&byte| push(byte));
    out.write_all(&text[start.min(LONGEST - width)..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> u64 {
        hex(text.as_bytes()).value
    }

    #[test]
    fn only_what_percent_p_writes_is_a_pointer() {
        for (text, expected) in [
            ("0x0", Some(0)),
            ("0x10a0", Some(0x10a0)),
            ("0xffffffffffffffff", Some(u64::MAX)),
            ("0x", None),
            ("0x010", None),
            ("0X10", None),
            ("0xA", None),
            ("0xfF0", None),
            ("0x1g", None),
            ("0x1_0", None),
            ("10", None),
            ("(nil)", None),
            ("0x1ffffffffffffffff", None),
        ] {
            assert_eq!(pointer(text.as_bytes()), expected, "{text}");
        }
    }

    /// Every pair was printed by perl 5.36.
    #[test]
    fn hex_reads_what_perl_reads() {
        for (text, expected) in [
            ("", 0),
            ("zz", 0),
            ("0x", 0),
            ("x", 0),
            ("X10", 0x10),
            ("0Xff", 0xff),
            ("_10", 0x10),
            ("0x_10", 0x10),
            ("1__0", 1),
            ("1_", 1),
            ("1_0", 0x10),
            ("0x0x10", 0),
            ("xx1", 0),
            ("-1", 0),
            ("1.5", 1),
            ("0x10a0)", 0x10a0),
            ("FFFFFFFFFFFFFFFF", u64::MAX),
            ("0x00000000000000000000001", 1),
            ("0x1ffffffffffffffffg", u64::MAX),
            ("10000000000000000", u64::MAX),
        ] {
            assert_eq!(value(text), expected, "{text}");
        }
        assert!(!hex(&[b'f'; 255]).infinite);
        assert!(hex(&[b'f'; 256]).infinite);
    }

    #[test]
    fn numbers_are_padded_as_perl_pads_them() {
        let print = |number: Number| {
            let mut out = Vec::new();
            for width in [18, 10] {
                write_zero_padded(&mut out, number, width).expect("memory");
                out.push(b'|');
            }
            write_blank_padded(&mut out, number, 8).expect("memory");
            String::from_utf8(out).expect("ASCII")
        };
        for (text, expected) in [
            ("0", "000000000000000000|0000000000|       0"),
            ("0x10", "0x0000000000000010|0x00000010|    0x10"),
            ("0x123456", "0x0000000000123456|0x00123456|0x123456"),
            ("0x1234567", "0x0000000001234567|0x01234567|0x1234567"),
            ("0x123456789", "0x0000000123456789|0x123456789|0x123456789"),
            ("ffffffffffffffffff", "0xffffffffffffffff|0xffffffffffffffff|0xffffffffffffffff"),
            (&"f".repeat(300), "000000000000000Inf|0000000Inf|     Inf"),
        ] {
            assert_eq!(print(hex(text.as_bytes())), expected, "{text}");
        }
    }
}
