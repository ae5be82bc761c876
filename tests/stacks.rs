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
    let mut text = String::from("# mtr trace 2\n# id 00000000000004d2\n# pid 1\n# start process\n");
    for (path, (start, end)) in &seen.modules {
        // Nothing here is prelinked: what lies at the start is SVMA 0.
        text += &format!("# module {start:#x} {end:#x} {start:#x} - {path} {path}\n");
    }
    text += "= Start\n";
    let mut trace = Chunks::default();
    for piece in text.as_bytes().chunks(255) {
        trace.record(&[&[1, piece.len() as u8], piece].concat());
    }
    trace.record(&[&[2][..], &varint(4711)].concat());
    let mut nodes = 0;
    for (index, (size, addresses)) in (1u32..).zip(&seen.records) {
        let mut parent = 0;
        for address in addresses.iter().rev() {
            nodes += 1;
            trace.node(nodes - parent, *address);
            parent = nodes;
        }
        let ptr = u64::from(index) * 0x100000;
        let fields = [(nodes as u32).to_le_bytes().to_vec(), ptr.to_le_bytes().to_vec()].concat();
        trace.record(&[&[0xff][..], &fields, &size.to_le_bytes()].concat());
    }
    trace.end();
    let path = folder.join("t.mtr");
    fs::write(&path, trace.bytes).unwrap();
    path
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value > 127 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// The chunks of one stream.
#[derive(Default)]
struct Chunks {
    bytes: Vec<u8>,
    /// Of the chunk that is being filled: its number, and what its header says.
    number: u32,
    header: u32,
    records: Vec<u8>,
    /// Address of the last node in it.
    last: u64,
    /// Definitions so far.
    nodes: u32,
}

impl Chunks {
    fn record(&mut self, record: &[u8]) {
        if self.records.len() + record.len() > 32_704 {
            self.end();
        }
        self.records.extend(record);
    }

    fn node(&mut self, up: u64, address: u64) {
        // Before it is known what it is a difference to.
        if self.records.len() + 21 > 32_704 {
            self.end();
        }
        let difference = address.wrapping_sub(self.last) as i64;
        let zigzag = (difference << 1 ^ difference >> 63) as u64;
        self.record(&[&[4][..], &varint(up), &varint(zigzag)].concat());
        (self.nodes, self.last) = (self.nodes + 1, address);
    }

    fn end(&mut self) {
        self.last = 0;
        let nodes = std::mem::replace(&mut self.header, self.nodes);
        let length = self.records.len() as u32;
        let mut header = b"mtr\x02".to_vec();
        header.extend([length.to_le_bytes(), 1234u32.to_le_bytes(), [0; 4], [0; 4]].concat());
        header.extend(self.number.to_le_bytes());
        header.resize(40, 0);
        header.extend([4711, nodes].map(u32::to_le_bytes).concat());
        header.resize(64, 0);
        header.append(&mut self.records);
        seal(&mut header);
        self.bytes.extend(header);
        self.bytes.resize(self.bytes.len().next_multiple_of(64), 0);
        self.number += 1;
    }
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
        let map = stack_of(&text, "2,192 bytes");
        assert!(map[0].contains(&line("HashMap::with_capacity(100)")), "{map:?}");
    }
}

#[test]
fn what_rust_s_collections_and_backtraces_allocate_is_the_program_s() {
    let folder = Folder::new("collections");
    let source = program("collections.rs");
    const FUNCTIONS: [&str; 7] = [
        "leak_hash_map",
        "leak_reserved_map",
        "leak_hash_set",
        "leak_btree_map",
        "leak_string",
        "leak_rc",
        "leak_backtrace",
    ];
    for level in ["-Copt-level=0", "-Copt-level=2"] {
        for information in ["-Cdebuginfo=2", "-Cdebuginfo=0"] {
            let flags = [level, information];
            let program = compile(&folder, "collections", &source, &flags);
            let run = Traced::compact(&folder, &program).run().succeeded();
            let report = mtr_report(["--top".as_ref(), "1000".as_ref(), run.path.as_os_str()]);
            let text = report.without_faults().text;
            // Each function has a site of its own, and nobody else but what runs before main.
            let lines: Vec<&str> = text.lines().collect();
            let is_amount =
                |line: &str| line.starts_with("  ") && line.as_bytes()[2].is_ascii_digit();
            let below = lines.windows(2).filter(|pair| is_amount(pair[0])).map(|pair| pair[1]);
            let sites: Vec<&str> = below.map(|line| line.split(" at ").next().unwrap()).collect();
            for name in FUNCTIONS {
                let own = format!("    collections::{name}");
                assert!(sites.contains(&&*own), "{flags:?}: no site in {name}: {sites:#?}\n{text}");
            }
            for name in ["hashbrown", "gimli", "addr2line", "miniz_oxide"] {
                assert!(
                    !sites.iter().any(|site| site.contains(name)),
                    "{flags:?}: a site of {name}: {sites:#?}"
                );
            }
        }
    }
}

#[test]
fn names_are_whole_unless_a_width_is_asked_for() {
    let folder = Folder::new("long-names");
    let program = compile(&folder, "cpp", &program("keeps_by_design.cpp"), &["-O0"]);
    let run = Traced::compact(&folder, &program).run().succeeded();
    let report = |options: &[&str]| {
        let options = options.iter().map(AsRef::as_ref).chain(["--show-suppressed".as_ref()]);
        mtr_report(options.chain([run.path.as_os_str()])).succeeded().text
    };
    let whole = report(&[]);
    let name = |line: &&str| line.contains("std::operator<<") && line.contains("char const*)");
    let line = whole.lines().find(name).unwrap_or_else(|| panic!("{whole}"));
    assert!(line.len() > 80 && !line.contains("..."), "{line}");
    let narrow = report(&["--width=60"]);
    let shortened = narrow.lines().find(|line| line.contains("std::operator<<"));
    let shortened = shortened.unwrap_or_else(|| panic!("{narrow}"));
    assert!(shortened.len() <= 60 && shortened.starts_with("      through std::op"), "{narrow}");
    assert_eq!(report(&["--width=1000"]), whole.replace("\n      at ", " at "));
}

#[test]
fn functions_have_the_names_that_programs_call_them_by() {
    let folder = Folder::new("aliases");
    let aliases = compile(&folder, "aliases", &program("aliases.c"), &["-rdynamic"]);
    let libc = compile(&folder, "libc", &program("passes_through.c"), &[]);
    let report = |format: Format, program: &Path, argument: &str| {
        let run = format.traced(&folder, program).arg(argument).run().succeeded();
        mtr_report(["--show-suppressed".as_ref(), run.path.as_os_str()]).succeeded().text
    };
    for format in FORMATS {
        let text = report(format, &aliases, "");
        assert!(text.contains("\n    make_block at "), "{text}");
        let text = report(format, &libc, "strdup");
        // With debug information of libc, a log has its file and line.
        let name = if format == Format::Text { "\n    strdup" } else { "\n      through strdup\n" };
        assert!(text.contains(name), "{text}");
        assert!(!text.contains("__GI_"), "{text}");
    }
    for (argument, name) in [("asprintf", "asprintf"), ("", "puts")] {
        let text = report(Format::Compact, &libc, argument);
        assert!(text.contains(&format!("\n      through {name}\n")), "{text}");
    }
}

#[test]
fn a_stack_shows_where_a_signal_interrupted_the_program() {
    let folder = Folder::new("interrupted");
    let program = compile(&folder, "interrupted", &program("interrupted.c"), &["-O1"]);
    let run = Traced::compact(&folder, &program).run().succeeded();
    let text = mtr_report([&run.path]).succeeded().text;
    // Functions without what says where they are.
    let stack = |bytes: &str| -> Vec<String> {
        let lines =
            stack_of(&text, bytes).into_iter().filter(|line| !line.starts_with("      at "));
        lines.map(|line| line.trim().split(" at ").next().unwrap().to_owned()).collect()
    };
    let trap = ["on_trap", "called by a signal in traps", "called from main"];
    assert_eq!(stack("7,701 bytes"), trap, "{text}");
    let one = ["on_usr1", "called by a signal in raises", "through raise", "called from main"];
    assert_eq!(stack("7,702 bytes"), one, "{text}");
    let nested = ["on_usr2", "called by a signal in on_usr1", "through raise"];
    let nested: Vec<_> = nested.iter().chain(&one[1..]).collect();
    assert_eq!(stack("7,703 bytes").iter().collect::<Vec<_>>(), nested, "{text}");
}
