//! What the end-to-end tests share: they compile small programs, run them under libmtr.so, and
//! compare what mtr-report says with what a slow and obvious reader of the log finds.
//!
//! Nothing here uses the analyzer or `format/`: an oracle that shares the code it judges shares
//! its faults.
#![allow(dead_code, unused_imports)] // each test uses its part

mod checker;
mod compile;
mod counters;
mod daemon;
mod executable;
mod folder;
mod golden;
mod hazard;
mod log;
mod recorded;
mod report;
mod tools;
mod trace;
mod trace_checker;
mod trace_chunks;
mod traced;
mod user;

pub(crate) use checker::{Count, check_order};
pub(crate) use compile::{compile, compile_with, example, line_of, program, repository};
pub(crate) use counters::Counters;
pub(crate) use daemon::Daemon;
pub(crate) use executable::{copy_program, write_script};
pub(crate) use folder::Folder;
pub(crate) use golden::compare_with_golden;
pub(crate) use hazard::{Hazard, the_report_agrees};
pub(crate) use log::{
    Item, Log, Module, Op, Place, Record, logs_beside, read_tail, replace_tail, tail_of,
};
pub(crate) use recorded::{Counts, FORMATS, Format, Recorded, printed_counts};
pub(crate) use report::{Report, Summary, mtr_report};
pub(crate) use tools::{
    Location, Script, addr2line, find_tool, mtrace_script, need, need_elf, real_elf, skip,
};
pub(crate) use trace::{Event, Info, Kind, Stack, Trace, traces_beside};
pub(crate) use trace_checker::{TraceCount, check_trace_order, visit_trace};
pub(crate) use trace_chunks::seal;
pub(crate) use traced::{Run, Traced, clean_command, library, mtr_run, run_plain};
pub(crate) use user::{NOBODY, by_ordinary_user, is_root, need_ordinary_user};
