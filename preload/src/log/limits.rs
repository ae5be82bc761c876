//! When to stop writing: at the size that was asked for, and before the disk is full.
//!
//! From then on the log ends there, whatever happens later: its positions up to the end are written
//! still, what comes behind is counted as lost. So what is in the log has no hole in its middle.

use core::sync::atomic::{AtomicU64, Ordering};

use mtr_format::tail;

use crate::config;
use crate::global::Scratch;
use crate::sys::{self, Errno, Fd};

/// End of the log once it was decided, `u64::MAX` before.
static END: AtomicU64 = AtomicU64::new(u64::MAX);
/// Why it ends there.
static REASON: AtomicU64 = AtomicU64::new(0);
/// Highest position that was written.
static HIGHEST: AtomicU64 = AtomicU64::new(0);

/// The space is looked at once for so many bytes of the log.
const INTERVAL: u64 = 256 << 10;
/// What is left free unless `MTR_KEEP_FREE` says otherwise: so much, and on a small file system one
/// part in so many.
const KEEP_FREE: u64 = 64 << 20;
const KEEP_FREE_PART: u64 = 20;

/// Forgets the log of a fork's parent.
pub(super) fn forget() {
    HIGHEST.store(0, Ordering::Relaxed);
    REASON.store(0, Ordering::Relaxed);
    END.store(u64::MAX, Ordering::Release);
}

/// Begins with a log whose first lines, of that length, are in its file.
pub(super) fn open(fd: Fd, header_len: u64) {
    HIGHEST.store(header_len, Ordering::Relaxed);
    REASON.store(0, Ordering::Relaxed);
    END.store(u64::MAX, Ordering::Release);
    let reason = match config::get().max_trace_size {
        size if header_len >= size => tail::AT_MAX_SIZE,
        _ if is_nearly_full(fd) => tail::DISK_NEARLY_FULL,
        _ => return,
    };
    REASON.store(reason as u64, Ordering::Relaxed);
    END.store(header_len, Ordering::Release);
}

/// Where the log ends and why; `None` while it may grow.
pub(super) fn end() -> Option<(u64, Errno)> {
    let end = END.load(Ordering::Acquire);
    (end != u64::MAX).then(|| (end, REASON.load(Ordering::Relaxed) as Errno))
}

/// Size that the file can have, and what limits it.
pub(super) fn largest() -> (u64, Errno) {
    let file_size = sys::soft_limit(libc::RLIMIT_FSIZE);
    match config::get().max_trace_size {
        asked_for if asked_for < file_size => (asked_for, tail::AT_MAX_SIZE),
        _ => (file_size, libc::EFBIG),
    }
}

/// How many of `bytes` belong into the log at `position`, and why not all of them.
pub(super) fn admit(fd: Fd, position: u64, bytes: &[u8]) -> (usize, Option<Errno>) {
    let behind = position + bytes.len() as u64;
    let until = |end: u64| bytes.get(..end.saturating_sub(position) as usize).unwrap_or(bytes);
    if let Some((_, reason)) = end().filter(|(end, _)| *end <= position) {
        return (0, Some(reason));
    }
    let (mut largest, reason) = largest();
    match end() {
        _ if behind > largest => stop(fd, position, until(largest), reason),
        // Who ended it here did not know these bytes: it may be in the middle of a line.
        Some((end, reason)) if end <= behind && !config::get().is_compact => {
            stop(fd, position, until(end), reason);
        }
        Some(_) => {}
        None => {
            let crosses = position / INTERVAL != behind / INTERVAL;
            if crosses && is_nearly_full(fd) {
                stop(fd, position, bytes, tail::DISK_NEARLY_FULL);
            }
        }
    }
    let Some((end, reason)) = end() else { return (bytes.len(), None) };
    // What was written before the limit was lowered stays.
    largest = largest.min(end);
    match behind > largest {
        // A chunk is there as a whole or not at all.
        true if config::get().is_compact => (0, Some(reason)),
        // Nor is a line; what was written before may have ended in the middle of one.
        true => (last_line_end(until(largest)).unwrap_or(0) as usize, Some(reason)),
        false => (bytes.len(), None),
    }
}

/// Highest position that was written.
pub(super) fn highest() -> u64 {
    HIGHEST.load(Ordering::Relaxed)
}

/// Notes what has been written.
pub(super) fn written_to(position: u64) {
    HIGHEST.fetch_max(position, Ordering::Relaxed);
}

/// Ends the log with a whole line: among `fits`, which are or will be at `position`, else before. Where
/// it has ended already, not later than there.
pub(super) fn stop(fd: Fd, position: u64, fits: &[u8], reason: Errno) {
    let mut at = position + fits.len() as u64;
    if config::get().is_compact {
        at = position;
    } else if let Some(line_end) = last_line_end(fits) {
        at = position + line_end;
    } else if let Some(mut before) = Scratch::<512>::new() {
        // The line that is going on began before.
        let before = before.space();
        let from = position.saturating_sub(before.len() as u64);
        // SAFETY: `before` is a slice.
        let read = unsafe { sys::pread(fd, before.as_mut_ptr(), before.len(), from) };
        let before = before.get(..(position - from) as usize);
        let before = before.filter(|before| read.is_ok_and(|read| read >= before.len()));
        if let Some(line_end) = before.and_then(last_line_end) {
            at = from + line_end;
        }
    }
    let highest = HIGHEST.load(Ordering::Relaxed);
    // Another thread may have written behind this place already.
    at = if highest > position { at.max(highest) } else { at };
    // The first reason is the one that counts.
    let (order, otherwise) = (Ordering::Relaxed, Ordering::Relaxed);
    let _ = REASON.compare_exchange(0, reason as u64, order, otherwise);
    if END.fetch_min(at, Ordering::AcqRel) > at && highest <= position {
        // A part of a line, or of a chunk, may be there.
        let _ = sys::truncate(fd, at);
    }
}

/// Behind the last newline.
fn last_line_end(bytes: &[u8]) -> Option<u64> {
    bytes.iter().rposition(|byte| *byte == b'\n').map(|at| at as u64 + 1)
}

fn is_nearly_full(fd: Fd) -> bool {
    let asked_for = config::get().keep_free;
    if asked_for == Some(0) {
        return false;
    }
    // Some file systems do not say.
    let Some((size, free)) = sys::space(fd).ok().filter(|(size, _)| *size > 0) else {
        return false;
    };
    // It has to last until space is looked at again.
    free < asked_for.unwrap_or(KEEP_FREE.min(size / KEEP_FREE_PART)).saturating_add(INTERVAL)
}
