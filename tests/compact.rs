//! The compact trace, end to end: what libmtr.so records is decoded by a reader of the tests' own and
//! compared with what the programs say they did.

mod support;

use std::collections::BTreeMap;
use std::path::PathBuf;
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

/// The trace that is docs/trace-format.md's example, with these records behind it.
fn example_and(more: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let text = std::fs::read_to_string(repository().join("docs/trace-format.md")).unwrap();
    let example = text.split("## Example").nth(1).expect("the example");
    for line in example.lines().filter_map(|line| line.strip_prefix("    ")) {
        bytes.extend(line.split(' ').map_while(|word| match word.len() {
            2 => u8::from_str_radix(word, 16).ok(),
            _ => None,
        }));
    }
    if !more.is_empty() {
        bytes.extend(more);
        let length = bytes.len() as u32 - 64;
        bytes[4..8].copy_from_slice(&length.to_le_bytes());
        seal(&mut bytes);
    }
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
    assert_eq!((count.allocations, count.frees, count.definitions), (4, 1, 2));
    let [allocation, other, free, aligned, odd] = &trace.events[..] else {
        panic!("{:?}", trace.events)
    };
    assert_eq!(allocation.allocated(), Some((0x4052a0, 100)));
    assert_eq!(other.allocated(), Some((0x405310, 100)));
    assert_eq!(free.freed(), Some(0x4052a0));
    let stack = trace.stack_of(allocation);
    assert_eq!((stack.thread, &stack.frames[..]), (4711, &[0x401136][..]));
    assert_eq!((free.stamp, aligned.allocated()), (1000, Some((0x405380, 100))));
    let info = aligned.info.unwrap();
    assert_eq!((aligned.stamp, info.family, info.alignment), (2024, 4, Some(64)));
    assert_eq!(odd.allocated(), Some((0x7f00_0000_1008, 8)));
    // And mtr-report says the same, and finds nothing wrong with it.
    let report = mtr_report(["--strict".as_ref(), path.as_os_str()]).without_faults().text;
    assert!(report.contains("4 allocs, 1 free, 308 bytes allocated"), "{report}");

    // The block that is live.
    let (trace, count) = read(&[0x9c, 1, 0x10, 0x53, 0x40, 0, 0, 0, 0, 0, 7]);
    assert_eq!((trace.faults().len(), count.duplicates), (1, 1));
    // The block that is not.
    let (trace, count) = read(&[0x47, 0xa0, 0x52, 0x40, 0, 0, 0, 0, 0, 0]);
    assert_eq!((trace.faults().len(), count.unknown_frees), (1, 1));
    let (trace, count) = read(&[0x80, 7, 7]); // an unknown node
    assert_eq!((trace.damaged.len(), count.damaged), (1, 1));
    let (trace, count) = read(&[0]); // no record
    assert_eq!((trace.damaged.len(), count.damaged), (1, 1));
    // A realloc that did not return.
    let (trace, count) = read(&[8, 0, 7, 0x10, 0x53, 0x40, 0, 0, 0, 0, 0, 0]);
    assert_eq!((trace.open, count.damaged), (1, 1));
    assert_eq!(read(&[4, 9, 0]).0.damaged.len(), 1, "the child of an unknown node");

    // A chunk of the same stream that has another number than the next.
    let mut bytes = example_and(&[]);
    bytes.resize(bytes.len().next_multiple_of(64), 0);
    let mut second = example_and(&[])[..64].to_vec();
    second[4..8].fill(0);
    second[20] = 2;
    second[24..32].copy_from_slice(&2024u64.to_le_bytes());
    second[44] = 2;
    seal(&mut second);
    std::fs::write(&path, [bytes, second].concat()).unwrap();
    let (trace, count) = (Trace::read(&path).unwrap(), check_trace_order(&path));
    assert!(!trace.damaged.is_empty() && count.damaged == 1, "{:?}", trace.damaged);
}

#[test]
fn a_trace_of_callers_only_says_so() {
    let folder = Folder::new("compact-callers");
    let program = compile(&folder, "ends", &program("ends.c"), &["-pthread"]);
    for stacks in ["caller", "full"] {
        let run = Traced::compact(&folder, &program).args(&["exit", "100"]);
        let run = run.env("MTR_STACKS", stacks).run();
        let trace = run.trace();
        let is_caller = stacks == "caller";
        assert_eq!(trace.notes("stacks").len(), usize::from(is_caller));
        let frames = trace.stack_of(trace.blocks_of(4242)[0]).frames.len();
        assert_eq!(frames == 1, is_caller, "{frames} frames");
        let report = mtr_report([&run.path]).succeeded().text;
        assert_eq!(report.contains("Only the caller of each allocation"), is_caller, "{report}");
    }
}
