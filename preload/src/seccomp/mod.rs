//! Programs that forbid themselves system calls (seccomp(2)): ours would kill them.
//!
//! prctl and syscall, by which a filter is installed, are hooked: a filter is tried out on the calls
//! that recording makes. If one is not allowed, or all are forbidden (strict mode), recording goes on
//! in memory that the tail file was given before, and makes no system call any more
//! (sys/silence.rs). All of the process does, though a filter may be one thread's: threads share what
//! is recorded.
//!
//! A program that makes these calls by instructions of its own is not seen, and neither is a filter
//! that was there before the program.

mod bpf;
mod needs;

use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bpf::Instruction;

use crate::arch::watching_hook;
use crate::record::compact;
use crate::sys::silence;
use crate::{config, lifecycle, real, sys};

// Name, register of the first argument, the values of it that are looked at, the real function, what
// is done before.
watching_hook!(prctl, "edi", libc::PR_SET_SECCOMP, PR_SET_TSC, REAL_PRCTL, before_prctl);
watching_hook!(syscall, "rdi", libc::SYS_seccomp, libc::SYS_prctl, REAL_SYSCALL, before_syscall);

/// linux/prctl.h: whether the time stamp counter can be read.
const PR_SET_TSC: i32 = 26;
const PR_TSC_SIGSEGV: usize = 2;

/// The real functions, 0 until they are known.
static REAL_PRCTL: AtomicUsize = AtomicUsize::new(0);
static REAL_SYSCALL: AtomicUsize = AtomicUsize::new(0);

/// Looks the real functions up, before the program is in a state in which dlsym may not be called.
extern "C" fn look_up() {
    real::look_up(&REAL_PRCTL, "prctl\0");
    real::look_up(&REAL_SYSCALL, "syscall\0");
}

#[cfg(not(test))]
#[used]
#[unsafe(link_section = ".init_array")]
static LOOK_UP: extern "C" fn() = look_up;

/// What the hook has on the stack: whether this call is a reason for silence, and the arguments.
#[repr(C)]
pub(crate) struct Call {
    began: usize,
    arguments: [usize; 6],
}

/// What the hook does next: a call of `target`, with [`after`] behind it, or a jump there.
#[repr(C)]
pub(crate) struct Next {
    target: usize,
    is_call: usize,
}

extern "C" fn before_prctl(call: &mut Call) -> Next {
    let [option, second, third, ..] = call.arguments;
    before(call, &REAL_PRCTL, by_prctl(option, second, third))
}

extern "C" fn before_syscall(call: &mut Call) -> Next {
    let [number, first, second, third, ..] = call.arguments;
    let wanted = match number as i64 {
        libc::SYS_seccomp => by_seccomp(first, third),
        libc::SYS_prctl => by_prctl(first, second, third),
        _ => Wanted::Other,
    };
    before(call, &REAL_SYSCALL, wanted)
}

/// What the program is about to do.
enum Wanted {
    /// No system calls but four, and no time stamp counter.
    Strict,
    /// Those that a filter allows: the address of a `struct sock_fprog`.
    Filter(usize),
    /// No time stamp counter.
    NoTicks,
    Other,
}

fn by_prctl(option: usize, second: usize, third: usize) -> Wanted {
    // Both are ints.
    match (option as i32, second as u32) {
        (libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_STRICT) => Wanted::Strict,
        (libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER) => Wanted::Filter(third),
        (PR_SET_TSC, _) if second == PR_TSC_SIGSEGV => Wanted::NoTicks,
        _ => Wanted::Other,
    }
}

fn by_seccomp(operation: usize, third: usize) -> Wanted {
    match operation as u32 {
        libc::SECCOMP_SET_MODE_STRICT => Wanted::Strict,
        libc::SECCOMP_SET_MODE_FILTER => Wanted::Filter(third),
        _ => Wanted::Other,
    }
}

#[cold]
fn before(call: &mut Call, real: &AtomicUsize, wanted: Wanted) -> Next {
    if real.load(Ordering::Relaxed) == 0 {
        look_up();
    }
    call.began = 0;
    FORBIDDEN_BEFORE.save();
    match wanted {
        Wanted::Strict => {
            begin_silence(call);
            compact::clock::forbid();
        }
        Wanted::Filter(program) if silence::is_silent() || !allows_recording(program) => {
            begin_silence(call);
        }
        Wanted::NoTicks => compact::clock::forbid(),
        Wanted::Filter(_) | Wanted::Other => {}
    }
    Next { target: real.load(Ordering::Relaxed), is_call: call.began }
}

/// To be called with the result of a call that was a reason for silence: where it has failed, nothing has
/// become impossible.
pub(crate) extern "C" fn after(result: i32) {
    if result == -1 {
        silence::end();
        FORBIDDEN_BEFORE.restore();
    }
}

/// What was forbidden before the call that may be a reason for silence.
struct Forbidden {
    barrier: AtomicBool,
    taking: AtomicBool,
}

static FORBIDDEN_BEFORE: Forbidden =
    Forbidden { barrier: AtomicBool::new(false), taking: AtomicBool::new(false) };

impl Forbidden {
    fn save(&self) {
        self.barrier.store(sys::IS_BARRIER_FORBIDDEN.load(Ordering::Relaxed), Ordering::Relaxed);
        self.taking.store(sys::IS_TAKING_FORBIDDEN.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    fn restore(&self) {
        sys::IS_BARRIER_FORBIDDEN.store(self.barrier.load(Ordering::Relaxed), Ordering::Relaxed);
        sys::IS_TAKING_FORBIDDEN.store(self.taking.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

fn begin_silence(call: &mut Call) {
    // A fork's child may not have begun its log yet: later it cannot.
    lifecycle::state();
    if !silence::is_silent() && lifecycle::has_log() {
        // What a vfork child may not do is no matter of its parent, whose memory it has for a while.
        if !lifecycle::is_own_log() {
            return;
        }
        if config::get().is_compact {
            compact::prepare_for_silence(&raw const *call as u64);
        }
    }
    silence::begin();
    call.began = 1;
}

/// Whether recording can go on under the filter that `program`, a `struct sock_fprog`, is. True where
/// the kernel will refuse it.
#[inline(never)] // the calls that it asks about would be on the stack while a log is opened
fn allows_recording(program: usize) -> bool {
    /// `SECCOMP_RET_KILL_PROCESS`.
    const KILL: u32 = 0x8000_0000;
    /// linux/filter.h.
    #[repr(C)]
    #[derive(Clone, Copy)]
    struct Program {
        len: u16,
        filter: usize,
    }
    let is_readable = |at: usize, len: usize| {
        let last = at.saturating_add(len).saturating_sub(8);
        let pages = (at..last).step_by(4096).chain([last]);
        at != 0 && pages.into_iter().all(|place| sys::is_readable(place as u64))
    };
    if !is_readable(program, size_of::<Program>()) {
        return true;
    }
    // SAFETY: just seen to be readable; any bytes are a sound value. What another thread does to its
    // own filter at this moment is beyond help.
    let Program { len, filter } = unsafe { (program as *const Program).read_unaligned() };
    let len = usize::from(len);
    if len == 0 || len > bpf::MOST || !is_readable(filter, len * size_of::<Instruction>()) {
        return true;
    }
    let fetch = |index: usize| {
        // SAFETY: inside of the filter, whose pages can be read.
        let read = || unsafe { (filter as *const Instruction).add(index).read_unaligned() };
        (index < len).then(read)
    };
    let ask = |call: &bpf::Call| bpf::run(fetch, call).unwrap_or(KILL);
    if !needs::is_barrier_met(ask) {
        sys::IS_BARRIER_FORBIDDEN.store(true, Ordering::Relaxed);
    }
    if !needs::is_taking_signals_met(ask) {
        sys::IS_TAKING_FORBIDDEN.store(true, Ordering::Relaxed);
    }
    needs::are_met(ask)
}
