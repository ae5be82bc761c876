//! From the first event of a process to its last: start, fork, mtrace() and muntrace(), exit.

use core::ffi::{CStr, c_int, c_void};
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};

use mtr_format::compact::word::{FIRST_LINE, TEXT_BYTES};

use crate::config::{self, Start};
use crate::global::{Path, Scratch};
use crate::hot::{HOT, State, single_threaded};
use crate::log::process::Process;
use crate::log::{self, Cannot, file, ring};
use crate::record::compact::{self, words};
use crate::{modules, real, sites, sys};

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
    if config::get().is_compact { State::Compact } else { State::Text }
}

/// Whether this process has a log, recording or not.
pub(crate) fn has_log() -> bool {
    !HOT.is_new() && PHASE.load(Ordering::Acquire) == RUNNING
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
    if unsafe { libc::getauxval(libc::AT_SECURE) } != 0 {
        return None;
    }
    remember_stderr();
    // SAFETY: PHASE lets one thread through.
    if let Err(message) = unsafe { config::read() } {
        complain(&[message.to_bytes()]);
        return None;
    }
    crate::hooks::configure();
    crate::dlclose::start();
    let config = config::get();
    let is_child = config.run_pid != 0 && config.run_pid != sys::getppid();
    if is_child && !config.trace_children {
        return None;
    }
    if sys::wipe_on_fork((&raw const HOT).cast(), size_of_val(&HOT)).is_err() {
        complain(&[
            b"this kernel cannot tell a child of fork from its parent (it is older than 4.14)",
        ]);
        return None;
    }
    // SAFETY: the first event comes from the loader, a constructor or the one thread of main.
    unsafe { real::resolve_optional() };
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
    if !config::get().trace_children {
        file::abandon();
        return None;
    }
    let mut parent = Scratch::<{ libc::PATH_MAX as usize }>::new()?;
    *parent = *file::path();
    let parent_pid = PID.load(Ordering::Relaxed);
    file::abandon();
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
        let path = log::path().as_bytes();
        match reason {
            Cannot::Create(errno) => complain(&[b"cannot create ", path, b": ", describe(errno)]),
            Cannot::Replace(what) => complain(&[b"cannot write ", path, b": it ", what.to_bytes()]),
        }
        return None;
    }
    if !sites::start() {
        complain(&[b"no memory"]);
        return None;
    }
    compact::start();
    modules::start();
    write_header(this, parent)?;
    if let Some(program) = modules::program() {
        modules::write_line(&program);
        modules::remember(&program);
    }
    if parent.is_some() && WAS_ON.load(Ordering::Relaxed)
        || parent.is_none() && !STARTED_BY_MTRACE.load(Ordering::Relaxed)
    {
        log::write_comment(b"= Start");
    }
    Some(())
}

/// The lines that say what this log is (docs/log-format.md).
fn write_header(this: Process, parent: Option<(i32, &Path)>) -> Option<()> {
    let config = config::get();
    let mut text = Scratch::<32768>::new()?;
    let mut buffer = Scratch::<{ libc::PATH_MAX as usize }>::new()?;
    text.push(if config.is_compact { FIRST_LINE } else { b"# mtr log 1\n" });
    text.push(b"# id ");
    text.push_hex(log::id(), 16);
    if !config.session.as_bytes().is_empty() {
        text.push(b"\n# session ");
        text.push_escaped(config.session.as_bytes());
    }
    text.push(b"\n# pid ");
    text.push_decimal(this.pid as u64);
    let (seconds, nanoseconds) = sys::wall_clock();
    STARTED.store(seconds * NANOSECONDS + nanoseconds, Ordering::Relaxed);
    LAST_RSS.store(0, Ordering::Relaxed);
    text.push(b"\n# started ");
    text.push_decimal(seconds);
    text.push(b".");
    let digits = nanoseconds.max(1).ilog10() + 1;
    (digits..9).for_each(|_| text.push(b"0"));
    text.push_decimal(nanoseconds);
    text.push(b" ");
    text.push_decimal(this.ticks);
    if let Ok(program) = sys::readlink(c"/proc/self/exe", buffer.space()) {
        text.push(b"\n# program ");
        text.push_escaped(program);
    }
    if let Ok(arguments) = sys::read_file(c"/proc/self/cmdline", buffer.space()) {
        text.push(b"\n# arguments");
        let arguments = arguments.strip_suffix(b"\0").unwrap_or(arguments);
        for argument in arguments.split(|byte| *byte == 0) {
            text.push(b" ");
            text.push_escaped(argument);
        }
    }
    text.push(b"\n# directory ");
    match sys::getcwd(buffer.space()) {
        Ok(folder) => text.push_escaped(folder),
        Err(_) => text.push_escaped(config.directory.as_bytes()),
    }
    text.push(b"\n# addresses ");
    text.push(if config.relative_addresses { b"relative" } else { b"absolute" });
    text.push(b"\n# start ");
    let by_mtrace = STARTED_BY_MTRACE.load(Ordering::Relaxed);
    text.push(if by_mtrace { b"mtrace" } else { b"process" });
    if let Some((pid, path)) = parent {
        text.push(b"\n# parent ");
        text.push_decimal(pid as u64);
        text.push(b" ");
        match POSITION_AT_FORK.swap(u64::MAX, Ordering::Relaxed) {
            u64::MAX => text.push(b"-"),
            position => text.push_decimal(position),
        }
        text.push(b" ");
        text.push_escaped(path.as_bytes());
    }
    let earlier = log::earlier().as_bytes();
    if parent.is_none() && !earlier.is_empty() {
        text.push(b"\n# earlier ");
        text.push_escaped(earlier);
    }
    text.push(b"\n");
    // At once in the file too, so that another process that wants this name sees whose it is.
    if config.is_compact {
        let parts = [text.as_bytes()];
        words::text(&parts);
        let len = text.as_bytes().len();
        let mut bytes = Scratch::<40960>::new()?;
        for index in 0..1 + len.div_ceil(TEXT_BYTES) {
            bytes.push(&words::text_word(&parts, len, index).to_le_bytes());
        }
        file::write_at(0, bytes.as_bytes());
    } else {
        let position = ring::reserve(text.as_bytes().len());
        ring::put(position, &[text.as_bytes()]);
        file::write_at(position, text.as_bytes());
    }
    Some(())
}

const NANOSECONDS: u64 = 1_000_000_000;

/// When the log began, in nanoseconds since 1970.
static STARTED: AtomicU64 = AtomicU64::new(0);

/// When memory was last looked at, in nanoseconds since [`STARTED`].
static LAST_RSS: AtomicU64 = AtomicU64::new(0);
/// Reading it costs some microseconds.
const RSS_EVERY: u64 = NANOSECONDS / 100;

/// Notes the time, and now and then the memory, in a compact trace. Called once for each block.
#[cold]
pub(crate) fn sample() {
    let (seconds, nanoseconds) = sys::wall_clock();
    let now = seconds * NANOSECONDS + nanoseconds;
    let since = now.saturating_sub(STARTED.load(Ordering::Relaxed));
    words::time(since);
    if since.saturating_sub(LAST_RSS.load(Ordering::Relaxed)) >= RSS_EVERY {
        LAST_RSS.store(since, Ordering::Relaxed);
        words::resident_memory(sys::resident_memory().unwrap_or(0));
    }
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

/// The last thing that exit() does: the log becomes whole without its tail. Threads that are still
/// running go on recording, straight to the file.
extern "C" fn finish(_: *mut c_void) {
    // A vfork child that calls exit() would end its parent's log.
    if !has_log() || PID.load(Ordering::Relaxed) != sys::getpid() {
        return;
    }
    let lost_before = file::lost();
    if lost_before.0 > 0 {
        let Some(mut line) = Scratch::<64>::new() else { return };
        line.push(b"# lost ");
        line.push_decimal(lost_before.0);
        line.push(b" ");
        line.push_decimal(lost_before.1 as u64);
        log::write_comment(line.as_bytes());
    }
    if config::get().is_compact {
        sample();
    }
    #[cfg(feature = "verify-stacks")]
    crate::unwind::verify::report();
    log::write_comment(b"# exit");
    if ring::finish() && file::lost() == lost_before {
        log::remove_tail(file::path());
    }
}

extern "C" fn before_fork() {
    if HOT.is_on() {
        POSITION_AT_FORK.store(HOT.cursor.0.load(Ordering::Acquire), Ordering::Relaxed);
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
}

#[cfg(not(test))]
#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = constructor;

/// Device and inode of what was stderr at the start: a fork's child may find that descriptor closed,
/// or a file of the program's there.
static STDERR: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];

fn stderr_now() -> [u64; 2] {
    sys::fstat(2).map_or([0; 2], |stat| [stat.st_dev, stat.st_ino])
}

fn remember_stderr() {
    for (place, value) in STDERR.iter().zip(stderr_now()) {
        place.store(value, Ordering::Relaxed);
    }
}

/// One line on the program's stderr, for what would otherwise go unnoticed.
fn complain(parts: &[&[u8]]) {
    if stderr_now() != STDERR.each_ref().map(|part| part.load(Ordering::Relaxed)) {
        return;
    }
    let Some(mut line) = Scratch::<8192>::new() else { return };
    line.push(b"mtr: ");
    parts.iter().for_each(|part| line.push(part));
    line.push(b"; the program runs untraced\n");
    let _ = sys::write(2, line.as_bytes());
}

/// strerror(3) for what can happen here; libc's own may allocate.
fn describe(errno: i32) -> &'static [u8] {
    let text: &CStr = match errno {
        libc::EACCES | libc::EPERM => c"Permission denied",
        libc::ENOENT => c"No such file or directory",
        libc::ENOTDIR => c"Not a directory",
        libc::EISDIR => c"Is a directory",
        libc::ENOSPC => c"No space left on device",
        libc::EDQUOT => c"Disk quota exceeded",
        libc::EROFS => c"Read-only file system",
        libc::EMFILE | libc::ENFILE => c"Too many open files",
        libc::ENAMETOOLONG => c"File name too long",
        libc::ELOOP => c"Too many levels of symbolic links",
        libc::ENOMEM => c"Cannot allocate memory",
        libc::EFBIG => c"File too large",
        _ => c"Input/output error",
    };
    text.to_bytes()
}
