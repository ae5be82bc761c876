//! What can keep a trace from being reported. A damaged trace is no error: what is wrong with it
//! is part of the profile.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Why a file could not be read or written.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The file could not be opened.
    Open {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Reading stopped in the middle.
    Read {
        /// Which file.
        path: PathBuf,
        /// Byte position of the first byte that could not be read.
        position: u64,
        /// What the system said.
        source: io::Error,
    },
    /// Writing failed.
    Write {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is something else.
    NotATrace {
        /// Which file.
        path: PathBuf,
        /// What it looks like.
        found: String,
    },
    /// The trace was written by a newer libmtr.so.
    NewerVersion {
        /// Which file.
        path: PathBuf,
        /// Line of a log that states the version; `None` for a compact trace.
        line: Option<u64>,
        /// The version.
        found: u64,
        /// The newest one that this program reads.
        newest: u64,
    },
    /// A tail file is damaged.
    Tail {
        /// Which file.
        path: PathBuf,
        /// What should have stood there.
        expected: &'static str,
        /// What stood there.
        found: String,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Open { path, source } => {
                write!(f, "{}: cannot be opened: {source}", path.display())
            }
            Error::Read { path, position, source } => {
                write!(f, "{}: cannot be read at byte {position}: {source}", path.display())
            }
            Error::Write { path, source } => {
                write!(f, "{}: cannot be written: {source}", path.display())
            }
            Error::NotATrace { path, found } => write!(
                f,
                "{}: expected an mtrace log, a compact trace (.mtr) or a program (ELF), got {found}",
                path.display()
            ),
            Error::NewerVersion { path, line, found, newest } => {
                let (line, what) = match line {
                    Some(line) => (format!(":{line}"), "log"),
                    None => (String::new(), "compact trace"),
                };
                write!(
                    f,
                    "{}{line}: expected a {what} of version {newest} at most, got version {found}; \
                     it needs a newer mtr-report",
                    path.display()
                )
            }
            Error::Tail { path, expected, found } => {
                write!(f, "{}: expected {expected}, got {found}", path.display())
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Open { source, .. }
            | Error::Read { source, .. }
            | Error::Write { source, .. } => Some(source),
            Error::NotATrace { .. } | Error::NewerVersion { .. } | Error::Tail { .. } => None,
        }
    }
}
