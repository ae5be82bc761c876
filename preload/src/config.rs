//! What the environment asks for, read once: the program may change its environment later.

use core::ffi::CStr;

use crate::environment::{self, variable};
use crate::global::{Global, Path, Scratch, Text};
use crate::log::process::Process;
use crate::log::session;
use crate::sys;

/// Settings, with the environment variable that sets each. All hold for the fork's children too.
pub(crate) struct Config {
    /// `MTR_OUTPUT`, else `MALLOC_TRACE`, else `mtr.%e.%p.mtrace` (`.mtr` for a
    /// compact trace): where the log goes, with `%`
    /// still in it (log/path.rs); absolute.
    pub(crate) output: Path,
    /// `MTR_TRACE_FORMAT=mtrace` or `compact`: lines or words. Default: `mtrace`.
    pub(crate) is_compact: bool,
    /// `MTR_ADDRESSES=relative`: addresses as glibc >= 2.35 writes them. Default: absolute.
    pub(crate) relative_addresses: bool,
    /// `MTR_CALLER=user`: a line of the log names the first frame outside libc, libstdc++ and the
    /// like. Default: the caller.
    pub(crate) names_user: bool,
    /// `MTR_STACKS=caller`: a compact trace has the caller of an allocation only. Default: `full`, the
    /// whole call stack.
    pub(crate) caller_only: bool,
    /// `MTR_START=process` or `mtrace`. Default: `mtrace` for a program that calls mtrace(), else
    /// `process`.
    pub(crate) start: Start,
    /// `MTR_TRACE_CHILDREN=no`: children are not traced. Default: yes.
    pub(crate) trace_children: bool,
    /// This process was started by one that is traced, whose children are not to be.
    pub(crate) is_child: bool,
    /// `MTR_MAX_TRACE_SIZE`: bytes that a log may have. Default: no limit.
    pub(crate) max_trace_size: u64,
    /// `MTR_KEEP_FREE`: bytes of the disk that are left free; 0 to fill it. Default: a little
    /// (log/limits.rs).
    pub(crate) keep_free: Option<u64>,
    /// `MTR_RUN_PID`: the mtr-run whose direct child this may be; 0 for none.
    pub(crate) run_pid: i32,
    /// This is not the first program that this mtr-run has started ([`mark_run`]).
    pub(crate) is_later_image: bool,
    /// `MTR_SESSION`: the run that this process belongs to (log/session.rs).
    pub(crate) session: u64,
    /// The variable was not set: the run begins with this process.
    pub(crate) begins_session: bool,
    /// argv[0].
    pub(crate) program_name: Path,
    /// The current folder at the start.
    pub(crate) directory: Path,
}

/// What switches recording on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// Not said: the program's imports decide.
    ByProgram,
    /// The first allocation.
    Process,
    /// The program's call of mtrace().
    Mtrace,
}

static CONFIG: Global<Config> = Global::new(Config {
    output: Path::EMPTY,
    is_compact: false,
    relative_addresses: false,
    names_user: false,
    caller_only: false,
    start: Start::ByProgram,
    trace_children: true,
    is_child: false,
    max_trace_size: u64::MAX,
    keep_free: None,
    run_pid: 0,
    is_later_image: false,
    session: 0,
    begins_session: false,
    program_name: Path::EMPTY,
    directory: Path::EMPTY,
});

/// The settings; defaults before [`read`].
pub(crate) fn get() -> &'static Config {
    // SAFETY: written by the starting thread only, before anything else runs.
    unsafe { CONFIG.get() }
}

/// What [`mark_children`] puts in place of `MTR_TRACE_CHILDREN=no`.
static MARK: Global<Text<80>> = Global::new(Text::EMPTY);
/// What [`mark_run`] puts in place of `MTR_RUN_PID=PID`.
static RUN_MARK: Global<Text<80>> = Global::new(Text::EMPTY);

/// What [`name_session`] adds.
static SESSION_MARK: Global<Text<32>> = Global::new(Text::EMPTY);

const TRACE_CHILDREN: &[u8] = b"MTR_TRACE_CHILDREN";
const RUN_PID: &[u8] = b"MTR_RUN_PID";
const SESSION: &[u8] = b"MTR_SESSION";

/// Names this process in the environment as the one that is traced, so that its children by exec know
/// that they are not: `MTR_TRACE_CHILDREN=no` becomes `MTR_TRACE_CHILDREN=no:PID:TICKS`. The variable
/// is ours.
///
/// # Safety
/// The caller is the thread that starts the log.
pub(crate) unsafe fn mark_children(this: Process) {
    // SAFETY: the caller's promise.
    let mark = unsafe { MARK.get_mut() };
    mark.clear();
    mark.push(TRACE_CHILDREN);
    mark.push(b"=no:");
    mark.push_decimal(this.pid as u64);
    mark.push(b":");
    mark.push_decimal(this.ticks);
    // SAFETY: the caller's promise.
    unsafe { environment::replace(TRACE_CHILDREN, mark.as_c_str()) };
}

/// Tells the programs that this one starts or becomes that they are not the first of their mtr-run:
/// `MTR_RUN_PID=PID` becomes `MTR_RUN_PID=PID:later`. The variable is ours.
///
/// # Safety
/// The caller is the thread that starts the log.
unsafe fn mark_run(run_pid: i32) {
    // SAFETY: the caller's promise.
    let mark = unsafe { RUN_MARK.get_mut() };
    mark.clear();
    mark.push(RUN_PID);
    mark.push(b"=");
    mark.push_decimal(run_pid as u64);
    mark.push(b":later");
    // SAFETY: the caller's promise.
    unsafe { environment::replace(RUN_PID, mark.as_c_str()) };
}

/// Names the run in the environment, if it begins with this process: all programs that it starts, and
/// those that they start, belong to it. It is the one variable that is added to a program's
/// environment, and only to that of the first program of a run.
///
/// # Safety
/// The caller is a constructor of this library: libc has been initialized.
pub(crate) unsafe fn name_session() {
    if !get().begins_session {
        return;
    }
    // SAFETY: a constructor runs once, and nobody else touches it.
    let mark = unsafe { SESSION_MARK.get_mut() };
    mark.push(SESSION);
    mark.push(b"=");
    mark.push_hex(get().session, 16);
    // SAFETY: the caller's promise.
    unsafe {
        if !environment::replace(SESSION, mark.as_c_str()) {
            environment::add(mark.as_c_str());
        }
    }
}

/// Whether a process that was marked is another one than this.
fn is_other_process(mark: &[u8]) -> bool {
    let mut values = mark.split(|byte| *byte == b':').map(parse);
    let this = Process::this();
    values.next() != Some(Some(this.pid as u64)) || values.next() != Some(Some(this.ticks))
}

/// Reads the settings. An error names what is wrong with which variable.
///
/// # Safety
/// The caller is the thread that starts the log.
pub(crate) unsafe fn read() -> Result<(), &'static CStr> {
    // SAFETY: the caller's promise.
    let config = unsafe { CONFIG.get_mut() };
    if let Some(mut buffer) = Scratch::<{ libc::PATH_MAX as usize + 1 }>::new() {
        if let Ok(folder) = sys::getcwd(buffer.space()) {
            config.directory.push(folder);
        }
        if let Ok(arguments) = sys::read_file(c"/proc/self/cmdline", buffer.space()) {
            config.program_name.push(arguments.split(|byte| *byte == 0).next().unwrap_or(&[]));
        }
    }
    let set = |name: &[u8]| variable(name).filter(|value| !value.is_empty());
    if let Some(run) = set(RUN_PID) {
        let mut values = run.split(|byte| *byte == b':');
        config.run_pid = values.next().and_then(parse).unwrap_or(0) as i32;
        config.is_later_image = values.next().is_some();
        // SAFETY: the caller's promise.
        unsafe { mark_run(config.run_pid) };
    }
    config.is_compact = match set(b"MTR_TRACE_FORMAT") {
        None | Some(b"mtrace") => false,
        Some(b"compact") => true,
        Some(_) => return Err(c"MTR_TRACE_FORMAT must be 'mtrace' or 'compact'"),
    };
    let template = set(b"MTR_OUTPUT").or_else(|| set(b"MALLOC_TRACE"));
    let by_format: &[u8] = if config.is_compact { b"mtr.%e.%p.mtr" } else { b"mtr.%e.%p.mtrace" };
    let template = template.unwrap_or(by_format);
    if template.first() != Some(&b'/') {
        // A percent sign of the folder's own must not be taken for a placeholder.
        for byte in config.directory.as_bytes() {
            config.output.push(if *byte == b'%' { b"%%" } else { core::slice::from_ref(byte) });
        }
        config.output.push(b"/");
    }
    config.output.push(template);
    if config.output.is_cut() {
        return Err(c"the path of the log is longer than 4095 bytes");
    }
    config.relative_addresses = match set(b"MTR_ADDRESSES") {
        None | Some(b"absolute") => false,
        Some(b"relative") => true,
        Some(_) => return Err(c"MTR_ADDRESSES must be 'absolute' or 'relative'"),
    };
    config.caller_only = match set(b"MTR_STACKS") {
        None | Some(b"full") => false,
        Some(b"caller") => true,
        Some(_) => return Err(c"MTR_STACKS must be 'full' or 'caller'"),
    };
    config.names_user = match set(b"MTR_CALLER") {
        None | Some(b"direct") => false,
        Some(b"user") => true,
        Some(_) => return Err(c"MTR_CALLER must be 'direct' or 'user'"),
    };
    config.start = match set(b"MTR_START") {
        None => Start::ByProgram,
        Some(b"process") => Start::Process,
        Some(b"mtrace") => Start::Mtrace,
        Some(_) => return Err(c"MTR_START must be 'process' or 'mtrace'"),
    };
    config.trace_children = match set(TRACE_CHILDREN) {
        None | Some(b"yes") => true,
        Some(b"no") => false,
        Some([b'n', b'o', b':', mark @ ..]) => {
            config.is_child = is_other_process(mark);
            false
        }
        Some(_) => return Err(c"MTR_TRACE_CHILDREN must be 'yes' or 'no'"),
    };
    config.max_trace_size = match set(b"MTR_MAX_TRACE_SIZE").map(parse_size) {
        None => u64::MAX,
        Some(Some(size)) => size,
        Some(None) => return Err(c"MTR_MAX_TRACE_SIZE must be a number, or one with K, M or G"),
    };
    config.keep_free = match set(b"MTR_KEEP_FREE").map(parse_size) {
        None => None,
        Some(Some(size)) => Some(size),
        Some(None) => return Err(c"MTR_KEEP_FREE must be a number, or one with K, M or G"),
    };
    let given = set(SESSION).and_then(session::parse);
    config.begins_session = given.is_none();
    config.session = given.unwrap_or_else(session::new);
    Ok(())
}

/// A decimal number.
pub(crate) fn parse(digits: &[u8]) -> Option<u64> {
    core::str::from_utf8(digits).ok()?.parse().ok()
}

/// A decimal number, times 1024 for each step of a K, M or G behind it.
fn parse_size(text: &[u8]) -> Option<u64> {
    let (digits, shift) = match text {
        [digits @ .., b'K' | b'k'] => (digits, 10),
        [digits @ .., b'M' | b'm'] => (digits, 20),
        [digits @ .., b'G' | b'g'] => (digits, 30),
        digits => (digits, 0),
    };
    parse(digits)?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_may_have_a_letter_behind_it() {
        let sizes = [&b"0"[..], b"512", b"3K", b"2m", b"1G"].map(parse_size);
        assert_eq!(sizes, [0, 512, 3 << 10, 2 << 20, 1 << 30].map(Some));
        for bad in [&b""[..], b"K", b"-1", b"1T", b"1 K", b"99999999999G"] {
            assert_eq!(parse_size(bad), None);
        }
    }
}
