//! Trees of processes under one mtr-run: a report of the program, a line for each child, and the sum.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use support::*;

/// The traces that a run has left in `folder`.
fn traces_in(folder: &Folder) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
    let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
    let mut traces: Vec<_> =
        entries.filter(|p| name(p).starts_with("mtr.") && !name(p).ends_with(".tail")).collect();
    traces.sort();
    traces
}

#[test]
fn fifty_children_have_one_line_each_and_few_of_them() {
    let folder = Folder::new("tree-fifty");
    let program = compile(&folder, "fork_in_a_loop", &program("fork_in_a_loop.c"), &[]);
    for format in ["mtrace", "compact"] {
        let output = mtr_run(folder.path())
            .args([&format!("--trace-format={format}"), program.to_str().unwrap(), "50"])
            .output()
            .unwrap();
        let report = Report::of_mtr_run(&output).without_faults();
        assert_eq!(report.text.matches("total heap usage").count(), 1, "{}", report.description());
        assert!(report.text.contains("\n50 other processes:\n"), "{}", report.description());
        let lines: Vec<_> = report.text.lines().filter(|l| l.contains(" allocs, ")).collect();
        assert!((4..=8).contains(&lines.len()), "{}", report.description());
        assert!(report.text.contains("... and 45 with smaller traces"), "{}", report.description());
        assert!(report.text.lines().count() < 60, "{}", report.description());

        let traces = traces_in(&folder);
        assert_eq!(traces.len(), 51);
        // The parts of the children are in their own traces: the sum counts each event once.
        let each: Vec<Summary> =
            traces.iter().map(|trace| mtr_report([trace]).without_faults().summary()).collect();
        let sum = |of: fn(&Summary) -> u64| each.iter().map(of).sum::<u64>();
        let mut arguments = vec![PathBuf::from("--merge")];
        arguments.extend(traces.clone());
        let merged = mtr_report(&arguments).without_faults();
        assert!(merged.text.starts_with("51 processes together:"), "{}", merged.description());
        let expected = Summary {
            in_use_bytes: sum(|s| s.in_use_bytes),
            in_use_blocks: sum(|s| s.in_use_blocks),
            allocations: sum(|s| s.allocations),
            frees: sum(|s| s.frees),
            allocated_bytes: sum(|s| s.allocated_bytes),
        };
        assert_eq!(merged.summary(), expected);
        // Fifty blocks of the parent at one place.
        let line = line_of(&support::program("fork_in_a_loop.c"), "malloc(7000)");
        merged.names("main", "fork_in_a_loop.c", line);
        for trace in traces {
            fs::remove_file(trace).unwrap();
        }
    }
}

#[test]
fn the_program_is_what_the_shell_in_front_of_it_became() {
    let folder = Folder::new("tree-chain");
    let leaky = compile(&folder, "leaks_plainly", &program("leaks_plainly.c"), &[]);
    let inner = folder.join("inner");
    let script = |name: &str, line: String| {
        let path = folder.join(name);
        write_script(&path, &format!("#!/bin/sh\n{line}\n"));
        path
    };
    script("inner", format!("exec env A=b {}", leaky.display()));
    let outer = script("outer", format!("true; exec {}", inner.display()));
    let output = mtr_run(folder.path()).arg(outer).output().unwrap();
    let report = Report::of_mtr_run(&output).without_faults();
    let first = report.text.lines().next().unwrap();
    assert!(first.starts_with("program:") && first.ends_with("leaks_plainly"), "{first}");
    assert!(report.text.contains("earlier images of this process:"), "{}", report.description());
    assert!(!report.text.contains("other process"), "{}", report.description());
    assert_eq!(report.text.matches("total heap usage").count(), 1, "{}", report.description());
}

#[test]
fn a_daemon_is_traced_on_when_mtr_run_has_returned() {
    let folder = Folder::new("tree-daemon");
    let program = compile(&folder, "daemon", &program("daemon.c"), &[]);
    let daemon = Daemon::new(&folder);
    for format in FORMATS {
        // Returns when the program does, although the daemon waits for us.
        let output = mtr_run(folder.path())
            .arg(format!("--trace-format={}", format.name()))
            .args([&program, daemon.fifo()])
            .output()
            .unwrap();
        let report = Report::of_mtr_run(&output).without_faults();
        assert_eq!(output.status.code(), Some(0), "{}", report.description());
        let before = traces_in(&folder);
        daemon.finish();
        let all = traces_in(&folder);
        let new: Vec<_> = all.iter().filter(|trace| !before.contains(trace)).collect();
        assert_eq!(new.len(), 1, "{format:?}: {all:?}");
        let recorded = Recorded::read(format, new[0]);
        recorded.is_finished();
        assert_eq!(recorded.counts()[&7500], (100, 0), "{format:?}");
        the_report_agrees(&recorded);
        all.iter().for_each(|trace| fs::remove_file(trace).unwrap());
    }
}

/// What tree.c prints of each process: its summary by process ID.
fn printed_summaries(text: &str) -> BTreeMap<u32, Summary> {
    let of_line = |line: &str| {
        let numbers: Vec<u64> = line.split(' ').map(|word| word.parse().unwrap()).collect();
        let [pid, allocations, frees, allocated_bytes, in_use_bytes, in_use_blocks] = numbers[..]
        else {
            panic!("{line}");
        };
        let summary = Summary { in_use_bytes, in_use_blocks, allocations, frees, allocated_bytes };
        (pid as u32, summary)
    };
    text.lines().map(of_line).collect()
}

#[test]
fn in_a_tree_of_processes_each_has_its_own_report_and_all_have_the_sum() {
    let folder = Folder::new("tree-deep");
    let program = compile(&folder, "tree", &program("tree.c"), &[]);
    for format in FORMATS {
        let output = mtr_run(folder.path())
            .arg(format!("--trace-format={}", format.name()))
            .arg(&program)
            .args(["0", "7", "6"])
            .output()
            .unwrap();
        let report = Report::of_mtr_run(&output).without_faults();
        assert!(report.text.contains("\n49 other processes:\n"), "{}", report.description());
        let printed = printed_summaries(str::from_utf8(&output.stdout).unwrap());
        assert_eq!(printed.len(), 50, "{format:?}: {printed:?}");
        assert_eq!(printed.get(&pid_of(&report)), Some(&report.summary()), "{format:?}");

        let traces = traces_in(&folder);
        let mut found = BTreeMap::new();
        let mut inherited = 0;
        for trace in &traces {
            let recorded = Recorded::read(format, trace);
            recorded.is_sound();
            let report = mtr_report([trace]).without_faults();
            found.insert(recorded.pid(), report.summary());
            let is_forked = !recorded.notes("parent").is_empty();
            let freed = "1 block inherited from the parent process was freed";
            assert_eq!(report.text.contains(freed), is_forked, "{}", report.description());
            inherited += usize::from(is_forked);
        }
        assert_eq!(found, printed, "{format:?}");
        assert_eq!((traces.len(), inherited), (50, 4 + 7 * 3), "{format:?}");

        let merged = mtr_report([&[PathBuf::from("--merge")], &*traces].concat()).without_faults();
        assert!(merged.text.starts_with("50 processes together:"), "{}", merged.description());
        let sum = |of: fn(&Summary) -> u64| printed.values().map(of).sum::<u64>();
        let expected = Summary {
            in_use_bytes: sum(|s| s.in_use_bytes),
            in_use_blocks: sum(|s| s.in_use_blocks),
            allocations: sum(|s| s.allocations),
            frees: sum(|s| s.frees),
            allocated_bytes: sum(|s| s.allocated_bytes),
        };
        assert_eq!(merged.summary(), expected, "{format:?}");
        traces.iter().for_each(|trace| fs::remove_file(trace).unwrap());
    }
}

/// The process that a report is about.
fn pid_of(report: &Report) -> u32 {
    let pid = report.text.lines().find_map(|line| line.strip_prefix("pid:"));
    pid.and_then(|pid| pid.trim().parse().ok())
        .unwrap_or_else(|| panic!("{}", report.description()))
}

#[test]
fn a_child_that_executes_another_program_is_one_process() {
    let folder = Folder::new("tree-exec");
    let program = compile(&folder, "many", &program("many.c"), &[]);
    let script = "(\"$0\" 5; exec \"$0\" 6); true";
    let output = mtr_run(folder.path()).args(["sh", "-c", script]).arg(&program).output().unwrap();
    let report = Report::of_mtr_run(&output).succeeded();
    let is_of = |title: &str| {
        let images = title.strip_prefix("2 other processes, ");
        images.is_some_and(|images| images.ends_with(" images (exec begins a new one):"))
    };
    assert!(report.text.lines().any(is_of), "{}", report.description());
    let mut arguments = vec![PathBuf::from("--merge")];
    arguments.extend(traces_in(&folder));
    let merged = mtr_report(&arguments).succeeded();
    assert!(merged.text.starts_with("3 processes together, "), "{}", merged.description());
}
