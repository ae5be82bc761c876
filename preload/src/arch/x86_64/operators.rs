//! Hooks of operator new and delete (operators.rs).

/// Instructions of a hook of operator new or delete that neither jumps nor frees: they ask
/// `operators::decide` what to do with the arguments, and do it. An exception that the real operator
/// throws passes through this frame, which has nothing to clean up.
macro_rules! ask_and_go_on {
    () => {
        concat!(
            $crate::arch::push_registers!(),
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
