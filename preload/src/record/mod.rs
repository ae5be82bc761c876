//! Events -> records, in the format that was asked for.
//!
//! What makes the order right: the place of a free is taken before the real free, the place of an
//! allocation after the real allocation. So whoever gets an address takes his place behind the one
//! who gave it up, whatever the threads. realloc does both: it takes the place of the end of the old
//! block before the real realloc and fills it after, when it is known whether that block has ended.

pub(crate) mod compact;
mod text;

use mtr_format::compact::word::Family;

use crate::hot::State;
use crate::lifecycle;
use crate::unwind::Registers;

/// Records an allocation, or a failed one when `ptr` is NULL. `align` is that of a family that has
/// one.
#[inline(always)]
pub(crate) fn alloc(ptr: usize, size: usize, family: Family, align: usize, caller: &Registers) {
    match lifecycle::state() {
        State::Text => text::alloc(ptr, size, caller),
        State::Compact => compact::alloc(ptr, size, family, align, caller),
        State::New | State::Off => {}
    }
}

/// Records a free; to be called before the real one. `ptr` is not NULL.
#[inline(always)]
pub(crate) fn free(ptr: usize, return_address: usize) {
    match lifecycle::state() {
        State::Text => text::free(ptr, return_address),
        State::Compact => compact::free(ptr),
        State::New | State::Off => {}
    }
}

/// As [`free`], where the record may have to name a caller further out.
pub(crate) fn free_by(ptr: usize, caller: &Registers) {
    match lifecycle::state() {
        State::Text => text::free_by(ptr, caller),
        State::Compact => compact::free(ptr),
        State::New | State::Off => {}
    }
}

/// Runs the real realloc of a block and records what became of it. `old` is not NULL.
#[inline(always)]
pub(crate) fn realloc(
    old: usize,
    size: usize,
    caller: &Registers,
    real: impl FnOnce() -> usize,
) -> usize {
    let state = lifecycle::state();
    // No allocator gives that much, so nothing ends and no place is needed.
    if size > isize::MAX as usize {
        let new = real();
        realloc_failed(old, size, caller);
        return new;
    }
    match state {
        State::Text => text::realloc(old, size, caller, real),
        State::Compact => compact::realloc(old, size, caller, real),
        State::New | State::Off => real(),
    }
}

/// Records a realloc of `old` (or of NULL) that failed at once.
#[cold]
pub(crate) fn realloc_failed(old: usize, size: usize, caller: &Registers) {
    match lifecycle::state() {
        State::Text => text::realloc_failed(old, size, caller),
        State::Compact => compact::realloc_failed(old, size, caller),
        State::New | State::Off => {}
    }
}
