//! What a thread remembers from one event to the next.
//!
//! It is mapped memory, taken from a pool when a thread has its first event and put back when the
//! thread ends, so that short threads cost little: the next one goes on with the same stream and
//! knows what was defined in it. A signal handler that allocates while its thread is in here takes
//! another one.

use core::cell::Cell;
use core::ffi::c_void;
use core::ops::{Deref, DerefMut};
use core::ptr::null_mut;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, compiler_fence};

use mtr_format::compact::encode::AllocHead;

use super::nodes::Nodes;
use super::pool;
use super::stack::{Callers, DeepStack};
use super::stream::{self, Stream};
use crate::config;
use crate::hot::single_threaded;
use crate::{arch, sys, unwind};

/// See the module's documentation. All zeros is a thread that remembers nothing.
#[repr(C)]
pub(super) struct State {
    /// Alone on the first page, which the kernel wipes in a fork's child.
    pub(super) stream: Stream,
    /// As in [`Stream`].
    _apart: [u64; 16],
    /// While somebody is at work with it, [`BUSY`] and rsp where that began; else the epoch that it is
    /// valid for, or 0. Both in one word, so that a signal handler finds them together.
    gate: AtomicU64,
    /// For events that interrupt such work; NULL when it has never happened.
    inner: Cell<*mut State>,
    /// The next one in the pool (pool.rs).
    pub(super) next: pool::Link,
    /// Where the thread's own stack is.
    pub(super) bounds: unwind::Stack,
    pub(super) last: unwind::LastStack,
    /// Of the node of the last stack.
    pub(super) head: AllocHead,
    pub(super) deep: DeepStack,
    pub(super) nodes: Nodes,
    pub(super) callers: Callers,
}

/// Bit of [`State::gate`] that neither an epoch has nor rsp.
const BUSY: u64 = 1;

fn is_busy(gate: &AtomicU64) -> bool {
    gate.load(Ordering::Acquire) & BUSY != 0
}

/// Counts traces in the upper half (a fork's child has another), unloaded modules in the lower, in
/// steps of 2: see [`BUSY`].
static EPOCH: AtomicU64 = AtomicU64::new(1 << 32);

/// To be called when a trace begins.
pub(crate) fn new_trace() {
    let next = (EPOCH.load(Ordering::Relaxed) >> 32) + 1;
    EPOCH.store(next << 32, Ordering::Release);
}

/// To be called when modules have been unloaded.
pub(crate) fn modules_changed() {
    EPOCH.fetch_add(2, Ordering::AcqRel);
}

/// In the place of a thread's state: the thread has ended, but for a few destructors.
const ENDED: *mut State = core::ptr::without_provenance_mut(1);

/// This thread's state, in use until it is dropped.
pub(super) struct Thread {
    state: &'static mut State,
    /// It is given back after this event.
    is_borrowed: bool,
}

impl Thread {
    /// `None` when there is no memory.
    #[inline(always)]
    pub(super) fn enter() -> Option<Thread> {
        Self::enter_usually().or_else(|| Self::enter_rarely(arch::thread_state().cast()))
    }

    /// As [`Thread::enter`], without a call; `None` where that would take one.
    #[inline(always)]
    pub(super) fn enter_usually() -> Option<Thread> {
        let state = arch::thread_state().cast::<State>();
        if state <= ENDED {
            return None;
        }
        // SAFETY: this thread's own state; nobody else refers to it, but to the atomics.
        unsafe { Self::try_enter(state) }
    }

    /// Makes a state of this thread's busy if it is up to date and nobody is at work with it.
    ///
    /// # Safety
    /// `state` is this thread's.
    #[inline(always)]
    unsafe fn try_enter(state: *mut State) -> Option<Thread> {
        // SAFETY: the caller's promise; a state stays mapped.
        let gate = unsafe { &(*state).gate };
        if gate.load(Ordering::Relaxed) != EPOCH.load(Ordering::Acquire) {
            return None;
        }
        gate.store(BUSY + arch::stack_pointer(), Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst); // a signal handler sees it before anything else
        // SAFETY: it was not busy, so there is no other reference.
        Some(Thread { state: unsafe { &mut *state }, is_borrowed: false })
    }

    /// Stays busy until [`Thread::resume`], for what takes a call.
    #[inline(always)]
    pub(super) fn pause(self) {
        core::mem::forget(self);
    }

    /// Goes on where [`Thread::pause`] was called.
    ///
    /// # Safety
    /// This thread has paused a value that [`Thread::enter_usually`] gave it, and not resumed it.
    pub(super) unsafe fn resume() -> Thread {
        // SAFETY: the caller's promise: it was this state, and it is busy for nobody else.
        let state = unsafe { &mut *arch::thread_state().cast::<State>() };
        Thread { state, is_borrowed: false }
    }

    #[cold]
    #[inline(never)]
    fn enter_rarely(outer: *mut State) -> Option<Thread> {
        let mut state = outer;
        // SAFETY: this thread's own, perhaps in use below us on the stack; only cells are touched.
        while let Some((gate, inner)) = unsafe { own_cells(state) } {
            // SAFETY: as above.
            if let Some(thread) = unsafe { Self::try_enter(state) } {
                return Some(thread);
            }
            if !is_busy(gate) {
                break;
            }
            state = inner.get();
        }
        // A signal handler, or the thread's cancellation, would leave things half done.
        let signals = sys::block_signals();
        let thread = Self::enter_anew();
        sys::restore_signals(signals);
        thread
    }

    /// Takes or makes a state, or one that has to be brought up to date. No signal comes meanwhile.
    fn enter_anew() -> Option<Thread> {
        let outer = arch::thread_state().cast::<State>();
        let mut state = outer;
        if state <= ENDED {
            state = take_or_map()?;
            if outer.is_null() {
                arch::set_thread_state(state.cast());
                // At the thread's end it goes back to the pool.
                END_OF_THREAD.arm();
            }
        }
        let mut depth = 0;
        // SAFETY: as above.
        while let Some((gate, inner)) = unsafe { own_cells(state) }
            && is_busy(gate)
        {
            if inner.get().is_null() {
                let left = match depth >= MANY {
                    // SAFETY: the head of this thread's chain.
                    true => unsafe { left_behind(outer) },
                    false => None,
                };
                if let Some(left) = left {
                    state = left;
                    break;
                }
                inner.set(take_or_map()?);
            }
            state = inner.get();
            depth += 1;
        }
        // SAFETY: not busy, so there is no other reference.
        let state = unsafe { &mut *state };
        let gate = state.gate.swap(BUSY + arch::stack_pointer(), Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        let mut thread = Thread { state, is_borrowed: outer == ENDED };
        if gate != EPOCH.load(Ordering::Acquire) {
            thread.forget();
        }
        Some(thread)
    }

    #[cold]
    fn forget(&mut self) {
        let epoch = EPOCH.load(Ordering::Acquire);
        self.nodes.forget();
        self.callers.forget();
        self.last.clear();
        self.stream.epoch = epoch;
        if config::get().is_compact {
            match self.stream.has_slot() {
                true => self.stream.forget(),
                false => self.stream.open(),
            }
        }
    }
}

impl Drop for Thread {
    #[inline(always)]
    fn drop(&mut self) {
        self.state.gate.store(self.state.stream.epoch, Ordering::Release);
        if self.is_borrowed {
            give_back(self.state);
        }
    }
}

impl Deref for Thread {
    type Target = State;
    #[inline(always)]
    fn deref(&self) -> &State {
        self.state
    }
}

impl DerefMut for Thread {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut State {
        self.state
    }
}

/// Interruptions of interruptions from which on it is looked whether the hooks below are still there.
const MANY: usize = 4;

/// # Safety
/// `state` is NULL, [`ENDED`], or a state of this thread's, perhaps in use.
unsafe fn own_cells<'a>(state: *mut State) -> Option<(&'a AtomicU64, &'a Cell<*mut State>)> {
    // SAFETY: a state stays mapped; cells may be shared with whoever uses it below us on the stack.
    (state > ENDED).then(|| unsafe { (&(*state).gate, &(*state).inner) })
}

/// A busy state among this thread's whose hook is not on the stack any more: a signal handler that
/// interrupted it has left by a jump, and a frame further out has called us. It is as good as new.
///
/// # Safety
/// `head` is NULL, [`ENDED`], or the first state of this thread's; no signal handler runs meanwhile.
#[cold]
unsafe fn left_behind(head: *mut State) -> Option<*mut State> {
    let rsp = arch::stack_pointer();
    let mut state = head;
    // SAFETY: the caller's promise.
    while let Some((gate, inner)) = unsafe { own_cells(state) } {
        // SAFETY: a plain value, which nobody who is at work with the state changes meanwhile.
        let bounds = unsafe { (*state).bounds };
        let entered = gate.load(Ordering::Relaxed) & !BUSY;
        // On another stack, nothing is known of what is below whom.
        let is_left = bounds.holds(entered) && bounds.holds(rsp) && rsp > entered;
        if is_busy(gate) && is_left {
            // SAFETY: nobody will go on with it.
            unsafe { mend(state) };
            return Some(state);
        }
        state = inner.get();
    }
    None
}

/// Brings a state into order whose work was left.
///
/// # Safety
/// It is this thread's, and nobody will go on with that work.
unsafe fn mend(state: *mut State) {
    // SAFETY: the caller's promise.
    unsafe {
        (*state).stream.mend();
        (*state).last.clear();
        (*state).gate.store(0, Ordering::Relaxed);
    }
}

/// A state for this thread.
fn take_or_map() -> Option<*mut State> {
    if let Some(state) = pool::take() {
        // SAFETY: taken from the pool, so nobody else refers to it, but to the atomics of its stream.
        let stream = unsafe { &mut (*state).stream };
        if stream.has_slot() {
            stream.hand_over();
        }
        return Some(state);
    }
    let state = sys::map_anonymous(size_of::<State>()).ok()?;
    // What a fork's child would store in it must not reach its parent's trace.
    if sys::wipe_on_fork(state, size_of::<Stream>()).is_err() {
        // SAFETY: just made, nobody knows it.
        unsafe { sys::unmap(state, size_of::<State>()) };
        return None;
    }
    Some(state.cast())
}

/// Puts a state and those for what interrupted it into the pool.
#[cold]
fn give_back(state: *mut State) {
    let mut next = state;
    while !next.is_null() {
        let state = next;
        // SAFETY: the state of the thread that ends; no hook is below us on the stack, unless it
        // was left by a jump or the thread's cancellation.
        unsafe {
            next = (*state).inner.replace(null_mut());
            // What a hook was doing when it was left is not known.
            if is_busy(&(*state).gate) {
                mend(state);
            }
            // The next thread has another stack.
            (*state).bounds = unwind::Stack::NEW;
            (*state).last.clear();
            pool::put(state);
        }
    }
}

/// The destructor of [`END_OF_THREAD`]. What the thread still does afterwards borrows a state for
/// each event.
extern "C" fn end_of_thread(state: *mut c_void) {
    arch::set_thread_state(ENDED.cast());
    give_back(state.cast());
}

/// Closes all streams and writes them out, and waits a little for the threads that are at work with a
/// record. False when one did not come to its end, or may be at work unseen.
pub(super) fn close_streams() -> bool {
    /// Others get this many chances.
    const PATIENCE: usize = 200;
    stream::close();
    // Behind it, who has not seen that the streams are closed is seen to be busy. A processor may put off
    // the store to the gate until the whole record is stored.
    let is_seen = single_threaded() || sys::pass_barrier_in_threads().is_ok();
    let is_all = (0..PATIENCE).any(|_| {
        sys::yield_processor();
        stream::write_all(is_in_use)
    });
    is_all && is_seen
}

/// Whether a thread is at work with the state of this stream.
fn is_in_use(stream: *mut Stream) -> bool {
    let state = stream.cast::<State>();
    // SAFETY: a stream is the first member of a state, and a state stays mapped; an atomic only.
    !state.is_null() && unsafe { is_busy(&(*state).gate) }
}

/// The key whose destructor is called when a thread ends.
struct EndOfThread(AtomicU32);

static END_OF_THREAD: EndOfThread = EndOfThread(AtomicU32::new(u32::MAX));

/// Keys below this one need no allocation when they are set (glibc).
const KEYS_WITHOUT_ALLOCATION: u32 = 32;

impl EndOfThread {
    fn arm(&self) {
        let key = self.0.load(Ordering::Acquire);
        if key < KEYS_WITHOUT_ALLOCATION {
            // SAFETY: a key of ours; below 32 there is a place for its value in the thread itself.
            unsafe { libc::pthread_setspecific(key, arch::thread_state().cast()) };
        }
    }
}

/// To be called once, before there are threads.
pub(crate) fn prepare() {
    let mut key = u32::MAX;
    // SAFETY: a valid place for the key and a function that may be called as a destructor.
    if unsafe { libc::pthread_key_create(&mut key, Some(end_of_thread)) } == 0 {
        END_OF_THREAD.0.store(key, Ordering::Release);
    }
}
