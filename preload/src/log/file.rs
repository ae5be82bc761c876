//! The log's file: a descriptor that the program may close, and what could not be written.

use core::sync::atomic::{AtomicI32, AtomicPtr, AtomicU64, Ordering};

use mtr_format::tail;

use super::limits;
use crate::config;
use crate::global::{Global, Path, Text};
use crate::sys::{self, Errno, Fd, Result};

/// The descriptor, -1 for none. High, so that the program's own get the numbers they always get.
static FD: AtomicI32 = AtomicI32::new(-1);
/// Device and inode of the log: a descriptor that the program has closed may be a file of its own
/// by now.
static DEVICE: AtomicU64 = AtomicU64::new(0);
static INODE: AtomicU64 = AtomicU64::new(0);
/// Absolute path of the log, for opening it again. Written while this process starts, before any
/// other function here is called.
static PATH: Global<Path> = Global::new(Path::EMPTY);
/// The counters of lost records in the tail's first page (or in memory that stands in for it).
static TAIL: AtomicPtr<u8> = AtomicPtr::new(core::ptr::null_mut());

/// Takes over a new log.
///
/// # Safety
/// Called by the one thread that starts this process's log, before anything is recorded; `tail`
/// stays mapped for good and is page-aligned.
pub(crate) unsafe fn adopt(fd: Fd, path: &Path, tail: *mut u8) -> Result<()> {
    let stat = sys::fstat(fd)?;
    DEVICE.store(stat.st_dev, Ordering::Relaxed);
    INODE.store(stat.st_ino, Ordering::Relaxed);
    // SAFETY: the caller is the only thread that is here.
    unsafe { *PATH.get_mut() = *path };
    TAIL.store(tail, Ordering::Release);
    limits::forget();
    LOST_AT.store(0, Ordering::Relaxed);
    match out_of_the_way(fd) {
        Ok(fd) => FD.store(fd, Ordering::Release),
        Err(fd) => sys::close(fd),
    }
    Ok(())
}

/// Moves a descriptor to where it changes none of the numbers that the program gets. An error gives
/// it back: under a low limit there is no such place, and it must be closed after use.
fn out_of_the_way(fd: Fd) -> core::result::Result<Fd, Fd> {
    // As high as a default limit of 1024 allows: higher ones make the kernel's table grow.
    const PLACES: i32 = 24;
    let lowest = sys::soft_limit(libc::RLIMIT_NOFILE).min(1024) as i32 - PLACES;
    if lowest < 40 {
        return Err(fd);
    }
    let moved = sys::move_fd(fd, lowest);
    if (lowest..lowest + PLACES).contains(&moved) { Ok(moved) } else { Err(moved) }
}

/// Absolute path of the log.
pub(crate) fn path() -> &'static Path {
    // SAFETY: written only while the process starts (see `adopt`).
    unsafe { PATH.get() }
}

/// The mapped tail of the log; NULL before there is one.
pub(crate) fn tail() -> *mut u8 {
    TAIL.load(Ordering::Acquire)
}

/// Forgets the log that a fork's child has inherited.
pub(crate) fn abandon() {
    let fd = FD.swap(-1, Ordering::AcqRel);
    if fd >= 0 && is_ours(fd) {
        sys::close(fd);
    }
}

/// The descriptor, -1 for none at the moment.
pub(crate) fn descriptor_number() -> Fd {
    FD.load(Ordering::Relaxed)
}

fn is_ours(fd: Fd) -> bool {
    sys::fstat(fd).is_ok_and(|stat| {
        stat.st_dev == DEVICE.load(Ordering::Relaxed)
            && stat.st_ino == INODE.load(Ordering::Relaxed)
    })
}

/// A descriptor of the log, closed after use if it is not one to keep.
struct Descriptor {
    fd: Fd,
    keep: bool,
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        if !self.keep {
            sys::close(self.fd);
        }
    }
}

/// A descriptor that is certainly the log.
fn descriptor() -> Result<Descriptor> {
    let kept = |fd| Descriptor { fd, keep: true };
    let fd = FD.load(Ordering::Acquire);
    if fd >= 0 && is_ours(fd) {
        return Ok(kept(fd));
    }
    let flags = libc::O_RDWR | libc::O_CLOEXEC | libc::O_NOFOLLOW | libc::O_NOCTTY;
    let new = sys::openat(path().as_c_str(), flags, 0)?;
    if !is_ours(new) {
        sys::close(new);
        return Err(libc::ESTALE);
    }
    let new = match out_of_the_way(new) {
        Ok(new) => new,
        Err(fd) => return Ok(Descriptor { fd, keep: false }),
    };
    // Another thread may have stored one meanwhile: then this one serves once.
    let keep = FD.compare_exchange(fd, new, Ordering::AcqRel, Ordering::Relaxed).is_ok();
    Ok(Descriptor { fd: new, keep })
}

/// Writes lines at `position`. Those that cannot be written are counted as lost.
pub(crate) fn write_at(position: u64, bytes: &[u8]) {
    let (written, failed) = write_what_fits(position, bytes);
    if let Some(errno) = failed {
        lose(records_in(bytes.get(written..).unwrap_or(&[])) as u64, errno);
        state_loss();
    }
}

/// Writes a chunk of a compact trace at `position`: all of it, or it is to be counted as lost.
pub(crate) fn write_chunk_at(position: u64, bytes: &[u8]) -> Result<()> {
    write_what_fits(position, bytes).1.map_or(Ok(()), Err)
}

/// Lines that end in `bytes` and are records, or begin elsewhere and may be.
pub(super) fn records_in(bytes: &[u8]) -> usize {
    let lines = bytes.split_inclusive(|byte| *byte == b'\n');
    lines
        .filter(|line| line.ends_with(b"\n") && !line.starts_with(b"#") && !line.starts_with(b"="))
        .count()
}

/// Writes `bytes` at `position` as far as that may and can be; returns how many were written, and
/// why not all.
fn write_what_fits(position: u64, bytes: &[u8]) -> (usize, Option<Errno>) {
    let log = match descriptor() {
        Ok(log) => log,
        Err(errno) => {
            FAILURES.fetch_add(1, Ordering::Relaxed);
            return (0, Some(errno));
        }
    };
    let (len, not_all) = limits::admit(log.fd, position, bytes);
    let bytes = bytes.get(..len).unwrap_or(bytes);
    let (written, failed) = write_all(log.fd, position, bytes);
    let Some(errno) = failed else {
        limits::written_to(position + written as u64);
        return (written, not_all);
    };
    FAILURES.fetch_add(1, Ordering::Relaxed);
    if !matches!(errno, libc::ENOSPC | libc::EDQUOT) {
        return (written, failed);
    }
    limits::stop(log.fd, position, bytes.get(..written).unwrap_or(bytes), errno);
    let end = limits::end().map_or(u64::MAX, |(end, _)| end);
    (written.min(end.saturating_sub(position) as usize), failed)
}

/// Writes that did not succeed, whatever they held.
static FAILURES: AtomicU64 = AtomicU64::new(0);

/// See [`state_end`].
pub(crate) fn failures() -> u64 {
    FAILURES.load(Ordering::Relaxed)
}

fn write_all(fd: Fd, position: u64, bytes: &[u8]) -> (usize, Option<Errno>) {
    // A write beyond the limit would raise SIGXFSZ, which kills by default.
    if position + bytes.len() as u64 > sys::soft_limit(libc::RLIMIT_FSIZE) {
        return (0, Some(libc::EFBIG));
    }
    let mut written = 0;
    while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
        // SAFETY: `rest` is a slice.
        match unsafe { sys::pwrite(fd, rest.as_ptr(), rest.len(), position + written as u64) } {
            Ok(0) => return (written, Some(libc::ENOSPC)),
            Ok(more) => written += more,
            Err(libc::EINTR) => {}
            Err(errno) => return (written, Some(errno)),
        }
    }
    (written, None)
}

/// Writes the first lines of the log, which no limit keeps out. `lost_at` is the position of the
/// `# lost` line among them, 0 where there is none.
pub(crate) fn write_header(bytes: &[u8], lost_at: u64) {
    LOST_AT.store(lost_at, Ordering::Relaxed);
    let Ok(log) = descriptor() else { return };
    let (_, failed) = write_all(log.fd, 0, bytes);
    limits::open(log.fd, bytes.len() as u64);
    if let Some(errno) = failed {
        lose(0, errno);
    }
}

/// Position of the `# lost` line in the header, 0 for none.
static LOST_AT: AtomicU64 = AtomicU64::new(0);

/// Writes what was lost into the line of the header that is there for it: a full disk has room for
/// that. False where it cannot be said there.
pub(crate) fn state_loss() -> bool {
    let at = LOST_AT.load(Ordering::Relaxed);
    let Ok(log) = descriptor() else { return false };
    if at == 0 {
        return false;
    }
    let (records, errno) = lost();
    let mut line = Text::<64>::EMPTY;
    push_lost_line(records, errno, lost_since(), &mut line);
    let line = line.as_bytes();
    write_all(log.fd, at, line) == (line.len(), None)
}

/// The `# lost` line, as long for any values.
pub(super) fn push_lost_line<const N: usize>(
    records: u64,
    errno: Errno,
    since: u64,
    line: &mut Text<N>,
) {
    line.push(b"# lost");
    for (value, width) in [(records, 20), (errno.unsigned_abs().into(), 5), (since, 20)] {
        line.push(b" ");
        let digits = value.checked_ilog10().map_or(1, |log| log + 1);
        (digits..width).for_each(|_| line.push(b"0"));
        line.push_decimal(value);
    }
    line.push(b"\n");
}

/// Whether a log of which all has been written out is whole without its tail: since there were
/// `failures_before`, all succeeded. One that was stopped becomes whole here: what is missing stands
/// in its header, and `last_line`, which came too late, where it ends.
pub(crate) fn state_end(last_line: &[u8], failures_before: u64) -> bool {
    // A block that was written out just now may have put the line back to what it was.
    if lost().0 > 0 && LOST_AT.load(Ordering::Relaxed) != 0 && !state_loss()
        || failures() != failures_before
    {
        return false;
    }
    let Some((end, _)) = limits::end() else { return true };
    if config::get().is_compact {
        return true;
    }
    let Ok(log) = descriptor() else { return false };
    let mut text = Text::<64>::EMPTY;
    let mut last = [0; 1];
    // SAFETY: `last` is one byte.
    let read = unsafe { sys::pread(log.fd, last.as_mut_ptr(), 1, end.saturating_sub(1)) };
    if read != Ok(1) || last != [b'\n'] {
        text.push(b"\0\n");
    }
    text.push(last_line);
    text.push(b"\n");
    let text = text.as_bytes();
    write_all(log.fd, end, text) == (text.len(), None)
}

/// Reads what the log has at `position`; fewer bytes at its end.
pub(crate) fn read_at(position: u64, buffer: &mut [u8]) -> Result<usize> {
    let log = descriptor()?;
    // SAFETY: `buffer` is a slice.
    unsafe { sys::pread(log.fd, buffer.as_mut_ptr(), buffer.len(), position) }
}

/// Counts records that are not in the log.
pub(crate) fn lose(records: u64, errno: Errno) {
    let tail = TAIL.load(Ordering::Acquire);
    // SAFETY: the tail's first page stays mapped, is aligned, and the two words are only used as
    // atomics.
    let (count, first) = unsafe {
        (
            &*tail.add(tail::LOST).cast::<AtomicU64>(),
            &*tail.add(tail::LOST_ERRNO).cast::<AtomicI32>(),
        )
    };
    count.fetch_add(records, Ordering::Relaxed);
    if first.compare_exchange(0, errno, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
        let (seconds, nanoseconds) = sys::wall_clock();
        let now = seconds * 1_000_000_000 + nanoseconds;
        since(tail).store(now.saturating_sub(super::started()), Ordering::Relaxed);
    }
    if let Some((end, _)) = limits::end() {
        // SAFETY: as above.
        unsafe { (*tail.add(tail::END).cast::<AtomicU64>()).store(end, Ordering::Relaxed) };
    }
}

fn since(tail: *mut u8) -> &'static AtomicU64 {
    // SAFETY: as in `lose`.
    unsafe { &*tail.add(tail::LOST_SINCE).cast::<AtomicU64>() }
}

/// Nanoseconds from the start of the log to the first loss.
pub(crate) fn lost_since() -> u64 {
    since(TAIL.load(Ordering::Acquire)).load(Ordering::Relaxed)
}

/// Records that could not be written, and the errno of the first.
pub(crate) fn lost() -> (u64, Errno) {
    let tail = TAIL.load(Ordering::Acquire);
    // SAFETY: as in `lose`.
    unsafe {
        (
            (*tail.add(tail::LOST).cast::<AtomicU64>()).load(Ordering::Relaxed),
            (*tail.add(tail::LOST_ERRNO).cast::<AtomicI32>()).load(Ordering::Relaxed),
        )
    }
}
