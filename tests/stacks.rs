//! Call stacks of real programs, in a compact trace that this test writes word by word after
//! docs/trace-format.md: which place is named as the allocation site, and how it was reached.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use support::*;

/// What the witness saw.
struct Seen {
    /// Path, first and last address of every module.
    modules: BTreeMap<String, (u64, u64)>,
    /// Size and return addresses, innermost first.
    records: Vec<(u64, Vec<u64>)>,
}

/// Runs `program` under tests/programs/witness.c.
fn witness(folder: &Folder, program: &Path) -> Seen {
    let source = support::program("witness.c");
    let library = compile(folder, "witness.so", &source, &["-shared", "-fPIC", "-O1"]);
    let out = folder.join("seen");
    let mut command = clean_command(program);
    command.env("LD_PRELOAD", &library).env("WITNESS", &out).current_dir(folder.path());
    assert!(command.status().unwrap().success());
    let text = fs::read_to_string(&out).unwrap();
    let (maps, records) = text.split_once("\n\n").unwrap();
    let hex = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16).unwrap();
    let mut modules = BTreeMap::new();
    for line in maps.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (Some(path), Some((start, end))) = (fields.get(5), fields[0].split_once('-')) else {
            continue;
        };
        if path.starts_with('/') {
            let (start, end) = (hex(start), hex(end));
            let known = modules.entry(path.to_string()).or_insert((start, end));
            *known = (known.0.min(start), known.1.max(end));
        }
    }
    let record = |line: &str| {
        let (size, addresses) = line.split_once(' ').unwrap();
        (size.parse().unwrap(), addresses.split(' ').map(hex).collect())
    };
    Seen { modules, records: records.lines().map(record).collect() }
}

/// A compact trace of what was seen, in which no block is ever freed.
fn trace_of(folder: &Folder, seen: &Seen) -> PathBuf {
    let mut words: Vec<u64> = Vec::new();
    let mut text = String::from("# mtr trace 1\n# id 0000000000001234\n# pid 1\n# start process\n");
    for (path, (start, end)) in &seen.modules {
        // Nothing here is prelinked: what lies at the start is SVMA 0.
        text += &format!("# module {start:#x} {end:#x} {start:#x} - {path} {path}\n");
    }
    text += "= Start\n";
    words.push((text.len() as u64) << 4 | 1);
    for piece in text.as_bytes().chunks(7) {
        let mut bytes = [b'\n'; 8];
        bytes[0] = 0;
        bytes[1..=piece.len()].copy_from_slice(piece);
        words.push(u64::from_le_bytes(bytes));
    }
    words.extend([1 << 4 | 2, 4711 << 16 << 4]); // the thread, node 1
    let mut nodes = 1;
    for (index, (size, addresses)) in (1..).zip(&seen.records) {
        let mut parent = 1;
        for address in addresses.iter().rev() {
            nodes += 1;
            words.extend([parent << 32 | nodes << 4 | 2, address << 4]);
            parent = nodes;
        }
        words.extend([parent << 32 | index << 4 | 3, (size << 8 | 1) << 4]);
        words.extend([index << 32 | 1 << 4 | 5, (index * 0x100000 + 1) << 4]);
    }
    let path = folder.join("t.mtr");
    fs::write(&path, words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>())
        .unwrap();
    path
}

/// The lines beneath the first amount of `bytes` in the report of what `source` allocated.
fn stack_of(text: &str, bytes: &str) -> Vec<String> {
    let mut lines = text.lines().skip_while(|line| !line.starts_with(&format!("  {bytes} in ")));
    assert!(lines.next().is_some(), "{bytes}: {text}");
    lines.take_while(|line| line.starts_with("    ")).map(str::to_owned).collect()
}

fn report_of(name: &str, source: &str, flags: &[&str]) -> (String, PathBuf) {
    let folder = Folder::new(name);
    let source = example(source);
    let program = compile(&folder, name, &source, flags);
    let trace = trace_of(&folder, &witness(&folder, &program));
    let report = mtr_report(["--top".as_ref(), "1000".as_ref(), trace.as_os_str()]).succeeded();
    (report.text, source)
}

#[test]
fn what_new_and_the_stl_allocate_is_the_program_s() {
    for flags in [&["-O0"][..], &["-O2"]] {
        let (text, source) = report_of("leaks", "leaks.cpp", flags);
        let line = |needle| format!("leaks.cpp:{}", line_of(&source, needle));
        // An optimising compiler leaves this one out.
        if flags == ["-O0"] {
            let array = stack_of(&text, "4,000 bytes");
            assert!(array[0].contains(&line("new int[1000]")), "{array:?}");
            // libstdc++'s operator new[] ends by jumping to operator new, and leaves no frame.
            assert!(array[1].contains("through operator new"), "{array:?}");
            assert!(array.iter().any(|l| l.contains(" main at ")), "{array:?}");
        }
        // The string and its characters.
        let characters = stack_of(&text, "533 bytes");
        assert!(characters[0].contains(&line("new std::string(500")), "{characters:?}");
        assert!(characters[1].contains("through std::"), "{characters:?}");
        let nodes = stack_of(&text, "160 bytes");
        assert!(nodes[0].contains(&line("new Node{value")), "{nodes:?}");
        assert!(!text.contains("__libc_start"), "{text}");
    }
}

#[test]
fn what_rust_s_library_allocates_is_the_program_s() {
    for flags in [&["-Copt-level=0"][..], &["-Copt-level=2"]] {
        let (text, source) = report_of("leaks", "leaks.rs", flags);
        let line = |needle| format!("leaks.rs:{}", line_of(&source, needle));
        let boxed = stack_of(&text, "4,096 bytes");
        assert!(boxed[0].contains(&line("Box::new([7; 4096])")), "{boxed:?}");
        assert!(boxed.iter().any(|l| l.contains("leaks::main at ")), "{boxed:?}");
        let cleared = stack_of(&text, "5,000 bytes");
        assert!(cleared[0].contains(&line("vec![0u8; 5000]")), "{cleared:?}");
    }
}
