//! What is missing from a trace is said wherever it is shown. A log that `--format mtrace-log` makes of a
//! trace, or of another log, says it as the report of the trace does: on stderr, by the exit status of
//! `--strict`, and in the log itself.

mod support;

use std::path::{Path, PathBuf};
use support::*;

/// What a report's notes say is missing.
fn missing(text: &str) -> Vec<String> {
    let notes = text.split_once("\nNotes:\n").map_or("", |(_, notes)| notes);
    let words = [
        " missing",
        " damaged",
        " cut off",
        " truncated",
        "means nothing",
        "mean nothing",
        "in part",
    ];
    let notes =
        notes.split("  - ").map(|note| note.split_whitespace().collect::<Vec<_>>().join(" "));
    let is_said_elsewhere = |note: &String| note.starts_with("The trace holds no records");
    let is_loss = |note: &String| words.iter().any(|word| note.contains(word));
    notes.filter(|note| is_loss(note) && !is_said_elsewhere(note)).collect()
}

/// A note without the position of a hole, which is another one in another log.
fn without_byte(note: &str) -> String {
    match (note.find(" (byte "), note.find(')')) {
        (Some(begin), Some(end)) => note[..begin].to_owned() + &note[end + 1..],
        _ => note.to_owned(),
    }
}

/// Converts a trace, with each caller, and holds stderr, the exit status and the report of the log to
/// the report of the trace, which says that this is missing.
#[track_caller]
fn is_said(path: &Path, what: &str) {
    let report = mtr_report([path]).succeeded();
    let (lacks, log) = (missing(&report.text), path.with_extension("converted"));
    assert_eq!(
        lacks.iter().any(|note| note.contains(what)),
        !lacks.is_empty(),
        "{what}: {lacks:?}"
    );
    assert_eq!(lacks.is_empty(), what.is_empty(), "{what}: {}", report.description());
    let code = if lacks.is_empty() { 0 } else { 3 };
    for caller in ["--caller=direct", "--caller=user"] {
        let options = ["--strict", "--format=mtrace-log", caller].map(Path::new);
        let converted = mtr_report(options.into_iter().chain([path]));
        assert_eq!(converted.status.code(), Some(code), "{}", converted.description());
        let front = format!("mtr-report: {}: ", path.display());
        let stderr: Vec<_> =
            converted.stderr.lines().map(|line| line.strip_prefix(&front).unwrap()).collect();
        assert_eq!(stderr, lacks);
        std::fs::write(&log, &converted.text).unwrap();
        let of_log = mtr_report([Path::new("--strict"), &log]);
        assert_eq!(of_log.status.code(), Some(code), "{}", of_log.description());
        let (said, reason) = (missing(&of_log.text), "This log was made from a compact trace");
        let said =
            said.iter().filter(|note| !note.starts_with(reason)).map(|note| without_byte(note));
        let lacks: Vec<_> = lacks.iter().map(|note| without_byte(note)).collect();
        assert_eq!(said.collect::<Vec<_>>(), lacks, "{}", of_log.description());
        assert_eq!(of_log.summary().allocations, report.summary().allocations);
    }
    let script = mtr_report([Path::new("--format=mtrace"), path]);
    assert_eq!(script.stderr.lines().count(), lacks.len(), "{}", script.description());
    let strict = mtr_report([Path::new("--format=mtrace"), Path::new("--strict"), path]);
    assert_eq!(strict.text, script.text);
    assert_eq!(strict.status.code(), if code == 3 { Some(3) } else { script.status.code() });
}

/// A trace of some chunks, of several threads that use each other's addresses.
fn of_threads(folder: &Folder) -> PathBuf {
    let program = compile(folder, "one_arena", &program("one_arena.c"), &["-pthread"]);
    Traced::compact(folder, &program).args(&["20000"]).run().succeeded().path
}

#[test]
fn what_was_done_to_a_trace_is_said() {
    let folder = Folder::new("converted-damage");
    let path = of_threads(&folder);
    is_said(&path, "");
    let whole = std::fs::read(&path).unwrap();
    let harmed = folder.join("harmed.mtr");
    for length in [whole.len() - 1, whole.len() - 3 * 32768, 32768, 5000] {
        std::fs::write(&harmed, &whole[..length]).unwrap();
        is_said(&harmed, "The trace is cut off");
    }
    let without = |range: std::ops::Range<usize>, value| {
        let mut bytes = whole.clone();
        bytes[range].fill(value);
        std::fs::write(&harmed, bytes).unwrap();
    };
    without(2 * 32768..3 * 32768, 0);
    is_said(&harmed, "1 chunk of the trace is missing");
    without(3 * 32768..5 * 32768 + 9, 7);
    is_said(&harmed, "damaged: about");
    without(2 * 32768 + 2000..2 * 32768 + 2001, 1);
    is_said(&harmed, "1 chunk of the trace is damaged: about");
    // The first chunk, which has the lines of the log.
    without(900..1000, 0);
    is_said(&harmed, "damaged: about");
}

#[test]
fn what_a_process_could_not_write_is_said() {
    let folder = Folder::new("converted-lost");
    let program = compile(&folder, "one_arena", &program("one_arena.c"), &["-pthread"]);
    for traced in [Traced::compact(&folder, &program), Traced::new(&folder, &program)] {
        let run = traced.args(&["20000"]).env("MTR_MAX_TRACE_SIZE", "300K").run();
        is_said(&run.path, " s after the start on: the trace had reached the size of");
    }
}

#[test]
fn a_tail_that_is_there_is_used_and_one_that_is_not_is_missed() {
    let folder = Folder::new("converted-tail");
    let program = compile(&folder, "ends", &program("ends.c"), &["-pthread"]);
    for traced in [Traced::compact(&folder, &program), Traced::new(&folder, &program)] {
        let run = traced.args(&["kill", "5001"]).run();
        is_said(&run.path, "");
    }
    let run = Traced::compact(&folder, &program).args(&["kill", "5001"]).run();
    let copy = folder.join("copy.mtr");
    std::fs::copy(&run.path, &copy).unwrap();
    is_said(&copy, "The tail of the trace is missing");
}

#[test]
fn what_was_done_to_a_log_is_said() {
    let folder = Folder::new("converted-log");
    let program = compile(&folder, "one_arena", &program("one_arena.c"), &["-pthread"]);
    let path = Traced::new(&folder, &program).args(&["20000"]).run().succeeded().path;
    is_said(&path, "");
    let whole = std::fs::read(&path).unwrap();
    let harmed = folder.join("harmed.mtrace");
    let mut holes = whole.clone();
    holes[60_000..70_000].fill(0);
    let newline = whole[200_000..].iter().position(|byte| *byte == b'\n').unwrap();
    let in_line = 200_000 + newline + 10;
    holes[in_line..in_line + 10].fill(0);
    std::fs::write(&harmed, holes).unwrap();
    let report = mtr_report([&harmed]).succeeded();
    assert!(report.unbroken().contains("10,000 bytes of the trace are missing behind line"));
    assert!(report.unbroken().contains("1 line was stored only in part"));
    is_said(&harmed, "10,000 bytes of the trace are missing behind line");
    std::fs::write(&harmed, &whole[..whole.len() - 20]).unwrap();
    is_said(&harmed, "The last line is truncated");
}

#[test]
fn the_process_of_a_trace_that_was_running_is_said_to_have_run() {
    let folder = Folder::new("converted-running");
    let program = compile(&folder, "counted_loop", &program("counted_loop.c"), &["-pthread"]);
    let counters = Counters::new(&folder);
    let (mut child, path) = Traced::compact(&folder, &program).arg(&counters.0).arg("2").spawn();
    counters.wait_for(&mut child, 2, 5_000);
    let converted = mtr_report([Path::new("--format=mtrace-log"), &path]);
    child.kill().unwrap();
    child.wait().unwrap();
    let log = folder.join("converted.mtrace");
    std::fs::write(&log, converted.text).unwrap();
    let text = mtr_report([Path::new("--strict"), &log]).succeeded().unbroken();
    assert!(text.contains("live now") && text.contains("Events of different threads"), "{text}");
}

#[test]
fn of_a_child_whose_trace_is_not_whole_it_is_said() {
    let folder = Folder::new("converted-child");
    let program = compile(&folder, "many", &program("many.c"), &[]);
    for (size, is_whole) in [("100K", false), ("1G", true)] {
        let mut run = mtr_run(folder.path());
        run.args(["--force", "--max-trace-size", size, "sh", "-c", "\"$0\" 100000; true"]);
        let report = Report::of_mtr_run(&run.arg(&program).output().unwrap()).succeeded();
        let said = report.text.contains("not all of it: mtr-report mtr.many.");
        assert_eq!(said, !is_whole, "{}", report.description());
    }
}
