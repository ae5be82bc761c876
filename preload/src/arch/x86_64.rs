//! x86_64: system calls, the return address of a hook, and two instructions that Rust has no name
//! for.

use core::arch::asm;
use core::sync::atomic::AtomicU64;

mod starts; // hooks of the functions that start programs
pub(crate) use starts::{hook_with_list, hook_with_result};

/// Exports `$name`, which passes its first `$count` arguments and its return address on to `$body`.
///
/// Stable Rust cannot read the return address of the function it is in; at the first instruction of
/// a naked one it is on top of the stack.
macro_rules! hook {
    ($name:ident, 0, $body:path) => { $crate::arch::hook!(@ $name, "rdi", $body); };
    ($name:ident, 1, $body:path) => { $crate::arch::hook!(@ $name, "rsi", $body); };
    ($name:ident, 2, $body:path) => { $crate::arch::hook!(@ $name, "rdx", $body); };
    ($name:ident, 3, $body:path) => { $crate::arch::hook!(@ $name, "rcx", $body); };
    (@ $name:ident, $register:literal, $body:path) => {
        /// Hook, see the list in hooks.rs.
        ///
        /// # Safety
        /// As the function of that name in the C library: it is what the program calls in its
        /// place.
        #[cfg_attr(not(test), unsafe(no_mangle))]
        #[unsafe(naked)]
        #[allow(non_snake_case)] // the names are those of the C library
        pub(crate) unsafe extern "C" fn $name() {
            core::arch::naked_asm!(
                "endbr64",
                concat!("mov ", $register, ", [rsp]"),
                "jmp {body}",
                body = sym $body,
            )
        }
    };
}
pub(crate) use hook;

/// Instructions that store the registers which a call leaves as they were below the return address,
/// and call `{body}` with a pointer to them ([`Registers`](crate::unwind::Registers)) in `$register`.
macro_rules! call_with_registers {
    ($register:literal) => {
        concat!(
            "push rbp\n.cfi_adjust_cfa_offset 8\n",
            "push rbx\n.cfi_adjust_cfa_offset 8\n",
            "push r12\n.cfi_adjust_cfa_offset 8\n",
            "push r13\n.cfi_adjust_cfa_offset 8\n",
            "push r14\n.cfi_adjust_cfa_offset 8\n",
            "push r15\n.cfi_adjust_cfa_offset 8\n",
            "lea rax, [rsp + 56]\n",
            "push rax\n.cfi_adjust_cfa_offset 8\n",
            "mov ",
            $register,
            ", rsp\n",
            "call {body}\n",
            "add rsp, 56\n.cfi_adjust_cfa_offset -56\n",
            "ret"
        )
    };
}
pub(crate) use call_with_registers;

/// Instructions of a hook of operator new or delete that neither jumps nor frees: they ask
/// `operators::decide` what to do with the arguments, and do it. An exception that the real operator
/// throws passes through this frame, which has nothing to clean up.
macro_rules! ask_and_go_on {
    () => {
        concat!(
            "push rbp\n.cfi_adjust_cfa_offset 8\n",
            "push rbx\n.cfi_adjust_cfa_offset 8\n",
            "push r12\n.cfi_adjust_cfa_offset 8\n",
            "push r13\n.cfi_adjust_cfa_offset 8\n",
            "push r14\n.cfi_adjust_cfa_offset 8\n",
            "push r15\n.cfi_adjust_cfa_offset 8\n",
            "lea rax, [rsp + 56]\n",
            "push rax\n.cfi_adjust_cfa_offset 8\n",
            "push rdx\n.cfi_adjust_cfa_offset 8\n",
            "push rsi\n.cfi_adjust_cfa_offset 8\n",
            "push rdi\n.cfi_adjust_cfa_offset 8\n",
            "sub rsp, 8\n.cfi_adjust_cfa_offset 8\n",
            "mov edi, {index}\n",
            "lea rsi, [rsp + 8]\n",
            "call {decide}\n",
            "mov r11, rax\n",
            "mov eax, edx\n",
            "mov rdi, [rsp + 8]\n",
            "mov rsi, [rsp + 16]\n",
            "mov rdx, [rsp + 24]\n",
            "test eax, eax\n",
            "jne 4f\n",
            ".cfi_remember_state\n",
            "add rsp, 88\n.cfi_adjust_cfa_offset -88\n",
            "jmp r11\n",
            ".cfi_restore_state\n",
            "4: call r11\n",
            "mov [rsp], rax\n",
            "mov edi, {index}\n",
            "mov rsi, rax\n",
            "lea rdx, [rsp + 8]\n",
            "call {after}\n",
            "mov rax, [rsp]\n",
            "add rsp, 88\n.cfi_adjust_cfa_offset -88\n",
            "ret\n",
        )
    };
}
pub(crate) use ask_and_go_on;

/// Exports `$name`, operator `$index` of operators.rs. Where it is free, `$body` gets the block and
/// the return address.
macro_rules! delete_hook {
    ($name:ident, $index:expr, $body:path) => {
        /// Hook, see the list in hooks.rs.
        ///
        /// # Safety
        /// As the function of that name in the C or C++ library.
        #[cfg_attr(not(test), unsafe(no_mangle))]
        #[unsafe(naked)]
        #[allow(non_snake_case)] // the names are those of the C++ ABI
        pub(crate) unsafe extern "C" fn $name() {
            core::arch::naked_asm!(
                ".cfi_startproc",
                "endbr64",
                "cmp byte ptr [rip + {paths} + {index}], {free}",
                "jne 2f",
                "mov rsi, [rsp]",
                "jmp {body}",
                "2:",
                "cmp byte ptr [rip + {paths} + {index}], {jump}",
                "jne 3f",
                "jmp [rip + {targets} + 8 * {index}]",
                "3:",
                $crate::arch::ask_and_go_on!(),
                ".cfi_endproc",
                index = const $index,
                free = const $crate::operators::FREE,
                jump = const $crate::operators::JUMP,
                paths = sym $crate::operators::PATHS,
                targets = sym $crate::operators::TARGETS,
                body = sym $body,
                decide = sym $crate::operators::decide,
                after = sym $crate::operators::after,
            )
        }
    };
}
pub(crate) use delete_hook;

/// Exports `$name`, operator `$index` of operators.rs.
macro_rules! new_hook {
    ($name:ident, $index:expr) => {
        /// Hook, see the list in hooks.rs.
        ///
        /// # Safety
        /// As the function of that name in the C++ library.
        #[cfg_attr(not(test), unsafe(no_mangle))]
        #[unsafe(naked)]
        #[allow(non_snake_case)] // the names are those of the C++ ABI
        pub(crate) unsafe extern "C" fn $name() {
            core::arch::naked_asm!(
                ".cfi_startproc",
                "endbr64",
                "cmp byte ptr [rip + {paths} + {index}], {jump}",
                "jne 3f",
                "jmp [rip + {targets} + 8 * {index}]",
                "3:",
                $crate::arch::ask_and_go_on!(),
                ".cfi_endproc",
                index = const $index,
                jump = const $crate::operators::JUMP,
                paths = sym $crate::operators::PATHS,
                targets = sym $crate::operators::TARGETS,
                decide = sym $crate::operators::decide,
                after = sym $crate::operators::after,
            )
        }
    };
}
pub(crate) use new_hook;

/// As `hook!`, but the body gets a pointer to the caller's registers
/// ([`Registers`](crate::unwind::Registers)) in place of the return address.
///
/// The registers that a call leaves as they were are still the caller's at the first instruction.
/// They are stored below the return address, which is the last member of the struct.
macro_rules! hook_with_registers {
    ($name:ident, 0, $body:path) => {
        $crate::arch::hook_with_registers!(@ $name, "rdi", $body);
    };
    ($name:ident, 1, $body:path) => {
        $crate::arch::hook_with_registers!(@ $name, "rsi", $body);
    };
    ($name:ident, 2, $body:path) => {
        $crate::arch::hook_with_registers!(@ $name, "rdx", $body);
    };
    ($name:ident, 3, $body:path) => {
        $crate::arch::hook_with_registers!(@ $name, "rcx", $body);
    };
    (@ $name:ident, $register:literal, $body:path) => {
        /// Hook, see the list in hooks.rs.
        ///
        /// # Safety
        /// As the function of that name in the C library: it is what the program calls in its
        /// place.
        #[cfg_attr(not(test), unsafe(no_mangle))]
        #[unsafe(naked)]
        pub(crate) unsafe extern "C" fn $name() {
            core::arch::naked_asm!(
                ".cfi_startproc",
                "endbr64",
                $crate::arch::call_with_registers!($register),
                ".cfi_endproc",
                body = sym $body,
            )
        }
    };
}
pub(crate) use hook_with_registers;

/// As `hook!` while `$flag` (an `AtomicU8`) is 0, else as `hook_with_registers!`. For one argument.
macro_rules! hook_by_need {
    ($name:ident, 1, $flag:path, $body:path, $body_with_registers:path) => {
        /// Hook, see the list in hooks.rs.
        ///
        /// # Safety
        /// As the function of that name in the C library.
        #[cfg_attr(not(test), unsafe(no_mangle))]
        #[unsafe(naked)]
        pub(crate) unsafe extern "C" fn $name() {
            core::arch::naked_asm!(
                ".cfi_startproc",
                "endbr64",
                "cmp byte ptr [rip + {flag}], 0",
                "jne 2f",
                "mov rsi, [rsp]",
                "jmp {light}",
                "2:",
                $crate::arch::call_with_registers!("rsi"),
                ".cfi_endproc",
                flag = sym $flag,
                light = sym $body,
                body = sym $body_with_registers,
            )
        }
    };
}
pub(crate) use hook_by_need;

/// Exports `$name`, a jump to the real function at `$real`, unless the first argument (in `$first`) is
/// `$a` or `$b`, or the function is not known yet: then `$before` decides
/// ([`Call`](crate::seccomp::Call), [`Next`](crate::seccomp::Next)). The arguments of a variadic
/// function that are on the stack stay there for the jump.
macro_rules! watching_hook {
    ($name:ident, $first:literal, $a:expr, $b:expr, $real:path, $before:path) => {
        /// Hook, see seccomp/mod.rs.
        ///
        /// # Safety
        /// As the function of that name in the C library.
        #[cfg_attr(not(test), unsafe(no_mangle))]
        #[unsafe(naked)]
        pub(crate) unsafe extern "C" fn $name() {
            core::arch::naked_asm!(
                ".cfi_startproc",
                "endbr64",
                concat!("cmp ", $first, ", {a}"),
                "je 2f",
                concat!("cmp ", $first, ", {b}"),
                "je 2f",
                "mov r11, [rip + {real}]",
                "test r11, r11",
                "je 2f",
                "jmp r11",
                "2:",
                "push r9\n.cfi_adjust_cfa_offset 8",
                "push r8\n.cfi_adjust_cfa_offset 8",
                "push rcx\n.cfi_adjust_cfa_offset 8",
                "push rdx\n.cfi_adjust_cfa_offset 8",
                "push rsi\n.cfi_adjust_cfa_offset 8",
                "push rdi\n.cfi_adjust_cfa_offset 8",
                "sub rsp, 8\n.cfi_adjust_cfa_offset 8",
                "mov rdi, rsp",
                "call {before}",
                "mov r11, rax",
                "mov eax, edx",
                "mov rdi, [rsp + 8]",
                "mov rsi, [rsp + 16]",
                "mov rdx, [rsp + 24]",
                "mov rcx, [rsp + 32]",
                "mov r8, [rsp + 40]",
                "mov r9, [rsp + 48]",
                "test eax, eax",
                "mov eax, 0",
                "jne 3f",
                ".cfi_remember_state",
                "add rsp, 56\n.cfi_adjust_cfa_offset -56",
                "jmp r11",
                ".cfi_restore_state",
                "3: call r11",
                "mov [rsp], rax",
                "mov rdi, rax",
                "call {after}",
                "mov rax, [rsp]",
                "add rsp, 56\n.cfi_adjust_cfa_offset -56",
                "ret",
                ".cfi_endproc",
                a = const $a,
                b = const $b,
                real = sym $real,
                before = sym $before,
                after = sym $crate::seccomp::after,
            )
        }
    };
}
pub(crate) use watching_hook;

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
