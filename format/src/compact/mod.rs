//! The compact trace: chunks of records, as documented in docs/trace-format.md.

pub mod chunk;
pub mod decode;
pub mod encode;
pub mod op;
pub mod sum;
