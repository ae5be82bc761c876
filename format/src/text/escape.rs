//! `\ooo` escapes of names: blanks, control bytes and the backslash would break a line apart.

/// Longest form of one byte.
pub const MAX_ESCAPED: usize = 4;

/// Whether `byte` has to be written as `\ooo`.
#[inline]
pub const fn needs_escape(byte: u8) -> bool {
    byte <= b' ' || byte == 0x7f || byte == b'\\'
}

/// Escapes `name` into `out` and returns the number of bytes written. Stops before the first byte
/// whose form does not fit, so that no escape is cut.
pub fn escape(name: &[u8], out: &mut [u8]) -> usize {
    let mut written = 0;
    for &byte in name {
        let digits = [b'\\', b'0' + (byte >> 6), b'0' + (byte >> 3 & 7), b'0' + (byte & 7)];
        let form = if needs_escape(byte) { &digits[..] } else { &digits[..1] };
        let Some(place) = out.get_mut(written..written + form.len()) else { break };
        place.copy_from_slice(form);
        if form.len() == 1 {
            place[0] = byte;
        }
        written += form.len();
    }
    written
}

/// The bytes that an escaped name stands for. A backslash that begins no escape stands for itself
/// (glibc's logs escape nothing).
pub fn unescape(text: &[u8]) -> impl Iterator<Item = u8> {
    let mut rest = text;
    core::iter::from_fn(move || match *rest {
        [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ref tail @ ..] => {
            rest = tail;
            Some((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'))
        }
        [byte, ref tail @ ..] => {
            rest = tail;
            Some(byte)
        }
        [] => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    proptest! {
        #[test]
        fn unescape_undoes_escape(name: Vec<u8>) {
            let mut out = std::vec![0; name.len() * MAX_ESCAPED];
            let written = escape(&name, &mut out);
            prop_assert!(out[..written].iter().all(|b| *b == b'\\' || !needs_escape(*b)));
            prop_assert_eq!(unescape(&out[..written]).collect::<Vec<_>>(), name);
        }
    }

    #[test]
    fn an_escape_that_does_not_fit_is_left_out_whole() {
        let mut out = [0; 6];
        assert_eq!(escape(b"a b c", &mut out), 6);
        assert_eq!(&out, b"a\\040b");
    }
}
