//! What mtr-report (or mtr-run) says.

use super::clean_command;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::Path;
use std::process::{ExitStatus, Output};

/// The figures of a report's first lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) in_use_bytes: u64,
    pub(crate) in_use_blocks: u64,
    pub(crate) allocations: u64,
    pub(crate) frees: u64,
    pub(crate) allocated_bytes: u64,
}

/// A report and how its maker ended.
pub(crate) struct Report {
    what: String,
    pub(crate) status: ExitStatus,
    pub(crate) text: String,
    pub(crate) stderr: String,
}

/// Runs mtr-report.
pub(crate) fn mtr_report<I: AsRef<OsStr>>(arguments: impl IntoIterator<Item = I>) -> Report {
    let mut command = clean_command(env!("CARGO_BIN_EXE_mtr-report"));
    command.args(arguments);
    let Output { status, stdout, stderr } = command.output().expect("mtr-report");
    Report {
        what: format!("{command:?}"),
        status,
        text: String::from_utf8_lossy(&stdout).into_owned(),
        stderr: String::from_utf8_lossy(&stderr).into_owned(),
    }
}

impl Report {
    /// The report that mtr-run wrote to its stderr.
    pub(crate) fn of_mtr_run(output: &Output) -> Report {
        Report {
            what: "mtr-run".into(),
            status: output.status,
            text: String::from_utf8_lossy(&output.stderr).into_owned(),
            stderr: String::new(),
        }
    }

    /// Fails the test unless the report was made.
    #[track_caller]
    pub(crate) fn succeeded(self) -> Self {
        assert!(self.status.success(), "{}", self.description());
        self
    }

    pub(crate) fn description(&self) -> String {
        let Report { what, status, text, stderr } = self;
        format!("{what}\n{status}\n--- stdout\n{text}--- stderr\n{stderr}---")
    }

    /// `in use at exit: 456 bytes in 3 blocks` and
    /// `total heap usage: 3 allocs, 0 frees, 456 bytes allocated`.
    #[track_caller]
    pub(crate) fn summary(&self) -> Summary {
        let find = |words: &[&str], counts: usize| {
            let line = self.text.lines().find(|line| words.iter().any(|w| line.contains(w)));
            let line = line.unwrap_or_else(|| panic!("no `{words:?}`: {}", self.description()));
            let start = words.iter().filter_map(|w| line.find(w)).min().unwrap();
            let numbers = numbers(&line[start..]);
            assert!(numbers.len() >= counts, "`{line}`: {}", self.description());
            numbers
        };
        let in_use = find(&["in use at exit:", "live now:"], 2);
        let usage = find(&["total heap usage:"], 3);
        Summary {
            in_use_bytes: in_use[0],
            in_use_blocks: in_use[1],
            allocations: usage[0],
            frees: usage[1],
            allocated_bytes: usage[2],
        }
    }

    /// Every `FILE:LINE` of the report for a source file `file`, with the text of its line.
    pub(crate) fn places(&self, file: &str) -> Vec<(u32, &str)> {
        let needle = format!("{file}:");
        let mut places = Vec::new();
        for line in self.text.lines() {
            for (at, _) in line.match_indices(&needle) {
                let digits = line[at + needle.len()..].split(|c: char| !c.is_ascii_digit());
                if let Some(Ok(number)) = digits.map(str::parse).next() {
                    places.push((number, line));
                }
            }
        }
        places
    }

    /// The distinct lines of `file` that the report names.
    pub(crate) fn lines(&self, file: &str) -> BTreeSet<u32> {
        self.places(file).iter().map(|(line, _)| *line).collect()
    }

    /// Fails the test unless the report names `function` at `file:line`.
    #[track_caller]
    pub(crate) fn names(&self, function: &str, file: &str, line: u32) {
        let found = self.places(file).iter().any(|(n, text)| *n == line && text.contains(function));
        assert!(found, "no `{function}` at {file}:{line}: {}", self.description());
    }

    /// The text without its line breaks.
    pub(crate) fn unbroken(&self) -> String {
        self.text.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// The number in the note that has one of these words behind it.
    fn noted(&self, words: &[&str]) -> u64 {
        let text = self.unbroken();
        let mut counts = text.split(" - ").filter_map(|note| {
            let (number, rest) = note.split_once(' ')?;
            let is_it = words.iter().any(|words| rest.contains(words));
            number.replace(',', "").parse().ok().filter(|_| is_it)
        });
        counts.next().unwrap_or(0)
    }

    /// Records that it says are missing or could not be written.
    pub(crate) fn lost(&self) -> u64 {
        self.noted(&["records could not be written", "record could not be written"])
            + self.noted(&["records are missing", "record is missing"])
    }

    /// Records that it has found, and those that it says are missing.
    #[track_caller]
    pub(crate) fn events(&self) -> u64 {
        self.summary().allocations + self.frees_found() + self.lost()
    }

    /// Frees that it has found: those of its summary without what it takes for freed because of what
    /// follows, and those of what is among what was lost.
    #[track_caller]
    pub(crate) fn frees_found(&self) -> u64 {
        let apart = self.noted(&["freed whose allocations the trace does not show"])
            + self.noted(&["was freed again;", "were freed again;"]);
        let lost = self.noted(&["was allocated again;", "were allocated again;"]);
        self.summary().frees - lost + apart
    }

    /// Lines that speak of faults of the program or of the trace.
    pub(crate) fn faults(&self) -> Vec<&str> {
        const WORDS: [&str; 14] = [
            "never alloc",
            "tracing never saw", // and an order in which a free precedes its allocation
            "mismatched",
            "inside of a block",
            "unknown address",
            "double free",
            "freed memory",
            "freed twice",
            "duplicate",
            "was not freed",
            "stood behind", // a free out of order that the reader has put right
            "damaged",
            "torn",
            "truncated",
        ];
        let mut lines = Vec::new();
        for line in self.text.lines().chain(self.stderr.lines()) {
            let lower = line.to_lowercase();
            if WORDS.iter().any(|word| lower.contains(word)) {
                lines.push(line);
            }
        }
        lines
    }

    /// Fails the test where the report was not made or shows faults.
    #[track_caller]
    pub(crate) fn without_faults(self) -> Self {
        let report = self.succeeded();
        assert!(report.faults().is_empty(), "{:#?}\n{}", report.faults(), report.description());
        report
    }
}

/// The numbers in a text, thousands separators taken out.
fn numbers(text: &str) -> Vec<u64> {
    let kept: String = text.chars().filter(|c| *c != ',').collect();
    let words = kept.split(|c: char| !c.is_ascii_digit()).filter(|w| !w.is_empty());
    words.map(|w| w.parse().expect("a number")).collect()
}
