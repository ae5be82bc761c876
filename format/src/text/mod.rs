//! The mtrace log: lines of text, as documented in docs/log-format.md.

pub mod decode;
pub mod encode;
pub mod escape;
pub mod meta;
