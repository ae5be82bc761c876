//! The compact trace: 64-bit words, as documented in docs/trace-format.md.

pub mod decode;
pub mod word;
