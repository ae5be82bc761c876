//! What is wrong with a trace: what of it cannot be read, or was never written.

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
    /// The last line was cut and is not counted; or a compact trace ends inside of a chunk.
    pub cut: bool,
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
    /// Whether there were records that nobody can see.
    pub fn hides_records(&self) -> bool {
        let counts = [self.malformed, self.torn, self.lost, self.unsaved];
        counts.iter().any(|count| *count > 0)
            || self.has_gaps()
            || self.tail_missing
            || self.tail_ignored.is_some()
    }

    /// Whether something is missing of which nobody knows how many records it had, so that what comes
    /// behind it refers to what nobody can see.
    pub fn has_gaps(&self) -> bool {
        self.missing + self.damaged + self.holes > 0 || self.short.is_some()
    }

    /// Whether so many records could be missing, at any place of the trace.
    pub fn explains(&self, records: u64) -> bool {
        // The tail, or memory alone, had the end of each thread, and these are at different times.
        self.has_gaps()
            || self.tail_missing
            || self.unsaved > 0
            || self.lost.saturating_add(self.malformed) >= records
    }
}
