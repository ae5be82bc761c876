//! Layout of mtr's trace files: the contract between libmtr.so, which writes them, and the
//! analyzer, which reads them.
//!
//! `no_std`, no dependencies, no allocation: everything works on slices of the caller, because one
//! of its users runs inside `malloc`.
#![no_std]

#[cfg(test)]
extern crate std;

pub mod compact;
pub mod tail;
pub mod text;

/// What the name of a log or trace begins with until it has its first lines; 16 hexadecimal digits
/// follow. There is no record in it yet.
pub const UNFINISHED: &str = ".mtr-";
