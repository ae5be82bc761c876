//! Compares a call stack as we see it with libgcc's `_Unwind_Backtrace`. Allocates nothing, so that
//! it can be called anywhere a hook can.

use core::cell::Cell;
use core::ffi::{c_int, c_void};
use core::mem::MaybeUninit;
use core::ops::ControlFlow;
use core::sync::atomic::{AtomicUsize, Ordering};

use crate::arch::hook_with_registers;
use crate::sys::map_anonymous;
use crate::unwind::memory::Memory;
use crate::unwind::step::{Outcome, Registers, Room, Scope};
use crate::unwind::{End, LastStack, Stack, walk};

use super::names::{Chains, Way, node_of};

unsafe extern "C" {
    fn _Unwind_Backtrace(
        visit: extern "C" fn(*mut c_void, *mut c_void) -> c_int,
        argument: *mut c_void,
    ) -> c_int;
    fn _Unwind_GetIP(context: *mut c_void) -> u64;
    fn _Unwind_GetCFA(context: *mut c_void) -> u64;
}

/// Frames that are compared.
const MAX_FRAMES: usize = 2048;

/// Frames as (PC, rsp).
pub(super) struct Frames {
    pub(super) frames: [(u64, u64); MAX_FRAMES],
    pub(super) len: usize,
}

impl Frames {
    pub(super) const EMPTY: Frames = Frames { frames: [(0, 0); MAX_FRAMES], len: 0 };

    pub(super) fn push(&mut self, pc: u64, rsp: u64) -> ControlFlow<()> {
        let Some(place) = self.frames.get_mut(self.len) else { return ControlFlow::Break(()) };
        *place = (pc, rsp);
        self.len += 1;
        ControlFlow::Continue(())
    }

    pub(super) fn as_slice(&self) -> &[(u64, u64)] {
        self.frames.get(..self.len).unwrap_or(&[])
    }
}

extern "C" fn push_frame(context: *mut c_void, frames: *mut c_void) -> c_int {
    const STOP: c_int = 5; // _URC_END_OF_STACK
    // SAFETY: `frames` is what `of_libgcc` passes, `context` what libgcc does.
    let (frames, pc, rsp) =
        unsafe { (&mut *frames.cast::<Frames>(), _Unwind_GetIP(context), _Unwind_GetCFA(context)) };
    // It visits "no caller" as PC 0.
    if pc == 0 || frames.push(pc, rsp).is_break() { STOP } else { 0 }
}

/// libgcc's frames, from that of the caller of this function (or one further in) outwards.
pub(super) fn of_libgcc(frames: &mut Frames) {
    frames.len = 0;
    // SAFETY: the visitor gets the frames that it expects.
    unsafe { _Unwind_Backtrace(push_frame, (&raw mut *frames).cast()) };
}

/// Stacks that were compared, and frames on them, in the whole process.
pub(super) static STACKS: AtomicUsize = AtomicUsize::new(0);
pub(super) static FRAMES: AtomicUsize = AtomicUsize::new(0);

/// Stacks that had changed as before, and were found without a walk.
pub(super) static RECALLED: AtomicUsize = AtomicUsize::new(0);

struct Buffers {
    ours: Frames,
    probed: Frames,
    slow: Frames,
    theirs: Frames,
}

/// Buffers of one thread or signal handler at a time.
const BUFFERS: usize = 16;
static USED: [AtomicUsize; BUFFERS] = [const { AtomicUsize::new(0) }; BUFFERS];

/// Runs `use_it` with buffers that nobody else uses.
fn with_buffers<T>(use_it: impl FnOnce(&mut Buffers) -> T) -> T {
    static mut ALL: [Buffers; BUFFERS] = [const {
        Buffers {
            ours: Frames::EMPTY,
            probed: Frames::EMPTY,
            slow: Frames::EMPTY,
            theirs: Frames::EMPTY,
        }
    }; BUFFERS];
    loop {
        for (index, used) in USED.iter().enumerate() {
            if used.swap(1, Ordering::Acquire) == 0 {
                // SAFETY: `used` lets one in.
                let buffers = unsafe { &mut *(&raw mut ALL).cast::<Buffers>().add(index) };
                let result = use_it(buffers);
                used.store(0, Ordering::Release);
                return result;
            }
        }
    }
}

/// The frames by the interpreter alone, without rules and cache.
fn walk_slowly(start: &Registers, frames: &mut Frames) {
    frames.len = 0;
    let mut memory = Memory::probing();
    let mut room = Room::EMPTY;
    room.full.set_to_caller(start);
    let mut is_interrupted = false;
    loop {
        let (pc, rsp, _) = room.full.frame();
        if pc == 0 || frames.push(pc, rsp).is_break() {
            return;
        }
        match room.step(pc - u64::from(!is_interrupted), Scope::All, &mut memory) {
            Ok(Outcome::Root) | Err(_) => return,
            Ok(outcome) => is_interrupted = outcome == Outcome::Interrupted,
        }
    }
}

/// Compares the stack from `start` on; returns how many frames it has.
///
/// Prints and aborts if there is any difference: the caller may be a signal handler.
pub(super) fn compare(start: &Registers) -> usize {
    with_buffers(|buffers| {
        let mut stack = Stack::NEW;
        stack.update(start.rsp);
        buffers.ours.len = 0;
        let end = walk(start, &stack, |frame| buffers.ours.push(frame.pc, frame.rsp));
        buffers.probed.len = 0;
        walk(start, &Stack::NEW, |frame| buffers.probed.push(frame.pc, frame.rsp));
        walk_slowly(start, &mut buffers.slow);
        of_libgcc(&mut buffers.theirs);
        let theirs = buffers.theirs.as_slice();
        let first = (start.return_address, start.rsp);
        let theirs = theirs
            .iter()
            .position(|frame| *frame == first)
            .and_then(|inner| theirs.get(inner..))
            .unwrap_or(&[]);
        for (what, frames) in
            [("walk", &buffers.ours), ("probing", &buffers.probed), ("slow", &buffers.slow)]
        {
            if frames.as_slice() != theirs {
                report(what, frames.as_slice(), theirs, end);
            }
        }
        if end != End::Root && theirs.len() < MAX_FRAMES - 16 {
            report("end", buffers.ours.as_slice(), theirs, end);
        }
        compare_incremental(start, &stack, end);
        STACKS.fetch_add(1, Ordering::Relaxed);
        FRAMES.fetch_add(theirs.len(), Ordering::Relaxed);
        theirs.len()
    })
}

thread_local! {
    static LAST: Cell<*mut Kept> = const { Cell::new(core::ptr::null_mut()) };
    static IS_BUSY: Cell<bool> = const { Cell::new(false) };
}

/// What a thread keeps from event to event.
struct Kept {
    last: LastStack,
    stack: Stack,
    names: MaybeUninit<Chains>,
}

/// Compares the stack that is brought up to date from event to event with a whole walk.
fn compare_incremental(start: &Registers, stack: &Stack, end: End) {
    if IS_BUSY.replace(true) {
        return;
    }
    if LAST.get().is_null() {
        LAST.set(map_anonymous(size_of::<Kept>()).unwrap().cast());
        // SAFETY: zeroed memory, for this thread alone.
        unsafe { (*LAST.get()).names.write(Chains::new()) };
    }
    // SAFETY: as above, not used by a handler meanwhile; zeros are sound values of the others.
    let (last, mine, names) = unsafe {
        let kept = &mut *LAST.get();
        (&mut kept.last, &mut kept.stack, kept.names.assume_init_mut())
    };
    let (node, way) = node_of(last, start, mine, names).expect("a stack that is not too deep");
    let mut is_equal = names.end(node) == end;
    let mut addresses = names.addresses(node);
    walk(start, stack, |frame| {
        is_equal &= addresses.next() == Some(frame.return_address());
        ControlFlow::Continue(())
    });
    is_equal &= addresses.next().is_none();
    if !is_equal {
        report_incremental(start, stack, names.addresses(node), end);
    }
    RECALLED.fetch_add((way == Way::Recalled).into(), Ordering::Relaxed);
    IS_BUSY.set(false);
}

/// Apart, because of what it takes of the stack.
#[cold]
#[inline(never)]
fn report_incremental(
    start: &Registers,
    stack: &Stack,
    addresses: impl Iterator<Item = u64>,
    end: End,
) {
    let (mut ours, mut whole) = (Frames::EMPTY, Frames::EMPTY);
    addresses.for_each(|address| {
        let _ = ours.push(address, 0);
    });
    walk(start, stack, |frame| whole.push(frame.return_address(), 0));
    report("incremental", ours.as_slice(), whole.as_slice(), end);
}

fn report(what: &str, ours: &[(u64, u64)], theirs: &[(u64, u64)], end: End) {
    eprintln!("{what}: {} frames, libgcc has {}; {end:?}", ours.len(), theirs.len());
    let from = ours.iter().zip(theirs).take_while(|(a, b)| a == b).count().saturating_sub(3);
    for index in from..from + 8 {
        for (whose, frames) in [("ours", ours), ("theirs", theirs)] {
            if let Some((pc, rsp)) = frames.get(index) {
                let module = crate::modules::find(*pc as usize);
                let (start, name) = match &module {
                    // SAFETY: the module is loaded.
                    Some(module) => (module.start, unsafe { &*module.link_map }.name()),
                    None => (0, &b"?"[..]),
                };
                let offset = *pc as usize - start;
                let name = String::from_utf8_lossy(name);
                eprintln!("  {index:3} {whose:6} {pc:#x} {rsp:#x} {name}+{offset:#x}");
            }
        }
    }
    std::process::abort();
}

hook_with_registers!(compare_hook, 1, compare_body);

extern "C" fn compare_body(_size: usize, registers: *const Registers) -> usize {
    // SAFETY: the hook passes the registers that it stored.
    compare(unsafe { &*registers })
}

/// A function that compares the stack of its caller, as a hook of malloc would see it. Returns the
/// number of frames.
pub(super) fn hook() -> extern "C" fn(usize) -> usize {
    // SAFETY: the hook passes its argument on and returns what the body returns.
    unsafe { core::mem::transmute(compare_hook as unsafe extern "C" fn()) }
}

/// As [`hook`], with a name to read at the call.
pub(super) fn check() -> usize {
    core::hint::black_box(hook()(0))
}
