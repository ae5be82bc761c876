//! C++ operators: behaviour as without the library, each block recorded once, and mismatches named.

mod support;

use std::path::Path;
use std::process::Output;
use support::*;

/// In both formats: the program behaves as in `plain`, of each size so many blocks are allocated and
/// freed, and the report says the same and names no fault.
#[track_caller]
fn is_recorded(
    folder: &Folder,
    program: &Path,
    arguments: &[&str],
    plain: &Output,
    sizes: &[(u64, u64)],
) {
    assert!(plain.status.success(), "{plain:?}");
    for format in FORMATS {
        let run = format.traced(folder, program).args(arguments).run().succeeded();
        let why = format!("{format:?}: {}", run.description());
        assert_eq!(run.output.stdout, plain.stdout, "{why}");
        assert_eq!(run.output.stderr, plain.stderr, "{why}");
        let recorded = Recorded::of(format, &run);
        recorded.is_finished();
        for (size, count) in sizes {
            assert_eq!(recorded.allocated_and_freed(*size), (*count, *count), "{size}: {why}");
        }
        the_report_agrees(&recorded);
    }
}

#[test]
fn every_form_of_new_and_delete_works_and_is_recorded_once() {
    let folder = Folder::new("new-forms");
    for (name, flags) in [("shared", &[][..]), ("static", &["-static-libstdc++", "-static-libgcc"])]
    {
        let program =
            compile(&folder, &format!("new_forms_{name}"), &program("new_forms.cpp"), flags);
        let plain = run_plain(&program, &[]);
        assert!(plain.status.success());
        let aligned = [128, 256, 384, 512].map(|extra| 3072 + extra);
        let sizes = (3000..=3005).chain([3072, 3009, 3010]).chain(aligned);
        let sizes: Vec<_> = sizes.map(|size| (size, 1)).collect();
        is_recorded(&folder, &program, &[], &plain, &sizes);
    }
}

#[test]
fn a_plugin_with_operators_of_its_own_in_a_c_program_keeps_them() {
    let folder = Folder::new("pool-plugin");
    let host = compile(&folder, "pool_host", &program("pool_host.c"), &["-ldl"]);
    for (name, flags) in [
        ("shared.so", &["-shared", "-fPIC"][..]),
        ("static.so", &["-shared", "-fPIC", "-static-libstdc++", "-static-libgcc"]),
    ] {
        let plugin = compile(&folder, name, &program("pool_plugin.cpp"), flags);
        let plugin = plugin.to_str().unwrap();
        let plain = run_plain(&host, &[plugin]);
        assert!(plain.status.success(), "{plain:?}");
        // The block of malloc; objects of the pool are no allocations.
        is_recorded(&folder, &host, &[plugin], &plain, &[(3100, 1), (400, 0)]);
    }
}

#[test]
fn a_program_that_replaces_only_new_is_no_mismatch() {
    let folder = Folder::new("only-new");
    let program = compile(&folder, "only_new", &program("only_new.cpp"), &[]);
    let plain = run_plain(&program, &[]);
    is_recorded(&folder, &program, &[], &plain, &[(3200, 20)]);
}

#[test]
fn a_program_that_replaces_only_delete_is_no_mismatch() {
    let folder = Folder::new("only-delete");
    let program = compile(&folder, "only_delete", &program("only_delete.cpp"), &[]);
    let plain = run_plain(&program, &[]);
    is_recorded(&folder, &program, &[], &plain, &[(3300, 20), (3301, 20)]);
}

#[test]
fn a_plugin_of_a_c_program_catches_its_bad_alloc() {
    let folder = Folder::new("bad-alloc-plugin");
    let host = compile(&folder, "pool_host", &program("pool_host.c"), &["-ldl"]);
    for (name, flags) in [
        ("shared.so", &["-shared", "-fPIC"][..]),
        ("static.so", &["-shared", "-fPIC", "-static-libstdc++", "-static-libgcc"]),
    ] {
        let plugin = compile(&folder, name, &program("bad_alloc_plugin.cpp"), flags);
        let plugin = plugin.to_str().unwrap();
        let plain = run_plain(&host, &[plugin]);
        assert!(plain.status.success(), "{plain:?}");
        is_recorded(&folder, &host, &[plugin], &plain, &[(3400, 10)]);
    }
}

#[test]
fn blocks_freed_by_the_wrong_function_are_named() {
    let folder = Folder::new("mismatches");
    let source = program("mismatches.cpp");
    let mismatches = compile(&folder, "mismatches", &source, &[]);
    let report = |format: Format, what: &str| {
        let run = format.traced(&folder, &mismatches).arg(what).run().succeeded();
        Recorded::of(format, &run).is_finished();
        mtr_report([&run.path])
    };
    for format in FORMATS {
        report(format, "right").without_faults();
    }
    // A log does not say which function freed a block.
    report(Format::Text, "wrong").without_faults();
    let report = report(Format::Compact, "wrong").succeeded();
    assert!(report.text.contains("\n21 faults:\n"), "{}", report.description());
    for (function, size, allocated, freed, call) in [
        ("by_malloc", "4,001", "malloc or the like", "delete", "::operator delete(by_malloc())"),
        ("by_new", "4,002", "new", "delete[]", "::operator delete[](by_new())"),
        ("by_new_array", "4,003", "new[]", "delete", "::operator delete(by_new_array())"),
        ("by_strdup", "4,004", "malloc or the like", "delete", "delete by_strdup()"),
        ("by_nothrow", "4,005", "new[]", "delete", "::operator delete(by_nothrow()"),
        ("by_realloc", "4,006", "malloc or the like", "delete[]", "delete[](by_realloc())"),
        ("by_new_again", "4,007", "operator new", "free", "std::free(by_new_again())"),
    ] {
        let says = format!("{size} bytes, allocated with {allocated}, freed with {freed}\n");
        let found = report.text.split("Mismatched free of").find(|part| part.contains(&says));
        let found = found.unwrap_or_else(|| panic!("no `{says}`: {}", report.description()));
        assert!(found.contains(", 3 times)"), "{found}");
        assert!(found.split_whitespace().any(|word| word == function), "{found}");
        let (by, _) = found.split_once("allocated by").unwrap();
        let freed_at = format!("mismatches.cpp:{}\n", line_of(&source, call));
        assert!(by.contains("freed by") && by.contains(&freed_at), "{freed_at}: {found}");
    }
}

#[test]
fn the_cpp_example_leaks_what_its_comments_say() {
    let folder = Folder::new("cpp-example");
    let program = compile(&folder, "leaks", &example("leaks.cpp"), &[]);
    let run = Traced::new(&folder, &program).run().succeeded();
    let log = run.log();
    log.is_in_order();
    let live = log.live();
    let of = |size| live.values().filter(|r| r.allocated().unwrap().1 == size).count();
    let counts = [(24, 1), (4000, 1), (501, 1), (16, 10)];
    for (size, count) in counts {
        assert_eq!(of(size), count, "{size} bytes: {live:#?}");
    }
    assert_eq!(log.allocated_and_freed(24), (2, 1));
    mtr_report([&run.path]).without_faults();
}

#[test]
fn the_rust_example_leaks_what_its_comments_say() {
    let test = "the_rust_example_leaks_what_its_comments_say";
    if need("rustc", test).is_none() {
        return;
    }
    let folder = Folder::new("rust-example");
    let program = compile(&folder, "leaks-rs", &example("leaks.rs"), &[]);
    let run = Traced::new(&folder, &program).run().succeeded();
    let log = run.log();
    log.is_in_order();
    assert_eq!(log.allocated_and_freed(4096), (1, 0), "Box::leak");
    assert_eq!(log.allocated_and_freed(8000), (1, 0), "mem::forget");
    assert_eq!(log.allocated_and_freed(2192), (1, 0), "the map");
    assert_eq!(log.allocated_and_freed(336), (2, 0), "the cycle");
    assert_eq!(log.allocated_and_freed(5000), (1, 1));
    mtr_report([&run.path]).without_faults();
}

#[test]
fn operators_in_a_library_with_a_system_v_hash_section_are_found() {
    let folder = Folder::new("sysv-hash");
    let pool = program("sysv_hash_pool.cpp");
    let flags = ["-shared", "-fPIC", "-Wl,--hash-style=sysv"];
    let pool = compile(&folder, "libpool.so", &pool, &flags);
    let run_path = format!("-Wl,-rpath,{}", folder.path().display());
    let user = program("sysv_hash_user.cpp");
    let user = compile(&folder, "user", &user, &[pool.to_str().unwrap(), &run_path]);
    let plain = run_plain(&user, &[]);
    assert!(plain.status.success(), "{plain:?}");
    let run = Traced::new(&folder, &user).run().succeeded();
    assert_eq!(run.output.stdout, plain.stdout, "{}", run.description());
    let log = run.log();
    log.is_in_order();
    assert_eq!(log.allocated_and_freed(64 + 8), (1, 1), "the block behind the object");
    mtr_report([&run.path]).without_faults();
}
