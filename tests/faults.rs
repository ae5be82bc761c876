//! What a program does wrongly with its heap: it is recorded before the C library ends the process, and
//! named with the places that matter, in both formats.

mod support;

use std::os::unix::process::ExitStatusExt;
use support::*;

/// What wrong_calls.cpp does, what the report calls it, and which lines it has to name.
struct Wrong {
    what: &'static str,
    fault: &'static str,
    /// The wrong call.
    call: &'static str,
    /// What allocated the block, where there is one.
    allocation: Option<&'static str>,
    /// glibc does not notice.
    goes_on: bool,
}

const FREE: &str = "std::free(address)";
const DELETE: &str = "::operator delete(address)";
const REALLOC: &str = "std::realloc(address, 9000)";
const MALLOC: Option<&str> = Some("std::malloc(5000)");
const NEVER: &str = "Free of an address that was never allocated,";

const fn wrong(
    what: &'static str,
    fault: &'static str,
    call: &'static str,
    allocation: Option<&'static str>,
) -> Wrong {
    Wrong { what, fault, call, allocation, goes_on: false }
}

const WRONGS: [Wrong; 11] = [
    wrong("free twice", "Double free of", FREE, MALLOC),
    Wrong {
        goes_on: true,
        ..wrong("free a b a", "Double free of", FREE, Some("piece = static_cast<char *>"))
    },
    wrong("free inside", "Free of an address inside of a block,", FREE, MALLOC),
    wrong("free misaligned", "Free of an address inside of a block,", FREE, MALLOC),
    wrong("free stack", NEVER, FREE, None),
    wrong("free global", NEVER, FREE, None),
    wrong("new, delete twice", "Double free of", DELETE, Some("::operator new(5002)")),
    wrong("delete stack", NEVER, DELETE, None),
    wrong("realloc freed", "Realloc of freed memory,", REALLOC, MALLOC),
    wrong("realloc inside", "Realloc of an address inside of a block,", REALLOC, MALLOC),
    wrong("realloc stack", "Realloc of an address that was never allocated,", REALLOC, None),
];

const SIGABRT: i32 = 6;
const FILE: &str = "wrong_calls.cpp";

/// Runs it with these arguments in both formats, and compares with a plain run.
#[track_caller]
fn run(folder: &Folder, arguments: &[&str]) -> (bool, Vec<(Format, Report)>) {
    let program = folder.join("wrong_calls");
    let plain = run_plain(&program, arguments);
    let report = |format: Format| {
        let run = format.traced(folder, &program).args(arguments).run();
        assert_eq!(run.output.status, plain.status, "{}", run.description());
        assert_eq!(run.output.stdout, plain.stdout, "{}", run.description());
        assert_eq!(run.output.stderr, plain.stderr, "{}", run.description());
        (format, mtr_report([&run.path]).succeeded())
    };
    let is_ended = plain.status.signal() == Some(SIGABRT);
    assert!(is_ended || plain.status.success(), "{plain:?}");
    (is_ended, FORMATS.map(report).into())
}

#[test]
fn what_glibc_ends_the_process_for_is_recorded_before_and_named() {
    let folder = Folder::new("wrong-calls");
    let source = program(FILE);
    compile(&folder, "wrong_calls", &source, &["-lpthread"]);
    for Wrong { what, fault, call, allocation, goes_on } in &WRONGS {
        for arguments in [&[*what][..], &[*what, "threads"]] {
            let (is_ended, reports) = run(&folder, arguments);
            assert_eq!(is_ended, !goes_on, "{arguments:?}");
            for (format, report) in reports {
                let why = format!("{format:?}: {}", report.description());
                assert!(report.text.contains("\n1 fault:\n"), "{why}");
                assert!(report.text.contains(fault), "{why}");
                let lines = report.lines(FILE);
                assert!(lines.contains(&line_of(&source, call)), "{why}");
                // The caller of a log is that of malloc: of a block of operator new, the runtime.
                if let Some(allocation) = allocation
                    && (format == Format::Compact || !allocation.contains("new"))
                {
                    assert!(lines.contains(&line_of(&source, allocation)), "{why}");
                }
                if *what == "realloc freed" {
                    assert!(lines.contains(&line_of(&source, FREE)), "{why}");
                    assert!(report.text.contains("    freed by "), "{why}");
                }
            }
        }
    }
}

#[test]
fn a_block_of_new_that_is_given_to_another_function_is_named_where_the_trace_says_which() {
    let folder = Folder::new("wrong-functions");
    let source = program(FILE);
    compile(&folder, "wrong_calls", &source, &["-lpthread"]);
    for (what, detail, call, allocation) in [
        (
            "new[], free",
            "5,001 bytes, allocated with operator new, freed with free",
            FREE,
            "new char",
        ),
        (
            "new, delete[]",
            "5,002 bytes, allocated with new, freed with delete[]",
            "::operator delete[](address)",
            "::operator new(5002)",
        ),
    ] {
        for arguments in [&[what][..], &[what, "threads"]] {
            let (is_ended, reports) = run(&folder, arguments);
            assert!(!is_ended, "{what}");
            for (format, report) in reports {
                let why = format!("{format:?}: {}", report.description());
                if format == Format::Text {
                    // A log does not say which function freed a block.
                    assert!(!report.text.contains("fault"), "{why}");
                    continue;
                }
                assert!(report.text.contains("\n1 fault:\n"), "{why}");
                assert!(report.text.contains("Mismatched free of"), "{why}");
                assert!(report.text.contains(detail), "{why}");
                let lines = report.lines(FILE);
                for place in [call, allocation] {
                    assert!(lines.contains(&line_of(&source, place)), "{place}: {why}");
                }
            }
        }
    }
}
