//! Raw system calls, named as in section 2 of the manual: no errno, no cancellation, no lock of
//! libc. Results are the kernel's: `-errno` is `Err(errno)`.

pub(crate) mod silence;

use core::ffi::CStr;
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicBool, Ordering};

/// An error number.
pub(crate) type Errno = i32;
/// Result of a system call.
pub(crate) type Result<T> = core::result::Result<T, Errno>;
/// A file descriptor.
pub(crate) type Fd = i32;

fn check(result: isize) -> Result<usize> {
    if (-4095..0).contains(&result) { Err(-result as Errno) } else { Ok(result as usize) }
}

macro_rules! call {
    ($number:ident $(, $argument:expr)*) => {{
        let mut arguments = [0; 6];
        let mut _next = arguments.iter_mut();
        $( if let Some(place) = _next.next() { *place = $argument as usize; } )*
        if $crate::sys::silence::is_silent() {
            Err($crate::sys::silence::REFUSED)
        } else {
            // SAFETY: every call in this file and below passes pointers to live values of the sizes
            // that the system call reads or writes.
            $crate::sys::check(unsafe { $crate::arch::syscall(libc::$number, arguments) })
        }
    }};
}

// Behind the macro, which they use.
mod file_size;
pub(crate) mod mappings;

pub(crate) use file_size::IS_TAKING_FORBIDDEN;
use file_size::without_signal;

pub(crate) fn getpid() -> i32 {
    call!(SYS_getpid).unwrap_or(0) as i32
}

/// Ends the process.
pub(crate) fn exit(status: i32) {
    let _ = call!(SYS_exit_group, status);
}

pub(crate) fn getppid() -> i32 {
    call!(SYS_getppid).unwrap_or(0) as i32
}

pub(crate) fn gettid() -> i32 {
    if silence::is_silent() {
        return silence::tid();
    }
    call!(SYS_gettid).unwrap_or(0) as i32
}

pub(crate) fn openat(path: &CStr, flags: i32, mode: u32) -> Result<Fd> {
    call!(SYS_openat, libc::AT_FDCWD, path.as_ptr(), flags, mode).map(|fd| fd as Fd)
}

pub(crate) fn close(fd: Fd) {
    let _ = call!(SYS_close, fd);
}

pub(crate) fn read(fd: Fd, buffer: &mut [u8]) -> Result<usize> {
    call!(SYS_read, fd, buffer.as_mut_ptr(), buffer.len())
}

pub(crate) fn write(fd: Fd, bytes: &[u8]) -> Result<usize> {
    without_signal(|| call!(SYS_write, fd, bytes.as_ptr(), bytes.len()))
}

/// # Safety
/// `to` is valid for writes of `len` bytes.
pub(crate) unsafe fn pread(fd: Fd, to: *mut u8, len: usize, offset: u64) -> Result<usize> {
    call!(SYS_pread64, fd, to, len, offset)
}

/// # Safety
/// `from` is valid for reads of `len` bytes (bytes that change meanwhile are written as they
/// happen to be).
pub(crate) unsafe fn pwrite(fd: Fd, from: *const u8, len: usize, offset: u64) -> Result<usize> {
    without_signal(|| call!(SYS_pwrite64, fd, from, len, offset))
}

/// Whether the 8 bytes at `address` can be read.
///
/// The kernel copies the set of signals before it refuses to do what is none of SIG_BLOCK,
/// SIG_UNBLOCK, SIG_SETMASK. Of the calls that tell, this is the one that no filter of system calls
/// forbids.
pub(crate) fn is_readable(address: u64) -> bool {
    call!(SYS_rt_sigprocmask, -1isize, address, 0, 8) == Err(libc::EINVAL)
}

pub(crate) fn fstat(fd: Fd) -> Result<libc::stat> {
    let mut stat = MaybeUninit::<libc::stat>::zeroed();
    call!(SYS_fstat, fd, stat.as_mut_ptr())?;
    // SAFETY: all zeros is a valid `stat`, and the kernel has filled it.
    Ok(unsafe { stat.assume_init() })
}

pub(crate) fn lstat(path: &CStr) -> Result<libc::stat> {
    let mut stat = MaybeUninit::<libc::stat>::zeroed();
    call!(
        SYS_newfstatat,
        libc::AT_FDCWD,
        path.as_ptr(),
        stat.as_mut_ptr(),
        libc::AT_SYMLINK_NOFOLLOW
    )?;
    // SAFETY: as in `fstat`.
    Ok(unsafe { stat.assume_init() })
}

pub(crate) fn unlink(path: &CStr) -> Result<usize> {
    call!(SYS_unlink, path.as_ptr())
}

pub(crate) fn rename(from: &CStr, to: &CStr) -> Result<usize> {
    call!(SYS_rename, from.as_ptr(), to.as_ptr())
}

/// As [`rename`], but `EEXIST` where `to` is there already; `EINVAL` where the file system cannot.
pub(crate) fn rename_to_new(from: &CStr, to: &CStr) -> Result<usize> {
    let (here, flags) = (libc::AT_FDCWD, libc::RENAME_NOREPLACE);
    call!(SYS_renameat2, here, from.as_ptr(), here, to.as_ptr(), flags)
}

/// Makes a file end at `len`, if it is longer.
pub(crate) fn truncate(fd: Fd, len: u64) -> Result<()> {
    if fstat(fd)?.st_size.unsigned_abs() > len { resize(fd, len).map(|_| ()) } else { Ok(()) }
}

/// Makes a file `len` bytes long; what is new of it is a hole.
pub(crate) fn resize(fd: Fd, len: u64) -> Result<usize> {
    without_signal(|| call!(SYS_ftruncate, fd, len))
}

pub(crate) fn link(from: &CStr, to: &CStr) -> Result<usize> {
    call!(SYS_link, from.as_ptr(), to.as_ptr())
}

/// Changes what may be done with a file by those who open it from here on.
pub(crate) fn change_mode(fd: Fd, mode: u32) -> Result<usize> {
    call!(SYS_fchmod, fd, mode)
}

/// Locks a file against all others that ask for its lock; `EWOULDBLOCK` where somebody has it.
pub(crate) fn try_lock(fd: Fd) -> Result<usize> {
    call!(SYS_flock, fd, libc::LOCK_EX | libc::LOCK_NB)
}

/// Bytes of the file system that `fd` is on, and those of them that are free.
pub(crate) fn space(fd: Fd) -> Result<(u64, u64)> {
    let mut found = MaybeUninit::<libc::statfs>::zeroed();
    call!(SYS_fstatfs, fd, found.as_mut_ptr())?;
    // SAFETY: all zeros is a valid `statfs`, and the kernel has filled it.
    let found = unsafe { found.assume_init() };
    let size = found.f_bsize.unsigned_abs();
    Ok((found.f_blocks.saturating_mul(size), found.f_bavail.saturating_mul(size)))
}

pub(crate) fn mkdir(path: &CStr, mode: u32) -> Result<usize> {
    call!(SYS_mkdir, path.as_ptr(), mode)
}

pub(crate) fn fallocate(fd: Fd, len: usize) -> Result<usize> {
    without_signal(|| call!(SYS_fallocate, fd, 0, 0, len))
}

/// Moves `fd` to the lowest free number from `lowest` on, closed on exec.
pub(crate) fn move_fd(fd: Fd, lowest: i32) -> Fd {
    match call!(SYS_fcntl, fd, libc::F_DUPFD_CLOEXEC, lowest) {
        Ok(moved) => {
            close(fd);
            moved as Fd
        }
        Err(_) => fd,
    }
}

/// The soft limit of `resource`, `u64::MAX` when there is none.
pub(crate) fn soft_limit(resource: u32) -> u64 {
    let mut limit = [u64::MAX; 2];
    let _ = call!(SYS_prlimit64, 0, resource, 0, limit.as_mut_ptr());
    limit[0]
}

/// New zeroed memory of this process alone.
pub(crate) fn map_anonymous(len: usize) -> Result<*mut u8> {
    if silence::is_silent() {
        return silence::allocate(len);
    }
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    call!(SYS_mmap, 0, len, libc::PROT_READ | libc::PROT_WRITE, flags, -1isize, 0)
        .map(|at| at as *mut u8)
}

/// New zeroed memory that children of fork share.
pub(crate) fn map_with_children(len: usize) -> Result<*mut u8> {
    let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
    call!(SYS_mmap, 0, len, libc::PROT_READ | libc::PROT_WRITE, flags, -1isize, 0)
        .map(|at| at as *mut u8)
}

/// The first `len` bytes of a file, shared with it.
pub(crate) fn map_shared(fd: Fd, len: usize) -> Result<*mut u8> {
    call!(SYS_mmap, 0, len, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED, fd, 0)
        .map(|at| at as *mut u8)
}

/// Maps a part of a file, shared with it, over memory of this process.
///
/// # Safety
/// Nobody uses that memory.
pub(crate) unsafe fn map_shared_at(at: *mut u8, fd: Fd, from: usize, len: usize) -> Result<()> {
    let flags = libc::MAP_SHARED | libc::MAP_FIXED;
    call!(SYS_mmap, at, len, libc::PROT_READ | libc::PROT_WRITE, flags, fd, from).map(|_| ())
}

/// Says that pages of a mapping are used in no order: none is read ahead of use.
pub(crate) fn expect_no_order(at: *mut u8, len: usize) {
    let _ = call!(SYS_madvise, at, len, libc::MADV_RANDOM);
}

/// New zeroed memory of this process alone in place of a part of a mapping.
///
/// # Safety
/// Nobody uses that part.
pub(crate) unsafe fn map_anonymous_at(at: *mut u8, len: usize) -> Result<()> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED;
    call!(SYS_mmap, at, len, libc::PROT_READ | libc::PROT_WRITE, flags, -1isize, 0).map(|_| ())
}

/// Makes the kernel write to pages without changing them, so that they are there. `EFAULT` where it
/// cannot, `EINVAL` before Linux 5.14.
///
/// # Safety
/// They are pages of a mapping of ours.
pub(crate) unsafe fn populate(at: *mut u8, len: usize) -> Result<usize> {
    call!(SYS_madvise, at, len, libc::MADV_POPULATE_WRITE)
}

/// Makes the kernel write a word: which signals are blocked. `EFAULT` where the page is not there and
/// cannot be made.
///
/// # Safety
/// `to` is a word of ours that may be written.
pub(crate) unsafe fn store_signal_mask(to: *mut u64) -> Result<usize> {
    call!(SYS_rt_sigprocmask, libc::SIG_BLOCK, 0, to, 8)
}

/// The first `len` bytes of a file, to be read only.
pub(crate) fn map_private(fd: Fd, len: usize) -> Result<*const u8> {
    call!(SYS_mmap, 0, len, libc::PROT_READ, libc::MAP_PRIVATE, fd, 0).map(|at| at as *const u8)
}

/// # Safety
/// Nothing uses the mapping any more.
pub(crate) unsafe fn unmap(at: *mut u8, len: usize) {
    // SAFETY: the caller's promise.
    if !unsafe { silence::free(at, len) } {
        let _ = call!(SYS_munmap, at, len);
    }
}

/// Changes what may be done with pages.
///
/// # Safety
/// `at` is a multiple of the page size, and what is there is used as the new protection allows.
pub(crate) unsafe fn protect(at: usize, len: usize, protection: i32) -> Result<usize> {
    call!(SYS_mprotect, at, len, protection)
}

/// Makes the kernel hand zeros to a fork's child in place of these pages.
pub(crate) fn wipe_on_fork(at: *const u8, len: usize) -> Result<usize> {
    if silence::is_silent() {
        return Ok(0); // all that is new then is wiped
    }
    call!(SYS_madvise, at, len, libc::MADV_WIPEONFORK)
}

pub(crate) fn readlink<'a>(path: &CStr, buffer: &'a mut [u8]) -> Result<&'a [u8]> {
    let len =
        call!(SYS_readlinkat, libc::AT_FDCWD, path.as_ptr(), buffer.as_mut_ptr(), buffer.len())?;
    buffer.get(..len).ok_or(libc::ENAMETOOLONG)
}

/// The current folder, without the NUL.
pub(crate) fn getcwd(buffer: &mut [u8]) -> Result<&[u8]> {
    let len = call!(SYS_getcwd, buffer.as_mut_ptr(), buffer.len())?;
    buffer.get(..len.saturating_sub(1)).ok_or(libc::ENAMETOOLONG)
}

/// Seconds and nanoseconds since 1970.
pub(crate) fn wall_clock() -> (u64, u64) {
    if silence::is_silent() {
        return silence::time();
    }
    let mut time = [0u64; 2];
    let _ = call!(SYS_clock_gettime, libc::CLOCK_REALTIME, time.as_mut_ptr());
    (time[0], time[1])
}

/// The name of the machine. `buffer` has room for a `utsname`.
pub(crate) fn host_name(buffer: &mut [u8]) -> Result<&[u8]> {
    if buffer.len() < size_of::<libc::utsname>() {
        return Err(libc::EFAULT);
    }
    call!(SYS_uname, buffer.as_mut_ptr())?;
    let name = buffer.get(core::mem::offset_of!(libc::utsname, nodename)..).unwrap_or(&[]);
    Ok(name.split(|byte| *byte == 0).next().unwrap_or(&[]))
}

/// Reads a whole (small) file into `buffer`, as far as it fits.
pub(crate) fn read_file<'a>(path: &CStr, buffer: &'a mut [u8]) -> Result<&'a [u8]> {
    let fd = openat(path, libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NOCTTY, 0)?;
    let mut len = 0;
    let end = loop {
        match buffer.get_mut(len..).map(|rest| read(fd, rest)) {
            Some(Ok(0)) | None => break Ok(()),
            Some(Ok(n)) => len += n,
            Some(Err(libc::EINTR)) => {}
            Some(Err(errno)) => break Err(errno),
        }
    };
    close(fd);
    end?;
    Ok(buffer.get(..len).unwrap_or(&[]))
}

pub(crate) fn yield_processor() {
    let _ = call!(SYS_sched_yield);
}

/// Makes every thread of this process pass a memory barrier: what each had stored before is seen here,
/// and what was stored here is seen by it. `EACCES` where a filter forbids to ask for it.
pub(crate) fn pass_barrier_in_threads() -> Result<usize> {
    /// linux/membarrier.h.
    const PRIVATE_EXPEDITED: u32 = 1 << 3;
    if IS_BARRIER_FORBIDDEN.load(Ordering::Relaxed) {
        return Err(libc::EACCES);
    }
    prepare_barrier()?;
    call!(SYS_membarrier, PRIVATE_EXPEDITED, 0, 0)
}

/// To be called before [`pass_barrier_in_threads`] as long as there is one thread: then it takes 4 us, with
/// several some 10 ms. A fork's child has it from its parent.
pub(crate) fn prepare_barrier() -> Result<usize> {
    /// linux/membarrier.h.
    const REGISTER_PRIVATE_EXPEDITED: u32 = 1 << 4;
    call!(SYS_membarrier, REGISTER_PRIVATE_EXPEDITED, 0, 0)
}

/// A filter of system calls would not let [`pass_barrier_in_threads`] pass.
pub(crate) static IS_BARRIER_FORBIDDEN: AtomicBool = AtomicBool::new(false);

/// Resident memory of this process in bytes.
pub(crate) fn resident_memory() -> Option<u64> {
    let mut buffer = [0; 128];
    let fields = read_file(c"/proc/self/statm", &mut buffer).ok()?;
    let pages = fields.split(|byte| *byte == b' ').nth(1)?;
    Some(crate::config::parse(pages)? * 4096)
}

/// Keeps all signal handlers from running in this thread; returns what was blocked before.
pub(crate) fn block_signals() -> u64 {
    let (all, mut before) = (u64::MAX, 0u64);
    let _ = call!(SYS_rt_sigprocmask, libc::SIG_BLOCK, &raw const all, &raw mut before, 8);
    before
}

/// Undoes [`block_signals`].
pub(crate) fn restore_signals(before: u64) {
    let _ = call!(SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const before, 0, 8);
}

/// Replaces a mapping by new zeroed memory of this process alone, in one step.
///
/// # Safety
/// `at` and `len` are those of a mapping of ours; what it held may vanish.
pub(crate) unsafe fn replace_mapping(at: *mut u8, len: usize) {
    // SAFETY: the caller's promise.
    let _ = unsafe { map_anonymous_at(at, len) };
}
