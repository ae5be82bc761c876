//! A compact trace never passes as complete when it is not, and never blames a correct program for what
//! was done to the file. And whatever way a process ends, its trace is not called incomplete.

mod support;

use std::path::Path;
use support::*;

/// `mtr-report --strict`: its text on one line, and whether it called the trace incomplete.
#[track_caller]
fn strict(path: &Path) -> (String, bool) {
    let report = mtr_report([Path::new("--strict"), path]);
    let code = report.status.code();
    assert!(matches!(code, Some(0 | 3)), "{}", report.description());
    let text = report.text.split_whitespace().collect::<Vec<_>>().join(" ");
    (text, code == Some(3))
}

/// Fails the test unless the trace is called incomplete, for this reason.
#[track_caller]
fn is_incomplete(path: &Path, reason: &str) {
    let (text, is_incomplete) = strict(path);
    assert!(is_incomplete && text.contains(reason), "{reason}: {text}");
}

#[track_caller]
fn is_complete(path: &Path) {
    let (text, is_incomplete) = strict(path);
    assert!(!is_incomplete, "{text}");
}

/// A trace of some chunks, of several threads that use each other's addresses.
fn of_threads(folder: &Folder) -> std::path::PathBuf {
    let program = compile(folder, "one_arena", &program("one_arena.c"), &["-pthread"]);
    let run = Traced::compact(folder, &program).args(&["20000"]).run().succeeded();
    run.trace().is_finished();
    assert!(std::fs::metadata(&run.path).unwrap().len() > 6 * 32768, "some chunks");
    run.path
}

#[test]
fn a_trace_that_was_cut_anywhere_says_how_much_is_there() {
    let folder = Folder::new("incomplete-cut");
    let path = of_threads(&folder);
    is_complete(&path);
    let whole = std::fs::read(&path).unwrap();
    let cut = folder.join("cut.mtr");
    let lengths = (1..whole.len() / 32768).map(|chunks| chunks * 32768);
    for length in lengths.chain([5000, 40_000, whole.len() - 1, whole.len() - 64]) {
        std::fs::write(&cut, &whole[..length]).unwrap();
        let [there, all] = [length, whole.len()].map(thousands);
        is_incomplete(&cut, &format!("The trace is cut off: {there} of {all} bytes are there."));
    }
    // As long as it was, but the end is a hole.
    let file = std::fs::File::options().write(true).open(&cut).unwrap();
    file.set_len(whole.len() as u64 - 3 * 32768).unwrap();
    file.set_len(whole.len() as u64).unwrap();
    is_incomplete(&cut, "missing");
}

fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let groups: Vec<_> =
        digits.as_bytes().rchunks(3).rev().map(|g| str::from_utf8(g).unwrap()).collect();
    groups.join(",")
}

#[test]
fn damage_of_any_kind_is_said_and_is_no_fault_of_the_program() {
    let folder = Folder::new("incomplete-damage");
    let path = of_threads(&folder);
    let whole = std::fs::read(&path).unwrap();
    let damaged = folder.join("damaged.mtr");
    let mut state = 4711u64;
    let mut random = |below: usize| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    for round in 0..40 {
        let mut bytes = whole.clone();
        // Behind the front, which has the lines that are overwritten.
        let at = 32768 + random(whole.len() - 2 * 32768);
        let length = [1, 32, 500, 40_000][round % 4];
        match length {
            1 => bytes[at] ^= 1 << random(8),
            _ => bytes[at..].iter_mut().take(length).for_each(|byte| *byte = 0),
        }
        std::fs::write(&damaged, bytes).unwrap();
        let report = mtr_report([&damaged]).succeeded();
        let has_faults = |line: &str| line.ends_with(" faults:") || line == "1 fault:";
        assert!(!report.text.lines().any(has_faults), "at {at}: {}", report.description());
        let (text, is_incomplete) = strict(&damaged);
        assert!(is_incomplete, "{length} bytes at {at}: {text}");
    }
}

#[test]
fn a_killed_process_s_trace_lacks_its_tail_without_it() {
    let folder = Folder::new("incomplete-tail");
    let program = compile(&folder, "ends", &program("ends.c"), &["-pthread"]);
    for how in ["kill", "abort", "_exit", "term"] {
        let run = Traced::compact(&folder, &program).args(&[how, "5001"]).run();
        is_complete(&run.path);
        let copy = folder.join("copy.mtr");
        std::fs::copy(&run.path, &copy).unwrap();
        is_incomplete(&copy, "The tail of the trace is missing");
    }
}

#[test]
fn a_trace_that_got_its_tail_is_complete_and_can_be_cut() {
    let folder = Folder::new("incomplete-absorbed");
    let program = compile(&folder, "ends", &program("ends.c"), &["-pthread"]);
    // By the image that an exec brought.
    let run = Traced::compact(&folder, &program).args(&["exec_self", "5001"]).run();
    let traces = traces_beside(&run.path);
    assert_eq!(traces.len(), 2);
    // And by mtr-run.
    let killed = folder.join("killed.mtr");
    let mut run = mtr_run(folder.path());
    let output = run.arg("-o").arg(&killed).arg(&program).args(["kill", "5001"]).output().unwrap();
    assert_eq!(output.status.code(), Some(128 + 9), "{output:?}");
    for path in traces.iter().map(|trace| &trace.path).chain([&killed]) {
        assert!(!tail_of(path).exists(), "{}", path.display());
        is_complete(path);
        let bytes = std::fs::read(path).unwrap();
        let cut = folder.join("cut.mtr");
        std::fs::write(&cut, &bytes[..bytes.len() - 64]).unwrap();
        is_incomplete(&cut, "The trace is cut off");
    }
}

#[test]
fn forked_children_s_traces_are_complete() {
    let folder = Folder::new("incomplete-fork");
    let program = compile(&folder, "fork", &program("fork.c"), &[]);
    let run = Traced::compact(&folder, &program).run().succeeded();
    let traces = traces_beside(&run.path);
    assert_eq!(traces.len(), 2);
    traces.iter().for_each(|trace| is_complete(&trace.path));
}

#[test]
fn a_running_process_s_trace_is_not_called_cut() {
    let folder = Folder::new("incomplete-live");
    let program = compile(&folder, "counted_loop", &program("counted_loop.c"), &["-pthread"]);
    // One look each: the trace grows faster than it is read.
    for round in 1..=4 {
        let counters = Counters::new(&folder);
        let run = Traced::compact(&folder, &program).arg(&counters.0).arg("2");
        let (mut child, path) = run.spawn();
        counters.wait_for(&mut child, 2, 5_000 * round);
        let (text, is_incomplete) = strict(&path);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!is_incomplete && text.contains("live now"), "{text}");
    }
}

/// Seconds in `blocks, 0.301 s after` or `blocks, 0.000 to 0.301 s after`.
fn time_of_peak(text: &str) -> (f64, f64) {
    let line = text.lines().find(|line| line.starts_with("peak:")).unwrap();
    let words: Vec<&str> = line.split(' ').collect();
    let end = words.iter().position(|word| *word == "s").unwrap_or_else(|| panic!("{text}"));
    let number = |at: usize| words[at].parse::<f64>().unwrap();
    let begin = if words[end - 2] == "to" { end - 3 } else { end - 1 };
    (number(begin), number(end - 1))
}

#[test]
fn the_time_of_the_peak_is_right_in_a_trace_of_one_chunk() {
    let folder = Folder::new("incomplete-time");
    let program = compile(&folder, "waits", &program("waits_then_peaks.c"), &["-O1"]);
    for (size, how) in
        [("1000000", "return"), ("1000000", "kill"), ("20000", "return"), ("20000", "kill")]
    {
        let start = std::time::Instant::now();
        let run = Traced::compact(&folder, &program).args(&[size, how]).run();
        let total = start.elapsed().as_secs_f64();
        assert!(std::fs::metadata(&run.path).unwrap().len() < 32768, "one chunk");
        let report = mtr_report([&run.path]).succeeded();
        let (from, to) = time_of_peak(&report.text);
        // The trace begins before the program's own clock.
        let own: Vec<f64> =
            run.stdout().split_whitespace().map(|n| n.parse::<f64>().unwrap() / 1e9).collect();
        let text = format!("{size} {how}: {own:?} of {total}: {}", report.text);
        assert!(to >= own[0] - 0.01 && to <= total, "{text}");
        // A large block has a stamp of its own.
        assert!(size == "20000" || from >= 0.29, "{text}");
        assert!(from <= own[0] + total - own[1], "{text}");
    }
}

#[test]
fn where_no_rate_is_known_no_time_is_told() {
    // Two words, of a trace whose process was killed before it read the clock twice.
    let folder = Folder::new("incomplete-no-rate");
    let program = compile(&folder, "ends", &program("ends.c"), &["-pthread"]);
    let run = Traced::compact(&folder, &program).args(&["kill", "10"]).run();
    let mut tail = std::fs::read(tail_of(&run.path)).unwrap();
    tail[64..104].fill(0);
    replace_tail(&run.path, &tail);
    let text = mtr_report([&run.path]).succeeded().text;
    assert!(text.contains("peak: ") && !text.contains("after the start"), "{text}");
}
