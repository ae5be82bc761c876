//! The tail as a file: its name, its mode, and what opens it.
//!
//! Who truncates it takes memory from under the process that has it mapped, and the next store of that
//! process is a SIGBUS. No file system lets a process forbid that; but nobody has to write to the file by
//! its name, so nobody may: `> PATH.tail` and an editor are refused. The mode is asked for when a file is
//! opened, so what is mapped and open already goes on to be written to.

use mtr_format::tail;

use crate::global::{Path, Scratch};
use crate::sys::{self, Fd};

/// What the tail may be opened for.
const MODE: u32 = 0o400;
/// The same, for a moment (see [`open_for_writing`]) and where a file system wants to write by the mode
/// even through a descriptor that has just created the file.
const WRITABLE: u32 = 0o600;

fn with_path<T>(log: &Path, action: impl FnOnce(&Path) -> Option<T>) -> Option<T> {
    let mut path = Scratch::<{ libc::PATH_MAX as usize }>::new()?;
    path.push(log.as_bytes());
    path.push(tail::SUFFIX.as_bytes());
    if path.is_cut() { None } else { action(&path) }
}

/// Creates the tail of `log` as a new file, in place of a regular file that is there.
pub(super) fn create_tail(log: &Path) -> Option<Fd> {
    with_path(log, |path| create(path).ok())
}

fn create(path: &Path) -> sys::Result<Fd> {
    let flags = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL | libc::O_CLOEXEC | libc::O_NOFOLLOW;
    let mut mode = MODE;
    for _ in 0..16 {
        match sys::openat(path.as_c_str(), flags, mode) {
            Err(libc::EEXIST) => {
                sys::unlink(path.as_c_str())?;
            }
            // The mode protects, nothing needs it.
            Err(libc::EACCES | libc::EPERM) if mode == MODE => mode = WRITABLE,
            other => return other,
        }
    }
    Err(libc::EEXIST)
}

/// Opens the tail of `log` for reading.
pub(super) fn open_tail(log: &Path) -> Option<Fd> {
    with_path(log, |path| open(path, libc::O_RDONLY).ok())
}

fn open(path: &Path, access: i32) -> sys::Result<Fd> {
    let flags = libc::O_CLOEXEC | libc::O_NOFOLLOW | libc::O_NOCTTY;
    sys::openat(path.as_c_str(), access | flags, 0)
}

/// Opens the tail of `log`, this process's own trace, for writing, if it is still the one that is mapped.
pub(super) fn open_for_writing(log: &Path) -> Option<Fd> {
    with_path(log, |path| match open(path, libc::O_RDWR) {
        Ok(fd) => ours(fd),
        Err(libc::EACCES) => open_by_mode(path),
        Err(_) => None,
    })
}

/// As [`open_for_writing`], where the mode is in the way: for that moment it is another one.
#[cold]
fn open_by_mode(path: &Path) -> Option<Fd> {
    // A filter may make of this call, which nothing else here makes, the end of the process.
    if is_filtered() {
        return None;
    }
    let readable = ours(open(path, libc::O_RDONLY).ok()?)?;
    let found = sys::change_mode(readable, WRITABLE).and_then(|_| open(path, libc::O_RDWR));
    let _ = sys::change_mode(readable, MODE);
    sys::close(readable);
    ours(found.ok()?)
}

/// `fd`, if it is the tail that is mapped; else it is closed.
fn ours(fd: Fd) -> Option<Fd> {
    let mut id = [0; 8];
    // SAFETY: `id` is an array of that many bytes.
    let read = unsafe { sys::pread(fd, id.as_mut_ptr(), id.len(), tail::ID as u64) };
    if read == Ok(id.len()) && u64::from_le_bytes(id) == super::id() {
        return Some(fd);
    }
    sys::close(fd);
    None
}

/// Whether this thread's system calls pass a filter, as far as one can tell.
fn is_filtered() -> bool {
    const NONE: &[u8] = b"\nSeccomp:\t0\n";
    let Some(mut buffer) = Scratch::<4096>::new() else { return true };
    let status = sys::read_file(c"/proc/thread-self/status", buffer.space());
    !status.is_ok_and(|status| status.windows(NONE.len()).any(|line| line == NONE))
}

/// Removes the tail of a log that is whole without it.
pub(crate) fn remove_tail(log: &Path) {
    with_path(log, |path| sys::unlink(path.as_c_str()).ok());
}
