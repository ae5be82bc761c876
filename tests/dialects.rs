//! Logs that other tracers wrote: the figures of the report, each golden file checked by hand
//! against the log, and the faults that are in a log.

mod support;

use std::path::{Path, PathBuf};
use support::*;

fn cases(folder: &str) -> PathBuf {
    repository().join("tests/cases").join(folder).canonicalize().unwrap()
}

/// The first lines of a report in one form, whatever stands around them.
fn summary_of(log: &Path) -> Result<String, String> {
    let report = mtr_report([log]);
    if !report.status.success() {
        return Err(report.description());
    }
    let Summary { in_use_bytes, in_use_blocks, allocations, frees, allocated_bytes } =
        report.summary();
    Ok(format!(
        "in use at exit: {in_use_bytes} bytes in {in_use_blocks} blocks\n\
         total heap usage: {allocations} allocs, {frees} frees, {allocated_bytes} bytes allocated\n"
    ))
}

/// Every recorded log, with what is out of order in it.
fn recorded() -> Vec<(String, PathBuf, Log)> {
    let mut logs = Vec::new();
    for folder in ["classic", "logs"] {
        for entry in std::fs::read_dir(cases(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|e| e == "log") {
                let name = path.file_name().unwrap().to_str().unwrap();
                logs.push((format!("{folder}-{name}"), path.clone(), Log::read(&path).unwrap()));
            }
        }
    }
    logs
}

#[test]
fn the_figures_of_recorded_logs_are_right() {
    let mut failures = Vec::new();
    let mut compared = 0;
    for (name, path, log) in recorded() {
        if !log.faults().is_empty() {
            continue; // the next two tests
        }
        compared += 1;
        let result = summary_of(&path).and_then(|actual| {
            compare_with_golden(&format!("report/{name}.txt"), &actual)?;
            let read_slowly = summary_by_hand(&log);
            match actual == read_slowly {
                true => Ok(()),
                false => Err(format!("{name}: read slowly:\n{read_slowly}reported:\n{actual}")),
            }
        });
        failures.extend(result.err());
    }
    assert!(compared == 11, "only {compared} logs");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// The same lines from the tests' own reader.
fn summary_by_hand(log: &Log) -> String {
    let live = log.live();
    let allocated = || log.records().filter_map(Record::allocated);
    format!(
        "in use at exit: {} bytes in {} blocks\n\
         total heap usage: {} allocs, {} frees, {} bytes allocated\n",
        live.values().map(|r| r.allocated().unwrap().1).sum::<u64>(),
        live.len(),
        allocated().count(),
        log.records().filter(|r| r.freed().is_some()).count(),
        allocated().map(|(_, size)| size).sum::<u64>()
    )
}

#[test]
fn a_free_of_a_block_from_before_mtrace_is_no_fault() {
    // glibc's tracer is always switched on by the program, so there are such blocks.
    for name in ["2.36-t_basic2.log", "2.36-t_nopie.log", "2.36-t_twice.log"] {
        let path = cases("logs").join(name);
        let log = Log::read(&path).unwrap();
        assert_eq!(log.faults().len(), 1, "{name}: the case itself");
        let summary = mtr_report([&path]).without_faults().summary();
        let live = log.live();
        let bytes: u64 = live.values().map(|r| r.allocated().unwrap().1).sum();
        assert_eq!((summary.in_use_bytes, summary.in_use_blocks), (bytes, live.len() as u64));
    }
}

#[test]
fn what_a_fork_without_a_new_log_repeats_is_shown() {
    for name in ["2.33-t_fork.log", "2.36-t_fork.log"] {
        let path = cases("logs").join(name);
        assert!(!Log::read(&path).unwrap().faults().is_empty(), "{name}: the case itself");
        let report = mtr_report([&path]).succeeded();
        assert!(!report.faults().is_empty(), "{name}: {}", report.description());
    }
}

#[test]
fn a_classic_log_without_a_map_shows_the_three_blocks_with_their_sizes() {
    for (log, bytes, blocks) in [("pie.log", 456, 3), ("no-pie.log", 456, 3)] {
        let report = mtr_report([cases("classic").join(log)]).without_faults();
        let summary = report.summary();
        assert_eq!((summary.in_use_bytes, summary.in_use_blocks), (bytes, blocks), "{log}");
    }
    // Without the program nothing can be resolved: the addresses are shown, not guessed at.
    let report = mtr_report([cases("classic").join("pie.log")]).succeeded();
    for address in ["55555555518c", "5555555551a5"] {
        assert!(report.text.contains(address), "{address}: {}", report.description());
    }
}

#[test]
fn the_same_run_in_three_dialects_gives_the_same_figures() {
    let folder = Folder::new("dialects");
    let dialects = [
        // glibc <= 2.33, 2.34, >= 2.35
        ["[0x55a95f858157]", "(main+0x1d)[0x55a95f858186]"],
        ["[0x55a95f858157]", "(main+1d)[0x55a95f858186]"],
        ["[0x1157]", "(main+1d)[0x1186]"],
    ];
    let reports = dialects.map(|[first, second]| {
        let path = folder.join("log");
        let text = format!(
            "= Start\n\
             @ ./t:{first} + 0x55a960000010 0x64\n\
             @ ./t:{second} + 0x55a960000100 0x32\n\
             @ ./t:{second} < 0x55a960000010\n\
             @ ./t:{second} > 0x55a960000200 0xc8\n\
             @ ./t:{first} ! 0x55a960000200 0xffffffffffff\n\
             @ ./t:{first} + (nil) 0xffffffffffff\n\
             @ ./t:{first} - 0x55a960000100\n\
             = End\n"
        );
        std::fs::write(&path, text).unwrap();
        mtr_report([&path]).without_faults().summary()
    });
    let expected = Summary {
        in_use_bytes: 200,
        in_use_blocks: 1,
        allocations: 3,
        frees: 2,
        allocated_bytes: 350,
    };
    assert_eq!(reports, [expected; 3]);
}

#[test]
fn faults_in_a_log_are_reported() {
    // Also the proof that `without_faults` of the other tests can fail.
    let folder = Folder::new("dialects-faults");
    let faulty = [
        ("an unknown free", "@ ./t:[0x1157] - 0x20\n", "0x1157"),
        ("a double free", "@ ./t:[0x1157] - 0x10\n@ ./t:[0x1168] - 0x10\n", "0x1168"),
        // In a note: a process that went on had these memory by another way.
        ("an unknown free before the end", "@ ./t:[0x1157] - 0x20\n# exit\n", ""),
        ("a duplicate", "@ ./t:[0x1157] + 0x10 0x1\n# exit\n", ""),
    ];
    for (what, lines, place) in faulty {
        let path = folder.join("log");
        // Recorded from the start, and not ended by exit: a free of a block that was never seen cannot be one from before.
        let text = format!(
            "# mtr log 1\n# id 0000000000000001\n# pid 1\n# addresses relative\n\
             # start process\n= Start\n@ ./t:[0x1146] + 0x10 0x64\n{lines}"
        );
        std::fs::write(&path, text).unwrap();
        let report = mtr_report([&path]).succeeded();
        assert!(!report.faults().is_empty(), "{what} is not reported: {}", report.description());
        let place = place.trim_start_matches("0x");
        assert!(report.text.contains(place), "{what}: no place {place}: {}", report.description());
    }
}
