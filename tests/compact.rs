//! The compact trace, end to end: what libmtr.so records is decoded by a reader of the tests' own and
//! compared with what the programs say they did.

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use support::*;

/// An event as programs/record_kinds.c expects it, without its place: `+` stands for `>`, too.
fn describe(event: &Event) -> Option<String> {
    let pointer = |p| if p == 0 { "(nil)".to_owned() } else { format!("{p:#x}") };
    let size = |n| if n == 0 { "0".to_owned() } else { format!("{n:#x}") };
    let address = pointer(event.address);
    let info = event.info.as_ref();
    Some(match event.kind {
        Kind::Alloc => format!("+ {address} {}", size(info?.size)),
        Kind::Free => format!("- {address}"),
        Kind::ReallocOld => format!("< {address}"),
        Kind::Failed if info?.family == 3 => format!("! {address} {}", size(info?.size)),
        Kind::Failed => format!("+ {address} {}", size(info?.size)),
        Kind::ReallocOpen => return None,
    })
}

#[test]
fn every_call_leaves_the_documented_event() {
    let folder = Folder::new("compact-records");
    let program = compile(&folder, "record_kinds", &program("record_kinds.c"), &[]);
    let expected = folder.join("expected");
    let run = Traced::compact(&folder, &program).arg(&expected).run().succeeded();
    let plain = run_plain(&program, &["expected"]);
    assert_eq!(run.stdout(), String::from_utf8_lossy(&plain.stdout), "results and errno");
    // The run without the library has written its own.
    let run = Traced::compact(&folder, &program).arg(&expected).run().succeeded();
    let trace = run.trace();
    trace.is_finished();

    let position = |size| {
        let found = trace.events.iter().position(|e| e.allocated().is_some_and(|(_, n)| n == size));
        found.unwrap_or_else(|| panic!("no block of {size:#x} bytes"))
    };
    let events = &trace.events[position(0xbe91) + 2..position(0xe4d1)];
    let mut found = events.iter().filter_map(describe).peekable();
    for line in std::fs::read_to_string(&expected).unwrap().lines() {
        let (line, is_optional) = match line.strip_prefix('?') {
            Some(line) => (line, true),
            None => (line, false),
        };
        let line = line.strip_suffix(" pvalloc").unwrap_or(line);
        let line = line.split_once(' ').unwrap().1.replace("> ", "+ ");
        if found.next_if_eq(&line).is_none() && !is_optional {
            panic!("expected `{line}`, found {:?}", found.peek());
        }
    }
    assert_eq!(found.next(), None, "more than expected");

    // Size -> family and alignment.
    let families: [(u64, u8, Option<u64>); 14] = [
        (100, 1, None),
        (7 * 3, 2, None),
        (0x78, 3, None),
        (200_000, 3, None),
        (33, 3, None),
        (0xc8, 3, None),
        (1000, 4, Some(64)),
        (128, 5, Some(64)),
        (50, 6, Some(24)),
        (70, 7, None),
        (10, 8, None),
        (0xd, 1, None),
        (0xbe91, 1, None),
        (0xe4d1, 1, None),
    ];
    for (size, family, alignment) in families {
        let blocks = trace.blocks_of(size);
        let of_program = blocks.iter().filter(|event| {
            let frames = trace.stack_of(event).frames;
            frames.iter().any(|f| trace.module_name(*f, event.position) == Some("record_kinds"))
        });
        for block in of_program {
            let info = block.info.unwrap();
            assert_eq!((info.family, info.alignment), (family, alignment), "{size} bytes");
        }
        assert!(!blocks.is_empty(), "no block of {size} bytes");
    }
    // Failed calls, too, have their family and stack.
    let failed = events.iter().filter(|e| e.kind == Kind::Failed && e.address == 0);
    let families: Vec<u8> = failed.map(|event| event.info.unwrap().family).collect();
    for family in [1, 2, 3, 4, 6] {
        assert!(families.contains(&family), "no failed call of family {family}: {families:?}");
    }
}

#[test]
fn a_deep_stack_is_complete_and_a_deeper_one_keeps_its_root() {
    let folder = Folder::new("compact-deep");
    let program = compile(&folder, "deep", &program("deep.c"), &["-O1"]);
    let depths = ["5", "600", "3000", "20000", "600", "20000", "5"];
    let run = Traced::compact(&folder, &program).args(&depths).run().succeeded();
    let trace = run.trace();
    trace.is_finished();
    let stack_at = |index: u64| {
        let [event] = trace.blocks_of(30_000 + index)[..] else { panic!("block {index}") };
        trace.stack_of(event)
    };
    let shallow = stack_at(0);
    let (site, recursion, root) = (shallow.frames[0], shallow.frames[1], &shallow.frames[6..]);
    assert_eq!(trace.module_name(root[0], trace.records), Some("deep"), "{shallow:x?}");
    for (index, depth) in (0..).zip(depths) {
        let (stack, depth) = (stack_at(index), depth.parse::<usize>().unwrap());
        let inner = stack.frames.iter().filter(|frame| **frame == recursion).count();
        assert_eq!(stack.frames[0], site, "{depth} frames");
        assert_eq!(stack.frames[1 + inner..], *root, "{depth} frames");
        assert!(!stack.is_ended);
        if depth < 4000 {
            assert_eq!((inner, stack.cut), (depth, None), "{depth} frames");
        } else {
            assert!(stack.cut.is_some_and(|cut| cut >= 512), "{depth} frames: {:?}", stack.cut);
            assert!(inner < depth, "{inner} of {depth} frames, and a mark");
        }
    }
}

#[test]
fn five_million_events_of_four_threads_on_one_arena_are_all_there_and_in_order() {
    let folder = Folder::new("compact-arena");
    let program = compile(&folder, "one_arena", &program("one_arena.c"), &["-O2", "-pthread"]);
    let counts_of = |run: &Run| -> [u64; 3] {
        let counts: Vec<u64> =
            run.stdout().split_whitespace().map(|n| n.parse().unwrap()).collect();
        counts.try_into().unwrap()
    };
    let run = Traced::compact(&folder, &program).arg("675000").run().succeeded();
    let [allocations, frees, reallocations] = counts_of(&run);
    assert!(allocations + frees + reallocations >= 5_000_000);
    let count = check_trace_order(&run.path);
    count.is_in_order();
    let expected = (allocations + reallocations, frees + reallocations);
    assert_eq!(count.of_sizes(2000..4000), expected, "{:?}", run.stdout());
    assert_eq!(count.reallocations, reallocations);
    assert_eq!(count.by_thread.len(), 5, "main and four: {:?}", count.by_thread);

    // The slow decoder looks at each stack of a smaller run.
    let run = Traced::compact(&folder, &program).arg("20000").run().succeeded();
    let [allocations, _, reallocations] = counts_of(&run);
    let trace = run.trace();
    trace.is_finished();
    let mut stacks: BTreeMap<Stack, u64> = BTreeMap::new();
    for event in trace.events.iter().filter(|e| e.kind == Kind::Alloc) {
        if (2000..4000).contains(&event.info.unwrap().size) {
            *stacks.entry(trace.stack_of(event)).or_default() += 1;
        }
    }
    assert_eq!(stacks.values().sum::<u64>(), allocations + reallocations);
    // Two call sites (malloc and realloc) in each of four threads.
    assert_eq!(stacks.len(), 8, "{stacks:x?}");
    for stack in stacks.keys() {
        assert_ne!(stack.thread, trace.pid(), "main allocates none of them");
        assert_eq!(stack.frames.len(), 3, "work, start_thread, clone3: {stack:x?}");
        assert!(!stack.is_ended && stack.cut.is_none(), "{stack:x?}");
    }
    let count = check_trace_order(&run.path);
    let slow = trace.events.iter().filter(|e| e.kind == Kind::Alloc);
    assert_eq!(count.allocations, slow.clone().count() as u64, "fast and slow");
    assert_eq!(count.frames, slow.map(|e| trace.stack_of(e).frames.len() as u64).sum::<u64>());
}

#[test]
fn stacks_of_a_thread_end_in_its_own_root_whoever_had_its_memory_before() {
    let folder = Folder::new("compact-roots");
    let safe = signal_safe_malloc(&folder);
    let source = program("handler_then_threads.c");
    let program = compile(&folder, "handler_then_threads", &source, &["-pthread"]);
    let run = Traced::compact(&folder, &program).arg("2000").preload_after(&safe).run().succeeded();
    let trace = run.trace();
    trace.is_finished();
    let ids: Vec<u32> = run.stdout().lines().map(|line| line.parse().unwrap()).collect();
    for (size, id) in (7700..).zip(&ids) {
        let blocks = trace.blocks_of(size);
        assert_eq!(blocks.len(), 3);
        for block in blocks {
            let stack = trace.stack_of(block);
            assert_eq!(stack.thread, *id, "{size} bytes, threads {ids:?}: {stack:x?}");
        }
    }
}

fn signal_safe_malloc(folder: &Folder) -> PathBuf {
    let flags = ["-shared", "-fPIC", "-O1"];
    compile(folder, "libsafe.so", &program("signal_safe_malloc.c"), &flags)
}

#[test]
fn a_signal_handler_may_allocate_while_a_hook_is_at_work() {
    let folder = Folder::new("compact-handler");
    let safe = signal_safe_malloc(&folder);
    let program = compile(&folder, "allocating_handler", &program("allocating_handler.c"), &[]);
    let run = Traced::compact(&folder, &program).arg("3000").preload_after(&safe).run().succeeded();
    let counted: Vec<usize> = run.stdout().split_whitespace().map(|n| n.parse().unwrap()).collect();
    let trace = run.trace();
    trace.is_finished();
    assert_eq!(trace.allocated_and_freed(7600), (counted[0], counted[0]), "of main");
    assert_eq!(trace.allocated_and_freed(7601), (counted[1], counted[1]), "of the handler");
    let mut taken = 0;
    for event in trace.blocks_of(7601) {
        let stack = trace.stack_of(event);
        let is_whole = !stack.is_ended && stack.cut.is_none();
        taken += usize::from(is_whole);
        assert_eq!(stack.thread, trace.pid());
    }
    // Those that came in the middle of something without unwind information may lack some.
    assert!(taken * 10 >= counted[1] * 9, "{taken} of {} stacks are complete", counted[1]);
}

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

#[test]
fn plugins_at_the_same_address_have_nodes_of_their_own() {
    let folder = Folder::new("compact-plugins");
    for name in ["red", "blue"] {
        let source = example(&format!("plugins/{name}.c"));
        compile(&folder, &format!("{name}.so"), &source, &["-shared", "-fPIC"]);
    }
    let host = compile(&folder, "host", &example("plugins/host.c"), &["-ldl"]);
    let plugins = ["./red.so", "./blue.so"];
    let run = Traced::compact(&folder, &host).args(&plugins).run().succeeded();
    let trace = run.trace();
    trace.is_finished();
    let mut found = BTreeMap::new();
    for event in trace.events.iter().filter(|e| e.kind == Kind::Alloc) {
        let size = event.info.unwrap().size;
        let expected = match size {
            50 | 111 => "red.so",
            222 => "blue.so",
            _ => continue,
        };
        let nodes = trace.nodes_of(event);
        let Some(module) = trace.module_at(nodes[0].1, event.position) else { continue };
        if !module.path.ends_with("red.so") && !module.path.ends_with("blue.so") {
            continue;
        }
        assert!(module.path.ends_with(expected), "{size} bytes by {module:?}");
        let mut in_plugin = nodes.iter().filter(|(_, a)| (module.start..module.end).contains(a));
        assert!(in_plugin.all(|(position, _)| *position > module.position), "{nodes:x?}");
        *found.entry((expected, size)).or_insert(0) += 1;
    }
    let expected = [(("blue.so", 222), 3), (("red.so", 50), 3), (("red.so", 111), 3)];
    assert_eq!(found, BTreeMap::from(expected));
    let mut starts: Vec<_> =
        trace.modules().filter(|m| m.path.starts_with(folder.path())).collect();
    starts.retain(|module| !module.path.ends_with("host"));
    let same = starts.iter().any(|a| starts.iter().any(|b| a.start == b.start && a.path != b.path));
    if !same {
        skip("plugins at the same address", "the loader put them at different ones");
    }
}

#[test]
fn an_event_takes_nine_bytes_at_most() {
    let folder = Folder::new("compact-size");
    let source = repository().join("benches/workloads/flat.c");
    let program = compile(&folder, "flat", &source, &["-O2", "-pthread", "-ldl"]);
    let run = Traced::compact(&folder, &program).args(&["-n", "250000", "-d", "20"]).run();
    let run = run.succeeded();
    let count = check_trace_order(&run.path);
    count.is_in_order();
    let events = count.allocations + count.frees;
    assert!(events >= 500_000, "{events} events");
    assert!(count.length <= 9 * events, "{} bytes for {events} events", count.length);
    assert!(count.depth() > 20.0, "{} frames", count.depth());
}

/// Runs `program` in `folder` without and with the library and compares all that one can see.
/// Returns the traces of every process.
#[track_caller]
fn behaves_the_same(folder: &Folder, program: &Path, arguments: &[&str]) -> Vec<Trace> {
    let traces = Folder::new("compact-traces");
    let prepare = || {
        let mut command = clean_command(program);
        command.args(arguments).current_dir(folder.path());
        command.env("HOME", folder.path()).env("GIT_CONFIG_NOSYSTEM", "1").env("LC_ALL", "C");
        command.env("PYTHONMALLOC", "malloc");
        command
    };
    let plain = prepare().output().unwrap();
    let path = traces.join("trace.mtr");
    let mut traced = prepare();
    traced.env("LD_PRELOAD", library()).env("MTR_TRACE_FORMAT", "compact");
    let traced = traced.env("MTR_OUTPUT", &path).output().unwrap();
    let what = format!("{} {arguments:?}: {traced:?}", program.display());
    assert_eq!(traced.status, plain.status, "{what}");
    assert!(traced.stdout == plain.stdout && traced.stderr == plain.stderr, "{what}\n{plain:?}");
    let all = traces_beside(&path);
    assert!(all.iter().any(|trace| trace.path == path), "{what}: no trace");
    for trace in &all {
        trace.is_sound();
        if trace.notes("parent").is_empty() {
            trace.is_in_order();
            assert!(!trace.events.is_empty(), "{what}: no events");
        }
        // Stacks of compiled code have roots, not ends.
        let allocations = || trace.events.iter().filter(|e| e.kind == Kind::Alloc);
        let ended = allocations().filter(|e| trace.stack_of(e).is_ended).count();
        assert!(ended * 100 <= allocations().count(), "{what}: {ended} stacks are incomplete");
    }
    all
}

#[test]
fn python_behaves_the_same_and_has_sound_traces() {
    let Some(python) = need_elf("python3", "python, compact") else { return };
    let folder = Folder::new("compact-python");
    let script = "import json, sys, decimal\n\
        data = json.loads('[' + ', '.join('{\"a\": [%d, \"x\"]}' % i for i in range(2000)) + ']')\n\
        print(len(json.dumps(data)), sum(d['a'][0] for d in data))\n\
        print('done', file=sys.stderr)\n\
        sys.exit(3)\n";
    std::fs::write(folder.join("script.py"), script).unwrap();
    let traces = behaves_the_same(&folder, &python, &["-s", "script.py"]);
    assert!(traces[0].events.len() > 100_000, "{} events", traces[0].events.len());
}

#[test]
fn a_compiler_behaves_the_same_and_has_sound_traces() {
    let Some(gcc) = need_elf("gcc", "gcc, compact") else { return };
    let folder = Folder::new("compact-gcc");
    let source = "#include <stdio.h>\nint main(void) { int unused; puts(\"built\"); }\n";
    std::fs::write(folder.join("small.c"), source).unwrap();
    let arguments = ["-O2", "-Wall", "-g", "small.c", "-o", "small"];
    let traces = behaves_the_same(&folder, &gcc, &arguments);
    assert!(traces.len() >= 4, "the driver, cc1, as, collect2, ld: {}", traces.len());
    assert_eq!(run_plain(&folder.join("small"), &[]).stdout, b"built\n");
}

#[test]
fn git_behaves_the_same_and_has_sound_traces() {
    let Some(git) = need_elf("git", "git, compact") else { return };
    let folder = Folder::new("compact-git");
    behaves_the_same(&folder, &git, &["--version"]);
    let mut init = clean_command(&git);
    init.args(["init", "-q"]).current_dir(folder.path()).env("HOME", folder.path());
    assert!(init.status().unwrap().success());
    std::fs::write(folder.join("new file"), "text\n").unwrap();
    behaves_the_same(&folder, &git, &["status"]);
    behaves_the_same(&folder, &git, &["show", "no-such-commit"]);
}

/// A trace of one chunk: two lines, then docs/trace-format.md's example, then these records.
fn example_and(more: &[u8]) -> Vec<u8> {
    let mut records = Vec::new();
    for line in ["# mtr trace 2\n", "# id 00000000000004d2\n"] {
        records.extend([1, line.len() as u8]);
        records.extend(line.as_bytes());
    }
    let text = std::fs::read_to_string(repository().join("docs/trace-format.md")).unwrap();
    let example = text.split("## Example").nth(1).expect("the example");
    for line in example.lines().filter_map(|line| line.strip_prefix("    ")) {
        let bytes = line.split(' ').map_while(|word| match word.len() {
            2 => u8::from_str_radix(word, 16).ok(),
            _ => None,
        });
        records.extend(bytes);
    }
    records.extend(more);
    let mut bytes = b"mtr\x02".to_vec();
    bytes.extend((records.len() as u32).to_le_bytes());
    bytes.extend(1234u64.to_le_bytes());
    bytes.resize(64, 0);
    bytes.extend(records);
    bytes
}

#[test]
fn the_decoders_read_the_documented_example_and_see_what_they_are_there_to_see() {
    let folder = Folder::new("compact-example");
    let path = folder.join("trace.mtr");
    let read = |more: &[u8]| {
        std::fs::write(&path, example_and(more)).unwrap();
        (Trace::read(&path).unwrap(), check_trace_order(&path))
    };
    let (trace, count) = read(&[]);
    trace.is_finished();
    count.is_in_order();
    assert_eq!((count.allocations, count.frees, count.definitions), (2, 1, 2));
    let [allocation, other, free] = &trace.events[..] else { panic!("{:?}", trace.events) };
    assert_eq!(allocation.allocated(), Some((0x4052a0, 100)));
    assert_eq!(other.allocated(), Some((0x405310, 100)));
    assert_eq!(free.freed(), Some(0x4052a0));
    let stack = trace.stack_of(allocation);
    assert_eq!((stack.thread, &stack.frames[..]), (4711, &[0x401136][..]));
    // And mtr-report says the same.
    let report = mtr_report([path.as_os_str()]).succeeded().text;
    assert!(report.contains("2 allocs, 1 frees, 200 bytes allocated"), "{report}");

    let (trace, count) = read(&[0x84, 1, 14, 7]); // the block that is live
    assert_eq!((trace.faults().len(), count.duplicates), (1, 1));
    let (trace, count) = read(&[0x40, 0]); // the block that is not
    assert_eq!((trace.faults().len(), count.unknown_frees), (1, 1));
    let (trace, count) = read(&[0x80, 7, 7]); // an unknown node
    assert_eq!((trace.damaged.len(), count.damaged), (1, 1));
    let (trace, count) = read(&[0]); // no record
    assert_eq!((trace.damaged.len(), count.damaged), (1, 1));
    let (trace, count) = read(&[8, 0, 1, 14]); // a realloc that did not return
    assert_eq!((trace.open, count.damaged), (1, 1));
    assert_eq!(read(&[4, 9, 0]).0.damaged.len(), 1, "the child of an unknown node");

    // A chunk of the same stream that has another number than the next.
    let mut bytes = example_and(&[]);
    bytes.resize(bytes.len().next_multiple_of(64), 0);
    let mut second = example_and(&[])[..64].to_vec();
    second[4..8].fill(0);
    second[20] = 2;
    std::fs::write(&path, [bytes, second].concat()).unwrap();
    let (trace, count) = (Trace::read(&path).unwrap(), check_trace_order(&path));
    assert!(!trace.damaged.is_empty() && count.damaged == 1, "{:?}", trace.damaged);
}
