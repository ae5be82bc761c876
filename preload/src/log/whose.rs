//! Whose a log is that stands where this process wants to have its own: the rule of who may replace
//! which.

use mtr_format::compact::{chunk, op};

use super::open::Cannot;
use super::process::{Process, writer_of};
use crate::config;
use crate::global::{Path, Scratch, Text};
use crate::sys;

/// What stands at a path that a log might take.
pub(super) enum Found {
    /// Nothing, or a log whose writer is gone.
    Free,
    /// A log that belongs to somebody else now.
    Taken,
    /// The log of this very process before an exec.
    EarlierImage,
}

/// Whose what stands at `path` is.
pub(super) fn look_at(path: &Path, this: Process) -> Result<Found, Cannot> {
    let stat = match sys::lstat(path.as_c_str()) {
        Err(libc::ENOENT) => return Ok(Found::Free),
        Err(errno) => return Err(Cannot::Create(errno)),
        Ok(stat) => stat,
    };
    match stat.st_mode & libc::S_IFMT {
        libc::S_IFREG => {}
        libc::S_IFLNK => return Err(Cannot::Replace(c"is a symbolic link")),
        libc::S_IFDIR => return Err(Cannot::Replace(c"is a folder")),
        _ => return Err(Cannot::Replace(c"is not a regular file")),
    }
    let Some(mut start) = Scratch::<512>::new() else { return Err(Cannot::Create(libc::ENOMEM)) };
    // All that is asked for stands in the first lines.
    let Ok(start) = sys::read_file(path.as_c_str(), start.space()) else { return Ok(Found::Free) };
    Ok(whose(start, this))
}

/// Whose log it is that begins with `start`.
pub(super) fn whose(start: &[u8], this: Process) -> Found {
    let Some(mut text) = Scratch::<512>::new() else { return Found::Taken };
    let start = text_of_start(start, &mut text);
    let session = config::get().session.as_bytes();
    let same_session = !session.is_empty()
        && start
            .split(|byte| *byte == b'\n')
            .any(|line| line.strip_prefix(b"# session ").is_some_and(|found| found == session));
    match writer_of(start) {
        Some(writer) if writer == this => Found::EarlierImage,
        Some(writer) if same_session || writer.is_alive() => Found::Taken,
        _ => Found::Free,
    }
}

/// The ID of a log and whether it is a compact trace, from the bytes that it begins with.
pub(super) fn id_of(start: &[u8]) -> Option<(u64, bool)> {
    let mut text = Scratch::<512>::new()?;
    let lines = text_of_start(start, &mut text);
    let digits = lines.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"# id "))?;
    let id = u64::from_str_radix(core::str::from_utf8(digits).ok()?, 16).ok()?;
    Some((id, is_compact(start)))
}

/// Whether a trace that begins with `start` is a compact one.
fn is_compact(start: &[u8]) -> bool {
    start.starts_with(&chunk::MARK)
}

/// The first lines of a log, or of the TEXT that a compact trace begins with.
fn text_of_start<'a>(start: &'a [u8], out: &'a mut Text<512>) -> &'a [u8] {
    if !is_compact(start) {
        return start;
    }
    let mut rest = start.get(chunk::HEADER..).unwrap_or(&[]);
    while let [op::TEXT, len, text @ ..] = rest {
        let (text, behind) = text.split_at_checked(usize::from(*len)).unwrap_or((text, &[]));
        out.push(text);
        rest = behind;
    }
    out.as_bytes()
}
