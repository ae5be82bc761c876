//! The hooked functions: the only symbols that libmtr.so exports.
//!
//! Each passes on to the real function and records. The order of the two is what keeps the log in
//! order, see record/mod.rs.

use core::ffi::{c_int, c_void};

use mtr_format::compact::op::{Family, FreeKind};

use core::sync::atomic::{AtomicU8, Ordering};

use crate::arch::{
    Attempted, allocation_hook, delete_hook, hook, hook_by_need, hook_with_registers, new_hook,
};
use crate::operators::{FREE_SIZED, NEW};
use crate::real::{self, arena};
use crate::record::{self, Attempt};
use crate::unwind::{Caller, Registers};
use crate::{dlclose as unload, lifecycle};

type Ptr = *mut c_void;

// Name, number of arguments, body. The body gets one more: the return address, or all registers of
// the caller, which its call stack is found from.
allocation_hook!(malloc, real_malloc, malloc_usually, malloc_rarely, malloc_body);
hook_with_registers!(calloc, 2, calloc_body);
hook_with_registers!(realloc, 2, realloc_body);
hook_with_registers!(reallocarray, 3, reallocarray_body);
hook_by_need!(free, 1, FREE_NEEDS_REGISTERS, free_body, free_by_body);
hook_by_need!(cfree, 1, FREE_NEEDS_REGISTERS, free_body, free_by_body);
hook_with_registers!(posix_memalign, 3, posix_memalign_body);
hook_with_registers!(aligned_alloc, 2, aligned_alloc_body);
hook_with_registers!(memalign, 2, memalign_body);
hook_with_registers!(valloc, 1, valloc_body);
hook_with_registers!(pvalloc, 1, pvalloc_body);
hook!(malloc_usable_size, 1, malloc_usable_size_body);
hook!(mtrace, 0, mtrace_body);
hook!(muntrace, 0, muntrace_body);
hook!(dlclose, 1, dlclose_body);
hook!(_exit, 1, exit_body);
hook!(_Exit, 1, exit_body);

// Name, index in operators.rs, the body of those that are free.
delete_hook!(_ZdlPv, 0, delete_body);
delete_hook!(_ZdaPv, 1, delete_array_body);
delete_hook!(_ZdlPvm, 2, delete_body);
delete_hook!(_ZdaPvm, 3, delete_array_body);
delete_hook!(_ZdlPvSt11align_val_t, 4, delete_body);
delete_hook!(_ZdaPvSt11align_val_t, 5, delete_array_body);
delete_hook!(_ZdlPvmSt11align_val_t, 6, delete_body);
delete_hook!(_ZdaPvmSt11align_val_t, 7, delete_array_body);
delete_hook!(_ZdlPvRKSt9nothrow_t, 8, delete_body);
delete_hook!(_ZdaPvRKSt9nothrow_t, 9, delete_array_body);
delete_hook!(_ZdlPvSt11align_val_tRKSt9nothrow_t, 10, delete_body);
delete_hook!(_ZdaPvSt11align_val_tRKSt9nothrow_t, 11, delete_array_body);
delete_hook!(free_sized, FREE_SIZED, free_body);
delete_hook!(free_aligned_sized, FREE_SIZED + 1, free_body);
new_hook!(_Znwm, NEW);
new_hook!(_Znam, NEW + 1);
new_hook!(_ZnwmRKSt9nothrow_t, NEW + 2);
new_hook!(_ZnamRKSt9nothrow_t, NEW + 3);
new_hook!(_ZnwmSt11align_val_t, NEW + 4);
new_hook!(_ZnamSt11align_val_t, NEW + 5);
new_hook!(_ZnwmSt11align_val_tRKSt9nothrow_t, NEW + 6);
new_hook!(_ZnamSt11align_val_tRKSt9nothrow_t, NEW + 7);

/// Whether a free is recorded with a caller further out. 0 or 1.
static FREE_NEEDS_REGISTERS: AtomicU8 = AtomicU8::new(0);

/// To be called when the settings are known.
pub(crate) fn configure() {
    let needs = crate::config::get().names_user;
    FREE_NEEDS_REGISTERS.store(needs.into(), Ordering::Relaxed);
}

/// Whether a call failed because it was wrong, not because there is no memory. glibc's mtrace
/// records the latter only.
#[cold]
fn was_invalid() -> bool {
    // SAFETY: errno of this thread, set by the call that just failed.
    unsafe { *libc::__errno_location() == libc::EINVAL }
}

/// The real malloc.
extern "C" fn real_malloc(size: usize) -> Ptr {
    // SAFETY: the caller's arguments, passed on; so in all hooks.
    unsafe { real::malloc()(size) }
}

extern "C" fn malloc_body(size: usize, caller: &Registers) -> Ptr {
    // SAFETY: see real_malloc.
    let new = unsafe { real::malloc()(size) };
    record::alloc(new as usize, size, Family::Malloc, 0, caller);
    new
}

/// Records that malloc has returned `new`, if that is a usual event.
extern "C" fn malloc_usually(new: Ptr, size: usize, return_place: &usize, rbp: u64) -> Attempted {
    let caller = Caller::of_hook(return_place, rbp);
    Attempted { result: new, attempt: record::alloc_usually(new as usize, size, caller) }
}

/// Does the rest.
extern "C" fn malloc_rarely(new: Ptr, size: usize, caller: &Registers, attempt: Attempt) -> Ptr {
    match attempt {
        // SAFETY: the hook hands on what `malloc_usually` has returned.
        Attempt::NewStack => unsafe { record::alloc_on_new_stack(new as usize, size, caller) },
        // SAFETY: as above.
        Attempt::Unfinished => unsafe { record::finish_event() },
        _ => record::alloc(new as usize, size, Family::Malloc, 0, caller),
    }
    new
}

extern "C" fn calloc_body(count: usize, size: usize, caller: &Registers) -> Ptr {
    // SAFETY: see real_malloc.
    let new = unsafe { real::calloc()(count, size) };
    if let Some(size) = count.checked_mul(size) {
        record::alloc(new as usize, size, Family::Calloc, 0, caller);
    }
    new
}

extern "C" fn free_body(old: Ptr, return_address: usize) {
    end_at(old, return_address, FreeKind::Free);
}

extern "C" fn delete_body(old: Ptr, return_address: usize) {
    end_at(old, return_address, FreeKind::Delete);
}

extern "C" fn delete_array_body(old: Ptr, return_address: usize) {
    end_at(old, return_address, FreeKind::DeleteArray);
}

extern "C" fn free_by_body(old: Ptr, caller: &Registers) {
    end(old, caller, FreeKind::Free);
}

#[inline(always)]
fn end_at(old: Ptr, return_address: usize, kind: FreeKind) {
    if old.is_null() {
        return;
    }
    match record::free_usually(old as usize, return_address, kind) {
        Attempt::Done => match real::known_free() {
            // SAFETY: see real_malloc.
            Some(free) if !arena::contains(old as usize) => unsafe { free(old) },
            _ => real_free(old),
        },
        Attempt::Failed => end_at_rarely(old, return_address, kind),
        // SAFETY: the attempt says so. It has to do with a stack only for an allocation.
        Attempt::Unfinished | Attempt::NewStack => unsafe { finish_end(old) },
    }
}

/// The real free, where it may not be known, of a block that may be the arena's.
#[inline(never)]
fn real_free(old: Ptr) {
    if !arena::contains(old as usize) {
        // SAFETY: see real_malloc.
        unsafe { real::free()(old) }
    }
}

#[inline(never)]
fn end_at_rarely(old: Ptr, return_address: usize, kind: FreeKind) {
    unload::before_free(old, return_address);
    record::free(old as usize, return_address, kind);
    if !arena::contains(old as usize) {
        // SAFETY: see real_malloc.
        unsafe { real::free()(old) }
    }
}

/// # Safety
/// As [`record::finish_event`].
#[cold]
#[inline(never)]
unsafe fn finish_end(old: Ptr) {
    // SAFETY: the caller's promise.
    unsafe { record::finish_event() };
    real_free(old);
}

/// Records the end of a block, whose line may have to name a caller further out, and frees it.
pub(crate) fn end(old: Ptr, caller: &Registers, kind: FreeKind) {
    if old.is_null() {
        return;
    }
    unload::before_free(old, caller.return_address as usize);
    record::free_by(old as usize, caller, kind);
    if !arena::contains(old as usize) {
        // SAFETY: see real_malloc.
        unsafe { real::free()(old) }
    }
}

extern "C" fn realloc_body(old: Ptr, size: usize, caller: &Registers) -> Ptr {
    if old.is_null() {
        // SAFETY: see real_malloc.
        let new = unsafe { real::realloc()(old, size) };
        if new.is_null() {
            record::realloc_failed(0, size, caller);
        } else {
            record::alloc(new as usize, size, Family::Realloc, 0, caller);
        }
        return new;
    }
    if arena::contains(old as usize) {
        let new = malloc_body(size, caller);
        if !new.is_null() {
            // SAFETY: `old` is a block of the arena, `new` one of `size` bytes.
            unsafe { arena::copy(old, new, size) };
            record::free(old as usize, caller.return_address as usize, FreeKind::Free);
        }
        return new;
    }
    record::realloc(old as usize, size, caller, || {
        // SAFETY: see real_malloc.
        unsafe { real::realloc()(old, size) as usize }
    }) as Ptr
}

extern "C" fn reallocarray_body(old: Ptr, count: usize, size: usize, caller: &Registers) -> Ptr {
    // As in glibc, which hands the product to realloc by a jump.
    match count.checked_mul(size) {
        Some(size) => realloc_body(old, size, caller),
        None => {
            // SAFETY: errno of this thread.
            unsafe { *libc::__errno_location() = libc::ENOMEM };
            core::ptr::null_mut()
        }
    }
}

extern "C" fn posix_memalign_body(
    out: *mut Ptr,
    align: usize,
    size: usize,
    caller: &Registers,
) -> c_int {
    // SAFETY: see real_malloc.
    let result = unsafe { real::posix_memalign()(out, align, size) };
    match result {
        // SAFETY: the real function has just written there.
        0 => record::alloc(unsafe { *out } as usize, size, Family::PosixMemalign, align, caller),
        libc::ENOMEM => record::alloc(0, size, Family::PosixMemalign, align, caller),
        _ => {}
    }
    result
}

extern "C" fn aligned_alloc_body(align: usize, size: usize, caller: &Registers) -> Ptr {
    // SAFETY: see real_malloc.
    let new = unsafe { real::aligned_alloc()(align, size) };
    if !new.is_null() || !was_invalid() {
        record::alloc(new as usize, size, Family::AlignedAlloc, align, caller);
    }
    new
}

extern "C" fn memalign_body(align: usize, size: usize, caller: &Registers) -> Ptr {
    // SAFETY: see real_malloc.
    let new = unsafe { real::memalign()(align, size) };
    if !new.is_null() || !was_invalid() {
        record::alloc(new as usize, size, Family::Memalign, align, caller);
    }
    new
}

extern "C" fn valloc_body(size: usize, caller: &Registers) -> Ptr {
    // SAFETY: see real_malloc.
    let new = unsafe { real::valloc()(size) };
    record::alloc(new as usize, size, Family::Valloc, 0, caller);
    new
}

extern "C" fn pvalloc_body(size: usize, caller: &Registers) -> Ptr {
    // SAFETY: see real_malloc.
    let new = unsafe { real::pvalloc()(size) };
    // A size that cannot be rounded up to pages is not recorded, like an overflow of calloc.
    if !new.is_null() || size <= usize::MAX - 4096 {
        record::alloc(new as usize, size, Family::Pvalloc, 0, caller);
    }
    new
}

extern "C" fn malloc_usable_size_body(block: Ptr, _return_address: usize) -> usize {
    if arena::contains(block as usize) {
        // SAFETY: a block of the arena.
        return unsafe { arena::usable_size(block) };
    }
    // SAFETY: see real_malloc.
    unsafe { real::malloc_usable_size()(block) }
}

extern "C" fn mtrace_body(_return_address: usize) {
    lifecycle::switch(true);
}

extern "C" fn muntrace_body(_return_address: usize) {
    lifecycle::switch(false);
}

extern "C" fn dlclose_body(handle: Ptr, _return_address: usize) -> c_int {
    unload::around(|| {
        // SAFETY: see real_malloc.
        unsafe { real::dlclose()(handle) }
    })
}

extern "C" fn exit_body(status: c_int, _return_address: usize) {
    lifecycle::before_exit();
    // SAFETY: see real_malloc.
    unsafe { real::_exit()(status) }
}
