//! What a thread remembers from one event to the next.
//!
//! It is mapped memory, taken from a pool when a thread has its first event and put back when the
//! thread ends, so that short threads cost little. A signal handler that allocates while its thread
//! is in here takes a second one.

use core::cell::Cell;
use core::ffi::c_void;
use core::ops::{Deref, DerefMut};
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

use super::infos::Infos;
use super::nodes::{self, Nodes};
use super::stack::DeepStack;
use crate::{arch, sys, unwind};

/// See the module's documentation. All zeros is a thread that remembers nothing.
#[repr(C)]
pub(super) struct State {
    /// Somebody is at work with it.
    is_busy: Cell<bool>,
    /// For events that interrupt such work; NULL when it has never happened.
    inner: Cell<*mut State>,
    /// The value of [`STAMP`] that the rest is valid for.
    stamp: u64,
    /// Number of the root of this thread's stacks, 0 when not defined yet.
    root: u32,
    /// Where the thread's own stack is.
    pub(super) bounds: unwind::Stack,
    pub(super) last: unwind::LastStack,
    pub(super) deep: DeepStack,
    pub(super) nodes: Nodes,
    pub(super) infos: Infos,
}

/// Counts traces in the upper half (a fork's child has another), unloaded modules in the lower.
static STAMP: AtomicU64 = AtomicU64::new(1 << 32);

/// To be called when a trace begins.
pub(super) fn new_trace() {
    let next = (STAMP.load(Ordering::Relaxed) >> 32) + 1;
    STAMP.store(next << 32, Ordering::Release);
}

/// To be called when modules have been unloaded.
pub(super) fn modules_changed() {
    STAMP.fetch_add(1, Ordering::AcqRel);
}

/// States of threads that have ended.
static POOL: [AtomicPtr<State>; 64] = [const { AtomicPtr::new(null_mut()) }; 64];

/// This thread's state, in use until it is dropped.
pub(super) struct Thread(&'static mut State);

impl Thread {
    /// `None` when there is no memory, or when a signal interrupted a signal that did.
    #[inline(always)]
    pub(super) fn enter() -> Option<Thread> {
        let state = arch::thread_state().cast::<State>();
        // SAFETY: this thread's own state, or NULL; nobody else refers to it.
        match unsafe { state.as_ref() } {
            Some(found) if !found.is_busy.get() => {
                found.is_busy.set(true);
                // SAFETY: not busy, so there is no other reference.
                Some(Thread(unsafe { &mut *state }).validated())
            }
            _ => Self::enter_rarely(state),
        }
    }

    #[cold]
    #[inline(never)]
    fn enter_rarely(outer: *mut State) -> Option<Thread> {
        let state = if outer.is_null() {
            let state = take_or_map()?;
            arch::set_thread_state(state.cast());
            // At the thread's end it goes back to the pool.
            END_OF_THREAD.arm();
            state
        } else {
            // SAFETY: this thread's own, in use below us on the stack; only cells are touched.
            let inner = unsafe { &(*outer).inner };
            if inner.get().is_null() {
                inner.set(take_or_map()?);
            }
            inner.get()
        };
        // SAFETY: not NULL, this thread's own.
        let is_busy = unsafe { &(*state).is_busy };
        if is_busy.get() {
            return None;
        }
        is_busy.set(true);
        // SAFETY: not busy, so there is no other reference.
        Some(Thread(unsafe { &mut *state }).validated())
    }

    #[inline(always)]
    fn validated(mut self) -> Self {
        let is_full = self.nodes.is_full() || self.infos.is_full();
        if self.stamp != STAMP.load(Ordering::Acquire) || is_full {
            self.forget();
        }
        self
    }

    #[cold]
    #[inline(never)]
    fn forget(&mut self) {
        let now = STAMP.load(Ordering::Acquire);
        self.root = 0;
        self.infos.forget();
        self.nodes.forget();
        self.last.clear();
        self.stamp = now;
    }

    /// Root of this thread's stacks.
    #[inline(always)]
    pub(super) fn root(&mut self) -> u32 {
        if self.root == 0 {
            self.root = self.nodes.get(0, nodes::root_of_this_thread());
        }
        self.root
    }
}

impl Drop for Thread {
    #[inline(always)]
    fn drop(&mut self) {
        self.0.is_busy.set(false);
    }
}

impl Deref for Thread {
    type Target = State;
    #[inline(always)]
    fn deref(&self) -> &State {
        self.0
    }
}

impl DerefMut for Thread {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut State {
        self.0
    }
}

fn take_or_map() -> Option<*mut State> {
    for place in &POOL {
        let state = place.swap(null_mut(), Ordering::AcqRel);
        if !state.is_null() {
            return Some(state);
        }
    }
    sys::map_anonymous(size_of::<State>()).ok().map(|at| at.cast())
}

/// Puts a thread's state back. What the thread still does afterwards takes it out again.
extern "C" fn give_back(state: *mut c_void) {
    let state = state.cast::<State>();
    arch::set_thread_state(null_mut());
    // SAFETY: the state of the thread that ends; it is not in use: no hook is below us on the stack.
    let inner = unsafe { (*state).inner.replace(null_mut()) };
    for state in [state, inner] {
        if state.is_null() {
            continue;
        }
        // The next thread has another root and another stack, so nothing of this could serve it.
        // SAFETY: as above; `inner` is in use only while `state` is.
        unsafe {
            (*state).root = 0;
            (*state).nodes.forget();
            (*state).infos.forget();
            (*state).bounds = unwind::Stack::NEW;
            (*state).last.clear();
        }
        let is_kept = POOL.iter().any(|place| {
            place.compare_exchange(null_mut(), state, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        });
        if !is_kept {
            // SAFETY: nothing refers to it any more.
            unsafe {
                (*state).nodes.release();
                (*state).infos.release();
                sys::unmap(state.cast(), size_of::<State>());
            }
        }
    }
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
    if unsafe { libc::pthread_key_create(&mut key, Some(give_back)) } == 0 {
        END_OF_THREAD.0.store(key, Ordering::Release);
    }
}
