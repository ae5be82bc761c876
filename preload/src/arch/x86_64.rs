//! x86_64: system calls, the word of a thread, and instructions that Rust has no name for; in files of
//! their own, hooks, which have to begin before a compiler has touched a register.

use core::arch::asm;
use core::sync::atomic::AtomicU64;

mod hooks; // hooks of functions
mod operators; // hooks of operator new and delete
mod starts; // hooks of the functions that start programs

pub(crate) use hooks::{
    Attempted, allocation_hook, call_with_registers, hook, hook_by_need, hook_with_registers,
    push_registers, watching_hook,
};
pub(crate) use operators::{ask_and_go_on, delete_hook, new_hook};
pub(crate) use starts::{hook_with_list, hook_with_result};

// One word of initial-exec TLS. Rust's own thread_local! would call __tls_get_addr, which may
// allocate.
core::arch::global_asm!(
    ".pushsection .tbss,\"awT\",@nobits",
    ".balign 8",
    ".hidden mtr_thread_state",
    ".globl mtr_thread_state",
    ".type mtr_thread_state, @object",
    ".size mtr_thread_state, 8",
    "mtr_thread_state:",
    ".zero 8",
    ".popsection",
);

/// What [`set_thread_state`] stored in this thread; NULL at first.
#[inline(always)]
pub(crate) fn thread_state() -> *mut u8 {
    let state;
    // SAFETY: reads a word of this thread's static TLS.
    unsafe {
        asm!(
            "mov {state}, [rip + mtr_thread_state@GOTTPOFF]",
            "mov {state}, fs:[{state}]",
            state = out(reg) state,
            options(nostack, readonly),
        );
    }
    state
}

/// Stores a pointer for this thread.
pub(crate) fn set_thread_state(state: *mut u8) {
    // SAFETY: writes a word of this thread's static TLS, which nothing else refers to.
    unsafe {
        asm!(
            "mov {place}, [rip + mtr_thread_state@GOTTPOFF]",
            "mov fs:[{place}], {state}",
            place = out(reg) _,
            state = in(reg) state,
            options(nostack),
        );
    }
}

/// About where the stack ends now.
#[inline(always)]
pub(crate) fn stack_pointer() -> u64 {
    let rsp;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, rsp", out(reg) rsp, options(nostack, nomem, preserves_flags)) };
    rsp
}

/// The time stamp counter.
#[inline(always)]
pub(crate) fn ticks() -> u64 {
    // SAFETY: reads a counter. It is forbidden in few processes, which record/compact/clock.rs knows.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// The time stamp counter, read after all loads before it: they may be what tells of another thread's
/// event.
#[inline(always)]
pub(crate) fn ticks_after_loads() -> u64 {
    // SAFETY: SSE2 is part of x86_64; a barrier is harmless.
    unsafe { core::arch::x86_64::_mm_lfence() };
    ticks()
}

/// The address of this thread's control block: the word at it is itself.
pub(crate) fn thread_pointer() -> u64 {
    let pointer;
    // SAFETY: the System V ABI of x86-64 has it at fs:0.
    unsafe { asm!("mov {}, fs:[0]", out(reg) pointer, options(nostack, readonly, pure)) };
    pointer
}

/// System call without libc: it is no cancellation point and leaves errno alone. Returns the
/// kernel's result, `-errno` for an error.
///
/// # Safety
/// As the system call itself: the arguments are what it expects.
#[inline]
pub(crate) unsafe fn syscall(number: libc::c_long, arguments: [usize; 6]) -> isize {
    let [a, b, c, d, e, f] = arguments;
    let result: isize;
    // SAFETY: the kernel clobbers rcx and r11 only; what the call does to memory is the caller's
    // responsibility, and `asm!` without `nomem` makes the compiler assume that it may do anything.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e, in("r9") f,
            lateout("rcx") _, lateout("r11") _,
            options(nostack),
        );
    }
    result
}

/// `fetch_add` of a process with one thread: one instruction, so a signal handler sees it done or
/// not begun, but without the bus lock that other threads would need (about 5 ns less).
#[inline(always)]
pub(crate) fn fetch_add_single_threaded(counter: &AtomicU64, increase: u64) -> u64 {
    let mut value = increase;
    // SAFETY: `counter` is valid for reads and writes as a reference to an atomic.
    unsafe {
        asm!(
            "xadd [{counter}], {value}",
            counter = in(reg) counter.as_ptr(),
            value = inout(reg) value,
            options(nostack),
        );
    }
    value
}

/// Copies 8 bytes in one store that the compiler moves no other store behind.
///
/// # Safety
/// `from` is valid for reads and `to` for writes of 8 bytes.
#[inline(always)]
pub(crate) unsafe fn publish_8_bytes(to: *mut u8, from: *const u8) {
    // SAFETY: the caller vouches for the pointers. x86 keeps stores in order, so who sees this one
    // sees all before it.
    unsafe {
        let bytes = from.cast::<u64>().read_unaligned();
        asm!("mov [{to}], {bytes}", to = in(reg) to, bytes = in(reg) bytes, options(nostack));
    }
}

/// Whether one of `len` bytes is NUL. Other threads may be storing there.
///
/// # Safety
/// `at` is valid for reads of `len` bytes and both are multiples of 64.
pub(crate) unsafe fn contains_nul(at: *const u8, len: usize) -> bool {
    use core::arch::x86_64::*;
    for offset in (0..len).step_by(64) {
        // SAFETY: SSE2 is part of x86_64, and `offset + 64` is at most `len`.
        let found = unsafe {
            let chunk = at.add(offset).cast::<__m128i>();
            let first = _mm_min_epu8(_mm_load_si128(chunk), _mm_load_si128(chunk.add(1)));
            let second = _mm_min_epu8(_mm_load_si128(chunk.add(2)), _mm_load_si128(chunk.add(3)));
            let least = _mm_min_epu8(first, second);
            _mm_movemask_epi8(_mm_cmpeq_epi8(least, _mm_setzero_si128()))
        };
        if found != 0 {
            return true;
        }
    }
    false
}

/// Whether the words at the first `len` of `addresses` are `values`. All of them are read, without
/// waiting for one another, and some of the last four twice: what is left of a multiple of four
/// costs no branch that is hard to foretell.
///
/// # Safety
/// `len` is 4 at least. `addresses` and `values` are valid for reads of that many, and words can be
/// read at the addresses.
#[inline(always)]
pub(crate) unsafe fn words_are(addresses: *const u64, values: *const u64, len: usize) -> bool {
    use core::arch::x86_64::*;
    // SAFETY: SSE2 is part of x86_64; the caller's promise.
    unsafe {
        let differing_at = |index: usize| {
            let [a, b, c, d] = addresses.add(index).cast::<[*const f64; 4]>().read();
            let expected = values.add(index).cast::<__m128i>();
            let first = _mm_castpd_si128(_mm_loadh_pd(_mm_load_sd(a), b));
            let second = _mm_castpd_si128(_mm_loadh_pd(_mm_load_sd(c), d));
            let first = _mm_xor_si128(first, _mm_loadu_si128(expected));
            let second = _mm_xor_si128(second, _mm_loadu_si128(expected.add(1)));
            _mm_or_si128(first, second)
        };
        let last = len - 4;
        let mut differing = differing_at(last);
        let mut index = 0;
        while index < last {
            differing = _mm_or_si128(differing, differing_at(index));
            index += 4;
        }
        _mm_movemask_epi8(_mm_cmpeq_epi8(differing, _mm_setzero_si128())) == 0xffff
    }
}
