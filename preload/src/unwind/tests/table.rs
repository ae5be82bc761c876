//! Every row of the CFI of real files, against `readelf --debug-dump=frames-interp`.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::unwind::cfi::{CfaRule, RegisterRule, Row, row_at};
use crate::unwind::cursor::Cursor;
use crate::unwind::eh_frame::{Fde, find_in};
use crate::unwind::rule::{Kind, Rule};

/// Rows of one file that are compared; of larger ones every nth FDE.
const MAX_ROWS: usize = 25_000;

const NAMES: [&str; 17] = [
    "rax", "rdx", "rcx", "rbx", "rsi", "rdi", "rbp", "rsp", "r8", "r9", "r10", "r11", "r12", "r13",
    "r14", "r15", "ra",
];

/// The sections of an ELF file that unwinding takes, as (address, bytes).
struct File {
    header: (u64, Vec<u8>),
    frames: (u64, Vec<u8>),
}

impl File {
    fn read(path: &Path) -> Option<File> {
        let bytes = std::fs::read(path).ok()?;
        let u16_at = |at: usize| Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
        let u32_at = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let u64_at = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        let (table, size) = (u64_at(40)? as usize, u16_at(58)? as usize);
        let section = |index: usize| {
            let at = table + index * size;
            let (offset, len) = (u64_at(at + 24)? as usize, u64_at(at + 32)? as usize);
            Some((u32_at(at)? as usize, u64_at(at + 16)?, bytes.get(offset..offset + len)?))
        };
        let (_, _, names) = section(u16_at(62)?.into())?;
        let named = |name: &str| {
            (0..u16_at(60)?.into()).find_map(|index| {
                let (name_at, address, content) = section(index)?;
                let found = names.get(name_at..)?.split(|byte| *byte == 0).next()?;
                (found == name.as_bytes()).then(|| (address, content.to_vec()))
            })
        };
        Some(File { header: named(".eh_frame_hdr")?, frames: named(".eh_frame")? })
    }

    fn find(&self, pc: u64) -> Option<Fde<'_>> {
        let header = Cursor::new(&self.header.1, self.header.0);
        let frames = Cursor::new(&self.frames.1, self.frames.0);
        find_in(header, pc, |address| frames.at_address(address))
    }
}

/// As readelf writes a column. It has one letter for unspecified and undefined.
fn column(rule: RegisterRule) -> String {
    match rule {
        RegisterRule::Unspecified | RegisterRule::Undefined => "u".into(),
        RegisterRule::SameValue => "s".into(),
        RegisterRule::Offset(offset) => format!("c{offset:+}"),
        RegisterRule::ValOffset(offset) => format!("v{offset:+}"),
        RegisterRule::Register(other) => format!("r{other}"),
        RegisterRule::Expression(_) => "exp".into(),
        RegisterRule::ValExpression(_) => "vexp".into(),
    }
}

fn cfa_column(row: &Row) -> String {
    match row.cfa() {
        CfaRule::Offset(register, offset) => {
            format!("{}{offset:+}", NAMES[usize::from(register)])
        }
        CfaRule::Expression(_) => "exp".into(),
    }
}

#[derive(Default)]
struct Counts {
    rows: usize,
    complex_rows: usize,
    bytes: u64,
    complex_bytes: u64,
}

/// Compares the row of `pc` with the columns that readelf printed.
fn compare_row(file: &File, pc: u64, names: &[String], columns: &[String]) -> Rule {
    let fde = file.find(pc).unwrap_or_else(|| panic!("no FDE for {pc:#x}"));
    let row = row_at(&fde, pc).unwrap_or_else(|| panic!("no row for {pc:#x}"));
    assert_eq!(cfa_column(&row), columns[0], "CFA at {pc:#x}");
    for (name, expected) in names.iter().zip(&columns[1..]) {
        if let Some(register) = NAMES.iter().position(|known| known == name) {
            assert_eq!(column(row.register(register as u8)), *expected, "{name} at {pc:#x}");
        }
    }
    if fde.cie.is_signal { Rule::COMPLEX } else { Rule::from_row(&row, fde.program) }
}

/// The FDEs that readelf prints for a file: range, register names, rows of (PC, columns).
struct Block {
    start: u64,
    end: u64,
    names: Vec<String>,
    rows: Vec<(u64, Vec<String>)>,
}

fn blocks(text: &str) -> Vec<Block> {
    let hex = |text: &str| u64::from_str_radix(text, 16).unwrap();
    let mut cies: HashMap<String, (Vec<String>, Vec<String>)> = HashMap::new();
    let mut blocks = Vec::new();
    for block in text.split("\n\n") {
        let mut lines = block.lines().filter(|line| !line.trim().is_empty());
        let Some(first) = lines.next() else { continue };
        let words: Vec<&str> = first.split_whitespace().collect();
        let mut names: Vec<String> = Vec::new();
        let mut rows = Vec::new();
        for line in lines {
            // Another register is written "r1 (rdx)".
            let words = line.split_whitespace().filter(|word| !word.starts_with('('));
            let columns: Vec<String> = words.map(str::to_owned).collect();
            if columns[0] == "LOC" {
                names = columns[2..].to_vec();
            } else {
                rows.push((hex(&columns[0]), columns[1..].to_vec()));
            }
        }
        if words.get(3) == Some(&"CIE") {
            if let Some((_, columns)) = rows.pop() {
                cies.insert(words[0].to_owned(), (names, columns));
            }
        } else if words.get(3) == Some(&"FDE") {
            let (start, end) = words[5].strip_prefix("pc=").unwrap().split_once("..").unwrap();
            let (start, end) = (hex(start), hex(end));
            if rows.is_empty() {
                // The CIE says it all.
                let cie = words[4].strip_prefix("cie=").unwrap();
                let (cie_names, columns) = cies[cie].clone();
                names = cie_names;
                rows.push((start, columns));
            }
            blocks.push(Block { start, end, names, rows });
        }
    }
    blocks
}

fn compare_file(path: &Path) -> Option<Counts> {
    let file = File::read(path)?;
    let output =
        Command::new("readelf").args(["--debug-dump=frames-interp"]).arg(path).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let text = text.split("Contents of the .debug_frame").next().unwrap();
    let blocks = blocks(text);
    let all: usize = blocks.iter().map(|block| block.rows.len()).sum();
    let mut counts = Counts::default();
    for block in blocks.iter().step_by(all / MAX_ROWS + 1) {
        for (index, (pc, columns)) in block.rows.iter().enumerate() {
            let next = block.rows.get(index + 1).map_or(block.end, |(next, _)| *next);
            // Rows without code, and FDEs of removed functions (ld sets them to 0).
            if next <= *pc || block.start == 0 {
                continue;
            }
            let rule = compare_row(&file, *pc, &block.names, columns);
            assert_eq!(rule, compare_row(&file, next - 1, &block.names, columns));
            counts.rows += 1;
            counts.bytes += next - pc;
            if rule.kind() == Kind::Complex {
                counts.complex_rows += 1;
                counts.complex_bytes += next - pc;
            }
        }
    }
    Some(counts)
}

#[test]
fn every_row_of_real_files_is_what_readelf_says() {
    let libraries = Path::new("/lib/x86_64-linux-gnu");
    let mut files: Vec<PathBuf> = [
        "libstdc++.so.6",
        "ld-linux-x86-64.so.2",
        "libcrypto.so.3",
        "libgnutls.so.30",
        "libgcc_s.so.1",
        "libm.so.6",
    ]
    .iter()
    .map(|name| libraries.join(name))
    .collect();
    files.extend(
        ["/usr/bin/git", "/usr/local/bin/git", "/usr/bin/python3", "/usr/bin/perl", "/usr/bin/gdb"]
            .map(PathBuf::from),
    );
    if Command::new("readelf").arg("--version").output().is_err() {
        eprintln!("skipped: every_row_of_real_files_is_what_readelf_says (it is not installed)");
        return;
    }
    // These are there wherever the test runs.
    let own = std::env::current_exe().unwrap();
    let libc = crate::modules::find(libc::qsort as *const () as usize).unwrap();
    // SAFETY: libc stays loaded.
    let libc = PathBuf::from(OsStr::from_bytes(unsafe { &*libc.link_map }.name()));
    for path in [&own, &libc].into_iter().chain(&files) {
        let Some(counts) = compare_file(path) else {
            assert!(path != &own && path != &libc, "{} was not compared", path.display());
            println!("{}: not compared", path.display());
            continue;
        };
        println!(
            "{}: {} rows equal, {} ({:.2} % of the bytes) need more than a rule",
            path.display(),
            counts.rows,
            counts.complex_rows,
            100.0 * counts.complex_bytes as f64 / counts.bytes.max(1) as f64,
        );
        assert!(counts.rows > 100, "{}: {} rows", path.display(), counts.rows);
    }
}
