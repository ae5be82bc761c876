//! Programs that cannot be traced because they are started without libmtr.so in their environment, or
//! where no log can be made: they run as without us, say nothing, and are counted where that is possible.

mod support;

use support::*;

fn build(folder: &Folder) -> std::path::PathBuf {
    compile(folder, "starts", &program("starts.c"), &["-pthread"])
}

/// What the report says, on one line.
fn said(report: &Report) -> String {
    report.text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn programs_that_are_started_without_the_library_are_counted() {
    let folder = Folder::new("starts-dropped");
    let program = build(&folder);
    for arguments in [&["dropped"][..], &["dropped", "thread"]] {
        for (format, run) in Hazard::new(&program, arguments).run(&folder) {
            assert_eq!(run.stdout(), "18\n", "{}", run.description());
            let report = mtr_report([&run.path]).without_faults();
            let expected = "18 programs were started untraced: LD_PRELOAD was taken out";
            assert!(said(&report).contains(expected), "{format:?}: {}", report.description());
        }
    }
}

#[test]
fn programs_that_are_traced_or_do_not_start_are_not_counted() {
    let folder = Folder::new("starts-kept");
    let program = build(&folder);
    for (mode, started) in [("kept", 18), ("failing", 0)] {
        for thread in [&[][..], &["thread"]] {
            let arguments = [&[mode], thread].concat();
            for (format, run) in Hazard::new(&program, &arguments).run(&folder) {
                assert_eq!(run.stdout(), format!("{started}\n"), "{}", run.description());
                let all = Recorded::all_beside(format, &run.path);
                let leaves = all.iter().filter(|r| r.arguments().get(1) == Some(&"leaf".into()));
                assert_eq!(leaves.count(), started, "{format:?}, {arguments:?}");
                let report = mtr_report([&run.path]).without_faults();
                assert!(!report.text.contains("untraced"), "{}", report.description());
                for recorded in all {
                    std::fs::remove_file(recorded.path()).unwrap();
                }
            }
        }
    }
}

#[test]
fn a_process_that_becomes_an_untraced_program_says_so() {
    let folder = Folder::new("starts-itself");
    let program = build(&folder);
    let leaves = format!("The process went on untraced: it executed {}", program.display());
    for format in FORMATS {
        let run = format.traced(&folder, &program).arg("itself").run();
        assert_eq!(run.output.status.code(), Some(9), "{}", run.description());
        let report = mtr_report([&run.path]);
        let text: String = report.text.split_whitespace().collect();
        let leaves: String = leaves.split_whitespace().collect();
        assert!(text.contains(&leaves), "{format:?}: {}", report.description());
        let run = format.traced(&folder, &program).arg("stays").run().succeeded();
        let report = mtr_report([&run.path]).without_faults();
        assert!(!report.text.contains("untraced"), "{format:?}: {}", report.description());
        assert_eq!(Recorded::of(format, &run).counts()[&7701], (1, 1));
    }
    let output = mtr_run(folder.path()).arg(&program).arg("itself").output().unwrap();
    assert_eq!(output.status.code(), Some(9), "{output:?}");
    let report = Report::of_mtr_run(&output);
    assert!(report.text.contains("went on untraced"), "{}", report.description());
}

#[test]
fn a_thread_can_be_cancelled_while_an_untraced_program_runs() {
    let folder = Folder::new("starts-cancelled");
    let program = build(&folder);
    for (_, run) in Hazard::new(&program, &["cancelled"]).run(&folder) {
        assert_eq!(run.stdout(), "1\n", "its cleanup has run");
        let report = mtr_report([&run.path]).without_faults();
        assert!(said(&report).contains("1 program was started untraced"));
    }
}

#[test]
fn a_child_that_becomes_an_untraced_program_is_counted_by_its_parent() {
    let folder = Folder::new("starts-shell");
    // The shell forks for the first command, and ends by _exit.
    let script = "(unset LD_PRELOAD; exec /bin/true); :";
    let output = mtr_run(folder.path()).args(["/bin/sh", "-c", script]).output().unwrap();
    let report = Report::of_mtr_run(&output).without_faults();
    let expected = "1 program was started untraced: LD_PRELOAD was taken out";
    assert!(said(&report).contains(expected), "{}", report.description());
    // env is traced, and takes itself away.
    let script = "env -i /bin/true; :";
    let output = mtr_run(folder.path()).args(["/bin/sh", "-c", script]).output().unwrap();
    let report = Report::of_mtr_run(&output).without_faults();
    assert!(said(&report).contains("went on untraced as /bin/true"), "{}", report.description());
}

/// A folder for logs in which those of `true` cannot be made, and the name of logs there.
fn no_log_of_true(folder: &Folder) -> std::path::PathBuf {
    let logs = folder.join("logs");
    std::fs::create_dir_all(logs.join("true")).unwrap();
    logs.join("%e")
}

#[test]
fn a_program_that_a_traced_one_starts_does_not_complain() {
    let folder = Folder::new("silent");
    let output = no_log_of_true(&folder);
    let run = |program: &str, arguments: &[&str]| {
        let traced = Traced::new(&folder, program).args(arguments);
        let run = traced.env("MTR_OUTPUT", &output).run().succeeded();
        String::from_utf8_lossy(&run.output.stderr).into_owned()
    };
    let first = run("true", &[]);
    assert!(first.contains("/logs/true: it is a folder; the program runs untraced"), "{first}");
    assert_eq!(first.lines().count(), 1, "{first}");
    assert_eq!(run("/bin/sh", &["-c", "true; /bin/true; /bin/true & wait"]), "");
}

#[test]
fn under_mtr_run_only_its_own_program_complains() {
    let folder = Folder::new("silent-run");
    let output = no_log_of_true(&folder);
    let run = |arguments: &[&str]| {
        let mut command = mtr_run(folder.path());
        command.arg("--report-file=report").arg("-o").arg(&output).args(arguments);
        let output = command.output().unwrap();
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let first = run(&["true"]);
    assert!(first.contains("/logs/true: it is a folder; the program runs untraced"), "{first}");
    // Programs of others and the process itself, below it or not: a daemon's parent is not traced.
    for script in ["/bin/true; :", "exec /bin/true", "(setsid /bin/true &); exec /bin/true"] {
        assert_eq!(run(&["/bin/sh", "-c", script]), "", "{script}");
    }
}
