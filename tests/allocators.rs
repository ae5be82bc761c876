//! Other allocators, and memory that comes and goes past the library: the program behaves as without
//! it, what reaches the library is recorded, and nothing that is right is called a fault.

mod support;

use std::path::{Path, PathBuf};
use std::process::Output;
use support::*;

/// Shared libraries that are allocators, and whether `operator new` throws for want of memory.
const ALLOCATORS: [(&str, bool); 3] =
    [("libjemalloc.so.2", true), ("libtcmalloc_minimal.so.4", true), ("libmimalloc.so.2.0", false)];

/// Where a library is, or a line that says that a part of `test` skips for want of it.
fn installed(library: &str, test: &str) -> Option<PathBuf> {
    let folders = ["/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib", "/usr/local/lib"];
    let found = folders.iter().map(|folder| Path::new(folder).join(library)).find(|p| p.exists());
    if found.is_none() {
        skip(test, &format!("{library} is not installed"));
    }
    found
}

/// Sizes of allocator_user.cpp, each allocated and freed so often, and a report that says the same.
fn is_recorded_once(format: Format, run: &Run, name: &str) {
    let recorded = Recorded::of(format, run);
    let counts = recorded.is_in_order().counts();
    let sizes = [2001, 2002, 2003, 20030, 2048, 2304, 2560, 2816];
    for size in sizes.into_iter().chain(2005..=2010) {
        assert_eq!(counts.get(&size), Some(&(4, 4)), "{name}, {format:?}: {size} bytes");
    }
    assert_eq!(counts[&1200], (4000, 4000), "{name}, {format:?}: new int[300] in threads");
    the_report_agrees(&recorded);
}

#[track_caller]
fn is_the_same(plain: &Output, run: &Run) {
    assert_eq!(run.output.status, plain.status, "{}", run.description());
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert_eq!(text(&run.output.stdout), text(&plain.stdout), "{}", run.description());
    assert_eq!(text(&run.output.stderr), text(&plain.stderr), "{}", run.description());
}

#[test]
fn blocks_of_another_allocator_are_its_own_and_are_recorded() {
    let test = "blocks_of_another_allocator_are_its_own_and_are_recorded";
    let folder = Folder::new("allocators");
    let source = program("allocator_user.cpp");
    for (library, throws) in ALLOCATORS {
        let Some(library) = installed(library, test) else { continue };
        let name = library.file_name().unwrap().to_str().unwrap();
        let arguments: &[&str] = if throws { &["too-much"] } else { &[] };

        let linked = [library.to_str().unwrap(), "-Wl,--no-as-needed", "-lpthread"];
        let linked = compile(&folder, &format!("linked-{name}"), &source, &linked);
        let plain = run_plain(&linked, arguments);
        for format in FORMATS {
            let run = format.traced(&folder, &linked).args(arguments).run();
            is_the_same(&plain, &run);
            is_recorded_once(format, &run, name);
        }

        let user = compile(&folder, "user", &source, &["-lpthread"]);
        let mut command = clean_command(&user);
        command.args(arguments).env("LD_PRELOAD", &library).current_dir(folder.path());
        let plain = command.output().unwrap();
        for format in FORMATS {
            let run = format.traced(&folder, &user).args(arguments).preload_after(&library).run();
            is_the_same(&plain, &run);
            is_recorded_once(format, &run, name);
        }
    }
}

#[test]
fn mtr_run_keeps_an_allocator_that_is_preloaded() {
    let test = "mtr_run_keeps_an_allocator_that_is_preloaded";
    let Some(library) = installed(ALLOCATORS[0].0, test) else { return };
    let folder = Folder::new("run-preloaded");
    let user = compile(&folder, "user", &program("allocator_user.cpp"), &["-lpthread"]);
    let mut plain = clean_command(&user);
    let plain = plain.env("LD_PRELOAD", &library).output().unwrap();
    let output = mtr_run(folder.path()).env("LD_PRELOAD", &library).arg(&user).output().unwrap();
    assert_eq!(output.stdout, plain.stdout, "sizes and alignments are the allocator's");
    let report = Report::of_mtr_run(&output).without_faults();
    assert!(report.summary().allocations > 4000, "{}", report.description());
}

#[test]
fn an_allocator_in_front_of_the_library_is_named() {
    let test = "an_allocator_in_front_of_the_library_is_named";
    let Some(other) = installed(ALLOCATORS[0].0, test) else { return };
    let folder = Folder::new("in-front");
    let user = compile(&folder, "user", &program("allocator_user.cpp"), &["-lpthread"]);
    let plain = clean_command(&user).env("LD_PRELOAD", &other).output().unwrap();
    let both = format!("{}:{}", other.display(), library());
    let run = Traced::new(&folder, &user).env("LD_PRELOAD", both).run();
    is_the_same(&plain, &run);
    let report = mtr_report([&run.path]).without_faults();
    let name = other.file_name().unwrap().to_str().unwrap();
    let says = report.text.contains("do not reach libmtr.so") && report.text.contains(name);
    assert!(says, "{}", report.description());
}

#[test]
fn a_program_with_a_malloc_of_its_own_is_told_why_there_are_no_records() {
    let folder = Folder::new("own-malloc");
    let own = compile(&folder, "own_malloc", &program("own_malloc.c"), &["-fno-builtin"]);
    let plain = run_plain(&own, &[]);
    assert!(plain.status.success());
    for run in [Traced::new(&folder, &own).run(), Traced::compact(&folder, &own).run()] {
        is_the_same(&plain, &run);
        let report = mtr_report([&run.path]).without_faults();
        let why = "do not reach libmtr.so";
        assert_eq!(report.text.matches(why).count(), 1, "{}", report.description());
    }
    let output = mtr_run(folder.path()).arg(&own).output().unwrap();
    let report = Report::of_mtr_run(&output).succeeded();
    assert!(report.text.contains("do not reach libmtr.so"), "{}", report.description());
}

#[test]
fn memory_that_passes_the_library_by_is_no_fault() {
    let folder = Folder::new("bypass");
    let host = compile(&folder, "bypass_host", &program("bypass_host.c"), &["-ldl"]);
    let plugin = program("bypass_plugin.c");
    let plugin = compile(&folder, "plugin.so", &plugin, &["-shared", "-fPIC"]);
    let plugin = plugin.to_str().unwrap();
    let plain = run_plain(&host, &[plugin]);
    assert!(plain.status.success(), "{plain:?}");
    let text = Traced::new(&folder, &host).arg(plugin).run();
    assert_eq!(text.log().allocated_and_freed(6005), (5, 5), "what passed by the hooks alone");
    assert_eq!(text.log().allocated_and_freed(6007), (1, 1), "RTLD_NEXT leads to the hook");
    for run in [text, Traced::compact(&folder, &host).arg(plugin).run()] {
        is_the_same(&plain, &run);
        let report = mtr_report([&run.path]).succeeded();
        assert!(!report.text.contains("fault:"), "{}", report.description());
        assert!(!report.text.contains("faults:"), "{}", report.description());
        assert!(report.text.contains("duplicate allocation"), "{}", report.description());
    }
}

#[test]
fn a_namespace_of_its_own_is_left_alone() {
    let folder = Folder::new("namespace");
    let host = compile(&folder, "namespace_host", &program("namespace_host.c"), &["-ldl"]);
    let plugin = program("bypass_plugin.c");
    let plugin = compile(&folder, "plugin.so", &plugin, &["-shared", "-fPIC"]);
    let plugin = plugin.to_str().unwrap();
    let plain = run_plain(&host, &[plugin]);
    assert!(plain.status.success(), "{plain:?}");
    let run = Traced::new(&folder, &host).arg(plugin).run();
    is_the_same(&plain, &run);
    assert_eq!(run.log().allocated_and_freed(6101), (10, 10));
    assert_eq!(run.log().blocks_of(6100).len(), 0, "blocks of the other libc");
    mtr_report([&run.path]).without_faults();
}

#[test]
fn requests_at_the_edges_have_the_results_and_the_errno_of_the_real_functions() {
    let folder = Folder::new("odd-requests");
    let odd = compile(&folder, "odd_requests", &program("odd_requests.c"), &["-fno-builtin"]);
    let plain = run_plain(&odd, &[]);
    assert!(plain.status.success());
    for run in [Traced::new(&folder, &odd).run(), Traced::compact(&folder, &odd).run()] {
        is_the_same(&plain, &run);
        mtr_report([&run.path]).without_faults();
    }
    let off = Traced::new(&folder, &odd).env("MTR_START", "mtrace").run();
    is_the_same(&plain, &off);
}
