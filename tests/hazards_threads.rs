//! Threads: many, small, cancelled, ending. Each program counts its own blocks, and both formats have
//! to have the same.

mod support;

use std::path::{Path, PathBuf};
use support::*;

fn build(folder: &Folder, name: &str, flags: &[&str]) -> PathBuf {
    let output = name.split('.').next().unwrap();
    compile(folder, output, &program(name), &[flags, &["-pthread"]].concat())
}

fn signal_safe_malloc(folder: &Folder) -> PathBuf {
    let flags = ["-shared", "-fPIC", "-O1"];
    compile(folder, "libsafe.so", &program("signal_safe_malloc.c"), &flags)
}

/// Runs alive_at_once.c; false where the machine has no room for so many threads.
#[track_caller]
fn alive_at_once(count: &str, kib: &str) {
    let folder = Folder::new(&format!("alive-{count}-{kib}"));
    let program = build(&folder, "alive_at_once.c", &["-O1"]);
    match run_plain(&program, &[count, kib]).status.code() {
        Some(77) => skip(&format!("{count} threads at once"), "there is no room for so many"),
        _ => Hazard::new(&program, &[count, kib]).is_recorded(&folder),
    }
}

#[test]
fn a_thousand_short_threads_are_recorded() {
    let folder = Folder::new("one-after-another");
    let program = build(&folder, "one_after_another.c", &[]);
    Hazard::new(&program, &["1000"]).is_recorded(&folder);
}

#[test]
fn two_hundred_threads_at_once_on_stacks_of_64_kib_are_recorded() {
    alive_at_once("200", "64");
}

#[test]
fn threads_on_the_smallest_stacks_are_recorded() {
    alive_at_once("40", "16");
}

#[test]
fn more_threads_at_once_than_there_are_marks_of_streams_are_recorded() {
    alive_at_once("300", "64");
}

#[test]
fn a_kill_loses_nothing_of_more_threads_than_the_tail_had_room_for_at_first() {
    let folder = Folder::new("alive-killed");
    let program = build(&folder, "alive_at_once.c", &["-O1"]);
    let arguments = ["300", "64", "kill"];
    if run_plain(&program, &arguments).status.code() == Some(77) {
        return skip("300 threads at once", "there is no room for so many");
    }
    for _ in 0..5 {
        for (format, run) in Hazard::new(&program, &arguments).run(&folder) {
            let recorded = Recorded::of(format, &run);
            recorded.is_in_order();
            let printed = printed_counts(&run.stdout());
            assert_eq!(recorded.own_counts(), printed, "{format:?}");
        }
    }
}

#[test]
fn cancelled_threads_leave_their_records() {
    let folder = Folder::new("cancelled-deferred");
    let program = build(&folder, "cancelled_when_it_agrees.c", &[]);
    Hazard::new(&program, &["300"]).is_recorded(&folder);
}

#[test]
fn threads_cancelled_in_the_middle_of_hooks_harm_no_other_record() {
    const THREADS: u64 = 800;
    let folder = Folder::new("cancelled-asynchronously");
    let program = build(&folder, "cancelled_asynchronously.c", &["-O1"]);
    let arguments = [&*THREADS.to_string()];
    let hazard = Hazard::new(&program, &arguments).preload(&signal_safe_malloc(&folder));
    for (format, run) in hazard.differs_by_run().run(&folder) {
        let recorded = Recorded::of(format, &run);
        // A thread that is stopped while it stores leaves a hole, and so the tail.
        recorded.is_sound();
        let (found, printed) = (recorded.own_counts(), printed_counts(&run.stdout()));
        assert_eq!(found[&90_000], printed[&90_000], "{format:?}, of main");
        let ((made, ended), (counted, counted_ends)) = (found[&90_001], printed[&90_001]);
        // Of each thread: one block that was made and not counted, or made and not recorded; one
        // free likewise.
        assert!(made.abs_diff(counted) <= THREADS, "{format:?}: {made} made, {counted} counted");
        assert!(ended.abs_diff(counted_ends) <= THREADS, "{format:?}: {ended}, {counted_ends}");
    }
}

#[test]
fn destructors_that_run_at_a_threads_end_are_recorded() {
    let folder = Folder::new("after-the-end");
    let program = build(&folder, "after_the_threads_end.cpp", &["-O1"]);
    Hazard::new(&program, &["400"]).is_recorded(&folder);
}

#[test]
fn blocks_of_detached_threads_are_recorded_when_main_returns() {
    let folder = Folder::new("detached");
    let program = build(&folder, "detached_at_exit.c", &[]);
    Hazard::new(&program, &[]).is_recorded(&folder);
}

/// The counts of one_arena.c, in which threads realloc and free each other's blocks.
#[track_caller]
fn realloc_races_free(format: Format, folder: &Folder, program: &Path) {
    let run = format.traced(folder, program).arg("20000").run().succeeded();
    let counted: Vec<u64> = run.stdout().split_whitespace().map(|n| n.parse().unwrap()).collect();
    let recorded = Recorded::of(format, &run);
    recorded.is_finished();
    let counts = recorded.counts();
    let of_program =
        counts.range(2000..4000).fold((0, 0), |sum, (_, n)| (sum.0 + n.0, sum.1 + n.1));
    assert_eq!(of_program, (counted[0] + counted[2], counted[1] + counted[2]), "{format:?}");
    the_report_agrees(&recorded);
}

#[test]
fn reallocs_that_race_with_frees_of_other_threads_are_in_order() {
    let folder = Folder::new("realloc-race");
    let program = build(&folder, "one_arena.c", &["-O2"]);
    for format in FORMATS {
        realloc_races_free(format, &folder, &program);
    }
}
