//! Lines of an mtrace log -> events and call sites.

use std::io::Read;
use std::path::Path;

use mtr_format::text::decode::{Line, Op};
use mtr_format::text::meta::Meta;

use super::header::Header;
use super::intern::Interner;
use super::lines::{self, RawLine};
use super::source::Source;
use super::tail;
use super::{Addressing, CallSites, SiteId};
use crate::error::Error;

/// Newest version of our logs that is understood.
const NEWEST: u64 = 1;

/// What happened, in the order of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A record.
    Record {
        /// What was done.
        op: Op,
        /// Who did it.
        site: SiteId,
        /// Line of the log, counted from 1.
        line: u64,
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
    /// Lines that are none of the grammar.
    pub malformed: u64,
    /// The first of them.
    pub first_malformed: Option<BadLine>,
    /// Lines of which a part was never stored.
    pub torn: u64,
    /// The last line has no newline: it was cut, and is not counted.
    pub cut: bool,
    /// Records that the process could not write.
    pub lost: u64,
    /// Why it could not.
    pub lost_errno: i32,
    /// Why the tail beside the log was not used.
    pub tail_ignored: Option<String>,
}

/// A log that has been read, but for its events.
#[derive(Debug, Clone, Default)]
pub struct Log {
    /// What its `#` lines say of the process.
    pub header: Header,
    /// Its call sites and modules.
    pub sites: CallSites,
    /// Number of lines.
    pub lines: u64,
    /// Number of records.
    pub records: u64,
    /// `= Start` lines.
    pub starts: u64,
    /// The last mark was `= End`: recording was switched off.
    pub ended: bool,
    /// `# exit` was seen.
    pub exited: bool,
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

/// Reads the log at `path` and hands every event to `each`, in order. Of a running process it reads
/// what was certain at one moment.
pub fn read(path: &Path, each: impl FnMut(Event)) -> Result<Log, Error> {
    // Asked before the log is opened: a process that ends meanwhile ran at the moment it shows.
    let running = tail::head(path).is_ok_and(|head| head.is_running());
    let mut source = Source::open(path)?;
    let holes = if running { Holes::AreTheEnd } else { Holes::AreLosses };
    let mut log = read_from(&mut source, path, lines::CHUNK, holes, each)?;
    log.running = running;
    let (lost, errno) = source.lost();
    if lost > log.damage.lost {
        log.damage.lost = lost;
        log.damage.lost_errno = errno;
    }
    log.damage.tail_ignored = source.tail_ignored().map(String::from);
    log.had_tail = source.had_tail();
    Ok(log)
}

/// Reads a log from `input`; `path` is for messages.
pub fn read_from(
    input: impl Read,
    path: &Path,
    chunk: usize,
    holes: Holes,
    mut each: impl FnMut(Event),
) -> Result<Log, Error> {
    enum Stop {
        AtHole { line: u64 },
        Io(std::io::Error),
        NewerVersion { line: u64, found: u64 },
    }
    impl From<std::io::Error> for Stop {
        fn from(error: std::io::Error) -> Stop {
            Stop::Io(error)
        }
    }

    let mut log = Log::default();
    let mut interner = Interner::default();
    let lines = lines::split(input, chunk, |raw| {
        let parsed = match raw {
            RawLine { after_gap: true, number, .. } if holes == Holes::AreTheEnd => {
                return Err(Stop::AtHole { line: number });
            }
            RawLine { complete: false, .. } if holes == Holes::AreTheEnd => return Ok(()),
            // Nobody knows how much of it is missing.
            RawLine { complete: false, .. } => {
                log.damage.cut = true;
                return Ok(());
            }
            RawLine { bytes, after_gap: false, .. } => Line::parse(bytes),
            RawLine { bytes, torn, .. } => {
                let parsed = Line::parse_after_gap(bytes);
                // A rest that is no line by itself is what a gap left of one.
                let rest = matches!(parsed, Line::Malformed { .. });
                log.damage.torn += u64::from(torn || rest);
                if rest { Line::Blank } else { parsed }
            }
        };
        match parsed {
            Line::Record { place, op } => {
                let site = interner.site(place, op);
                log.records += 1;
                each(Event::Record { op, site, line: raw.number });
            }
            Line::Unpublished { ptr } => each(Event::Unpublished { ptr }),
            Line::Blank => {}
            Line::Start => {
                log.starts += 1;
                log.ended = false;
            }
            Line::End => log.ended = true,
            Line::Meta(meta) => {
                if let Meta::Version(found) = meta
                    && found > NEWEST
                {
                    return Err(Stop::NewerVersion { line: raw.number, found });
                }
                log.meta(meta, &mut interner);
            }
            Line::Malformed { expected, column } => {
                log.damage.malformed += 1;
                log.damage.first_malformed.get_or_insert_with(|| BadLine {
                    line: raw.number,
                    column: column + 1,
                    expected,
                    text: shown(raw.bytes),
                });
            }
        }
        Ok(())
    });
    log.lines = match lines {
        Ok(lines) => lines,
        Err(Stop::AtHole { line }) => line - 1,
        Err(Stop::Io(source)) => {
            return Err(Error::Read { path: path.into(), position: 0, source });
        }
        Err(Stop::NewerVersion { line, found }) => {
            return Err(Error::NewerVersion { path: path.into(), line, found, newest: NEWEST });
        }
    };
    log.sites = CallSites {
        program: log.header.program.clone(),
        directory: log.header.directory.clone(),
        ..interner.finish()
    };
    Ok(log)
}

impl Log {
    fn meta(&mut self, meta: Meta<'_>, interner: &mut Interner) {
        match meta {
            Meta::Module { .. } | Meta::Unload { .. } => interner.module(meta),
            Meta::Lost { records, errno } => {
                self.damage.lost = records;
                self.damage.lost_errno = errno as i32;
            }
            Meta::Exit => self.exited = true,
            Meta::Version(_) => interner.state_ours(Addressing::Absolute),
            Meta::RelativeAddresses(true) => interner.state_ours(Addressing::Relative),
            _ => {}
        }
        self.header.add(meta);
    }
}

/// A line as a message can show it.
fn shown(line: &[u8]) -> String {
    const MOST: usize = 60;
    let cut = line.get(..MOST).unwrap_or(line);
    let dots = if cut.len() < line.len() { "..." } else { "" };
    format!("{}{dots}", cut.escape_ascii())
}

#[cfg(test)]
mod tests;
