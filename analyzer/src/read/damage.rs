//! What is wrong with a trace: what of it cannot be read, or was never written.

use mtr_format::text::escape::unescape;
use mtr_format::text::meta::{Meta, Source};

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
    /// The first of these lines.
    pub first_malformed: Option<BadLine>,
    /// Records and lines of a compact trace that mean nothing.
    pub meaningless: u64,
    /// Lines of which a part was never stored.
    pub torn: u64,
    /// The last line was cut and is not counted.
    pub cut: bool,
    /// A compact trace ends inside of a chunk.
    pub chunk_cut: bool,
    /// Bytes that a compact trace has, and how many it had when it was whole, if those are more.
    pub short: Option<(u64, u64)>,
    /// A compact trace is not whole without its tail, which is not there.
    pub tail_missing: bool,
    /// Chunks of a compact trace that are not as they were written, or of which the end cannot be read.
    pub damaged: u64,
    /// About how many bytes these are.
    pub damaged_bytes: u64,
    /// Chunks of a compact trace that are missing, but for those that could not be written.
    pub missing: u64,
    /// Nanoseconds from the start to the first of them.
    pub missing_since: Option<u64>,
    /// Stretches of a log that are missing: somebody cut them off, or they could not be written.
    pub holes: u64,
    /// Their bytes.
    pub hole_bytes: u64,
    /// The first one: the line it is in, and its position.
    pub first_hole: Option<(u64, u64)>,
    /// Records that the process could not write.
    pub lost: u64,
    /// Why it could not: an errno, or one of the values that docs/log-format.md adds.
    pub lost_errno: i32,
    /// Nanoseconds from the start of the log to the first of them, where it is stated.
    pub lost_since: Option<u64>,
    /// Streams whose last records were in memory alone and are missing; `u64::MAX` for all.
    pub unsaved: u64,
    /// Why the tail beside the log was not used.
    pub tail_ignored: Option<String>,
}

impl Damage {
    /// Whether something is missing.
    pub fn is_some(&self) -> bool {
        self.cut || self.hides_records()
    }

    /// Whether there were records that nobody can see.
    pub fn hides_records(&self) -> bool {
        let counts = [self.malformed, self.meaningless, self.torn, self.lost, self.unsaved];
        counts.iter().any(|count| *count > 0)
            || self.has_gaps()
            || self.tail_missing
            || self.tail_ignored.is_some()
    }

    /// Whether something is missing of which nobody knows how many records it had, so that what comes
    /// behind it refers to what nobody can see.
    pub fn has_gaps(&self) -> bool {
        // Behind a chunk that was cut there may have been others of the same time.
        self.missing + self.damaged + self.holes > 0 || self.chunk_cut || self.short.is_some()
    }

    /// Whether so many records could be missing, at any place of the trace.
    pub fn explains(&self, records: u64) -> bool {
        // The tail, or memory alone, had the end of each thread, and these are at different times.
        self.has_gaps()
            || self.tail_missing
            || self.unsaved > 0
            || self.lost.saturating_add(self.malformed).saturating_add(self.meaningless) >= records
    }

    /// Takes in what a `#` line says is missing; a hole is where the line stands.
    pub fn state(&mut self, meta: Meta<'_>, place: (u64, u64)) {
        match meta {
            Meta::Lost { records, errno, since } => {
                self.lost = records;
                self.lost_errno = errno as i32;
                self.lost_since = since.filter(|_| records > 0);
            }
            Meta::Unsaved { streams } => self.unsaved = self.unsaved.max(streams),
            // It has been written out.
            Meta::Exit if self.unsaved == u64::MAX => self.unsaved = 0,
            Meta::Source(source) => self.state_source(source, place),
            _ => {}
        }
    }

    fn state_source(&mut self, source: Source<'_>, place: (u64, u64)) {
        match source {
            Source::Missing { chunks, since } => {
                (self.missing, self.missing_since) = (chunks, since);
            }
            Source::Damaged { chunks, bytes } => {
                (self.damaged, self.damaged_bytes) = (chunks, bytes);
            }
            Source::Meaningless(records) => self.meaningless = records,
            Source::Hole(bytes) => self.add_hole(bytes, place),
            Source::Torn(lines) => self.torn = lines,
            Source::CutLine => self.cut = true,
            Source::CutChunk => self.chunk_cut = true,
            Source::Cut { there, whole } => self.short = Some((there, whole)),
            Source::TailMissing => self.tail_missing = true,
            Source::TailUnused(reason) => {
                let reason: Vec<u8> = unescape(reason).collect();
                self.tail_ignored = Some(String::from_utf8_lossy(&reason).into_owned());
            }
            Source::Streams(_) | Source::Running => {}
        }
    }

    /// A stretch of so many bytes is missing at this line and position.
    pub(super) fn add_hole(&mut self, bytes: u64, place: (u64, u64)) {
        self.holes += 1;
        self.hole_bytes = self.hole_bytes.saturating_add(bytes);
        self.first_hole.get_or_insert(place);
    }
}
