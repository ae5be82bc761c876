//! Compact traces of processes that end in every way, exec and fork: each is whole, and holds nothing of
//! another's.

mod support;

use support::*;

const BLOCKS: usize = 5001;

/// Runs programs/ends.c to an end and returns its traces, the first image's first.
#[track_caller]
fn end(how: &str) -> Vec<Trace> {
    let folder = Folder::new(&format!("compact-{how}"));
    let program = compile(&folder, "ends", &program("ends.c"), &["-pthread"]);
    let arguments = [how, &BLOCKS.to_string()];
    let plain = run_plain(&program, &arguments).status;
    let run = Traced::compact(&folder, &program).args(&arguments).run();
    assert_eq!(run.output.status, plain, "with and without the library");
    let traces = traces_beside(&run.path);
    traces[0].is_in_order();
    assert_eq!(traces[0].open, 0, "{how}");
    assert_eq!(traces[0].allocated_and_freed(4242), (BLOCKS, BLOCKS / 2), "{how}");
    traces
}

#[test]
fn normal_ends_leave_one_complete_file() {
    for how in ["return", "exit", "exit_in_thread"] {
        end(how)[0].is_finished();
    }
}

#[test]
fn other_ends_lose_nothing() {
    for how in ["_exit", "quick_exit", "abort", "segv", "kill", "term", "pthread_exit"] {
        end(how);
    }
}

#[test]
fn an_exec_leaves_a_complete_trace_of_each_image() {
    let traces = end("exec_self");
    assert_eq!(traces.len(), 2);
    for trace in &traces {
        trace.is_in_order();
        assert_eq!(trace.pid(), traces[0].pid(), "one process, two images");
        assert_eq!(trace.allocated_and_freed(4242), (BLOCKS, BLOCKS / 2));
    }
    assert_eq!(traces[1].note("earlier"), [traces[0].path.to_str().unwrap()]);
}

#[test]
fn sigkill_in_the_middle_of_loops_loses_nothing_recorded_before() {
    let folder = Folder::new("compact-sigkill");
    let program = compile(&folder, "counted_loop", &program("counted_loop.c"), &["-pthread"]);
    for (round, threads) in [1, 3, 1, 3, 1, 3].into_iter().enumerate() {
        let counters = Counters::new(&folder);
        let (mut child, path) =
            Traced::compact(&folder, &program).arg(&counters.0).arg(threads.to_string()).spawn();
        counters.wait_for(&mut child, threads, 10_000 + 777 * round as u64);
        child.kill().unwrap();
        child.wait().unwrap();
        let trace = Trace::read(&path).unwrap();
        trace.is_in_order();
        assert_eq!(trace.pid(), child.id());
        let (allocated, freed) = trace.allocated_and_freed(6161);
        let (counted, counted_frees) = counters.sums(threads);
        // At least what was counted; at most one call per thread was recorded but not counted.
        let range = |n: usize| n..=n + threads;
        assert!(range(counted).contains(&allocated), "{allocated} allocations, {counted} counted");
        assert!(range(counted_frees).contains(&freed), "{freed} frees, {counted_frees} counted");
        assert!(trace.open <= threads, "{} reallocs of {threads} threads", trace.open);
    }
}

#[test]
fn a_forked_child_has_a_trace_of_its_own() {
    let folder = Folder::new("compact-fork");
    let program = compile(&folder, "fork", &program("fork.c"), &[]);
    let run = Traced::compact(&folder, &program).run().succeeded();
    let parent = run.trace();
    parent.is_finished();
    let traces = traces_beside(&run.path);
    let [_, child] = &traces[..] else { panic!("{} traces", traces.len()) };
    child.is_sound();
    assert_eq!(child.pid().to_string(), run.stdout().trim());
    let counts = |trace: &Trace| [7001, 7002, 7003].map(|size| trace.blocks_of(size).len());
    assert_eq!(counts(&parent), [1, 1, 0], "the parent's blocks, and none of the child's");
    assert_eq!(counts(child), [0, 0, 1], "the child's block, and none of the parent's");
    assert_eq!(parent.allocated_and_freed(7001), (1, 0), "the child's free is not the parent's");
    let inherited = parent.blocks_of(7001)[0].address;
    assert!(child.events.iter().any(|e| e.freed() == Some(inherited)), "the child's free");
    let stack = child.stack_of(child.blocks_of(7003)[0]);
    assert_eq!(stack.thread, child.pid());
    let parents = parent.stack_of(parent.blocks_of(7001)[0]);
    assert_eq!(stack.frames[1..], parents.frames[1..], "below main they are the same");

    // The position is a stamp: what is older, the child inherited.
    let note = child.note("parent");
    assert_eq!(note[0], parent.pid().to_string());
    let position: u64 = note[1].parse().expect("a position");
    let before =
        |size| parent.blocks_of(size).iter().filter(|event| event.stamp < position).count();
    assert_eq!([7001, 7002, 7003].map(before), [1, 0, 0]);
    let report = mtr_report([&child.path]).without_faults();
    assert!(report.text.contains("1 block inherited"), "{}", report.description());
}
