//! Hooks of functions that start programs (starts/mod.rs).

/// Exports `$name`, a variadic function with a first argument and a list that ends with NULL. `$body`
/// gets the first argument and the list as an array, with one word more than it has.
macro_rules! hook_with_list {
    ($name:ident, $body:path) => {
        /// Hook, see starts/mod.rs.
        ///
        /// # Safety
        /// As the function of that name in the C library.
        #[cfg_attr(not(test), unsafe(no_mangle))]
        #[unsafe(naked)]
        pub(crate) unsafe extern "C" fn $name() {
            core::arch::naked_asm!(
                ".cfi_startproc",
                "endbr64",
                "push rbp\n.cfi_adjust_cfa_offset 8\n.cfi_offset rbp, -16",
                "mov rbp, rsp\n.cfi_def_cfa_register rbp",
                // The words of the list that are on the stack: up to NULL, and one more.
                "lea r10, [rbp + 16]",
                "xor eax, eax",
                "test rsi, rsi\nje 3f",
                "test rdx, rdx\nje 3f",
                "test rcx, rcx\nje 3f",
                "test r8, r8\nje 3f",
                "test r9, r9\nje 3f",
                "2: cmp qword ptr [r10 + 8 * rax], 0",
                "lea rax, [rax + 1]",
                "jne 2b",
                "3: inc rax",
                "lea r11, [8 * rax + 40 + 15]",
                "and r11, -16",
                "sub rsp, r11",
                "4: mov r11, [r10 + 8 * rax - 8]",
                "mov [rsp + 8 * rax + 32], r11",
                "dec rax",
                "jne 4b",
                "mov [rsp + 32], r9",
                "mov [rsp + 24], r8",
                "mov [rsp + 16], rcx",
                "mov [rsp + 8], rdx",
                "mov [rsp], rsi",
                "mov rsi, rsp",
                "call {body}",
                "mov rsp, rbp",
                "pop rbp\n.cfi_def_cfa rsp, 8",
                "ret",
                ".cfi_endproc",
                body = sym $body,
            )
        }
    };
}
pub(crate) use hook_with_list;

/// Exports `$name`, a function of at most two arguments. `$before` gets the first and decides
/// ([`Next`](crate::starts::Next)): a jump to the real function, or a call with `$after` behind it,
/// which gets the result. A thread that is cancelled in the call passes through this frame, which has
/// nothing to clean up.
macro_rules! hook_with_result {
    ($name:ident, $before:path, $after:path) => {
        /// Hook, see starts/mod.rs.
        ///
        /// # Safety
        /// As the function of that name in the C library.
        #[cfg_attr(not(test), unsafe(no_mangle))]
        #[unsafe(naked)]
        pub(crate) unsafe extern "C" fn $name() {
            core::arch::naked_asm!(
                ".cfi_startproc",
                "endbr64",
                "push rsi\n.cfi_adjust_cfa_offset 8",
                "push rdi\n.cfi_adjust_cfa_offset 8",
                "sub rsp, 8\n.cfi_adjust_cfa_offset 8",
                "call {before}",
                "mov r11, rax",
                "mov eax, edx",
                "mov rdi, [rsp + 8]",
                "mov rsi, [rsp + 16]",
                "test eax, eax",
                "jne 3f",
                ".cfi_remember_state",
                "add rsp, 24\n.cfi_adjust_cfa_offset -24",
                "jmp r11",
                ".cfi_restore_state",
                "3: call r11",
                "mov [rsp], rax",
                "mov rdi, rax",
                "call {after}",
                "mov rax, [rsp]",
                "add rsp, 24\n.cfi_adjust_cfa_offset -24",
                "ret",
                ".cfi_endproc",
                before = sym $before,
                after = sym $after,
            )
        }
    };
}
pub(crate) use hook_with_result;
