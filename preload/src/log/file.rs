//! The log's file: a descriptor that the program may close, and what could not be written.

use core::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU64, Ordering};

use mtr_format::compact::chunk;
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
    KEPT.store(0, Ordering::Relaxed);
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

/// Counts what is lost in the front of a tail that has no log.
#[cfg(test)]
pub(crate) fn count_in(tail: *mut u8) {
    TAIL.store(tail, Ordering::Release);
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

/// Writes a chunk of a compact trace at `position`: all of it, or it is to be counted as lost.
pub(crate) fn write_chunk_at(position: u64, bytes: &[u8]) -> Result<()> {
    write_at(position, bytes).1.map_or(Ok(()), Err)
}

/// Writes `bytes` at `position` as far as that may and can be; returns how many were written, and
/// why not all.
pub(super) fn write_at(position: u64, bytes: &[u8]) -> (usize, Option<Errno>) {
    let log = match descriptor() {
        Ok(log) => log,
        Err(errno) => return (0, Some(errno)),
    };
    let (len, not_all) = limits::admit(log.fd, position, bytes);
    let bytes = bytes.get(..len).unwrap_or(bytes);
    if bytes.is_empty() {
        return (0, not_all);
    }
    let (written, failed) = write_all(log.fd, position, bytes);
    let Some(errno) = failed else {
        let trimmed = limits::trim(log.fd, position, bytes);
        return trimmed.map_or((written, not_all), |(kept, reason)| (kept, Some(reason)));
    };
    if !is_for_want_of_room(errno) {
        return (written, failed);
    }
    limits::fail(log.fd, position, bytes, written, errno);
    let end = limits::end().map_or(u64::MAX, |(end, _)| end);
    (written.min(end.saturating_sub(position) as usize), failed)
}

/// Whether a log ends where a write fails with this error; after others it goes on, with a hole.
pub(crate) fn is_for_want_of_room(errno: Errno) -> bool {
    const OURS: [Errno; 2] = [tail::AT_MAX_SIZE, tail::DISK_NEARLY_FULL];
    matches!(errno, libc::ENOSPC | libc::EDQUOT | libc::EFBIG) || OURS.contains(&errno)
}

/// How often something stayed in the tail that could not be written at the end, and [`TAIL_IS_GONE`].
static KEPT: AtomicU64 = AtomicU64::new(0);
/// It has been decided that the log is whole without its tail.
const TAIL_IS_GONE: u64 = 1 << 63;
/// The tail is a file, and not only memory.
static IS_TAIL_FILE: AtomicBool = AtomicBool::new(false);

/// To be called for a new log: whether its tail is a file.
pub(super) fn note_tail(is_file: bool) {
    IS_TAIL_FILE.store(is_file, Ordering::Release);
}

/// To be asked while the log is being finished, when a write has failed: whether what it holds stays in
/// the tail, where readers find it. Then the tail stays too (see [`state_end`]). Where a log has ended
/// (limits.rs), what lies behind is none of it.
pub(crate) fn stays_in_tail(errno: Errno) -> bool {
    !is_for_want_of_room(errno)
        && is_tail_file()
        && KEPT.fetch_add(1, Ordering::AcqRel) & TAIL_IS_GONE == 0
}

/// Whether the tail is a file.
pub(super) fn is_tail_file() -> bool {
    IS_TAIL_FILE.load(Ordering::Acquire)
}

fn write_all(fd: Fd, position: u64, bytes: &[u8]) -> (usize, Option<Errno>) {
    // Beyond the limit a part would be written.
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

/// Writes the first lines of the log, which only the system keeps out. `lost_at` is the position of the
/// `# lost` line among them, 0 where there is none; `# open` follows it.
pub(crate) fn write_header(bytes: &[u8], lost_at: u64) -> Result<()> {
    LOST_AT.store(lost_at, Ordering::Relaxed);
    let log = descriptor()?;
    if let (_, Some(errno)) = write_all(log.fd, 0, bytes) {
        return Err(errno);
    }
    limits::open(log.fd, bytes.len() as u64);
    Ok(())
}

/// Position of the `# lost` line in the header, 0 for none.
static LOST_AT: AtomicU64 = AtomicU64::new(0);

/// Stands behind the `# lost` line until [`EXIT`] takes its place.
pub(super) const OPEN: &[u8] = b"# open\n";
const EXIT: &[u8] = b"# exit\n";

/// Writes what was lost into the line of the header that is there for it: a full disk has room for
/// that. False where it cannot be said there.
pub(crate) fn state_loss() -> bool {
    state_in_header(b"")
}

fn state_in_header(next_line: &[u8]) -> bool {
    let at = LOST_AT.load(Ordering::Relaxed);
    if at == 0 || !has_front() {
        return false;
    }
    let Ok(log) = descriptor() else { return false };
    // Another thread may lose more meanwhile, and state that before this one writes what it has read. Who
    // finds it changed states it again; more often than so many times the others do.
    const TRIES: usize = 8;
    for _ in 0..TRIES {
        let stated = (lost(), lost_since());
        let ((records, errno), since) = stated;
        let mut lines = Text::<64>::EMPTY;
        push_lost_line(records, errno, since, &mut lines);
        lines.push(next_line);
        let lines = lines.as_bytes();
        if write_all(log.fd, at, lines) != (lines.len(), None) {
            return false;
        }
        if (lost(), lost_since()) == stated {
            break;
        }
    }
    true
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
        line.push_padded(value, width);
    }
    line.push(b"\n");
}

/// Whether a log of which all has been written out is whole without its tail. From then on nothing stays
/// in it: that is decided in one step with whether anything has.
pub(crate) fn state_end() -> bool {
    let (order, otherwise) = (Ordering::AcqRel, Ordering::Relaxed);
    is_end_stated() && KEPT.compare_exchange(0, TAIL_IS_GONE, order, otherwise).is_ok()
}

/// A log that has ended early becomes whole here: its header says what is missing, and how the program
/// has ended.
fn is_end_stated() -> bool {
    match limits::end() {
        Some(_) => {
            if let Ok(log) = descriptor() {
                limits::trim_finally(log.fd);
            }
            // A block that was written out just now may have put the lines back to what they were.
            state_in_header(EXIT)
        }
        None => lost().0 == 0 || state_loss(),
    }
}

/// Reads what the log has at `position`; fewer bytes at its end.
pub(crate) fn read_at(position: u64, buffer: &mut [u8]) -> Result<usize> {
    let log = descriptor()?;
    // SAFETY: `buffer` is a slice.
    unsafe { sys::pread(log.fd, buffer.as_mut_ptr(), buffer.len(), position) }
}

/// Bytes of the file; `None` where it cannot be asked.
pub(super) fn length() -> Option<u64> {
    let log = descriptor().ok()?;
    u64::try_from(sys::fstat(log.fd).ok()?.st_size).ok()
}

/// Whether the first chunk is where it was written: in the front of a trace that somebody has truncated,
/// a line would stand alone, and say nothing to a reader. Each line of a log speaks for itself.
pub(super) fn has_front() -> bool {
    let mut mark = [0; chunk::MARK.len()];
    !config::get().is_compact || read_at(0, &mut mark) == Ok(mark.len()) && mark == chunk::MARK
}

/// Writes over bytes that the file has, whatever its limits. False where that failed.
pub(super) fn overwrite(position: u64, bytes: &[u8]) -> bool {
    descriptor().is_ok_and(|log| write_all(log.fd, position, bytes) == (bytes.len(), None))
}

/// Counts records that are not in the log. To be called before what may still be read of them is given
/// up: a process that is killed in between has too much counted, never too little.
pub(crate) fn lose(records: u64, errno: Errno) {
    let tail = TAIL.load(Ordering::Acquire);
    // SAFETY: the tail's first page stays mapped, is aligned, and the word is only used as an atomic.
    let first = unsafe { &*tail.add(tail::LOST_ERRNO).cast::<AtomicI32>() };
    // In this order: what is said of a number stands before the number.
    if first.compare_exchange(0, errno, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
        let (seconds, nanoseconds) = sys::wall_clock();
        let now = seconds * 1_000_000_000 + nanoseconds;
        since(tail).store(now.saturating_sub(super::started()), Ordering::Relaxed);
    }
    count(tail).fetch_add(records, Ordering::AcqRel);
    // Not before: readers leave out what lies behind, and take some of it for counted.
    if let Some((end, _)) = limits::end() {
        // SAFETY: as above.
        unsafe { (*tail.add(tail::END).cast::<AtomicU64>()).store(end, Ordering::Release) };
    }
}

/// Takes back what [`lose`] has counted because another thread might not have.
pub(crate) fn take_back(records: u64) {
    count(TAIL.load(Ordering::Acquire)).fetch_sub(records, Ordering::AcqRel);
}

fn count(tail: *mut u8) -> &'static AtomicU64 {
    // SAFETY: as in `lose`.
    unsafe { &*tail.add(tail::LOST).cast::<AtomicU64>() }
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
    let errno = unsafe { &*tail.add(tail::LOST_ERRNO).cast::<AtomicI32>() };
    (count(tail).load(Ordering::Relaxed), errno.load(Ordering::Relaxed))
}
