//! Memory that there is not, and requests at the edges, in both formats.

mod support;

use support::*;

#[test]
fn results_and_errno_of_odd_requests_are_those_without_the_library() {
    let folder = Folder::new("odd");
    let program = compile(&folder, "odd_requests", &program("odd_requests.c"), &["-fno-builtin"]);
    for (format, run) in Hazard::new(&program, &[]).run(&folder) {
        let recorded = Recorded::of(format, &run);
        recorded.is_finished();
        the_report_agrees(&recorded);
    }
}

#[test]
fn a_program_works_on_where_there_is_no_memory_for_its_record() {
    let folder = Folder::new("address-space");
    let source = program("address_space_limit.c");
    let program = compile(&folder, "address_space_limit", &source, &["-pthread"]);
    for kib in ["0", "16", "100", "300", "1000", "5000", "80000"] {
        // Whether glibc finds room for an arena, and leaves errno alone then, depends on what is left.
        for (format, run) in Hazard::new(&program, &[kib]).differs_by_run().run(&folder) {
            assert!(run.stdout().starts_with("much: NULL, errno 12\n"), "{}", run.description());
            // What could not be recorded is counted, so nobody takes the rest for everything.
            let report = mtr_report([&run.path]).succeeded();
            let recorded = Recorded::of(format, &run);
            let (damaged, lost) = match &recorded {
                Recorded::Text(log) => (&log.damaged, log.notes("lost")),
                Recorded::Compact(trace) => (&trace.damaged, trace.notes("lost")),
            };
            let is_lossy = lost.iter().any(|note| note[0].iter().any(|byte| *byte != b'0'));
            assert!(damaged.is_empty(), "{format:?}, {kib} KiB: {damaged:#?}");
            let says_so = report.text.contains("could not be");
            assert_eq!(is_lossy, says_so, "{format:?}, {kib} KiB: {}", report.description());
        }
    }
}
