//! Hooks: functions in place of the real ones, whose bodies get what Rust cannot read.

use crate::record::Attempt;

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

/// Instructions that store the registers which a call leaves as they were below the return address, as
/// [`Registers`](crate::unwind::Registers): 56 bytes.
macro_rules! push_registers {
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
        )
    };
}
pub(crate) use push_registers;

/// Instructions that do so, and call `{body}` with a pointer to them in `$register`.
macro_rules! call_with_registers {
    ($register:literal) => {
        concat!(
            $crate::arch::push_registers!(),
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

/// What a hook returns, and whether it is recorded.
#[repr(C)]
pub(crate) struct Attempted {
    pub(crate) result: *mut core::ffi::c_void,
    pub(crate) attempt: Attempt,
}

/// Exports `$name`, a function of one argument that allocates.
///
/// While events go into a compact trace, `$real` is called with the argument; `$usually` gets the
/// result, the argument, the place of the return address and rbp, and returns an
/// [`Attempted`]. If not all is done, `$rarely` gets the result, the argument, all registers and the
/// [`Attempt`].
///
/// As the usual attempt needs no other register, none is stored before it. Else it is as
/// `hook_with_registers!` of `$body`.
macro_rules! allocation_hook {
    ($name:ident, $real:path, $usually:path, $rarely:path, $body:path) => {
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
                "cmp dword ptr [rip + {hot}], {compact}",
                "jne 3f",
                "push rdi\n.cfi_adjust_cfa_offset 8",
                "call {real}",
                "mov rdi, rax",
                "mov rsi, [rsp]",
                "lea rdx, [rsp + 8]",
                "mov rcx, rbp",
                "call {usually}",
                "cmp edx, {done}",
                "jne 2f",
                ".cfi_remember_state",
                "add rsp, 8\n.cfi_adjust_cfa_offset -8",
                "ret",
                ".cfi_restore_state",
                "2:",
                "pop rsi\n.cfi_adjust_cfa_offset -8",
                "mov rdi, rax",
                "mov ecx, edx",
                $crate::arch::push_registers!(),
                "mov rdx, rsp",
                "call {rarely}",
                "add rsp, 56\n.cfi_adjust_cfa_offset -56",
                "ret",
                "3:",
                $crate::arch::call_with_registers!("rsi"),
                ".cfi_endproc",
                hot = sym $crate::hot::HOT,
                compact = const $crate::hot::State::Compact as u32,
                body = sym $body,
                done = const $crate::record::Attempt::Done as usize,
                real = sym $real,
                usually = sym $usually,
                rarely = sym $rarely,
            )
        }
    };
}
pub(crate) use allocation_hook;

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
