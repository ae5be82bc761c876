//! Bytes -> lines, with the rules for NUL bytes of docs/log-format.md.

use std::io::{self, Read, Take};
use std::mem;

/// Bytes asked for at once: large enough to make system calls cheap, small enough to stay in cache.
pub const CHUNK: usize = 256 << 10;

/// A longer line is no line of a log; it is given up so that memory stays bounded.
const LONGEST: usize = 1 << 20;

/// Input in which one NUL may stand for many, so that a hole of any size is passed over at once.
pub trait Holed: Read {
    /// Bytes that the NULs handed out so far stood for, apart from themselves. What a read adds belongs
    /// to the first NUL that it handed out.
    fn left_out(&self) -> u64;
}

impl Holed for &[u8] {
    fn left_out(&self) -> u64 {
        0
    }
}

impl<R: Holed> Holed for Take<R> {
    fn left_out(&self) -> u64 {
        self.get_ref().left_out()
    }
}

/// One line, without its newline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawLine<'a> {
    /// What follows its last NUL; all of it when it holds none.
    pub bytes: &'a [u8],
    /// Counted from 1.
    pub number: u64,
    /// Position of its beginning, if nothing is missing of it.
    pub at: u64,
    /// What is missing of it.
    pub gap: Gap,
    /// A newline ended it; only the last line may lack one.
    pub complete: bool,
}

/// What precedes the last NUL of a line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Gap {
    /// There was a NUL.
    pub seen: bool,
    /// Position of the first one.
    pub at: u64,
    /// Number of NULs.
    pub bytes: u64,
    /// Something other than NULs stood before the last one and is lost.
    pub torn: bool,
}

/// Splits all of `input` and calls `each` for every line; returns the number of lines. Stops early
/// when `each` returns an error.
///
/// NULs at the very end (with nothing behind them) are no line.
pub fn split<E: From<io::Error>>(
    mut input: impl Holed,
    chunk: usize,
    mut each: impl FnMut(RawLine<'_>) -> Result<(), E>,
) -> Result<u64, E> {
    let mut buffer = vec![0; chunk.max(1)];
    let mut pending = 0; // bytes of an unfinished line at the front of the buffer
    let mut gap = Gap::default(); // of that line
    let mut number = 0;
    let mut position = 0; // of what is read next
    loop {
        if pending == buffer.len() {
            buffer.resize(buffer.len() * 2, 0);
        }
        let left_out = input.left_out();
        let read = match input.read(&mut buffer[pending..]) {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error.into()),
        };
        if read == 0 {
            break;
        }
        let filled = pending + read;
        let mut left_out = input.left_out() - left_out;
        gap.bytes += left_out;
        let mut front = position - pending as u64; // position of the front of the buffer
        position += read as u64 + left_out;
        let fresh = &buffer[pending..filled];
        let mut begin = 0;
        let holed = gap.seen || memchr::memchr(0, fresh).is_some();
        for newline in memchr::memchr_iter(b'\n', fresh) {
            let (at, line) = (front + begin as u64, &buffer[begin..pending + newline]);
            begin = pending + newline + 1;
            number += 1;
            let mut raw = RawLine { bytes: line, number, at, gap: Gap::default(), complete: true };
            if holed {
                raw.bytes = gap.strip(line, at);
                raw.gap = mem::take(&mut gap);
                front += mem::take(&mut left_out);
            }
            each(raw)?;
        }
        // The rest of a line that is not read yet. What precedes a NUL of it can go at once, so a
        // hole of any size costs no memory.
        let rest = gap.strip(&buffer[begin..filled], front + begin as u64);
        let (mut keep, mut from) = (rest.len(), filled - rest.len());
        if keep > LONGEST {
            gap = Gap { seen: true, torn: true, ..gap };
            (keep, from) = (0, filled);
        }
        buffer.copy_within(from..filled, 0);
        pending = keep;
    }
    if pending > 0 || gap.torn {
        number += 1;
        let at = position - pending as u64;
        each(RawLine { bytes: &buffer[..pending], number, at, gap, complete: false })?;
    }
    Ok(number)
}

impl Gap {
    /// What follows the last NUL of `line`, which is at this position; adds what precedes it.
    fn strip<'a>(&mut self, line: &'a [u8], at: u64) -> &'a [u8] {
        let Some(last) = memchr::memrchr(0, line) else { return line };
        if !self.seen {
            self.at = at + memchr::memchr(0, line).unwrap_or(last) as u64;
        }
        let nuls = line[..=last].iter().filter(|byte| **byte == 0).count();
        self.seen = true;
        self.bytes += nuls as u64;
        self.torn |= nuls <= last;
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

    impl Holed for Pieces<'_> {
        fn left_out(&self) -> u64 {
            0
        }
    }

    type Owned = (Vec<u8>, u64, Gap, bool);

    fn lines_of(input: impl Holed, chunk: usize) -> Vec<Owned> {
        let mut lines = Vec::new();
        split(input, chunk, |l| {
            lines.push((l.bytes.to_vec(), l.number, l.gap, l.complete));
            Ok::<(), io::Error>(())
        })
        .unwrap();
        lines
    }

    fn line(bytes: &[u8], number: u64) -> Owned {
        (bytes.to_vec(), number, Gap::default(), true)
    }

    fn gap(at: u64, bytes: u64, torn: bool) -> Gap {
        Gap { seen: true, at, bytes, torn }
    }

    #[test]
    fn lines_end_at_newlines_and_blank_ones_count() {
        assert_eq!(lines_of(&b"a\n\nb\n"[..], 8), [line(b"a", 1), line(b"", 2), line(b"b", 3)]);
    }

    #[test]
    fn a_last_line_without_a_newline_is_incomplete() {
        assert_eq!(lines_of(&b"a\nb"[..], 8)[1], (b"b".to_vec(), 2, Gap::default(), false));
    }

    #[test]
    fn what_precedes_the_last_nul_of_a_line_is_dropped() {
        let lines = lines_of(&b"\0\0a\nb\0c\nd\n"[..], 64);
        assert_eq!(lines[0], (b"a".to_vec(), 1, gap(0, 2, false), true));
        assert_eq!(lines[1], (b"c".to_vec(), 2, gap(5, 1, true), true));
        assert_eq!(lines[2], line(b"d", 3));
    }

    #[test]
    fn nuls_at_the_end_are_no_line() {
        assert_eq!(lines_of(&b"a\n\0\0\0"[..], 2), [line(b"a", 1)]);
    }

    #[test]
    fn a_hole_of_any_size_costs_no_memory() {
        struct Hole<R>(R);
        impl<R: Read> Read for Hole<R> {
            fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
                self.0.read(out)
            }
        }
        impl<R: Read> Holed for Hole<R> {
            fn left_out(&self) -> u64 {
                0
            }
        }
        let hole = io::repeat(0).take(64 << 20);
        let lines = lines_of(Hole((&b"a"[..]).chain(hole).chain(&b"b\n"[..])), 4096);
        assert_eq!(lines, [(b"b".to_vec(), 1, gap(1, 64 << 20, true), true)]);
    }

    #[test]
    fn one_nul_may_stand_for_many() {
        /// Each piece, and how many bytes its first NUL stands for besides itself.
        struct Left<'a>(&'a [(&'a [u8], u64)], u64);
        impl Read for Left<'_> {
            fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
                let Some(((piece, left), rest)) = self.0.split_first() else { return Ok(0) };
                self.0 = rest;
                self.1 += left;
                (&mut &piece[..]).read(out)
            }
        }
        impl Holed for Left<'_> {
            fn left_out(&self) -> u64 {
                self.1
            }
        }
        let pieces: [(&[u8], u64); 5] =
            [(b"\0a\n\0b\n", 100), (b"c", 0), (b"\0", 1000), (b"\0", 50), (b"d\n\0e\n", 0)];
        let lines = lines_of(Left(&pieces, 0), 64);
        assert_eq!(lines[0], (b"a".to_vec(), 1, gap(0, 101, false), true));
        assert_eq!(lines[1], (b"b".to_vec(), 2, gap(103, 1, false), true));
        assert_eq!(lines[2], (b"d".to_vec(), 3, gap(107, 1052, true), true));
        assert_eq!(lines[3], (b"e".to_vec(), 4, gap(1161, 1, false), true));
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
