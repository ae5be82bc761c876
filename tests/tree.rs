//! Trees of processes under one mtr-run: a report of the program, a line for each child.

mod support;

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
        fs::write(&path, format!("#!/bin/sh\n{line}\n")).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&path, mode).unwrap();
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
    let fifo = folder.join("fifo");
    assert!(clean_command("mkfifo").arg(&fifo).status().unwrap().success());
    // Returns when the program does, although the daemon waits for us.
    let output = mtr_run(folder.path())
        .args(["--trace-format=mtrace", program.to_str().unwrap(), fifo.to_str().unwrap()])
        .output()
        .unwrap();
    let report = Report::of_mtr_run(&output).without_faults();
    assert_eq!(output.status.code(), Some(0), "{}", report.description());
    let before = traces_in(&folder);
    fs::write(&fifo, "").unwrap();
    // Its trace is that of a process of which nobody waits for the end: look until it is there.
    let daemon = loop {
        let found = traces_in(&folder).into_iter().find(|trace| {
            Log::read(trace)
                .is_ok_and(|log| !log.notes("exit").is_empty() && !before.contains(trace))
        });
        match found {
            Some(trace) => break Log::read(&trace).unwrap(),
            None => std::thread::yield_now(),
        }
    };
    daemon.is_sound();
    assert_eq!(daemon.allocated_and_freed(7500), (100, 0));
}
