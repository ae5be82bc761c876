//! A line of the log -> the columns that the script takes from it.
//!
//! The script splits a line at its blanks. If the first column is `@`, the second is WHERE, and the
//! operation, the address and the size are the third to fifth; otherwise they are the first to
//! third. Further columns are ignored, missing ones are empty.
//!
//! One thing is read otherwise: a WHERE with blanks in it, of which the script makes several
//! columns. The rule, in this order:
//!
//! 1. Where the second column is a place with an address in brackets and the third an operation,
//!    the script reads the line well and its reading stands.
//! 2. Otherwise, where one blank follows the `@`, then `FILE:[0xHEX]` or `FILE:(SYMBOL)[0xHEX]`,
//!    then a blank and an operation, all up to the last such `]` is WHERE, and the columns behind
//!    it count as they would in a line without blanks in WHERE.
//! 3. Otherwise the script's reading stands, whatever it is.
//!
//! A log of glibc that two processes wrote after a fork has lines that are torn in the middle, with
//! the beginning of a record in them: `@ ./t:[0x11@ ./t:[0x1190] - 0x10a0`. The script drops
//! those, and so does rule 2: it takes no FILE that holds `[0x`, or `@ ` and then what looks like
//! the beginning of a path, or `@ ` and then the same name again; and where the third column is an
//! operation, so that the script does not drop the line, none that holds `@ ` at all.

use super::location::has_address;

/// The columns of a line that has an operation. Empty where the line lacks them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record<'a> {
    pub(super) where_: &'a [u8],
    pub(super) operation: u8,
    pub(super) address: &'a [u8],
    pub(super) size: &'a [u8],
}

/// The columns of a line, `None` where the script does nothing with it (but count it).
pub(super) fn parse(line: &[u8]) -> Option<Record<'_>> {
    if let Some(record) = usual(line) {
        return Some(record);
    }
    let mut columns = Columns { rest: line };
    let first = columns.next();
    if first != b"@" {
        return record(b"", first, columns);
    }
    let behind_at = columns.rest;
    let where_ = columns.next();
    let operation = columns.next();
    let read = record(where_, operation, columns);
    if read.is_some() && has_address(where_) {
        return read;
    }
    with_blanks(behind_at.get(1..).unwrap_or_default())
        .filter(|whole| read.is_none() || ats(whole.where_).next().is_none())
        .or(read)
}

/// A line as tracers write it: one blank between columns, and an address in brackets. The rest of
/// this file reads such a line the same way, in twice the time.
fn usual(line: &[u8]) -> Option<Record<'_>> {
    let line = line.strip_prefix(b"@ ")?;
    let (where_, line) = line.split_at(next_blank(line));
    let &[b' ', operation @ (b'+' | b'-' | b'<' | b'>' | b'!'), b' ', ref line @ ..] = line else {
        return None;
    };
    let (address, line) = line.split_at(next_blank(line));
    let size = match line {
        [] => line,
        [b' ', size @ ..] => &size[..next_blank(size)],
        _ => return None,
    };
    let one_blank_each = !address.is_empty() && (line.is_empty() || !size.is_empty());
    (one_blank_each && has_address(where_)).then_some(Record { where_, operation, address, size })
}

fn record<'a>(where_: &'a [u8], operation: &[u8], mut columns: Columns<'a>) -> Option<Record<'a>> {
    let &[operation @ (b'+' | b'-' | b'<' | b'>' | b'!')] = operation else { return None };
    Some(Record { where_, operation, address: columns.next(), size: columns.next() })
}

/// Rule 2. `text` begins behind the blank that follows the `@`.
fn with_blanks(text: &[u8]) -> Option<Record<'_>> {
    let (end, mut columns) = text.iter().enumerate().rev().find_map(|(i, &byte)| {
        let behind = &text[i + 1..];
        if byte != b']' || !behind.first().is_some_and(is_blank) {
            return None;
        }
        let columns = Columns { rest: behind };
        record(b"", columns.clone().next(), columns.clone()).map(|_| (i, columns))
    })?;
    let where_ = &text[..=end];
    let operation = columns.next();
    is_place(where_).then(|| record(where_, operation, columns)).flatten()
}

/// Whether this is `FILE:[0xHEX]` or `FILE:(SYMBOL)[0xHEX]` as one process wrote it.
fn is_place(where_: &[u8]) -> bool {
    let Some(open) = where_.iter().rposition(|&byte| byte == b'[') else { return false };
    let name = &where_[..open];
    let Some(digits) = where_[open..].strip_prefix(b"[0x").and_then(|d| d.strip_suffix(b"]"))
    else {
        return false;
    };
    let file = match name {
        [file @ .., b':'] => file,
        [symbol @ .., b')'] => match symbol.windows(2).rposition(|pair| pair == b":(") {
            Some(colon) => &symbol[..colon],
            None => return false,
        },
        _ => return false,
    };
    !file.is_empty()
        && !digits.is_empty()
        && digits.iter().all(u8::is_ascii_hexdigit)
        && !is_torn(name)
}

fn is_torn(name: &[u8]) -> bool {
    if name.windows(3).any(|bytes| bytes == b"[0x") {
        return true;
    }
    ats(name).any(|at| {
        let (before, behind) = (&name[..at], name[at + 1..].trim_ascii_start());
        matches!(behind.first(), Some(b'/' | b'.')) || behind.starts_with(before)
    })
}

/// Where a `@` with a blank behind it stands, as at the beginning of a record.
fn ats(text: &[u8]) -> impl Iterator<Item = usize> {
    let pairs = text.windows(2).enumerate();
    pairs.filter(|(_, pair)| pair[0] == b'@' && is_blank(&pair[1])).map(|(at, _)| at)
}

/// perl's `split ' '`.
#[derive(Debug, Clone)]
struct Columns<'a> {
    rest: &'a [u8],
}

impl<'a> Columns<'a> {
    /// The next column, empty when there is none.
    fn next(&mut self) -> &'a [u8] {
        let start = self.rest.iter().position(|byte| !is_blank(byte)).unwrap_or(self.rest.len());
        let text = &self.rest[start..];
        let (column, rest) = text.split_at(next_blank(text));
        self.rest = rest;
        column
    }
}

/// Position of the first blank, or the length. Most of the work on a line is done here, so it goes
/// eight bytes at a time.
fn next_blank(text: &[u8]) -> usize {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    let mut at = 0;
    while let Some(&bytes) = text[at..].first_chunk::<8>() {
        let word = u64::from_le_bytes(bytes);
        // The high bit of every byte below 0x21. A borrow can set it in bytes above such a one as
        // well, so only the lowest is sure.
        let low = word.wrapping_sub(ONES * 0x21) & !word & (ONES * 0x80);
        if low == 0 {
            at += 8;
            continue;
        }
        at += low.trailing_zeros() as usize / 8;
        if is_blank(&text[at]) {
            return at;
        }
        at += 1;
    }
    text[at..].iter().position(is_blank).map_or(text.len(), |behind| at + behind)
}

/// Blanks in a byte string without a locale: those of C's `isspace`, the vertical tab included.
fn is_blank(byte: &u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn next_blank_finds_the_first(text in prop::collection::vec(0..=0x7f_u8, 0..40)) {
            let expected = text.iter().position(is_blank).unwrap_or(text.len());
            prop_assert_eq!(next_blank(&text), expected);
        }

        #[test]
        fn next_blank_passes_control_bytes(
            text in prop::collection::vec(prop::sample::select(b"\0\x01\x08\x0e\x1f!\x80\xff ".to_vec()), 0..40)
        ) {
            let expected = text.iter().position(is_blank).unwrap_or(text.len());
            prop_assert_eq!(next_blank(&text), expected);
        }
    }

    fn where_of(line: &str) -> Option<String> {
        parse(line.as_bytes()).map(|record| String::from_utf8_lossy(record.where_).into_owned())
    }

    fn check(cases: &[(&str, Option<&str>)]) {
        for &(line, expected) in cases {
            assert_eq!(where_of(line).as_deref(), expected, "{line}");
        }
    }

    #[test]
    fn a_place_with_blanks_is_read_whole() {
        check(&[
            ("@ ./my prog:[0x1190] + 0x10a0 0x64", Some("./my prog:[0x1190]")),
            ("@ ./my prog:(main+0x1d)[0x1190] - 0x10a0", Some("./my prog:(main+0x1d)[0x1190]")),
            ("@ /a  b/c\td:[0x1]\t<  0x10a0", Some("/a  b/c\td:[0x1]")),
            ("@ /tmp/evil + 0x1 0x2:[0x1190] + 0x10a0 0x64", Some("/tmp/evil + 0x1 0x2:[0x1190]")),
            ("@ /tmp/a ] - b:[0x1190] + 0x10a0 0x64", Some("/tmp/a ] - b:[0x1190]")),
            ("@ /home/me@ work/t:[0x1] ! 0x10 0x20", Some("/home/me@ work/t:[0x1]")),
            ("@ ./my prog:[0x1190] >", Some("./my prog:[0x1190]")),
        ]);
    }

    #[test]
    fn the_columns_behind_a_place_with_blanks_are_those_of_any_line() {
        let record = parse(b"@ my prog:[0x1] + 0x10a0  0x64\r extra").expect("a record");
        assert_eq!(
            (record.operation, record.address, record.size),
            (b'+', &b"0x10a0"[..], &b"0x64"[..])
        );
    }

    #[test]
    fn the_script_s_reading_stands_where_it_is_one() {
        check(&[
            ("@ ./t:[0x1] + 0x10 0x20 extra:[0x2] - 0x30", Some("./t:[0x1]")),
            ("@ ./t[0x1]:main - 0x10 x:[0x2] + 0x30", Some("./t[0x1]:main")),
            ("@ file.c:12 + 0x10 0x20", Some("file.c:12")),
            ("@  lead:[0x1] + 0x10 0x20", Some("lead:[0x1]")),
            ("@ t:[3] > 0x5@ x:[0x2] + 0x10 0x20", Some("t:[3]")),
            ("+ 0x10 0x20", Some("")),
        ]);
    }

    #[test]
    fn what_the_script_drops_stays_dropped_without_a_whole_place() {
        check(&[
            ("", None),
            ("@", None),
            ("@ ", None),
            ("@ my prog + 0x10", None),
            ("@ my prog:[0x] + 0x10", None),
            ("@ my prog:[0xg] + 0x10", None),
            ("@ my prog:[1] + 0x10", None),
            ("@ my prog[0x1] + 0x10", None),
            ("@ my prog)[0x1] + 0x10", None),
            ("@ my prog:[0x1]+ 0x10", None),
            ("@ my prog:[0x1] += 0x10", None),
            ("@ my prog:[0x1", None),
        ]);
    }

    #[test]
    fn torn_lines_stay_dropped() {
        check(&[
            ("@ ./t:[0x11@ ./t:[0x1190] - 0x10a0", None),
            ("@ ./t:[0x1190] +@ ./t:[0x1190] - 0x10a0", None),
            ("@ ./t@ ./t:[0x1190] - 0x10a0", None),
            ("@ li@ /lib/libc.so.6:[0x1190] - 0x10a0", None),
            ("@ pro@ prog:[0x1190] - 0x10a0", None),
            ("@ my prog:[0x1] + 0x10@ my prog:[0x2] - 0x10", None),
        ]);
    }
}
