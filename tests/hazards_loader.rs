//! Libraries that come, go and allocate meanwhile, in both formats.

mod support;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use support::*;

fn plugin(folder: &Folder, name: &str, size: u64) -> PathBuf {
    let size = format!("-DSIZE={size}");
    compile(folder, name, &program("opened_plugin.c"), &["-shared", "-fPIC", &size])
}

fn build(folder: &Folder, name: &str) -> PathBuf {
    let output = name.split('.').next().unwrap();
    compile(folder, output, &program(name), &["-pthread", "-ldl"])
}

/// What is where, file names by address.
#[derive(Default)]
struct Modules<'a>(BTreeMap<u64, (u64, Option<&'a Path>)>);

impl<'a> Modules<'a> {
    fn put(&mut self, start: u64, end: u64, path: Option<&'a Path>) {
        let overlapped = |(at, (until, _)): (&u64, &(u64, _))| (*until > start).then_some(*at);
        while let Some(at) = self.0.range(..end).next_back().and_then(overlapped) {
            self.0.remove(&at);
        }
        self.0.insert(start, (end, path));
    }

    /// The name of the module that made a call.
    fn name(&self, return_address: u64) -> String {
        let below = self.0.range(..return_address).next_back();
        let path = below.filter(|(_, (end, _))| return_address <= *end).and_then(|(_, (_, p))| *p);
        path.and_then(|path| path.file_name()?.to_str()).unwrap_or("nothing").to_owned()
    }
}

/// By size: how often each module made such a block.
fn makers(recorded: &Recorded, sizes: Range<u64>) -> BTreeMap<(u64, String), u64> {
    let (mut makers, mut modules) = (BTreeMap::new(), Modules::default());
    let asked_for = |allocated: Option<(u64, u64)>| {
        allocated.map(|(_, size)| size).filter(|size| sizes.contains(size))
    };
    match recorded {
        Recorded::Text(log) => {
            let mut known = 0;
            for record in log.records() {
                for (start, end, module) in &log.modules[known..record.modules_before] {
                    modules.put(*start, *end, module.as_ref().map(|module| &*module.path));
                }
                known = record.modules_before;
                if let Some(size) = asked_for(record.allocated()) {
                    let address = record.place.as_ref().unwrap().address;
                    *makers.entry((size, modules.name(address))).or_default() += 1;
                }
            }
        }
        Recorded::Compact(trace) => {
            let mut changes = trace.module_changes().peekable();
            for event in &trace.events {
                while let Some(change) = changes.next_if(|change| change.0 < event.position) {
                    let (_, start, end, module) = change;
                    modules.put(start, end, module.map(|module| &*module.path));
                }
                if let Some(size) = asked_for(event.allocated()) {
                    let caller = trace.stack_of(event).frames[0];
                    *makers.entry((size, modules.name(caller))).or_default() += 1;
                }
            }
        }
    }
    makers
}

#[test]
fn ten_thousand_plugins_at_one_address_are_charged_with_what_each_allocated() {
    const TIMES: u64 = 10_000;
    let folder = Folder::new("opened-again");
    plugin(&folder, "even.so", 70_000);
    plugin(&folder, "odd.so", 70_001);
    let program = build(&folder, "opened_again.c");
    let arguments = [&*TIMES.to_string(), "./even.so", "./odd.so"];
    if run_plain(&program, &arguments).status.code() == Some(5) {
        return skip("plugins at one address", "the loader puts them at different ones");
    }
    for (format, run) in Hazard::new(&program, &arguments).run(&folder) {
        let recorded = Recorded::of(format, &run);
        recorded.is_finished();
        let mut expected = BTreeMap::new();
        for size in 70_000..70_006 {
            let name = if size % 2 == 0 { "even.so" } else { "odd.so" };
            expected.insert((size, name.to_owned()), TIMES / 2);
        }
        assert_eq!(makers(&recorded, 70_000..70_006), expected, "{format:?}");
        the_report_agrees(&recorded);
    }
}

#[test]
fn constructors_and_destructors_of_a_plugin_are_charged_closed_or_left_open() {
    let folder = Folder::new("plugin-ends");
    let source = program("opened_plugin.c");
    plugin(&folder, "plugin.so", 71_000);
    let opened_again = build(&folder, "opened_again.c");
    let leaves_open = build(&folder, "leaves_plugin_open.c");
    for (program, arguments) in [
        (&opened_again, &["1", "./plugin.so", "./plugin.so"][..]),
        (&leaves_open, &["./plugin.so"]),
    ] {
        // With one opening, the first of the two places of opened_again is none.
        for (format, run) in Hazard::new(program, arguments).run(&folder) {
            let recorded = Recorded::of(format, &run);
            recorded.is_finished();
            let of_plugin = |size| ((size, "plugin.so".to_owned()), 1);
            let expected = BTreeMap::from([71_000, 71_002, 71_004].map(of_plugin));
            assert_eq!(makers(&recorded, 71_000..71_006), expected, "{format:?}");
            for size in [71_000, 71_002, 71_004] {
                assert_eq!(recorded.allocated_and_freed(size), (1, 1), "{format:?}: {size}");
            }
            the_report_agrees(&recorded);
            let report = mtr_report(["--sort=bytes".as_ref(), run.path.as_os_str()]).succeeded();
            for (function, call) in [
                ("make", "malloc(SIZE)"),
                ("begin", "malloc(SIZE + 2)"),
                ("finish", "malloc(SIZE + 4)"),
            ] {
                report.names(function, "opened_plugin.c", line_of(&source, call));
            }
        }
    }
}

#[test]
fn callbacks_of_the_loader_may_allocate_while_another_thread_opens_libraries() {
    let folder = Folder::new("iterates");
    plugin(&folder, "plugin.so", 70_000);
    let program = build(&folder, "iterates_while_opening.c");
    Hazard::new(&program, &["./plugin.so"]).is_recorded(&folder);
}

#[test]
fn plugins_in_namespaces_of_their_own_change_nothing() {
    let folder = Folder::new("another-namespace");
    plugin(&folder, "plugin.so", 70_000);
    let program = build(&folder, "another_namespace.c");
    if !run_plain(&program, &["./plugin.so"]).status.success() {
        return skip("namespaces", "dlmopen() does not work here");
    }
    Hazard::new(&program, &["./plugin.so"]).is_recorded(&folder);
}

#[test]
fn settings_hold_for_a_program_that_allocates_before_libc_is_ready() {
    let folder = Folder::new("before-libc");
    let program = build(&folder, "before_libc.c");
    for (format, run) in Hazard::new(&program, &[]).run(&folder) {
        let counts = Recorded::of(format, &run).is_finished().counts();
        assert_eq!((counts[&7800], counts[&7801]), ((1, 1), (1, 0)), "{format:?}");
    }
}

#[test]
fn a_library_may_allocate_in_its_constructor_before_ours_and_in_its_destructor() {
    let folder = Folder::new("early");
    let flags = ["-shared", "-fPIC"];
    let early = compile(&folder, "libearly.so", &program("early_library.c"), &flags);
    let program = build(&folder, "early_program.c");
    Hazard::new(&program, &[]).preload(&early).is_recorded(&folder);
    // In front of libmtr.so, it is the one whose constructor comes last.
    for format in FORMATS {
        let both = format!("{}:{}", early.display(), library());
        let run = format.traced(&folder, &program).env("LD_PRELOAD", both).run().succeeded();
        let recorded = Recorded::of(format, &run);
        recorded.is_finished();
        assert_eq!(recorded.own_counts(), printed_counts(&run.stdout()), "{format:?}");
    }
}
