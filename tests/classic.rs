//! The main job: the three leaks of the classic program, with function, file and the line of each
//! call, however the program was built, linked, named and started.

mod support;

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use support::*;

const SOURCE: &str = "t_mtrace.c";

/// Line and size of the leaks of examples/t_mtrace.c.
fn leaks() -> [(u32, u64); 3] {
    let source = example(SOURCE);
    [
        (line_of(&source, "first = malloc(100);"), 100),
        (line_of(&source, "second = malloc(100);"), 100),
        (line_of(&source, "third = calloc(16, 16);"), 256),
    ]
}

fn build(folder: &Folder, flags: &[&str]) -> PathBuf {
    compile(folder, "t_mtrace", &example(SOURCE), flags)
}

/// Everything that must hold of a log of the classic program: our own reader, addr2line, the
/// script of glibc and both forms of mtr-report find the same three leaks.
#[track_caller]
fn finds_the_three_leaks(run: &Run, program: &Path) {
    let log = run.log();
    log.is_in_order();
    assert!(!log.has_tail, "a tail was left after a normal end");

    let live = log.live();
    let mut sizes: Vec<u64> = live.values().map(|r| r.allocated().unwrap().1).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [100, 100, 256], "{live:#?}");

    if find_tool("addr2line").is_some() {
        let mut places = BTreeSet::new();
        for record in live.values() {
            let found = log.module_of(record);
            let (module, svma) = found.unwrap_or_else(|| panic!("no module holds {record:?}"));
            assert_eq!(module.path, program, "{record:?}");
            let location = addr2line(&module.path, &[svma - 1]).remove(0).unwrap();
            assert_eq!((&*location.function, &*location.file), ("main", SOURCE), "{record:?}");
            places.insert((location.line, record.allocated().unwrap().1));
        }
        assert_eq!(places, BTreeSet::from(leaks()), "the recorded addresses, by addr2line");
    } else {
        skip("the addresses, by addr2line", "addr2line is not installed");
    }

    the_script_agrees(&log);
    let one = mtr_report([&run.path]).without_faults();
    reports_the_three_leaks(&one);
    let two = mtr_report([program, &run.path]).without_faults();
    reports_the_three_leaks(&two);
    let reversed = mtr_report([&run.path, program]).without_faults();
    reports_the_three_leaks(&reversed);
    assert_eq!(one.summary(), two.summary());
    let places = |report: &Report| -> Vec<u32> {
        report.places(SOURCE).iter().map(|(line, _)| *line).collect()
    };
    assert_eq!(places(&one), places(&two), "{}\n{}", one.description(), two.description());
    assert_eq!(two.text, reversed.text, "arguments are told apart by what they are");
}

/// glibc's script lists the live blocks of our log and complains of nothing.
#[track_caller]
fn the_script_agrees(log: &Log) {
    let Some(Script { blocks, others }) = mtrace_script(&log.path) else {
        return skip("the log, by glibc's script", "mtrace is not installed");
    };
    let live: Vec<(u64, u64)> =
        log.live().values().map(|record| record.allocated().unwrap()).collect();
    assert_eq!(blocks, live, "{others:#?}");
    assert!(!others.iter().any(|line| line.contains("never alloc")), "{others:#?}");
}

#[track_caller]
fn reports_the_three_leaks(report: &Report) {
    let summary = report.summary();
    let expected = Summary {
        in_use_bytes: 456,
        in_use_blocks: 3,
        allocations: 3,
        frees: 0,
        allocated_bytes: 456,
    };
    assert_eq!(summary, expected, "{}", report.description());
    for (line, _) in leaks() {
        report.names("main", SOURCE, line);
    }
    let lines: BTreeSet<u32> = leaks().iter().map(|(line, _)| *line).collect();
    assert_eq!(report.lines(SOURCE), lines, "no other line: {}", report.description());
}

#[test]
fn a_position_independent_program_is_reported_line_by_line() {
    let folder = Folder::new("classic-pie");
    let program = build(&folder, &["-pie", "-fPIE"]);
    let run = Traced::new(&folder, &program).run().succeeded();
    finds_the_three_leaks(&run, &program);
}

#[test]
fn a_position_independent_program_without_aslr_is_reported_line_by_line() {
    let test = "a_position_independent_program_without_aslr_is_reported_line_by_line";
    let Some(setarch) = need("setarch", test) else { return };
    if !clean_command(&setarch).args(["-R", "true"]).status().unwrap().success() {
        return skip(test, "setarch -R is not permitted here");
    }
    let folder = Folder::new("classic-no-aslr");
    let program = build(&folder, &["-pie", "-fPIE"]);
    // `env` sets the variables behind setarch, which would be traced itself otherwise.
    let path = folder.join("trace.log");
    let status = clean_command(setarch)
        .args(["-R", "env"])
        .arg(assignment("LD_PRELOAD", library()))
        .arg(assignment("MALLOC_TRACE", &path))
        .arg(&program)
        .status()
        .unwrap();
    assert!(status.success(), "{status}");
    let log = Log::read(&path).unwrap();
    let (module, _) = log.module_of(log.live().values().next().unwrap()).unwrap();
    assert_eq!(module.bias, 0x5555_5555_4000, "the base without ASLR: {module:?}");
    let run = Run::of_log(path);
    finds_the_three_leaks(&run, &program);
}

fn assignment(name: &str, value: impl AsRef<OsStr>) -> OsString {
    let mut text = OsString::from(name);
    text.push("=");
    text.push(value);
    text
}

#[test]
fn a_program_at_a_fixed_address_is_reported_line_by_line() {
    let folder = Folder::new("classic-no-pie");
    let program = build(&folder, &["-no-pie", "-fno-pie"]);
    let run = Traced::new(&folder, &program).run().succeeded();
    finds_the_three_leaks(&run, &program);
    let log = run.log();
    assert_eq!(log.module_of(log.live()[log.live().keys().next().unwrap()]).unwrap().0.bias, 0);
}

#[test]
fn optimised_and_exporting_its_symbols_it_is_reported_line_by_line() {
    let folder = Folder::new("classic-rdynamic");
    let program = build(&folder, &["-O1", "-fno-builtin", "-rdynamic"]);
    let run = Traced::new(&folder, &program).run().succeeded();
    finds_the_three_leaks(&run, &program);
    let log = run.log();
    for record in log.live().values() {
        let (name, offset) = record.place.as_ref().unwrap().symbol.as_ref().unwrap();
        assert!(name == b"main" && offset.starts_with("0x"), "{record:?}");
    }
}

#[test]
fn leaks_of_a_shared_library_are_charged_to_its_line() {
    let folder = Folder::new("classic-library");
    let library_source = program("leaf_library.c");
    let main_source = program("with_library.c");
    let library = compile(&folder, "libleaf.so", &library_source, &["-shared", "-fPIC"]);
    let binary =
        compile(&folder, "with_library", &main_source, &["-L.", "-lleaf", "-Wl,-rpath,$ORIGIN"]);
    let run = Traced::new(&folder, &binary).run().succeeded();
    let log = run.log();
    log.is_in_order();
    let mut modules: Vec<&Path> =
        log.live().values().map(|r| log.module_of(r).unwrap().0.path.as_path()).collect();
    modules.sort_unstable();
    let mut expected = [&*library, &*library, &*binary];
    expected.sort_unstable();
    assert_eq!(modules, expected);
    the_script_agrees(&log);

    let leak = line_of(&library_source, "return malloc(size);");
    let own = line_of(&main_source, "calloc(16, 16)");
    for report in [mtr_report([&run.path]), mtr_report([&binary, &run.path])] {
        let report = report.without_faults();
        let summary = report.summary();
        assert_eq!((summary.in_use_bytes, summary.in_use_blocks), (456, 3));
        report.names("library_leak", "leaf_library.c", leak);
        report.names("main", "with_library.c", own);
        assert_eq!(report.lines("leaf_library.c"), BTreeSet::from([leak]));
        assert_eq!(report.lines("with_library.c"), BTreeSet::from([own]));
    }
}

#[test]
fn a_program_found_through_path_is_reported_line_by_line() {
    let folder = Folder::new("classic-path");
    let elsewhere = Folder::new("classic-path-elsewhere");
    let program = build(&folder, &[]);
    // A shell, because Command would replace the bare name by what it found.
    let path = elsewhere.join("trace.log");
    let search = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    let status = clean_command("/bin/sh")
        .args(["-c", "LD_PRELOAD=$1 MALLOC_TRACE=$2 exec t_mtrace", "sh", library()])
        .arg(&path)
        .env("PATH", search)
        .current_dir(elsewhere.path())
        .status()
        .unwrap();
    assert!(status.success(), "{status}");
    let run = Run::of_log(path);
    let log = run.log();
    let record = *log.live().values().next().unwrap();
    assert_eq!(record.file(), Some(&b"t_mtrace"[..]), "the bare name stands in the log");
    finds_the_three_leaks(&run, &program);
}

#[test]
fn a_program_started_and_reported_from_other_folders_is_reported_line_by_line() {
    let folder = Folder::new("classic-folder");
    let elsewhere = Folder::new("classic-folder-elsewhere");
    std::fs::create_dir(folder.join("deep")).unwrap();
    let program = build(&folder, &[]);
    let run = Traced::with_log(elsewhere.join("trace.log"), "../t_mtrace")
        .current_dir(&folder.join("deep"))
        .run()
        .succeeded();
    let log = run.log();
    assert_eq!(log.note("directory"), [folder.join("deep").to_str().unwrap()]);
    // Reported from the folder of the tests, where ../t_mtrace names nothing.
    finds_the_three_leaks(&run, &program);
}

#[test]
fn a_path_with_blanks_colons_brackets_and_other_bytes_hides_nothing() {
    let folder = Folder::new("classic-name");
    let name = OsStr::from_bytes(b"a b:c [0x1] (d+0x2) \\ + 0x1 0x2 \xff\xfe");
    let odd = folder.join(name);
    std::fs::create_dir(&odd).unwrap();
    let program = odd.join("t_mtrace");
    copy_program(&build(&folder, &[]), &program);
    let run = Traced::with_log(odd.join("trace.log"), &program).current_dir(&odd).run().succeeded();
    let log = run.log();
    for record in log.live().values() {
        assert_eq!(record.file(), Some(program.as_os_str().as_bytes()), "{record:?}");
    }
    finds_the_three_leaks(&run, &program);
}

#[test]
fn a_program_without_debug_information_is_said_to_have_none() {
    let folder = Folder::new("classic-bare");
    let says_so = |flag: &str| {
        let report = mtr_report([&Traced::new(&folder, build(&folder, &[flag])).run().path]);
        let function = report.text.contains("main at ");
        (function, report.unbroken().contains("No debug information in t_mtrace, so lines"))
    };
    assert_eq!(says_so("-g0"), (true, true));
    assert_eq!(says_so("-s"), (false, true));
    assert_eq!(says_so("-g1"), (true, false));
}

#[test]
fn the_relative_addresses_of_newer_glibc_give_the_same_report() {
    let folder = Folder::new("classic-relative");
    let program = build(&folder, &[]);
    let run = Traced::new(&folder, &program).env("MTR_ADDRESSES", "relative").run().succeeded();
    let log = run.log();
    assert_eq!(log.note("addresses"), ["relative"]);
    for record in log.live().values() {
        let address = record.place.as_ref().unwrap().address;
        assert!(address < 0x10_0000, "{record:?} is not relative");
    }
    finds_the_three_leaks(&run, &program);
}

#[test]
fn mtr_run_reports_what_mtr_report_does_and_passes_the_status_on() {
    let folder = Folder::new("classic-mtr-run");
    let program = build(&folder, &[]);
    let output = mtr_run(folder.path()).arg(&program).output().unwrap();
    let report = Report::of_mtr_run(&output).without_faults();
    reports_the_three_leaks(&report);
    assert!(output.stdout.is_empty(), "stdout is the program's own: {output:?}");

    let ends = compile(&folder, "ends", &support::program("ends.c"), &["-pthread"]);
    for (end, status) in [("return", 7), ("_exit", 7), ("segv", 139), ("kill", 137), ("term", 143)]
    {
        let output =
            mtr_run(folder.path()).arg("--").arg(&ends).args([end, "10"]).output().unwrap();
        assert_eq!(output.status.code(), Some(status), "{end}: {output:?}");
        let report = Report::of_mtr_run(&output);
        report.names("main", "ends.c", line_of(&support::program("ends.c"), "= malloc(4242);"));
    }
    let missing = mtr_run(folder.path()).arg("./no-such-program").output().unwrap();
    assert_eq!(missing.status.code(), Some(127), "{missing:?}");
    let folder_itself = mtr_run(folder.path()).arg(folder.path()).output().unwrap();
    assert_eq!(folder_itself.status.code(), Some(126), "{folder_itself:?}");
}
