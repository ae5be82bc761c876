//! Libraries that come, go and allocate meanwhile, in both formats.

mod support;

use std::collections::BTreeMap;
use std::path::PathBuf;
use support::*;

fn plugin(folder: &Folder, name: &str, size: u64) -> PathBuf {
    let size = format!("-DSIZE={size}");
    compile(folder, name, &program("opened_plugin.c"), &["-shared", "-fPIC", &size])
}

fn build(folder: &Folder, name: &str) -> PathBuf {
    let output = name.split('.').next().unwrap();
    compile(folder, output, &program(name), &["-pthread", "-ldl"])
}

/// By size: how often each module made such a block.
fn makers(recorded: &Recorded, sizes: std::ops::Range<u64>) -> BTreeMap<(u64, String), u64> {
    let mut makers = BTreeMap::new();
    let mut add = |size: u64, name: Option<&str>| {
        let name = name.unwrap_or("nothing").to_owned();
        *makers.entry((size, name)).or_default() += 1;
    };
    match recorded {
        Recorded::Text(log) => {
            for record in log.records() {
                let Some((_, size)) = record.allocated().filter(|(_, n)| sizes.contains(n)) else {
                    continue;
                };
                let module = log.module_of(record).map(|(module, _)| &module.path);
                add(size, module.and_then(|path| path.file_name()?.to_str()));
            }
        }
        Recorded::Compact(trace) => {
            for event in &trace.events {
                let Some((_, size)) = event.allocated().filter(|(_, n)| sizes.contains(n)) else {
                    continue;
                };
                add(size, trace.module_name(trace.stack_of(event).frames[0], event.position));
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
