//! Whoever wants the same name for a log at the same time: no log of a live process is lost.

mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Barrier;
use std::thread;
use support::*;

/// A process that stays until it is told to end.
struct Stayer {
    child: Child,
    size: u64,
}

fn stayer(format: Format, program: &Path, output: &Path, size: u64) -> Command {
    let mut command = clean_command(program);
    command.env("LD_PRELOAD", library()).env("MTR_OUTPUT", output).arg(size.to_string());
    command.env("MTR_TRACE_FORMAT", format.name());
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command
}

/// Starts them at once and returns when all have allocated their block.
fn start(commands: Vec<(u64, Command)>) -> Vec<Stayer> {
    let together = Barrier::new(commands.len());
    let start = |(size, mut command): (u64, Command)| {
        together.wait();
        Stayer { child: command.spawn().expect("the program"), size }
    };
    let mut all: Vec<Stayer> = thread::scope(|scope| {
        let starts: Vec<_> =
            commands.into_iter().map(|command| scope.spawn(|| start(command))).collect();
        starts.into_iter().map(|start| start.join().unwrap()).collect()
    });
    for stayer in &mut all {
        let mut line = String::new();
        BufReader::new(stayer.child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
    }
    all
}

/// Every one of them has a log with its block.
#[track_caller]
fn all_have_logs(format: Format, folder: &Path, all: &[Stayer]) {
    let mut logs = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        assert!(!name.starts_with(".mtr-"), "an unfinished log is left: {name}");
        if !name.ends_with(".tail") {
            logs.push(Recorded::read(format, &path));
        }
    }
    for stayer in all {
        let own: Vec<_> = logs.iter().filter(|log| log.pid() == stayer.child.id()).collect();
        assert_eq!(own.len(), 1, "logs of process {}", stayer.child.id());
        own[0].is_sound();
        assert_eq!(own[0].counts()[&stayer.size], (1, 0), "{}", own[0].path().display());
    }
}

/// Some end normally, the others are killed and leave their tails.
fn end(all: &mut [Stayer]) {
    for (number, stayer) in all.iter_mut().enumerate() {
        match number % 2 {
            0 => drop(stayer.child.stdin.take()),
            _ => stayer.child.kill().unwrap(),
        }
    }
    for stayer in all {
        stayer.child.wait().unwrap();
    }
}

#[test]
fn forty_runs_at_once_with_one_name_lose_no_log() {
    let folder = Folder::new("names-one");
    let program = compile(&folder, "stays", &program("stays.c"), &["-pthread"]);
    for format in FORMATS {
        let logs = folder.join(format.name());
        fs::create_dir(&logs).unwrap();
        let output = logs.join("trace");
        for round in 0..6 {
            // The rounds before have left logs under that name, which may be replaced.
            let sizes = (0..40).map(|n| 10_000 + 100 * round + n);
            let commands = sizes.map(|n| (n, stayer(format, &program, &output, n)));
            let mut all = start(commands.collect());
            all_have_logs(format, &logs, &all);
            let owner = Recorded::read(format, &output).pid();
            assert!(all.iter().any(|s| s.child.id() == owner), "the name itself was not taken");
            end(&mut all);
            all_have_logs(format, &logs, &all);
        }
    }
}

#[test]
fn forty_runs_at_once_with_numbered_names_lose_no_log() {
    let folder = Folder::new("names-numbered");
    let program = compile(&folder, "stays", &program("stays.c"), &["-pthread"]);
    for format in FORMATS {
        let logs = folder.join(format.name());
        for round in 0..3u64 {
            let sizes = (0..40).map(|n| 20_000 + 100 * round + n);
            let output = logs.join("trace.%n");
            let commands = sizes.map(|n| (n, stayer(format, &program, &output, n)));
            let mut all = start(commands.collect());
            end(&mut all);
            all_have_logs(format, &logs, &all);
            for number in 1..=40 * (round + 1) {
                let name = format!("trace.{number}");
                assert!(logs.join(&name).is_file(), "{format:?}: no {name}");
            }
        }
    }
}

#[test]
fn a_process_whose_first_thread_has_ended_keeps_its_log() {
    let folder = Folder::new("names-leader");
    let program = compile(&folder, "stays", &program("stays.c"), &["-pthread"]);
    for format in FORMATS {
        let logs = folder.join(format.name());
        fs::create_dir(&logs).unwrap();
        let output = logs.join("trace");
        let mut first = stayer(format, &program, &output, 5001);
        first.arg("leader");
        let mut all = start(vec![(5001, first)]);
        all.extend(start(vec![(5002, stayer(format, &program, &output, 5002))]));
        let report = mtr_report([&output]).succeeded();
        assert!(report.text.contains("running"), "{}", report.description());
        end(&mut all);
        all_have_logs(format, &logs, &all);
        assert_eq!(Recorded::read(format, &output).pid(), all[0].child.id(), "{format:?}");
    }
}

#[test]
fn what_is_no_log_is_not_replaced() {
    let folder = Folder::new("names-foreign");
    let program = compile(&folder, "stays", &program("stays.c"), &["-pthread"]);
    let target = folder.join("target");
    fs::write(&target, "mine").unwrap();
    std::os::unix::fs::symlink(&target, folder.join("link")).unwrap();
    let pipe = folder.join("pipe");
    assert!(clean_command("mkfifo").arg(&pipe).status().unwrap().success());
    let run = |format: Format, output: &Path| {
        let mut command = stayer(format, &program, output, 1);
        let done = command.stdin(Stdio::null()).stderr(Stdio::piped()).output().unwrap();
        assert!(done.status.success(), "{format:?}: the program runs on: {done:?}");
        String::from_utf8_lossy(&done.stderr).into_owned()
    };
    for format in FORMATS {
        for (name, reason) in [
            ("link", "it is a symbolic link"),
            ("pipe", "it is not a regular file"),
            ("", "it is a folder"),
            ("target/below", "Not a directory"),
        ] {
            let stderr = run(format, &folder.join(name));
            assert!(stderr.contains(reason) && stderr.lines().count() == 1, "{name}: {stderr}");
        }
        assert_eq!(fs::read_to_string(&target).unwrap(), "mine", "{format:?}");
        assert!(!run(format, Path::new("/dev/full")).is_empty(), "{format:?}");
    }
}

#[test]
fn folders_that_are_missing_are_made() {
    let folder = Folder::new("names-folders");
    let program = compile(&folder, "stays", &program("stays.c"), &["-pthread"]);
    for format in FORMATS {
        let logs = folder.join(format.name()).join("a/b/c");
        let mut all = start(vec![(5003, stayer(format, &program, &logs.join("trace"), 5003))]);
        end(&mut all);
        all_have_logs(format, &logs, &all);
    }
}

#[test]
fn a_process_id_that_is_used_again_is_not_taken_for_the_writer() {
    let folder = Folder::new("names-reuse");
    let program = compile(&folder, "stays", &program("stays.c"), &["-pthread"]);
    let output = folder.join("trace");
    // This process is alive; its start time tells whether it is the one that wrote the log.
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let ticks: u64 = stat.rsplit(')').next().unwrap().split(' ').nth(20).unwrap().parse().unwrap();
    let log = |ticks: u64| {
        let pid = std::process::id();
        format!("# mtr log 1\n# id 00000000000000ff\n# pid {pid}\n# started 5.000000001 {ticks}\n")
    };
    for format in FORMATS {
        fs::write(&output, log(ticks)).unwrap();
        let mut all = start(vec![(5004, stayer(format, &program, &output, 5004))]);
        end(&mut all);
        assert_eq!(fs::read_to_string(&output).unwrap(), log(ticks), "its writer lives");
        fs::write(&output, log(ticks + 1)).unwrap();
        let mut all = start(vec![(5005, stayer(format, &program, &output, 5005))]);
        end(&mut all);
        let pid = Recorded::read(format, &output).pid();
        assert_eq!(pid, all[0].child.id(), "{format:?}: its writer is gone");
    }
}

#[test]
fn what_others_do_to_a_log_meanwhile_does_not_harm_the_program() {
    let folder = Folder::new("names-meddled");
    let program = compile(&folder, "many", &program("many.c"), &[]);
    type Deed = fn(&Path);
    let deeds: [(&str, Deed); 4] = [
        ("truncated", |log| fs::File::options().write(true).open(log).unwrap().set_len(0).unwrap()),
        ("removed", |log| fs::remove_file(log).unwrap()),
        ("tail-removed", |log| fs::remove_file(tail_of(log)).unwrap()),
        ("folder-gone", |log| fs::remove_dir_all(log.parent().unwrap()).unwrap()),
    ];
    for (format, (name, deed)) in FORMATS.iter().flat_map(|f| deeds.map(|deed| (f, deed))) {
        let log = folder.join(format.name()).join(name).join("trace");
        let mut child = clean_command(&program)
            .env("LD_PRELOAD", library())
            .env("MALLOC_TRACE", &log)
            .env("MTR_TRACE_FORMAT", format.name())
            .args(["20000", "again"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        deed(&log);
        let output = child.wait_with_output().unwrap();
        assert!(
            output.status.success() && output.stderr.is_empty(),
            "{format:?}, {name}: {output:?}"
        );
        if log.exists() {
            let report = mtr_report([&log]);
            assert!(report.status.code().is_some_and(|c| c <= 2), "{}", report.description());
            assert!(!report.stderr.contains("panicked"), "{}", report.description());
        }
    }
}
