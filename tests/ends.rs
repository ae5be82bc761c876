//! However a program ends, nothing that was recorded before is lost.

mod support;

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use support::*;

const BLOCKS: usize = 5001;

fn build(folder: &Folder) -> PathBuf {
    compile(folder, "ends", &program("ends.c"), &["-pthread"])
}

/// The log has each of the program's calls.
#[track_caller]
fn is_complete(log: &Log) {
    log.is_in_order();
    assert_eq!(log.holes, 0, "{}", log.path.display());
    assert_eq!(log.allocated_and_freed(4242), (BLOCKS, BLOCKS / 2), "{}", log.path.display());
}

#[track_caller]
fn run_to(folder: &Folder, end: &str) -> Run {
    let program = build(folder);
    let count = BLOCKS.to_string();
    let plain = run_plain(&program, &[end, &count]).status;
    let run = Traced::new(folder, &program).args(&[end, &count]).run();
    assert_eq!(run.output.status, plain, "with and without the library");
    run
}

/// Ends at which the log becomes one plain file.
#[track_caller]
fn ends_normally(end: &str) {
    let folder = Folder::new(&format!("ends-{end}"));
    let run = run_to(&folder, end);
    let log = run.log();
    is_complete(&log);
    assert!(!log.has_tail, "a normal end leaves no tail");
    assert_eq!(log.notes("exit").len(), 1);
    if let Some(Script { blocks, others }) = mtrace_script(&run.path) {
        let live: Vec<(u64, u64)> = log.live().values().map(|r| r.allocated().unwrap()).collect();
        assert_eq!(blocks, live, "{others:?}");
    } else {
        skip(&format!("{end}: the script of glibc"), "mtrace is not installed");
    }
    the_report_agrees(&run.path, &log);
}

/// Ends that the library does not see, or must not act on: a tail may be left.
#[track_caller]
fn ends_otherwise(end: &str) {
    let folder = Folder::new(&format!("ends-{end}"));
    let run = run_to(&folder, end);
    let log = run.log();
    is_complete(&log);
    the_report_agrees(&run.path, &log);
}

/// mtr-report counts what our own reader does.
#[track_caller]
fn the_report_agrees(path: &Path, log: &Log) {
    let report = mtr_report([path]).succeeded();
    let mut summary = report.summary();
    let records = || log.records();
    let counted = Summary {
        in_use_bytes: log.live().values().map(|r| r.allocated().unwrap().1).sum(),
        in_use_blocks: log.live().len() as u64,
        allocations: records().filter(|r| r.allocated().is_some()).count() as u64,
        frees: records().filter(|r| r.freed().is_some()).count() as u64,
        allocated_bytes: records().filter_map(|r| r.allocated()).map(|(_, size)| size).sum(),
    };
    // A block whose free had begun may count as live or as freed.
    if log.announced() > 0 {
        let announced = log.announced() as u64;
        assert!(summary.in_use_blocks.abs_diff(counted.in_use_blocks) <= announced);
        assert!(summary.frees.abs_diff(counted.frees) <= announced);
        let Summary { in_use_bytes, in_use_blocks, frees, .. } = counted;
        summary = Summary { in_use_bytes, in_use_blocks, frees, ..summary };
    }
    assert_eq!(summary, counted, "{}", report.description());
    assert!(report.faults().is_empty(), "{:#?}", report.faults());
}

#[test]
fn returning_from_main_loses_nothing() {
    ends_normally("return");
}

#[test]
fn exit_loses_nothing() {
    ends_normally("exit");
}

#[test]
fn exit_in_another_thread_loses_nothing() {
    ends_normally("exit_in_thread");
}

#[test]
fn a_main_thread_that_leaves_before_the_last_one_loses_nothing() {
    let folder = Folder::new("ends-pthread_exit");
    let run = run_to(&folder, "pthread_exit");
    let log = run.log();
    is_complete(&log);
    assert_eq!(log.allocated_and_freed(4343), (1, 1), "of the thread that was left");
}

#[test]
fn underscore_exit_loses_nothing() {
    ends_otherwise("_exit");
}

#[test]
fn capital_exit_loses_nothing() {
    ends_otherwise("_Exit");
}

#[test]
fn quick_exit_loses_nothing() {
    ends_otherwise("quick_exit");
}

#[test]
fn abort_loses_nothing() {
    ends_otherwise("abort");
}

#[test]
fn a_segmentation_fault_loses_nothing() {
    ends_otherwise("segv");
}

#[test]
fn killing_itself_loses_nothing() {
    ends_otherwise("kill");
}

#[test]
fn sigterm_loses_nothing() {
    ends_otherwise("term");
}

#[test]
fn an_exec_of_itself_leaves_two_complete_logs() {
    let folder = Folder::new("ends-exec_self");
    let run = run_to(&folder, "exec_self");
    let logs = logs_beside(&run.path);
    assert_eq!(logs.len(), 2, "{:?}", logs.iter().map(|l| &l.path).collect::<Vec<_>>());
    for log in &logs {
        is_complete(log);
        assert_eq!(log.pid(), logs[0].pid(), "one process, two images");
    }
    assert_eq!(logs[0].path, run.path, "the first image keeps the name");
    assert!(logs[0].notes("earlier").is_empty());
    assert_eq!(logs[1].note("earlier"), [run.path.to_str().unwrap()]);
}

#[test]
fn an_exec_of_another_program_leaves_what_the_first_has_recorded() {
    for format in FORMATS {
        let folder = Folder::new("ends-exec_other");
        let program = build(&folder);
        let arguments = ["exec_other", &*BLOCKS.to_string()];
        let plain = run_plain(&program, &arguments);
        let run = format.traced(&folder, &program).args(&arguments).run();
        assert_eq!(run.output.status, plain.status, "{}", run.description());
        assert_eq!(run.output.stdout, plain.stdout, "{}", run.description());
        let all = Recorded::all_beside(format, &run.path);
        let [first, shell] = &all[..] else { panic!("{format:?}: {} images", all.len()) };
        assert_eq!(first.path(), run.path);
        let counts = (BLOCKS as u64, BLOCKS as u64 / 2);
        assert_eq!(first.is_in_order().allocated_and_freed(4242), counts, "{format:?}");
        if let Recorded::Text(log) = first {
            assert_eq!(log.holes, 0, "lines without a beginning");
        }
        assert_eq!(shell.is_in_order().allocated_and_freed(4242), (0, 0), "{format:?}");
        assert_eq!(
            (shell.pid(), &shell.note("earlier")[..]),
            (first.pid(), &[run.path.display().to_string()][..])
        );
        for image in &all {
            support::the_report_agrees(image);
        }
    }
}

#[test]
fn handlers_and_destructors_are_recorded_behind_main() {
    let folder = Folder::new("ends-late");
    let program = compile(&folder, "late_frees", &program("late_frees.c"), &[]);
    let run = Traced::new(&folder, &program).run().succeeded();
    let log = run.log();
    log.is_in_order();
    assert!(!log.has_tail);
    let counts = [5001, 5002, 5003].map(|size| log.allocated_and_freed(size));
    assert_eq!(counts, [(1, 1), (1, 1), (1, 0)]);
    let report = mtr_report([&run.path]).without_faults();
    report.names(
        "destructor",
        "late_frees.c",
        line_of(&support::program("late_frees.c"), "(5003)"),
    );
}

/// Kills a loop of `threads` threads with `signal` and compares the log with the threads' counts.
fn killed_in_the_middle(name: &str, threads: usize, signal: i32) {
    let folder = Folder::new(name);
    let program = compile(&folder, "counted_loop", &program("counted_loop.c"), &["-pthread"]);
    for round in 0..5 {
        let counters = Counters::new(&folder);
        let (mut child, path) =
            Traced::new(&folder, &program).arg(&counters.0).arg(threads.to_string()).spawn();
        counters.wait_for(&mut child, threads, 10_000 + 777 * round);
        // SAFETY: the child has not been waited for, so the process ID is still its own.
        assert_eq!(unsafe { libc::kill(child.id() as i32, signal) }, 0);
        let status = child.wait().unwrap();
        assert_eq!(status.signal(), Some(signal), "{status}");

        let log = Log::read(&path).unwrap();
        log.is_in_order();
        assert_eq!(log.pid(), child.id());
        let (allocated, freed) = log.allocated_and_freed(6161);
        let (counted, counted_frees) = counters.sums(threads);
        // At least what was counted; at most one call per thread was recorded but not counted.
        let range = |n: usize| n..=n + threads;
        assert!(range(counted).contains(&allocated), "{allocated} allocations, {counted} counted");
        assert!(range(counted_frees).contains(&freed), "{freed} frees, {counted_frees} counted");
        the_report_agrees(&path, &log);
    }
}

#[test]
fn sigkill_in_the_middle_of_a_loop_loses_nothing_recorded_before() {
    killed_in_the_middle("ends-sigkill", 1, libc::SIGKILL);
}

#[test]
fn sigkill_with_three_threads_in_their_loops_loses_nothing_recorded_before() {
    killed_in_the_middle("ends-sigkill-threads", 3, libc::SIGKILL);
}

#[test]
fn sigterm_in_the_middle_of_a_loop_loses_nothing_recorded_before() {
    killed_in_the_middle("ends-sigterm", 2, libc::SIGTERM);
}

#[test]
fn exit_while_other_threads_allocate_loses_nothing_and_tears_nothing() {
    let folder = Folder::new("ends-exit-race");
    let program = compile(&folder, "counted_loop", &program("counted_loop.c"), &["-pthread"]);
    for _ in 0..10 {
        let counters = Counters::new(&folder);
        let run = Traced::new(&folder, &program).arg(&counters.0).args(&["3", "5000"]).run();
        assert_eq!(run.output.status.code(), Some(7), "{}", run.description());
        let log = run.log();
        log.is_in_order();
        let (allocated, freed) = log.allocated_and_freed(6161);
        let (counted, counted_frees) = counters.sums(3);
        assert!((counted..=counted + 3).contains(&allocated), "{allocated}, {counted} counted");
        assert!((counted_frees..=counted_frees + 3).contains(&freed), "{freed}, {counted_frees}");
        the_report_agrees(&run.path, &log);
    }
}

/// A tail file with blocks of 4,096 bytes: (number with its busy bit, bytes).
fn tail(id: u64, blocks: &[(u64, &[u8])]) -> Vec<u8> {
    let mut bytes = vec![0; 4096 * (1 + blocks.len())];
    bytes[..8].copy_from_slice(b"MTRTAIL1");
    bytes[8..16].copy_from_slice(&id.to_le_bytes());
    bytes[16..20].copy_from_slice(&4096u32.to_le_bytes());
    bytes[20..24].copy_from_slice(&(blocks.len() as u32).to_le_bytes());
    for (index, (number, block)) in blocks.iter().enumerate() {
        bytes[64 + 8 * index..][..8].copy_from_slice(&number.to_le_bytes());
        bytes[4096 * (1 + index)..][..block.len()].copy_from_slice(block);
    }
    bytes
}

#[test]
fn a_tail_is_laid_over_its_log_byte_by_byte() {
    let folder = Folder::new("ends-tail");
    let path = folder.join("trace.log");
    let mut text = String::from(
        "# mtr log 1\n# id 0123456789abcdef\n# pid 1\n# addresses absolute\n\
         # start process\n= Start\n",
    );
    let mut lines = 0;
    while text.len() < 3 * 4096 + 500 {
        lines += 1;
        text += &format!("@ ./t:[0x1157] + {:#x} 0x{:x}\n", 0x10_0000 + 16 * lines, 100);
    }
    let bytes = text.into_bytes();
    let whole = Log::from_bytes(&bytes);
    assert_eq!(whole.live().len(), lines);

    // Two blocks are on disk; the third is being written and half there; the fourth is in the tail.
    let id = 0x0123_4567_89ab_cdef;
    std::fs::write(&path, &bytes[..2 * 4096 + 1000]).unwrap();
    let blocks: [(u64, &[u8]); 3] = [
        (u64::MAX, b"not in use"),
        (2 | 1 << 63, &bytes[2 * 4096..3 * 4096]),
        (3, &bytes[3 * 4096..]),
    ];
    std::fs::write(tail_of(&path), tail(id, &blocks)).unwrap();
    let log = Log::read(&path).unwrap();
    log.is_in_order();
    assert_eq!((log.live().len(), log.holes), (lines, 0));
    the_report_agrees(&path, &log);

    // The process died in the middle of three lines: nothing of the first was stored, only the end
    // of the second, which announces a free, and all but the start of the third. Then the freed
    // address is used again.
    let (mut last, base) = (bytes[3 * 4096..].to_vec(), 0x10_0000);
    last.extend_from_slice(&[0; 40]);
    last.extend_from_slice(&[0; 8]);
    last.extend_from_slice(format!("x1157] - {:#x}\n", base + 16).as_bytes());
    last.extend_from_slice(&[0; 8]);
    last.extend_from_slice(b"x1157] + 0x990000 0x20\n");
    last.extend_from_slice(format!("@ ./t:[0x1168] + {:#x} 0xc8\n", base + 16).as_bytes());
    last.extend_from_slice(&[0; 300]); // space never taken
    let blocks: [(u64, &[u8]); 2] = [(2, &bytes[2 * 4096..3 * 4096]), (3, &last)];
    std::fs::write(tail_of(&path), tail(id, &blocks)).unwrap();
    let log = Log::read(&path).unwrap();
    log.is_in_order();
    assert_eq!((log.holes, log.announced()), (2, 1));
    assert_eq!(log.blocks_of(200).len(), 1);
    assert_eq!(log.blocks_of(0x20).len(), 0, "a line without its beginning is none");
    the_report_agrees(&path, &log);
    // Without the announcement the same line is a fault.
    let mut faulty = bytes.clone();
    faulty.extend_from_slice(format!("@ ./t:[0x1168] + {:#x} 0xc8\n", base + 16).as_bytes());
    assert_eq!(Log::from_bytes(&faulty).faults().len(), 1);
}
