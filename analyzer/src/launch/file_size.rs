//! The limit of the size of files (`ulimit -f`), which we and the program inherit. It must not be our
//! end: a write beyond it is an error like others, once SIGXFSZ is ignored.

use std::sync::atomic::{AtomicUsize, Ordering};

/// What SIGXFSZ did before [`survive_limit`].
static SIGXFSZ_BEFORE: AtomicUsize = AtomicUsize::new(libc::SIG_DFL);

/// From here on a write beyond the limit fails, and nothing else happens.
pub fn survive_limit() {
    // SAFETY: an existing signal, and no handler.
    let before = unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    if before != libc::SIG_ERR {
        SIGXFSZ_BEFORE.store(before, Ordering::Relaxed);
    }
}

/// Undoes [`survive_limit`], for the program. Async-signal-safe.
pub(super) fn restore_signal() {
    // SAFETY: the disposition that we were started with: an exec leaves none but SIG_DFL and SIG_IGN.
    unsafe { libc::signal(libc::SIGXFSZ, SIGXFSZ_BEFORE.load(Ordering::Relaxed)) };
}

/// The limit, `u64::MAX` when there is none.
pub fn limit() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: `limit` is a live rlimit, which the call fills.
    unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &mut limit) };
    limit.rlim_cur
}
