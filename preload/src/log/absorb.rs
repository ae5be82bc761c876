//! Completing the log of this process's image before an exec, which left its tail beside it.

use mtr_format::tail;

use super::{open, ring};
use crate::global::Path;
use crate::sys::{self, Fd};

/// Writes the tail of `log` into it and removes the tail. Nobody else writes to either: an exec ends
/// all threads. What cannot be done is left to the readers, who lay the tail over the log.
pub(super) fn absorb(log: &Path) {
    let flags = libc::O_RDWR | libc::O_CLOEXEC | libc::O_NOFOLLOW | libc::O_NOCTTY;
    let Ok(fd) = sys::openat(log.as_c_str(), flags, 0) else { return };
    if let Some(tail_fd) = open::open_tail(log) {
        if write_out(fd, tail_fd).is_some() {
            open::remove_tail(log);
        }
        sys::close(tail_fd);
    }
    sys::close(fd);
}

/// `None` when the tail is not one of this log, or not all of it could be written.
fn write_out(log: Fd, tail_fd: Fd) -> Option<()> {
    let len = usize::try_from(sys::fstat(tail_fd).ok()?.st_size).ok()?;
    let mapped = (len >= tail::BLOCKS).then(|| sys::map_private(tail_fd, len).ok()).flatten()?;
    // SAFETY: a private mapping of that many bytes of a file that nobody else knows any more.
    let bytes = unsafe { core::slice::from_raw_parts(mapped, len) };
    let written = write_blocks(log, bytes);
    // SAFETY: `bytes` is not used any more.
    unsafe { sys::unmap(mapped.cast_mut(), len) };
    written
}

fn write_blocks(log: Fd, bytes: &[u8]) -> Option<()> {
    let word = |at: usize| bytes.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
    let half = |at: usize| bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes);
    let mut start = [0; 512];
    // SAFETY: `start` is an array of that many bytes.
    let read = unsafe { sys::pread(log, start.as_mut_ptr(), start.len(), 0) }.ok()?;
    let start = start.get(..read)?;
    let (id, is_compact) = open::id_of(start)?;
    // A tail that has lost records keeps the count of them.
    if bytes.get(..8)? != tail::MAGIC || word(tail::ID)? != id || word(tail::LOST)? != 0 {
        return None;
    }
    let (size, count) = (half(tail::BLOCK_SIZE)? as usize, half(tail::BLOCK_COUNT)? as usize);
    let mut all = Some(());
    for index in 0..count.min(tail::MAX_BLOCKS) {
        let number = word(tail::NUMBERS + 8 * index)?;
        if number == tail::UNUSED {
            continue;
        }
        let from = tail::BLOCKS + size * index;
        let position = (number & !tail::BUSY) * size as u64;
        ring::for_each_run(bytes.get(from..from + size)?, is_compact, |at, run| {
            // SAFETY: `run` is a slice.
            let written =
                unsafe { sys::pwrite(log, run.as_ptr(), run.len(), position + at as u64) };
            if written != Ok(run.len()) {
                all = None;
            }
        });
    }
    all
}
