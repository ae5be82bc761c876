//! Call stacks of whole programs, as libmtr.so records them, address by address against those that the
//! programs see themselves by glibc's backtrace().

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use support::*;

/// What a program of stacks.h saw of one allocation.
struct Seen {
    size: u64,
    /// Functions between malloc and the one that called backtrace(); `None`: not known.
    between: Option<usize>,
    /// glibc's return addresses; the first is that of backtrace() itself.
    frames: Vec<u64>,
}

fn read_seen(path: &Path) -> (u64, Vec<Seen>) {
    let bytes = std::fs::read(path).unwrap();
    let mut words = bytes.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word));
    let trampoline = words.next().expect("the address of the trampoline");
    let mut all = Vec::new();
    while let Some(size) = words.next() {
        let between = Some(words.next().unwrap() as usize).filter(|between| *between < 1000);
        let count = words.next().unwrap() as usize;
        all.push(Seen { size, between, frames: words.by_ref().take(count).collect() });
    }
    (trampoline, all)
}

/// Compares every stack that `program` saw with that in its trace; returns how many there were,
/// and how many of them led through a signal handler.
#[track_caller]
fn stacks_equal_glibcs(folder: &Folder, program: &Path, arguments: &[&str]) -> (usize, usize) {
    let answers = folder.join("seen");
    let run = Traced::compact(folder, program).arg(&answers).args(arguments).run().succeeded();
    let trace = run.trace();
    trace.is_finished();
    let (trampoline, seen) = read_seen(&answers);
    let mut blocks: BTreeMap<u64, Vec<&Event>> = BTreeMap::new();
    for event in trace.events.iter().filter(|event| event.kind == Kind::Alloc) {
        blocks.entry(event.info.unwrap().size).or_default().push(event);
    }
    let mut wrong = Vec::new();
    for Seen { size, between, frames } in &seen {
        let [event] = blocks[size][..] else { panic!("{size}: {:?}", blocks[size]) };
        let stack = trace.stack_of(event);
        let mut expected = frames[1..].to_vec();
        // glibc states the address at which a signal came, the trace the one behind it: readers
        // look up the byte before.
        for index in 1..expected.len() {
            expected[index] += u64::from(trampoline != 0 && expected[index - 1] == trampoline);
        }
        let is_complete = !stack.is_ended && stack.cut.is_none();
        let between = between.unwrap_or(stack.frames.len().saturating_sub(1 + expected.len()));
        if !is_complete || stack.frames.get(1 + between..) != Some(&expected[..]) {
            wrong.push(format!("{size}: {stack:x?}\n  glibc, {between} between: {frames:x?}"));
        }
        // The call of backtrace() is near that of malloc.
        let site = stack.frames.get(between).copied().unwrap_or(0);
        if site.abs_diff(frames[0]) > 4096 {
            wrong.push(format!("{size}: called at {site:#x}, backtrace at {:#x}", frames[0]));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {} stacks differ: {}\ntrampoline {trampoline:#x}, modules {:#x?}",
        wrong.len(),
        seen.len(),
        wrong[..wrong.len().min(5)].join("\n"),
        trace.modules().map(|m| (m.start, m.end, &m.path)).collect::<Vec<_>>()
    );
    let through_handlers = seen.iter().filter(|s| s.frames.contains(&trampoline)).count();
    (seen.len(), through_handlers)
}

const BUILDS: [&[&str]; 6] = [
    &["-O0"],
    &["-O0", "-fomit-frame-pointer"],
    &["-O2"],
    &["-O2", "-fno-omit-frame-pointer"],
    &["-O3"],
    &["-O3", "-fno-omit-frame-pointer"],
];

/// gcc's and clang's drivers that are installed, for C and for C++.
fn compilers(test: &str) -> Vec<(&'static str, &'static str)> {
    let all = [("gcc", "g++"), ("clang", "clang++")];
    all.into_iter()
        .filter(|(c, cpp)| need(c, test).is_some() && need(cpp, test).is_some())
        .collect()
}

#[test]
fn stacks_of_c_equal_those_of_glibc_address_by_address() {
    let folder = Folder::new("stacks-c");
    for (compiler, _) in compilers("stacks_of_c_equal_those_of_glibc_address_by_address") {
        let (mut compared, mut through_handlers) = (0, 0);
        for flags in BUILDS {
            let shared = [flags, &["-shared", "-fPIC"]].concat();
            compile_with(compiler, &folder, "plugin.so", &program("stacks_plugin.c"), &shared);
            let flags = [flags, &["-pthread", "-ldl"]].concat();
            let program = compile_with(compiler, &folder, "stacks", &program("stacks.c"), &flags);
            let counts = stacks_equal_glibcs(&folder, &program, &["./plugin.so"]);
            (compared, through_handlers) = (compared + counts.0, through_handlers + counts.1);
        }
        println!("{compiler}: {compared} stacks, {through_handlers} through signal handlers");
        assert!(compared > 8000, "only {compared} stacks");
        assert!(through_handlers > 300, "only {through_handlers} through a signal handler");
    }
}

/// 2 MiB between segments, as linkers left them by default up to 2018: the loader then knows each
/// segment by itself.
#[test]
fn stacks_through_modules_with_gaps_equal_those_of_glibc_address_by_address() {
    let folder = Folder::new("stacks-gaps");
    for flags in [&["-O2", "-fPIE", "-pie"][..], &["-O2", "-no-pie"]] {
        let gaps = "-Wl,-z,max-page-size=0x200000";
        let shared = ["-O2", "-shared", "-fPIC", gaps];
        compile(&folder, "plugin.so", &program("stacks_plugin.c"), &shared);
        let flags = [flags, &["-pthread", "-ldl", gaps]].concat();
        let program = compile(&folder, "stacks", &program("stacks.c"), &flags);
        let (compared, _) = stacks_equal_glibcs(&folder, &program, &["./plugin.so"]);
        assert!(compared > 500, "only {compared} stacks");
        let trace = Trace::read(&folder.join("trace.mtr")).unwrap();
        let ours: Vec<_> = trace.modules().filter(|m| m.path.ends_with("stacks")).collect();
        assert_eq!(ours.len(), 1, "the program is one module: {ours:#x?}");
        assert!(ours[0].end - ours[0].start > 6 << 20, "{ours:#x?}");
    }
}

#[test]
fn stacks_of_cpp_equal_those_of_glibc_address_by_address() {
    let folder = Folder::new("stacks-cpp");
    for (_, compiler) in compilers("stacks_of_cpp_equal_those_of_glibc_address_by_address") {
        let mut compared = 0;
        for flags in BUILDS {
            let flags = [flags, &["-pthread"]].concat();
            let program = compile_with(compiler, &folder, "stacks", &program("stacks.cpp"), &flags);
            compared += stacks_equal_glibcs(&folder, &program, &[]).0;
        }
        println!("{compiler}: {compared} stacks");
        assert!(compared > 8000, "only {compared} stacks");
    }
}

/// For modules whose `.eh_frame` no header tells of. They register it with libgcc by themselves.
const NO_HEADER: [&str; 3] =
    ["-DREGISTER_FRAMES", "-Wl,--no-eh-frame-hdr", "-Wl,--defsym=first_frame=ADDR(.eh_frame)"];

#[test]
fn stacks_through_modules_without_a_header_equal_those_of_glibc_address_by_address() {
    let folder = Folder::new("stacks-no-header");
    let (mut compared, mut of_cpp) = (0, 0);
    for flags in [&["-O0"][..], &["-O2"], &["-O2", "-no-pie", "-fno-pie"]] {
        let shared = ["-O2", "-shared", "-fPIC"];
        let shared = [&shared[..], &NO_HEADER].concat();
        compile(&folder, "plugin.so", &program("stacks_plugin.c"), &shared);
        let flags = [flags, &["-pthread", "-ldl"], &NO_HEADER].concat();
        let stacks = compile(&folder, "stacks", &program("stacks.c"), &flags);
        compared += stacks_equal_glibcs(&folder, &stacks, &["./plugin.so"]).0;
        // Exceptions pass through it.
        let stacks = compile(&folder, "stacks", &program("stacks.cpp"), &flags);
        of_cpp += stacks_equal_glibcs(&folder, &stacks, &[]).0;
    }
    println!("{compared} stacks, {of_cpp} of C++");
    assert!(compared > 3000 && of_cpp > 3000, "only {compared} and {of_cpp} stacks");
}

#[test]
fn stacks_of_rust_equal_those_of_glibc_address_by_address() {
    let folder = Folder::new("stacks-rust");
    let mut compared = 0;
    for flags in [
        &["-Copt-level=0"][..],
        &["-Copt-level=2"],
        &["-Copt-level=3", "-Ccodegen-units=1"],
        &["-Copt-level=3", "-Cforce-frame-pointers=yes"],
    ] {
        let flags = [flags, &["--edition=2024"]].concat();
        let program = compile(&folder, "stacks", &program("stacks.rs"), &flags);
        compared += stacks_equal_glibcs(&folder, &program, &[]).0;
    }
    println!("{compared} stacks");
    assert!(compared > 5000, "only {compared} stacks");
}

#[test]
fn modules_that_libc_unloads_by_itself_are_told_apart() {
    let folder = Folder::new("stacks-gconv");
    let modules = folder.join("modules");
    std::fs::create_dir(&modules).unwrap();
    let mut lines = String::new();
    for (name, room) in [("a", 136), ("b", 200), ("c", 1000), ("d", 520)] {
        let room = format!("-DROOM={room}");
        let output = format!("modules/mtr{name}.so");
        compile(&folder, &output, &program("gconv_module.c"), &["-O1", "-shared", "-fPIC", &room]);
        lines += &format!("module MTR{}// INTERNAL mtr{name} 1\n", name.to_uppercase());
    }
    std::fs::write(modules.join("gconv-modules"), lines).unwrap();
    let program = compile(&folder, "gconv", &program("gconv.c"), &["-O1", "-rdynamic"]);
    let plain = run_plain(&program, &["seen", "modules"]).stdout;
    let counts: Vec<usize> = String::from_utf8(plain)
        .unwrap()
        .split_whitespace()
        .map(|count| count.parse().unwrap())
        .collect();
    if counts[0] >= counts[1] {
        return skip("modules_that_libc_unloads_by_itself_are_told_apart", "they all stay loaded");
    }
    let (compared, _) = stacks_equal_glibcs(&folder, &program, &["modules"]);
    assert!(compared > 80, "only {compared} stacks");
}
