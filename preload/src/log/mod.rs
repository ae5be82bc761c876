//! The log: where it is, how a line gets a place in it, how it reaches the file.

mod absorb;
pub(crate) mod chunks;
pub(crate) mod closed;
pub(crate) mod file;
mod header;
mod limits;
mod open;
mod path;
pub(crate) mod process;
mod publish;
pub(crate) mod ring;
pub(crate) mod session;
mod tail_file;
mod whose;

use crate::config;
use crate::record::compact;

pub(crate) use header::{Parent, started, write_header};
pub(crate) use open::{Cannot, create, detach_tail, earlier, id, path, remove};
use open::{make_folders, new_id};
pub(crate) use tail_file::remove_tail;

/// Writes a line that is not a record, newline added.
pub(crate) fn write_comment(line: &[u8]) {
    if config::get().is_compact {
        compact::text(&[line, b"\n"]);
    } else {
        ring::put(ring::reserve(line.len() + 1), &[line, b"\n"]);
    }
}
