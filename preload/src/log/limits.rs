//! When to stop writing: at the size that was asked for, and before the disk is full.
//!
//! From then on the log ends there, whatever happens later: its positions up to the end are written
//! still, what comes behind is counted as lost. So what is in the log has no hole in its middle. (tests.rs
//! has all interleavings.)

#[cfg(test)]
mod tests;

use core::sync::atomic::{AtomicU64, Ordering};

use mtr_format::tail;

use super::ring;
use crate::config;
use crate::global::Scratch;
use crate::sys::{self, Errno, Fd};

/// End of the log once it was decided, `u64::MAX` before.
static END: AtomicU64 = AtomicU64::new(u64::MAX);
/// Why it ends there.
static REASON: AtomicU64 = AtomicU64::new(0);
/// Highest position that was written or is about to be.
static HIGHEST: AtomicU64 = AtomicU64::new(0);
/// Length of the first lines: they say what the log is and what it lacks, so it does not end before.
static FRONT: AtomicU64 = AtomicU64::new(0);

/// The space is looked at once for so many bytes of the log.
const INTERVAL: u64 = 256 << 10;
/// What is left free unless `MTR_KEEP_FREE` says otherwise: so much, and on a small file system one
/// part in so many.
const KEEP_FREE: u64 = 64 << 20;
const KEEP_FREE_PART: u64 = 20;

/// Forgets the log of a fork's parent.
pub(super) fn forget() {
    HIGHEST.store(0, Ordering::Relaxed);
    FRONT.store(0, Ordering::Relaxed);
    REASON.store(0, Ordering::Relaxed);
    END.store(u64::MAX, Ordering::Release);
}

/// Begins with a log whose first lines, of that length, are in its file.
pub(super) fn open(fd: Fd, header_len: u64) {
    HIGHEST.store(header_len, Ordering::Relaxed);
    FRONT.store(header_len, Ordering::Relaxed);
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
    if let Some((end, reason)) = end().filter(|(end, _)| *end <= position) {
        if end == position {
            trim_before(fd, position);
        }
        return (0, Some(reason));
    }
    let (largest, reason) = largest();
    match end() {
        _ if behind > largest => stop(fd, position, until(largest), reason, 0),
        // Who ended it here did not know these bytes: it may be in the middle of a line.
        Some((end, reason)) if end <= behind && !config::get().is_compact => {
            stop(fd, position, until(end), reason, 0);
        }
        Some(_) => {}
        None => {
            let crosses = position / INTERVAL != behind / INTERVAL;
            if crosses && is_nearly_full(fd) {
                stop(fd, position, bytes, tail::DISK_NEARLY_FULL, 0);
            }
        }
    }
    let fitting = || {
        let Some((end, reason)) = end() else { return (bytes.len(), None) };
        // What was written before the limit was lowered stays.
        let largest = largest.min(end);
        match behind > largest {
            // A chunk is there as a whole or not at all.
            true if config::get().is_compact => (0, Some(reason)),
            // Nor is a line; what was written before may have ended in the middle of one.
            true => (last_line_end(until(largest)).unwrap_or(0) as usize, Some(reason)),
            false => (bytes.len(), None),
        }
    };
    match fitting() {
        (0, not_all) => (0, not_all),
        (len, _) => {
            // Said before it is asked again: who ends the log asks in the opposite order.
            HIGHEST.fetch_max(position + len as u64, Ordering::SeqCst);
            fitting()
        }
    }
}

/// Highest position that was written or is about to be.
pub(super) fn highest() -> u64 {
    HIGHEST.load(Ordering::Relaxed)
}

/// Ends the log where a write of `bytes` has failed for want of room, behind the first `written` or before.
pub(super) fn fail(fd: Fd, position: u64, bytes: &[u8], written: usize, reason: Errno) {
    let fits = bytes.get(..written).unwrap_or(bytes);
    stop(fd, position, fits, reason, position + bytes.len() as u64);
}

/// Takes back the part of a line that `bytes`, which were written at `position`, end with, where somebody
/// has ended the log there meanwhile. How many of them stay, and why not all.
pub(super) fn trim(fd: Fd, position: u64, bytes: &[u8]) -> Option<(usize, Errno)> {
    let (at, reason) = end().filter(|_| !config::get().is_compact)?;
    let kept = last_line_end(bytes).filter(|kept| *kept < bytes.len() as u64)?;
    let (order, otherwise) = (Ordering::AcqRel, Ordering::Relaxed);
    let is_cut = at == position + bytes.len() as u64
        // Who has ended it here may be about to find that somebody is writing behind it.
        && HIGHEST.load(Ordering::SeqCst) == at
        && END.compare_exchange(at, position + kept, order, otherwise).is_ok();
    is_cut.then(|| {
        let _ = sys::truncate(fd, position + kept);
        (kept as usize, reason)
    })
}

/// Ends the log with a whole line: among `fits`, which are or will be at `position`, else before. Where
/// it has ended already, not later than there. Up to `tried` this thread has said it would write, 0 if it
/// has not.
fn stop(fd: Fd, position: u64, fits: &[u8], reason: Errno, tried: u64) {
    let mut at = position + fits.len() as u64;
    if config::get().is_compact {
        at = position;
    } else if let Some(line_end) = last_line_end(fits) {
        at = position + line_end;
    } else if let Some(line_end) = part_before(fd, position) {
        // The line that is going on began before.
        at = line_end;
    }
    let announced = HIGHEST.load(Ordering::SeqCst);
    // Another thread may have written behind this place already, but for what this one has tried to.
    let highest = if announced == tried { position } else { announced };
    at = if highest > position { at.max(highest) } else { at };
    at = at.max(FRONT.load(Ordering::Relaxed));
    // The first reason is the one that counts.
    let (order, otherwise) = (Ordering::SeqCst, Ordering::Relaxed);
    let _ = REASON.compare_exchange(0, reason as u64, order, otherwise);
    let before = END.fetch_min(at, Ordering::SeqCst);
    let is_lower = before > at;
    let highest_now = HIGHEST.load(Ordering::SeqCst);
    if is_lower && highest_now > announced.max(position) {
        // Another thread is writing there, and may not have seen that this is the end. Not behind an
        // earlier one: who set that may be about to cut off what lies behind it.
        let _ = END.compare_exchange(at, highest_now.min(before), order, otherwise);
    } else if is_lower && highest <= position {
        // A part of a line, or of a chunk, may be there.
        cut(fd, at, position);
    }
    if at == position {
        trim_before(fd, at);
    }
}

/// As [`trim`], for who finds that the log ends at `position`: the bytes before it may have been written
/// meanwhile.
fn trim_before(fd: Fd, position: u64) {
    if !config::get().is_compact && HIGHEST.load(Ordering::SeqCst) == position {
        trim_file(fd, position);
    }
}

/// As [`trim`], when no other thread is writing any more.
pub(super) fn trim_finally(fd: Fd) {
    let size = || sys::fstat(fd).map(|stat| stat.st_size.unsigned_abs());
    if !config::get().is_compact
        && let Ok(size) = size()
        && let Some((line_end, _)) = last_line_end_in_file(fd, size)
    {
        let _ = sys::truncate(fd, line_end);
    }
}

fn trim_file(fd: Fd, end: u64) {
    let (order, otherwise) = (Ordering::AcqRel, Ordering::Relaxed);
    if let Some(line_end) = part_before(fd, end)
        && END.compare_exchange(end, line_end, order, otherwise).is_ok()
    {
        cut(fd, line_end, end);
    }
}

/// Cuts off what the file has behind the end of the log. A line of which a part was written before
/// `position` is counted first: the block with its rest is given up later, and a kill in between would
/// hide it.
fn cut(fd: Fd, end: u64, position: u64) {
    if end < position {
        ring::count_cut(position, REASON.load(Ordering::Relaxed) as Errno);
    }
    let _ = sys::truncate(fd, end);
}

/// Where a line begins in the file of which a part stands before a position, nothing of it missing: in a
/// hole another thread may be writing a line.
fn part_before(fd: Fd, position: u64) -> Option<u64> {
    last_line_end_in_file(fd, position).filter(|(_, is_whole)| *is_whole).map(|(at, _)| at)
}

/// The last end of a line in the file at or before a position that it reaches, and whether there is no
/// hole behind it.
fn last_line_end_in_file(fd: Fd, position: u64) -> Option<(u64, bool)> {
    let mut before = Scratch::<512>::new()?;
    let before = before.space();
    let from = position.saturating_sub(before.len() as u64);
    let before = before.get_mut(..(position - from) as usize)?;
    // SAFETY: `before` is a slice.
    let read = unsafe { sys::pread(fd, before.as_mut_ptr(), before.len(), from) };
    let is_there = read.is_ok_and(|read| read >= before.len());
    let line_end = last_line_end(before).filter(|_| is_there)?;
    let is_whole = before.get(line_end as usize..).is_some_and(|part| !part.contains(&0));
    Some((from + line_end, is_whole))
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
