//! Starts the program, passes signals on, waits for it.

use std::io;
use std::mem::MaybeUninit;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

use super::file_size;
use super::witness::{self, Witness};

/// Signals that ask a program to end. They are meant for the traced program, not for us.
const PASSED_ON: [libc::c_int; 4] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT];

/// What std changes before main() runs, as it was before.
static SIGPIPE_BEFORE: AtomicUsize = AtomicUsize::new(libc::SIG_DFL);
static CLOSED_BEFORE: AtomicU8 = AtomicU8::new(0);

/// Runs before std's own preparations, which ignore SIGPIPE and open /dev/null for each of the first
/// three descriptors that is closed.
extern "C" fn remember() {
    // SAFETY: all zeros is a valid sigaction, a struct of integers.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: with NULL for the new action, sigaction only stores into the live `action`.
    if unsafe { libc::sigaction(libc::SIGPIPE, std::ptr::null(), &mut action) } == 0 {
        SIGPIPE_BEFORE.store(action.sa_sigaction, Ordering::Relaxed);
    }
    for fd in 0..3 {
        // SAFETY: F_GETFD has no preconditions.
        if unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
            CLOSED_BEFORE.fetch_or(1 << fd, Ordering::Relaxed);
        }
    }
}

#[used]
#[unsafe(link_section = ".init_array")]
static REMEMBER: extern "C" fn() = remember;

/// The kernel sent it itself: with the signals above, on behalf of the terminal, and then to every
/// process of the foreground group.
const SI_KERNEL: libc::c_int = 0x80;

/// How long a wait for a signal takes: a thread that does not block SIGCHLD may be given it in our
/// place, and drop it.
const PATIENCE: Duration = Duration::from_millis(200);

/// A program that was started, and the signals that we wait for meanwhile.
pub struct Running {
    child: Child,
    signals: libc::sigset_t,
    /// `None` where there is none, or it does not answer.
    witness: Option<Witness>,
}

/// Starts `command` with the signal mask, the dispositions and the standard descriptors that we were
/// started with.
pub fn start(mut command: Command) -> io::Result<Running> {
    let mut signals = empty_set();
    let mut before = empty_set();
    // SAFETY: all pointers are to live signal sets, and the signals exist. SIGCHLD goes back to
    // its default because who ignores it is not told of the end of a child.
    let chld = unsafe {
        for signal in PASSED_ON {
            libc::sigaddset(&mut signals, signal);
        }
        libc::sigaddset(&mut signals, libc::SIGCHLD);
        libc::pthread_sigmask(libc::SIG_BLOCK, &signals, &mut before);
        libc::signal(libc::SIGCHLD, libc::SIG_DFL)
    };
    let restore = move || {
        // SAFETY: these calls are async-signal-safe, as the child of a fork needs; `before` is a
        // copy of its own.
        unsafe {
            libc::signal(libc::SIGCHLD, chld);
            libc::signal(libc::SIGPIPE, SIGPIPE_BEFORE.load(Ordering::Relaxed));
            file_size::restore_signal();
            for fd in (0..3).filter(|fd| CLOSED_BEFORE.load(Ordering::Relaxed) & 1 << fd != 0) {
                libc::close(fd);
            }
            libc::sigprocmask(libc::SIG_SETMASK, &before, std::ptr::null_mut());
        }
        Ok(())
    };
    // SAFETY: `restore` allocates nothing, takes no lock and cannot panic.
    unsafe { command.pre_exec(restore) };
    let child = command.spawn()?;
    // A signal to the group that comes between the two reaches the program twice. Of one that came
    // before the program and after the witness, nobody would know that it has to be passed on.
    Ok(Running { child, signals, witness: Witness::start() })
}

impl Running {
    /// Process ID of the program.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the program itself has ended, whatever its own children do.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            match take(&self.signals, PATIENCE) {
                Some(info) if PASSED_ON.contains(&info.si_signo) => {
                    self.settle(info.si_signo, Some(info));
                }
                Some(_) => {}
                // What was sent to the witness and not to us must not be taken for another signal.
                None => PASSED_ON.into_iter().for_each(|signal| self.settle(signal, None)),
            }
        }
    }

    /// Passes `signal` on if we were sent it and the program was not. `info` is what we have of it.
    ///
    /// Several signals of a kind become one while they are pending, for us and for the witness at
    /// different moments. So both are asked in turn until neither has any. One for the group has
    /// reached the witness when we take ours, and ours has arrived once the witness has told of its
    /// own and the kernel is through with the group: so both are taken here, and none is left for
    /// later. A signal to us alone in these microseconds is one with that of the group.
    fn settle(&mut self, signal: libc::c_int, mut info: Option<libc::siginfo_t>) {
        /// Signals may come as fast as they are taken.
        const MOST: usize = 1000;
        let mut only = empty_set();
        // SAFETY: a live set and a signal that exists.
        unsafe { libc::sigaddset(&mut only, signal) };
        let mut was_for_group = false;
        for _ in 0..MOST {
            let Some(witness) = &mut self.witness else { break };
            let Some(was_sent) = witness.was_sent(signal) else {
                self.witness = None;
                break;
            };
            if was_sent {
                was_for_group = true;
                witness::wait_for_group();
            }
            let another = take(&only, Duration::ZERO);
            if !was_sent && another.is_none() {
                break;
            }
            info = info.or(another);
        }
        let Some(info) = info else { return };
        if self.witness.is_none() {
            was_for_group |= info.si_code == SI_KERNEL;
        }
        // What the program sends to its parent, or to its group and so to itself, is not for it.
        // SAFETY: a signal that a process has sent has this field.
        let is_its_own =
            info.si_code == libc::SI_USER && unsafe { info.si_pid() } as u32 == self.pid();
        let has_it = is_its_own || was_for_group && self.is_in_our_group();
        if !has_it {
            // SAFETY: the child has not been waited for, so the process ID is its own still.
            unsafe { libc::kill(self.child.id() as libc::pid_t, signal) };
        }
    }

    fn is_in_our_group(&self) -> bool {
        // SAFETY: getpgid has no preconditions.
        unsafe { libc::getpgid(self.child.id() as libc::pid_t) == libc::getpgrp() }
    }
}

/// Takes a pending signal of `set`, which is blocked; waits for one no longer than `patience`.
pub(super) fn take(set: &libc::sigset_t, patience: Duration) -> Option<libc::siginfo_t> {
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    let patience = libc::timespec {
        tv_sec: patience.as_secs() as libc::time_t,
        tv_nsec: patience.subsec_nanos().into(),
    };
    // SAFETY: the set and the time are live, and `info` is storage for one siginfo_t.
    let signal = unsafe { libc::sigtimedwait(set, info.as_mut_ptr(), &patience) };
    // SAFETY: sigtimedwait has filled it; all zeros is valid besides.
    (signal > 0).then(|| unsafe { info.assume_init() })
}

pub(super) fn empty_set() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigemptyset initialises the set that it is given.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        set.assume_init()
    }
}

/// The exit status that a shell makes of it.
pub fn shell_status(status: ExitStatus) -> u8 {
    match (status.code(), status.signal()) {
        (Some(code), _) => code as u8,
        (None, Some(signal)) => 128u8.wrapping_add(signal as u8),
        (None, None) => 125,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status_of(script: &str) -> u8 {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        shell_status(start(command).unwrap().wait().unwrap())
    }

    #[test]
    fn the_status_is_that_of_the_program() {
        assert_eq!(status_of("exit 7"), 7);
        assert_eq!(status_of("kill -9 $$"), 137);
    }

    #[test]
    fn a_child_that_lives_on_is_not_waited_for() {
        let begin = std::time::Instant::now();
        assert_eq!(status_of("sleep 5 >/dev/null 2>&1 & exit 0"), 0);
        assert!(begin.elapsed().as_secs() < 4);
    }
}
