//! `MTR_CALLER=user`: a line of the log names the first frame outside libc and libstdc++.

mod support;

use support::*;

#[test]
fn operator_new_is_charged_to_the_line_that_called_it() {
    let folder = Folder::new("caller-cpp");
    let source = example("leaks.cpp");
    let program = compile(&folder, "leaks", &source, &["-O1"]);
    let run = Traced::new(&folder, &program).env("MTR_CALLER", "user").run().succeeded();
    let report = mtr_report([&run.path]).without_faults();
    for call in ["new int[1000]", "new Node", "new std::string"] {
        let line = line_of(&source, call);
        assert!(report.lines("leaks.cpp").contains(&line), "{line}: {}", report.text);
    }
    assert!(!report.text.contains("operator new"), "{}", report.text);
    // The default names the caller, as glibc does.
    let run = Traced::new(&folder, &program).run().succeeded();
    assert!(mtr_report([&run.path]).text.contains("operator new"));
}

#[test]
fn strdup_and_asprintf_are_charged_to_the_program() {
    let folder = Folder::new("caller-libc");
    let program = compile(&folder, "runtime_callers", &program("runtime_callers.c"), &[]);
    let run = Traced::new(&folder, &program).env("MTR_CALLER", "user").run().succeeded();
    let log = run.log();
    log.is_in_order();
    let own = log.records().filter(|record| record.is_from("runtime_callers")).count();
    // strdup; asprintf's allocation and its realloc (or its second allocation); the free.
    assert!(own >= 3, "{own} records name the program");
    let others = log.records().filter(|record| !record.is_from("runtime_callers")).count();
    assert_eq!(others, 0, "records that name a runtime");
}
