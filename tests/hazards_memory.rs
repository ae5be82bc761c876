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
            let damaged = match &recorded {
                Recorded::Text(log) => &log.damaged,
                Recorded::Compact(trace) => &trace.damaged,
            };
            let is_lossy = recorded.lost() > 0;
            assert!(damaged.is_empty(), "{format:?}, {kib} KiB: {damaged:#?}");
            let says_so = report.text.contains("could not be");
            assert_eq!(is_lossy, says_so, "{format:?}, {kib} KiB: {}", report.description());
        }
    }
}

#[test]
fn threads_that_start_where_there_is_no_memory_for_them_are_counted_as_lost() {
    let folder = Folder::new("threads-limit");
    let source = program("threads_under_a_limit.c");
    let program = compile(&folder, "threads_under_a_limit", &source, &["-pthread"]);
    let mut most_lost = 0;
    for kib in ["0", "64", "200", "500", "2000", "20000"] {
        for (format, run) in Hazard::new(&program, &[kib]).differs_by_run().run(&folder) {
            let what = || format!("{format:?}, {kib} KiB: {}", run.description());
            let counted: Vec<u64> =
                run.stdout().split_whitespace().map(|n| n.parse().unwrap()).collect();
            let [made, freed, wrong] = counted[..] else { panic!("{}", what()) };
            assert!(wrong == 0 && made == freed, "{}", what());
            let recorded = Recorded::of(format, &run);
            let lost = recorded.lost();
            let (allocations, frees) = recorded.counts().get(&6161).copied().unwrap_or_default();
            assert!(allocations <= made && frees <= freed, "{allocations}, {frees}: {}", what());
            // Whose allocation is lost, that free is one of no known size.
            let known = allocations + frees + 2 * lost;
            assert!(known >= made + freed, "{known}, {lost} lost: {}", what());
            let report = mtr_report([&run.path]).succeeded();
            assert_eq!(lost > 0, report.text.contains("could not be"), "{}", report.description());
            most_lost = most_lost.max(lost);
        }
    }
    assert!(most_lost > 0, "nothing was ever short of memory");
}
