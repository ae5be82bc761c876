//! Every call leaves the records that docs/log-format.md says, in both forms of addresses, and
//! behaves as without the library.

mod support;

use std::path::{Path, PathBuf};
use support::*;

fn build(folder: &Folder, flags: &[&str]) -> PathBuf {
    compile(folder, "record_kinds", &program("record_kinds.c"), flags)
}

/// The records between the two marker blocks, one `WHO OP PTR SIZE` each.
fn between_the_markers(log: &Log) -> Vec<String> {
    let records: Vec<&Record> = log.records().collect();
    let position = |size| {
        let found = records.iter().position(|r| r.allocated().is_some_and(|(_, n)| n == size));
        found.unwrap_or_else(|| panic!("{}: no block of {size:#x} bytes", log.path.display()))
    };
    let (begin, end) = (position(0xbe91), position(0xe4d1));
    records[begin + 2..end].iter().map(|record| describe(record)).collect()
}

fn describe(record: &Record) -> String {
    let who = match record.file() {
        Some(file) if file.ends_with(b"record_kinds") => "program".to_owned(),
        Some(file) if String::from_utf8_lossy(file).contains("libc.so") => "libc".to_owned(),
        _ => format!("{:?}", record.place),
    };
    let pointer = |p| if p == 0 { "(nil)".to_owned() } else { format!("{p:#x}") };
    let size = |n| if n == 0 { "0".to_owned() } else { format!("{n:#x}") };
    match record.op {
        Op::Alloc { address, size: n } => format!("{who} + {} {}", pointer(address), size(n)),
        Op::Free { address } => format!("{who} - {}", pointer(address)),
        Op::ReallocOld { address } => format!("{who} < {}", pointer(address)),
        Op::ReallocNew { address, size: n } => format!("{who} > {} {}", pointer(address), size(n)),
        Op::ReallocFailed { address, size: n } => {
            format!("{who} ! {} {}", pointer(address), size(n))
        }
    }
}

/// What the program expects, line by line. `by_glibc`: with the documented differences of glibc's
/// own tracer, which rounds the size of pvalloc and does not record one that overflows.
fn compare(expected: &Path, found: &[String], by_glibc: bool) {
    let expected = std::fs::read_to_string(expected).unwrap();
    let mut found_left = found.iter();
    let mut next = found_left.next();
    for line in expected.lines() {
        let (line, optional) = match line.strip_prefix('?') {
            Some(line) => (line.to_owned(), true),
            None => (line.to_owned(), false),
        };
        let line = match line.strip_suffix(" pvalloc") {
            Some(line) if by_glibc => line.replace(" 0xa", " 0x1001"),
            Some(line) => line.to_owned(),
            None => line,
        };
        if next == Some(&line) {
            next = found_left.next();
        } else if !optional {
            panic!("expected `{line}`, found {next:?}\nexpected:\n{expected}\nfound: {found:#?}");
        }
    }
    assert_eq!(next, None, "more than expected:\n{expected}\nfound: {found:#?}");
}

#[test]
fn every_call_leaves_the_documented_records() {
    let folder = Folder::new("records");
    for (name, flags) in [("pie", &[][..]), ("no-pie", &["-no-pie", "-fno-pie"])] {
        let program = build(&folder, flags);
        for addresses in ["absolute", "relative"] {
            let expected = folder.join("expected");
            let run = Traced::new(&folder, &program)
                .arg(&expected)
                .env("MTR_ADDRESSES", addresses)
                .run()
                .succeeded();
            let log = run.log();
            log.is_in_order();
            assert_eq!(log.note("addresses"), [addresses], "{name}");
            compare(&expected, &between_the_markers(&log), false);
            mtr_report([&run.path]).without_faults();
        }
    }
}

#[test]
fn results_and_errno_are_those_without_the_library() {
    let folder = Folder::new("records-errno");
    let program = build(&folder, &[]);
    let plain = run_plain(&program, &["expected"]);
    assert!(plain.status.success());
    let plain = String::from_utf8(plain.stdout).unwrap();
    // The program looked at what it says it looked at: both kinds of outcome are there.
    assert!(plain.contains("malloc: a block, errno 77"), "{plain}");
    assert!(plain.contains("malloc too big: nil, errno 12"), "{plain}");
    let run = Traced::new(&folder, &program).arg("expected").run().succeeded();
    assert_eq!(run.stdout(), plain);
}

#[test]
fn the_kinds_are_those_of_glibcs_own_tracer() {
    let test = "the_kinds_are_those_of_glibcs_own_tracer";
    let folder = Folder::new("records-glibc");
    let program = build(&folder, &[]);
    let (path, expected) = (folder.join("glibc.log"), folder.join("expected"));
    let output = clean_command(&program)
        .arg(&expected)
        .env("LD_PRELOAD", "libc_malloc_debug.so.0")
        .env("MALLOC_TRACE", &path)
        .env("BEGIN_MTRACE", "1")
        .output()
        .unwrap();
    if !path.is_file() {
        return skip(test, "libc_malloc_debug.so.0 is not installed");
    }
    assert!(output.status.success(), "{output:?}");
    // The same expectations hold of glibc's tracer as of ours in the first test.
    compare(&expected, &between_the_markers(&Log::read(&path).unwrap()), true);
}

#[test]
fn both_forms_of_addresses_name_the_same_places() {
    let folder = Folder::new("records-places");
    let program = build(&folder, &["-rdynamic"]);
    let [absolute, relative] = ["absolute", "relative"].map(|addresses| {
        let run = Traced::new(&folder, &program)
            .arg("expected")
            .env("MTR_ADDRESSES", addresses)
            .run()
            .succeeded();
        let log = run.log();
        let own = log.records().filter(|r| r.is_from("record_kinds"));
        let places = own.map(|record| {
            let place = record.place.as_ref().unwrap();
            let (symbol, offset) = place.symbol.clone().expect("-rdynamic exports main");
            assert_eq!(symbol, b"main");
            // The offset has its 0x in the old form only.
            assert_eq!(offset.starts_with("0x"), addresses == "absolute", "{place:?}");
            let offset = u64::from_str_radix(offset.trim_start_matches("0x"), 16).unwrap();
            (log.module_of(record).expect("a module").1, offset)
        });
        places.collect::<Vec<(u64, u64)>>()
    });
    assert!(absolute.len() > 40, "{absolute:?}");
    assert_eq!(absolute, relative);
    // Both the address and `main+offset` stand for one place: their difference is where main is.
    let bases: std::collections::BTreeSet<u64> = absolute.iter().map(|(a, o)| a - o).collect();
    assert_eq!(bases.len(), 1, "{absolute:x?}");
}

#[test]
fn the_head_of_a_log_tells_whose_it_is() {
    let folder = Folder::new("records-head");
    let program = build(&folder, &["-Wl,--build-id=sha1"]);
    let run = Traced::new(&folder, &program).arg("with a blank\n").run().succeeded();
    let log = run.log();
    assert_eq!(log.items[0], Item::Note(vec![b"mtr".into(), b"log".into(), b"1".into()]));
    assert_eq!(log.note("program"), [program.to_str().unwrap()]);
    assert_eq!(log.note("arguments"), [program.to_str().unwrap(), "with a blank\n"]);
    assert_eq!(log.note("directory"), [folder.path().to_str().unwrap()]);
    assert_eq!(log.note("start"), ["process"]);
    assert_eq!(log.note("id")[0].len(), 16);
    assert_eq!(log.notes("exit").len(), 1, "a normal end says so");
    assert!(log.pid() > 1);
    let mode = std::fs::metadata(&run.path).unwrap();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode.permissions()) & 0o777, 0o600);

    let first = log.modules[0].2.as_ref().unwrap();
    assert_eq!(first.path, program, "the program is the first module");
    if let Some(readelf) = need("readelf", "the build ID of the program") {
        let notes = clean_command(readelf).arg("-n").arg(&program).output().unwrap();
        let notes = String::from_utf8_lossy(&notes.stdout).into_owned();
        assert!(
            first.build_id.len() == 40 && notes.contains(&first.build_id),
            "{first:?}\n{notes}"
        );
    }
    // A module need not be listed before a record names it; libc is named by strdup.
    let is_libc = |m: &Module| m.path.to_string_lossy().contains("libc.so.6");
    assert!(log.modules.iter().flat_map(|m| &m.2).any(is_libc), "{:?}", log.modules);
}
