//! Tells whether a signal was for our process group or for us alone: the kernel says who has sent it,
//! but not to how many.
//!
//! A second process of our group, the witness, blocks all signals and does nothing else. What it has
//! pending too was for the group, and so the program has it already, if it is in that group. The
//! kernel signals the newest member of a group first, and the witness is newer than we are: what has
//! reached us has reached it before. Who signals processes by their names must not find it (with us,
//! but without the program), so it has a name of its own.

use std::ffi::{CStr, c_char, c_int};
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::time::Duration;

use super::child::{empty_set, take};

/// What `ps` and the like call it. Nothing that one would look for to find mtr.
const NAME: &CStr = c"signal-witness";

/// An answer takes some 20 microseconds, on a machine that is very busy more.
const PATIENCE: Duration = Duration::from_secs(1);

/// The process that gets the signals of our group.
pub(super) struct Witness {
    pid: libc::pid_t,
    /// It ends when this is closed, however we end.
    questions: UnixStream,
}

impl Witness {
    /// Starts it, in our group. What is sent from now on it knows of.
    pub(super) fn start() -> Option<Witness> {
        let (ours, its) = UnixStream::pair().ok()?;
        ours.set_read_timeout(Some(PATIENCE)).ok()?;
        let mut before = empty_set();
        // SAFETY: the sets are live. In the child of what may be a process with threads, `testify`
        // allocates nothing, takes no lock and does not return.
        let pid = unsafe {
            let mut all = empty_set();
            libc::sigfillset(&mut all);
            libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
            let pid = libc::fork();
            if pid == 0 {
                testify(its.as_raw_fd());
            }
            libc::pthread_sigmask(libc::SIG_SETMASK, &before, std::ptr::null_mut());
            pid
        };
        (pid > 0).then_some(Witness { pid, questions: ours })
    }

    /// Whether it was sent `signal` since it was last asked. `None`: it does not answer.
    pub(super) fn was_sent(&mut self, signal: c_int) -> Option<bool> {
        let mut answer = [0];
        self.questions.write_all(&[signal as u8]).ok()?;
        self.questions.read_exact(&mut answer).ok()?;
        Some(answer[0] != 0)
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        // SAFETY: our own child, which nobody else waits for, so the process ID is its own.
        unsafe {
            libc::kill(self.pid, libc::SIGKILL);
            libc::waitpid(self.pid, std::ptr::null_mut(), 0);
        }
    }
}

/// Comes back when each signal to our group that has reached one of its members has reached all.
///
/// The kernel holds its lock on the list of processes while it goes through a group; setpgid takes
/// that lock for writing, and changes nothing for who is in the group already.
pub(super) fn wait_for_group() {
    // SAFETY: no preconditions. It fails for the leader of a session, after the lock was taken.
    unsafe { libc::setpgid(0, libc::getpgrp()) };
}

/// The life of the witness: it answers questions until nobody can ask any more.
///
/// # Safety
/// The caller is a child of fork, with all signals blocked.
unsafe fn testify(questions: RawFd) -> ! {
    // SAFETY: async-signal-safe calls on live values; the caller's promise for the rest.
    unsafe {
        libc::prctl(libc::PR_SET_NAME, NAME.as_ptr());
        rename_arguments();
        let kept = questions as libc::c_uint;
        // A descriptor of the user's that it held would keep a pipe or a file system in use.
        if libc::close_range(0, kept - 1, 0) != 0
            || libc::close_range(kept + 1, libc::c_uint::MAX, 0) != 0
        {
            libc::_exit(1);
        }
        let mut signal = 0u8;
        while libc::read(questions, (&raw mut signal).cast(), 1) == 1 {
            let mut set = empty_set();
            libc::sigaddset(&mut set, signal.into());
            let answer = u8::from(take(&set, Duration::ZERO).is_some());
            libc::write(questions, (&raw const answer).cast(), 1);
        }
        libc::_exit(0)
    }
}

/// The arguments of this process where the kernel reads them.
static ARGUMENTS: AtomicPtr<*mut c_char> = AtomicPtr::new(std::ptr::null_mut());
static COUNT: AtomicUsize = AtomicUsize::new(0);

extern "C" fn remember(count: c_int, arguments: *mut *mut c_char) {
    COUNT.store(count.max(0) as usize, Ordering::Relaxed);
    ARGUMENTS.store(arguments, Ordering::Relaxed);
}

#[used]
#[unsafe(link_section = ".init_array")]
static REMEMBER: extern "C" fn(c_int, *mut *mut c_char) = remember;

/// Makes [`NAME`] the whole command line of this process.
///
/// # Safety
/// The caller is a child of fork that reads its arguments no more.
unsafe fn rename_arguments() {
    let (arguments, count) = (ARGUMENTS.load(Ordering::Relaxed), COUNT.load(Ordering::Relaxed));
    let mut name = NAME.to_bytes().iter();
    for index in 0..count {
        // SAFETY: glibc hands main's arguments to `remember`: so many C strings, which lie one
        // behind the other in memory that can be written.
        unsafe {
            let mut at = *arguments.add(index);
            while *at != 0 {
                *at = name.next().copied().unwrap_or(0) as c_char;
                at = at.add(1);
            }
        }
    }
}
