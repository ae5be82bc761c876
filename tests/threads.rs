//! Order and completeness with many threads, signal handlers and cancellation.

mod support;

use support::*;

#[test]
fn ten_million_events_of_four_threads_on_one_arena_are_all_there_and_in_order() {
    // 4 * 1,350,000 steps of about two events each.
    const STEPS: &str = "1350000";
    let folder = Folder::new("one-arena");
    let program = compile(&folder, "one_arena", &program("one_arena.c"), &["-O2", "-pthread"]);
    assert_eq!(program, folder.join("one_arena"));
    // A short argv[0]: it stands in each of ten million lines.
    let run = Traced::new(&folder, "./one_arena").arg(STEPS).run().succeeded();
    let counted: Vec<u64> = run.stdout().split_whitespace().map(|n| n.parse().unwrap()).collect();
    let [allocations, frees, reallocations] = counted[..] else { panic!("{counted:?}") };
    let events = allocations + frees + reallocations;
    assert!(events >= 10_000_000, "only {events} events");

    assert!(!tail_of(&run.path).exists(), "a tail was left after a normal end");
    let count = check_order(&run.path, "one_arena");
    count.is_in_order();
    assert_eq!(
        (count.own_allocations, count.own_frees, count.own_reallocations),
        (allocations + reallocations, frees + reallocations, reallocations),
        "the log and the program's own counts: {count:#?}"
    );

    let report = mtr_report([&run.path]).without_faults();
    let summary = Summary {
        in_use_bytes: count.live_bytes,
        in_use_blocks: count.live_blocks,
        allocations: count.allocations,
        frees: count.frees,
        allocated_bytes: count.bytes,
    };
    assert_eq!(report.summary(), summary, "{}", report.description());
}

#[test]
fn the_fast_checker_counts_like_the_slow_reader() {
    // And it sees what it is there to see.
    let folder = Folder::new("checker");
    let path = folder.join("log");
    let text = "= Start\n\
        @ ./a:[0x11] + 0x10 0x64\n\
        @ ./a:(main+0x3)[0x12] < 0x10\n\
        # a remark\n\
        @ b.so:[0x13] + 0x30 0\n\
        @ ./a:[0x12] > 0x20 0xc8\n\
        @ ./a:[0x14] + 0x20 0x1\n\
        @ ./a:[0x15] - 0x40\n\
        @ ./a:[0x16] ! 0x20 0xffffffff\n\
        @ ./a:[0x16] + (nil) 0xffffffff\n\
        @ ./a:[0x16] - 0x\n\
        @ [0x17] - 0x30\n";
    std::fs::write(&path, text).unwrap();
    let count = check_order(&path, "a");
    assert_eq!((count.allocations, count.frees, count.reallocations, count.failures), (4, 3, 1, 2));
    assert_eq!((count.duplicates, count.unknown_frees, count.damaged), (1, 1, 1), "{count:#?}");
    assert_eq!((count.own_allocations, count.own_frees, count.own_reallocations), (3, 2, 1));
    assert_eq!((count.live_blocks, count.live_bytes, count.bytes), (1, 1, 100 + 200 + 1));

    let log = Log::read(&path).unwrap();
    assert_eq!(log.faults().len() as u64, count.duplicates + count.unknown_frees);
    assert_eq!(log.damaged.len() as u64, count.damaged);
    assert_eq!(log.live().len() as u64, count.live_blocks);
}

#[test]
fn a_thousand_short_lived_threads_leave_each_of_their_lines() {
    let folder = Folder::new("short-threads");
    let program = compile(&folder, "short_threads", &program("short_threads.c"), &["-pthread"]);
    let run = Traced::new(&folder, &program).arg("1000").run().succeeded();
    let log = run.log();
    log.is_in_order();
    assert!(!log.has_tail);
    assert_eq!(log.allocated_and_freed(7500), (1000, 1000));
    mtr_report([&run.path]).without_faults();
}

#[test]
fn the_threads_example_leaks_one_block_per_thread_and_nothing_else_of_its_own() {
    let folder = Folder::new("threads-example");
    let source = example("threads.c");
    let program = compile(&folder, "threads", &source, &["-pthread"]);
    let run = Traced::new(&folder, &program).run().succeeded();
    let log = run.log();
    log.is_in_order();
    let own = log.records().filter(|r| r.is_from("threads"));
    assert_eq!(own.filter(|r| r.allocated().is_some()).count(), 4 * 10_000 + 4);
    let live: Vec<u64> = log
        .live()
        .values()
        .filter(|r| r.is_from("threads"))
        .map(|r| r.allocated().unwrap().1)
        .collect();
    let mut sorted = live.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, [1000, 1001, 1002, 1003]);
    let report = mtr_report([&run.path]).without_faults();
    report.names("work", "threads.c", line_of(&source, "malloc(1000 + self)"));
    let letter = line_of(&source, "letter = malloc");
    assert!(!report.lines("threads.c").contains(&letter), "freed blocks: {}", report.text);
}

#[test]
fn a_signal_handler_may_allocate_while_a_hook_is_at_work() {
    let folder = Folder::new("handler");
    let safe = compile(
        &folder,
        "libsafe.so",
        &program("signal_safe_malloc.c"),
        &["-shared", "-fPIC", "-O1"],
    );
    let program = compile(&folder, "allocating_handler", &program("allocating_handler.c"), &[]);
    let run = Traced::new(&folder, &program).arg("3000").preload_after(&safe).run().succeeded();
    let counted: Vec<usize> = run.stdout().split_whitespace().map(|n| n.parse().unwrap()).collect();
    let log = run.log();
    log.is_in_order();
    assert_eq!(log.allocated_and_freed(7600), (counted[0], counted[0]), "of main");
    assert_eq!(log.allocated_and_freed(7601), (counted[1], counted[1]), "of the handler");
    assert!(counted[1] >= 3000);
    mtr_report([&run.path]).without_faults();
}

#[test]
fn malloc_does_not_become_a_cancellation_point() {
    let folder = Folder::new("cancel");
    let program = compile(&folder, "cancel", &program("cancel.c"), &["-pthread"]);
    // 1: the thread was not cancelled; 2: it was, in the middle of its allocations.
    let run = Traced::new(&folder, &program).run().succeeded();
    let log = run.log();
    log.is_in_order();
    assert_eq!(log.allocated_and_freed(7700), (40_000, 40_000));
}

#[test]
fn a_hook_uses_at_most_2_kib_of_the_stack() {
    let folder = Folder::new("stack-use");
    // Where `.eh_frame` is without a header, only the program's file says.
    for flags in [&["-O1", "-pthread"][..], &["-O1", "-pthread", "-Wl,--no-eh-frame-hdr"]] {
        let program = compile(&folder, "stack_use", &program("stack_use.c"), flags);
        let plain = run_plain(&program, &[]);
        for traced in [Traced::new(&folder, &program), Traced::compact(&folder, &program)] {
            let run = traced.run().succeeded();
            let used: Vec<u64> =
                run.stdout().split_whitespace().map(|n| n.parse().unwrap()).collect();
            println!("{used:?}");
            assert_eq!(used.len(), 7, "{}", run.description());
            assert!(used.iter().all(|bytes| *bytes <= 2048), "{used:?}, without us {plain:?}");
        }
    }
}
