//! What was recorded outlives the process, whatever it has become by its end; what does not is counted.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use support::*;

const ENDS: [&str; 3] = ["exit", "abort", "kill"];

#[track_caller]
fn ended(status: std::process::ExitStatus, end: &str, what: &str) {
    let expected = match end {
        "abort" => Some(libc::SIGABRT),
        "kill" => Some(libc::SIGKILL),
        _ => None,
    };
    assert_eq!(status.signal(), expected, "{what}");
    assert!(expected.is_some() || status.success(), "{what}");
}

/// All that it has counted is in the record, and a strict report finds nothing to say of it.
#[track_caller]
fn holds(format: Format, path: &Path, stdout: &str, what: &str) {
    let recorded = Recorded::read(format, path);
    recorded.is_in_order();
    let printed = printed_counts(stdout);
    assert!(!printed.is_empty(), "{what}");
    assert_eq!((recorded.own_counts(), recorded.lost()), (printed, 0), "{what}");
    let report = mtr_report([Path::new("--strict"), path]).without_faults();
    assert_eq!(report.summary(), recorded.summary(), "{what}: {}", report.description());
}

/// Runs a program that loses its rights, with its trace in a folder of its own.
fn without_rights(how: &str) {
    let folder = Folder::new(&format!("tail-{how}"));
    let program =
        compile(&folder, "loses_the_name", &program("loses_the_name.c"), &["-O1", "-pthread"]);
    for format in FORMATS {
        for end in ENDS {
            let run = |launcher: &[&str]| {
                let words = launcher.iter().map(AsRef::as_ref);
                let mut words = words.chain([program.as_os_str()]);
                let mut traced = format.traced(&folder, words.next().unwrap());
                for word in words {
                    traced = traced.arg(word);
                }
                traced.arg(how).arg(folder.path()).arg(end).run()
            };
            let mut run_of = run(&[]);
            let mut path = run_of.path.clone();
            if run_of.output.status.code() == Some(77) && how == "chroot" {
                fs::remove_file(&run_of.path).unwrap();
                run_of = run(&["unshare", "-Ur"]);
                // That of unshare itself stands at the path.
                fs::remove_file(&run_of.path).unwrap();
                path = traces_in(&folder).pop().unwrap_or(path);
            }
            if matches!(run_of.output.status.code(), Some(77) | Some(1)) {
                return skip(&format!("tail: {how}"), "this user may not");
            }
            let what = format!("{format:?} {how} {end}: {}", run_of.description());
            ended(run_of.output.status, end, &what);
            holds(format, &path, &run_of.stdout(), &what);
            fs::remove_file(&path).unwrap();
            let _ = fs::remove_file(tail_of(&path));
        }
    }
}

/// Logs and traces in a folder.
fn traces_in(folder: &Folder) -> Vec<std::path::PathBuf> {
    let paths = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
    let is_trace = |name: &str| name.starts_with("trace.") && !name.ends_with(".tail");
    paths.filter(|path| is_trace(&path.file_name().unwrap().to_string_lossy())).collect()
}

#[test]
fn a_program_that_becomes_another_user_loses_nothing() {
    without_rights("uid");
}

#[test]
fn a_program_that_changes_its_root_folder_loses_nothing() {
    without_rights("chroot");
}

#[test]
fn where_the_folder_is_renamed_nothing_is_lost() {
    let folder = Folder::new("tail-renamed");
    let program =
        compile(&folder, "loses_the_name", &program("loses_the_name.c"), &["-O1", "-pthread"]);
    for format in FORMATS {
        for end in ENDS {
            let (before, after) = (folder.join("logs"), folder.join("logs.moved"));
            fs::create_dir(&before).unwrap();
            let traced = format.traced(&folder, &program).arg("rename").arg(&before).arg(end);
            let output = before.join("trace");
            let run = traced.env("MALLOC_TRACE", &output).env("MTR_OUTPUT", &output).run();
            let what = format!("{format:?} {end}: {}", run.description());
            ended(run.output.status, end, &what);
            holds(format, &after.join("trace"), &run.stdout(), &what);
            fs::remove_dir_all(&after).unwrap();
        }
    }
}

/// The report says that what was recorded last is missing, and blames nobody.
#[track_caller]
fn the_report_says_unsaved(recorded: &Recorded, whose: &str) {
    let report = mtr_report([Path::new("--strict"), recorded.path()]);
    assert_eq!(report.status.code(), Some(3), "{}", report.description());
    let text = report.unbroken().replace(',', "");
    assert!(text.contains(&format!("recorded last is missing up to 32 KiB of {whose}")), "{text}");
    blames_nobody(&report);
}

/// The report shows no faults, but for a log that ends in the middle of a line because the block behind
/// it is missing.
#[track_caller]
fn blames_nobody(report: &Report) {
    let cut = "  - The last line is truncated and not counted.";
    let faults: Vec<_> = report.faults().into_iter().filter(|line| *line != cut).collect();
    assert!(faults.is_empty(), "{faults:#?}\n{}", report.description());
}

#[test]
fn where_the_disk_is_full_what_threads_recorded_last_is_said_to_be_missing() {
    let folder = Folder::new("tail-full");
    let program =
        compile(&folder, "loses_the_name", &program("loses_the_name.c"), &["-O1", "-pthread"]);
    let disk = folder.join("disk");
    fs::create_dir(&disk).unwrap();
    let script = format!(
        "mount -t tmpfs -o size=1m none {disk} || exit 77
         LD_PRELOAD={} MTR_KEEP_FREE=0 MTR_TRACE_FORMAT=compact MTR_OUTPUT={disk}/trace {} fill {disk} kill
         status=$?; cp {disk}/trace* {}; exit $status",
        library(),
        program.display(),
        folder.path().display(),
        disk = disk.display(),
    );
    let output = clean_command("unshare").args(["-Urm", "sh", "-c", &script]).output();
    let Some(output) = output.ok().filter(|o| !matches!(o.status.code(), Some(77 | 1))) else {
        return skip("tail: a full disk", "unshare or mount does not work here");
    };
    assert_eq!(output.status.code(), Some(128 + libc::SIGKILL), "{output:?}");
    let recorded = Recorded::read(Format::Compact, &folder.join("trace"));
    // Some of 51 streams have room from the first.
    let unsaved = recorded.unsaved();
    assert!((1..51).contains(&unsaved), "{unsaved}");
    let (allocated, freed) = recorded.own_counts()[&90_001];
    assert!((300..15_000).contains(&allocated) && freed <= allocated, "{allocated} {freed}");
    the_report_says_unsaved(&recorded, "each: there was no room");
}

#[test]
fn where_no_tail_can_be_made_it_is_said_from_the_first() {
    let folder = Folder::new("tail-none");
    let program =
        compile(&folder, "loses_the_name", &program("loses_the_name.c"), &["-O1", "-pthread"]);
    for format in FORMATS {
        for end in ENDS {
            let traced = format.traced(&folder, &program).args(&["stay", ".", end]);
            let name = if format == Format::Text { "trace.log.tail" } else { "trace.mtr.tail" };
            // A folder stands where it should be.
            fs::create_dir(folder.join(name)).unwrap();
            let run = traced.run();
            fs::remove_dir(folder.join(name)).unwrap();
            let what = format!("{format:?} {end}: {}", run.description());
            ended(run.output.status, end, &what);
            let recorded = Recorded::of(format, &run);
            assert_eq!(recorded.unsaved(), u64::MAX);
            match end {
                "exit" => holds(format, &run.path, &run.stdout(), &what),
                _ => the_report_says_unsaved(&recorded, "each thread: there was no room"),
            }
            fs::remove_file(&run.path).unwrap();
        }
    }
}

/// All events are recorded or counted as lost, and the report says how many are, and since when.
#[track_caller]
fn all_are_counted(folder: &Folder, format: Format, arguments: &[&str], all: u64) {
    let run = format.traced(folder, folder.join("has_no_descriptor")).args(arguments).run();
    let what = format!("{format:?} {arguments:?}: {}", run.description());
    ended(run.output.status, arguments[1], &what);
    let recorded = Recorded::of(format, &run);
    let (events, lost) = (recorded.events(), recorded.lost());
    assert!(lost > 10_000, "{events} + {lost}: {what}");
    assert_eq!(events + lost, all, "{events} + {lost}: {what}");
    assert_eq!(recorded.unsaved(), 0);
    let report = mtr_report([Path::new("--strict"), recorded.path()]);
    assert_eq!(report.status.code(), Some(3), "{}", report.description());
    let text = report.unbroken().replace(',', "");
    let stated = format!("{lost} records could not be written from 0.");
    assert!(text.contains(&stated), "{stated}: {}", report.description());
    assert!(text.contains("s after the start on: Too many open files"), "{}", report.description());
    assert!(!text.contains("somebody changed the file"), "{}", report.description());
    blames_nobody(&report);
    for path in [&run.path, &tail_of(&run.path)] {
        fs::remove_file(path).unwrap();
    }
}

#[test]
fn without_a_descriptor_each_event_is_recorded_or_counted() {
    let folder = Folder::new("tail-descriptors");
    let source = program("has_no_descriptor.c");
    let program = compile(&folder, "has_no_descriptor", &source, &["-O1", "-pthread"]);
    for format in FORMATS {
        for threads in ["0", "50"] {
            // At its end none of the threads has freed anything yet: the figures are always the same.
            let whole = format.traced(&folder, &program).args(&[threads, "kill", "free"]).run();
            let recorded = Recorded::of(format, &whole);
            assert_eq!(recorded.lost(), 0);
            let all = recorded.events();
            fs::remove_file(&whole.path).unwrap();
            for end in ENDS {
                all_are_counted(&folder, format, &[threads, end], all);
            }
        }
    }
}

/// A folder that any user may write to, with meddles_with_its_tail.c in it.
fn open_folder(name: &str) -> (Folder, std::path::PathBuf) {
    let folder = Folder::new(name);
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let source = program("meddles_with_its_tail.c");
    let program = compile(&folder, "meddles_with_its_tail", &source, &["-O1"]);
    (folder, program)
}

/// Runs it as an ordinary user.
fn meddling(folder: &Folder, program: &Path, format: Format, how: &str, end: &str) -> Run {
    let traced = format.traced(folder, program).by_ordinary_user();
    let name = if format == Format::Text { "trace.log.tail" } else { "trace.mtr.tail" };
    traced.args(&[how, end, name]).run()
}

#[test]
fn a_tail_that_is_mapped_cannot_be_truncated_by_accident() {
    if !need_ordinary_user("tail: truncated") {
        return;
    }
    let (folder, program) = open_folder("tail-emptied");
    for (format, end) in
        FORMATS.into_iter().flat_map(|format| ["exit", "kill"].map(|e| (format, e)))
    {
        let run = meddling(&folder, &program, format, "empty", end);
        let what = format!("{format:?} {end}: {}", run.description());
        ended(run.output.status, end, &what);
        holds(format, &run.path, &run.stdout(), &what);
        if end == "kill" {
            let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!((mode(&tail_of(&run.path)), mode(&run.path)), (0o400, 0o600), "{what}");
        }
        // Whose it is may still remove it, as the next run does.
        let again = meddling(&folder, &program, format, "empty", end);
        assert_eq!(again.path, run.path);
        ended(again.output.status, end, &again.description());
        fs::remove_file(&run.path).unwrap();
        let _ = fs::remove_file(tail_of(&run.path));
    }
}

#[test]
fn where_a_file_system_has_no_read_only_tails_it_is_another_one() {
    let folder = Folder::new("tail-writable");
    let program = compile(&folder, "ends", &program("ends.c"), &["-pthread"]);
    for format in FORMATS {
        let traced = format.traced(&folder, &program).unable_to_create(0o400);
        let run = traced.args(&["kill", "3001"]).run();
        ended(run.output.status, "kill", &run.description());
        let tail = fs::metadata(tail_of(&run.path)).unwrap();
        assert_eq!(tail.permissions().mode() & 0o777, 0o600);
        let recorded = Recorded::of(format, &run);
        assert_eq!((recorded.unsaved(), recorded.counts()[&4242].0), (0, 3001));
    }
}

#[test]
fn a_tail_that_somebody_removes_costs_what_is_in_it_only_if_the_process_is_killed() {
    if !need_ordinary_user("tail: removed") {
        return;
    }
    let (folder, program) = open_folder("tail-removed");
    for format in FORMATS {
        let run = meddling(&folder, &program, format, "remove", "exit");
        let what = format!("{format:?}: {}", run.description());
        ended(run.output.status, "exit", &what);
        holds(format, &run.path, &run.stdout(), &what);
        fs::remove_file(&run.path).unwrap();

        let run = meddling(&folder, &program, format, "remove", "kill");
        ended(run.output.status, "kill", &run.description());
        let report = mtr_report([Path::new("--strict"), &run.path]);
        assert_eq!(report.status.code(), Some(3), "{}", report.description());
        blames_nobody(&report);
        fs::remove_file(&run.path).unwrap();
    }
}
