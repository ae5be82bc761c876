//! The system calls that recording makes, as a filter sees them.

use super::bpf::Call;
use crate::log::file;

/// The results of a filter that matter here (linux/seccomp.h); the lower half is data.
mod result {
    pub(super) const ERRNO: u32 = 0x0005_0000;
    pub(super) const LOG: u32 = 0x7ffc_0000;
    pub(super) const ALLOW: u32 = 0x7fff_0000;
}

/// Whether recording can go on under a filter, of which `ask` tells what becomes of a call.
pub(super) fn are_met(ask: impl Fn(&Call) -> u32) -> bool {
    let (fd, at) = (file::descriptor_number() as u64, &raw const ask as u64);
    are_allowed(&ask, &needed(fd, at), false) && are_allowed(&ask, &useful(fd, at), true)
}

/// Whether threads can be made to pass a barrier under a filter: few know of the call, and it is
/// needed at the exit of some programs only.
pub(super) fn is_barrier_met(ask: impl Fn(&Call) -> u32) -> bool {
    are_allowed(&ask, &[(libc::SYS_membarrier, [1 << 3, 0, 0, 0, 0, 0])], true)
}

/// Whether a thread can take back a signal that its own write has brought about, which happens only where
/// the program lowers a limit meanwhile.
pub(super) fn is_taking_signals_met(ask: impl Fn(&Call) -> u32) -> bool {
    let at = &raw const ask as u64;
    are_allowed(&ask, &[(libc::SYS_rt_sigtimedwait, [at, 0, at, 8, 0, 0])], true)
}

fn are_allowed(ask: impl Fn(&Call) -> u32, calls: &[(i64, [u64; 6])], may_fail: bool) -> bool {
    calls.iter().all(|(number, arguments)| {
        let call = Call::new(*number, *arguments, are_met_place());
        match ask(&call) & 0xffff_0000 {
            result::ALLOW | result::LOG => true,
            result => may_fail && result == result::ERRNO,
        }
    })
}

/// A filter may look at the address of the instruction that makes the call.
fn are_met_place() -> u64 {
    crate::sys::getpid as fn() -> i32 as usize as u64
}

/// Without these nothing can be recorded, or something would be left open or be said on stderr.
fn needed(fd: u64, at: u64) -> [(i64, [u64; 6]); 19] {
    let cwd = libc::AT_FDCWD as u64;
    let read = (libc::O_RDONLY | libc::O_CLOEXEC) as u64;
    let write = (libc::O_RDWR | libc::O_CLOEXEC | libc::O_NOFOLLOW | libc::O_NOCTTY) as u64;
    let create = write | (libc::O_CREAT | libc::O_EXCL) as u64;
    let protection = (libc::PROT_READ | libc::PROT_WRITE) as u64;
    let private = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE) as u64;
    let shared = (libc::MAP_SHARED | libc::MAP_FIXED) as u64;
    let nofollow = libc::AT_SYMLINK_NOFOLLOW as u64;
    [
        (libc::SYS_pwrite64, [fd, at, 1 << 15, 1 << 16, 0, 0]),
        (libc::SYS_fstat, [fd, at, 0, 0, 0, 0]),
        (libc::SYS_prlimit64, [0, libc::RLIMIT_FSIZE.into(), 0, at, 0, 0]),
        (libc::SYS_rt_sigprocmask, [libc::SIG_BLOCK as u64, at, at, 8, 0, 0]),
        (libc::SYS_rt_sigprocmask, [libc::SIG_SETMASK as u64, at, 0, 8, 0, 0]),
        (libc::SYS_rt_sigprocmask, [u64::MAX, at, 0, 8, 0, 0]),
        (libc::SYS_clock_gettime, [libc::CLOCK_REALTIME as u64, at, 0, 0, 0, 0]),
        (libc::SYS_gettid, [0; 6]),
        (libc::SYS_getpid, [0; 6]),
        (libc::SYS_openat, [cwd, at, read, 0, 0, 0]),
        (libc::SYS_openat, [cwd, at, write, 0, 0, 0]),
        (libc::SYS_openat, [cwd, at, create, 0o600, 0, 0]),
        (libc::SYS_openat, [cwd, at, create, 0o400, 0, 0]),
        (libc::SYS_newfstatat, [cwd, at, at, nofollow, 0, 0]),
        (libc::SYS_close, [fd, 0, 0, 0, 0, 0]),
        (libc::SYS_mmap, [0, 1 << 16, protection, private, u64::MAX, 0]),
        (libc::SYS_mmap, [at, 1 << 18, protection, shared, fd, 4096]),
        (libc::SYS_munmap, [at, 1 << 16, 0, 0, 0, 0]),
        (libc::SYS_madvise, [at, 4096, libc::MADV_WIPEONFORK as u64, 0, 0, 0]),
    ]
}

/// These may fail, but must not be a signal.
fn useful(fd: u64, at: u64) -> [(i64, [u64; 6]); 23] {
    let cwd = libc::AT_FDCWD as u64;
    let dup = libc::F_DUPFD_CLOEXEC as u64;
    let protection = (libc::PROT_READ | libc::PROT_WRITE) as u64;
    let anonymous = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    let fixed = (anonymous | libc::MAP_FIXED) as u64;
    [
        (libc::SYS_read, [fd, at, 512, 0, 0, 0]),
        (libc::SYS_pread64, [fd, at, 256, 0, 0, 0]),
        (libc::SYS_fallocate, [fd, 0, 0, 1 << 18, 0, 0]),
        (libc::SYS_madvise, [at, 1 << 15, libc::MADV_POPULATE_WRITE as u64, 0, 0, 0]),
        (libc::SYS_madvise, [at, 1 << 15, libc::MADV_RANDOM as u64, 0, 0, 0]),
        (libc::SYS_mmap, [at, 1 << 15, protection, fixed, u64::MAX, 0]),
        (libc::SYS_fcntl, [fd, dup, 1000, 0, 0, 0]),
        (libc::SYS_unlink, [at, 0, 0, 0, 0, 0]),
        (libc::SYS_mkdir, [at, 0o777, 0, 0, 0, 0]),
        (libc::SYS_readlinkat, [cwd, at, at, 4096, 0, 0]),
        (libc::SYS_getcwd, [at, 4096, 0, 0, 0, 0]),
        (libc::SYS_uname, [at, 0, 0, 0, 0, 0]),
        (libc::SYS_ioctl, [fd, crate::sys::mappings::PROCMAP_QUERY as u64, at, 0, 0, 0]),
        (libc::SYS_sched_yield, [0; 6]),
        (libc::SYS_getppid, [0; 6]),
        (libc::SYS_mprotect, [at & !4095, 4096, libc::PROT_READ as u64, 0, 0, 0]),
        (libc::SYS_write, [2, at, 80, 0, 0, 0]),
        (libc::SYS_fstatfs, [fd, at, 0, 0, 0, 0]),
        (libc::SYS_ftruncate, [fd, 1 << 20, 0, 0, 0, 0]),
        (libc::SYS_flock, [fd, (libc::LOCK_EX | libc::LOCK_NB) as u64, 0, 0, 0, 0]),
        (libc::SYS_renameat2, [cwd, at, cwd, at, libc::RENAME_NOREPLACE.into(), 0]),
        (libc::SYS_link, [at, at, 0, 0, 0, 0]),
        (libc::SYS_rename, [at, at, 0, 0, 0, 0]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seccomp::bpf::{self, Instruction};

    /// A filter with this answer to one system call, and another to the rest.
    fn filter(number: i64, answer: u32, otherwise: u32) -> impl Fn(&Call) -> u32 {
        let at = |code, otherwise, k| Instruction { code, then: 0, otherwise, k };
        let program = [
            at(0x20, 0, 0),
            at(0x15, 1, number as u32),
            at(0x06, 0, answer),
            at(0x06, 0, otherwise),
        ];
        move |call| bpf::run(|index| program.get(index).copied(), call).unwrap()
    }

    #[test]
    fn what_recording_needs_must_be_allowed() {
        assert!(are_met(|_| result::ALLOW) && are_met(|_| result::LOG));
        assert!(!are_met(|_| 0) && !are_met(|_| result::ERRNO | 1));
        for number in [libc::SYS_pwrite64, libc::SYS_madvise, libc::SYS_openat] {
            for answer in [0, 0x8000_0000, 0x0003_0000, 0x7fc0_0000, 0x7ff0_0000, 0x0005_0001] {
                assert!(!are_met(filter(number, answer, result::ALLOW)), "{number} {answer:#x}");
            }
        }
        assert!(are_met(filter(libc::SYS_ptrace, 0, result::ALLOW)));
        let without_barrier = filter(libc::SYS_membarrier, 0, result::ALLOW);
        assert!(are_met(&without_barrier) && !is_barrier_met(&without_barrier));
        let without_taking = filter(libc::SYS_rt_sigtimedwait, 0, result::ALLOW);
        assert!(are_met(&without_taking) && !is_taking_signals_met(&without_taking));
    }

    #[test]
    fn what_is_useful_may_fail_but_not_be_a_signal() {
        for number in [libc::SYS_uname, libc::SYS_sched_yield] {
            assert!(are_met(filter(number, result::ERRNO | 38, result::ALLOW)));
            assert!(!are_met(filter(number, 0x0003_0000, result::ALLOW)));
        }
    }
}
