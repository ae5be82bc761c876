//! Code that was made at run time and has no CFI.

use core::cell::RefCell;
use core::ops::ControlFlow;

use crate::arch::hook_with_registers;
use crate::sys;
use crate::unwind::walk::Cut;
use crate::unwind::{End, LastStack, Registers, Stack, walk};

use super::names::{Chains, node_of};

thread_local!(static SEEN: RefCell<(Vec<u64>, Option<End>)> = const { RefCell::new((Vec::new(), None)) });

hook_with_registers!(seeing_hook, 0, see);

extern "C" fn see(registers: *const Registers) -> usize {
    // SAFETY: the hook passes the registers that it stored.
    let registers = unsafe { &*registers };
    let mut stack = Stack::NEW;
    stack.update(registers.rsp);
    let mut pcs = Vec::new();
    let end = walk(registers, &stack, |frame| {
        pcs.push(frame.pc);
        ControlFlow::Continue(())
    });
    let mut names = Chains::new();
    // Twice, so that the second could keep what must not be kept.
    let memory = sys::map_anonymous(size_of::<LastStack>()).unwrap().cast::<LastStack>();
    for _ in 0..2 {
        // SAFETY: zeroed memory of this function.
        let last = unsafe { &mut *memory };
        let (node, _) = node_of(last, registers, &mut stack, &mut names).unwrap();
        assert!(names.addresses(node).eq(pcs.iter().copied()));
        assert_eq!(names.end(node), end);
    }
    // SAFETY: not used any more.
    unsafe { sys::unmap(memory.cast(), size_of::<LastStack>()) };
    SEEN.set((pcs, Some(end)));
    0
}

/// Calls the hook from code of these bytes, which get its address in rdi.
fn call_from(code: &[u8]) -> (u64, Vec<u64>, Option<End>) {
    let page = sys::map_anonymous(4096).unwrap();
    // SAFETY: a page of this function, which holds a function when it is called; the hook has no
    // arguments.
    unsafe {
        core::ptr::copy_nonoverlapping(code.as_ptr(), page, code.len());
        assert_eq!(libc::mprotect(page.cast(), 4096, libc::PROT_READ | libc::PROT_EXEC), 0);
        let function: extern "C" fn(unsafe extern "C" fn()) = core::mem::transmute(page);
        function(seeing_hook);
        sys::unmap(page, 4096);
    }
    let (pcs, end) = SEEN.take();
    (page as u64, pcs, end)
}

#[test]
fn a_frame_pointer_leads_over_one_frame_without_cfi() {
    // push rbp; mov rbp, rsp; sub rsp, 32; call rdi; leave; ret
    let code = [0x55, 0x48, 0x89, 0xe5, 0x48, 0x83, 0xec, 32, 0xff, 0xd7, 0xc9, 0xc3];
    let (page, pcs, end) = call_from(&code);
    assert_eq!(end, Some(End::Root));
    assert_eq!(pcs.first(), Some(&(page + 10)));
    assert!(pcs.len() > 5);
}

#[test]
fn without_a_frame_pointer_the_stack_is_cut() {
    // push rbp; xor ebp, ebp; call rdi; pop rbp; ret
    let (page, pcs, end) = call_from(&[0x55, 0x31, 0xed, 0xff, 0xd7, 0x5d, 0xc3]);
    assert_eq!(end, Some(End::Truncated(Cut::NoCfi)));
    assert_eq!(pcs, [page + 5]);
    // push rbp; push rax; mov rbp, rsp; push rax; call rdi; pop rax; pop rax; pop rbp; ret: what is
    // above the place that rbp points to is no return address.
    let code = [0x55, 0x50, 0x48, 0x89, 0xe5, 0x50, 0xff, 0xd7, 0x58, 0x58, 0x5d, 0xc3];
    let (_, pcs, end) = call_from(&code);
    assert_eq!((pcs.len(), end), (1, Some(End::Truncated(Cut::NoCfi))));
}

#[test]
fn a_stack_that_was_made_by_hand_ends_where_its_first_function_was_called() {
    // push rbx; mov rbx, rsp; mov rsp, TOP; call rdi; mov rsp, rbx; pop rbx; ret. rbp is still that of
    // the stack that was left.
    let code = |top: u64| {
        let mut code = vec![0x53, 0x48, 0x89, 0xe3, 0x48, 0xbc];
        code.extend(top.to_le_bytes());
        code.extend([0xff, 0xd7, 0x48, 0x89, 0xdc, 0x5b, 0xc3]);
        code
    };
    let len = 64 << 10;
    let memory = sys::map_anonymous(len).unwrap();
    // Up to the end of the mapping, so that there is nothing beyond; and with words above that look
    // like a way on.
    for above in [0, 8, 256, 4096, 8192 + 64] {
        let top = memory as u64 + len as u64 - above;
        for offset in (0..above).step_by(8) {
            // SAFETY: inside of the mapping.
            unsafe { *((top + offset) as *mut u64) = call_from as *const () as u64 + 9 };
        }
        let (page, pcs, end) = call_from(&code(top & !15));
        assert_eq!((pcs, end), (vec![page + 16], Some(End::Truncated(Cut::NoCfi))), "{above}");
    }
    // SAFETY: nobody runs there any more.
    unsafe { sys::unmap(memory, len) };
}
