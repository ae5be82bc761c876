//! Bytes of a trace -> events and call sites.

mod front; // the first bytes of a file
pub mod sniff; // which kind of file
pub mod tail; // what its process had not written out
pub mod source; // log and tail as one sequence of bytes
pub mod lines; // bytes -> lines
pub mod header; // what the `#` lines say of the process
mod module_map; // and of what was loaded where
mod intern; // place -> call site
pub mod damage; // what of it cannot be read
pub mod trace; // a trace of either format, and reading one
pub mod mtrace_text; // lines -> events and call sites
pub mod compact; // chunks -> events and call stacks
mod ahead; // reading on a thread of its own
pub mod liveness; // whether the process still runs

use std::path::PathBuf;

pub use ahead::read_ahead;
pub use damage::{BadLine, Damage};
pub use trace::{By, Event, Holes, Log, OpenCall, Opened, read, read_before};

/// A module as a trace states it (`# module` lines).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Module {
    /// AVMA of its first mapping.
    pub start: u64,
    /// AVMA behind its last mapping.
    pub end: u64,
    /// AVMA - SVMA.
    pub bias: u64,
    /// Build ID, empty where the module has none.
    pub build_id: Vec<u8>,
    /// Path of the file as the kernel gives it.
    pub path: PathBuf,
    /// Name by which records refer to it (for the program: argv[0]).
    pub name: Vec<u8>,
}

/// Index into [`CallSites::modules`].
pub type ModuleId = u32;

/// Index into [`CallSites::sites`].
pub type SiteId = u32;

/// Which record kinds were seen at a call site; the inference of load biases uses it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Kinds {
    /// `+` records.
    pub alloc: bool,
    /// `-` records.
    pub free: bool,
    /// `<`, `>` and `!` records.
    pub realloc: bool,
}

/// How the address in the brackets is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Addressing {
    /// An AVMA (glibc 2.34 and before, libmtr.so by default, and every record without a file).
    Absolute,
    /// Relative to the first mapping of the module (glibc 2.35 and later).
    Relative,
    /// A log of glibc that does not say: small addresses may be relative or those of a non-PIE.
    Unknown,
}

/// The place in the traced program that called malloc or free, as the trace states it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallSite {
    /// Unescaped FILE, `None` for `[0xADDR]` alone and for records without a place.
    pub object: Option<Vec<u8>>,
    /// Dynamic symbol and the offset of the address in it.
    pub symbol: Option<(Vec<u8>, u64)>,
    /// Return address, `None` for records without a place.
    pub address: Option<u64>,
    /// Meaning of `address`.
    pub addressing: Addressing,
    /// The module that held it when it was recorded, where the trace carries a module map.
    pub module: Option<ModuleId>,
    /// Kinds of the records made there.
    pub kinds: Kinds,
}

/// Index into [`CallSites::stacks`].
pub type StackId = u32;

/// A call stack: the last link of it, and the stack that it continues.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StackNode {
    /// The rest of the stack, towards the root. It stands before this one.
    pub parent: Option<StackId>,
    /// What is innermost.
    pub link: Link,
}

/// One link of a call stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Link {
    /// A call.
    Call(SiteId),
    /// Frames were left out here: the stack is deeper than the limit.
    Cut,
    /// What called this is not known: there is no unwind information, or it could not be read.
    Ended,
    /// The trace does not say.
    Unknown,
}

/// All that symbolization needs of a trace.
#[derive(Debug, Clone, Default)]
pub struct CallSites {
    /// The program's own path (`# program`), where the trace states it.
    pub program: Option<PathBuf>,
    /// The traced process's folder (`# directory`), where the trace states it.
    pub directory: Option<PathBuf>,
    /// Every module that was loaded at some time, in order of appearance.
    pub modules: Vec<Module>,
    /// Distinct call sites.
    pub sites: Vec<CallSite>,
    /// Distinct call stacks, of a trace that has them; then these are what events refer to.
    pub stacks: Vec<StackNode>,
}
