//! A trace of either format: its events, and what is left when they have been handed out.

use std::io::Read;
use std::path::Path;

use mtr_format::compact::decode::is_trace;
use mtr_format::text::decode::Op;
use mtr_format::text::meta::Meta;

use super::header::Header;
use super::source::Source;
use super::{CallSites, SiteId, compact, lines, mtrace_text, tail};
use crate::error::Error;

/// Bytes that tell the two formats apart.
const FRONT: u64 = 4096;

/// What happened, in the order of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A record.
    Record {
        /// What was done.
        op: Op,
        /// Who did it: a call site, or, in a trace with call stacks, a [`super::StackId`].
        site: SiteId,
        /// Line of the log, or number of the event in a compact trace, counted from 1.
        line: u64,
    },
    /// The time at which what follows happened.
    Time {
        /// Nanoseconds since the trace began.
        nanoseconds: u64,
    },
    /// The size of the process.
    Resident {
        /// Resident bytes.
        bytes: u64,
    },
    /// A free of this block was going on when the process died: from here on it may be free.
    Unpublished {
        /// The block.
        ptr: u64,
    },
}

/// A line that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadLine {
    /// Counted from 1.
    pub line: u64,
    /// Counted from 1.
    pub column: usize,
    /// What should have stood there.
    pub expected: &'static str,
    /// The line, cut to a length that fits a message.
    pub text: String,
}

/// What is wrong with a log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Damage {
    /// Lines that are none of the grammar, or words that mean nothing.
    pub malformed: u64,
    /// The first of these lines.
    pub first_malformed: Option<BadLine>,
    /// Lines or records of which a part was never stored.
    pub torn: u64,
    /// The last line or record was cut, and is not counted.
    pub cut: bool,
    /// Records that the process could not write.
    pub lost: u64,
    /// Why it could not: an errno, or one of the values that docs/log-format.md adds.
    pub lost_errno: i32,
    /// Nanoseconds from the start of the log to the first of them, where it is stated.
    pub lost_since: Option<u64>,
    /// Why the tail beside the log was not used.
    pub tail_ignored: Option<String>,
}

/// A log that has been read, but for its events.
#[derive(Debug, Clone, Default)]
pub struct Log {
    /// It is a compact trace: its sites are call stacks, and what is numbered are events.
    pub is_compact: bool,
    /// What its `#` lines say of the process.
    pub header: Header,
    /// Its call sites and modules.
    pub sites: CallSites,
    /// Number of lines, or of words.
    pub lines: u64,
    /// Number of records.
    pub records: u64,
    /// `= Start` lines.
    pub starts: u64,
    /// The last mark was `= End`: recording was switched off.
    pub ended: bool,
    /// `# exit` was seen.
    pub exited: bool,
    /// Children made by fork that could not be traced, and why the first was not.
    pub untraced: (u64, i32),
    /// The process was running when the log was opened.
    pub running: bool,
    /// A tail lies beside it: the process runs, or did not end normally.
    pub had_tail: bool,
    /// What is wrong with it.
    pub damage: Damage,
}

/// What a hole in a log means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holes {
    /// The process is gone: what was not stored never will be.
    AreLosses,
    /// The process is running: a line that was not stored when we looked may be the free that comes
    /// before the next one. What stands before the first hole is one moment of the process.
    AreTheEnd,
}

/// A trace that has been opened and not read yet.
#[derive(Debug)]
pub struct Opened {
    source: Source,
    /// Its first bytes, which have been read to tell its format.
    front: Vec<u8>,
    /// It is a compact trace.
    pub is_compact: bool,
    /// Its process was running when it was opened.
    pub is_running: bool,
}

impl Opened {
    /// Opens the trace at `path`, its tail laid over it.
    pub fn open(path: &Path) -> Result<Opened, Error> {
        // Asked before it is opened: a process that ends meanwhile ran at the moment it shows.
        let is_running = tail::head(path).is_ok_and(|head| head.is_running());
        let mut source = Source::open(path)?;
        let mut front = Vec::new();
        let unreadable = |source| Error::Read { path: path.into(), position: 0, source };
        // A pipe cannot be read twice.
        (&mut source).take(FRONT).read_to_end(&mut front).map_err(unreadable)?;
        Ok(Opened { source, is_compact: is_trace(&front), front, is_running })
    }

    /// Its bytes.
    pub fn input(&mut self) -> impl Read {
        self.front.as_slice().chain(&mut self.source)
    }

    /// What a hole in it means.
    pub fn holes(&self) -> Holes {
        if self.is_running { Holes::AreTheEnd } else { Holes::AreLosses }
    }

    /// Adds to a log that was read from [`Opened::input`] what only its tail knows.
    pub fn complete(&self, log: &mut Log) {
        log.running = self.is_running;
        let (lost, errno, since) = self.source.lost();
        if lost > log.damage.lost {
            log.damage.lost = lost;
            log.damage.lost_errno = errno;
            log.damage.lost_since = since.or(log.damage.lost_since);
        }
        log.damage.tail_ignored = self.source.tail_ignored().map(String::from);
        log.had_tail = self.source.had_tail();
    }
}

/// Reads the trace at `path` and hands every event to `each`, in order. Of a running process it
/// reads what was certain at one moment.
pub fn read(path: &Path, each: impl FnMut(Event)) -> Result<Log, Error> {
    let mut trace = Opened::open(path)?;
    let (is_compact, holes, chunk) = (trace.is_compact, trace.holes(), lines::CHUNK);
    let mut log = match is_compact {
        true => compact::read_from(trace.input(), path, chunk, holes, each)?,
        false => mtrace_text::read_from(trace.input(), path, chunk, holes, each)?,
    };
    trace.complete(&mut log);
    Ok(log)
}

impl Log {
    /// Takes in a `#` line.
    pub(super) fn state(&mut self, meta: Meta<'_>) {
        match meta {
            Meta::Lost { records, errno, since } => {
                self.damage.lost = records;
                self.damage.lost_errno = errno as i32;
                self.damage.lost_since = since.filter(|_| records > 0);
            }
            Meta::Untraced { children, errno } => self.untraced = (children, errno as i32),
            Meta::Exit => self.exited = true,
            _ => {}
        }
        self.header.add(meta);
    }

    /// Takes in `= Start` (`true`) or `= End`.
    pub(super) fn switch(&mut self, on: bool) {
        self.starts += u64::from(on);
        self.ended = !on;
    }
}
