//! Creating a log and its tail: always new inodes, never through a symbolic link, never in place of
//! a log that somebody is still writing.

use core::ffi::CStr;
use core::sync::atomic::{AtomicU64, Ordering};

use mtr_format::compact::chunk;
use mtr_format::tail;

use super::absorb::absorb;
use super::path::{expand, is_numbered};
use super::process::Process;
use super::publish::publish;
use super::tail_file::{create_tail, open_for_writing, remove_tail};
use super::whose::{Claimant, Found, look_at, whose};
use super::{chunks, file, header, ring};
use crate::config;
use crate::global::{Global, Path, Scratch};
use crate::hot::HOT;
use crate::sys::{self, Errno, Fd};

/// Why there is no log.
pub(crate) enum Cannot {
    /// A system call failed.
    Create(Errno),
    /// Something else is in the way: what it is.
    Replace(&'static CStr),
}

impl Cannot {
    /// As an error number.
    pub(crate) fn errno(&self) -> Errno {
        match self {
            Cannot::Create(errno) => *errno,
            Cannot::Replace(_) => libc::EEXIST,
        }
    }
}

/// Path of the log being created; after a failure, the one that could not be.
static PATH: Global<Path> = Global::new(Path::EMPTY);
/// Path of the log of this process's image before an exec, empty when there was none.
static EARLIER: Global<Path> = Global::new(Path::EMPTY);

/// Chooses the path: PATH, PATH.PID when PATH is taken or this is a fork's child, PATH.PID.N after
/// an exec. `attempt` counts how often a path that was free has slipped away.
fn choose(claimant: Claimant<'_>, attempt: u64) -> Result<(), Cannot> {
    // A file that can be neither read nor replaced looks free for ever.
    const PATIENCE: u64 = 4;
    // SAFETY: the starting thread is alone, and keeps these references to itself.
    let (out, earlier) = unsafe { (PATH.get_mut(), EARLIER.get_mut()) };
    earlier.clear();
    let template = config::get().output.as_bytes();
    expand(template, 1, out);
    if is_numbered(template) {
        let mut number = 1;
        while sys::lstat(out.as_c_str()).is_ok() && number < 1_000_000 {
            number += 1;
            expand(template, number, out);
        }
        return Ok(());
    }
    let base_len = out.as_bytes().len();
    let mut after_exec = false;
    // A child whose name differs from its parent's by a placeholder needs no suffix.
    let is_parents = claimant.parent_log.is_some_and(|parent| parent.as_bytes() == out.as_bytes());
    let base = match is_parents || attempt >= PATIENCE {
        true => Found::Taken,
        false => look_at(out, claimant)?,
    };
    if matches!(base, Found::EarlierImage) {
        *earlier = *out;
        after_exec = true;
    }
    out.push(b".");
    out.push_decimal(claimant.this.pid as u64);
    match look_at(out, claimant)? {
        Found::EarlierImage => {
            *earlier = *out;
            after_exec = true;
        }
        Found::Free if matches!(base, Found::Taken) && attempt < 2 * PATIENCE => return Ok(()),
        _ => {}
    }
    if !after_exec && matches!(base, Found::Free) {
        out.truncate(base_len);
        return Ok(());
    }
    let with_pid = out.as_bytes().len();
    for number in 1 + attempt.saturating_sub(2 * PATIENCE).. {
        out.truncate(with_pid);
        out.push(b".");
        out.push_decimal(number);
        match look_at(out, claimant)? {
            Found::EarlierImage => *earlier = *out,
            Found::Taken => {}
            Found::Free => break,
        }
    }
    Ok(())
}

/// Creates the file that will be the log, under the first name that is free.
fn create_log(claimant: Claimant<'_>, id: u64) -> Result<Fd, Cannot> {
    /// Names that are tried: with `%n`, as many runs may want the same one.
    const MOST: u64 = 10_000;
    let Some(mut first) = Scratch::<4096>::new() else { return Err(Cannot::Create(libc::ENOMEM)) };
    header::first_bytes(claimant.this, id, &mut first);
    let is_numbered = is_numbered(config::get().output.as_bytes());
    for attempt in 0..MOST {
        choose(claimant, attempt)?;
        let path = path();
        if path.is_cut() {
            return Err(Cannot::Create(libc::ENAMETOOLONG));
        }
        let may_replace =
            |start: &[u8]| !is_numbered && matches!(whose(start, claimant), Found::Free);
        match publish(path, id, first.as_bytes(), may_replace) {
            Ok(Some(fd)) => return Ok(fd),
            Ok(None) => {}
            Err(errno) => return Err(Cannot::Create(errno)),
        }
    }
    Err(Cannot::Create(libc::EEXIST))
}

/// Makes the folders that `path` lies in.
pub(super) fn make_folders(path: &Path) {
    let Some(mut folder) = Scratch::<{ libc::PATH_MAX as usize }>::new() else { return };
    for (i, byte) in path.as_bytes().iter().enumerate() {
        if *byte == b'/' && i > 0 {
            let _ = sys::mkdir(folder.as_c_str(), 0o777);
        }
        folder.push(&[*byte]);
    }
}

/// Creates the log of this process and makes it ready for lines; its path is [`path`].
///
/// # Safety
/// The caller is the thread that starts the log.
pub(crate) unsafe fn create(this: Process, parent_log: Option<&Path>) -> Result<(), Cannot> {
    let id = new_id(this);
    let fd = create_log(Claimant { this, parent_log }, id)?;
    let path = path();
    if parent_log.is_none() && !earlier().as_bytes().is_empty() {
        absorb(earlier());
    }
    ID.store(id, Ordering::Relaxed);
    let is_compact = config::get().is_compact;
    let tail = match is_compact {
        true => chunks::reserve().map(|tail| (tail, false)),
        false => map_tail(path),
    };
    let (tail, is_file) = tail.map_err(Cannot::Create)?;
    // SAFETY: a mapping of at least a page, which stays for good; the caller is the one thread that
    // starts the log.
    unsafe {
        file::adopt(fd, path, tail).map_err(Cannot::Create)?;
        let is_file = if is_compact {
            chunks::open(tail, id)
        } else {
            open_ring(tail, id);
            is_file
        };
        file::note_tail(is_file);
    }
    Ok(())
}

/// Makes the tail of a log ready for lines.
///
/// # Safety
/// `tail` is a mapping of [`TAIL_LEN`] bytes that stays for good, of a process that records nothing
/// yet.
unsafe fn open_ring(tail: *mut u8, id: u64) {
    // SAFETY: the front of the tail; the words lie in it at their natural alignment.
    unsafe {
        tail.add(tail::ID).cast::<u64>().write(id);
        tail.add(tail::BLOCK_SIZE).cast::<u32>().write(ring::BLOCK as u32);
        tail.add(tail::BLOCK_COUNT).cast::<u32>().write(ring::SLOTS as u32);
        tail.cast::<[u8; 8]>().write(tail::MAGIC);
        HOT.numbers.store(tail.add(tail::NUMBERS).cast(), Ordering::Relaxed);
        HOT.blocks.store(tail.add(tail::BLOCKS), Ordering::Relaxed);
    }
    ring::open();
}

static ID: AtomicU64 = AtomicU64::new(0);

/// Number that names the log.
pub(crate) fn id() -> u64 {
    ID.load(Ordering::Relaxed)
}

/// Path that the log has or should have had.
pub(crate) fn path() -> &'static Path {
    // SAFETY: written by the starting thread only.
    unsafe { PATH.get() }
}

/// Path of the log of the image before an exec.
pub(crate) fn earlier() -> &'static Path {
    // SAFETY: written by the starting thread only.
    unsafe { EARLIER.get() }
}

/// Differs between all logs: process, start time, moment.
pub(super) fn new_id(this: Process) -> u64 {
    let (seconds, nanoseconds) = sys::wall_clock();
    let mut id = (this.pid as u64) << 32 ^ this.ticks;
    for value in [seconds, nanoseconds] {
        id = (id ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    }
    id
}

/// Bytes of a tail.
const TAIL_LEN: usize = tail::BLOCKS + ring::BLOCK * ring::SLOTS;

/// In a fork's child: takes the parent's tail out of its memory. If a signal handler forked while
/// the hook below it was at work, what that hook still stores goes nowhere.
pub(crate) fn detach_tail() {
    let tail = file::tail();
    if !tail.is_null() {
        let len = if config::get().is_compact { chunks::mapped_len() } else { TAIL_LEN };
        // SAFETY: the tail's own mapping; this process will have another.
        unsafe { sys::replace_mapping(tail, len) };
    }
}

/// Maps a new tail file. Memory alone stands in where there is no room for one (`false`): then a kill
/// loses what has not been written out.
fn map_tail(log: &Path) -> sys::Result<(*mut u8, bool)> {
    const LEN: usize = TAIL_LEN;
    if let Some(fd) = create_tail(log) {
        // Room is reserved first, so that a full disk is an error here and not a SIGBUS later.
        let room = sys::soft_limit(libc::RLIMIT_FSIZE) >= LEN as u64;
        let mapped = if room {
            sys::fallocate(fd, LEN).and_then(|_| sys::map_shared(fd, LEN))
        } else {
            Err(libc::EFBIG)
        };
        sys::close(fd);
        if let Ok(mapped) = mapped {
            return Ok((mapped, true));
        }
        remove_tail(log);
    }
    sys::map_anonymous(LEN).map(|mapped| (mapped, false))
}

/// Makes the tail of a compact trace and maps it over memory that was reserved for it: room for so many
/// slots, or for as many as a file may have, of which only the `first` have blocks on the disk. Returns
/// how many are mapped.
///
/// # Safety
/// Nobody uses that memory yet.
pub(super) unsafe fn map_chunks(tail: *mut u8, first: usize, slots: usize) -> sys::Result<usize> {
    let log = file::path();
    let fd = create_tail(log).ok_or(libc::ENOENT)?;
    let limit = sys::soft_limit(libc::RLIMIT_FSIZE);
    let most = limit.saturating_sub(chunks::len(0) as u64) / chunk::CHUNK as u64;
    let most = slots.min(most as usize);
    let first = first.min(most);
    let mapped = match most {
        0 => Err(libc::EFBIG),
        // Room is reserved first, so that a full disk is an error here and not a SIGBUS later.
        _ => sys::fallocate(fd, chunks::len(first)).and_then(|_| {
            // A file system may have a limit of its own.
            let longer = sys::resize(fd, chunks::len(most) as u64);
            let slots = longer.map_or(first, |_| most);
            // SAFETY: the caller's promise.
            unsafe { sys::map_shared_at(tail, fd, 0, chunks::len(slots)) }?;
            // Else the first touch would read in what no thread may ever use.
            sys::expect_no_order(tail, chunks::len(slots));
            Ok(slots)
        }),
    };
    sys::close(fd);
    if mapped.is_err() {
        remove_tail(log);
    }
    mapped
}

/// Gives blocks on the disk to the first `len` bytes of the tail of a compact trace.
pub(super) fn make_room_in_tail(len: usize) -> sys::Result<usize> {
    let fd = open_for_writing(file::path()).ok_or(libc::ENOENT)?;
    let done = match sys::soft_limit(libc::RLIMIT_FSIZE) >= len as u64 {
        true => sys::fallocate(fd, len),
        false => Err(libc::EFBIG),
    };
    sys::close(fd);
    done
}

/// Removes the log that was just created, which cannot even have its first lines.
pub(crate) fn remove() {
    remove_tail(path());
    let _ = sys::unlink(path().as_c_str());
    file::abandon();
}
