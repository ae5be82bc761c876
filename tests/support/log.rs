//! A slow and obvious reader of mtrace logs, written from docs/log-format.md alone: the oracle.

mod queries; // what tests ask of it

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// What a record says was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    /// `+ PTR SIZE`
    Alloc { address: u64, size: u64 },
    /// `- PTR`
    Free { address: u64 },
    /// `< PTR`
    ReallocOld { address: u64 },
    /// `> PTR SIZE`
    ReallocNew { address: u64, size: u64 },
    /// `! PTR SIZE`
    ReallocFailed { address: u64, size: u64 },
}

/// The caller of a recorded function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// FILE, unescaped; `None` for `[0xADDR]`.
    pub(crate) file: Option<Vec<u8>>,
    /// SYMBOL, unescaped, and the text of its offset (`0x1d` or `1d`).
    pub(crate) symbol: Option<(Vec<u8>, String)>,
    pub(crate) address: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) place: Option<Place>,
    pub(crate) op: Op,
    /// Number of modules known before this line: index into [`Log::modules`] up to which to look.
    pub(crate) modules_before: usize,
}

impl Record {
    /// Whether it was made in a file whose name ends in `name`.
    pub(crate) fn is_from(&self, name: &str) -> bool {
        self.file().is_some_and(|f| f.ends_with(name.as_bytes()))
    }

    pub(crate) fn file(&self) -> Option<&[u8]> {
        self.place.as_ref()?.file.as_deref()
    }

    /// Size of the block that this record begins; failed allocations begin none.
    pub(crate) fn allocated(&self) -> Option<(u64, u64)> {
        match self.op {
            Op::Alloc { address, size } | Op::ReallocNew { address, size } if address != 0 => {
                Some((address, size))
            }
            _ => None,
        }
    }

    /// Address of the block that this record ends.
    pub(crate) fn freed(&self) -> Option<u64> {
        match self.op {
            Op::Free { address } | Op::ReallocOld { address } => Some(address),
            _ => None,
        }
    }
}

/// A `# module` line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Module {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) bias: u64,
    pub(crate) build_id: String,
    pub(crate) path: PathBuf,
    pub(crate) name: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Item {
    /// A `#` line: its words, unescaped, without the `#`.
    Note(Vec<Vec<u8>>),
    /// `= Start`, `= End`
    Mark(String),
    Record(Record),
    /// A free of this address had begun when the process died: it may be free from here on.
    Announced(u64),
}

#[derive(Debug, Default)]
pub(crate) struct Log {
    pub(crate) path: PathBuf,
    pub(crate) items: Vec<Item>,
    /// Every `# module` line, and `None` with its range for every `# unload` line.
    pub(crate) modules: Vec<(u64, u64, Option<Module>)>,
    /// Lines that the grammar does not have.
    pub(crate) damaged: Vec<String>,
    /// Places taken and not filled.
    pub(crate) holes: usize,
    /// The log has a tail: its process did not end normally.
    pub(crate) has_tail: bool,
    /// Length of the log, the tail laid over it.
    pub(crate) length: usize,
}

/// The name of a log's tail file.
pub(crate) fn tail_of(log: &Path) -> PathBuf {
    let mut name = log.as_os_str().to_owned();
    name.push(".tail");
    name.into()
}

/// Puts another tail in place of a log's: nobody may write to the one that is there.
pub(crate) fn replace_tail(log: &Path, bytes: &[u8]) {
    std::fs::remove_file(tail_of(log)).unwrap();
    std::fs::write(tail_of(log), bytes).unwrap();
}

/// What a tail file holds, without the space behind it that nobody has used yet.
pub(crate) fn read_tail(log: &Path) -> Option<Vec<u8>> {
    let file = File::open(tail_of(log)).ok()?;
    let (mut head, mut bytes) = ([0; 24], Vec::new());
    let u32_at = |head: &[u8], at: usize| u32::from_le_bytes(head[at..at + 4].try_into().unwrap());
    let used = match file.read_exact_at(&mut head, 0) {
        Ok(()) => 4096 + u64::from(u32_at(&head, 16)) * u64::from(u32_at(&head, 20)),
        Err(_) => u64::MAX,
    };
    file.take(used).read_to_end(&mut bytes).unwrap();
    Some(bytes)
}

/// Every log whose name begins with that of `log`: its own, and those of forked and exec'd
/// processes beside it.
pub(crate) fn logs_beside(log: &Path) -> Vec<Log> {
    let stem = log.file_name().unwrap().as_bytes();
    let mut paths: Vec<PathBuf> = std::fs::read_dir(log.parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            let name = path.file_name().unwrap().as_bytes();
            name.starts_with(stem) && !name.ends_with(b".tail")
        })
        .collect();
    paths.sort();
    paths.iter().map(|path| Log::read(path).unwrap()).collect()
}

impl Log {
    /// Reads `path` and lays its tail over it, if there is one.
    pub(crate) fn read(path: &Path) -> Result<Log, String> {
        let mut bytes = std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
        let tail = read_tail(path);
        if let Some(tail) = &tail {
            let name = tail_of(path);
            let id = lay_over(&mut bytes, tail).map_err(|e| format!("{}: {e}", name.display()))?;
            let id = format!("# id {id:016x}\n");
            if !bytes.windows(id.len()).take(4096).any(|w| w == id.as_bytes()) {
                return Err(format!("{}: the tail is that of another log: {id}", name.display()));
            }
        }
        let mut log = Log {
            path: path.to_owned(),
            has_tail: tail.is_some(),
            length: bytes.len(),
            ..Log::default()
        };
        log.parse(&bytes);
        Ok(log)
    }

    /// Reads text that has no tail.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Log {
        let mut log = Log { length: bytes.len(), ..Log::default() };
        log.parse(bytes);
        log
    }

    fn parse(&mut self, bytes: &[u8]) {
        let mut lines: Vec<&[u8]> = bytes.split(|b| *b == b'\n').collect();
        let last = lines.pop().unwrap_or_default();
        for line in lines {
            let rest = match line.iter().rposition(|b| *b == 0) {
                Some(nul) => {
                    self.holes += 1;
                    let rest = &line[nul + 1..];
                    // The end of a line whose beginning had not been stored yet.
                    if !matches!(rest, [first, b' ', ..] if b"@#=+-<>!".contains(first)) {
                        self.items.extend(announced(rest).map(Item::Announced));
                        continue;
                    }
                    rest
                }
                None => line,
            };
            match self.parse_line(rest) {
                Some(item) => self.items.push(item),
                None => self.damaged.push(String::from_utf8_lossy(rest).into_owned()),
            }
        }
        // A part of the last line, stored before its beginning was, is a hole too.
        if last.iter().any(|b| *b != 0) && last.contains(&0) {
            self.holes += 1;
        } else if !last.is_empty() && !last.contains(&0) {
            self.damaged.push(String::from_utf8_lossy(last).into_owned());
        }
    }

    fn parse_line(&mut self, line: &[u8]) -> Option<Item> {
        if line.starts_with(b"= ") {
            return Some(Item::Mark(String::from_utf8(line.to_vec()).ok()?));
        }
        let words: Vec<&[u8]> = line.split(|b| *b == b' ').collect();
        match words.as_slice() {
            [b"#", note @ ..] => {
                let note: Vec<Vec<u8>> = note.iter().map(|word| unescape(word)).collect();
                match note[0].as_slice() {
                    b"module" => {
                        let module = Module {
                            start: number(&note[1])?,
                            end: number(&note[2])?,
                            bias: number(&note[3])?,
                            build_id: String::from_utf8(note[4].clone()).ok()?,
                            path: PathBuf::from(OsStr::from_bytes(&note[5])),
                            name: note[6].clone(),
                        };
                        self.modules.push((module.start, module.end, Some(module)));
                    }
                    b"unload" => {
                        self.modules.push((number(&note[1])?, number(&note[2])?, None));
                    }
                    _ => {}
                }
                Some(Item::Note(note))
            }
            // FILE of glibc's own logs may hold blanks: those tests do not come here.
            [b"@", place, op @ ..] => self.record(Some(parse_place(place)?), op),
            op => self.record(None, op),
        }
    }

    fn record(&self, place: Option<Place>, op: &[&[u8]]) -> Option<Item> {
        let op = match op {
            [b"+", p, n] => Op::Alloc { address: pointer(p)?, size: size(n)? },
            [b"-", p] => Op::Free { address: pointer(p)? },
            [b"<", p] => Op::ReallocOld { address: pointer(p)? },
            [b">", p, n] => Op::ReallocNew { address: pointer(p)?, size: size(n)? },
            [b"!", p, n] => Op::ReallocFailed { address: pointer(p)?, size: size(n)? },
            _ => return None,
        };
        Some(Item::Record(Record { place, op, modules_before: self.modules.len() }))
    }
}

/// Lays the blocks of a tail over a log (or a trace). Returns the ID of the log that it belongs to.
pub(super) fn lay_over(log: &mut Vec<u8>, tail: &[u8]) -> Result<u64, String> {
    let u64_at = |at: usize| u64::from_le_bytes(tail[at..at + 8].try_into().unwrap());
    let u32_at = |at: usize| u32::from_le_bytes(tail[at..at + 4].try_into().unwrap()) as usize;
    if tail.len() < 4096 || &tail[..8] != b"MTRTAIL1" {
        return Err("this is no tail".into());
    }
    let (size, count) = (u32_at(16), u32_at(20));
    if !size.is_power_of_two() || tail.len() < 4096 + size * count {
        return Err(format!("{count} blocks of {size} bytes in {} bytes", tail.len()));
    }
    // What lies behind the end of a log that was not written any further does not count.
    let end = if u64_at(40) == 0 { usize::MAX } else { log.len().max(u64_at(40) as usize) };
    for block in 0..count {
        let number = u64_at(64 + 8 * block);
        if number == u64::MAX {
            continue;
        }
        let position = (number & !(1 << 63)) as usize * size;
        let bytes = &tail[4096 + block * size..][..size.min(end.saturating_sub(position))];
        // Only as far as something stands there: blocks are mostly space.
        let Some(last) = bytes.iter().rposition(|b| *b != 0) else { continue };
        if log.len() < position + last + 1 {
            log.resize(position + last + 1, 0);
        }
        for (index, byte) in bytes[..=last].iter().enumerate().filter(|(_, b)| **b != 0) {
            log[position + index] = *byte;
        }
    }
    Ok(u64_at(8))
}

/// The address of a free or realloc whose line had not been begun: `... - PTR` or `... < PTR`.
fn announced(rest: &[u8]) -> Option<u64> {
    match rest.split(|b| *b == b' ').collect::<Vec<_>>()[..] {
        [.., b"-" | b"<", address] => pointer(address),
        _ => None,
    }
}

fn parse_place(text: &[u8]) -> Option<Place> {
    let open = text.iter().rposition(|b| *b == b'[')?;
    let address = hex(text[open + 1..].strip_prefix(b"0x")?.strip_suffix(b"]")?)?;
    let mut file = &text[..open];
    if file.is_empty() {
        return Some(Place { file: None, symbol: None, address });
    }
    let mut symbol = None;
    if let Some(inner) = file.strip_suffix(b")") {
        let open = inner.iter().rposition(|b| *b == b'(')?;
        let plus = inner.iter().rposition(|b| *b == b'+')?;
        let offset = String::from_utf8(inner[plus + 1..].to_vec()).ok()?;
        symbol = Some((unescape(&inner[open + 1..plus]), offset));
        file = &file[..open];
    }
    Some(Place { file: Some(unescape(file.strip_suffix(b":")?)), symbol, address })
}

fn pointer(word: &[u8]) -> Option<u64> {
    if word == b"(nil)" { Some(0) } else { hex(word.strip_prefix(b"0x")?) }
}

fn size(word: &[u8]) -> Option<u64> {
    if word == b"0" { Some(0) } else { hex(word.strip_prefix(b"0x")?) }
}

pub(super) fn number(word: &[u8]) -> Option<u64> {
    match word.strip_prefix(b"0x") {
        Some(digits) => hex(digits),
        None => std::str::from_utf8(word).ok()?.parse().ok(),
    }
}

fn hex(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.iter().any(|b| !b"0123456789abcdef".contains(b)) {
        return None;
    }
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// Undoes `\ooo`.
pub(crate) fn unescape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        if let (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..]) =
            (*first, tail)
        {
            out.push((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'));
            rest = tail;
        } else {
            out.push(*first);
            rest = tail;
        }
    }
    out
}
