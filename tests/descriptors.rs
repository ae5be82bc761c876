//! The program's descriptors and files are its own, whatever it does to them.

mod support;

use std::fs;
use std::path::Path;
use support::*;

/// Runs `descriptors WHAT` with its trace in a folder of its own; returns what its files hold.
#[track_caller]
fn files_of(folder: &Folder, what: &str, format: Option<Format>) -> [String; 3] {
    let program = compile(folder, "descriptors", &program("descriptors.c"), &[]);
    for name in ["own0", "own1", "own2", "out"] {
        let _ = fs::remove_file(folder.join(name));
    }
    let _ = fs::remove_dir_all(folder.join("out"));
    let _ = fs::remove_dir_all(folder.join("moved"));
    fs::create_dir(folder.join("out")).unwrap();
    match format {
        Some(format) => {
            let trace = folder.join("out/trace");
            let traced = format.traced(folder, &program).arg(what);
            traced.env("MALLOC_TRACE", &trace).env("MTR_OUTPUT", &trace).run().succeeded();
        }
        None => assert!(run_plain(&program, &[what]).status.success()),
    }
    ["own0", "own1", "own2"].map(|name| fs::read_to_string(folder.join(name)).unwrap_or_default())
}

#[test]
fn under_a_low_limit_no_number_is_taken_from_the_program() {
    let folder = Folder::new("descriptors-low");
    let plain = files_of(&folder, "low", None);
    assert_eq!(plain[0], "0 1 2\n");
    for format in FORMATS {
        assert_eq!(files_of(&folder, "low", Some(format)), plain);
        // In the end the program holds all three, and there is none left for the log: its tail has
        // what was not written out before.
        let recorded = Recorded::read(format, &folder.join("out/trace"));
        recorded.is_in_order();
        assert_eq!((recorded.counts()[&3400], recorded.lost()), ((5010, 5010), 0), "{format:?}");
        the_report_agrees(&recorded);
    }
}

#[test]
fn a_child_does_not_complain_into_a_file_that_is_not_stderr() {
    let folder = Folder::new("descriptors-child");
    let plain = files_of(&folder, "child", None);
    assert_eq!(plain, ["0 1 2\n", "", ""]);
    for format in FORMATS {
        assert_eq!(files_of(&folder, "child", Some(format)), plain);
    }
}

#[test]
fn a_program_that_takes_all_descriptors_finds_nothing_of_ours_in_its_files() {
    let folder = Folder::new("all-descriptors");
    let program =
        compile(&folder, "takes_all_descriptors", &program("takes_all_descriptors.c"), &[]);
    for how in ["dup2", "open", "range"] {
        Hazard::new(&program, &[how]).is_recorded(&folder);
        for name in ["trace.log", "trace.mtr"] {
            std::fs::remove_file(folder.join(name)).unwrap();
        }
    }
}

#[test]
fn a_program_without_a_descriptor_for_the_log_is_accounted_for_and_keeps_errno() {
    let folder = Folder::new("no-descriptors");
    let program = compile(&folder, "no_descriptors_left", &program("no_descriptors_left.c"), &[]);
    for (_, run) in Hazard::new(&program, &[]).run(&folder) {
        assert!(run.stdout().starts_with("errno was changed 0 times\n"), "{}", run.description());
        let report = mtr_report([&run.path]).succeeded();
        let counted = printed_counts(&run.stdout());
        let own: u64 = counted.values().map(|(made, ended)| made + ended).sum();
        // What libc allocates is some more.
        assert!((own..own + 20).contains(&report.events()), "{own}: {}", report.description());
        assert!(report.unbroken().contains("Too many open files"), "{}", report.description());
        let strict = mtr_report([Path::new("--strict"), &run.path]);
        assert_eq!(strict.status.code(), Some(3), "{}", strict.description());
    }
}
