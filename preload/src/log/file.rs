//! The log's file: a descriptor that the program may close, and what could not be written.

use core::sync::atomic::{AtomicI32, AtomicPtr, AtomicU64, Ordering};

use mtr_format::tail;

use crate::config;
use crate::global::{Global, Path};
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

/// Writes `bytes` at `position`. What cannot be written is counted as lost: its lines in a log, its
/// words in a compact trace (which may be a few more than its events).
pub(crate) fn write_at(position: u64, bytes: &[u8]) {
    if let Err(errno) = try_write_at(position, bytes) {
        let records = match config::get().is_compact {
            true => bytes.len() / 8,
            false => bytes.iter().filter(|byte| **byte == b'\n').count(),
        };
        lose(records as u64, errno);
    }
}

fn try_write_at(position: u64, bytes: &[u8]) -> Result<()> {
    // A write beyond the limit would raise SIGXFSZ, which kills by default.
    if position + bytes.len() as u64 > sys::soft_limit(libc::RLIMIT_FSIZE) {
        return Err(libc::EFBIG);
    }
    let log = descriptor()?;
    let (mut position, mut rest) = (position, bytes);
    while !rest.is_empty() {
        // SAFETY: `rest` is a slice.
        match unsafe { sys::pwrite(log.fd, rest.as_ptr(), rest.len(), position) } {
            Ok(0) => return Err(libc::ENOSPC),
            Ok(written) => {
                position += written as u64;
                rest = rest.get(written..).unwrap_or(&[]);
            }
            Err(libc::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
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
    let _ = first.compare_exchange(0, errno, Ordering::Relaxed, Ordering::Relaxed);
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
