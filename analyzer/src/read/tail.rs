//! The tail file: the part of a log that its process had not written out (docs/log-format.md).

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use mtr_format::compact::decode::{Decoder, Record, is_trace, words};
use mtr_format::compact::word;
use mtr_format::tail as layout;
use mtr_format::text::meta::Meta;

use super::liveness;
use crate::error::Error;

/// A tail as it was at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tail {
    /// ID of the log that it belongs to.
    pub id: u64,
    /// Records that could not be written.
    pub lost: u64,
    /// errno of the first loss.
    pub lost_errno: i32,
    /// Nanoseconds from the start of the log to the first loss.
    pub lost_since: Option<u64>,
    /// Position in the log and bytes of every block in use, by position; NULs at the end of a
    /// block are left out.
    blocks: Vec<(u64, Vec<u8>)>,
}

/// Bytes of a word of a compact trace.
pub(super) const WORD: usize = 8;

/// The name of the tail of `log`.
pub fn tail_path(log: &Path) -> PathBuf {
    let mut name = OsString::from(log);
    name.push(layout::SUFFIX);
    PathBuf::from(name)
}

impl Tail {
    /// Reads the tail file at `path`, which its process may be writing to.
    pub fn read(path: &Path) -> Result<Tail, Error> {
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(path)
            .map_err(|source| Error::Open { path: path.into(), source })?;
        let at = |position| move |source| Error::Read { path: path.into(), position, source };
        let length = file.metadata().map_err(at(0))?.len();
        let damaged = |expected, found: String| Error::Tail { path: path.into(), expected, found };
        if length < layout::BLOCKS as u64 {
            return Err(damaged("a tail file of 4,096 bytes at least", format!("{length} bytes")));
        }
        let mut head = vec![0; layout::BLOCKS];
        file.read_exact_at(&mut head, 0).map_err(at(0))?;
        if head[..8] != layout::MAGIC {
            return Err(damaged(
                "\"MTRTAIL1\" at byte 0",
                format!("{:?}", head[..8].escape_ascii().to_string()),
            ));
        }
        let size = u64::from(u32_at(&head, layout::BLOCK_SIZE));
        let count = u32_at(&head, layout::BLOCK_COUNT) as usize;
        if !size.is_power_of_two() {
            return Err(damaged("a power of two as block size", size.to_string()));
        }
        if count > layout::MAX_BLOCKS || layout::BLOCKS as u64 + size * count as u64 > length {
            return Err(damaged(
                "no more blocks than the file holds",
                format!("{count} blocks of {size} bytes in {length} bytes"),
            ));
        }
        let mut tail = Tail {
            id: u64_at(&head, layout::ID),
            lost: u64_at(&head, layout::LOST),
            lost_errno: u32_at(&head, layout::LOST_ERRNO) as i32,
            lost_since: Some(u64_at(&head, layout::LOST_SINCE)).filter(|since| *since > 0),
            blocks: Vec::new(),
        };
        for index in 0..count {
            let number_at = layout::NUMBERS + 8 * index;
            let mut number = u64_at(&head, number_at);
            // The process may put another block here while we read: then the number changes, and
            // the one that stood here before is in the log by now.
            for _ in 0..8 {
                if number == layout::UNUSED {
                    break;
                }
                let place = layout::BLOCKS as u64 + size * index as u64;
                let mut bytes = vec![0; size as usize];
                file.read_exact_at(&mut bytes, place).map_err(at(place))?;
                let mut again = [0; 8];
                file.read_exact_at(&mut again, number_at as u64).map_err(at(number_at as u64))?;
                let again = u64::from_le_bytes(again);
                if (again ^ number) & !layout::BUSY == 0 {
                    tail.add(number & !layout::BUSY, size, bytes);
                    break;
                }
                number = again;
            }
        }
        if let end @ 1.. = u64_at(&head, layout::END) {
            tail.end_at(end);
        }
        tail.blocks.sort_unstable_by_key(|(position, _)| *position);
        Ok(tail)
    }

    fn add(&mut self, number: u64, size: u64, mut bytes: Vec<u8>) {
        let filled = bytes.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1);
        bytes.truncate(filled);
        // A position that no file can have is damage.
        if let Some(position) = number.checked_mul(size).filter(|p| *p < 1 << 62)
            && filled > 0
        {
            self.blocks.push((position, bytes));
        }
    }

    /// Drops what lies behind the end of a log that was not written any further.
    fn end_at(&mut self, end: u64) {
        for (position, bytes) in &mut self.blocks {
            bytes.truncate(end.saturating_sub(*position) as usize);
        }
        self.blocks.retain(|(_, bytes)| !bytes.is_empty());
    }

    /// The last word of a block may end in NULs, which are its own.
    fn complete_words(&mut self) {
        for (_, bytes) in &mut self.blocks {
            bytes.resize(bytes.len().next_multiple_of(WORD), 0);
        }
    }

    /// First position behind all that the tail holds.
    pub fn end(&self) -> u64 {
        self.blocks.iter().map(|(position, bytes)| position + bytes.len() as u64).max().unwrap_or(0)
    }

    /// First position not before `position` at which the tail holds something.
    pub fn next(&self, position: u64) -> Option<u64> {
        self.blocks
            .iter()
            .filter(|(at, bytes)| at + bytes.len() as u64 > position)
            .map(|(at, _)| (*at).max(position))
            .min()
    }

    /// Lays the tail over `bytes`, which begin at `position` of the log.
    pub fn lay_over(&self, position: u64, bytes: &mut [u8]) {
        let end = position + bytes.len() as u64;
        for (at, block) in &self.blocks {
            let (from, to) = ((*at).max(position), (at + block.len() as u64).min(end));
            if from >= to {
                continue;
            }
            let below = &mut bytes[(from - position) as usize..(to - position) as usize];
            let above = &block[(from - at) as usize..(to - at) as usize];
            for (below, above) in below.iter_mut().zip(above) {
                if *above != 0 {
                    *below = *above;
                }
            }
        }
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

/// Bytes at the front of a log that hold its `# id`.
const HEAD: usize = 32 << 10;

fn front(file: &File) -> io::Result<Vec<u8>> {
    let mut head = vec![0; HEAD];
    let mut filled = 0;
    while filled < HEAD {
        match file.read_at(&mut head[filled..], filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(head)
}

/// What the first lines of `log` say, its tail laid over them.
pub fn head(log: &Path) -> io::Result<Head> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(log)?;
    Ok(match beside(log, &file)? {
        Some(Ok((_, head))) => head,
        _ => match front(&file)? {
            tail if tail.starts_with(&layout::MAGIC) => Head::default(),
            log => Head::parse(&log),
        },
    })
}

/// The tail that lies beside `log` and belongs to it; `None` when there is none. A tail of another
/// log or a damaged one is the error of the inner result: the log can be read without it.
pub fn beside(log: &Path, file: &File) -> io::Result<Option<Result<(Tail, Head), String>>> {
    let path = tail_path(log);
    let mut tail = match Tail::read(&path) {
        Ok(tail) => tail,
        Err(Error::Open { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            return Ok(None);
        }
        Err(error) => return Ok(Some(Err(error.to_string()))),
    };
    let mut head = front(file)?;
    // The log's own word counts before that of the tail, which could be of another run.
    let stated = match Head::parse(&head) {
        Head { id: None, .. } => {
            tail.lay_over(0, &mut head);
            Head::parse(&head)
        }
        stated => stated,
    };
    Ok(Some(match stated.id {
        Some(id) if id == tail.id => {
            tail.lay_over(0, &mut head);
            if stated.is_compact {
                tail.complete_words();
            }
            Ok((tail, Head::parse(&head)))
        }
        Some(id) => Err(format!(
            "{}: expected the tail of log {id:016x}, got that of {:016x}",
            path.display(),
            tail.id
        )),
        None => Err(format!("{}: the log beside it states no ID", path.display())),
    }))
}

/// What the first lines of a log say of its process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Head {
    /// `# id`.
    pub id: Option<u64>,
    /// `# session`.
    pub session: Option<u64>,
    /// `# pid`.
    pub pid: Option<u32>,
    /// First value of `# started`: seconds and nanoseconds.
    pub started: Option<(u64, u64)>,
    /// Second value of `# started`.
    pub ticks: Option<u64>,
    /// `# parent`, for a child made by fork.
    pub parent: Option<Parent>,
    /// It is a compact trace.
    pub is_compact: bool,
}

/// The parent of a process that was made by fork.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parent {
    /// Process ID.
    pub pid: u32,
    /// Length of its log at the fork.
    pub position: Option<u64>,
    /// Its log.
    pub log: PathBuf,
}

impl Head {
    /// Reads the `#` lines among `bytes`, the front of a log or trace.
    pub fn parse(bytes: &[u8]) -> Head {
        match is_trace(bytes) {
            true => Head { is_compact: true, ..Head::of_text(&text_of(bytes)) },
            false => Head::of_text(bytes),
        }
    }

    fn of_text(text: &[u8]) -> Head {
        let mut head = Head::default();
        for line in text.split(|b| *b == b'\n') {
            match Meta::parse(line) {
                _ if !line.starts_with(b"#") => {}
                Ok(Meta::Id(id)) => head.id = head.id.or(Some(id)),
                Ok(Meta::Session(id)) => head.session = head.session.or(Some(id)),
                Ok(Meta::Pid(pid)) => head.pid = head.pid.or(u32::try_from(pid).ok()),
                Ok(Meta::Parent { pid, position, path }) if head.parent.is_none() => {
                    let log = super::header::path(path);
                    head.parent = u32::try_from(pid).ok().map(|pid| Parent { pid, position, log });
                }
                Ok(Meta::Started { seconds, nanoseconds, ticks }) => {
                    head.started = head.started.or(Some((seconds, nanoseconds)));
                    head.ticks = head.ticks.or(Some(ticks));
                }
                _ => {}
            }
        }
        head
    }

    /// Whether the process is still running; `false` when the log does not say who it is.
    pub fn is_running(&self) -> bool {
        matches!((self.pid, self.ticks), (Some(pid), Some(ticks)) if liveness::is_running(pid, ticks))
    }
}

/// The text among the words of a compact trace.
fn text_of(bytes: &[u8]) -> Vec<u8> {
    let (mut decoder, mut text) = (Decoder::new(), Vec::new());
    for word in words(bytes) {
        match decoder.push(word) {
            Some(Record::Text(piece)) => text.extend_from_slice(piece.bytes()),
            // A line must not look complete because its rest is missing.
            _ if word == 0 => text.push(0),
            _ => {}
        }
    }
    text
}

/// What [`absorb`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absorbed {
    /// The tail is in the log now, and removed.
    Done,
    /// There was no tail.
    NoTail,
    /// The process is still running, and the tail is its own.
    StillRunning,
    /// The file there is damaged or belongs to another log.
    NotItsTail,
    /// Another process is about to replace the log.
    BeingReplaced,
}

/// Writes the tail of a dead process into its log and removes it. It can be done again at any
/// point: bytes that are there already are the same.
pub fn absorb(log: &Path) -> Result<Absorbed, Error> {
    let failed = |source| Error::Write { path: log.into(), source };
    let file = match OpenOptions::new().read(true).write(true).open(log) {
        Ok(file) => file,
        Err(source) => return Err(Error::Open { path: log.into(), source }),
    };
    // Who holds this lock is the only one to put another log, and another tail, in place of these.
    if !lock(&file) || !is_at(&file, log) {
        return Ok(Absorbed::BeingReplaced);
    }
    let (tail, head) = match beside(log, &file).map_err(failed)? {
        None => return Ok(Absorbed::NoTail),
        Some(Err(_)) => return Ok(Absorbed::NotItsTail),
        Some(Ok(found)) => found,
    };
    if head.is_running() {
        return Ok(Absorbed::StillRunning);
    }
    // A hole in the tail says nothing of the log.
    for (position, block) in &tail.blocks {
        let holes = if head.is_compact { WORD } else { 1 };
        for (index, run) in runs(block, holes) {
            file.write_all_at(run, position + index as u64).map_err(failed)?;
        }
    }
    if tail.lost > 0 {
        let stated = if head.is_compact { state_loss_in_words } else { state_loss };
        stated(&file, &tail).map_err(failed)?;
    }
    let path = tail_path(log);
    fs::remove_file(&path).map_err(|source| Error::Write { path, source })?;
    Ok(Absorbed::Done)
}

/// Locks a log as libmtr.so does before it replaces one; `false` where somebody has it.
fn lock(log: &File) -> bool {
    // SAFETY: flock has no preconditions.
    unsafe { libc::flock(log.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) == 0 }
}

/// Whether `file` is what stands at `path`.
fn is_at(file: &File, path: &Path) -> bool {
    let id = |found: &fs::Metadata| (found.dev(), found.ino());
    matches!((file.metadata(), fs::metadata(path)), (Ok(a), Ok(b)) if id(&a) == id(&b))
}

/// What `block` holds between its holes, which are so many NULs at a multiple of their number, and
/// where each run begins.
fn runs(block: &[u8], hole: usize) -> impl Iterator<Item = (usize, &[u8])> {
    let is_hole = |unit: &[u8]| unit.iter().all(|b| *b == 0);
    let mut index = 0;
    std::iter::from_fn(move || {
        let rest = block.get(index..)?;
        let begin = index + rest.chunks(hole).take_while(|unit| is_hole(unit)).count() * hole;
        let rest = block.get(begin..).filter(|rest| !rest.is_empty())?;
        let length = rest.chunks(hole).take_while(|unit| !is_hole(unit)).count() * hole;
        let run = &rest[..length.min(rest.len())];
        index = begin + run.len();
        Some((begin, run))
    })
}

/// As [`state_loss`], for a compact trace.
fn state_loss_in_words(file: &File, tail: &Tail) -> io::Result<()> {
    let end = file.metadata()?.len().next_multiple_of(WORD as u64);
    let line = format!("# lost {} {}\n", tail.lost, tail.lost_errno);
    let mut bytes = word::first(word::Tag::Text as u8, line.len() as u32, 0).to_le_bytes().to_vec();
    let pieces = line.as_bytes().chunks(word::TEXT_BYTES);
    bytes.extend(pieces.flat_map(|piece| word::text(piece).to_le_bytes()));
    file.write_all_at(&bytes, end)
}

/// Only the tail's header knew of the records lost last. The log has a line for it in its header;
/// those of earlier versions get one at their end.
fn state_loss(file: &File, tail: &Tail) -> io::Result<()> {
    let line = format!(
        "# lost {:020} {:05} {:020}\n",
        tail.lost,
        tail.lost_errno,
        tail.lost_since.unwrap_or(0)
    );
    let head = front(file)?;
    let there = head.split_inclusive(|b| *b == b'\n').find(|line| line.starts_with(b"# lost "));
    if let Some(there) = there.filter(|there| there.len() == line.len()) {
        let position = there.as_ptr() as usize - head.as_ptr() as usize;
        return file.write_all_at(line.as_bytes(), position as u64);
    }
    let end = file.metadata()?.len();
    let mut last = [b'\n'];
    if end > 0 {
        file.read_exact_at(&mut last, end - 1)?;
    }
    let newline = if last == [b'\n'] { "" } else { "\n" };
    file.write_all_at(
        format!("{newline}# lost {} {}\n", tail.lost, tail.lost_errno).as_bytes(),
        end,
    )
}

#[cfg(test)]
mod tests;
