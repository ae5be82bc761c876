//! Programs that forbid themselves system calls: they behave as without the library, and what was
//! recorded and how much was not is known.

mod support;

use std::path::Path;
use support::*;

const COUNT: u64 = 20_000;
/// What it does before and after.
const FEW: u64 = 100;
const KEPT: u64 = 10;

fn program_in(folder: &Folder) -> std::path::PathBuf {
    compile(folder, "seccomp", &program("seccomp.c"), &["-O1", "-pthread"])
}

/// Runs the program without and with the library; all that one can see is the same.
#[track_caller]
fn behaves_the_same(folder: &Folder, arguments: &[&str], is_compact: bool) -> Run {
    let program = folder.join("seccomp");
    let plain = run_plain(&program, arguments);
    assert_eq!(plain.status.code(), Some(7), "{arguments:?}: {plain:?}");
    let traced = match is_compact {
        true => Traced::compact(folder, &program),
        false => Traced::new(folder, &program),
    };
    let run = traced.args(arguments).run();
    assert_eq!(run.output.status, plain.status, "{}", run.description());
    assert_eq!(run.output.stdout, plain.stdout, "{}", run.description());
    assert_eq!(run.output.stderr, plain.stderr, "{}", run.description());
    run
}

/// Allocations and frees of the blocks that are freed again.
fn small_blocks(path: &Path, is_compact: bool) -> (u64, u64) {
    let sizes = 24..32;
    let sum = |counts: Vec<(usize, usize)>| {
        let sums = counts.iter().fold((0, 0), |sums, count| (sums.0 + count.0, sums.1 + count.1));
        (sums.0 as u64, sums.1 as u64)
    };
    match is_compact {
        true => {
            let trace = Trace::read(path).unwrap();
            sum(sizes.map(|size| trace.allocated_and_freed(size)).collect())
        }
        false => {
            let log = Log::read(path).unwrap();
            sum(sizes.map(|size| log.allocated_and_freed(size)).collect())
        }
    }
}

/// Records that the tail of a trace says are lost, and why (errno).
fn lost(path: &Path) -> (u64, i32) {
    let bytes = read_tail(path).unwrap();
    let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    (word(24), word(32) as i32)
}

#[test]
fn recording_goes_on_in_memory_without_system_calls() {
    let folder = Folder::new("seccomp-memory");
    program_in(&folder);
    let count = COUNT.to_string();
    for arguments in [
        &["strict", &count][..],
        &["kill-pwrite", &count],
        &["kill-pwrite", &count, "thread", "fork"],
        &["list", &count, "thread", "fork"],
    ] {
        let run = behaves_the_same(&folder, arguments, true);
        let threads = 1 + u64::from(arguments.contains(&"thread"));
        let expected = FEW + threads * COUNT;
        assert_eq!(small_blocks(&run.path, true), (expected, expected), "{arguments:?}");
        assert_eq!(lost(&run.path), (0, 0), "{arguments:?}");
        let trace = run.trace();
        trace.is_sound().is_in_order();
        let ends = usize::from(arguments[0] != "strict");
        assert_eq!(trace.notes("exit").len(), ends, "{arguments:?}");
        // The child that they fork has no trace, because it could not make one.
        assert_eq!(traces_beside(&run.path).len(), 1, "{arguments:?}");
        let report = mtr_report([&run.path]).without_faults();
        let in_use = report.summary().in_use_blocks;
        assert!(in_use >= KEPT, "{arguments:?}\n{}", report.text);
        report.names("main", "seccomp.c", line_of(&program("seccomp.c"), "malloc(1000 + i)"));
    }
}

#[test]
fn what_does_not_fit_into_memory_is_counted() {
    let folder = Folder::new("seccomp-full");
    program_in(&folder);
    let count = 150_000u64;
    for how in ["strict", "kill-pwrite", "list"] {
        for is_compact in [true, false] {
            let arguments = [how, &count.to_string(), "small"];
            let run = behaves_the_same(&folder, &arguments, is_compact);
            let (allocated, freed) = small_blocks(&run.path, is_compact);
            let (lost, errno) = lost(&run.path);
            let most = 2 * (FEW + count);
            let what = format!("{arguments:?} {is_compact}: {allocated} + {freed}, {lost} lost");
            assert!(allocated > 1000 && freed > 1000 && allocated + freed < most, "{what}");
            // Its other blocks, and the line that is cut.
            let all = allocated + freed + lost;
            assert!((most..most + KEPT + 3).contains(&all), "{what}");
            assert_eq!(errno, 1, "EPERM: {what}");
            let report = mtr_report([&run.path]).succeeded();
            let words = report.text.replace(',', "").replace('\n', " ");
            assert!(words.contains(&format!("{lost} records")), "{what}\n{}", report.text);
        }
    }
}

#[test]
fn an_ordinary_user_s_program_has_the_same_room_in_memory() {
    use std::os::unix::fs::PermissionsExt;
    if !need_ordinary_user("seccomp: room") {
        return;
    }
    let folder = Folder::new("seccomp-user");
    let program = program_in(&folder);
    let open = std::fs::Permissions::from_mode(0o777);
    std::fs::set_permissions(folder.path(), open).unwrap();
    // Half of the room that there is; more than there would be if it could not be had from the file.
    let count = 2_000_000u64;
    let run = Traced::compact(&folder, &program).by_ordinary_user();
    let run = run.args(&["kill-pwrite", &count.to_string()]).run();
    assert_eq!(run.output.status.code(), Some(7), "{}", run.description());
    assert_eq!(lost(&run.path), (0, 0), "{}", run.description());
    let tail = std::fs::metadata(tail_of(&run.path)).unwrap();
    assert_eq!(tail.permissions().mode() & 0o777, 0o400);
    let report = mtr_report([&run.path]).without_faults();
    assert!(report.summary().allocations > count, "{}", report.text);
}

#[test]
fn a_full_log_without_system_calls_is_a_beginning() {
    let folder = Folder::new("seccomp-log");
    program_in(&folder);
    for how in ["strict", "kill-pwrite", "list"] {
        let run = behaves_the_same(&folder, &[how, "20000"], false);
        let (allocated, freed) = small_blocks(&run.path, false);
        assert!(allocated > 1000 && allocated - freed <= 1, "{how}: {allocated} {freed}");
        assert!(run.log().faults().is_empty(), "{how}: {:?}", run.log().faults());
        let report = mtr_report([&run.path]).succeeded();
        assert_eq!(report.summary().allocations, allocated + 1, "{how}\n{}", report.text);
    }
}

#[test]
fn filters_that_are_not_in_the_way_change_nothing() {
    let folder = Folder::new("seccomp-allow");
    program_in(&folder);
    for how in ["allow", "refused", "vfork", "no-tsc"] {
        let arguments = [how, &COUNT.to_string(), "thread", "fork"];
        let expected = FEW + 2 * COUNT;
        for is_compact in [true, false] {
            let run = behaves_the_same(&folder, &arguments, is_compact);
            assert_eq!(small_blocks(&run.path, is_compact), (expected, expected), "{how}");
            assert!(!tail_of(&run.path).exists(), "{how}: the file is whole");
            if is_compact {
                run.trace().is_finished().is_in_order();
                assert_eq!(traces_beside(&run.path).len(), 2, "{how}: the child's, too");
            } else {
                run.log().is_sound().is_in_order();
                assert_eq!(logs_beside(&run.path).len(), 2, "{how}: the child's, too");
            }
            mtr_report([&run.path]).without_faults();
            for path in std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().path()) {
                if path.file_name().unwrap().to_string_lossy().starts_with("trace.") {
                    std::fs::remove_file(path).unwrap();
                }
            }
        }
    }
}

#[test]
fn mtr_run_reports_on_a_program_that_was_silent() {
    let folder = Folder::new("seccomp-run");
    let program = program_in(&folder);
    let output = mtr_run(folder.path()).arg(&program).args(["kill-pwrite", "20000"]).output();
    let output = output.unwrap();
    assert_eq!(output.status.code(), Some(7), "{output:?}");
    let report = Report::of_mtr_run(&output);
    let summary = report.summary();
    assert!(summary.allocations > 20_000, "{}", report.text);
}
