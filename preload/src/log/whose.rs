//! Whose a log is that stands where this process wants to have its own: the rule of who may replace
//! which.

use mtr_format::compact::{chunk, op};

use super::open::Cannot;
use super::process::{Process, writer_of};
use super::session;
use crate::config;
use crate::global::{Path, Scratch, Text};
use crate::sys;

/// What stands at a path that a log might take.
pub(super) enum Found {
    /// Nothing, or a log of an earlier run whose writer is gone.
    Free,
    /// A log that is not to be replaced.
    Taken,
    /// The log of this very process before an exec.
    EarlierImage,
}

/// Who wants a log.
#[derive(Clone, Copy)]
pub(super) struct Claimant<'a> {
    pub(super) this: Process,
    /// The log of the parent that has forked this process.
    pub(super) parent_log: Option<&'a Path>,
}

/// Whose what stands at `path` is.
pub(super) fn look_at(path: &Path, claimant: Claimant<'_>) -> Result<Found, Cannot> {
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
    Ok(whose(start, claimant))
}

/// Whose log it is that begins with `start`.
pub(super) fn whose(start: &[u8], claimant: Claimant<'_>) -> Found {
    let Some(mut text) = Scratch::<512>::new() else { return Found::Taken };
    let start = text_of_start(start, &mut text);
    let Some(writer) = writer_of(start) else { return Found::Free };
    let of_run = session::of(start);
    let is_forked = claimant.parent_log.is_some();
    // Where there is no /proc, the PID is all that is known of a process, and it counts within a run.
    let is_certain = writer.ticks > 0 || of_run == Some(config::get().session);
    if writer == claimant.this && is_certain {
        Found::EarlierImage
    } else if session::may_replace(of_run, is_forked) && !writer.is_alive() {
        Found::Free
    } else {
        Found::Taken
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
