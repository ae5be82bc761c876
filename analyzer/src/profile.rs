//! The result of an analysis: plain data, no input or output. It is all that outputs see.

mod alone; // runtimes without the program
pub mod merge; // several processes as one
mod runtime; // frames that are not the user's
mod stacks; // call stacks and their allocation sites

use std::path::PathBuf;

pub use crate::read::{Link, SiteId, StackId, StackNode};
pub use crate::replay::{AllocatedBy, FaultKind, Inside, Totals};
pub use crate::symbolize::{Certainty, Frame, Place};
pub use mtr_format::compact::op::FreeKind;
pub use runtime::{Owner, is_cpp_runtime, is_module, is_operator_new, is_runtime_module, name_of};
pub use stacks::{Call, StackFrame, Stacks, Step};

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
    /// The trace is a compact one: what is numbered are its events, not its lines.
    pub is_compact: bool,
    /// Number of records.
    pub records: u64,
    /// Counts over the whole trace.
    pub totals: Totals,
    /// Live at the end and no finding: what runtimes keep until exit by design.
    pub suppressed: Amount,
    /// Live at the first moment at which live bytes were largest.
    pub peak: Amount,
    /// Nanoseconds from the start of the trace to the peak, where it has samples of the time.
    pub peak_time: Option<u64>,
    /// The first sample behind the peak: it was reached between these two.
    pub peak_until: Option<u64>,
    /// Allocation sites, those with most live bytes first.
    pub sites: Vec<Site>,
    /// The call stacks that `sites` and `faults` refer to.
    pub stacks: Stacks,
    /// What was done wrongly.
    pub faults: Vec<Fault>,
    /// What the reader of the report has to know.
    pub notes: Vec<String>,
    /// Something is missing from the trace.
    pub incomplete: bool,
    /// The processes that were put together, where this is the sum of several; else empty.
    pub parts: Vec<Part>,
}

/// One process of several that a profile is the sum of.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Part {
    /// Its trace.
    pub trace: PathBuf,
    /// The program, where the trace or the command line names it.
    pub program: Option<PathBuf>,
    /// Its command line, where the trace states it.
    pub arguments: Vec<Vec<u8>>,
    /// Process ID.
    pub pid: Option<u32>,
    /// How its trace ends.
    pub ending: Ending,
    /// Its counts.
    pub totals: Totals,
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

/// An allocation site: one line of one function of one module.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Site {
    /// Where it is; its stack is one of `stacks`.
    pub location: Location,
    /// The call stacks that lead to it, in order of appearance.
    pub stacks: Vec<SiteStack>,
    /// Allocated over the whole trace.
    pub allocated: Amount,
    /// Live at the peak.
    pub peak: Amount,
    /// Live at the end.
    pub live: Amount,
}

/// The share of one call stack in an allocation site.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SiteStack {
    /// The stack; `None` where the trace does not say.
    pub stack: Option<StackId>,
    /// Allocated over the whole trace.
    pub allocated: Amount,
    /// Live at the peak.
    pub peak: Amount,
    /// Live at the end.
    pub live: Amount,
    /// What is live is no finding: see [`Profile::suppressed`].
    pub is_suppressed: bool,
}

/// See [`Location::key`].
pub(crate) type SiteKey = (Option<PathBuf>, String, Option<PathBuf>, Option<u64>);

/// A place, and what to call it where nothing is known of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Location {
    /// Module, address, frames of the call.
    pub place: Place,
    /// The place as the trace states it: `object+0xaddr`.
    pub stated: String,
    /// How it was reached; `None` where the trace does not say.
    pub stack: Option<StackId>,
}

impl Location {
    /// The frame that names the place: the innermost one that does not belong to a runtime, else
    /// the innermost one that says what the runtime wanted memory for.
    pub fn frame(&self) -> Option<&Frame> {
        let Place { frames, module, .. } = &self.place;
        let is_own = |frame: &&Frame| match runtime::owner(module.as_deref(), Some(frame)) {
            Owner::Program => true,
            Owner::Runtime => false,
            Owner::Backtrace => !frames.iter().any(runtime::makes_backtrace),
        };
        let is_telling = |frame: &&Frame| !alone::is_plumbing(frame);
        frames.iter().find(is_own).or(frames.iter().find(is_telling)).or(frames.first())
    }

    /// What tells one allocation site from another: module, function, file, and line or address.
    pub(crate) fn key(&self) -> SiteKey {
        let place = &self.place;
        match self.frame() {
            Some(frame) => (
                place.module.clone(),
                frame.function.clone().unwrap_or_default(),
                frame.file.clone(),
                // Without a line, the address is all that tells two places apart.
                frame.line.map_or(place.svma, |line| Some(line.into())),
            ),
            None => {
                let unresolved = place.certainty == Certainty::Unresolved;
                let stated = if unresolved { self.stated.clone() } else { String::new() };
                (place.module.clone(), stated, None, place.svma)
            }
        }
    }
}

/// What was done wrongly, and where.
#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    /// What was done.
    pub kind: FaultKind,
    /// It was done by realloc, not by free or the like.
    pub is_realloc: bool,
    /// How often at these places.
    pub count: u64,
    /// Address at the first time.
    pub ptr: u64,
    /// Line of the trace, or number of the event, at the first time.
    pub line: u64,
    /// Requested bytes of the block at the first time, where they matter.
    pub size: Option<u64>,
    /// The block around the address at the first time, for a free inside of one.
    pub inside: Option<Inside>,
    /// Who did it.
    pub by: Location,
    /// Who had allocated the block.
    pub allocated: Option<Location>,
    /// Who had freed it first.
    pub freed: Option<Location>,
}
