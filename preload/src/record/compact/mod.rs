//! Events -> records of a compact trace (docs/trace-format.md).

pub(crate) mod clock;
mod index;
mod nodes;
mod pool;
mod stack;
mod store;
mod stream;
mod thread;
mod trie;
pub(crate) mod users;

use core::ops::ControlFlow;

use mtr_format::compact::op::{Family, FreeKind, Outcome};

use crate::hot::HOT;
use crate::log::{self, chunks, file};
use crate::unwind::{Caller, Registers};
pub(crate) use stream::{chunks_begun, push_first_chunk, with_front};
use thread::{State, Thread};
pub(crate) use thread::{modules_changed, new_trace, prepare};

/// Records an allocation, or a failed one when `ptr` is NULL.
#[inline(always)]
pub(super) fn alloc(ptr: usize, size: usize, family: Family, align: usize, caller: &Registers) {
    let Some(mut thread) = Thread::enter() else { return lose() };
    let node = stack::node(&mut thread, caller);
    let stream = &mut thread.stream;
    match (ptr, family) {
        (0, _) => stream.failed(family, align, node, size, 0),
        (ptr, Family::Malloc) => stream.alloc(node, size, ptr),
        (ptr, _) => stream.alloc_by(family, align, node, size, ptr),
    }
}

/// What came of an attempt to record an event in the usual way.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Attempt {
    /// Nothing was done.
    Failed = 0,
    Done = 1,
    /// It is recorded, but [`finish_event`] has yet to be called.
    Unfinished = 2,
    /// Nothing was done but to see that the stack is another; [`alloc_on_new_stack`] has yet to be
    /// called.
    NewStack = 3,
}

/// As [`alloc`], of malloc, if everything is as usual: the thread has recorded before, its stack is
/// that of last time, and the record needs no stamp and no new chunk.
///
/// It calls nothing, so that it needs neither a stack frame nor a register that a call leaves as it
/// was.
#[inline(always)]
pub(super) fn alloc_usually(ptr: usize, size: usize, caller: Caller) -> Attempt {
    let Some(mut thread) = Thread::enter_usually() else { return Attempt::Failed };
    // Where stacks are verified, that is done on the general way.
    if cfg!(feature = "verify-stacks") || ptr == 0 || !thread.stream.is_ready_for(ptr) {
        return Attempt::Failed;
    }
    let attempt = match stack::head_usually(&mut thread, caller) {
        Some(head) => thread.stream.alloc_usually(head, size, ptr),
        None => Attempt::NewStack,
    };
    leave(thread, attempt)
}

/// As [`free`], if everything is as usual, caller included.
#[inline(always)]
pub(super) fn free_usually(ptr: usize, return_address: usize, kind: FreeKind) -> Attempt {
    let Some(mut thread) = Thread::enter_usually() else { return Attempt::Failed };
    if !thread.stream.is_ready_for(ptr) {
        return Attempt::Failed;
    }
    let attempt = match thread.callers.free_tail(return_address as u64) {
        Some(tail) => thread.stream.free_usually(tail, ptr, kind),
        None => Attempt::Failed,
    };
    leave(thread, attempt)
}

#[inline(always)]
fn leave(thread: Thread, attempt: Attempt) -> Attempt {
    match attempt {
        Attempt::Unfinished | Attempt::NewStack => thread.pause(),
        Attempt::Failed | Attempt::Done => drop(thread),
    }
    attempt
}

/// Records an allocation after an attempt has found another stack than last time.
///
/// # Safety
/// This thread's last attempt is [`Attempt::NewStack`], of the same event, and this has not been
/// called since.
#[inline(always)]
pub(crate) unsafe fn alloc_on_new_stack(ptr: usize, size: usize, caller: &Registers) {
    // SAFETY: the caller's promise; `leave` has paused it.
    let mut thread = unsafe { Thread::resume() };
    let node = stack::new_node(&mut thread, caller);
    thread.stream.alloc(node, size, ptr);
}

/// Does what an attempt has left to do.
///
/// # Safety
/// This thread's last attempt is [`Attempt::Unfinished`], and this has not been called since.
#[cold]
pub(crate) unsafe fn finish_event() {
    // SAFETY: the caller's promise; `leave` has paused it.
    let thread = unsafe { Thread::resume() };
    thread.stream.end_record();
}

/// Records a free.
#[inline(always)]
pub(super) fn free(ptr: usize, return_address: usize, kind: FreeKind) {
    match Thread::enter() {
        Some(mut thread) => {
            let node = stack::node_of_caller(&mut thread, return_address as u64);
            thread.stream.free(node, ptr, kind);
        }
        None => lose(),
    }
}

#[cold]
fn lose() {
    // What a fork's child loses before it has a trace is not its parent's loss.
    if HOT.is_new() {
        return;
    }
    file::lose(1, libc::ENOMEM);
}

/// Visits the return addresses of a hook's caller and its callers, until `visit` breaks. Does nothing
/// while this thread takes another stack.
pub(super) fn walk(caller: &Registers, mut visit: impl FnMut(u64) -> ControlFlow<()>) {
    if let Some(mut thread) = Thread::enter() {
        let State { bounds, last, .. } = &mut *thread;
        bounds.update(caller.rsp);
        last.clear();
        last.walk(caller, bounds, |frame| visit(frame.return_address()));
    }
}

/// Runs the real realloc of a block and records what became of it.
///
/// The old block may be another thread's before the real function returns, so its record is stored
/// before, and its outcome after. Nothing else is stored in the stream meanwhile: what is recorded
/// inside of the real function, or by a signal handler, finds the state busy.
pub(super) fn realloc(
    old: usize,
    size: usize,
    caller: &Registers,
    real: impl FnOnce() -> usize,
) -> usize {
    let Some(mut thread) = Thread::enter() else {
        lose();
        return real();
    };
    let trace = log::id();
    // After exit a record is written out at once: its outcome has to be known.
    let is_closed = chunks::is_closed();
    let by = stack::node_of_caller(&mut thread, caller.return_address);
    let place = if is_closed { None } else { thread.stream.realloc(by, old, Outcome::Open) };
    let new = real();
    // A signal handler may have forked meanwhile: the place is the parent's.
    if log::id() != trace {
        return new;
    }
    let outcome = match (new, size) {
        (0, 0) => Outcome::Freed,
        (0, _) => Outcome::Unchanged,
        _ => Outcome::Ended,
    };
    match place {
        Some(place) => thread.stream.set_outcome(place, outcome),
        None if is_closed => drop(thread.stream.realloc(by, old, outcome)),
        None => {}
    }
    let node = match outcome {
        Outcome::Freed => return new,
        _ => stack::node(&mut thread, caller),
    };
    match outcome {
        Outcome::Unchanged => thread.stream.failed(Family::Realloc, 0, node, size, old),
        _ => thread.stream.alloc_by(Family::Realloc, 0, node, size, new),
    }
    new
}

/// Records a realloc of `old` (or of NULL) that failed.
#[cold]
pub(super) fn realloc_failed(old: usize, size: usize, caller: &Registers) {
    let Some(mut thread) = Thread::enter() else { return lose() };
    let node = stack::node(&mut thread, caller);
    thread.stream.failed(Family::Realloc, 0, node, size, old);
}

/// A stamp of this thread's: what it does before it is older, what comes after is not. `None` when
/// there is no stream to take it in.
pub(crate) fn stamp() -> Option<u64> {
    let mut thread = Thread::enter()?;
    thread.stream.store_stamp();
    thread.stream.stamp()
}

/// To be called before system calls become impossible: this thread gets what it cannot get then.
#[cold]
pub(crate) fn prepare_for_silence(rsp: u64) {
    /// Full chunks that there is room for, each of 32 KiB.
    const ROOM: usize = 1024;
    if let Some(mut thread) = Thread::enter() {
        thread.bounds.update(rsp);
        thread.last.clear();
    }
    chunks::make_room(ROOM);
}

/// Stores lines that are not records.
#[cold]
pub(crate) fn text(parts: &[&[u8]]) {
    if let Some(mut thread) = Thread::enter() {
        thread.stream.text(parts);
    }
}

/// As [`text`], in one record; where its bytes are in the file if it is in the first chunk, else 0.
#[cold]
pub(crate) fn text_in_front(line: &[u8]) -> u64 {
    Thread::enter().map_or(0, |mut thread| thread.stream.text_in_front(line))
}

/// Writes out all that was recorded, so that the trace is whole without its tail; from then on records
/// are written one by one. False when a thread was stopped in the middle of one: then the tail is
/// still needed.
pub(crate) fn finish() -> bool {
    thread::close_streams()
}
