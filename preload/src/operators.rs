//! The forms of operator new and delete, and C23's sized free: where a call of each leads.
//!
//! Our hooks stand in front of the definition that the caller would have reached: the next one in
//! the global scope. Whose that is decides, once, when the log starts:
//!
//! - **A C++ runtime's** (libstdc++, libc++): delete ends in free and does nothing else, so its
//!   hook *is* free, and tells the record that it was delete. new has handlers and exceptions; its
//!   hook is a jump, and malloc records.
//! - **An allocator's**: a module that real malloc lies in too (jemalloc, tcmalloc, mimalloc). Its
//!   operators need not pass by malloc and free, so they are recorded here, around a call of the
//!   real operator. What the allocator calls of itself meanwhile is its own matter ([`is_inside`]).
//! - **Anyone else's** (the program's, a library's): a jump. If it uses malloc, malloc records.
//! - **Nobody's**: the hook leaves the dynamic symbol table, so that a plugin opened with
//!   RTLD_LOCAL finds the operators that it brings along, as it would without us.

use core::ffi::CStr;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicUsize, Ordering};

use mtr_format::compact::op::{Family, FreeKind};

use crate::modules::{self, LinkMap};
use crate::unwind::Registers;
use crate::{config, hooks, lifecycle, real, record};

/// Symbols, in the order of the indices in hooks.rs.
const NAMES: [&CStr; COUNT] = [
    c"_ZdlPv",
    c"_ZdaPv",
    c"_ZdlPvm",
    c"_ZdaPvm",
    c"_ZdlPvSt11align_val_t",
    c"_ZdaPvSt11align_val_t",
    c"_ZdlPvmSt11align_val_t",
    c"_ZdaPvmSt11align_val_t",
    c"_ZdlPvRKSt9nothrow_t",
    c"_ZdaPvRKSt9nothrow_t",
    c"_ZdlPvSt11align_val_tRKSt9nothrow_t",
    c"_ZdaPvSt11align_val_tRKSt9nothrow_t",
    c"free_sized",
    c"free_aligned_sized",
    c"_Znwm",
    c"_Znam",
    c"_ZnwmRKSt9nothrow_t",
    c"_ZnamRKSt9nothrow_t",
    c"_ZnwmSt11align_val_t",
    c"_ZnamSt11align_val_t",
    c"_ZnwmSt11align_val_tRKSt9nothrow_t",
    c"_ZnamSt11align_val_tRKSt9nothrow_t",
];
const COUNT: usize = 22;
/// Index of `free_sized`, behind the forms of delete.
pub(crate) const FREE_SIZED: usize = 12;
/// Index of the first form of new, and of the first with an alignment.
pub(crate) const NEW: usize = 14;
const ALIGNED_NEW: usize = NEW + 4;

/// What a hook does, see [`PATHS`]. Nothing is decided yet, or nobody defines this form.
const ASK: u8 = 0;
/// Jumps to [`TARGETS`].
pub(crate) const JUMP: u8 = 1;
/// Is free.
pub(crate) const FREE: u8 = 2;
/// Is free, and its line may have to name a caller further out.
const FREE_BY: u8 = 3;
/// Records around a call of [`TARGETS`].
const RECORD: u8 = 4;

/// What each hook does. The hooks read it.
pub(crate) static PATHS: [AtomicU8; COUNT] = [const { AtomicU8::new(ASK) }; COUNT];
/// The real operators; 0: there is none. The hooks read it.
pub(crate) static TARGETS: [AtomicUsize; COUNT] = [const { AtomicUsize::new(0) }; COUNT];

/// Address ranges `start, end` of the allocator whose operators are recorded, and of libmtr.so.
static INSIDE: [AtomicUsize; 4] = [const { AtomicUsize::new(0) }; 4];

/// Whether a call comes from the allocator itself, whose operators are recorded: directly, or by a
/// jump from the operator that our hook has called.
#[cold]
pub(crate) fn is_inside(return_address: usize) -> bool {
    let [start, end, own_start, own_end] =
        INSIDE.each_ref().map(|word| word.load(Ordering::Relaxed));
    (start..end).contains(&return_address) || (own_start..own_end).contains(&return_address)
}

/// Whether operators of an allocator are recorded.
pub(crate) fn are_recorded() -> bool {
    INSIDE.first().is_some_and(|start| start.load(Ordering::Relaxed) != 0)
}

/// The module that takes malloc before it can reach us, NULL for none.
static MALLOC_BEFORE_US: AtomicPtr<LinkMap> = AtomicPtr::new(core::ptr::null_mut());
/// See [`are_standard`].
static ARE_STANDARD: AtomicBool = AtomicBool::new(false);

/// The module that takes malloc before it can reach us.
pub(crate) fn malloc_before_us() -> Option<&'static LinkMap> {
    // SAFETY: a module that the process was started with stays loaded.
    unsafe { MALLOC_BEFORE_US.load(Ordering::Relaxed).as_ref() }
}

/// Whether new and delete are those of a C++ runtime or of an allocator, and nobody else defines
/// any: then a delete that passes by us says how its block must have been allocated.
pub(crate) fn are_standard() -> bool {
    ARE_STANDARD.load(Ordering::Relaxed)
}

/// Decides what the hooks do.
///
/// # Safety
/// No module is being loaded or unloaded, and nobody else is here.
pub(crate) unsafe fn settle() {
    let allocator = modules::find(real::malloc() as *const () as usize);
    let is_allocators =
        |link_map: *const LinkMap| allocator.is_some_and(|found| found.link_map == link_map);
    // SAFETY: the caller's promise, here and below.
    let malloc_before_us = unsafe { modules::export_before_us(c"malloc") };
    let is_operator = |index: &usize| !(FREE_SIZED..NEW).contains(index);
    // SAFETY: as above.
    let is_standard = unsafe { modules::others() }.all(|link_map| {
        let defines = NAMES
            .iter()
            .enumerate()
            .any(|(index, name)| is_operator(&index) && modules::defines(link_map, name));
        !defines || is_allocators(link_map) || modules::is_cpp_runtime(link_map)
    });
    let is_ours = malloc_before_us.is_none();
    let mut some_recorded = false;
    let mut some_defined = false;
    for (index, name) in NAMES.iter().enumerate() {
        // SAFETY: as above.
        let Some((address, link_map)) = (unsafe { modules::next_export(name) }) else {
            modules::withdraw(name);
            continue;
        };
        some_defined |= is_operator(&index);
        let path = if !is_ours {
            JUMP
        } else if !is_operator(&index) {
            // The allocator's own sized free is its free.
            if is_allocators(link_map) { FREE } else { JUMP }
        } else if is_standard && is_allocators(link_map) {
            some_recorded = true;
            RECORD
        } else if is_standard && index < FREE_SIZED {
            FREE
        } else {
            JUMP
        };
        let path = if path == FREE && config::get().names_user { FREE_BY } else { path };
        set(&TARGETS, index, address);
        if let Some(place) = PATHS.get(index) {
            place.store(path, Ordering::Release);
        }
    }
    if some_recorded {
        // What a runtime's form hands to another form of the allocator is recorded there.
        for place in PATHS.iter().take(FREE_SIZED) {
            let is_free = matches!(place.load(Ordering::Relaxed), FREE | FREE_BY);
            if is_free {
                place.store(JUMP, Ordering::Release);
            }
        }
        let own = modules::find(settle as *const () as usize);
        for (index, module) in [allocator, own].into_iter().flatten().enumerate() {
            set(&INSIDE, 2 * index, module.start);
            set(&INSIDE, 2 * index + 1, module.end);
        }
    }
    let before_us =
        malloc_before_us.map_or(core::ptr::null_mut(), |it| (&raw const *it).cast_mut());
    MALLOC_BEFORE_US.store(before_us, Ordering::Relaxed);
    ARE_STANDARD.store(is_standard && some_defined && is_ours, Ordering::Relaxed);
}

fn set<const N: usize>(words: &[AtomicUsize; N], index: usize, value: usize) {
    if let Some(word) = words.get(index) {
        word.store(value, Ordering::Relaxed);
    }
}

/// What a hook has stored of its caller.
#[repr(C)]
pub(crate) struct Frame {
    /// The first three arguments.
    arguments: [usize; 3],
    caller: Registers,
}

/// How a hook goes on.
#[repr(C)]
pub(crate) struct Next {
    /// The function that gets the caller's arguments.
    target: usize,
    /// 0: by a jump. 1: by a call, with [`after`] behind it.
    is_call: usize,
}

impl Next {
    fn jump(target: usize) -> Next {
        Next { target, is_call: 0 }
    }
}

extern "C" fn nothing() {}

/// What a hook does that neither jumps nor frees.
pub(crate) extern "C" fn decide(index: usize, frame: &Frame) -> Next {
    let path = || PATHS.get(index).map_or(ASK, |path| path.load(Ordering::Acquire));
    if path() == ASK {
        lifecycle::state();
    }
    let target = TARGETS.get(index).map_or(0, |target| target.load(Ordering::Relaxed));
    let [old, ..] = frame.arguments;
    match path() {
        FREE_BY => {
            hooks::end(old as _, &frame.caller, free_kind(index));
            Next::jump(nothing as *const () as usize)
        }
        RECORD => {
            if index < NEW && old != 0 {
                record::free_by(old, &frame.caller, free_kind(index));
            }
            Next { target, is_call: 1 }
        }
        _ if target != 0 => Next::jump(target),
        // Before the log starts, or for a call that was bound before the symbol was withdrawn.
        _ => Next::jump(last_resort(index, frame.caller.return_address as usize)),
    }
}

/// To be called with what the real operator has returned.
pub(crate) extern "C" fn after(index: usize, new: usize, frame: &Frame) {
    if index >= NEW {
        let [size, align, _] = frame.arguments;
        let align = if index >= ALIGNED_NEW { align } else { 0 };
        record::alloc(new, size, family(index), align, &frame.caller);
    }
}

/// The caller's own definition, else what those of a runtime come to.
fn last_resort(index: usize, return_address: usize) -> usize {
    let own = NAMES
        .get(index)
        .and_then(|name| modules::export_of_module_at(return_address, name))
        .filter(|own| !modules::is_own(*own));
    own.unwrap_or(match index < NEW {
        true => hooks::free as *const () as usize,
        false => hooks::malloc as *const () as usize,
    })
}

fn free_kind(index: usize) -> FreeKind {
    match index {
        FREE_SIZED.. => FreeKind::Free,
        _ if index.is_multiple_of(2) => FreeKind::Delete,
        _ => FreeKind::DeleteArray,
    }
}

fn family(index: usize) -> Family {
    match (index >= ALIGNED_NEW, index.is_multiple_of(2)) {
        (false, true) => Family::New,
        (false, false) => Family::NewArray,
        (true, true) => Family::AlignedNew,
        (true, false) => Family::AlignedNewArray,
    }
}
