//! C++ operators: behaviour as without the library, each block recorded once, and mismatches named.

mod support;

use support::*;

#[test]
fn every_form_of_new_and_delete_works_and_is_recorded_once() {
    let folder = Folder::new("new-forms");
    for (name, flags) in [("shared", &[][..]), ("static", &["-static-libstdc++", "-static-libgcc"])]
    {
        let program =
            compile(&folder, &format!("new_forms_{name}"), &program("new_forms.cpp"), flags);
        let plain = run_plain(&program, &[]);
        assert!(plain.status.success());
        let run = Traced::new(&folder, &program).run().succeeded();
        assert_eq!(run.output.stdout, plain.stdout, "{name}: {}", run.description());
        assert_eq!(run.output.stderr, plain.stderr, "{name}");
        let log = run.log();
        log.is_in_order();
        let aligned = [128, 256, 384, 512].map(|extra| 3072 + extra);
        for size in (3000..=3005).chain([3072, 3009, 3010]).chain(aligned) {
            assert_eq!(log.allocated_and_freed(size), (1, 1), "{name}: {size} bytes");
        }
        mtr_report([&run.path]).without_faults();
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
        let run = Traced::new(&folder, &host).arg(plugin).run().succeeded();
        assert_eq!(run.output.stdout, plain.stdout, "{name}: {}", run.description());
        let log = run.log();
        log.is_in_order();
        assert_eq!(log.allocated_and_freed(3100), (1, 1), "{name}: the block of malloc");
        assert_eq!(log.blocks_of(400).len(), 0, "{name}: objects of the pool are no allocations");
        mtr_report([&run.path]).without_faults();
    }
}

#[test]
fn a_program_that_replaces_only_new_is_no_mismatch() {
    let folder = Folder::new("only-new");
    let program = compile(&folder, "only_new", &program("only_new.cpp"), &[]);
    let run = Traced::new(&folder, &program).run().succeeded();
    let log = run.log();
    log.is_in_order();
    assert_eq!(log.allocated_and_freed(3200), (20, 20));
    let report = mtr_report([&run.path]).without_faults();
    assert!(!report.text.to_lowercase().contains("mismatch"), "{}", report.description());
}

#[test]
fn a_program_that_replaces_only_delete_is_no_mismatch() {
    let folder = Folder::new("only-delete");
    let program = compile(&folder, "only_delete", &program("only_delete.cpp"), &[]);
    for run in [Traced::new(&folder, &program).run(), Traced::compact(&folder, &program).run()] {
        let run = run.succeeded();
        let report = mtr_report([&run.path]).without_faults();
        assert!(!report.text.to_lowercase().contains("mismatch"), "{}", report.description());
    }
    let log = Traced::new(&folder, &program).run().log();
    log.is_in_order();
    assert_eq!(log.allocated_and_freed(3300), (20, 20));
    assert_eq!(log.allocated_and_freed(3301), (20, 20));
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
        let run = Traced::new(&folder, &host).arg(plugin).run().succeeded();
        assert_eq!(run.output.stdout, plain.stdout, "{name}: {}", run.description());
        assert_eq!(run.log().allocated_and_freed(3400), (10, 10), "{name}");
        mtr_report([&run.path]).without_faults();
    }
}

#[test]
fn blocks_freed_by_the_wrong_function_are_named() {
    let folder = Folder::new("mismatches");
    let source = program("mismatches.cpp");
    let mismatches = compile(&folder, "mismatches", &source, &[]);
    let run = Traced::compact(&folder, &mismatches).arg("right").run().succeeded();
    mtr_report([&run.path]).without_faults();
    let run = Traced::compact(&folder, &mismatches).arg("wrong").run().succeeded();
    let report = mtr_report([&run.path]).succeeded();
    assert!(report.text.contains("\n21 faults:\n"), "{}", report.description());
    for (function, size, allocated, freed) in [
        ("by_malloc", "4,001", "malloc or the like", "delete"),
        ("by_new", "4,002", "new", "delete[]"),
        ("by_new_array", "4,003", "new[]", "delete"),
        ("by_strdup", "4,004", "malloc or the like", "delete"),
        ("by_nothrow", "4,005", "new[]", "delete"),
        ("by_realloc", "4,006", "malloc or the like", "delete[]"),
        ("by_new_again", "4,007", "operator new", "free"),
    ] {
        let says = format!("{size} bytes, allocated with {allocated}, freed with {freed}\n");
        let found = report.text.split("Mismatched free of").find(|part| part.contains(&says));
        let found = found.unwrap_or_else(|| panic!("no `{says}`: {}", report.description()));
        assert!(found.contains(", 3 times)"), "{found}");
        assert!(found.split_whitespace().any(|word| word == function), "{found}");
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
