//! Life without system calls: from a moment on none is made any more, because one would kill the
//! process (seccomp/). Each is refused with [`REFUSED`], as a full table or a full disk would refuse
//! it, and what needs memory gets some that was mapped before.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use super::{Errno, Result};
use crate::arch;

/// What every system call fails with.
pub(super) const REFUSED: Errno = libc::EPERM;

/// Memory that is set aside; only what is used of it costs anything.
const RESERVE: usize = 256 << 20;
/// Blocks up to this size are used again.
const LARGE: usize = 1 << 20;

/// Reasons for it: calls of the program that make system calls impossible, or are about to.
static REASONS: AtomicU32 = AtomicU32::new(0);
/// Somebody sets the reserve aside.
static IS_RESERVED: AtomicBool = AtomicBool::new(false);
/// Bounds of the reserve, 0 before there is one, and where its free part begins.
static START: AtomicUsize = AtomicUsize::new(0);
static END: AtomicUsize = AtomicUsize::new(0);
static NEXT: AtomicUsize = AtomicUsize::new(0);
/// Whether libc keeps the TID of a thread where it is expected.
static KNOWS_TID: AtomicBool = AtomicBool::new(false);
/// The time when it began.
static TIME: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];

/// Whether system calls are refused. A fork's child inherits it, as it inherits its cause.
#[inline(always)]
pub(crate) fn is_silent() -> bool {
    REASONS.load(Ordering::Relaxed) != 0
}

/// From here on no system call is made. Those that other threads are at have been made when this
/// returns, but for a thread that was stopped between its decision and its call.
#[cold]
pub(crate) fn begin() {
    /// Others get this many chances.
    const PATIENCE: usize = 20;
    if is_silent() {
        REASONS.fetch_add(1, Ordering::SeqCst);
        return;
    }
    if !IS_RESERVED.swap(true, Ordering::AcqRel)
        && let Ok(new) = super::map_anonymous(RESERVE)
    {
        // What a child finds of its parent's things would be half of the truth.
        let _ = super::wipe_on_fork(new, RESERVE);
        NEXT.store(new as usize, Ordering::Relaxed);
        END.store(new as usize + RESERVE, Ordering::Relaxed);
        START.store(new as usize, Ordering::Release);
    }
    let (seconds, nanoseconds) = super::wall_clock();
    TIME.iter().zip([seconds, nanoseconds]).for_each(|(to, now)| to.store(now, Ordering::Relaxed));
    KNOWS_TID.store(super::gettid() == tid_of_libc(), Ordering::Relaxed);
    REASONS.fetch_add(1, Ordering::SeqCst);
    for _ in 0..PATIENCE {
        // SAFETY: takes no arguments.
        unsafe { arch::syscall(libc::SYS_sched_yield, [0; 6]) };
    }
}

/// One reason was none: that call has failed.
pub(crate) fn end() {
    REASONS.fetch_sub(1, Ordering::SeqCst);
}

/// TID of this thread, 0 where it is not known.
pub(super) fn tid() -> i32 {
    if KNOWS_TID.load(Ordering::Relaxed) { tid_of_libc() } else { 0 }
}

/// TID of this thread if libc keeps it where glibc has always done on x86_64. Public, though not
/// documented: thread debuggers rely on the place.
fn tid_of_libc() -> i32 {
    const PLACE: u64 = 0x2d0;
    // SAFETY: glibc's `struct pthread` begins at the thread pointer and is some 2 KiB long.
    unsafe { ((arch::thread_pointer() + PLACE) as *const i32).read_volatile() }
}

/// Seconds and nanoseconds since 1970 when it began.
pub(super) fn time() -> (u64, u64) {
    let [seconds, nanoseconds] = &TIME;
    (seconds.load(Ordering::Relaxed), nanoseconds.load(Ordering::Relaxed))
}

/// Zeroed memory of the reserve.
pub(super) fn allocate(len: usize) -> Result<*mut u8> {
    let len = len.next_multiple_of(4096);
    let step = |next: usize| {
        let end = next.checked_add(len)?;
        (next != 0 && end <= END.load(Ordering::Relaxed)).then_some(end)
    };
    match NEXT.fetch_update(Ordering::AcqRel, Ordering::Acquire, step) {
        Ok(at) => Ok(at as *mut u8),
        Err(_) => Err(libc::ENOMEM),
    }
}

/// Gives memory back. True when it was the reserve's: then it must not be unmapped.
///
/// # Safety
/// Nothing uses the memory any more.
pub(super) unsafe fn free(at: *mut u8, len: usize) -> bool {
    let start = START.load(Ordering::Acquire);
    if start == 0 || !(start..END.load(Ordering::Relaxed)).contains(&(at as usize)) {
        return false;
    }
    let len = len.next_multiple_of(4096);
    let behind = at as usize + len;
    // Most is given back in the reverse order, so this much is enough.
    if len <= LARGE && NEXT.load(Ordering::Acquire) == behind {
        // SAFETY: the caller's promise; `len` bytes from `at` on were given out together.
        unsafe { at.write_bytes(0, len) };
        let (order, otherwise) = (Ordering::AcqRel, Ordering::Relaxed);
        let _ = NEXT.compare_exchange(behind, at as usize, order, otherwise);
    }
    true
}
