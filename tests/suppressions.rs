//! What libc, libstdc++ and Rust's std keep until exit by design is no finding; what they have allocated
//! for the program is.

mod support;

use std::path::Path;
use support::*;

/// A report of mtr-run with a gate, in one of the two formats.
fn gated(folder: &Folder, format: &str, program: &Path, arguments: &[&str]) -> Report {
    let output = mtr_run(folder.path())
        .args(["--force", "--error-exitcode=9", "--trace-format", format, "-o", "trace"])
        .arg(program)
        .args(arguments)
        .env("LC_ALL", "C.UTF-8")
        .output()
        .unwrap();
    Report::of_mtr_run(&output)
}

const NAMES: [&str; 2] = ["mtrace", "compact"];

/// Bytes and blocks of the line that counts what is suppressed.
#[track_caller]
fn suppressed(report: &Report) -> (u64, u64) {
    let lines = report.text.lines().filter(|line| line.starts_with("suppressed: "));
    let lines: Vec<&str> = lines.collect();
    assert_eq!(lines.len(), 1, "{}", report.description());
    assert!(lines[0].ends_with(" keep until exit by design"), "{}", lines[0]);
    let words: Vec<&str> = lines[0].split(' ').collect();
    let number = |word: &str| word.replace(',', "").parse().unwrap();
    (number(words[1]), number(words[4]))
}

#[test]
fn what_runtimes_keep_is_counted_on_one_line_and_passes_the_gate() {
    let folder = Folder::new("suppressed");
    let c = compile(&folder, "c", &program("keeps_by_design.c"), &["-pthread"]);
    let cpp = compile(&folder, "cpp", &program("keeps_by_design.cpp"), &["-O1"]);
    let linked = ["-O1", "-static-libstdc++", "-static-libgcc"];
    let linked = compile(&folder, "linked", &program("keeps_by_design.cpp"), &linked);
    for format in NAMES {
        for program in [&c, &cpp, &linked] {
            let report = gated(&folder, format, program, &[]);
            assert_eq!(report.status.code(), Some(0), "{}", report.description());
            let summary = report.summary();
            let all = (summary.in_use_bytes, summary.in_use_blocks);
            assert!(all.1 > 0, "nothing was kept: {}", report.description());
            assert_eq!(suppressed(&report), all, "{}", report.description());
            assert!(report.text.contains("All other blocks were freed."), "{}", report.text);
        }
    }
    // These go through functions of the runtimes that only whole stacks show.
    for program in [&c, &cpp] {
        let report = gated(&folder, "compact", program, &["locale"]);
        assert_eq!(report.status.code(), Some(0), "{}", report.description());
        assert!(suppressed(&report).1 > 1, "{}", report.description());
    }
}

#[test]
fn what_passes_through_a_runtime_is_the_program_s_and_fails_the_gate() {
    let folder = Folder::new("not-suppressed");
    let c = compile(&folder, "c", &program("passes_through.c"), &[]);
    for format in NAMES {
        let kept = suppressed(&gated(&folder, format, &c, &[]));
        assert_eq!(kept.1, 1, "the buffer of stdout");
        for way in ["strdup", "asprintf", "fopen", "getline", "newlocale", "qsort", "streams"] {
            let report = gated(&folder, format, &c, &[way]);
            assert_eq!(report.status.code(), Some(9), "{way}: {}", report.description());
            let listed = report.text.contains("Still allocated at exit");
            assert!(listed, "{way}: {}", report.description());
        }
        let streams = gated(&folder, format, &c, &["streams"]);
        assert!(!streams.text.contains("suppressed: "), "{}", streams.text);
        let getline = gated(&folder, format, &c, &["getline"]);
        assert_eq!(suppressed(&getline), kept, "{}", getline.text);
    }
    let cpp = compile(&folder, "cpp", &program("passes_through.cpp"), &[]);
    let report = gated(&folder, "compact", &cpp, &[]);
    assert_eq!(report.status.code(), Some(9), "{}", report.description());
    let text = &report.text;
    assert!(text.contains("\n  555 bytes in 1 block\n    Grouping::do_grouping"), "{text}");
}

#[test]
fn what_is_suppressed_can_be_seen() {
    let folder = Folder::new("suppressed-shown");
    let program = compile(&folder, "c", &program("keeps_by_design.c"), &["-pthread"]);
    let report = gated(&folder, "compact", &program, &[]);
    let trace = folder.join("trace");
    assert!(!report.text.contains("(suppressed)"), "{}", report.text);
    let shown = mtr_report(["--show-suppressed".as_ref(), trace.as_os_str()]).succeeded();
    assert!(shown.text.contains(" in 1 block (suppressed)\n    main at "), "{}", shown.text);
    let mut twin = clean_command(env!("CARGO_BIN_EXE_mtr-report"));
    let twin = twin.env("MTR_SHOW_SUPPRESSED", "true").arg(&trace).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&twin.stdout), shown.text);
    // What it holds at other moments is nobody's finding and never hidden.
    let all = mtr_report(["--sort=bytes".as_ref(), trace.as_os_str()]).succeeded();
    assert!(all.text.contains("main at "), "{}", all.text);
}

#[test]
fn what_rust_s_std_keeps_passes_the_gate() {
    let folder = Folder::new("suppressed-std");
    let source = folder.join("prints.rs");
    std::fs::write(&source, "fn main() { println!(\"{}\", std::env::args().count()); }\n").unwrap();
    for flags in [&[][..], &["-O"]] {
        let program = compile(&folder, "prints", &source, flags);
        for format in NAMES {
            let report = gated(&folder, format, &program, &[]);
            assert_eq!(report.status.code(), Some(0), "{}", report.description());
        }
    }
}
