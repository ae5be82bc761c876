//! Bytes -> lines, with the rules for NUL bytes of docs/log-format.md.

use std::io::{self, Read};

/// Bytes asked for at once: large enough to make system calls cheap, small enough to stay in cache.
pub const CHUNK: usize = 256 << 10;

/// A longer line is no line of a log; it is given up so that memory stays bounded.
const LONGEST: usize = 1 << 20;

/// One line, without its newline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawLine<'a> {
    /// What follows its last NUL; all of it when it holds none.
    pub bytes: &'a [u8],
    /// Counted from 1.
    pub number: u64,
    /// There was a NUL.
    pub after_gap: bool,
    /// Something other than NULs stood before the last NUL and is lost.
    pub torn: bool,
    /// A newline ended it; only the last line may lack one.
    pub complete: bool,
}

/// Splits all of `input` and calls `each` for every line; returns the number of lines. Stops early
/// when `each` returns an error.
///
/// NULs at the very end (with nothing behind them) are no line.
pub fn split<E: From<io::Error>>(
    mut input: impl Read,
    chunk: usize,
    mut each: impl FnMut(RawLine<'_>) -> Result<(), E>,
) -> Result<u64, E> {
    let mut buffer = vec![0; chunk.max(1)];
    let mut pending = 0; // bytes of an unfinished line at the front of the buffer
    let mut gap = Gap::default(); // of that line
    let mut number = 0;
    loop {
        if pending == buffer.len() {
            buffer.resize(buffer.len() * 2, 0);
        }
        let read = match input.read(&mut buffer[pending..]) {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error.into()),
        };
        if read == 0 {
            break;
        }
        let filled = pending + read;
        let fresh = &buffer[pending..filled];
        let mut begin = 0;
        let holed = gap.seen || memchr::memchr(0, fresh).is_some();
        for newline in memchr::memchr_iter(b'\n', fresh) {
            let line = &buffer[begin..pending + newline];
            begin = pending + newline + 1;
            number += 1;
            let mut raw =
                RawLine { bytes: line, number, after_gap: false, torn: false, complete: true };
            if holed {
                raw.bytes = gap.strip(line);
                raw.after_gap = gap.seen;
                raw.torn = gap.torn;
                gap = Gap::default();
            }
            each(raw)?;
        }
        // The rest of a line that is not read yet. What precedes a NUL of it can go at once, so a
        // hole of any size costs no memory.
        let rest = gap.strip(&buffer[begin..filled]);
        let (mut keep, mut from) = (rest.len(), filled - rest.len());
        if keep > LONGEST {
            gap = Gap { seen: true, torn: true };
            (keep, from) = (0, filled);
        }
        buffer.copy_within(from..filled, 0);
        pending = keep;
    }
    if pending > 0 || gap.torn {
        number += 1;
        each(RawLine {
            bytes: &buffer[..pending],
            number,
            after_gap: gap.seen,
            torn: gap.torn,
            complete: false,
        })?;
    }
    Ok(number)
}

/// What was dropped of a line so far.
#[derive(Default)]
struct Gap {
    seen: bool,
    torn: bool,
}

impl Gap {
    fn strip<'a>(&mut self, line: &'a [u8]) -> &'a [u8] {
        let Some(last) = memchr::memrchr(0, line) else { return line };
        self.seen = true;
        self.torn |= line[..last].iter().any(|b| *b != 0);
        &line[last + 1..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A reader that hands out its bytes in pieces of the given sizes, over and over.
    struct Pieces<'a> {
        bytes: &'a [u8],
        sizes: std::iter::Cycle<std::vec::IntoIter<usize>>,
    }

    impl Read for Pieces<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            let size = self.sizes.next().unwrap().min(out.len()).min(self.bytes.len());
            out[..size].copy_from_slice(&self.bytes[..size]);
            self.bytes = &self.bytes[size..];
            Ok(size)
        }
    }

    type Owned = (Vec<u8>, u64, bool, bool, bool);

    fn lines_of(input: impl Read, chunk: usize) -> Vec<Owned> {
        let mut lines = Vec::new();
        split(input, chunk, |l| {
            lines.push((l.bytes.to_vec(), l.number, l.after_gap, l.torn, l.complete));
            Ok::<(), io::Error>(())
        })
        .unwrap();
        lines
    }

    fn line(bytes: &[u8], number: u64) -> Owned {
        (bytes.to_vec(), number, false, false, true)
    }

    #[test]
    fn lines_end_at_newlines_and_blank_ones_count() {
        assert_eq!(lines_of(&b"a\n\nb\n"[..], 8), [line(b"a", 1), line(b"", 2), line(b"b", 3)]);
    }

    #[test]
    fn a_last_line_without_a_newline_is_incomplete() {
        assert_eq!(lines_of(&b"a\nb"[..], 8)[1], (b"b".to_vec(), 2, false, false, false));
    }

    #[test]
    fn what_precedes_the_last_nul_of_a_line_is_dropped() {
        let lines = lines_of(&b"\0\0a\nb\0c\nd\n"[..], 64);
        assert_eq!(lines[0], (b"a".to_vec(), 1, true, false, true));
        assert_eq!(lines[1], (b"c".to_vec(), 2, true, true, true));
        assert_eq!(lines[2], line(b"d", 3));
    }

    #[test]
    fn nuls_at_the_end_are_no_line() {
        assert_eq!(lines_of(&b"a\n\0\0\0"[..], 2), [line(b"a", 1)]);
    }

    #[test]
    fn a_hole_of_any_size_costs_no_memory() {
        let hole = io::repeat(0).take(64 << 20);
        let lines = lines_of((&b"a"[..]).chain(hole).chain(&b"b\n"[..]), 4096);
        assert_eq!(lines, [(b"b".to_vec(), 1, true, true, true)]);
    }

    proptest! {
        #[test]
        fn any_chunks_give_the_same_lines(
            bytes in proptest::collection::vec(
                prop_oneof![Just(0u8), Just(b'\n'), Just(b'a'), Just(b'b')], 0..80),
            sizes in proptest::collection::vec(1usize..9, 1..6),
            chunk in 1usize..20,
        ) {
            let pieces = Pieces { bytes: &bytes, sizes: sizes.into_iter().cycle() };
            prop_assert_eq!(lines_of(pieces, chunk), lines_of(&bytes[..], 4096));
        }
    }
}
