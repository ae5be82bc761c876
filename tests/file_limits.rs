//! Limits of the size of files (RLIMIT_FSIZE): whoever lowers them, and whenever, the program behaves as
//! without the library, and what was recorded and what is said to be lost are all that it did.

mod support;

use std::path::{Path, PathBuf};
use std::process::Output;
use support::*;

fn build(folder: &Folder) -> PathBuf {
    let source = program("file_size_limit.c");
    compile(folder, "file_size_limit", &source, &["-pthread"])
}

fn remove(run: &Run) {
    let _ = std::fs::remove_file(&run.path);
    let _ = std::fs::remove_file(tail_of(&run.path));
}

/// Events of the program where nothing limits it.
#[track_caller]
fn all_events(folder: &Folder, program: &Path, threads: &str) -> u64 {
    all_events_of(folder, program, &["none", "", threads])
}

#[track_caller]
fn all_events_of(folder: &Folder, program: &Path, arguments: &[&str]) -> u64 {
    let counts = Hazard::new(program, arguments).run(folder).into_iter().map(|(format, run)| {
        let recorded = Recorded::of(format, &run);
        assert!(run.stdout().starts_with("errno was changed 0 times\n"), "{}", run.description());
        recorded.is_finished();
        let report = mtr_report([&run.path]).without_faults();
        let all = report.events();
        assert_eq!(recorded.accounts_for(all), 0);
        remove(&run);
        all
    });
    let counts: Vec<u64> = counts.collect();
    assert_eq!(counts[0], counts[1]);
    counts[0]
}

/// The report of a trace agrees with it, says what is missing and why, and does not say that a program
/// that ended normally was killed; `--strict` says so by its status. What is missing.
#[track_caller]
fn is_said(recorded: &Recorded, all: u64, reason: &str) -> u64 {
    let lost = recorded.accounts_for(all);
    let report = mtr_report([recorded.path()]).without_faults();
    let what = report.description();
    let summary = Summary { frees: report.frees_found(), ..report.summary() };
    assert_eq!(summary, recorded.summary(), "{what}");
    assert_eq!(report.events(), all, "{what}");
    assert_eq!((report.lost(), report.unbroken().contains(reason)), (lost, lost > 0), "{what}");
    assert!(!report.unbroken().contains("by a signal, by _exit"), "{what}");
    // Only who cannot even write to the header leaves a tail, and does not know how it ended.
    assert_ne!(recorded.has_tail(), recorded.says_exit(), "{what}");
    let strict = mtr_report([Path::new("--strict"), recorded.path()]);
    assert_eq!(strict.status.code(), Some(if lost > 0 { 3 } else { 0 }), "{what}");
    lost
}

#[test]
fn a_program_that_lowers_its_limit_lives_and_is_accounted_for() {
    let folder = Folder::new("fsize-own");
    let program = build(&folder);
    // Absolute ones, and some around the size that the trace has at that moment: in its middle, at its
    // end, in the middle of what is written next, where that ends, and further on.
    let limits =
        ["=0", "=300", "=5000", "-100000", "-1", "+0", "+1", "+100", "+20000", "+32768", "+98304"];
    for threads in ["0", "40"] {
        let all = all_events(&folder, &program, threads);
        let mut most_lost = 0;
        for when in ["start", "middle", "threads", "end"] {
            if (when, threads) == ("threads", "0") {
                continue;
            }
            for limit in limits {
                let arguments = [limit, when, threads];
                for (format, run) in Hazard::new(&program, &arguments).run(&folder) {
                    let lost = is_said(&Recorded::of(format, &run), all, "File too large");
                    most_lost = most_lost.max(lost);
                    remove(&run);
                }
            }
        }
        assert!(most_lost > 10_000, "{most_lost} of {all} lost at most");
    }
}

#[test]
fn a_limit_that_is_lowered_while_a_thread_writes_is_no_signal() {
    let folder = Folder::new("fsize-swings");
    let program = build(&folder);
    let all = all_events_of(&folder, &program, &["steady", "", "4"]);
    let mut all_lost = 0;
    for _ in 0..5 {
        for (format, run) in Hazard::new(&program, &["swings", "", "4"]).run(&folder) {
            let recorded = Recorded::of(format, &run);
            let report = mtr_report([recorded.path()]).succeeded();
            let lost = recorded.accounts_for(all);
            assert_eq!((report.events(), report.lost()), (all, lost), "{}", report.description());
            assert!(recorded.says_exit() || lost > 0, "{}", report.description());
            all_lost += lost;
            remove(&run);
        }
    }
    assert!(all_lost > 0, "the limit was never met");
}

/// Where the file lacks a block and has the next one, the line between them is one without its place, or is
/// counted as lost: wherever it is divided.
#[test]
fn a_line_that_begins_in_a_block_that_is_missing_is_accounted_for() {
    let folder = Folder::new("fsize-late");
    let source = program("late_block.c");
    let program = compile(&folder, "late_block", &source, &["-pthread", "-rdynamic"]);
    let source = self::program("slow_realloc.c");
    let library = compile(&folder, "slow_realloc.so", &source, &["-shared", "-fPIC"]);
    let run = |arguments: &[&str]| {
        let traced = Format::Text.traced(&folder, &program).args(arguments);
        Recorded::of(Format::Text, &traced.preload_after(&library).run().succeeded())
    };
    let all = run(&[]).events();
    // The arguments stand in the first lines, so each is a byte further on than the one before.
    let without_place = (0..100).filter(|shift| {
        let recorded = run(&["limited", &"x".repeat(*shift)]);
        let lost = recorded.accounts_for(all);
        let report = mtr_report([recorded.path()]).succeeded();
        assert_eq!((report.events(), report.lost()), (all, lost), "{}", report.description());
        let Recorded::Text(log) = &recorded else { unreachable!() };
        assert!(log.holes > 0 && log.length > 100_000 && lost > 500, "{lost} lost");
        log.records().any(|record| record.place.is_none())
    });
    assert!(without_place.count() > 0, "none was divided in front of its operation");
}

#[test]
fn a_kill_behind_the_limit_leaves_all_accounted_for() {
    let folder = Folder::new("fsize-killed");
    let program = build(&folder);
    for format in FORMATS {
        let events = |limit: &str| {
            let run = format.traced(&folder, &program).args(&[limit, "middle", "0", "kill"]).run();
            let report = mtr_report([&run.path]).without_faults();
            let is_lossy = report.lost() > 0;
            let strict = mtr_report([Path::new("--strict"), &run.path]);
            let status = Some(if is_lossy { 3 } else { 0 });
            assert_eq!(strict.status.code(), status, "{}", strict.description());
            remove(&run);
            (report.events(), is_lossy)
        };
        let (all, _) = events("none");
        for limit in ["=0", "=300", "-1", "+0", "+1", "+20000", "+32768"] {
            assert_eq!(events(limit), (all, true), "{format:?}, {limit}");
        }
    }
}

/// A command line of a shell in which files may have so many KiB.
fn below_limit(folder: &Folder, kib: u32, command: &str) -> Output {
    let script = format!("ulimit -f {kib}; exec {command}");
    clean_command("bash").args(["-c", &script]).current_dir(folder.path()).output().unwrap()
}

#[test]
fn an_inherited_limit_is_survived_and_said() {
    let folder = Folder::new("fsize-inherited");
    let program = build(&folder);
    let all = all_events(&folder, &program, "40");
    for format in FORMATS {
        // The tail of a log needs 260 KiB, that of a trace more with each doubling of its threads.
        for kib in [5, 32, 33, 100, 200, 259, 261, 300, 520, 600, 1100] {
            let traced = format.traced(&folder, &program).args(&["none", "", "40"]);
            let run = traced.below_file_size(kib << 10).run();
            assert_eq!(run.output.status.code(), Some(7), "{kib} KiB: {}", run.description());
            assert!(run.output.stderr.is_empty(), "{kib} KiB: {}", run.description());
            assert!(run.stdout().starts_with("errno was changed 0 times\n"), "{kib} KiB");
            is_said(&Recorded::of(format, &run), all, "File too large");
            remove(&run);
        }
    }
}

#[test]
fn a_limit_that_leaves_no_room_for_the_first_lines_is_said_at_once() {
    let folder = Folder::new("fsize-none");
    let program = build(&folder);
    for format in FORMATS {
        for bytes in [0, 100, 250] {
            let traced = format.traced(&folder, &program).args(&["none", "", "0"]);
            let run = traced.below_file_size(bytes).run();
            assert_eq!(run.output.status.code(), Some(7), "{bytes}: {}", run.description());
            let stderr = String::from_utf8_lossy(&run.output.stderr);
            let line = "File too large; the program runs untraced\n";
            assert!(stderr.starts_with("mtr: cannot ") && stderr.ends_with(line), "{stderr}");
            assert!(!run.path.exists() && !tail_of(&run.path).exists(), "{bytes} bytes");
        }
    }
}

#[test]
fn mtr_run_survives_the_limit_and_reports_with_the_programs_status() {
    let folder = Folder::new("fsize-run");
    let program = build(&folder);
    // Before there is a limit, the library is unpacked.
    assert!(mtr_run(folder.path()).args(["-o", "true", "true"]).output().unwrap().status.success());
    for format in ["mtrace", "compact"] {
        for (end, status) in [("", 7), ("kill", 128 + libc::SIGKILL)] {
            let run = |kib| {
                let options = format!("--force --trace-format={format} -o trace");
                let mtr_run = env!("CARGO_BIN_EXE_mtr-run");
                let program = program.display();
                let command = format!("{mtr_run} {options} {program} none x 2 {end}");
                let output = below_limit(&folder, kib, &command);
                let report = Report::of_mtr_run(&output);
                assert_eq!(output.status.code(), Some(status), "{kib} KiB: {output:?}");
                assert!(report.faults().is_empty(), "{}", report.description());
                let trace = folder.join("trace");
                let has_tail = tail_of(&trace).exists();
                let says_so = report.unbroken().contains("records stay in trace.tail, beside");
                assert_eq!(says_so, has_tail, "{}", report.description());
                let again = mtr_report([&trace]).without_faults();
                assert_eq!(again.summary(), report.summary(), "{}", again.description());
                let incomplete = mtr_report([Path::new("--strict"), &trace]).status.code();
                let is_lossy = report.lost() > 0;
                assert_eq!(incomplete, Some(if is_lossy { 3 } else { 0 }));
                (report.events(), is_lossy || has_tail)
            };
            let (all, _) = run(1 << 20);
            for kib in [100, 261, 270, 300, 360, 400] {
                // Memory that stands in for a tail does not outlive a kill.
                if kib > 260 || end.is_empty() {
                    let (events, is_short) = run(kib);
                    assert_eq!(events, all, "{format}, {kib} KiB, {end}");
                    assert!(is_short || format == "compact", "{kib} KiB are enough for a log");
                }
            }
        }
    }
}

#[test]
fn a_trace_never_has_more_bytes_than_were_asked_for() {
    let folder = Folder::new("max-size");
    let program = build(&folder);
    let all = all_events(&folder, &program, "100");
    for size in [1, 700, 20_000, 65_536, 100 << 10, 131_072, 200_001, 250_000, 262_144, 333_333] {
        for format in FORMATS {
            let traced = format.traced(&folder, &program).args(&["none", "", "100"]);
            let run = traced.env("MTR_MAX_TRACE_SIZE", size.to_string()).run();
            assert_eq!(run.output.status.code(), Some(7), "{}", run.description());
            let recorded = Recorded::of(format, &run);
            let lost =
                is_said(&recorded, all, "the trace had reached the size of --max-trace-size");
            assert!(lost > 0 && recorded.says_exit(), "{format:?}, {size}: {lost} lost");
            let length = std::fs::metadata(&run.path).unwrap().len();
            // The first lines are always there.
            assert!(length <= size || size < 2000, "{format:?}: {length} bytes of {size}");
            remove(&run);
        }
    }
}
