//! Bringing a new log under its name, without ever losing another process's log, however many want
//! that name at once.
//!
//! A log gets its first lines under a name of its own and then takes PATH in one step, so that what
//! stands at PATH says from the start whose it is. A log that is there already is replaced only by
//! who holds the lock (flock(2)) on that very file, and only where the rule allows it (whose.rs): two
//! who find the same old log cannot both replace it, and neither can replace the other's. Nobody
//! waits for a lock: who does not get it takes the next name.

use crate::global::{Path, Scratch};
use crate::log::make_folders;
use crate::sys::{self, Errno, Fd};

/// Creates the log `path`, which begins with `first`. `id` makes its name until then one that
/// nobody else has. `None`: somebody else has the name, or is about to take it.
///
/// `may_replace` is asked about the first bytes of a file that is there.
pub(super) fn publish(
    path: &Path,
    id: u64,
    first: &[u8],
    may_replace: impl Fn(&[u8]) -> bool,
) -> sys::Result<Option<Fd>> {
    let Some(mut unfinished) = Scratch::<{ libc::PATH_MAX as usize }>::new() else {
        return Err(libc::ENOMEM);
    };
    let folder = path.as_bytes().iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
    unfinished.push(path.as_bytes().get(..folder).unwrap_or(&[]));
    unfinished.push(mtr_format::UNFINISHED.as_bytes());
    unfinished.push_hex(id, 16);
    if unfinished.is_cut() {
        return Err(libc::ENAMETOOLONG);
    }
    let fd = create(&unfinished)?;
    let done = write_all(fd, first).and_then(|()| take_name(&unfinished, path, may_replace));
    if done != Ok(true) {
        let _ = sys::unlink(unfinished.as_c_str());
        sys::close(fd);
    }
    done.map(|is_ours| is_ours.then_some(fd))
}

fn create(path: &Path) -> sys::Result<Fd> {
    let flags = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL | libc::O_CLOEXEC | libc::O_NOFOLLOW;
    match sys::openat(path.as_c_str(), flags, 0o600) {
        Err(libc::ENOENT) => {
            make_folders(path);
            sys::openat(path.as_c_str(), flags, 0o600)
        }
        other => other,
    }
}

fn write_all(fd: Fd, bytes: &[u8]) -> sys::Result<()> {
    // A write beyond the limit would raise SIGXFSZ.
    if bytes.len() as u64 > sys::soft_limit(libc::RLIMIT_FSIZE) {
        return Err(libc::EFBIG);
    }
    let mut rest = bytes;
    while !rest.is_empty() {
        match sys::write(fd, rest) {
            Ok(0) => return Err(libc::ENOSPC),
            Ok(written) => rest = rest.get(written..).unwrap_or(&[]),
            Err(libc::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Gives the file `from` the name `to`; false when that is somebody else's.
fn take_name(from: &Path, to: &Path, may_replace: impl Fn(&[u8]) -> bool) -> sys::Result<bool> {
    /// What file systems say of a call that they lack.
    fn is_missing(errno: Errno) -> bool {
        matches!(errno, libc::EINVAL | libc::ENOSYS | libc::EPERM | libc::EOPNOTSUPP)
    }
    let (from, to) = (from.as_c_str(), to.as_c_str());
    let taken = match sys::rename_to_new(from, to) {
        Err(errno) if is_missing(errno) => sys::link(from, to).inspect(|_| {
            let _ = sys::unlink(from);
        }),
        other => other,
    };
    match taken {
        Ok(_) => Ok(true),
        Err(libc::EEXIST) => replace(from, to, may_replace),
        // A file system with neither has no way to do it in one step.
        Err(errno) if is_missing(errno) && sys::lstat(to).is_err() => {
            sys::rename(from, to).map(|_| true)
        }
        Err(errno) if is_missing(errno) => replace(from, to, may_replace),
        Err(errno) => Err(errno),
    }
}

/// Replaces the file `to`, if it may be.
fn replace(
    from: &core::ffi::CStr,
    to: &core::ffi::CStr,
    may_replace: impl Fn(&[u8]) -> bool,
) -> sys::Result<bool> {
    let flags = libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let Ok(old) = sys::openat(to, flags | libc::O_NOCTTY, 0) else { return Ok(false) };
    let may = sys::try_lock(old).is_ok() && may_replace_open(old, may_replace) && is_at(old, to);
    let replaced = if may { sys::rename(from, to).map(|_| true) } else { Ok(false) };
    sys::close(old);
    replaced
}

fn may_replace_open(old: Fd, may_replace: impl Fn(&[u8]) -> bool) -> bool {
    let Some(mut first) = Scratch::<512>::new() else { return false };
    let first = first.space();
    sys::read(old, first).is_ok_and(|len| may_replace(first.get(..len).unwrap_or(&[])))
}

/// Whether `path` is the file that is open as `fd`.
fn is_at(fd: Fd, path: &core::ffi::CStr) -> bool {
    let id = |stat: libc::stat| (stat.st_dev, stat.st_ino);
    matches!((sys::fstat(fd), sys::lstat(path)), (Ok(a), Ok(b)) if id(a) == id(b))
}
