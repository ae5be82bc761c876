//! A trace of either format: its events, and what is left when they have been handed out.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use mtr_format::compact::chunk;
use mtr_format::compact::decode::Request;
use mtr_format::compact::op::FreeKind;
use mtr_format::text::decode::Op;
use mtr_format::text::meta::{Meta, Source as Of};

use super::compact::{self, Bytes, Chunks};
use super::header::{Header, path};
use super::source::{Front, Input, Source};
use super::tail::{self, Beside, Loss, Slots};
use super::{CallSites, Damage, SiteId, front, lines, mtrace_text};
use crate::error::Error;

/// What happened, in the order of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A record.
    Record {
        /// What was done.
        op: Op,
        /// Who did it: a call site, or, in a trace with call stacks, a [`super::StackId`].
        site: SiteId,
        /// TID of the thread, 0 where the trace does not say.
        thread: u32,
        /// Line of the log, or number of the event in a compact trace, counted from 1.
        line: u64,
        /// The function that was called.
        by: By,
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
        /// The call, where it is certain that there was one.
        call: Option<OpenCall>,
    },
}

/// A call that had not returned when the process died.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenCall {
    /// It is a realloc; else a free, or a realloc to nothing.
    pub is_realloc: bool,
    /// Who made it.
    pub site: SiteId,
    /// Line of the log, or number of the event in a compact trace.
    pub line: u64,
}

/// The function that made a record, where the trace says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// The trace does not say.
    Unknown,
    /// It allocated a block.
    Alloc(Request),
    /// It freed one.
    Free(FreeKind),
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
    /// Number of lines; 0 for a compact trace.
    pub lines: u64,
    /// Number of streams of a compact trace: of threads at once, about. 0 where that is not known.
    pub streams: u64,
    /// Number of records.
    pub records: u64,
    /// Bytes of the lines of a log that are records.
    pub record_bytes: u64,
    /// `= Start` lines.
    pub starts: u64,
    /// The last mark was `= End`: recording was switched off.
    pub ended: bool,
    /// `# exit` was seen.
    pub exited: bool,
    /// Children made by fork that could not be traced, and why the first was not.
    pub untraced: (u64, i32),
    /// Programs that it started without libmtr.so.
    pub untraced_programs: u64,
    /// The program that it became by exec, without libmtr.so.
    pub left_for: Option<PathBuf>,
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
    AreTheEnd {
        /// Where the tail begins: a large hole in front of it is a loss all the same.
        from: u64,
    },
}

/// A trace that has been opened and not read yet.
#[derive(Debug)]
pub struct Opened {
    content: Content,
    /// Its process was running when it was opened.
    pub is_running: bool,
    tail: OfTail,
}

/// What only the tail of a trace knows.
#[derive(Debug, Default)]
struct OfTail {
    /// There is one that belongs to it.
    is_there: bool,
    /// Why it was not used.
    ignored: Option<String>,
    loss: Loss,
}

#[derive(Debug)]
enum Content {
    /// A log, and its first bytes, which have been read to tell what it is.
    Log(Source, Front),
    Trace(Chunks),
}

impl Opened {
    /// Opens the trace at `path`, its tail laid over it.
    pub fn open(path: &Path) -> Result<Opened, Error> {
        // Asked before it is opened: a process that ends meanwhile ran at the moment it shows.
        let is_running = tail::head(path).is_ok_and(|head| head.is_running());
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_CLOEXEC)
            .open(path)
            .map_err(|source| Error::Open { path: path.into(), source })?;
        let unreadable = |source| Error::Read { path: path.into(), position: 0, source };
        if !file.metadata().map_err(unreadable)?.is_file() {
            let content = of_pipe(file, path)?;
            return Ok(Opened { content, is_running: false, tail: OfTail::default() });
        }
        let front = front::of(&file).map_err(unreadable)?;
        refuse_newer(&front, path)?;
        let beside = tail::beside(path, &file, is_running).map_err(unreadable)?;
        let (blocks, slots, ignored) = match beside {
            Beside::Nothing => (None, None, None),
            Beside::Other(reason) => (None, None, Some(reason)),
            Beside::Log(blocks, _) => (Some(blocks), None, None),
            Beside::Trace(slots, _) => (None, Some(slots), None),
        };
        let loss = match (&blocks, &slots) {
            (Some(tail), _) => tail.loss,
            (_, Some(tail)) => tail.loss,
            _ => Loss::default(),
        };
        let tail = OfTail { is_there: blocks.is_some() || slots.is_some(), ignored, loss };
        let id = slots.as_ref().map(|slots| slots.id).or_else(|| compact::id_of(&front));
        let content = match id {
            Some(id) => {
                let bytes = Bytes::File(file);
                let slots = slots.unwrap_or_default();
                Content::Trace(Chunks::find(bytes, id, slots).map_err(unreadable)?)
            }
            None => {
                let source = Source::of_file(file, blocks.unwrap_or_default());
                Content::Log(source.map_err(unreadable)?, Front::default())
            }
        };
        Ok(Opened { content, is_running, tail })
    }

    /// The chunks of a compact trace; `None` for a log.
    pub fn chunks(&self) -> Option<&Chunks> {
        match &self.content {
            Content::Trace(chunks) => Some(chunks),
            Content::Log(..) => None,
        }
    }

    /// The bytes of a log.
    pub fn input(&mut self) -> Input<'_> {
        match &mut self.content {
            Content::Log(source, front) => Input::new(front, source),
            Content::Trace(_) => Input::none(),
        }
    }

    /// What a hole in a log means.
    pub fn holes(&self) -> Holes {
        match &self.content {
            Content::Log(source, _) if self.is_running => {
                Holes::AreTheEnd { from: source.tail_begins() }
            }
            _ => Holes::AreLosses,
        }
    }

    /// Adds to a log or trace that was read what only its tail knows.
    pub fn complete(&self, log: &mut Log) {
        log.running |= self.is_running;
        let OfTail { is_there, ignored, loss } = &self.tail;
        let damage = &mut log.damage;
        // The headers of chunks know how many, and not why.
        if loss.records > 0 && loss.records >= damage.lost {
            damage.lost = loss.records;
            damage.lost_errno = loss.errno;
            damage.lost_since = loss.since.or(damage.lost_since);
        }
        damage.unsaved = damage.unsaved.max(loss.unsaved.into());
        damage.tail_ignored = ignored.clone().or(damage.tail_ignored.take());
        log.had_tail = *is_there;
        self.look_for_tail(log);
    }

    /// Notes whether a tail is missing.
    fn look_for_tail(&self, log: &mut Log) {
        let OfTail { is_there, ignored, .. } = &self.tail;
        let has_none = !self.is_running && !is_there && ignored.is_none();
        log.damage.tail_missing |= has_none && self.chunks().is_some_and(Chunks::is_open);
    }
}

/// A pipe or the like: it can be read once, from its beginning.
fn of_pipe(mut file: File, path: &Path) -> Result<Content, Error> {
    let unreadable = |source| Error::Read { path: path.into(), position: 0, source };
    let (mut front, mut hole) = (Vec::new(), 0);
    loop {
        (&mut file).take(front::FRONT as u64).read_to_end(&mut front).map_err(unreadable)?;
        if front.is_empty() || front.iter().any(|byte| *byte != 0) {
            break;
        }
        hole += front.len() as u64;
        front.clear();
    }
    refuse_newer(&front, path)?;
    if let Some(id) = compact::id_of(&front) {
        file.read_to_end(&mut front).map_err(unreadable)?;
        let chunks = Chunks::find(Bytes::Memory(front), id, Slots::default());
        return Ok(Content::Trace(chunks.map_err(unreadable)?));
    }
    if hole > 0 {
        // One NUL stands for all of them.
        front.insert(0, 0);
    }
    let front = Front { bytes: front, left_out: hole.saturating_sub(1) };
    Ok(Content::Log(Source::of_pipe(file), front))
}

/// A trace of a later version is refused by its name: nothing in it can be relied on.
fn refuse_newer(front: &[u8], path: &Path) -> Result<(), Error> {
    match chunk::version_of(front) {
        Some(version) if version > chunk::VERSION => Err(Error::NewerVersion {
            path: path.into(),
            line: None,
            found: version.into(),
            newest: chunk::VERSION.into(),
        }),
        _ => Ok(()),
    }
}

/// Reads the trace at `path` and hands every event to `each`, in order. Of a running process it
/// reads what was certain at one moment.
pub fn read(path: &Path, each: impl FnMut(Event)) -> Result<Log, Error> {
    let mut trace = Opened::open(path)?;
    let holes = trace.holes();
    let mut log = match trace.chunks() {
        Some(chunks) => compact::read_from(chunks, path, each)?,
        None => mtrace_text::read_from(trace.input(), path, lines::CHUNK, holes, each)?,
    };
    trace.complete(&mut log);
    Ok(log)
}

/// As [`read`], up to a position: a number of bytes of a log, a stamp of a compact trace.
pub fn read_before(path: &Path, position: u64, each: impl FnMut(Event)) -> Result<Log, Error> {
    let mut trace = Opened::open(path)?;
    if let Content::Trace(chunks) = &mut trace.content {
        chunks.end_before(position);
        let mut log = compact::read_from(chunks, path, each)?;
        trace.look_for_tail(&mut log);
        return Ok(log);
    }
    let input = trace.input().take(position);
    mtrace_text::read_from(input, path, lines::CHUNK, Holes::AreLosses, each)
}

impl Log {
    /// Takes in a `#` line, which stands at this line and position.
    pub(super) fn state(&mut self, meta: Meta<'_>, place: (u64, u64)) {
        match meta {
            Meta::Untraced { children, errno, programs } => {
                self.untraced = (children, errno as i32);
                self.untraced_programs = programs;
            }
            Meta::Left(name) => self.left_for = Some(path(name)),
            Meta::Stayed => self.left_for = None,
            Meta::Exit => self.exited = true,
            Meta::Source(Of::Streams(streams)) => self.streams = streams,
            Meta::Source(Of::Running) => self.running = true,
            _ => {}
        }
        self.damage.state(meta, place);
        self.header.add(meta);
    }

    /// Takes in `= Start` (`true`) or `= End`.
    pub(super) fn switch(&mut self, on: bool) {
        self.starts += u64::from(on);
        self.ended = !on;
    }
}
