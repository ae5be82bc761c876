//! The tail file: the part of a log or trace that its process had not written out.

mod absorb; // writing it out for a process that is gone
mod blocks; // of a log
mod slots; // of a compact trace

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use mtr_format::compact::chunk::HEADER;
use mtr_format::compact::decode::{Decoder, Record};
use mtr_format::tail as layout;
use mtr_format::text::meta::Meta;

use super::front::{self, read_at};
use super::{compact, liveness};
use crate::error::Error;
pub use absorb::{Absorbed, absorb};
pub use blocks::Blocks;
pub use slots::Slots;

/// The name of the tail of `log`.
pub fn tail_path(log: &Path) -> PathBuf {
    let mut name = OsString::from(log);
    name.push(layout::SUFFIX);
    PathBuf::from(name)
}

/// What lies beside a log or trace.
#[derive(Debug)]
pub enum Beside {
    /// No tail.
    Nothing,
    /// A tail that is damaged or that of another log, which can be read without it.
    Other(String),
    /// The tail of a log, and what the two say together.
    Log(Blocks, Head),
    /// The tail of a compact trace, and what the two say together.
    Trace(Slots, Head),
}

/// What lies beside `log`, which is open as `file`. Of the tail of a running process what was there
/// at one moment is wanted.
pub fn beside(log: &Path, file: &File, is_running: bool) -> io::Result<Beside> {
    let path = tail_path(log);
    let found = match open(&path).and_then(|tail| Ok((starts_with(&tail, &layout::MAGIC2)?, tail)))
    {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Beside::Nothing),
        Err(error) => return Ok(Beside::Other(format!("{}: {error}", path.display()))),
        Ok((true, tail)) => match Slots::read(&tail, &path, is_running) {
            Ok(slots) => beside_trace(file, slots)?,
            Err(error) => return Ok(Beside::Other(error.to_string())),
        },
        Ok((false, tail)) => match Blocks::read(&tail, &path, file.metadata()?.len()) {
            Ok(blocks) => beside_log(file, blocks)?,
            Err(error) => return Ok(Beside::Other(error.to_string())),
        },
    };
    Ok(found.unwrap_or_else(|(stated, got)| {
        let path = path.display();
        Beside::Other(match stated {
            Some(id) => {
                format!("{path}: expected the tail of log {id:016x}, got that of {got:016x}")
            }
            None => format!("{path}: the log beside it states no ID"),
        })
    }))
}

/// A tail, or the ID that its log states and that of the tail.
type Match = Result<Beside, (Option<u64>, u64)>;

fn beside_log(file: &File, tail: Blocks) -> io::Result<Match> {
    let mut front = vec![0; front::FRONT];
    read_at(file, &mut front, 0)?;
    // The log's own word counts before that of the tail, which could be of another run.
    let stated = match Head::of_text(&front) {
        Head { id: None, .. } => {
            tail.lay_over(0, &mut front);
            Head::of_text(&front)
        }
        stated => stated,
    };
    if stated.id != Some(tail.id) {
        return Ok(Err((stated.id, tail.id)));
    }
    tail.lay_over(0, &mut front);
    Ok(Ok(Beside::Log(tail, Head::of_text(&front))))
}

fn beside_trace(file: &File, tail: Slots) -> io::Result<Match> {
    let front = front::of(file)?;
    let stated = Head::of_front(&front);
    // All that a killed process recorded may be in its tail still.
    let is_empty = front.iter().all(|byte| *byte == 0);
    match stated.id {
        Some(id) if id != tail.id => return Ok(Err((Some(id), tail.id))),
        None if !is_empty => return Ok(Err((None, tail.id))),
        _ => {}
    }
    let of_tail = tail.chunks().find_map(|chunk| {
        let head = Head::of_front(chunk);
        head.pid.is_some().then_some(head)
    });
    let head = match (stated.pid, of_tail) {
        (None, Some(head)) => head,
        _ => Head { id: Some(tail.id), is_compact: true, ..stated },
    };
    Ok(Ok(Beside::Trace(tail, head)))
}

/// What the first lines of `log` say, its tail laid over them.
pub fn head(log: &Path) -> io::Result<Head> {
    let file = open(log)?;
    Ok(match beside(log, &file, false)? {
        Beside::Log(_, head) | Beside::Trace(_, head) => head,
        _ if starts_with(&file, &layout::MAGIC)? => Head::default(),
        _ if starts_with(&file, &layout::MAGIC2)? => Head::default(),
        _ => Head::of_front(&front::of(&file)?),
    })
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
    /// Length of its log at the fork; of a compact trace, a stamp.
    pub position: Option<u64>,
    /// Its log.
    pub log: PathBuf,
    /// It had other threads at the fork.
    pub had_threads: bool,
}

impl Head {
    /// Reads the front of a log or trace.
    fn of_front(front: &[u8]) -> Head {
        let Some(id) = compact::id_of(front) else { return Head::of_text(front) };
        let mut text = Vec::new();
        for (at, header) in front::chunks_in(front).filter(|(_, header)| header.id == id) {
            let begin = (at + HEADER).min(front.len());
            let end = (begin + header.length as usize).min(front.len());
            if header.stream == 0 && header.number == 0 {
                text = text_of(&front[begin..end]);
                break;
            }
        }
        Head { id: Some(id), is_compact: true, ..Head::of_text(&text) }
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
                    let had_threads = false;
                    let parent = |pid| Parent { pid, position, log, had_threads };
                    head.parent = u32::try_from(pid).ok().map(parent);
                }
                Ok(Meta::ForkedBesideThreads) => {
                    if let Some(parent) = &mut head.parent {
                        parent.had_threads = true;
                    }
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

/// The text among the records of a chunk.
fn text_of(records: &[u8]) -> Vec<u8> {
    let (mut decoder, mut text) = (Decoder::new(), Vec::new());
    while let Some(record) = decoder.next(records) {
        if let Record::Text(piece) = record {
            text.extend_from_slice(piece);
        }
    }
    text
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)
}

fn starts_with(file: &File, magic: &[u8; 8]) -> io::Result<bool> {
    let mut found = [0; 8];
    Ok(read_at(file, &mut found, 0)? == 8 && found == *magic)
}

/// Largest block or slot that is believed; ours have 32 KiB.
const LARGEST: u64 = 1 << 20;
/// Most of them; ours has up to 4,096.
const MOST: usize = 1 << 16;

/// What a tail says of records that are missing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Loss {
    /// Records that could not be written.
    pub records: u64,
    /// errno of the first loss.
    pub errno: i32,
    /// Nanoseconds from the start of the log to the first loss.
    pub since: Option<u64>,
    /// Streams whose last records were in memory alone.
    pub unsaved: u32,
}

impl Loss {
    /// Whether there is something that has to be said in the log.
    fn is_some(&self) -> bool {
        self.records > 0 || self.unsaved > 0
    }
}

/// What both kinds of tails say in the same places.
struct Fields {
    id: u64,
    /// Bytes of a block or slot.
    size: u64,
    count: usize,
    loss: Loss,
    /// Where the log was not written any further.
    end: Option<u64>,
}

impl Fields {
    fn read(file: &File, path: &Path) -> Result<Fields, Error> {
        let at = |source| Error::Read { path: path.into(), position: 0, source };
        let length = file.metadata().map_err(at)?.len();
        let mut head = [0; layout::NUMBERS];
        if length < layout::BLOCKS as u64 || read_at(file, &mut head, 0).map_err(at)? < head.len() {
            let found = format!("{length} bytes");
            return Err(damaged(path, "a tail file of 4,096 bytes at least", found));
        }
        if head[..8] != layout::MAGIC && head[..8] != layout::MAGIC2 {
            let found = format!("{:?}", head[..8].escape_ascii().to_string());
            return Err(damaged(path, "\"MTRTAIL1\" or \"MTRTAIL2\" at byte 0", found));
        }
        let size = u64::from(u32_at(&head, layout::BLOCK_SIZE));
        let count = u32_at(&head, layout::BLOCK_COUNT) as usize;
        if size > LARGEST || count > MOST {
            let found = format!("{count} blocks of {size} bytes");
            return Err(damaged(path, "no more than 65,536 blocks of 1 MiB", found));
        }
        if size.saturating_mul(count as u64) > length - layout::BLOCKS as u64 {
            let found = format!("{count} blocks of {size} bytes in {length} bytes");
            return Err(damaged(path, "no more blocks than the file holds", found));
        }
        let stated = |at| Some(u64_at(&head, at)).filter(|value| *value > 0);
        let loss = Loss {
            records: u64_at(&head, layout::LOST),
            errno: u32_at(&head, layout::LOST_ERRNO) as i32,
            since: stated(layout::LOST_SINCE),
            unsaved: u32_at(&head, layout::UNSAVED),
        };
        let (id, end) = (u64_at(&head, layout::ID), stated(layout::END));
        Ok(Fields { id, size, count, loss, end })
    }
}

/// What `read` gets out of a tail by its fields, which the process may be changing meanwhile, and the fields
/// as they are behind that. What a process gives up as lost it has counted before: so nothing is missing of
/// which they do not say so. They say it of what was read still only where more is lost all the time.
fn settled<T>(
    file: &File,
    path: &Path,
    mut read: impl FnMut(&Fields) -> Result<T, Error>,
) -> Result<(Fields, T), Error> {
    const TRIES: usize = 8;
    let (mut fields, mut tries) = (Fields::read(file, path)?, 0);
    loop {
        let found = read(&fields)?;
        let now = Fields::read(file, path)?;
        tries += 1;
        if (now.loss, now.end) == (fields.loss, fields.end) || tries == TRIES {
            return Ok((now, found));
        }
        fields = now;
    }
}

fn damaged(path: &Path, expected: &'static str, found: String) -> Error {
    Error::Tail { path: path.into(), expected, found }
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

#[cfg(test)]
mod tests;
