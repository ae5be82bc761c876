//! Call site -> function, file:line, inlined frames.

use std::path::PathBuf;

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
}
