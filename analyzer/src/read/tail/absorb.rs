//! Writing a left-over tail into its log or trace.

use std::borrow::Cow;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use mtr_format::compact::chunk::{ALIGN, HEADER, Header};
use mtr_format::compact::{op, sum};

use super::{Beside, Blocks, Loss, Slots, beside, tail_path};
use crate::error::Error;
use crate::read::compact::{self, Bytes, walk};
use crate::read::front::{self, read_at};

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
    /// The log would be too large; both are as they were.
    NoRoom,
}

/// Writes the tail of a dead process into its log and removes it, unless the log would be larger than
/// `largest`. It can be done again at any point: bytes that are there already are the same.
pub fn absorb(log: &Path, largest: u64) -> Result<Absorbed, Error> {
    let failed = |source| Error::Write { path: log.into(), source };
    let file = match OpenOptions::new().read(true).write(true).open(log) {
        Ok(file) => file,
        Err(source) => return Err(Error::Open { path: log.into(), source }),
    };
    // Who holds this lock is the only one to put another log, and another tail, in place of these.
    if !lock(&file) || !is_at(&file, log) {
        return Ok(Absorbed::BeingReplaced);
    }
    let beside = beside(log, &file, false).map_err(failed)?;
    let pieces = match &beside {
        Beside::Nothing => return Ok(Absorbed::NoTail),
        Beside::Other(_) => return Ok(Absorbed::NotItsTail),
        Beside::Log(_, head) | Beside::Trace(_, head) if head.is_running() => {
            return Ok(Absorbed::StillRunning);
        }
        Beside::Log(tail, _) => blocks(&file, tail),
        Beside::Trace(tail, _) => slots(&file, tail),
    };
    if !pieces.and_then(|pieces| write(&file, &pieces, largest)).map_err(failed)? {
        return Ok(Absorbed::NoRoom);
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

/// What is to be written into a log, and where.
type Pieces<'a> = Vec<(u64, Cow<'a, [u8]>)>;

/// Writes all pieces, or none where the log would be larger than `largest`.
fn write(file: &File, pieces: &[(u64, Cow<'_, [u8]>)], largest: u64) -> io::Result<bool> {
    let length = file.metadata()?.len();
    let ends = pieces.iter().map(|(position, bytes)| position + bytes.len() as u64);
    if ends.max().is_some_and(|end| end > largest) {
        return Ok(false);
    }
    for (position, bytes) in pieces {
        if let Err(error) = file.write_all_at(bytes, *position) {
            // Half a chunk is worse than none. All of it is in the tail still.
            if file.metadata()?.len() > length {
                file.set_len(length)?;
            }
            return Err(error);
        }
    }
    Ok(true)
}

fn blocks<'a>(file: &File, tail: &'a Blocks) -> io::Result<Pieces<'a>> {
    let mut pieces = Pieces::new();
    for (position, block) in tail.blocks() {
        pieces.extend(runs(block).map(|(at, run)| (position + at as u64, run.into())));
    }
    if tail.loss.records > 0 {
        let end = pieces.iter().map(|(position, run)| position + run.len() as u64).max();
        pieces.push(loss(file, tail, end.unwrap_or(0))?);
    }
    Ok(pieces)
}

/// What `block` holds between its NULs, which say nothing of the log, and where each run begins.
fn runs(block: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let mut index = 0;
    block.split(|b| *b == 0).filter_map(move |run| {
        let begin = index;
        index += run.len() + 1;
        (!run.is_empty()).then_some((begin, run))
    })
}

/// Only the tail's header knew of the records lost last. The log has a line for it in its header;
/// those of earlier versions get one at their end, which is `behind` what the tail has or further.
fn loss(file: &File, tail: &Blocks, behind: u64) -> io::Result<(u64, Cow<'static, [u8]>)> {
    let Loss { records, errno, since, .. } = tail.loss;
    let line = format!("# lost {records:020} {errno:05} {:020}\n", since.unwrap_or(0));
    let mut head = vec![0; front::FRONT];
    read_at(file, &mut head, 0)?;
    tail.lay_over(0, &mut head);
    let there = head.split_inclusive(|b| *b == b'\n').find(|line| line.starts_with(b"# lost "));
    if let Some(there) = there.filter(|there| there.len() == line.len()) {
        let position = there.as_ptr() as usize - head.as_ptr() as usize;
        return Ok((position as u64, line.into_bytes().into()));
    }
    let end = file.metadata()?.len().max(behind);
    let mut last = [b'\n'];
    if end > 0 {
        read_at(file, &mut last, end - 1)?;
        tail.lay_over(end - 1, &mut last);
    }
    // A line that was cut stays one: what stands before a NUL is no line.
    let newline = if last == [b'\n'] { "" } else { "\0\n" };
    let line = format!("{newline}# lost {records} {errno}\n");
    Ok((end, line.into_bytes().into()))
}

/// A chunk in the file. The one that a process was writing out when it died may be there in part: cut,
/// or with a hole where others lie behind it.
struct There {
    at: u64,
    length: u32,
    /// Bytes of records that the file has.
    available: u32,
}

/// The chunks that the file does not have are appended; one of which it may have a part goes where that is.
fn slots<'a>(file: &File, tail: &'a Slots) -> io::Result<Pieces<'a>> {
    let mut pieces = Pieces::new();
    let bytes = Bytes::File(file.try_clone()?);
    let end = bytes.length()?;
    let (mut found, mut behind) = (hashbrown::HashMap::new(), end);
    let mut last = Header { id: tail.id, ..Header::default() };
    let (mut begun, mut stated) = (hashbrown::HashMap::new(), None);
    let mut note_number = |header: &Header| {
        let number = begun.entry(header.stream).or_insert(0);
        *number = u64::from(header.number).max(*number);
    };
    walk(&bytes, tail.id, |at, header, records, how| {
        behind = behind.max(at + header.size() as u64);
        let available = match how {
            compact::Found::Whole => header.length,
            compact::Found::Cut(available) => available,
            // The process died while it wrote this one.
            compact::Found::Damaged(_) => 0,
        };
        if !matches!(how, compact::Found::Damaged(_)) {
            note_last(&mut last, &header);
            note_number(&header);
        }
        if at == 0 && compact::is_front(&header) {
            stated = line_in(&header, records);
        }
        let found = found.entry((header.stream, header.number)).or_insert_with(Vec::new);
        found.push(There { at, length: header.length, available });
    })?;
    for chunk in tail.chunks() {
        let Some(header) = Header::parse(chunk) else { continue };
        note_last(&mut last, &header);
        note_number(&header);
        let mut chunk = chunk.to_vec();
        sum::seal(&mut chunk);
        let copies = found.get(&(header.stream, header.number)).map_or(&[][..], |copies| copies);
        if copies.iter().any(|copy| copy.available > header.length) {
            continue;
        }
        // A chunk reaches to where its header says, so only one of this length fits there. Of
        // several, the last counts.
        let front = compact::is_front(&header).then(|| line_in(&header, &chunk[HEADER..]));
        let at = match copies.iter().rfind(|copy| copy.length == header.length) {
            Some(copy) => {
                pieces.push((copy.at, chunk.into()));
                copy.at
            }
            None => append(&mut pieces, &mut behind, chunk.into()),
        };
        if let Some(line) = front.flatten() {
            stated = stated.or(Some(at + line));
        }
    }
    if tail.loss.is_some() {
        // Only the tail's header knew of this.
        let Loss { records, errno, since, unsaved } = tail.loss;
        let mut lines = String::new();
        if records > 0 {
            let since = since.map_or(String::new(), |since| format!(" {since}"));
            lines += &format!("# lost {records} {errno}{since}\n");
        }
        if unsaved > 0 {
            lines += &format!("# unsaved {unsaved}\n");
        }
        let length = 2 + lines.len() as u32;
        let header = Header { length, number: last.number.saturating_add(1), ..last };
        let mut text =
            [&header.encode()[..], &[op::TEXT, lines.len() as u8], lines.as_bytes()].concat();
        sum::seal(&mut text);
        note_number(&header);
        append(&mut pieces, &mut behind, text.into());
    }
    if let Some(at) = stated {
        let chunks = begun.values().map(|number| number + 1).sum();
        let ends = pieces.iter().map(|(position, bytes)| position + bytes.len() as u64);
        let bytes = ends.max().unwrap_or(0).max(end);
        pieces.push((at, closed(bytes, chunks, tail).into_bytes().into()));
    }
    Ok(pieces)
}

/// Where the `# closed` line is in the file, of which these are the first chunk's header and records.
fn line_in(header: &Header, records: &[u8]) -> Option<u64> {
    let range = header.stated.range();
    let lines = records.get(range.start.checked_sub(HEADER)?..range.end.checked_sub(HEADER)?)?;
    let line = lines.windows(CLOSED.len()).rposition(|word| word == CLOSED.as_bytes())?;
    Some((range.start + line) as u64)
}

const CLOSED: &str = "# closed ";

/// The line that says that the trace is whole without its tail, and has so many bytes.
fn closed(bytes: u64, chunks: u64, tail: &Slots) -> String {
    let (stamp, time) = tail.reading.unwrap_or_default();
    format!("{CLOSED}{bytes:020} {chunks:020} {stamp:020} {time:020}\n")
}

/// Where it will stand.
fn append<'a>(pieces: &mut Pieces<'a>, behind: &mut u64, chunk: Cow<'a, [u8]>) -> u64 {
    let at = behind.next_multiple_of(ALIGN as u64);
    *behind = at + chunk.len() as u64;
    pieces.push((at, chunk));
    at
}

/// Keeps the header of the last chunk of the first stream, without what was lost before it.
fn note_last(last: &mut Header, header: &Header) {
    if header.stream == 0 && header.number >= last.number {
        *last = Header { lost: 0, ..*header };
    }
}
