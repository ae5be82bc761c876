//! Writing a left-over tail into its log or trace.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use mtr_format::compact::chunk::{ALIGN, Header};
use mtr_format::compact::op;

use super::{Beside, Blocks, Slots, beside, tail_path};
use crate::error::Error;
use crate::read::compact::{Bytes, walk};
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
    let beside = beside(log, &file, false).map_err(failed)?;
    match &beside {
        Beside::Nothing => return Ok(Absorbed::NoTail),
        Beside::Other(_) => return Ok(Absorbed::NotItsTail),
        Beside::Log(_, head) | Beside::Trace(_, head) if head.is_running() => {
            return Ok(Absorbed::StillRunning);
        }
        Beside::Log(tail, _) => absorb_blocks(&file, tail),
        Beside::Trace(tail, _) => absorb_slots(&file, tail),
    }
    .map_err(failed)?;
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

fn absorb_blocks(file: &File, tail: &Blocks) -> io::Result<()> {
    for (position, block) in tail.blocks() {
        for (index, run) in runs(block) {
            file.write_all_at(run, position + index as u64)?;
        }
    }
    if tail.lost > 0 { state_loss(file, tail) } else { Ok(()) }
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
/// those of earlier versions get one at their end.
fn state_loss(file: &File, tail: &Blocks) -> io::Result<()> {
    let since = tail.lost_since.unwrap_or(0);
    let line = format!("# lost {:020} {:05} {since:020}\n", tail.lost, tail.lost_errno);
    let mut head = vec![0; front::FRONT];
    read_at(file, &mut head, 0)?;
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
    // A line that was cut stays one: what stands before a NUL is no line.
    let newline = if last == [b'\n'] { "" } else { "\0\n" };
    file.write_all_at(
        format!("{newline}# lost {} {}\n", tail.lost, tail.lost_errno).as_bytes(),
        end,
    )
}

/// A chunk in the file. The one that a process was writing out when it died may be there in part: cut,
/// or with a hole where others lie behind it.
struct Found {
    at: u64,
    length: u32,
    /// Bytes of records that the file has.
    available: u32,
}

/// Appends the chunks that the file does not have; one of which it may have a part goes where that is.
fn absorb_slots(file: &File, tail: &Slots) -> io::Result<()> {
    let bytes = Bytes::File(file.try_clone()?);
    let end = bytes.length()?;
    let (mut found, mut behind) = (hashbrown::HashMap::new(), end);
    let mut last = Header { id: tail.id, ..Header::default() };
    walk(&bytes, tail.id, |at, header, available| {
        behind = behind.max(at + header.size() as u64);
        note_last(&mut last, &header);
        let found = found.entry((header.stream, header.number)).or_insert_with(Vec::new);
        found.push(Found { at, length: header.length, available });
    })?;
    for chunk in tail.chunks() {
        let Some(header) = Header::parse(chunk) else { continue };
        note_last(&mut last, &header);
        let copies = found.get(&(header.stream, header.number)).map_or(&[][..], |copies| copies);
        if copies.iter().any(|copy| copy.available > header.length) {
            continue;
        }
        // A chunk reaches to where its header says, so only one of this length fits there. Of
        // several, the last counts.
        match copies.iter().rfind(|copy| copy.length == header.length) {
            Some(copy) => file.write_all_at(chunk, copy.at)?,
            None => append(file, &mut behind, chunk)?,
        }
    }
    if tail.lost > 0 {
        // Only the tail's header knew of the records lost last.
        let since = tail.lost_since.map_or(String::new(), |since| format!(" {since}"));
        let line = format!("# lost {} {}{since}\n", tail.lost, tail.lost_errno);
        let length = 2 + line.len() as u32;
        let header = Header { length, number: last.number.saturating_add(1), ..last };
        let text = [&header.encode()[..], &[op::TEXT, line.len() as u8], line.as_bytes()].concat();
        append(file, &mut behind, &text)?;
    }
    Ok(())
}

fn append(file: &File, behind: &mut u64, chunk: &[u8]) -> io::Result<()> {
    *behind = behind.next_multiple_of(ALIGN as u64);
    file.write_all_at(chunk, *behind)?;
    *behind += chunk.len() as u64;
    Ok(())
}

/// Keeps the header of the last chunk of the first stream, without what was lost before it.
fn note_last(last: &mut Header, header: &Header) {
    if header.stream == 0 && header.number >= last.number {
        *last = Header { lost: 0, ..*header };
    }
}
