//! Programs that are traced while a debugger stops them, strace sees their system calls, or perf
//! interrupts them: nothing of the record is missing. And mtr-run of such a tool traces both.

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use support::*;

const BLOCKS: u64 = 3001;

fn build(folder: &Folder) -> PathBuf {
    compile(folder, "ends", &program("ends.c"), &["-pthread", "-g"])
}

/// The variables that have a program traced in this format, and the trace.
fn variables(format: Format, folder: &Folder) -> (Vec<(&'static str, String)>, PathBuf) {
    let (name, path) = match format {
        Format::Text => ("mtrace", folder.join("trace.log")),
        Format::Compact => ("compact", folder.join("trace.mtr")),
    };
    let output = path.to_str().unwrap().to_owned();
    let library = library().to_owned();
    (vec![("LD_PRELOAD", library), ("MTR_TRACE_FORMAT", name.into()), ("MTR_OUTPUT", output)], path)
}

fn text(output: &Output) -> String {
    let all = [&*output.stdout, &*output.stderr].concat();
    String::from_utf8_lossy(&all).into_owned()
}

/// Everything that ends.c did is there.
#[track_caller]
fn is_complete(format: Format, path: &Path) {
    let recorded = Recorded::read(format, path);
    recorded.is_in_order();
    recorded.is_finished();
    assert_eq!(recorded.counts()[&4242], (BLOCKS, BLOCKS / 2), "{format:?}");
    the_report_agrees(&recorded);
}

#[test]
fn a_program_that_a_debugger_stops_and_steps_is_recorded() {
    let test = "a_program_that_a_debugger_stops_and_steps_is_recorded";
    let Some(gdb) = need("gdb", test) else { return };
    let folder = Folder::new("gdb");
    let program = build(&folder);
    for format in FORMATS {
        let (variables, path) = variables(format, &folder);
        let mut command = clean_command(&gdb);
        command.args(["-q", "-nx", "-batch"]).current_dir(folder.path());
        for (name, value) in &variables {
            command.arg("-ex").arg(format!("set environment {name} {value}"));
        }
        // Stopped in the middle of a hook, in a thread of it, and while another one ends the process.
        let script = [
            "set startup-with-shell off",
            "tbreak main",
            "run",
            "tbreak malloc",
            "continue",
            "stepi 400",
            "backtrace",
            "tbreak free",
            "continue",
            "stepi 200",
            "finish",
            "tbreak call_exit",
            "continue",
            "info threads",
            "continue",
        ];
        for line in script {
            command.args(["-ex", line]);
        }
        let blocks = BLOCKS.to_string();
        command.arg("--args").arg(&program).args(["exit_in_thread", &blocks]);
        let output = command.output().unwrap();
        let text = text(&output);
        if text.contains("Couldn't get registers") || text.contains("ptrace: Operation not") {
            return skip(test, "processes must not be traced here");
        }
        assert!(text.contains("exited with code 07"), "{format:?}\n{text}");
        assert!(text.contains("main ("), "the backtrace ends in main\n{text}");
        is_complete(format, &path);
    }
}

#[test]
fn a_program_whose_system_calls_are_watched_is_recorded() {
    let test = "a_program_whose_system_calls_are_watched_is_recorded";
    let Some(strace) = need("strace", test) else { return };
    let folder = Folder::new("strace");
    let program = build(&folder);
    let under_strace = || -> Command {
        let mut command = clean_command(&strace);
        command.args(["-f", "-o", "/dev/null"]).current_dir(folder.path());
        command
    };
    if !under_strace().arg("true").output().unwrap().status.success() {
        return skip(test, "processes must not be traced here");
    }
    for format in FORMATS {
        let (variables, path) = variables(format, &folder);
        let mut command = under_strace();
        for (name, value) in &variables {
            command.arg("-E").arg(format!("{name}={value}"));
        }
        let output = command.arg(&program).args(["exit_in_thread", &BLOCKS.to_string()]).output();
        let output = output.unwrap();
        assert_eq!(output.status.code(), Some(7), "{format:?}\n{}", text(&output));
        is_complete(format, &path);
    }
}

#[test]
fn mtr_run_of_strace_records_the_program_as_well() {
    let test = "mtr_run_of_strace_records_the_program_as_well";
    if need("strace", test).is_none() {
        return;
    }
    let folder = Folder::new("run-strace");
    let program = build(&folder);
    let output = mtr_run(folder.path())
        .args(["-o", "trace.mtr", "--", "strace", "-f", "-o", "/dev/null"])
        .arg(&program)
        .args(["return", &BLOCKS.to_string()])
        .output()
        .unwrap();
    let text = text(&output);
    if text.contains("ptrace") {
        return skip(test, "processes must not be traced here");
    }
    assert_eq!(output.status.code(), Some(7), "{text}");
    let all = Recorded::all_beside(Format::Compact, &folder.join("trace.mtr"));
    let complete =
        |recorded: &&Recorded| recorded.counts().get(&4242) == Some(&(BLOCKS, BLOCKS / 2));
    assert_eq!(all.iter().filter(complete).count(), 1, "{text}");
}

#[test]
fn a_program_that_perf_samples_is_recorded() {
    let test = "a_program_that_perf_samples_is_recorded";
    let Some(perf) = need("perf", test) else { return };
    let folder = Folder::new("perf");
    let program = build(&folder);
    let under_perf = || -> Command {
        let mut command = clean_command(&perf);
        // Call graphs are found by copying the stack at each sample.
        let record = ["record", "-q", "-e", "cpu-clock", "-F", "5000", "--call-graph", "dwarf"];
        command.args(record).args(["-o", "perf.data", "--"]).current_dir(folder.path());
        command
    };
    if !under_perf().arg("true").output().unwrap().status.success() {
        return skip(test, "perf may not sample here");
    }
    for format in FORMATS {
        let (variables, path) = variables(format, &folder);
        let mut command = under_perf();
        command.arg("env");
        for (name, value) in &variables {
            command.arg(format!("{name}={value}"));
        }
        let output = command.arg(&program).args(["exit", &BLOCKS.to_string()]).output().unwrap();
        assert_eq!(output.status.code(), Some(7), "{format:?}\n{}", text(&output));
        is_complete(format, &path);
    }
}
