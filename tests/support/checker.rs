//! A fast check of large logs: order and counts, one pass, memory for the live blocks only.

use std::collections::HashMap;
use std::fs::File;
use std::hash::{BuildHasherDefault, Hasher};
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

/// What a log holds.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Count {
    /// `+` of a block, and `>`.
    pub(crate) allocations: u64,
    /// `-` and `<`.
    pub(crate) frees: u64,
    /// `<`.
    pub(crate) reallocations: u64,
    /// `+ (nil)` and `!`.
    pub(crate) failures: u64,
    /// Bytes of the allocations.
    pub(crate) bytes: u64,
    /// The same three for records whose FILE ends as asked for.
    pub(crate) own_allocations: u64,
    pub(crate) own_frees: u64,
    pub(crate) own_reallocations: u64,
    /// Blocks live at the end, and their bytes.
    pub(crate) live_blocks: u64,
    pub(crate) live_bytes: u64,
    /// Allocations at an address that was live.
    pub(crate) duplicates: u64,
    /// Frees of an address that was not.
    pub(crate) unknown_frees: u64,
    /// Lines that are neither records nor `#` or `=` lines.
    pub(crate) damaged: u64,
    /// Length of the file.
    pub(crate) length: u64,
    /// The first few lines that are wrong.
    pub(crate) examples: Vec<String>,
}

impl Count {
    /// Fails the test unless the log is in order.
    #[track_caller]
    pub(crate) fn is_in_order(&self) {
        assert_eq!((self.duplicates, self.unknown_frees, self.damaged), (0, 0, 0), "{self:#?}");
    }

    fn complain(&mut self, number: u64, why: &str, line: &[u8]) {
        if self.examples.len() < 10 {
            let line = String::from_utf8_lossy(line);
            self.examples.push(format!("line {number}: {why}: {}", line.trim_end()));
        }
    }
}

/// Addresses are random enough for one multiplication.
#[derive(Default)]
pub(super) struct AddressHasher(u64);

impl Hasher for AddressHasher {
    fn write(&mut self, _: &[u8]) {
        unreachable!("only u64 keys")
    }
    fn write_u64(&mut self, value: u64) {
        let product = value.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = product ^ (product >> 32);
    }
    fn finish(&self) -> u64 {
        self.0
    }
}

/// Reads the log of a process that ended normally (no tail). Records whose FILE ends in `own` are
/// counted apart.
pub(crate) fn check_order(path: &Path, own: &str) -> Count {
    let file = File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut count = Count { length: file.metadata().unwrap().len(), ..Count::default() };
    let mut reader = BufReader::with_capacity(1 << 20, file);
    let mut live: HashMap<u64, u64, BuildHasherDefault<AddressHasher>> = HashMap::default();
    let mut line = Vec::new();
    let mut number = 0;
    while reader.read_until(b'\n', &mut line).unwrap() > 0 {
        number += 1;
        check_line(&line, number, own.as_bytes(), &mut live, &mut count);
        line.clear();
    }
    count.live_blocks = live.len() as u64;
    count.live_bytes = live.values().sum();
    count
}

fn check_line(
    line: &[u8],
    number: u64,
    own: &[u8],
    live: &mut HashMap<u64, u64, BuildHasherDefault<AddressHasher>>,
    count: &mut Count,
) {
    let text = line.strip_suffix(b"\n").unwrap_or(line);
    let (mut rest, mut is_own) = (text, false);
    match text {
        [b'#' | b'=', ..] => return,
        [b'@', b' ', after @ ..] => {
            let Some(blank) = after.iter().position(|b| *b == b' ') else {
                count.damaged += 1;
                return count.complain(number, "no operation", line);
            };
            let place = &after[..blank];
            // FILE ends before `:(` or `:[`; the last colon is that one.
            if let Some(colon) = place.iter().rposition(|b| *b == b':') {
                is_own = place[..colon].ends_with(own);
            }
            rest = &after[blank + 1..];
        }
        _ => {}
    }
    let operation = rest.first().copied().unwrap_or(0);
    let mut words = rest.get(2..).unwrap_or_default().split(|b| *b == b' ');
    let address = words.next().and_then(hex);
    let size = words.next().and_then(hex);
    let extra = words.next();
    let is_line = line.ends_with(b"\n") && rest.get(1) == Some(&b' ') && extra.is_none();
    match (operation, address, size) {
        (b'+' | b'>', Some(address), Some(size)) if is_line => {
            if address == 0 {
                count.failures += 1;
                return;
            }
            count.allocations += 1;
            count.own_allocations += u64::from(is_own);
            count.bytes += size;
            if live.insert(address, size).is_some() {
                count.duplicates += 1;
                count.complain(number, "is live already", line);
            }
        }
        (b'-' | b'<', Some(address), None) if is_line => {
            count.frees += 1;
            count.own_frees += u64::from(is_own);
            if operation == b'<' {
                count.reallocations += 1;
                count.own_reallocations += u64::from(is_own);
            }
            if live.remove(&address).is_none() {
                count.unknown_frees += 1;
                count.complain(number, "is not live", line);
            }
        }
        (b'!', Some(_), Some(_)) if is_line => count.failures += 1,
        _ => {
            count.damaged += 1;
            count.complain(number, "is no record", line);
        }
    }
}

fn hex(word: &[u8]) -> Option<u64> {
    if word == b"(nil)" || word == b"0" {
        return Some(0);
    }
    let digits = word.strip_prefix(b"0x")?;
    if digits.is_empty() || digits.len() > 16 {
        return None;
    }
    let mut value = 0;
    for digit in digits {
        value = value << 4
            | u64::from(match digit {
                b'0'..=b'9' => digit - b'0',
                b'a'..=b'f' => digit - b'a' + 10,
                _ => return None,
            });
    }
    Some(value)
}
