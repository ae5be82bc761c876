//! The limit of the size of files (RLIMIT_FSIZE). Who writes beyond it is sent SIGXFSZ, which kills by
//! default. Our writers ask for the limit before, but another thread may lower it in between.

use core::sync::atomic::{AtomicBool, Ordering};

use super::{Result, block_signals, restore_signals};

/// A filter of system calls would not let [`take_signal`] pass.
pub(crate) static IS_TAKING_FORBIDDEN: AtomicBool = AtomicBool::new(false);

/// Makes a system call that may make a file longer: beyond the limit it fails, and that is all. The
/// signal is for the thread that makes the call, so it waits behind the others that are blocked.
pub(super) fn without_signal(call: impl FnOnce() -> Result<usize>) -> Result<usize> {
    let signals = block_signals();
    let result = call();
    if result == Err(libc::EFBIG) && !IS_TAKING_FORBIDDEN.load(Ordering::Relaxed) {
        take_signal();
    }
    restore_signals(signals);
    result
}

/// Takes the signal back. There is none where the file system has a limit of its own.
#[cold]
fn take_signal() {
    let (set, at_once) = (1u64 << (libc::SIGXFSZ - 1), [0u64; 2]);
    let _ = call!(SYS_rt_sigtimedwait, &raw const set, 0, at_once.as_ptr(), size_of_val(&set));
}
