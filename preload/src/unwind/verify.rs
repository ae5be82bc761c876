//! Every stack that was brought up to date is compared with a whole walk, some with a walk without
//! rules. Only in builds with the feature `verify-stacks`, which tests/incremental.rs makes.

use core::ops::ControlFlow;
use core::sync::atomic::{AtomicU64, Ordering};

use super::bounds::Stack;
use super::incremental::LastStack;
use super::memory::Memory;
use super::step::{Outcome, Problem, Registers, Room, Scope};
use super::walk::{End, walk};
use crate::global::Text;
use crate::log;

/// One of so many stacks is walked without rules, which takes a hundred times as long.
const SLOWLY: u64 = 32;
/// Differences that are written into the log one by one.
const MOST_REPORTED: u64 = 20;

static STACKS: AtomicU64 = AtomicU64::new(0);
static FRAMES: AtomicU64 = AtomicU64::new(0);
/// Stacks that were those of the last event.
static UNCHANGED: AtomicU64 = AtomicU64::new(0);
/// Stacks that had changed as before.
static RECALLED: AtomicU64 = AtomicU64::new(0);
/// Stacks that were walked without rules.
static SLOW: AtomicU64 = AtomicU64::new(0);
/// Stacks too deep to be held.
static DEEP: AtomicU64 = AtomicU64::new(0);
static DIFFERENT: AtomicU64 = AtomicU64::new(0);

fn count(counter: &AtomicU64, by: u64) -> u64 {
    counter.fetch_add(by, Ordering::Relaxed)
}

/// How a stack was found.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub(crate) enum Way {
    Walked = 0,
    Unchanged = 1,
    Recalled = 2,
}

/// Compares `last` with the stack of the hook's caller. `node` is what was found for it in this `way`.
pub(crate) fn verify(last: &LastStack, start: &Registers, stack: &Stack, node: u32, way: Way) {
    let Some(top) = last.frames().last() else {
        count(&DEEP, 1);
        return;
    };
    let mut ours = last.frames().iter().rev();
    let mut first_difference = 0;
    let mut are_equal = top.node == node;
    let mut outermost = 0;
    let end = walk(start, stack, |frame| {
        outermost = frame.pc;
        let ours = ours.next().map(|ours| (ours.pc, ours.rsp, ours.needs.is_interrupted()));
        are_equal &= ours == Some((frame.pc, frame.rsp, frame.is_interrupted));
        first_difference += u64::from(are_equal);
        ControlFlow::Continue(())
    });
    are_equal &= ours.next().is_none();
    let number = count(&STACKS, 1);
    count(&FRAMES, last.frames().len() as u64);
    count(&UNCHANGED, u64::from(way == Way::Unchanged));
    count(&RECALLED, u64::from(way == Way::Recalled));
    if are_equal && end == End::Root && number.is_multiple_of(SLOWLY) {
        are_equal = is_that_of_a_slow_walk(last, start);
        count(&SLOW, 1);
    }
    if !are_equal && count(&DIFFERENT, 1) < MOST_REPORTED {
        let mut line = Text::<256>::EMPTY;
        line.push(b"# different");
        let len = last.frames().len() as u64;
        let numbers = [start.return_address, first_difference, len, outermost];
        for number in numbers.into_iter().chain([way as u64]) {
            line.push(b" 0x");
            line.push_hex(number, 1);
        }
        log::write_comment(line.as_bytes());
    }
}

/// Walks by the interpreter of the CFI alone.
fn is_that_of_a_slow_walk(last: &LastStack, start: &Registers) -> bool {
    let mut room = Room::EMPTY;
    room.full.set_to_caller(start);
    let mut memory = Memory::probing();
    let mut is_interrupted = false;
    for frame in last.frames().iter().rev() {
        let (pc, rsp, _) = room.full.frame();
        if (pc, rsp) != (frame.pc, frame.rsp) {
            return false;
        }
        let lookup = pc.wrapping_sub((!is_interrupted).into());
        match room.step(lookup, Scope::All, &mut memory) {
            Ok(Outcome::Root) => return true,
            Ok(outcome) => is_interrupted = outcome == Outcome::Interrupted,
            // Code without CFI, which the walk may have crossed by a frame pointer.
            Err(Problem::NoCfi) => return true,
            Err(_) => return false,
        }
    }
    room.full.frame().0 == 0
}

/// Writes what was compared into the log: stacks, frames, unchanged stacks, recalled ones, walks
/// without rules, stacks too deep, differences.
pub(crate) fn report() {
    let mut line = Text::<256>::EMPTY;
    line.push(b"# verified");
    for counter in [&STACKS, &FRAMES, &UNCHANGED, &RECALLED, &SLOW, &DEEP, &DIFFERENT] {
        line.push(b" ");
        line.push_decimal(counter.load(Ordering::Relaxed));
    }
    log::write_comment(line.as_bytes());
}
