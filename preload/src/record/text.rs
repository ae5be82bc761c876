//! Events -> lines of the log, on the program's own time.

use core::ops::ControlFlow;

use mtr_format::text::encode::{Line, MAX_OP_TEXT, Op, PUBLISHED_LAST, op_text};

use crate::log::{self, ring};
use crate::sites::{self, Buffer, Where};
use crate::unwind::Registers;
use crate::{arch, config};

/// Records an allocation, or a failed one when `ptr` is NULL.
#[inline(always)]
pub(super) fn alloc(ptr: usize, size: usize, caller: &Registers) {
    record(Op::Alloc, ptr, size, caller);
}

/// Records a free by its return address alone.
#[inline(always)]
pub(super) fn free(ptr: usize, return_address: usize) {
    match sites::get(return_address) {
        Some(place) => record_at(Op::Free, ptr, 0, place),
        None => free_at_new_site(ptr, return_address),
    }
}

#[cold]
#[inline(never)]
fn free_at_new_site(ptr: usize, return_address: usize) {
    let mut buffer = Buffer::EMPTY;
    record_at(Op::Free, ptr, 0, sites::make(return_address, &mut buffer));
}

/// Records a free whose line may have to name a caller further out.
pub(super) fn free_by(ptr: usize, caller: &Registers) {
    record(Op::Free, ptr, 0, caller);
}

/// Records a realloc of `old` (or of NULL) that failed, and for which no place is held.
#[cold]
pub(super) fn realloc_failed(old: usize, size: usize, caller: &Registers) {
    record(Op::ReallocFailed, old, size, caller);
}

#[inline(always)]
fn record(op: Op, ptr: usize, size: usize, caller: &Registers) {
    match sites::get(caller.return_address as usize) {
        Some(place) if !(place.is_runtime() && config::get().names_user) => {
            record_at(op, ptr, size, place);
        }
        _ => record_at_rare_site(op, ptr, size, caller),
    }
}

#[cold]
#[inline(never)]
fn record_at_rare_site(op: Op, ptr: usize, size: usize, caller: &Registers) {
    let mut buffer = Buffer::EMPTY;
    record_at(op, ptr, size, find_site(caller, &mut buffer));
}

/// The call site that a line names.
fn find_site(caller: &Registers, buffer: &mut Buffer) -> Where {
    let direct = site_of(caller.return_address as usize, buffer);
    if !(direct.is_runtime() && config::get().names_user) {
        return direct;
    }
    let mut found = None;
    super::compact::walk(caller, |address| {
        let place = site_of(address as usize, buffer);
        match place.is_runtime() {
            true => ControlFlow::Continue(()),
            false => {
                found = Some(place);
                ControlFlow::Break(())
            }
        }
    });
    // All of it is the runtime's own doing.
    found.unwrap_or_else(|| site_of(caller.return_address as usize, buffer))
}

fn site_of(return_address: usize, buffer: &mut Buffer) -> Where {
    sites::get(return_address).unwrap_or_else(|| sites::make(return_address, buffer))
}

#[inline(always)]
fn record_at(op: Op, ptr: usize, size: usize, place: Where) {
    let Some(line) = Line::new(op, ptr as u64, size as u64, place.len()) else {
        return record_rare_form(op, ptr, size, place);
    };
    let position = ring::reserve(line.len());
    let Some(out) = ring::place(position, line.len()) else {
        return put(position, op, ptr, size, place);
    };
    // SAFETY: `out` is a place of that length which this thread has reserved, and the WHERE text
    // has the length that the line was made with, at least PUBLISHED_LAST.
    unsafe {
        line.fill(out, place.as_ptr());
        publish(out, place);
    }
    if ring::is_closed() {
        with_text(op, ptr, size, place, |parts| ring::put_beside(position, parts));
    }
}

/// # Safety
/// `out` is the filled place of a line at `place`.
#[inline(always)]
unsafe fn publish(out: *mut u8, place: Where) {
    const { assert!(PUBLISHED_LAST == 8) };
    // SAFETY: a line that `Line::fill` writes has at least 16 bytes of WHERE text.
    unsafe { arch::publish_8_bytes(out, place.as_ptr()) }
}

#[cold]
#[inline(never)]
fn record_rare_form(op: Op, ptr: usize, size: usize, place: Where) {
    with_text(op, ptr, size, place, |parts| ring::put(ring::reserve(ring::len_of(parts)), parts));
}

/// Stores a line whose place is reserved, in the way that is right for any line and place.
#[cold]
#[inline(never)]
fn put(position: u64, op: Op, ptr: usize, size: usize, place: Where) {
    with_text(op, ptr, size, place, |parts| ring::put(position, parts));
}

/// Makes the text of a line, in the way that is right for any, and hands its parts to `action`.
#[cold]
#[inline(never)]
fn with_text(op: Op, ptr: usize, size: usize, place: Where, action: impl FnOnce(&[&[u8]])) {
    let mut text = [0; MAX_OP_TEXT];
    let len = op_text(op, ptr as u64, size as u64, &mut text);
    action(&[place.as_bytes(), text.get(..len).unwrap_or(&[])]);
}

/// A realloc under way: the place of its `<` is taken.
pub(super) struct Held {
    place: Where,
    position: u64,
    /// Where the line stands, all but its first bytes, if it is of the common form and place.
    filled: Option<(*mut u8, usize)>,
}

/// Runs the real realloc of a block and records what became of it. `old` is not NULL, `size` not too
/// large.
#[inline(never)] // it takes more of the stack than recording a trace
pub(super) fn realloc(
    old: usize,
    size: usize,
    caller: &Registers,
    real: impl FnOnce() -> usize,
) -> usize {
    match sites::get(caller.return_address as usize) {
        Some(place) if !place.is_runtime() => realloc_at(old, size, place, real),
        _ => realloc_at_rare_site(old, size, caller, real),
    }
}

#[cold]
#[inline(never)]
fn realloc_at_rare_site(
    old: usize,
    size: usize,
    caller: &Registers,
    real: impl FnOnce() -> usize,
) -> usize {
    let mut buffer = Buffer::EMPTY;
    realloc_at(old, size, find_site(caller, &mut buffer), real)
}

#[inline(always)]
fn realloc_at(old: usize, size: usize, place: Where, real: impl FnOnce() -> usize) -> usize {
    // realloc(p, 0) frees p and returns NULL, in glibc.
    let expected = if size == 0 { Op::Free } else { Op::ReallocOld };
    let log = log::id();
    let held = hold(expected, old, place);
    let new = real();
    // A signal handler may have forked meanwhile: the place is the parent's.
    if log::id() == log {
        match (new, size) {
            (0, 0) => held.end(Op::Free, old),
            (0, _) => held.cancel(old, size),
            _ => {
                held.end(Op::ReallocOld, old);
                record_at(Op::ReallocNew, new, size, place);
            }
        }
    }
    new
}

fn hold(op: Op, ptr: usize, place: Where) -> Held {
    let Some(line) = Line::new(op, ptr as u64, 0, place.len()) else {
        return hold_any(op, ptr, place);
    };
    let position = ring::reserve(line.len());
    let filled = ring::place(position, line.len()).map(|out| {
        // A reader of the log of a killed process learns from this that the block may be gone.
        // SAFETY: as in `record_at`.
        unsafe { line.fill(out, place.as_ptr()) };
        (out, line.op_offset())
    });
    if filled.is_none() || ring::is_closed() {
        with_text(op, ptr, 0, place, |parts| ring::announce(position, parts));
    }
    Held { place, position, filled }
}

/// Holds the place of a line of a rare form.
#[cold]
#[inline(never)]
fn hold_any(op: Op, ptr: usize, place: Where) -> Held {
    let mut position = 0;
    with_text(op, ptr, 0, place, |parts| {
        position = ring::reserve(ring::len_of(parts));
        ring::announce(position, parts);
    });
    Held { place, position, filled: None }
}

impl Held {
    fn end(&self, op: Op, ptr: usize) {
        let Some((out, op_offset)) = self.filled else {
            return put(self.position, op, ptr, 0, self.place);
        };
        // SAFETY: the place is still reserved: its first bytes are NUL, so the ring has not
        // recycled it.
        unsafe {
            out.add(op_offset).write(op as u8);
            publish(out, self.place);
        }
        if ring::is_closed() {
            with_text(op, ptr, 0, self.place, |parts| ring::put_beside(self.position, parts));
        }
    }

    /// The old block lives on: the line becomes a comment, and the failure gets one of its own.
    #[cold]
    #[inline(never)]
    fn cancel(&self, ptr: usize, size: usize) {
        const COMMENT: &[u8; PUBLISHED_LAST] = b"#       ";
        let mut text = [0; MAX_OP_TEXT];
        let len = op_text(Op::ReallocOld, ptr as u64, 0, &mut text);
        let rest = self.place.as_bytes().get(PUBLISHED_LAST..).unwrap_or(&[]);
        let parts: [&[u8]; 3] = [COMMENT, rest, text.get(..len).unwrap_or(&[])];
        if let Some((out, _)) = self.filled {
            // SAFETY: as in `end`.
            unsafe { arch::publish_8_bytes(out, COMMENT.as_ptr()) };
            if ring::is_closed() {
                ring::put_beside(self.position, &parts);
            }
        } else {
            ring::put(self.position, &parts);
        }
        record_at(Op::ReallocFailed, ptr, size, self.place);
    }
}
