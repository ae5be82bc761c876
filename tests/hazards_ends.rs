//! However a process ends, what was recorded before is there, in both formats. (ends.rs and compact.rs
//! have the rest.)

mod support;

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use support::*;

const BLOCKS: u64 = 5001;

/// Runs ends.c to an end, without and with the library.
#[track_caller]
fn ends(folder: &Folder, program: &Path, how: &str, is_normal: bool) {
    let arguments = [how, &*BLOCKS.to_string()];
    for (format, run) in Hazard::new(program, &arguments).run(folder) {
        let all = Recorded::all_beside(format, &run.path);
        let recorded = &all[0];
        recorded.is_in_order();
        if is_normal {
            recorded.is_finished();
        }
        assert_eq!(recorded.counts()[&4242], (BLOCKS, BLOCKS / 2), "{format:?}, {how}");
        if how == "pthread_exit" {
            assert_eq!(recorded.counts()[&4343], (1, 1), "{format:?}");
        }
        the_report_agrees(recorded);
        for recorded in &all {
            std::fs::remove_file(recorded.path()).unwrap();
        }
    }
}

fn build(folder: &Folder, name: &str) -> PathBuf {
    compile(folder, name.split('.').next().unwrap(), &program(name), &["-pthread"])
}

#[test]
fn normal_ends_lose_nothing() {
    let folder = Folder::new("normal-ends");
    let program = build(&folder, "ends.c");
    for how in ["return", "exit", "exit_in_thread", "pthread_exit"] {
        ends(&folder, &program, how, true);
    }
}

#[test]
fn ends_that_no_handler_hears_of_lose_nothing() {
    let folder = Folder::new("other-ends");
    let program = build(&folder, "ends.c");
    for how in ["_exit", "_Exit", "quick_exit", "abort", "segv", "kill", "term"] {
        ends(&folder, &program, how, false);
    }
}

#[test]
fn an_exec_in_a_thread_leaves_the_records_of_both_images() {
    let folder = Folder::new("exec-thread");
    let program = build(&folder, "exec_in_a_thread.c");
    for (format, run) in Hazard::new(&program, &[]).run(&folder) {
        let all = Recorded::all_beside(format, &run.path);
        let [first, second] = &all[..] else { panic!("{} records", all.len()) };
        first.is_in_order();
        second.is_finished();
        let mut counts = first.own_counts();
        counts.extend(second.own_counts());
        assert_eq!(counts, printed_counts(&run.stdout()), "{format:?}");
        assert_eq!(first.pid(), second.pid());
    }
}

#[test]
fn handlers_and_destructors_behind_main_are_recorded() {
    let folder = Folder::new("late");
    let program = build(&folder, "late_frees.c");
    for (format, run) in Hazard::new(&program, &[]).run(&folder) {
        let recorded = Recorded::of(format, &run);
        recorded.is_finished();
        let counts = [5001, 5002, 5003].map(|size| recorded.counts()[&size]);
        assert_eq!(counts, [(1, 1), (1, 1), (1, 0)], "{format:?}");
        the_report_agrees(&recorded);
    }
}

/// At least what was counted; of each thread, one call may have been recorded and not counted.
#[track_caller]
fn holds_what_was_counted(recorded: &Recorded, counters: &Counters, threads: usize) {
    recorded.is_in_order();
    let counts = recorded.counts();
    let (made, first_frees) = counts[&6161];
    let (moved, frees) = counts.get(&6162).copied().unwrap_or((0, 0));
    let (counted, counted_frees) = counters.sums(threads);
    // A block that realloc has taken ends as one of the first size, and is none that was freed.
    let freed = first_frees + frees - moved;
    let range = |n: usize| n as u64..=(n + threads) as u64;
    assert!(range(counted).contains(&made), "{made} made, {counted} counted");
    let range = (counted_frees - threads) as u64..=(counted_frees + threads) as u64;
    assert!(range.contains(&freed), "{freed} freed, {counted_frees} counted");
}

#[test]
fn exit_while_other_threads_allocate_loses_nothing() {
    let folder = Folder::new("exit-race");
    let program = build(&folder, "exit_while_others_allocate.c");
    for format in FORMATS {
        for _ in 0..15 {
            let counters = Counters::new(&folder);
            let run = format.traced(&folder, &program).arg("3").arg(&counters.0).run();
            assert_eq!(run.output.status.code(), Some(7), "{}", run.description());
            let recorded = Recorded::of(format, &run);
            if let Recorded::Text(log) = &recorded {
                // What a thread was storing at the end is whole or has no beginning.
                assert!(log.damaged.is_empty(), "{:?}", log.damaged);
                assert!(!log.has_tail, "a tail was left");
                mtr_report([&run.path]).without_faults();
            }
            holds_what_was_counted(&recorded, &counters, 3);
        }
    }
}

#[test]
fn exit_while_others_are_in_the_middle_of_a_call_leaves_a_whole_log() {
    let folder = Folder::new("exit-inside");
    let program = build(&folder, "exit_while_others_are_inside.c");
    // Where membarrier(2) is forbidden the tail is needed still.
    for (arguments, tail_stays) in [(&[][..], false), (&["without membarrier"], true)] {
        let run_once = || {
            let run = Traced::new(&folder, &program).args(arguments).run();
            assert_eq!(run.output.status.code(), Some(7), "{}", run.description());
            let log = run.log();
            log.is_in_order();
            mtr_report([&run.path]).without_faults();
            assert!(tail_stays || !log.has_tail, "{}", run.description());
            if tail_stays { log.has_tail } else { log.holes > 0 }
        };
        // Where the signals come is chance.
        assert!((0..40).any(|_| run_once()), "no thread was ever inside of its call");
    }
}

#[test]
fn mtr_run_reports_on_a_program_that_was_killed() {
    let folder = Folder::new("run-killed");
    let program = build(&folder, "ends.c");
    for (format, name) in [(Format::Text, "mtrace"), (Format::Compact, "compact")] {
        let output = mtr_run(folder.path())
            .args(["--trace-format", name, "-o", name, "--"])
            .arg(&program)
            .args(["kill", &BLOCKS.to_string()])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let code = output.status.code();
        assert!(
            code == Some(137) || output.status.signal() == Some(9),
            "{format:?}, {code:?}: {text}"
        );
        let report = Report::of_mtr_run(&output);
        let summary = report.summary();
        assert!(summary.allocations >= BLOCKS, "{format:?}: {text}");
        assert_eq!(summary.frees, BLOCKS / 2, "{format:?}: {text}");
    }
}
