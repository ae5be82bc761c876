//! Call site -> function, file:line, inlined frames.
//!
//! First each site becomes a file and an SVMA in it: `locate` finds the file, and the bias comes
//! from the trace's module map or, for logs that have none, from `load_bias`. Then all addresses of
//! a file are looked up together by `dwarf`.

mod address; // the address spaces
mod object_file; // an ELF file
mod symbols; // its symbol tables
mod locate; // module or FILE of the trace -> file
mod x86_64; // calls and jumps in machine code
mod calls; // could this call have made that record?
mod load_bias; // the bias of an object without a module map
mod debug_file; // separate debug files
mod demangle; // names as in the source
mod dwarf; // SVMA -> frames
mod operators; // whose operators new and delete are called
mod resolve; // all of it together

pub use resolve::resolve;

use std::path::PathBuf;

use hashbrown::{HashMap, HashSet};

use crate::read::{ModuleId, SiteId};

/// Where to look besides the places that the trace names.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// ELF files named on the command line. Default: none.
    pub programs: Vec<PathBuf>,
    /// Folder of the trace: relative names are tried there too. Default: none.
    pub trace_folder: Option<PathBuf>,
    /// Sites of which the symbol that is called there is asked for. Default: none.
    pub call_targets: HashSet<SiteId>,
    /// Modules that are asked whether one may have an operator delete of its own. Default: none.
    pub deletes_in: Vec<ModuleId>,
}

/// What became of the call sites.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resolved {
    /// One per site, in the same order.
    pub places: Vec<Place>,
    /// What the user has to know about them, one line each, none twice.
    pub notes: Vec<String>,
    /// The imported symbols that are called at the sites of [`Options::call_targets`], where the
    /// instruction says.
    pub call_targets: HashMap<SiteId, String>,
    /// Modules whose files are known and have no debug information, neither in themselves nor beside them.
    pub without_debug_info: HashSet<PathBuf>,
    /// One of [`Options::deletes_in`] has an operator delete of its own, or may have.
    pub may_define_delete: bool,
}

/// One frame of a call site; one address expands to several through inlining.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Frame {
    /// Demangled name.
    pub function: Option<String>,
    /// Source file as DWARF states it (compilation folder joined).
    pub file: Option<PathBuf>,
    /// Line, counted from 1.
    pub line: Option<u32>,
    /// The function was inlined into that of the next frame.
    pub inlined: bool,
}

/// How sure the analyzer is of a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Certainty {
    /// The trace states the module and where it was loaded.
    #[default]
    Stated,
    /// The trace has no module map; its addresses allow only one load bias.
    Inferred,
    /// Nothing is known but the address.
    Unresolved,
}

/// A call site after symbolization.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Place {
    /// The module's file.
    pub module: Option<PathBuf>,
    /// Return address as an SVMA of `module`.
    pub svma: Option<u64>,
    /// Innermost first; empty when there is neither debug information nor a symbol.
    pub frames: Vec<Frame>,
    /// Certainty of module and SVMA.
    pub certainty: Certainty,
    /// It is what a signal handler returns to: the frame outside of it is one that the signal
    /// interrupted.
    pub ends_signal: bool,
}
