//! For tests: runs code one instruction at a time, to see what a kill at any moment would leave.

use core::ffi::{c_int, c_void};
use core::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Mutex;

/// One test at a time: what is looked at is global.
static TURN: Mutex<()> = Mutex::new(());
/// What is called behind each instruction, 0 for nothing.
static LOOK: AtomicUsize = AtomicUsize::new(0);
static STEPS: AtomicUsize = AtomicUsize::new(0);

extern "C" fn on_trap(_: c_int, _: *mut libc::siginfo_t, _: *mut c_void) {
    let look = LOOK.load(Ordering::Relaxed);
    if look != 0 {
        STEPS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: stored by `at_each_instruction`.
        let look = unsafe { core::mem::transmute::<usize, fn()>(look) };
        look();
    }
}

/// Runs `prepare`, then `act` with a call of `look` behind each of its instructions. How many there were.
/// `look` neither allocates nor takes a lock.
pub(crate) fn at_each_instruction(prepare: impl FnOnce(), act: impl FnOnce(), look: fn()) -> usize {
    let _turn = TURN.lock().unwrap_or_else(|error| error.into_inner());
    prepare();
    // SAFETY: all zeros is a valid `sigaction`; the handler does only what a handler may.
    unsafe {
        let mut action: libc::sigaction = core::mem::zeroed();
        action.sa_sigaction = on_trap as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        assert_eq!(libc::sigaction(libc::SIGTRAP, &action, core::ptr::null_mut()), 0);
    }
    STEPS.store(0, Ordering::Relaxed);
    LOOK.store(look as usize, Ordering::Relaxed);
    // SAFETY: sets and clears the trap flag, by which each instruction raises SIGTRAP in this thread; the
    // kernel clears it for the handler.
    unsafe {
        core::arch::asm!("pushfq", "or qword ptr [rsp], 0x100", "popfq");
        act();
        core::arch::asm!("pushfq", "and qword ptr [rsp], ~0x100", "popfq");
    }
    LOOK.store(0, Ordering::Relaxed);
    STEPS.load(Ordering::Relaxed)
}
