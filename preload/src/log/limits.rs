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
/// Highest position that was written or is about to be.
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

/// How many of `bytes` belong into the log at `position`, and why not all of them.
pub(super) fn admit(fd: Fd, position: u64, bytes: &[u8]) -> (usize, Option<Errno>) {
    let behind = position + bytes.len() as u64;
    if end().is_none() {
        let crosses = position / INTERVAL != behind / INTERVAL;
        // A write beyond this limit would raise SIGXFSZ, which kills by default.
        let file_size = sys::soft_limit(libc::RLIMIT_FSIZE);
        let (limit, reason) = match config::get().max_trace_size {
            asked_for if asked_for < file_size => (asked_for, tail::AT_MAX_SIZE),
            _ => (file_size, libc::EFBIG),
        };
        if behind > limit {
            let fits = limit.saturating_sub(position) as usize;
            stop(fd, position, bytes.get(..fits).unwrap_or(bytes), reason);
        } else if crosses && is_nearly_full(fd) {
            stop(fd, position, bytes, tail::DISK_NEARLY_FULL);
        }
    }
    match end() {
        Some((end, reason)) if behind > end => {
            (end.saturating_sub(position) as usize, Some(reason))
        }
        _ => (bytes.len(), None),
    }
}

/// Notes what has been written.
pub(super) fn written_to(position: u64) {
    HIGHEST.fetch_max(position, Ordering::Relaxed);
}

/// Room behind the last record, in which nothing but the log's last line is written.
const LAST_LINE: usize = 16;

/// Ends the log with a whole line: among `fits`, which are or will be at `position`, else before.
pub(super) fn stop(fd: Fd, position: u64, fits: &[u8], reason: Errno) {
    let (mut at, mut dropped) = (position + fits.len() as u64, 0);
    if config::get().is_compact {
        // A chunk is there as a whole or not at all.
        at = position;
    } else if let Some(line_end) = last_line_end(fits) {
        at = position + line_end;
    } else if let Some(mut before) = Scratch::<512>::new() {
        // The line that is going on began before.
        let before = before.space();
        let from = position.saturating_sub(before.len() as u64);
        // SAFETY: `before` is a slice.
        let read = unsafe { sys::pread(fd, before.as_mut_ptr(), before.len(), from) };
        let before = before.get(..(position - from) as usize).filter(|b| read == Ok(b.len()));
        if let Some(line_end) = before.and_then(last_line_end) {
            at = from + line_end;
            let cut_off = before.and_then(|bytes| bytes.get(line_end as usize..));
            dropped = super::file::records_in(cut_off.unwrap_or(&[]));
        }
    }
    let highest = HIGHEST.load(Ordering::Relaxed);
    // Another thread may have written behind this place already.
    if highest > position {
        (at, dropped) = (at.max(highest), 0);
    }
    REASON.store(reason as u64, Ordering::Relaxed);
    if END.compare_exchange(u64::MAX, at, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
        super::file::lose(dropped as u64, reason);
        if highest <= position {
            let _ = sys::truncate(fd, at);
        }
    }
}

/// Behind the last newline that leaves room for the log's last line.
fn last_line_end(bytes: &[u8]) -> Option<u64> {
    let bytes = bytes.get(..bytes.len().checked_sub(LAST_LINE)?)?;
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
