//! Runs programs, plain or under libmtr.so.

use super::{Folder, Log, Trace};
use std::ffi::{OsStr, OsString};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::Once;

/// libmtr.so of this build.
pub(crate) fn library() -> &'static str {
    let Some(path) = option_env!("MTR_LIBRARY") else {
        panic!("MTR_LIBRARY was not set when this test was compiled: analyzer/build.rs does that")
    };
    assert!(
        !path.contains([' ', ':']),
        "{path}: the loader splits LD_PRELOAD at blanks and colons; build elsewhere"
    );
    assert!(Path::new(path).is_file(), "{path}: there is no library");
    path
}

/// A command that inherits nothing which would trace it or change its heap.
pub(crate) fn clean_command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if ["MTR_", "MALLOC_", "LD_", "GLIBC_", "DEBUGINFOD_"].iter().any(|p| text.starts_with(p)) {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null());
    HEEDED.call_once(heed_signals);
    command
}

static HEEDED: Once = Once::new();

/// Lets programs get the signals that this process ignores because it runs in the background: those that
/// are caught have their default action again behind exec.
fn heed_signals() {
    extern "C" fn go_on(_: libc::c_int) {}
    let go_on = go_on as extern "C" fn(_) as libc::sighandler_t;
    for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT] {
        // SAFETY: the handler does nothing.
        unsafe {
            if libc::signal(signal, go_on) != libc::SIG_IGN {
                libc::signal(signal, libc::SIG_DFL);
            }
        }
    }
}

/// Runs `program` without the library.
pub(crate) fn run_plain(program: &Path, arguments: &[&str]) -> Output {
    let folder = program.parent().unwrap();
    clean_command(program).args(arguments).current_dir(folder).output().expect("the program")
}

/// `mtr-run` with its own arguments, to be run in `folder`.
pub(crate) fn mtr_run(folder: &Path) -> Command {
    let mut command = clean_command(env!("CARGO_BIN_EXE_mtr-run"));
    command.current_dir(folder);
    command
}

/// A program about to be run under libmtr.so.
pub(crate) struct Traced {
    command: Command,
    log: PathBuf,
}

impl Traced {
    /// `program` with its log in `folder/trace.log`; it runs in `folder`.
    pub(crate) fn new(folder: &Folder, program: impl AsRef<OsStr>) -> Self {
        Self::with_log(folder.join("trace.log"), program).current_dir(folder.path())
    }

    /// `program` with its log in `log`.
    pub(crate) fn with_log(log: PathBuf, program: impl AsRef<OsStr>) -> Self {
        let mut command = clean_command(program);
        command.env("LD_PRELOAD", library()).env("MALLOC_TRACE", &log);
        Traced { command, log }
    }

    /// `program` with a compact trace in `folder/trace.mtr`; it runs in `folder`.
    pub(crate) fn compact(folder: &Folder, program: impl AsRef<OsStr>) -> Self {
        let trace = folder.join("trace.mtr");
        let mut command = clean_command(program);
        command.env("LD_PRELOAD", library()).env("MTR_OUTPUT", &trace);
        command.env("MTR_TRACE_FORMAT", "compact").current_dir(folder.path());
        Traced { command, log: trace }
    }

    pub(crate) fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.command.arg(argument);
        self
    }

    pub(crate) fn args(mut self, arguments: &[&str]) -> Self {
        self.command.args(arguments);
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    pub(crate) fn current_dir(mut self, folder: &Path) -> Self {
        self.command.current_dir(folder);
        self
    }

    /// Runs it as a user without special rights.
    pub(crate) fn by_ordinary_user(mut self) -> Self {
        super::by_ordinary_user(&mut self.command);
        self
    }

    /// No file may be longer than so many bytes.
    pub(crate) fn below_file_size(mut self, bytes: u64) -> Self {
        use std::os::unix::process::CommandExt;
        let limit = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
        let lower = move || {
            // SAFETY: async-signal-safe; `limit` is a copy of the closure's own.
            match unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &limit) } {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        };
        // SAFETY: `lower` allocates nothing and takes no lock.
        unsafe { self.command.pre_exec(lower) };
        self
    }

    /// It cannot create a file of this mode (EACCES): a filter of system calls sees to that.
    pub(crate) fn unable_to_create(mut self, mode: u32) -> Self {
        use libc::{BPF_ABS, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W};
        use std::os::unix::process::CommandExt;
        let at = |code: u32, jf, k| libc::sock_filter { code: code as u16, jt: 0, jf, k };
        // In seccomp_data: the number at 0, the fourth argument at 40.
        let mut filter = [
            at(BPF_LD | BPF_W | BPF_ABS, 0, 0),
            at(BPF_JMP | BPF_JEQ | BPF_K, 3, libc::SYS_openat as u32),
            at(BPF_LD | BPF_W | BPF_ABS, 0, 40),
            at(BPF_JMP | BPF_JEQ | BPF_K, 1, mode),
            at(BPF_RET | BPF_K, 0, libc::SECCOMP_RET_ERRNO | libc::EACCES as u32),
            at(BPF_RET | BPF_K, 0, libc::SECCOMP_RET_ALLOW),
        ];
        let install = move || {
            let program =
                libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
            // SAFETY: async-signal-safe; the filter is the closure's own.
            let done = unsafe {
                libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
                    && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program) == 0
            };
            if done { Ok(()) } else { Err(std::io::Error::last_os_error()) }
        };
        // SAFETY: `install` allocates nothing and takes no lock.
        unsafe { self.command.pre_exec(install) };
        self
    }

    /// Also preloads `library`, behind libmtr.so.
    pub(crate) fn preload_after(self, other: &Path) -> Self {
        let both = format!("{}:{}", library(), other.display());
        self.env("LD_PRELOAD", both)
    }

    /// Runs it to its end.
    pub(crate) fn run(mut self) -> Run {
        let output = self.command.output().unwrap_or_else(|e| panic!("{:?}: {e}", self.command));
        Run { what: format!("{:?}", self.command), output, path: self.log }
    }

    /// Starts it; its output is thrown away.
    pub(crate) fn spawn(mut self) -> (Child, PathBuf) {
        self.command.stdout(Stdio::null());
        let child = self.command.spawn().unwrap_or_else(|e| panic!("{:?}: {e}", self.command));
        (child, self.log)
    }
}

impl Traced {
    /// Starts it with a pipe for its stdin and one for its stdout.
    pub(crate) fn spawn_with_pipes(mut self) -> (Child, PathBuf) {
        self.command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let child = self.command.spawn().unwrap_or_else(|e| panic!("{:?}: {e}", self.command));
        (child, self.log)
    }
}

/// A program that has run under libmtr.so.
pub(crate) struct Run {
    what: String,
    pub(crate) output: Output,
    /// Where its log should be.
    pub(crate) path: PathBuf,
}

impl Run {
    /// Fails the test unless the program exited with 0.
    #[track_caller]
    pub(crate) fn succeeded(self) -> Self {
        assert!(self.output.status.success(), "{}", self.description());
        self
    }

    pub(crate) fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.output.stdout).into_owned()
    }

    /// Its log, read by the tests' own reader.
    #[track_caller]
    pub(crate) fn log(&self) -> Log {
        Log::read(&self.path).unwrap_or_else(|e| panic!("{e}\n{}", self.description()))
    }

    /// Its compact trace, read by the tests' own decoder.
    #[track_caller]
    pub(crate) fn trace(&self) -> Trace {
        Trace::read(&self.path).unwrap_or_else(|e| panic!("{e}\n{}", self.description()))
    }

    /// What was run and what became of it.
    pub(crate) fn description(&self) -> String {
        format!(
            "{}\n{} (signal {:?})\nstdout: {}\nstderr: {}",
            self.what,
            self.output.status,
            self.output.status.signal(),
            String::from_utf8_lossy(&self.output.stdout),
            String::from_utf8_lossy(&self.output.stderr)
        )
    }
}

impl Run {
    /// A run that was started otherwise and left its log at `path`.
    pub(crate) fn of_log(path: PathBuf) -> Self {
        let status = ExitStatus::from_raw(0);
        let output = Output { status, stdout: Vec::new(), stderr: Vec::new() };
        Run { what: format!("log {}", path.display()), output, path }
    }
}
