//! Events -> words of a compact trace (docs/trace-format.md).

mod infos;
mod nodes;
mod segments;
mod stack;
mod store;
mod thread;
pub(crate) mod words;

use core::ops::ControlFlow;

use mtr_format::compact::word::{self, Family, LongKind};

use crate::log;
use crate::unwind::Registers;
pub(crate) use thread::prepare;
use thread::{State, Thread};

/// Makes what threads remember of another trace invalid.
pub(crate) fn start() {
    thread::new_trace();
    nodes::start();
    infos::start();
}

/// Return addresses may belong to another module from here on.
pub(crate) fn modules_changed() {
    thread::modules_changed();
}

/// Records an allocation, or a failed one when `ptr` is NULL.
#[inline(always)]
pub(super) fn alloc(ptr: usize, size: usize, family: Family, align: usize, caller: &Registers) {
    let info = info(size, family, align, caller);
    if ptr == 0 {
        words::record(&[word::long(LongKind::Failed, info), word::pointer(0)]);
        return;
    }
    match segments::find(ptr) {
        Some((segment, offset)) => {
            words::event(word::first(word::Tag::Alloc as u8 + segment, info, offset));
        }
        None => words::record(&[word::long(LongKind::Alloc, info), word::pointer(ptr as u64)]),
    }
}

/// Records a free.
#[inline(always)]
pub(super) fn free(ptr: usize) {
    match segments::find(ptr) {
        Some((segment, offset)) => {
            words::event(word::first(word::Tag::Free as u8 + segment, 0, offset));
        }
        None => words::record(&[word::long(LongKind::Free, 0), word::pointer(ptr as u64)]),
    }
}

/// The info of an allocation: its call stack, size and family.
#[inline(always)]
fn info(size: usize, family: Family, align: usize, caller: &Registers) -> u32 {
    let Some(mut thread) = Thread::enter() else {
        return infos::without_stack(size, family, align);
    };
    let root = thread.root();
    let node = stack::node(&mut thread, root, caller);
    let State { nodes, infos, .. } = &mut *thread;
    infos.get(nodes, node, size, family, align)
}

/// Visits the return addresses of a hook's caller and its callers, until `visit` breaks. Does nothing
/// while this thread takes another stack.
pub(super) fn walk(caller: &Registers, mut visit: impl FnMut(u64) -> ControlFlow<()>) {
    if let Some(mut thread) = Thread::enter() {
        let State { bounds, last, .. } = &mut *thread;
        bounds.update(caller.rsp);
        last.walk(caller, bounds, |frame| visit(frame.return_address()));
    }
}

/// Runs the real realloc of a block and records what became of it.
pub(super) fn realloc(
    old: usize,
    size: usize,
    caller: &Registers,
    real: impl FnOnce() -> usize,
) -> usize {
    let trace = log::id();
    let place = words::hold(2);
    let new = real();
    // A signal handler may have forked meanwhile: the place is the parent's.
    if log::id() != trace {
        return new;
    }
    let kind = match (new, size) {
        (0, 0) => LongKind::Free,
        (0, _) => LongKind::Nothing,
        _ => LongKind::ReallocOld,
    };
    let ptr = if kind == LongKind::Nothing { 0 } else { old as u64 };
    words::fill(place, &[word::long(kind, 0), word::pointer(ptr)]);
    match kind {
        LongKind::Nothing => realloc_failed(old, size, caller),
        LongKind::ReallocOld => alloc(new, size, Family::Realloc, 0, caller),
        _ => {}
    }
    new
}

/// Records a realloc of `old` (or of NULL) that failed.
#[cold]
pub(super) fn realloc_failed(old: usize, size: usize, caller: &Registers) {
    let info = info(size, Family::Realloc, 0, caller);
    words::record(&[word::long(LongKind::Failed, info), word::pointer(old as u64)]);
}
