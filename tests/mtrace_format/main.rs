//! `--format mtrace` against the `mtrace` script: recorded answers of the script, and the script
//! itself where it is installed.
//!
//! - `recorded_cases_print_what_the_script_printed`: tests/cases/mtrace, one rule per case
//! - `recorded_logs_print_what_the_script_printed`: golden files for every other log
//! - `the_script_agrees_on_every_recorded_log`
//! - `the_script_agrees_on_random_logs`
//! - `paths_with_blanks_read_like_paths_without`
//!
//! `MTR_BLESS=1` rewrites the golden files (with the script's output where it is installed).
//! `MTR_RANDOM_LOGS=N` sets the number of random logs, `MTR_RANDOM_SEED=N` the first seed.

mod random_logs;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use mtr_analyzer::output::mtrace::{Locations, Script};
use random_logs::{Random, address, random_log, size};

/// What a run prints and how it exits.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Outcome {
    stdout: Vec<u8>,
    rc: i32,
}

/// The report of `Script`, with the script's own places.
fn ours(log: &[u8]) -> Outcome {
    let mut script = Script::new();
    let mut locations = Locations::new();
    let mut place = |where_: &[u8]| locations.location(where_);
    let mut stdout = Vec::new();
    for line in lines(log) {
        script.line(line, &mut stdout, &mut place).expect("writing to memory");
    }
    let leaked = script.finish(&mut stdout, &mut place).expect("writing to memory");
    Outcome { stdout, rc: i32::from(leaked) }
}

/// The lines of a log as perl's `<DATA>` counts them.
fn lines(log: &[u8]) -> impl Iterator<Item = &[u8]> {
    log.split_inclusive(|&byte| byte == b'\n').map(|line| line.strip_suffix(b"\n").unwrap_or(line))
}

/// The real script.
struct RealScript {
    folder: tempfile::TempDir,
}

impl RealScript {
    /// `None`, and a line that says so, where it is not installed.
    fn find(test: &str) -> Option<Self> {
        let found = Command::new("mtrace").arg("--version").output();
        if !found.is_ok_and(|output| output.stdout.starts_with(b"mtrace ")) {
            println!("skipped: {test} (needs the mtrace script)");
            return None;
        }
        Some(Self { folder: tempfile::tempdir().expect("a temporary folder") })
    }

    fn run(&self, log: &[u8]) -> Outcome {
        let path = self.folder.path().join("log");
        fs::write(&path, log).expect("the log is written");
        let output = Command::new("mtrace")
            .arg(&path)
            // Settings of the user's perl that change how it reads bytes.
            .env_remove("PERL_UNICODE")
            .env_remove("PERL5OPT")
            .stdin(Stdio::null())
            .output()
            .expect("the script runs");
        Outcome { stdout: output.stdout, rc: output.status.code().expect("an exit status") }
    }
}

fn tests_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests")
}

/// Every file of a folder that is a log, by name.
fn logs() -> Vec<(String, Vec<u8>)> {
    let mut logs = Vec::new();
    for folder in ["cases/logs", "cases/classic"] {
        for entry in fs::read_dir(tests_folder().join(folder)).expect("the folder of logs") {
            let path = entry.expect("a folder's entry").path();
            if path.extension().is_some_and(|extension| extension != "md") {
                let name = path.file_name().expect("a file's name").to_string_lossy().into_owned();
                logs.push((name, fs::read(&path).expect("a log")));
            }
        }
    }
    assert!(logs.len() >= 18, "the recorded logs are gone");
    logs.sort();
    logs
}

/// Case folders with a file `input.log`, by name.
fn cases() -> Vec<(String, PathBuf)> {
    let mut cases: Vec<_> = fs::read_dir(tests_folder().join("cases/mtrace"))
        .expect("the folder of cases")
        .map(|entry| entry.expect("a folder's entry").path())
        .map(|path| (path.file_name().expect("a name").to_string_lossy().into_owned(), path))
        .collect();
    assert!(cases.len() >= 39, "the recorded cases are gone");
    cases.sort();
    cases
}

/// What differs, line by line; empty when nothing does.
fn diff(expected: &Outcome, printed: &Outcome) -> String {
    let mut text = String::new();
    if expected.rc != printed.rc {
        writeln!(text, "  exit status: expected {}, got {}", expected.rc, printed.rc).unwrap();
    }
    let split = |stdout: &[u8]| -> Vec<String> {
        stdout.split_inclusive(|&b| b == b'\n').map(|l| l.escape_ascii().to_string()).collect()
    };
    let (expected, printed) = (split(&expected.stdout), split(&printed.stdout));
    let same = expected.iter().zip(&printed).take_while(|(a, b)| a == b).count();
    let (expected, printed) = (&expected[same..], &printed[same..]);
    let tail = expected.iter().rev().zip(printed.iter().rev()).take_while(|(a, b)| a == b).count();
    for line in expected[..expected.len() - tail].iter().take(20) {
        writeln!(text, "  -{line}").unwrap();
    }
    for line in printed[..printed.len() - tail].iter().take(20) {
        writeln!(text, "  +{line}").unwrap();
    }
    if text.is_empty() { text } else { format!("  (- expected, + ours, from line {same})\n{text}") }
}

/// Fails with all that differs, each under the name of its case.
fn report_failures(failures: &[(String, String)], hint: &str) {
    let text: String = failures.iter().map(|(name, diff)| format!("{name}:\n{diff}")).collect();
    assert!(failures.is_empty(), "{} differ from the script:\n{text}{hint}", failures.len());
}

fn failures(named: impl IntoIterator<Item = (String, Outcome, Outcome)>) -> Vec<(String, String)> {
    named
        .into_iter()
        .map(|(name, expected, printed)| (name, diff(&expected, &printed)))
        .filter(|(_, diff)| !diff.is_empty())
        .collect()
}

#[test]
fn recorded_cases_print_what_the_script_printed() {
    let named = cases().into_iter().map(|(name, folder)| {
        let read =
            |file: &str| fs::read(folder.join(file)).unwrap_or_else(|e| panic!("{name}: {e}"));
        let rc = String::from_utf8(read("rc")).expect("a number");
        let expected = Outcome { stdout: read("stdout"), rc: rc.trim().parse().expect("a number") };
        let printed = ours(&read("input.log"));
        (name, expected, printed)
    });
    report_failures(&failures(named), "See tests/cases/mtrace/NAME/input.log.");
}

#[test]
fn recorded_logs_print_what_the_script_printed() {
    let golden = tests_folder().join("golden/mtrace");
    if std::env::var_os("MTR_BLESS").is_some() {
        let script = RealScript::find("golden files by the script; they are made of our output");
        fs::create_dir_all(&golden).expect("the folder of golden files");
        for (name, log) in logs() {
            let outcome = script.as_ref().map_or_else(|| ours(&log), |script| script.run(&log));
            fs::write(golden.join(name + ".out"), to_golden(&outcome)).expect("a golden file");
        }
    }
    let named = logs().into_iter().map(|(name, log)| {
        let file = golden.join(format!("{name}.out"));
        let text = fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        (name, from_golden(&text), ours(&log))
    });
    report_failures(&failures(named), "If the golden files are wrong: MTR_BLESS=1 cargo test");
}

/// A golden file is the output and a last line with the exit status.
fn to_golden(outcome: &Outcome) -> Vec<u8> {
    [&outcome.stdout, format!("exit status {}\n", outcome.rc).as_bytes()].concat()
}

fn from_golden(text: &[u8]) -> Outcome {
    let status = b"exit status ";
    let at = text.windows(status.len()).rposition(|bytes| bytes == status).expect("a status");
    let rc = String::from_utf8_lossy(&text[at + status.len()..]).trim().parse();
    Outcome { stdout: text[..at].to_vec(), rc: rc.expect("a number") }
}

#[test]
fn the_script_agrees_on_every_recorded_log() {
    let Some(script) = RealScript::find("the_script_agrees_on_every_recorded_log") else { return };
    let logs = logs().into_iter().chain(cases().into_iter().map(|(name, folder)| {
        let log = fs::read(folder.join("input.log")).expect("a log");
        (name, log)
    }));
    let named = logs.map(|(name, log)| (name, script.run(&log), ours(&log)));
    report_failures(&failures(named), "");
}

/// Removes lines as long as the two still differ.
fn shrink(script: &RealScript, mut lines: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let mut chunk = lines.len().div_ceil(2);
    while chunk > 0 {
        let mut at = 0;
        while at < lines.len() {
            let mut fewer = lines.clone();
            fewer.drain(at..(at + chunk).min(lines.len()));
            let log = fewer.join(&b'\n');
            if script.run(&log) == ours(&log) {
                at += chunk;
            } else {
                lines = fewer;
            }
        }
        chunk /= 2;
    }
    lines
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

#[test]
fn the_script_agrees_on_random_logs() {
    let Some(script) = RealScript::find("the_script_agrees_on_random_logs") else { return };
    let first = setting("MTR_RANDOM_SEED", 1);
    let (mut read, mut left_out, mut faults, mut leaks) = (0, 0, 0, 0);
    for seed in first..first + setting("MTR_RANDOM_LOGS", 60) {
        let (lines, without) = random_log(seed);
        let mut log = lines.join(&b'\n');
        if seed % 2 == 0 {
            log.push(b'\n');
        }
        let expected = script.run(&log);
        let printed = ours(&log);
        if expected != printed {
            let log = shrink(&script, lines).join(&b'\n');
            let difference = diff(&script.run(&log), &ours(&log));
            panic!("seed {seed}: these lines differ:\n{}\n{difference}", log.escape_ascii());
        }
        read += lines.len();
        left_out += without;
        let report = String::from_utf8_lossy(&printed.stdout);
        faults += report.matches(" Free ").count() + report.matches(" duplicate: ").count();
        leaks += report.matches("  at ").count();
    }
    println!("{read} lines agree ({faults} faults, {leaks} leaks), {left_out} left out");
    assert!(left_out * 20 < read, "too many lines are left out: {left_out} of {read}");
    assert!(faults * 50 > read && leaks * 50 > read, "the logs show too little");
}

/// The script reads a path without blanks, so it says what the same log means when another byte
/// stands for the blanks.
#[test]
fn paths_with_blanks_read_like_paths_without() {
    const STAND_IN: &str = "\u{1}";
    let Some(script) = RealScript::find("paths_with_blanks_read_like_paths_without") else {
        return;
    };
    for seed in 1..=setting("MTR_RANDOM_LOGS", 10) {
        let mut random = Random(seed);
        let (mut blanks, mut stand_ins) = (String::new(), String::new());
        for _ in 0..2000 {
            let file = random.pick(&[
                "./my prog",
                "/opt/My App (x86)/bin/app",
                "/a  b/c d",
                "evil + 0x1 0x2",
                "evil - 0x1] < 0x3",
                "me@ work/t",
                "./trailing ",
                "./plain",
            ]);
            let offset = random.below(64);
            let symbol = random.pick(&["", "(main+1d)", "(_ZN1a1bEv+0x2c)"]);
            let operation = random.pick(&["+", "-", "<", ">", "!"]);
            let tail = format!(
                ":{symbol}[{offset:#x}] {operation} {} {}",
                address(&mut random),
                size(&mut random)
            );
            writeln!(blanks, "@ {file}{tail}").unwrap();
            writeln!(stand_ins, "@ {}{tail}", file.replace(' ', STAND_IN)).unwrap();
        }
        let mut expected = script.run(stand_ins.as_bytes());
        for byte in &mut expected.stdout {
            if *byte == STAND_IN.as_bytes()[0] {
                *byte = b' ';
            }
        }
        let difference = diff(&expected, &ours(blanks.as_bytes()));
        assert!(difference.is_empty(), "seed {seed}:\n{difference}");
    }
}
