//! libmtr.so: records every allocation of the program that it is preloaded into, as an mtrace log
//! (docs/log-format.md).
//!
//! The rules of this crate, which runs inside `malloc` of any program:
//! - it never allocates from the heap, panics, locks, waits, or uses dynamic TLS;
//! - it makes no system call per event, and none through libc (errno stays, nothing is a
//!   cancellation point);
//! - it uses at most 2 KiB of the program's stack in a hook;
//! - it exports the hooks and nothing else.
#![cfg_attr(not(test), no_std)]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        dead_code
    )
)]

mod hooks; // the exported functions
mod real; // what they pass on to
mod operators; // operator new and delete: whose, and what that means
mod record; // an event becomes a record
mod log; // where records go
mod sites; // the text of a call site
mod modules; // which module an address is in
mod unwind; // call stacks
mod seccomp; // programs that forbid system calls
mod dlclose; // what becomes of it when the module goes
mod lifecycle; // start, fork, exit
mod untraced; // children without a trace
mod starts; // programs that are started without us
mod hot; // the state that every hook touches
mod complain; // a line on stderr
mod config; // MTR_* variables
mod environment; // where they stand
mod global; // statics and texts without allocation
mod sys; // system calls
mod arch; // what depends on the processor
#[cfg(test)]
mod stepping; // for tests: what each instruction leaves

/// Nothing here panics; should it happen all the same, the program is not to be unwound from inside
/// malloc.
#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: abort may be called anywhere.
    unsafe { libc::abort() }
}
