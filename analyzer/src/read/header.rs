//! What the `#` lines of a log say of its process.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use mtr_format::text::escape::unescape;
use mtr_format::text::meta::Meta;

/// The `#` lines of a log; all absent in one of glibc's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Header {
    /// Version, for a log or trace of libmtr.so.
    pub version: Option<u64>,
    /// ID of the log.
    pub id: Option<u64>,
    /// The run that the process belongs to.
    pub session: Option<u64>,
    /// Process ID.
    pub pid: Option<u32>,
    /// Wall-clock seconds at which the log began.
    pub started: Option<u64>,
    /// Start time of the process in ticks since boot.
    pub ticks: Option<u64>,
    /// /proc/self/exe.
    pub program: Option<PathBuf>,
    /// Command line.
    pub arguments: Vec<Vec<u8>>,
    /// Current folder at the start.
    pub directory: Option<PathBuf>,
    /// Recording waits for the program's own mtrace() (`true`) or begins with the first
    /// allocation (`false`).
    pub start_by_mtrace: Option<bool>,
    /// Of each call stack only the caller was recorded.
    pub caller_only: bool,
    /// The module that takes calls of malloc before they can be recorded.
    pub preceded: Option<PathBuf>,
    /// new and delete are those of a C++ runtime or an allocator, and nobody else's.
    pub standard_operators: bool,
    /// Process ID and log of the parent, after fork.
    pub parent: Option<(u32, PathBuf)>,
    /// Log of the image before this one, after exec.
    pub earlier: Option<PathBuf>,
}

impl Header {
    /// Takes in one line. The first word on a matter counts.
    pub(super) fn add(&mut self, meta: Meta<'_>) {
        fn first<T>(place: &mut Option<T>, value: impl FnOnce() -> Option<T>) {
            if place.is_none() {
                *place = value();
            }
        }
        match meta {
            Meta::Version(version) | Meta::TraceVersion(version) => {
                first(&mut self.version, || Some(version));
            }
            Meta::Id(id) => first(&mut self.id, || Some(id)),
            Meta::Session(id) => first(&mut self.session, || Some(id)),
            Meta::Pid(pid) => first(&mut self.pid, || u32::try_from(pid).ok()),
            Meta::Started { seconds, ticks, .. } => {
                first(&mut self.started, || Some(seconds));
                first(&mut self.ticks, || Some(ticks));
            }
            Meta::Program(name) => first(&mut self.program, || Some(path(name))),
            Meta::Directory(name) => first(&mut self.directory, || Some(path(name))),
            Meta::Arguments(words) if self.arguments.is_empty() => {
                self.arguments =
                    words.split(|b| *b == b' ').map(|word| unescape(word).collect()).collect();
            }
            Meta::Preceded(name) => first(&mut self.preceded, || Some(path(name))),
            Meta::CallerOnly => self.caller_only = true,
            Meta::StandardOperators => self.standard_operators = true,
            Meta::StartByMtrace(by) => first(&mut self.start_by_mtrace, || Some(by)),
            Meta::Parent { pid, path: log, .. } => {
                first(&mut self.parent, || Some((u32::try_from(pid).ok()?, path(log))));
            }
            Meta::Earlier(log) => first(&mut self.earlier, || Some(path(log))),
            _ => {}
        }
    }
}

/// The path that an escaped value stands for.
pub(super) fn path(escaped: &[u8]) -> PathBuf {
    PathBuf::from(OsString::from_vec(unescape(escaped).collect()))
}
