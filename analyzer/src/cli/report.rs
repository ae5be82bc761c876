//! The options of a report, and reporting a list of files.

use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum, value_parser};

use crate::analyze::analyze;
use crate::error::Error;
use crate::output::text;
use crate::profile::Profile;
use crate::profile::merge::merge;
use crate::read::sniff::{Kind, sniff};
use crate::read::tail;

/// Options that `mtr-report` and `mtr-run` have in common.
#[derive(Debug, Clone, Args)]
pub struct ReportOptions {
    /// Show at most N allocation sites
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = number::<0>, env = "MTR_TOP")]
    #[arg(allow_negative_numbers = true)]
    pub top: usize,
    /// Order of the allocation sites, largest first
    #[arg(long, value_enum, default_value_t = SortBy::Live, env = "MTR_SORT")]
    pub sort: SortBy,
    /// List allocation sites, or each call stack that leads to one
    #[arg(long, value_enum, default_value_t = Group::Site, env = "MTR_GROUP_BY")]
    pub group_by: Group,
    /// Show at most N frames of a call stack, those of runtimes (libc, STL ...) not counted
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = number::<1>)]
    #[arg(allow_negative_numbers = true, env = "MTR_REPORT_DEPTH")]
    pub depth: usize,
    /// Columns of a line, in which the names of functions are shortened
    /// [default: those of the terminal; elsewhere names are whole]
    #[arg(long, value_name = "N", value_parser = value_parser!(u16).range(40..), env = "MTR_WIDTH")]
    #[arg(allow_negative_numbers = true)]
    pub width: Option<u16>,
    /// List what is suppressed, too: blocks that runtimes (libc, libstdc++, Rust's std) keep until exit
    /// by design
    #[arg(long, env = "MTR_SHOW_SUPPRESSED")]
    pub show_suppressed: bool,
    /// Exit with N when there are faults, or blocks in use at exit that are not suppressed; 0 does not
    #[arg(long, value_name = "N", env = "MTR_ERROR_EXITCODE", allow_negative_numbers = true)]
    pub error_exitcode: Option<u8>,
}

/// Order of the allocation sites.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SortBy {
    /// Bytes still allocated at the end
    Live,
    /// Bytes allocated at the peak
    Peak,
    /// Bytes of all allocations
    Bytes,
    /// Number of allocations
    Calls,
}

/// What is listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Group {
    /// Allocation sites
    Site,
    /// Call stacks
    Stack,
}

impl ReportOptions {
    /// The exit status for findings; `None` where they do not matter.
    pub fn status_of_findings(&self) -> Option<u8> {
        self.error_exitcode.filter(|status| *status != 0)
    }

    /// The options of the text output that goes to `out`.
    pub fn text(&self, out: impl AsFd) -> text::Options {
        let sort = match self.sort {
            SortBy::Live => text::Sort::Live,
            SortBy::Peak => text::Sort::Peak,
            SortBy::Bytes => text::Sort::Bytes,
            SortBy::Calls => text::Sort::Calls,
        };
        let group_by = match self.group_by {
            Group::Site => text::GroupBy::Site,
            Group::Stack => text::GroupBy::Stack,
        };
        let folder = std::env::current_dir().ok();
        text::Options {
            top: self.top,
            sort,
            group_by,
            depth: self.depth,
            shows_suppressed: self.show_suppressed,
            width: self.width.map(usize::from).or_else(|| width_of(out)),
            folder,
        }
    }
}

/// A number that is not below `LEAST`. One that is too large to count to is as good as none.
fn number<const LEAST: usize>(text: &str) -> Result<usize, String> {
    let is_number = !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit());
    let number = is_number.then(|| text.parse().unwrap_or(usize::MAX));
    number.filter(|number| *number >= LEAST).ok_or_else(|| match LEAST {
        0 => "expected a whole number".into(),
        least => format!("expected a whole number, {least} at least"),
    })
}

/// Columns of a terminal; `None` for anything else.
fn width_of(out: impl AsFd) -> Option<usize> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    let descriptor = out.as_fd().as_raw_fd();
    // SAFETY: the descriptor is borrowed, so it is open; this call writes a winsize to where it is
    // told, which is one that lives as long as the call.
    let done = unsafe { libc::ioctl(descriptor, libc::TIOCGWINSZ, &raw mut size) };
    // A terminal that does not know its size says 0; on one that is very narrow, lines overflow.
    (done == 0 && size.ws_col > 0).then(|| usize::from(size.ws_col).max(40))
}

/// The files of a command line, told apart by their content.
#[derive(Debug, Default)]
pub struct Files {
    /// ELF files.
    pub programs: Vec<PathBuf>,
    /// Traces, and what kind each is.
    pub traces: Vec<(PathBuf, Kind)>,
    /// Files that are neither, or cannot be read.
    pub failed: Vec<Error>,
}

impl Files {
    /// Looks at the first bytes of every file. A tail stands for its log, `-` for standard input.
    pub fn sort(paths: &[PathBuf]) -> Files {
        let mut files = Files::default();
        for path in paths {
            let path = &if path == Path::new("-") { standard_input() } else { path.clone() };
            match sniff(path) {
                Ok(Kind::Program) => files.programs.push(path.clone()),
                Ok(Kind::Tail) => match log_of(path) {
                    // The log decides what it is, unless all of it is in the tail still.
                    Some(log) => {
                        let kind = sniff(&log).unwrap_or(Kind::OurLog);
                        files.traces.push((log, kind));
                    }
                    None => files.failed.push(Error::NotATrace {
                        path: path.clone(),
                        found: "the tail of a log that is not beside it".into(),
                    }),
                },
                Ok(kind) => files.traces.push((path.clone(), kind)),
                Err(error) => files.failed.push(error),
            }
        }
        files.traces.dedup();
        files
    }

    /// Takes what looks like nothing known for a trace, as glibc's script does.
    pub fn take_anything(&mut self) {
        for error in std::mem::take(&mut self.failed) {
            match error {
                Error::NotATrace { path, .. } => self.traces.push((path, Kind::GlibcLog)),
                error => self.failed.push(error),
            }
        }
    }
}

/// What standard input is read by: the name of its file, beside which a tail may lie, else as a pipe.
fn standard_input() -> PathBuf {
    let pipe = PathBuf::from("/dev/stdin");
    let identity = |path: &Path| fs::metadata(path).map(|found| (found.dev(), found.ino())).ok();
    let file = fs::canonicalize(&pipe).ok().filter(|file| file.is_file());
    file.filter(|file| identity(file) == identity(&pipe)).unwrap_or(pipe)
}

/// The log whose tail this is.
fn log_of(tail: &Path) -> Option<PathBuf> {
    let log = tail.with_extension("");
    (tail::tail_path(&log) == tail && log.exists()).then_some(log)
}

/// What came of reporting.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Found {
    /// Faults, or blocks in use at exit that are not suppressed.
    pub findings: bool,
    /// Something is missing from a trace.
    pub incomplete: bool,
}

impl Found {
    /// What one profile says.
    pub fn of(profile: &Profile) -> Found {
        Found {
            findings: profile.totals.live_blocks > profile.suppressed.blocks
                || !profile.faults.is_empty(),
            incomplete: profile.incomplete,
        }
    }
}

/// Reports every trace, one after another. The error of a trace is handed to `failed`; that of
/// `out` ends it.
pub fn report_all(
    files: &Files,
    options: &text::Options,
    out: &mut impl Write,
    mut failed: impl FnMut(&Error),
) -> io::Result<Found> {
    let mut found = Found::default();
    for (index, (trace, kind)) in files.traces.iter().enumerate() {
        if index > 0 {
            writeln!(out)?;
        }
        match analyze(trace, *kind, &files.programs) {
            Ok(profile) => {
                text::write(&profile, options, out)?;
                let Found { findings, incomplete } = Found::of(&profile);
                found.findings |= findings;
                found.incomplete |= incomplete;
            }
            Err(error) => failed(&error),
        }
    }
    out.flush()?;
    Ok(found)
}

/// Reports all traces as one: their processes together.
pub fn report_merged(
    files: &Files,
    options: &text::Options,
    out: &mut impl Write,
    mut failed: impl FnMut(&Error),
) -> io::Result<Found> {
    let mut profiles = Vec::new();
    for (trace, kind) in &files.traces {
        match analyze(trace, *kind, &files.programs) {
            Ok(profile) => profiles.push(profile),
            Err(error) => failed(&error),
        }
    }
    let mut found = Found::default();
    if let Some(profile) = merge(profiles) {
        text::write(&profile, options, out)?;
        found = Found::of(&profile);
    }
    out.flush()?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_whole_and_large_enough() {
        assert_eq!((number::<0>("0"), number::<1>("12")), (Ok(0), Ok(12)));
        assert_eq!(number::<1>("99999999999999999999999"), Ok(usize::MAX));
        for text in ["", "-1", "+1", "x", "1.5", "1 "] {
            assert_eq!(number::<0>(text), Err("expected a whole number".into()), "{text}");
        }
        assert_eq!(number::<1>("0"), Err("expected a whole number, 1 at least".into()));
    }
}
