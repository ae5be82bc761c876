//! From the first event of a process to its last: start, fork, mtrace() and muntrace(), exit.

use core::ffi::{c_int, c_void};
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};

use crate::complain::{complain, describe};
use crate::config::{self, Start};
use crate::global::{Path, Scratch};
use crate::hot::{HOT, State, single_threaded};
use crate::log::process::Process;
use crate::log::{self, Cannot, file, ring};
use crate::record::compact;
use crate::{modules, operators, sites, sys, untraced};

/// How far this process has come. Not in the page that fork wipes: that is how a child knows that
/// it is one.
///
/// ```text
/// Unborn --> Starting --> Running --(fork)--> Starting --> Running
///                  \--> Refused
/// ```
static PHASE: AtomicU32 = AtomicU32::new(UNBORN);
const UNBORN: u32 = 0;
const STARTING: u32 = 1;
const RUNNING: u32 = 2;
const REFUSED: u32 = 3;

/// What [`HOT`] said before a fork wiped it.
static WAS_ON: AtomicBool = AtomicBool::new(false);
/// PID of the process that [`PHASE`] speaks of.
static PID: AtomicI32 = AtomicI32::new(0);
/// Length of the log when fork was last called.
static POSITION_AT_FORK: AtomicU64 = AtomicU64::new(u64::MAX);

/// What to do with an event. The first one of a process starts its log.
#[inline(always)]
pub(crate) fn state() -> State {
    match HOT.state() {
        State::New => start(),
        state => state,
    }
}

/// The state in which events are recorded.
fn recording() -> State {
    match config::get().is_compact {
        _ if operators::are_recorded() => State::Guarded,
        true => State::Compact,
        false => State::Text,
    }
}

/// Whether this process has a log, recording or not.
pub(crate) fn has_log() -> bool {
    !HOT.is_new() && PHASE.load(Ordering::Acquire) == RUNNING
}

/// Whether this process is traced, or the child of one that is.
pub(crate) fn is_traced() -> bool {
    PHASE.load(Ordering::Acquire) == RUNNING && !sys::silence::is_silent()
}

/// Whether the log is this process's, and not that of the parent whose memory a vfork child is in.
pub(crate) fn is_own_log() -> bool {
    PID.load(Ordering::Relaxed) == sys::getpid()
}

/// Events of other threads that came while the log was being started: they are lost, and counted.
static MISSED: AtomicU64 = AtomicU64::new(0);

/// Starts the log of this process.
#[cold]
#[inline(never)]
fn start() -> State {
    let phase = PHASE.load(Ordering::Acquire);
    let (order, otherwise) = (Ordering::AcqRel, Ordering::Relaxed);
    if phase == STARTING || PHASE.compare_exchange(phase, STARTING, order, otherwise).is_err() {
        MISSED.fetch_add(1, Ordering::Relaxed);
        return HOT.state();
    }
    let on = match phase {
        UNBORN => start_first(),
        RUNNING => start_child(),
        _ => None,
    };
    PHASE.store(if on.is_some() { RUNNING } else { REFUSED }, Ordering::Release);
    let on = on.unwrap_or(false);
    WAS_ON.store(on, Ordering::Relaxed);
    let state = if on { recording() } else { State::Off };
    HOT.set(state);
    let missed = MISSED.swap(0, Ordering::Relaxed);
    if on && missed > 0 {
        file::lose(missed, libc::EBUSY);
    }
    state
}

/// `Some(recording)`, or `None` when there is nothing to do for good.
fn start_first() -> Option<bool> {
    // SAFETY: reads the auxiliary vector.
    let is_secure = unsafe { libc::getauxval(libc::AT_SECURE) } != 0;
    // SAFETY: PHASE lets one thread through.
    let settings = if is_secure { Ok(()) } else { unsafe { config::read() } };
    // Also where nothing is recorded: the hooks have to lead somewhere.
    // SAFETY: the first event comes from the loader, a constructor or the one thread of main.
    unsafe { operators::settle() };
    if is_secure {
        return None;
    }
    if let Err(message) = settings {
        complain(&[message.to_bytes()]);
        return None;
    }
    crate::hooks::configure();
    crate::dlclose::start();
    crate::starts::start();
    let config = config::get();
    let is_child = config.run_pid != 0 && config.run_pid != sys::getppid();
    if (is_child || config.is_child) && !config.trace_children {
        return None;
    }
    if !config.trace_children {
        // SAFETY: PHASE lets one thread through.
        unsafe { config::mark_children(Process::this()) };
    }
    if sys::wipe_on_fork((&raw const HOT).cast(), size_of_val(&HOT)).is_err() {
        complain(&[
            b"this kernel cannot tell a child of fork from its parent (it is older than 4.14)",
        ]);
        return None;
    }
    let _ = sys::prepare_barrier();
    let start = match config.start {
        // SAFETY: called for the first event, long before the program could change its modules.
        Start::ByProgram if unsafe { modules::program_calls_mtrace() } => Start::Mtrace,
        Start::ByProgram => Start::Process,
        asked_for => asked_for,
    };
    STARTED_BY_MTRACE.store(start == Start::Mtrace, Ordering::Relaxed);
    open_log(None)?;
    Some(start == Start::Process)
}

static STARTED_BY_MTRACE: AtomicBool = AtomicBool::new(false);

/// In a child made by fork: a log of its own, in the state of the parent's.
fn start_child() -> Option<bool> {
    if !config::get().trace_children || sys::silence::is_silent() {
        file::abandon();
        return None;
    }
    let mut parent = Scratch::<{ libc::PATH_MAX as usize }>::new()?;
    *parent = *file::path();
    let parent_pid = PID.load(Ordering::Relaxed);
    file::abandon();
    if untraced::is_below_another_root() {
        untraced::count(untraced::OTHER_ROOT);
        return None;
    }
    open_log(Some((parent_pid, &parent)))?;
    Some(WAS_ON.load(Ordering::Relaxed))
}

/// Creates the log and writes its first lines.
fn open_log(parent: Option<(i32, &Path)>) -> Option<()> {
    let this = Process::this();
    PID.store(this.pid, Ordering::Relaxed);
    // SAFETY: PHASE lets one thread through.
    let created = unsafe { log::create(this, parent.map(|(_, path)| path)) };
    if let Err(reason) = created {
        // Its stderr is the program's own.
        if parent.is_some() {
            untraced::count(reason.errno());
            return None;
        }
        let path = log::path().as_bytes();
        match reason {
            Cannot::Create(errno) => complain(&[b"cannot create ", path, b": ", describe(errno)]),
            Cannot::Replace(what) => complain(&[b"cannot write ", path, b": it ", what.to_bytes()]),
        }
        return None;
    }
    if !sites::start() {
        match parent {
            Some(_) => untraced::count(libc::ENOMEM),
            None => complain(&[b"no memory"]),
        }
        return None;
    }
    compact::new_trace();
    modules::start();
    LAST_RSS.store(0, Ordering::Relaxed);
    let by_mtrace = STARTED_BY_MTRACE.load(Ordering::Relaxed);
    let position = POSITION_AT_FORK.swap(u64::MAX, Ordering::Relaxed);
    let position = (position != u64::MAX).then_some(position);
    let had_threads = WAS_THREADED.load(Ordering::Relaxed);
    let parent_of_log = parent.map(|(pid, path)| log::Parent { pid, had_threads, position, path });
    if let Err(errno) = log::write_header(this, by_mtrace, parent_of_log) {
        match parent {
            Some(_) => untraced::count(errno),
            None => {
                complain(&[b"cannot write ", log::path().as_bytes(), b": ", describe(errno)]);
            }
        }
        log::remove();
        return None;
    }
    untraced::start();
    if let Some(program) = modules::program() {
        modules::write_line_of(&program, log::write_comment);
    }
    if parent.is_some() && WAS_ON.load(Ordering::Relaxed)
        || parent.is_none() && !STARTED_BY_MTRACE.load(Ordering::Relaxed)
    {
        log::write_comment(b"= Start");
    }
    Some(())
}

const NANOSECONDS: u64 = 1_000_000_000;

/// When memory was last looked at, in nanoseconds since the log began.
static LAST_RSS: AtomicU64 = AtomicU64::new(0);
/// Reading it costs some microseconds.
const RSS_EVERY: u64 = NANOSECONDS / 100;

/// Nanoseconds since the log began.
pub(crate) fn time() -> u64 {
    let (seconds, nanoseconds) = sys::wall_clock();
    (seconds * NANOSECONDS + nanoseconds).saturating_sub(log::started())
}

/// The memory that the process has, in bytes, if it was not asked for lately.
#[cold]
pub(crate) fn resident_memory_now_and_then() -> Option<u64> {
    let now = time();
    let last = LAST_RSS.load(Ordering::Relaxed);
    if now.saturating_sub(last) < RSS_EVERY {
        return None;
    }
    LAST_RSS.store(now, Ordering::Relaxed);
    sys::resident_memory()
}

/// mtrace() and muntrace(). Where tracing was asked for from the start of the process, the program
/// has no say.
pub(crate) fn switch(on: bool) {
    if HOT.is_new() {
        start();
    }
    if !has_log() || !STARTED_BY_MTRACE.load(Ordering::Relaxed) || HOT.is_on() == on {
        return;
    }
    if on {
        log::write_comment(b"= Start");
        HOT.set(recording());
    } else {
        HOT.set(State::Off);
        log::write_comment(b"= End");
    }
    WAS_ON.store(on, Ordering::Relaxed);
}

/// Writes how many children were not traced, if there are any.
pub(crate) fn state_untraced() {
    let counts = untraced::counted();
    if counts == untraced::Counts::default() {
        return;
    }
    let Some(mut line) = Scratch::<64>::new() else { return };
    line.push(b"# untraced ");
    line.push_decimal(counts.children.into());
    line.push(b" ");
    line.push_decimal(counts.errno as u64);
    line.push(b" ");
    line.push_decimal(counts.programs.into());
    log::write_comment(line.as_bytes());
}

/// To be called before the process ends without exit().
pub(crate) fn before_exit() {
    if has_log() && is_own_log() && !sys::silence::is_silent() {
        state_untraced();
    }
}

/// The last thing that exit() does: the log becomes whole without its tail. Threads that are still
/// running go on recording, straight to the file.
extern "C" fn finish(_: *mut c_void) {
    // A vfork child that calls exit() would end its parent's log.
    let is_silent = sys::silence::is_silent();
    if !has_log() || !is_silent && !is_own_log() {
        return;
    }
    state_untraced();
    #[cfg(feature = "verify-stacks")]
    crate::unwind::verify::report();
    log::write_comment(b"# exit");
    if is_silent {
        return; // the tail has the rest
    }
    let is_whole = if config::get().is_compact { compact::finish() } else { ring::finish() };
    // In the file of a log, its last line says so.
    let is_closed = || !config::get().is_compact || log::closed::state();
    // How it ended is said last: who reads `# exit` may go without the tail.
    if is_whole && is_closed() && file::state_end() {
        log::remove_tail(file::path());
    }
}

extern "C" fn before_fork() {
    if HOT.is_on() {
        let position = match config::get().is_compact {
            true => compact::stamp().unwrap_or(u64::MAX),
            false => HOT.cursor.0.load(Ordering::Acquire),
        };
        POSITION_AT_FORK.store(position, Ordering::Relaxed);
        WAS_THREADED.store(!single_threaded(), Ordering::Relaxed);
    }
}

extern "C" fn after_fork_in_parent() {
    POSITION_AT_FORK.store(u64::MAX, Ordering::Relaxed);
}

/// A child starts its log at its first event, because most children exec before they have one. But
/// a child of a threaded program finds the stacks of its parent's threads and can start threads
/// without an allocation: its log has to start while it is alone.
extern "C" fn after_fork_in_child() {
    log::detach_tail();
    if WAS_THREADED.load(Ordering::Relaxed) && WAS_ON.load(Ordering::Relaxed) {
        state();
    }
}

/// Whether the parent had had threads when fork was last called.
static WAS_THREADED: AtomicBool = AtomicBool::new(false);

type AtFork = Option<extern "C" fn()>;

unsafe extern "C" {
    fn __cxa_atexit(
        function: extern "C" fn(*mut c_void),
        argument: *mut c_void,
        dso: *const c_void,
    ) -> c_int;
    fn __register_atfork(
        before: AtFork,
        parent: AtFork,
        child: AtFork,
        dso: *const c_void,
    ) -> c_int;
}

/// Runs before main and before the constructors of the program. What is registered here, with no
/// module to its name, is run after every destructor: exit() works backwards.
extern "C" fn constructor() {
    // SAFETY: both functions accept NULL for "of no module".
    unsafe {
        compact::prepare();
        __cxa_atexit(finish, core::ptr::null_mut(), core::ptr::null());
        __register_atfork(
            Some(before_fork),
            Some(after_fork_in_parent),
            Some(after_fork_in_child),
            core::ptr::null(),
        );
    }
    // A program that allocates nothing has a log too.
    state();
    if has_log() {
        // SAFETY: this is a constructor of the library.
        unsafe { config::name_session() };
    }
}

#[cfg(not(test))]
#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = constructor;
