//! The log: where it is, how a line gets a place in it, how it reaches the file.

pub(crate) mod file;
mod open;
mod path;
pub(crate) mod process;
pub(crate) mod record;
pub(crate) mod ring;

pub(crate) use open::{Cannot, create, earlier, id, path, remove_tail};

/// Writes a line that is not a record, newline added.
pub(crate) fn write_comment(line: &[u8]) {
    ring::put(ring::reserve(line.len() + 1), &[line, b"\n"]);
}
