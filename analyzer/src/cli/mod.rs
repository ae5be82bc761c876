//! What the two commands share.

pub mod report; // the options of a report, and reporting a list of files
pub mod mtrace; // `--format mtrace`
pub mod mtrace_log; // `--format mtrace-log`
pub mod session; // the report of a run of `mtr-run`
pub mod quote; // names as a shell takes them
