//! What mtr-report says of input that it cannot use: which file, what was expected, exit code 2.

mod support;

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::{Output, Stdio};
use support::*;

/// Runs mtr-report, which must refuse and name `culprit` on stderr.
#[track_caller]
fn refuses(arguments: &[&Path], culprit: &Path) -> Report {
    let report = mtr_report(arguments);
    assert_eq!(report.status.code(), Some(2), "{}", report.description());
    assert!(report.text.is_empty(), "nothing on stdout: {}", report.description());
    let name = culprit.to_str().unwrap();
    assert!(report.stderr.contains(name), "{name} is not named: {}", report.description());
    assert!(report.stderr.lines().count() <= 5, "short: {}", report.description());
    does_not_panic(&report);
    report
}

#[track_caller]
fn does_not_panic(report: &Report) {
    assert!(report.status.code().is_some_and(|c| c <= 2), "{}", report.description());
    assert!(!report.stderr.contains("panicked"), "{}", report.description());
}

#[track_caller]
fn says(report: &Report, words: &[&str]) {
    let text = report.stderr.to_lowercase();
    assert!(words.iter().any(|w| text.contains(w)), "none of {words:?}: {}", report.description());
}

#[test]
fn a_missing_file_is_named() {
    let folder = Folder::new("bad-missing");
    let path = folder.join("no-such.log");
    says(&refuses(&[&path], &path), &["no such file"]);
}

#[test]
fn a_folder_is_named() {
    let folder = Folder::new("bad-folder");
    says(&refuses(&[folder.path()], folder.path()), &["directory", "folder"]);
}

#[test]
fn an_empty_file_is_named() {
    let folder = Folder::new("bad-empty");
    let path = folder.join("empty.log");
    std::fs::write(&path, "").unwrap();
    says(&refuses(&[&path], &path), &["empty"]);
}

#[test]
fn garbage_is_refused_and_what_was_expected_is_said() {
    let folder = Folder::new("bad-garbage");
    let path = folder.join("garbage.bin");
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let noise: Vec<u8> = (0..100_000)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        })
        .collect();
    for bytes in [&noise[..], b"PK\x03\x04 an archive", b"some text\nof another kind\n"] {
        std::fs::write(&path, bytes).unwrap();
        let report = refuses(&[&path], &path);
        says(&report, &["an mtrace log"]);
        says(&report, &["a compact trace (.mtr)"]);
    }
}

#[test]
fn a_version_that_is_not_known_is_said_with_that_which_is() {
    let folder = Folder::new("bad-version");
    let cases: [(&[u8], &str); 4] = [
        (b"# mtr log 9\n", ":1: expected a log of version 1 at most, got version 9"),
        (b"mtr\x1f and more", ": expected a compact trace of version "),
        (b"mtr\x1f and more", " at most, got version 31; it needs a newer mtr-report"),
        (b"mtr\x01 and more", "got a compact trace of version 1, which is too old"),
    ];
    let path = folder.join("trace");
    for (bytes, words) in cases {
        std::fs::write(&path, bytes).unwrap();
        says(&refuses(&[&path], &path), &[words]);
    }
}

#[test]
fn an_unreadable_file_is_named() {
    let folder = Folder::new("bad-mode");
    let path = folder.join("secret.log");
    std::fs::write(&path, "= Start\n").unwrap();
    let none = std::os::unix::fs::PermissionsExt::from_mode(0o000);
    std::fs::set_permissions(&path, none).unwrap();
    if std::fs::File::open(&path).is_ok() {
        return skip("an_unreadable_file_is_named", "this user may read everything");
    }
    says(&refuses(&[&path], &path), &["permission denied"]);
}

#[test]
fn a_program_without_a_trace_is_refused() {
    let folder = Folder::new("bad-elf");
    let program = compile(&folder, "t_mtrace", &example("t_mtrace.c"), &[]);
    says(&refuses(&[&program], &program), &["trace", "log"]);
}

#[test]
fn no_argument_and_an_unknown_option_are_refused() {
    for arguments in [&[][..], &["--no-such-option"], &["--format", "no-such-format", "log"]] {
        let report = mtr_report(arguments);
        assert_eq!(report.status.code(), Some(2), "{}", report.description());
        assert!(!report.stderr.is_empty(), "{}", report.description());
        does_not_panic(&report);
    }
}

#[test]
fn a_truncated_log_is_reported_as_far_as_it_goes() {
    let folder = Folder::new("bad-truncated");
    let path = folder.join("trace.log");
    let whole = "= Start\n\
        @ ./t:[0x1157] + 0x55a960000010 0x64\n\
        @ ./t:[0x1157] + 0x55a960000100 0x32\n\
        @ ./t:[0x1186] + 0x55a960000200 0xc8\n";
    let last = whole.trim_end().rfind('\n').unwrap() + 1;
    for cut in last + 1..whole.len() {
        std::fs::write(&path, &whole[..cut]).unwrap();
        let report = mtr_report([&path]).succeeded();
        does_not_panic(&report);
        let summary = report.summary();
        assert_eq!((summary.in_use_bytes, summary.in_use_blocks), (150, 2), "cut at {cut}");
        let all = format!("{}{}", report.text, report.stderr).to_lowercase();
        let words = ["cut", "incomplete", "truncated", "torn", "damaged"];
        assert!(words.iter().any(|w| all.contains(w)), "cut at {cut}: {}", report.description());
    }
}

#[test]
fn no_prefix_and_no_flipped_byte_of_a_real_log_makes_it_panic() {
    let folder = Folder::new("bad-damage");
    let path = folder.join("trace.log");
    let log = repository().join("tests/cases/logs/2.33-t_names_rd.log");
    let bytes = std::fs::read(log).unwrap();
    for cut in (0..bytes.len()).step_by(11) {
        std::fs::write(&path, &bytes[..cut]).unwrap();
        does_not_panic(&mtr_report([&path]));
    }
    for at in (0..bytes.len()).step_by(13) {
        for value in [0, b'\n', b' ', b'@', 0xff] {
            let mut damaged = bytes.clone();
            damaged[at] = value;
            std::fs::write(&path, &damaged).unwrap();
            does_not_panic(&mtr_report([&path]));
        }
    }
}

#[test]
fn a_foreign_or_broken_tail_is_said_and_does_not_hide_the_log() {
    let folder = Folder::new("bad-tail");
    let path = folder.join("trace.log");
    let log = "# mtr log 1\n# id 0000000000000001\n# pid 1\n# addresses absolute\n\
        # start process\n= Start\n@ [0x1157] + 0x55a960000010 0x64\n";
    std::fs::write(&path, log).unwrap();
    let mut foreign = vec![0; 4096 + 4096];
    foreign[..8].copy_from_slice(b"MTRTAIL1");
    foreign[8] = 2; // another log's
    foreign[16..20].copy_from_slice(&4096u32.to_le_bytes());
    foreign[20..24].copy_from_slice(&1u32.to_le_bytes());
    foreign[4096 + 200..4096 + 231].copy_from_slice(b"@ [0x1158] + 0x55a960000020 0x1");
    let tails: [&[u8]; 4] = [b"", b"MTRTAIL1", &foreign[..4096], &foreign];
    for tail in tails {
        std::fs::write(tail_of(&path), tail).unwrap();
        let report = mtr_report([OsStr::new(&path)]).succeeded();
        does_not_panic(&report);
        let summary = report.summary();
        assert_eq!((summary.in_use_bytes, summary.in_use_blocks), (100, 1), "{}", report.text);
    }
}

#[test]
fn a_trace_that_names_a_pipe_as_a_module_is_not_waited_for() {
    let folder = Folder::new("bad-pipe");
    let pipe = folder.join("pipe");
    assert!(clean_command("mkfifo").arg(&pipe).status().unwrap().success());
    let trace = folder.join("trace");
    let name = pipe.display();
    let module = format!("# module 0x1000 0x2000 0x0 - {name} {name}");
    let text = format!("# mtr log 1\n{module}\n@ {name}:[0x1500] + 0x10 0x10\n# exit\n");
    std::fs::write(&trace, text).unwrap();
    let report = mtr_report([&trace]).succeeded();
    assert_eq!(report.summary().allocations, 1);
}

/// Runs `mtr-report -` with this file, or what comes out of a pipe, as its standard input.
fn report_stdin(input: Stdio, bytes: &[u8]) -> Output {
    let mut command = clean_command(env!("CARGO_BIN_EXE_mtr-report"));
    let command = command.arg("-").stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.stdin(input).spawn().unwrap();
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(bytes).unwrap();
    }
    child.wait_with_output().unwrap()
}

#[test]
fn a_dash_is_standard_input() {
    let folder = Folder::new("bad-dash");
    let path = folder.join("trace");
    let log = b"= Start\n@ ./t:[0x1157] + 0x55a960000010 0x64\n";
    std::fs::write(&path, log).unwrap();
    let of_file = report_stdin(Stdio::from(File::open(&path).unwrap()), b"");
    let of_pipe = report_stdin(Stdio::piped(), log);
    for (output, name) in [(of_file, path.to_str().unwrap()), (of_pipe, "/dev/stdin")] {
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{output:?}");
        assert!(text.contains(&format!("trace:   {name}\n")), "{text}");
        assert!(text.contains("in use at exit: 100 bytes in 1 block\n"), "{text}");
    }
}

#[test]
fn what_comes_out_of_a_pipe_has_to_be_a_trace_too() {
    let cases: [(&[u8], &str); 4] = [
        (b"", "nothing"),
        (b"hello\n", "something else"),
        (b"hello", "something else"),
        (b"mtr\x02", "something else"),
    ];
    for (bytes, found) in cases {
        let output = report_stdin(Stdio::piped(), bytes);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(output.stdout.is_empty(), "{output:?}");
        let expected = format!(
            "mtr-report: /dev/stdin: expected an mtrace log, a compact trace (.mtr) or a program \
             (ELF), got {found}\n"
        );
        assert_eq!(String::from_utf8_lossy(&output.stderr), expected);
    }
}
