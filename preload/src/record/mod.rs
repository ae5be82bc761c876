//! Events -> records, in the format that was asked for.
//!
//! What makes the order right: the place of a free is taken before the real free, the place of an
//! allocation after the real allocation. So whoever gets an address takes his place behind the one
//! who gave it up, whatever the threads. realloc does both: it takes the place of the end of the old
//! block before the real realloc and fills it after, when it is known whether that block has ended.

pub(crate) mod compact;
mod text;

pub(crate) use compact::{Attempt, alloc_on_new_stack, finish_event};
use mtr_format::compact::op::{Family, FreeKind};

use crate::hot::{HOT, State};
use crate::unwind::{Caller, Registers};
use crate::{config, lifecycle, operators};

/// What to do with an event whose caller returns there.
#[inline(always)]
fn state_for(return_address: usize) -> State {
    // Compact traces have a shorter way, so this one is the log's.
    if HOT.is_text() {
        return State::Text;
    }
    match lifecycle::state() {
        State::Guarded => guarded_state(return_address),
        state => state,
    }
}

/// Where operators are recorded: what the allocator calls of itself is no event.
#[cold]
#[inline(never)]
fn guarded_state(return_address: usize) -> State {
    match operators::is_inside(return_address) {
        true => State::Off,
        false if config::get().is_compact => State::Compact,
        false => State::Text,
    }
}

/// Records an allocation, or a failed one when `ptr` is NULL. `align` is that of a family that has
/// one.
#[inline(always)]
pub(crate) fn alloc(ptr: usize, size: usize, family: Family, align: usize, caller: &Registers) {
    match state_for(caller.return_address as usize) {
        State::Text => text::alloc(ptr, size, caller),
        State::Compact => compact::alloc(ptr, size, family, align, caller),
        State::New | State::Off | State::Guarded => {}
    }
}

/// As [`alloc`], of malloc, in a compact trace and if everything is as usual.
#[inline(always)]
pub(crate) fn alloc_usually(ptr: usize, size: usize, caller: Caller) -> Attempt {
    match HOT.is_compact() {
        true => compact::alloc_usually(ptr, size, caller),
        false => Attempt::Failed,
    }
}

/// As [`free`], in a compact trace and if everything is as usual.
#[inline(always)]
pub(crate) fn free_usually(ptr: usize, return_address: usize, kind: FreeKind) -> Attempt {
    match HOT.is_compact() {
        true => compact::free_usually(ptr, return_address, kind),
        false => Attempt::Failed,
    }
}

/// Records a free; to be called before the real one. `ptr` is not NULL. A line of the log does not
/// say by which function.
#[inline(always)]
pub(crate) fn free(ptr: usize, return_address: usize, kind: FreeKind) {
    match state_for(return_address) {
        State::Text => text::free(ptr, return_address),
        State::Compact => compact::free(ptr, return_address, kind),
        State::New | State::Off | State::Guarded => {}
    }
}

/// As [`free`], where the record may have to name a caller further out.
pub(crate) fn free_by(ptr: usize, caller: &Registers, kind: FreeKind) {
    match state_for(caller.return_address as usize) {
        State::Text => text::free_by(ptr, caller),
        State::Compact => compact::free(ptr, caller.return_address as usize, kind),
        State::New | State::Off | State::Guarded => {}
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
    let state = state_for(caller.return_address as usize);
    // No allocator gives that much, so nothing ends and no place is needed.
    if size > isize::MAX as usize {
        let new = real();
        realloc_failed(old, size, caller);
        return new;
    }
    match state {
        State::Text => text::realloc(old, size, caller, real),
        State::Compact => compact::realloc(old, size, caller, real),
        State::New | State::Off | State::Guarded => real(),
    }
}

/// Records a realloc of `old` (or of NULL) that failed at once.
#[cold]
pub(crate) fn realloc_failed(old: usize, size: usize, caller: &Registers) {
    match state_for(caller.return_address as usize) {
        State::Text => text::realloc_failed(old, size, caller),
        State::Compact => compact::realloc_failed(old, size, caller),
        State::New | State::Off | State::Guarded => {}
    }
}
