//! Any bytes are reported without a panic: all stages, as text and as a log.
//!
//! They come out of a file, so that they are told apart as those of a user are.
#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use mtr_analyzer::cli::mtrace_log::{self, Caller};
use mtr_analyzer::cli::report::{Files, report_all, report_merged};
use mtr_analyzer::output::text;

static TRACE: LazyLock<PathBuf> =
    LazyLock::new(|| std::env::temp_dir().join(format!("mtr-fuzz-report-{}", std::process::id())));

fuzz_target!(|bytes: &[u8]| {
    std::fs::write(&*TRACE, bytes).unwrap();
    let files = Files::sort(&[TRACE.clone(), TRACE.clone()]);
    let mut options = text::Options::default();
    let mut out = Vec::new();
    report_all(&files, &options, &mut out, |_| {}).unwrap();
    options.group_by = text::GroupBy::Stack;
    report_merged(&files, &options, &mut out, |_| {}).unwrap();
    let _ = mtrace_log::convert(&TRACE, Caller::User, &mut out);
});
