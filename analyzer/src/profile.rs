//! The result of an analysis: plain data, no input or output. It is all that outputs see.

use std::path::PathBuf;

pub use crate::replay::{FaultKind, Totals};
pub use crate::symbolize::{Certainty, Frame, Place};

/// What one trace says of one process.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Profile {
    /// The trace.
    pub trace: PathBuf,
    /// The program, where the trace or the command line names it.
    pub program: Option<PathBuf>,
    /// Its command line, where the trace states it.
    pub arguments: Vec<Vec<u8>>,
    /// Process ID.
    pub pid: Option<u32>,
    /// Process ID of the parent, for a process made by fork that carries on its parent's heap.
    pub parent: Option<u32>,
    /// How the trace ends.
    pub ending: Ending,
    /// Number of records.
    pub records: u64,
    /// Counts over the whole trace.
    pub totals: Totals,
    /// Live at the first moment at which live bytes were largest.
    pub peak: Amount,
    /// Allocation sites, those with most live bytes first.
    pub sites: Vec<Site>,
    /// What was done wrongly.
    pub faults: Vec<Fault>,
    /// What the reader of the report has to know.
    pub notes: Vec<String>,
    /// Something is missing from the trace.
    pub incomplete: bool,
}

/// How a trace ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Ending {
    /// The program ended normally.
    Exited,
    /// The program is running; the numbers are those of this moment.
    Running,
    /// The program was killed, or left by `_exit` or exec.
    Killed,
    /// The trace cannot say (glibc's).
    #[default]
    Unknown,
}

/// Bytes in blocks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amount {
    /// Requested bytes.
    pub bytes: u64,
    /// Blocks.
    pub blocks: u64,
}

/// All call sites at one line of one function of one module.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Site {
    /// Where it is.
    pub location: Location,
    /// Allocated over the whole trace.
    pub allocated: Amount,
    /// Live at the peak.
    pub peak: Amount,
    /// Live at the end.
    pub live: Amount,
}

/// A place, and what to call it where nothing is known of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Location {
    /// Module, address, frames.
    pub place: Place,
    /// The place as the trace states it: `object+0xaddr`.
    pub stated: String,
}

impl Location {
    /// The frame that names the allocation site: the innermost one that does not belong to a
    /// runtime, else the innermost one.
    pub fn frame(&self) -> Option<&Frame> {
        let frames = &self.place.frames;
        frames.iter().find(|frame| !is_runtime(frame)).or(frames.first())
    }
}

/// Whether a frame is code of a language's runtime that was inlined into the program.
fn is_runtime(frame: &Frame) -> bool {
    const FOLDERS: [&str; 5] =
        ["/rustc/", "/rustlib/src/rust/library/", "/include/c++/", "/libstdc++-v3/", "/libcxx/"];
    let file = frame.file.as_deref().map(|file| file.to_string_lossy());
    file.is_some_and(|file| FOLDERS.iter().any(|folder| file.contains(folder)))
}

/// What was done wrongly, and where.
#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    /// What was done.
    pub kind: FaultKind,
    /// How often at these places.
    pub count: u64,
    /// Address at the first time.
    pub ptr: u64,
    /// Line of the trace at the first time.
    pub line: u64,
    /// Who did it.
    pub by: Location,
    /// Who had allocated the block.
    pub allocated: Option<Location>,
    /// Who had freed it first.
    pub freed: Option<Location>,
}
