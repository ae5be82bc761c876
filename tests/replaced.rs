//! What a run finds under the names that it wants: it replaces traces of earlier runs, and never one
//! of its own or of a later run, though the process that wrote it is gone.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use support::*;

/// `program` with its trace at `folder/trace`, by the library alone and by mtr-run.
fn ways(folder: &Folder, format: Format, program: &Path) -> [(Command, &'static str); 2] {
    let mut alone = clean_command(program);
    alone.env("LD_PRELOAD", library()).env("MTR_OUTPUT", folder.join("trace"));
    alone.env("MTR_TRACE_FORMAT", format.name()).current_dir(folder.path());
    let mut by_run = mtr_run(folder.path());
    by_run.arg(format!("--trace-format={}", format.name())).args(["-o", "trace"]).arg(program);
    [(alone, "alone"), (by_run, "mtr-run")]
}

/// The blocks of a trace that the programs of these tests count, and how often.
fn own(recorded: &Recorded) -> Vec<(u64, (u64, u64))> {
    recorded.counts().into_iter().filter(|(size, _)| (7000..8010).contains(size)).collect()
}

#[test]
fn processes_with_one_process_id_leave_a_trace_each() {
    let folder = Folder::new("replaced-pid");
    let program = compile(&folder, "reused_pid", &program("reused_pid.c"), &[]);
    for format in FORMATS {
        for (mut command, way) in ways(&folder, format, &program) {
            let output = command.output().unwrap();
            if output.status.code() == Some(77) {
                return skip("processes_with_one_process_id", "no PID namespace is permitted here");
            }
            assert!(output.status.success(), "{format:?}, {way}: {output:?}");
            let all = Recorded::all_beside(format, &folder.join("trace"));
            let mut found = BTreeSet::new();
            for recorded in &all {
                let what = format!("{format:?}, {way}: {}", recorded.path().display());
                recorded.is_sound();
                the_report_agrees(recorded);
                if recorded.pid() == 701 {
                    let own = own(recorded);
                    assert!(matches!(own[..], [(8000..8006, (100, 0))]), "{what}: {own:?}");
                    assert!(found.insert(own[0].0), "{what}: {own:?} once more");
                    assert!(recorded.notes("earlier").is_empty(), "{what}: another's image");
                }
            }
            assert_eq!(found.len(), 6, "{format:?}, {way}: {found:?}");
            assert_eq!(all.len(), 8, "{format:?}, {way}: those of the program and of process 1");
            for recorded in all {
                fs::remove_file(recorded.path()).unwrap();
            }
        }
    }
}

#[test]
fn what_a_daemon_starts_leaves_the_traces_of_its_run_and_of_later_runs_alone() {
    let folder = Folder::new("replaced-daemon");
    let program = compile(&folder, "daemon", &program("daemon.c"), &[]);
    let leaky = compile(&folder, "leaks_plainly", &support::program("leaks_plainly.c"), &[]);
    let daemon = Daemon::new(&folder);
    let trace = folder.join("trace");
    let remove_all = |all: &[Recorded]| {
        all.iter().for_each(|recorded| fs::remove_file(recorded.path()).unwrap());
    };
    for format in FORMATS {
        for (mut command, way) in ways(&folder, format, &program) {
            let output = command.arg(daemon.fifo()).arg("spawn").output().unwrap();
            assert!(output.status.success(), "{format:?}, {way}: {output:?}");
            let before = fs::read(&trace).unwrap();
            daemon.finish();
            assert!(fs::read(&trace).unwrap() == before, "{format:?}, {way}: it was replaced");
            let all = Recorded::all_beside(format, &trace);
            let own: BTreeSet<_> = all.iter().map(own).collect();
            let expected = [[(7400, (1, 0))], [(7500, (100, 0))]];
            let spawned = [[(7601, (100, 0))], [(7602, (100, 0))]];
            let expected: BTreeSet<_> =
                expected.into_iter().chain(spawned).map(Vec::from).collect();
            assert_eq!(own, expected, "{format:?}, {way}");
            assert_eq!(all.len(), own.len(), "{format:?}, {way}");
            remove_all(&all);
        }

        // A run that began later and has ended before the daemon starts its programs.
        let [(mut first, _), _] = ways(&folder, format, &program);
        let output = first.arg(daemon.fifo()).arg("spawn").output().unwrap();
        assert!(output.status.success(), "{format:?}: {output:?}");
        let first = Recorded::read(format, &trace).pid();
        let [(mut second, _), _] = ways(&folder, format, &leaky);
        assert!(second.output().unwrap().status.success());
        let before = fs::read(&trace).unwrap();
        assert_ne!(Recorded::read(format, &trace).pid(), first, "{format:?}: not replaced");
        daemon.finish();
        assert!(fs::read(&trace).unwrap() == before, "{format:?}: a later run's was replaced");
        remove_all(&Recorded::all_beside(format, &trace));
    }
}

#[test]
fn a_second_run_replaces_the_trace_of_the_first_whatever_the_clock_says() {
    let folder = Folder::new("replaced-second");
    let leaky = compile(&folder, "leaks_plainly", &program("leaks_plainly.c"), &[]);
    let trace = folder.join("trace");
    for format in FORMATS {
        let run = || {
            let [(mut alone, _), _] = ways(&folder, format, &leaky);
            assert!(alone.output().unwrap().status.success());
            let recorded = Recorded::read(format, &trace);
            (recorded.pid(), recorded.notes("session"))
        };
        let (first, first_session) = run();
        let kept = fs::File::open(&trace).unwrap();
        let (second, second_session) = run();
        assert_ne!(first, second, "{format:?}: it was not replaced");
        // By a new file: another process may have the old one mapped.
        assert!(kept.metadata().unwrap().len() > 0, "{format:?}: the old one was truncated");
        assert_eq!(kept.metadata().unwrap().nlink(), 0, "{format:?}: it is still there");
        assert_ne!(first_session, second_session, "{format:?}");
        // One that was written while the clock was far ahead.
        let mut bytes = fs::read(&trace).unwrap();
        let session = format!("# session {}", second_session[0]);
        let at = bytes.windows(session.len()).position(|w| w == session.as_bytes()).unwrap();
        bytes[at..at + session.len()].copy_from_slice(b"# session 7fffffffffffffff");
        fs::write(&trace, bytes).unwrap();
        assert_ne!(run().0, second, "{format:?}: it was not replaced");
        assert_eq!(Recorded::all_beside(format, &trace).len(), 1, "{format:?}");
        fs::remove_file(&trace).unwrap();
    }
}
