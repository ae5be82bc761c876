//! What cannot be recorded: the program goes on, and what is missing is counted and said.

mod support;

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use support::*;

const BLOCKS: usize = 60_000;

fn build(folder: &Folder) -> std::path::PathBuf {
    compile(folder, "many", &program("many.c"), &[])
}

/// All records that `many` makes.
fn all_records(folder: &Folder, program: &Path) -> u64 {
    let run = Traced::with_log(folder.join("whole.log"), program).arg(BLOCKS.to_string()).run();
    run.succeeded().log().is_in_order().records().count() as u64
}

/// The log is a whole front of what it would have been, and says how much is missing.
#[track_caller]
fn ends_early(log: &Log, all: u64) {
    assert!(log.damaged.is_empty(), "{:?}", log.damaged);
    assert!(log.faults().is_empty(), "{:?}", log.faults());
    let records = log.records().count() as u64;
    assert!(records > 0 && log.lost() > 0, "{records} records, {} lost", log.lost());
    assert_eq!(records + log.lost(), all);
    let stated: u64 = String::from_utf8_lossy(&log.notes("lost")[0][2]).parse().unwrap();
    assert!(stated > 0, "when it began is stated");
}

#[track_caller]
fn the_report_says(path: &Path, log: &Log, reason: &str) {
    let report = mtr_report([path]).without_faults();
    let text = report.unbroken();
    let missing: String = thousands(log.lost());
    assert!(text.contains(&format!("{missing} records")), "{}", report.description());
    assert!(text.contains(reason), "{}", report.description());
    let strict = mtr_report([Path::new("--strict"), path]);
    assert_eq!(strict.status.code(), Some(3), "{}", strict.description());
}

fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[test]
fn a_log_ends_at_the_size_that_was_asked_for() {
    let folder = Folder::new("losses-size");
    let program = build(&folder);
    let all = all_records(&folder, &program);
    for (size, bytes) in [("300K", 300 << 10), ("1M", 1 << 20)] {
        let run = Traced::new(&folder, &program)
            .arg(BLOCKS.to_string())
            .env("MTR_MAX_TRACE_SIZE", size)
            .run()
            .succeeded();
        let (log, length) = (run.log(), fs::metadata(&run.path).unwrap().len());
        ends_early(&log, all);
        assert!((bytes - 32_768..=bytes).contains(&length), "{length} bytes of {size}");
        assert!(!log.has_tail);
        assert_eq!(log.notes("exit").len(), 1, "how it ended is known");
        the_report_says(&run.path, &log, "the trace had reached the size of --max-trace-size");
    }
}

#[test]
fn a_limit_of_no_records_and_one_that_is_not_reached() {
    let folder = Folder::new("losses-none");
    let program = build(&folder);
    let all = all_records(&folder, &program);
    let run = |size: &str| {
        let run = Traced::new(&folder, &program).arg(BLOCKS.to_string());
        run.env("MTR_MAX_TRACE_SIZE", size).run().succeeded()
    };
    let log = run("0").log();
    assert_eq!((log.records().count() as u64, log.lost()), (0, all));
    let log = run("1G").log();
    assert_eq!(log.is_in_order().records().count() as u64, all);
    let wrong = run("much");
    assert!(!wrong.path.exists() || Log::read(&wrong.path).unwrap().pid() == log.pid());
    let stderr = String::from_utf8_lossy(&wrong.output.stderr);
    assert!(stderr.contains("MTR_MAX_TRACE_SIZE must be a number"), "{stderr}");
}

#[test]
fn a_kill_behind_the_limit_leaves_a_whole_front_and_the_count() {
    let folder = Folder::new("losses-killed");
    let program = build(&folder);
    let log = folder.join("trace.log");
    let mut child = clean_command(&program)
        .env("LD_PRELOAD", library())
        .env("MALLOC_TRACE", &log)
        .env("MTR_MAX_TRACE_SIZE", "300K")
        .args([&BLOCKS.to_string(), "stay"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let report = mtr_report([&log]).without_faults();
    assert!(report.text.contains("records are missing"), "{}", report.description());
    let summary = report.summary();
    assert!(summary.in_use_blocks <= 1, "{}", report.description());
    assert!(fs::metadata(&log).unwrap().len() <= (300 << 10) + 16);
}

/// Runs a program whose log or trace suffers `deed` in the middle.
fn damaged_meanwhile(format: Format, folder: &Folder, deed: impl Fn(&File)) -> PathBuf {
    let program = folder.join("goes_on_after_a_pause");
    let (mut child, trace) =
        format.traced(folder, &program).arg(BLOCKS.to_string()).spawn_with_pipes();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    deed(&File::options().write(true).open(&trace).unwrap());
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
    trace
}

#[test]
fn a_part_that_somebody_cut_off_is_said_to_be_missing_and_explains_what_it_may() {
    let folder = Folder::new("losses-cut");
    let source = support::program("goes_on_after_a_pause.c");
    compile(&folder, "goes_on_after_a_pause", &source, &[]);
    let half: fn(&File) = |file| file.set_len(file.metadata().unwrap().len() / 2).unwrap();
    let all: fn(&File) = |file| file.set_len(0).unwrap();
    for format in FORMATS {
        for (what, deed) in [("half", half), ("all", all)] {
            let trace = damaged_meanwhile(format, &folder, deed);
            let report = mtr_report([&trace]).succeeded();
            let (text, what) = (report.unbroken(), report.description() + what);
            assert!(!text.contains("fault"), "{what}");
            assert!(!text.contains("before tracing began"), "{what}");
            assert!(
                text.contains("missing") && text.contains("somebody changed the file"),
                "{what}"
            );
            let strict = mtr_report([Path::new("--strict"), &trace]);
            assert_eq!(strict.status.code(), Some(3), "{}", strict.description());
        }
    }
}

#[test]
fn how_much_of_a_log_was_cut_off_and_where_is_said() {
    let folder = Folder::new("losses-hole");
    let source = support::program("goes_on_after_a_pause.c");
    compile(&folder, "goes_on_after_a_pause", &source, &[]);
    let trace = damaged_meanwhile(Format::Text, &folder, |file| {
        file.set_len(file.metadata().unwrap().len() / 2).unwrap();
    });
    let bytes = fs::read(&trace).unwrap();
    let at = bytes.iter().position(|byte| *byte == 0).unwrap();
    let hole = bytes[at..].iter().position(|byte| *byte != 0).unwrap();
    let lines = bytes[..at].iter().filter(|byte| **byte == b'\n').count();
    let [hole, lines, at] = [hole, lines, at].map(|number| thousands(number as u64));
    let says = format!("{hole} bytes of the trace are missing behind line {lines} (byte {at})");
    let report = mtr_report([&trace]).succeeded();
    let text = report.unbroken();
    assert!(text.contains(&says), "{says}: {}", report.description());
    // 120,000 of each kind in all; how many are missing is an estimate.
    let seen = report.summary().allocations + report.summary().frees;
    let missing = 2 * (2 * BLOCKS as u64) - seen;
    let (_, rest) = text.split_once(", some ").unwrap();
    let said: u64 = rest.split(' ').next().unwrap().replace(',', "").parse().unwrap();
    assert!((missing * 9 / 10..missing * 11 / 10).contains(&said), "{missing}: {text}");
}

#[test]
fn mtr_run_has_both_limits_and_reports_in_both_formats() {
    let folder = Folder::new("losses-run");
    let program = build(&folder);
    for format in ["mtrace", "compact"] {
        let mut command = mtr_run(folder.path());
        command.arg(format!("--trace-format={format}")).arg("--max-trace-size=100K");
        let output = command.arg(&program).arg(BLOCKS.to_string()).output().unwrap();
        let report = Report::of_mtr_run(&output).without_faults();
        assert!(report.text.contains("records are missing"), "{}", report.description());
        let mut command = mtr_run(folder.path());
        command.arg(format!("--trace-format={format}")).arg("--keep-free=8000000G");
        let output = command.arg(&program).arg(BLOCKS.to_string()).output().unwrap();
        let report = Report::of_mtr_run(&output);
        assert!(report.unbroken().contains("disk was nearly full"), "{}", report.description());
    }
    let wrong = mtr_run(folder.path()).arg("--max-trace-size=1X").arg(&program).output().unwrap();
    assert_eq!(wrong.status.code(), Some(125));
}

/// Runs a program with its log on a file system of its own, of `size` bytes, on which `before` (a line of
/// shell) has been run. The log is copied to `folder/trace.log`.
fn on_a_small_disk(folder: &Folder, size: &str, before: &str, command: &str) -> Option<Output> {
    let probe = clean_command("unshare").args(["-Urm", "true"]).status();
    if !probe.is_ok_and(|status| status.success()) {
        skip("a small disk", "unshare cannot make a mount namespace here");
        return None;
    }
    let disk = folder.join("disk");
    let _ = fs::create_dir(&disk);
    let script = format!(
        "mount -t tmpfs -o size={size} none {disk} && {before} && \
         LD_PRELOAD={} MTR_OUTPUT={disk}/trace.log {command}; status=$?; \
         df -B1 --output=avail {disk} | tail -1; cp {disk}/trace.log* {}/ ; exit $status",
        library(),
        folder.path().display(),
        disk = disk.display(),
    );
    Some(clean_command("unshare").args(["-Urm", "sh", "-c", &script]).output().unwrap())
}

/// `many` as a command line.
fn many(folder: &Folder, env: &str) -> String {
    format!("{env} {} {BLOCKS}", build(folder).display())
}

#[test]
fn a_disk_is_not_filled() {
    let folder = Folder::new("losses-disk");
    let Some(output) = on_a_small_disk(&folder, "3m", "true", &many(&folder, "")) else { return };
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let left: u64 = String::from_utf8_lossy(&output.stdout).trim().parse().unwrap();
    // The tail has been removed by now.
    assert!((100_000..600_000).contains(&left), "{left} bytes are left");
    let log = Log::read(&folder.join("trace.log")).unwrap();
    ends_early(&log, all_records(&folder, &folder.join("many")));
    assert_eq!((log.has_tail, log.notes("exit").len()), (false, 1));
    the_report_says(&log.path, &log, "the disk was nearly full");
}

#[test]
fn a_disk_that_fills_up_is_survived_and_said() {
    let folder = Folder::new("losses-full");
    let command = many(&folder, "MTR_KEEP_FREE=0");
    let Some(output) = on_a_small_disk(&folder, "1m", "true", &command) else { return };
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let log = Log::read(&folder.join("trace.log")).unwrap();
    assert!(log.lost() > 0);
    ends_early(&log, all_records(&folder, &folder.join("many")));
    the_report_says(&log.path, &log, "No space left on device");
}

#[test]
fn on_a_full_disk_errno_is_kept_and_the_end_is_known_in_both_formats() {
    let folder = Folder::new("losses-errno");
    let source = support::program("file_size_limit.c");
    let program = compile(&folder, "file_size_limit", &source, &["-pthread"]);
    for format in FORMATS {
        let whole = format.traced(&folder, &program).args(&["none", "", "40"]).run();
        let all = mtr_report([&whole.path]).events();
        let name = if format == Format::Text { "mtrace" } else { "compact" };
        // Less and more than the tail has at first.
        for size in ["200k", "300k", "400k"] {
            let env = format!("MTR_KEEP_FREE=0 MTR_TRACE_FORMAT={name}");
            let command = format!("{env} {} none - 40", program.display());
            let output = on_a_small_disk(&folder, size, "true", &command);
            let Some(output) = output else { return };
            assert!(output.stderr.is_empty() && output.status.code() == Some(7), "{output:?}");
            let stdout = String::from_utf8_lossy(&output.stdout);
            assert!(stdout.starts_with("errno was changed 0 times\n"), "{stdout}");
            let recorded = Recorded::read(format, &folder.join("trace.log"));
            let lost = recorded.accounts_for(all);
            assert!(lost > 0 && recorded.says_exit() && !recorded.has_tail(), "{name}, {size}");
            let report = mtr_report([recorded.path()]).without_faults();
            let text = report.unbroken();
            assert!(text.contains("No space left on device"), "{}", report.description());
            assert!(!text.contains("by a signal"), "{}", report.description());
            assert_eq!(report.lost(), lost, "{}", report.description());
            fs::remove_file(recorded.path()).unwrap();
        }
    }
}

#[test]
fn a_disk_that_is_full_from_the_start_is_said_at_once() {
    let folder = Folder::new("losses-none-left");
    let fill = format!(
        "head -c 10m /dev/zero > {}/full 2>/dev/null || true",
        folder.join("disk").display()
    );
    let command = many(&folder, "MTR_KEEP_FREE=0");
    let Some(output) = on_a_small_disk(&folder, "1m", &fill, &command) else { return };
    assert!(!folder.join("trace.log").exists());
    let stderr = String::from_utf8_lossy(&output.stderr);
    let line = stderr.lines().find(|line| line.starts_with("mtr: ")).unwrap_or_default();
    assert!(line.contains("No space left on device; the program runs untraced"), "{stderr}");
}

#[test]
fn a_child_of_a_process_whose_log_has_ended_has_a_log_that_goes_on() {
    let folder = Folder::new("losses-fork");
    let source = support::program("fork_in_a_loop.c");
    let program = compile(&folder, "fork_in_a_loop", &source, &[]);
    // Room for the header and the first lines of each; the parent's is used up first.
    let run = Traced::new(&folder, &program).arg("900").env("MTR_MAX_TRACE_SIZE", "40K").run();
    let run = run.succeeded();
    let parent = run.log();
    assert!(parent.lost() > 0, "{}", run.description());
    let logs = logs_beside(&run.path);
    assert_eq!(logs.len(), 901);
    for child in logs.iter().filter(|log| log.path != run.path) {
        child.is_sound();
        assert_eq!(
            child.records().filter(|r| r.allocated().is_some_and(|(_, n)| n >= 8000)).count(),
            100
        );
    }
}
