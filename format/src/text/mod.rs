//! The mtrace log: lines of text, as documented in docs/log-format.md.

pub mod encode;
pub mod escape;
