//! What switches recording on and off.

mod support;

use std::path::PathBuf;
use support::*;

fn build(folder: &Folder, name: &str) -> PathBuf {
    compile(folder, name, &program(&format!("{name}.c")), &[])
}

/// Blocks of each size that `log` has.
fn counts<const N: usize>(log: &Log, sizes: [u64; N]) -> [usize; N] {
    sizes.map(|size| log.blocks_of(size).len())
}

#[test]
fn a_program_that_calls_mtrace_decides_what_is_recorded() {
    let folder = Folder::new("switching");
    let run = Traced::new(&folder, build(&folder, "switching")).run().succeeded();
    let log = run.log();
    log.is_sound();
    assert_eq!(log.note("start"), ["mtrace"]);
    assert_eq!(
        log.marks(),
        ["= Start", "= End", "= Start"],
        "the second mtrace() in a row is none"
    );
    assert_eq!(counts(&log, [9001, 9002, 9003, 9004]), [0, 1, 0, 1]);
    let first = log.items.iter().position(|item| matches!(item, Item::Record(_)));
    let start = log.items.iter().position(|item| matches!(item, Item::Mark(_)));
    assert!(start < first, "nothing is recorded before the first mtrace()");
    // The blocks of 9,001 and 9,003 bytes are freed while on: recorded, and no fault.
    assert!(log.records().filter(|r| r.is_from("switching") && r.freed().is_some()).count() == 2);
    let report = mtr_report([&run.path]).without_faults();
    let summary = report.summary();
    assert_eq!(summary.in_use_bytes, log.live().values().map(|r| r.allocated().unwrap().1).sum());
    for size in ["malloc(9002)", "malloc(9004)"] {
        report.names("main", "switching.c", line_of(&program("switching.c"), size));
    }
}

#[test]
fn a_program_that_never_calls_its_mtrace_gets_told_what_to_do() {
    let folder = Folder::new("switching-never");
    let run = Traced::new(&folder, build(&folder, "never_switched_on")).run().succeeded();
    let log = run.log();
    assert_eq!(log.note("start"), ["mtrace"]);
    assert_eq!(log.records().count(), 0);
    assert!(log.marks().is_empty());
    let report = mtr_report([&run.path]).succeeded();
    let all = format!("{}{}", report.text, report.stderr);
    assert!(all.contains("mtrace()"), "{}", report.description());
    assert!(all.contains("--start=process") || all.contains("MTR_START=process"), "{all}");
}

#[test]
fn the_start_option_overrides_the_program() {
    let folder = Folder::new("switching-override");
    let program = build(&folder, "never_switched_on");
    let run = Traced::new(&folder, &program).env("MTR_START", "process").run().succeeded();
    let log = run.log();
    log.is_in_order();
    assert_eq!(log.note("start"), ["process"]);
    assert_eq!(counts(&log, [9100]), [1]);

    let output = mtr_run(folder.path()).arg("--start=process").arg(&program).output().unwrap();
    let report = Report::of_mtr_run(&output).succeeded();
    let line = line_of(&support::program("never_switched_on.c"), "malloc(9100)");
    report.names("main", "never_switched_on.c", line);

    let plain = build(&folder, "leaks_plainly");
    let run = Traced::new(&folder, &plain).env("MTR_START", "mtrace").run().succeeded();
    assert_eq!(run.log().records().count(), 0, "nobody called mtrace()");
    let run = Traced::new(&folder, &plain).run().succeeded();
    assert_eq!(run.log().note("start"), ["process"]);
    assert_eq!(counts(&run.log(), [9200]), [1]);
}

#[test]
fn a_program_switched_on_from_its_start_keeps_its_own_marks() {
    let folder = Folder::new("switching-both");
    let program = build(&folder, "switching");
    let run = Traced::new(&folder, &program).env("MTR_START", "process").run().succeeded();
    let log = run.log();
    log.is_sound();
    assert_eq!(counts(&log, [9001, 9002, 9004]), [1, 1, 1]);
}

#[test]
fn names_of_logs_are_made_from_patterns() {
    let folder = Folder::new("switching-names");
    let program = build(&folder, "leaks_plainly");
    // %p, %e and %% as documented; MTR_OUTPUT goes before MALLOC_TRACE.
    let run = Traced::new(&folder, &program)
        .env("MTR_OUTPUT", folder.join("out.%e.%p.%%.%q{MTR_TEST_WORD}"))
        .env("MTR_TEST_WORD", "word")
        .run()
        .succeeded();
    assert!(!run.path.exists(), "MTR_OUTPUT goes before MALLOC_TRACE");
    let log = only_log(&folder, "out.");
    let name = format!("out.leaks_plainly.{}.%.word", log.pid());
    assert_eq!(log.path.file_name().unwrap().to_str(), Some(&*name));

    // Without either: in the current folder.
    let status = clean_command(&program)
        .env("LD_PRELOAD", library())
        .current_dir(folder.path())
        .status()
        .unwrap();
    assert!(status.success());
    let log = only_log(&folder, "mtr.");
    let name = format!("mtr.leaks_plainly.{}.mtrace", log.pid());
    assert_eq!(log.path.file_name().unwrap().to_str(), Some(&*name));
}

#[track_caller]
fn only_log(folder: &Folder, prefix: &str) -> Log {
    let names = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
    let found: Vec<PathBuf> = names
        .filter(|p| p.file_name().unwrap().to_str().is_some_and(|name| name.starts_with(prefix)))
        .collect();
    assert_eq!(found.len(), 1, "{found:?}");
    Log::read(&found[0]).unwrap()
}
