//! A slow and obvious reader of mtrace logs, written from docs/log-format.md alone: the oracle.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
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
        let tail = std::fs::read(tail_of(path)).ok();
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

    pub(crate) fn records(&self) -> impl Iterator<Item = &Record> {
        self.items.iter().filter_map(|item| match item {
            Item::Record(record) => Some(record),
            _ => None,
        })
    }

    pub(crate) fn marks(&self) -> Vec<&str> {
        let marks = self.items.iter().filter_map(|item| match item {
            Item::Mark(mark) => Some(mark.as_str()),
            _ => None,
        });
        marks.collect()
    }

    /// The values of every `# KEY` line.
    pub(crate) fn notes(&self, key: &str) -> Vec<&[Vec<u8>]> {
        let notes = self.items.iter().filter_map(|item| match item {
            Item::Note(words) if words[0] == key.as_bytes() => Some(&words[1..]),
            _ => None,
        });
        notes.collect()
    }

    /// The values of the one `# KEY` line as text.
    #[track_caller]
    pub(crate) fn note(&self, key: &str) -> Vec<String> {
        let notes = self.notes(key);
        assert!(notes.len() == 1, "{}: {} `# {key}` lines", self.path.display(), notes.len());
        notes[0].iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect()
    }

    /// Records that the log says are missing.
    pub(crate) fn lost(&self) -> u64 {
        let notes = self.notes("lost");
        notes.last().map_or(0, |words| number(&words[0]).expect("# lost RECORDS"))
    }

    #[track_caller]
    pub(crate) fn pid(&self) -> u32 {
        self.note("pid")[0].parse().expect("# pid")
    }

    /// Fails the test where the log is not what a correct program must get.
    #[track_caller]
    pub(crate) fn is_sound(&self) -> &Self {
        let name = self.path.display();
        assert!(self.damaged.is_empty(), "{name}: damaged lines: {:#?}", self.damaged);
        assert_eq!(self.lost(), 0, "{name}: {:?}", self.notes("lost"));
        self
    }

    /// [`Log::is_sound`], and: no block twice, no free of one that is not there.
    #[track_caller]
    pub(crate) fn is_in_order(&self) -> &Self {
        self.is_sound();
        let faults = self.faults();
        assert!(faults.is_empty(), "{}: {} faults: {faults:#?}", self.path.display(), faults.len());
        self
    }

    /// What is out of order, as a program that is traced from its beginning cannot have it.
    pub(crate) fn faults(&self) -> Vec<String> {
        let mut live = BTreeMap::new();
        let mut may_be_free = BTreeSet::new();
        let mut faults = Vec::new();
        for (number, item) in self.items.iter().enumerate() {
            let record = match item {
                Item::Record(record) => record,
                Item::Announced(address) => {
                    may_be_free.insert(*address);
                    continue;
                }
                _ => continue,
            };
            if let Some(address) = record.freed()
                && live.remove(&address).is_none()
            {
                faults.push(format!("item {number} frees what is not live: {record:?}"));
            }
            if let Some((address, _)) = record.allocated()
                && let Some(earlier) = live.insert(address, number)
                && !may_be_free.remove(&address)
            {
                faults.push(format!("item {number} repeats item {earlier}: {record:?}"));
            }
        }
        faults
    }

    /// Frees that had begun when the process died.
    pub(crate) fn announced(&self) -> usize {
        self.items.iter().filter(|item| matches!(item, Item::Announced(_))).count()
    }

    /// The records of the blocks that are live at the end, by address.
    pub(crate) fn live(&self) -> BTreeMap<u64, &Record> {
        let mut live = BTreeMap::new();
        for record in self.records() {
            if let Some(address) = record.freed() {
                live.remove(&address);
            }
            if let Some((address, _)) = record.allocated() {
                live.insert(address, record);
            }
        }
        live
    }

    /// Allocations of `size` bytes.
    pub(crate) fn blocks_of(&self, size: u64) -> Vec<&Record> {
        self.records().filter(|r| r.allocated().is_some_and(|(_, n)| n == size)).collect()
    }

    /// How many blocks of `size` bytes were allocated and how many of them were freed.
    pub(crate) fn allocated_and_freed(&self, size: u64) -> (usize, usize) {
        let (mut live, mut allocated, mut freed) = (BTreeMap::new(), 0, 0);
        for record in self.records() {
            if let Some(address) = record.freed()
                && live.remove(&address) == Some(size)
            {
                freed += 1;
            }
            if let Some((address, n)) = record.allocated() {
                allocated += usize::from(n == size);
                live.insert(address, n);
            }
        }
        (allocated, freed)
    }

    /// The module that made `record` and the record's address as an SVMA of it.
    pub(crate) fn module_of(&self, record: &Record) -> Option<(&Module, u64)> {
        let place = record.place.as_ref()?;
        let relative = self.note("addresses")[0] == "relative" && place.file.is_some();
        // Later lines replace what they overlap: look from the end.
        for (start, end, module) in self.modules[..record.modules_before].iter().rev() {
            let Some(module) = module else {
                if !relative && (*start..*end).contains(&place.address) {
                    return None;
                }
                continue;
            };
            if relative && Some(&module.name) == place.file.as_ref() {
                return Some((module, (module.start + place.address).wrapping_sub(module.bias)));
            }
            if !relative && (*start..*end).contains(&place.address) {
                return Some((module, place.address.wrapping_sub(module.bias)));
            }
        }
        None
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
    for block in 0..count {
        let number = u64_at(64 + 8 * block);
        if number == u64::MAX {
            continue;
        }
        let position = (number & !(1 << 63)) as usize * size;
        let bytes = &tail[4096 + block * size..][..size];
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
