//! One line of a log, read: every dialect of glibc's mtrace since 1998 and the `#` lines of ours.
//!
//! A name in a glibc log may hold blanks, colons and brackets as they are. The place of a record
//! therefore ends at the *last* `]` of the line: what follows it (operation, address, size) never
//! holds one.

use super::meta::Meta;

/// What one line says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line<'a> {
    /// Nothing but blanks.
    Blank,
    /// `= Start`: recording was switched on.
    Start,
    /// `= End`: recording was switched off.
    End,
    /// A `#` line.
    Meta(Meta<'a>),
    /// `[@ WHERE ] OP`.
    Record {
        /// WHERE as it stands in the line; [`Place::parse`] takes it apart.
        place: Option<&'a [u8]>,
        /// What was done.
        op: Op,
    },
    /// What is left of a line that announced a free which was going on when the process died.
    Unpublished {
        /// The block, which may be free already.
        ptr: u64,
        /// It is `<`, not `-`.
        is_realloc: bool,
        /// What is left of WHERE.
        place: &'a [u8],
    },
    /// Anything else.
    Malformed {
        /// What should have stood there.
        expected: &'static str,
        /// Where in the line, counted from 0.
        column: usize,
    },
}

/// The operation of a record. `ptr` 0 stands for `(nil)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// `+ PTR SIZE`; PTR is `(nil)` when the call failed.
    Alloc {
        /// The new block.
        ptr: u64,
        /// Requested bytes.
        size: u64,
    },
    /// `- PTR`.
    Free {
        /// The block that ends.
        ptr: u64,
    },
    /// `< PTR`, the first half of a realloc.
    ReallocFrom {
        /// The block that ends.
        ptr: u64,
    },
    /// `> PTR SIZE`, the second half of a realloc.
    ReallocTo {
        /// The new block.
        ptr: u64,
        /// Requested bytes.
        size: u64,
    },
    /// `! PTR SIZE`: a realloc failed.
    ReallocFailed {
        /// The old block, still live.
        ptr: u64,
        /// Requested bytes.
        size: u64,
    },
}

impl<'a> Line<'a> {
    /// Reads one line, without its newline. A carriage return at the end is a blank.
    #[inline]
    pub fn parse(line: &'a [u8]) -> Line<'a> {
        match line.first() {
            Some(b'@') => placed_record(line),
            Some(b'+' | b'-' | b'<' | b'>' | b'!') => bare_record(line, 0),
            Some(_) => rare(line),
            None => Line::Blank,
        }
    }

    /// Reads what follows the last NUL of a line: a whole line behind a gap, or the rest of one
    /// whose beginning was never stored.
    pub fn parse_after_gap(rest: &'a [u8]) -> Line<'a> {
        let whole = match rest {
            _ if begins_line(rest) => Line::parse(rest),
            [] => Line::Blank,
            _ => malformed("a line that begins with one of @ # = + - < > !", 0),
        };
        if !matches!(whole, Line::Malformed { .. }) {
            return whole;
        }
        let end = rest.len() - rest.iter().rev().take_while(|b| is_blank(**b)).count();
        let Some(blank) = rest[..end].iter().rposition(|b| *b == b' ') else { return whole };
        match (&rest[..blank], Cursor { line: &rest[..end], at: blank + 1 }.pointer()) {
            ([place @ .., b' ', op @ (b'<' | b'-')], Some(ptr)) if ptr != 0 => {
                Line::Unpublished { ptr, is_realloc: *op == b'<', place }
            }
            _ => whole,
        }
    }
}

/// Whether what follows a gap is a line from its beginning on, be it one without its place. Two bytes
/// are enough to tell.
pub fn begins_line(rest: &[u8]) -> bool {
    matches!(rest, [b'@' | b'#' | b'=' | b'+' | b'-' | b'<' | b'>' | b'!', b' ', ..])
}

fn malformed<'a>(expected: &'static str, column: usize) -> Line<'a> {
    Line::Malformed { expected, column }
}

/// `@ WHERE OP`.
#[inline]
fn placed_record(line: &[u8]) -> Line<'_> {
    if !line.get(1).is_some_and(|b| is_blank(*b)) {
        return malformed("a blank behind @", 1);
    }
    // Behind the bracket stands a blank, or, before 1998, `:function` and then a blank. A place
    // without brackets (`file.c:12`, programs compiled with USE_MTRACE_FILE) holds no blanks.
    let mut end = match last_bracket(line) {
        Some(bracket) => bracket + 1,
        None => 2 + line[2..].iter().take_while(|b| is_blank(**b)).count(),
    };
    while line.get(end).is_some_and(|b| !is_blank(*b)) {
        end += 1;
    }
    let record = bare_record(line, end);
    let Line::Record { op, .. } = record else { return record };
    let mut begin = 2;
    while begin < end && is_blank(line[begin]) {
        begin += 1;
    }
    match &line[begin..end] {
        [] => malformed("a place behind @", 1),
        place => Line::Record { place: Some(place), op },
    }
}

/// `OP PTR [SIZE]` from column `at` on.
#[inline]
fn bare_record(line: &[u8], at: usize) -> Line<'_> {
    let mut cursor = Cursor { line, at };
    cursor.skip_blanks();
    let kind = cursor.peek();
    if !matches!(kind, b'+' | b'-' | b'<' | b'>' | b'!') {
        return malformed("one of + - < > !", cursor.at);
    }
    cursor.at += 1;
    if !cursor.skip_blanks() {
        return malformed("a blank behind the operation", cursor.at);
    }
    let Some(ptr) = cursor.pointer() else {
        return malformed("an address (0x and hex digits, or (nil))", cursor.at);
    };
    let blanks = cursor.skip_blanks();
    let op = match kind {
        b'-' => Op::Free { ptr },
        b'<' => Op::ReallocFrom { ptr },
        _ => {
            let Some(size) = cursor.size().filter(|_| blanks) else {
                return malformed("a size in hex", cursor.at);
            };
            cursor.skip_blanks();
            match kind {
                b'+' => Op::Alloc { ptr, size },
                b'>' => Op::ReallocTo { ptr, size },
                _ => Op::ReallocFailed { ptr, size },
            }
        }
    };
    if cursor.at != line.len() {
        return malformed("the end of the line", cursor.at);
    }
    Line::Record { place: None, op }
}

/// Lines that are no records.
#[cold]
#[inline(never)]
fn rare(line: &[u8]) -> Line<'_> {
    let begin = line.iter().take_while(|b| is_blank(**b)).count();
    let end = line.len() - line[begin..].iter().rev().take_while(|b| is_blank(**b)).count();
    match &line[begin..end] {
        [] => Line::Blank,
        b"= Start" => Line::Start,
        b"= End" => Line::End,
        [b'#', ..] if begin == 0 => match Meta::parse(&line[..end]) {
            Ok(meta) => Line::Meta(meta),
            Err(expected) => malformed(expected, 2),
        },
        [b'@' | b'+' | b'-' | b'<' | b'>' | b'!', ..] if begin > 0 => {
            match Line::parse(&line[begin..]) {
                Line::Malformed { expected, column } => malformed(expected, begin + column),
                parsed => parsed,
            }
        }
        [b'=', ..] => malformed("\"= Start\" or \"= End\"", begin),
        _ => malformed("a line that begins with one of @ # = + - < > !", begin),
    }
}

/// A `WHERE`, taken apart. Names are as they stand in the log: escaped in ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place<'a> {
    /// FILE.
    pub object: Option<&'a [u8]>,
    /// SYMBOL and the distance of the address from it.
    pub symbol: Option<Symbol<'a>>,
    /// The number in the brackets.
    pub address: Option<u64>,
}

/// `(SYMBOL+OFFSET)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Symbol<'a> {
    /// Name in the dynamic symbol table.
    pub name: &'a [u8],
    /// Distance of the address from it.
    pub offset: u64,
    /// The offset was written with `0x`: glibc 2.33 and before, and libmtr.so's absolute form.
    pub prefixed: bool,
}

impl<'a> Place<'a> {
    /// Takes WHERE apart. What has none of the known forms is all object.
    pub fn parse(text: &'a [u8]) -> Place<'a> {
        let unknown = Place { object: Some(text), symbol: None, address: None };
        let Some(close) = text.iter().rposition(|b| *b == b']') else { return unknown };
        let Some(open) = text[..close].iter().rposition(|b| *b == b'[') else { return unknown };
        let mut cursor = Cursor { line: &text[..close], at: open + 1 };
        let Some(address) = cursor.pointer().filter(|_| cursor.at == close) else {
            return unknown;
        };
        let address = Some(address);
        let (before, behind) = (&text[..open], &text[close + 1..]);
        if let (b"", [b':', function @ ..]) = (before, behind)
            && !function.is_empty()
        {
            let symbol = Symbol { name: function, offset: 0, prefixed: true };
            return Place { object: None, symbol: Some(symbol), address };
        }
        let (object, symbol) = match before {
            [rest @ .., b')'] => match symbol_of(rest) {
                Some((object, symbol)) => (object, Some(symbol)),
                None => (before, None),
            },
            _ => (before, None),
        };
        let object = object.strip_suffix(b":").unwrap_or(object);
        Place { object: (!object.is_empty()).then_some(object), symbol, address }
    }
}

/// `FILE:(SYMBOL+OFFSET`, the closing parenthesis already gone.
fn symbol_of(text: &[u8]) -> Option<(&[u8], Symbol<'_>)> {
    let open = text.iter().rposition(|b| *b == b'(')?;
    let inside = &text[open + 1..];
    let sign = inside.iter().rposition(|b| matches!(b, b'+' | b'-'))?;
    let mut cursor = Cursor { line: inside, at: sign + 1 };
    let prefixed = inside[sign + 1..].starts_with(b"0x");
    let offset = cursor.size().filter(|_| cursor.at == inside.len())?;
    let offset = if inside[sign] == b'-' { offset.wrapping_neg() } else { offset };
    Some((&text[..open], Symbol { name: &inside[..sign], offset, prefixed }))
}

/// Blanks as perl's `split` sees them; no name of ours holds one.
#[inline]
fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | 0x0b | 0x0c)
}

/// Position of the last `]`, eight bytes at a time.
#[inline]
fn last_bracket(line: &[u8]) -> Option<usize> {
    const LOW: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    const BRACKETS: u64 = u64::from_ne_bytes([b']'; 8]);
    let mut end = line.len();
    while let Some(word) = end.checked_sub(8).and_then(|begin| line.get(begin..end)) {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(word);
        let differs = u64::from_le_bytes(bytes) ^ BRACKETS;
        // The top bit of each byte that is zero, exactly (no borrow between bytes).
        let zeros = !(((differs & LOW) + LOW) | differs | LOW);
        if zeros != 0 {
            return Some(end - 1 - zeros.leading_zeros() as usize / 8);
        }
        end -= 8;
    }
    line[..end].iter().rposition(|b| *b == b']')
}

/// Value of each hex digit, 0xff for all other bytes.
const DIGITS: [u8; 256] = {
    let mut digits = [0xff; 256];
    let mut value = 0;
    while value < 16 {
        digits[b"0123456789abcdef"[value] as usize] = value as u8;
        digits[b"0123456789ABCDEF"[value] as usize] = value as u8;
        value += 1;
    }
    digits
};

/// A position in a line.
struct Cursor<'a> {
    line: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    /// The byte here, NUL at the end.
    #[inline]
    fn peek(&self) -> u8 {
        self.line.get(self.at).copied().unwrap_or(0)
    }

    /// Skips blanks and says whether there were any.
    #[inline]
    fn skip_blanks(&mut self) -> bool {
        let begin = self.at;
        while is_blank(self.peek()) {
            self.at += 1;
        }
        self.at > begin
    }

    /// At least one hex digit; `None` when there is none or the number needs more than 64 bits.
    #[inline]
    fn hex(&mut self) -> Option<u64> {
        let begin = self.at;
        let mut value = 0;
        while let Some(&byte) = self.line.get(self.at) {
            let digit = DIGITS[usize::from(byte)];
            if digit > 15 {
                break;
            }
            if value >> 60 != 0 {
                return None;
            }
            value = value << 4 | u64::from(digit);
            self.at += 1;
        }
        (self.at > begin).then_some(value)
    }

    /// `0x` and hex digits, or `(nil)`.
    #[inline]
    fn pointer(&mut self) -> Option<u64> {
        let rest = self.line.get(self.at..)?;
        if rest.starts_with(b"0x") {
            self.at += 2;
            self.hex()
        } else if rest.starts_with(b"(nil)") {
            self.at += 5;
            Some(0)
        } else {
            None
        }
    }

    /// Hex digits with or without `0x`.
    #[inline]
    fn size(&mut self) -> Option<u64> {
        if self.line.get(self.at..)?.starts_with(b"0x") {
            self.at += 2;
        }
        self.hex()
    }
}

#[cfg(test)]
mod tests;
