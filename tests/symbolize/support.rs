//! Compiling programs, disassembling them, asking addr2line.

use mtr_analyzer::read::{Addressing, CallSite, CallSites, Kinds, Module};
use mtr_analyzer::symbolize::{Frame, Place};
use std::path::{Component, Path, PathBuf};
use std::process::Command;

/// Calls of everything that allocates and frees, inlined at -O2, with templates.
pub(crate) const CPP: &str = r#"
#include <cstdlib>
#include <cstdio>
#include <map>
#include <string>
#include <vector>

static inline void *innermost(size_t n) {
    return malloc(n);
}
static inline void *middle(size_t n) {
    void *p = innermost(n + 1);
    if (!p) abort();
    return p;
}
namespace outer {
template <typename T, int N> struct Pool {
    std::vector<T> items;
    __attribute__((noinline)) T *grow(size_t n) {
        items.resize(n * N);
        return static_cast<T *>(middle(sizeof(T) * n));
    }
    ~Pool() { items.clear(); }
};
}
__attribute__((noinline)) static void release(void *p) { free(p); puts("released"); }
extern "C" __attribute__((noinline)) int work(int n) {
    outer::Pool<double, 3> pool;
    std::map<std::string, int> names;
    for (int i = 0; i < n; i++) names[std::to_string(i)] = i;
    void *p = pool.grow(names.size());
    p = realloc(p, 100);
    void *(*indirect)(size_t) = n > 100 ? malloc : std::malloc;
    void *q = indirect(n);
    release(q);
    release(p);
    int *array = new int[n];
    int result = array[n / 2];
    delete[] array;
    return result;
}
#ifndef LIBRARY
int main(int argc, char **) {
    char *p = static_cast<char *>(calloc(argc, 10));
    int result = work(argc);
    free(p);
    return result & 1;
}
#endif
"#;

/// Prints why a test proves nothing here, unless all tools are at hand.
pub(crate) fn have(test: &str, tools: &[&str]) -> bool {
    for tool in tools {
        if Command::new(tool).arg("--version").output().is_err() {
            println!("skipped: {test} (needs {tool})");
            return false;
        }
    }
    true
}

/// Runs a tool in a folder and returns what it printed.
pub(crate) fn run(folder: &Path, tool: &str, args: &[&str]) -> Result<String, String> {
    let output = Command::new(tool).args(args).current_dir(folder).env("LC_ALL", "C").output();
    let output = output.map_err(|error| format!("{tool}: {error}"))?;
    if !output.status.success() {
        return Err(format!("{tool} {args:?}: {}", String::from_utf8_lossy(&output.stderr)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A call instruction: where it returns to, and the instruction as objdump shows it.
pub(crate) struct Call {
    pub(crate) returns_to: u64,
    pub(crate) text: String,
}

/// All calls in `.text`.
pub(crate) fn calls(program: &Path) -> Vec<Call> {
    let folder = program.parent().expect("absolute path");
    let path = program.to_str().expect("path is UTF-8");
    let text = run(folder, "objdump", &["-d", "-j", ".text", path]).expect("disassembled");
    let mut calls = Vec::new();
    let mut pending: Option<String> = None;
    for line in text.lines() {
        let Some((address, rest)) = line.trim().split_once(":\t") else { continue };
        let Ok(address) = u64::from_str_radix(address, 16) else { continue };
        // The rest of a long instruction has no text of its own.
        let Some(instruction) = rest.split('\t').nth(1) else { continue };
        if let Some(text) = pending.take() {
            calls.push(Call { returns_to: address, text });
        }
        if instruction.split(' ').any(|word| word == "call") {
            pending = Some(instruction.to_owned());
        }
    }
    assert!(!calls.is_empty(), "{path} has calls");
    calls
}

/// Build ID as bytes, empty where there is none.
pub(crate) fn build_id(program: &Path) -> Vec<u8> {
    let folder = program.parent().expect("absolute path");
    let text = run(folder, "readelf", &["-n", program.to_str().expect("UTF-8")]).expect("notes");
    let Some((_, hex)) = text.split_once("Build ID: ") else { return Vec::new() };
    let hex = hex.split_whitespace().next().unwrap_or_default();
    let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex");
    (0..hex.len()).step_by(2).map(byte).collect()
}

/// What addr2line says of an address: function and place, innermost first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Expected {
    pub(crate) function: Option<String>,
    pub(crate) demangled: Option<String>,
    pub(crate) file: Option<PathBuf>,
    pub(crate) line: Option<u32>,
}

/// Asks addr2line for the byte in front of each address.
pub(crate) fn addr2line(program: &Path, addresses: &[u64]) -> Vec<Vec<Expected>> {
    let raw = ask_addr2line(program, addresses, &["-a", "-f", "-i"]);
    let demangled = ask_addr2line(program, addresses, &["-a", "-f", "-i", "-C"]);
    let both = raw.into_iter().zip(demangled);
    both.map(|(raw, demangled)| {
        assert_eq!(raw.len(), demangled.len());
        let frames = raw.into_iter().zip(demangled);
        frames.map(|(frame, named)| Expected { demangled: named.function, ..frame }).collect()
    })
    .collect()
}

fn ask_addr2line(program: &Path, addresses: &[u64], flags: &[&str]) -> Vec<Vec<Expected>> {
    let folder = program.parent().expect("absolute path");
    let list: Vec<String> = addresses.iter().map(|address| format!("{:#x}", address - 1)).collect();
    let mut args = flags.to_vec();
    args.extend(["-e", program.to_str().expect("UTF-8")]);
    args.extend(list.iter().map(String::as_str));
    let text = run(folder, "addr2line", &args).expect("addr2line ran");
    let mut all: Vec<Vec<Expected>> = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.starts_with("0x") {
            all.push(Vec::new());
            continue;
        }
        let place = lines.next().expect("a place follows each function");
        let place = place.split(" (discriminator").next().unwrap_or(place);
        let (file, number) = place.rsplit_once(':').expect("file:line");
        // Without line tables it names the file of the nearest STT_FILE symbol, as "crtstuff.c:?".
        let file = if number == "?" && !file.contains('/') { "??" } else { file };
        all.last_mut().expect("an address first").push(Expected {
            function: Some(line.to_owned()).filter(|name| name != "??"),
            demangled: None,
            file: Some(PathBuf::from(file)).filter(|_| file != "??"),
            line: number.parse().ok().filter(|&number| number != 0),
        });
    }
    assert_eq!(all.len(), addresses.len());
    all
}

/// A path without `.` and `x/..`.
pub(crate) fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if normal.file_name().is_some() => {
                normal.pop();
            }
            part => normal.push(part),
        }
    }
    normal
}

/// A trace with a module map: one module, loaded at a bias, with sites at these SVMAs.
pub(crate) fn stated(program: &Path, bias: u64, svmas: &[u64]) -> CallSites {
    let module = Module {
        start: bias,
        end: bias + (1 << 30),
        bias,
        build_id: build_id(program),
        path: program.to_owned(),
        name: b"./program".to_vec(),
    };
    let site = |svma: &u64| CallSite {
        object: Some(b"./program".to_vec()),
        symbol: None,
        address: Some(svma.wrapping_add(bias)),
        addressing: Addressing::Absolute,
        module: Some(0),
        kinds: Kinds::default(),
    };
    CallSites {
        program: Some(program.to_owned()),
        directory: None,
        modules: vec![module],
        sites: svmas.iter().map(site).collect(),
        ..CallSites::default()
    }
}

/// Compares places with what addr2line says of the same addresses. Returns the number of frames
/// and of inlined frames compared.
pub(crate) fn compare(what: &str, places: &[Place], expected: &[Vec<Expected>]) -> (usize, usize) {
    assert_eq!(places.len(), expected.len(), "{what}");
    let (mut frames, mut inlined) = (0, 0);
    for (place, expected) in places.iter().zip(expected) {
        let at = format!("{what}: {:#x}: {:?} {expected:?}", place.svma.unwrap_or(0), place.frames);
        // addr2line prints a line of question marks where there is nothing.
        let nothing = expected.iter().all(|e| e.function.is_none() && e.file.is_none());
        if nothing && place.frames.is_empty() {
            continue;
        }
        assert_eq!(place.frames.len(), expected.len(), "depth: {at}");
        let Some(outermost) = expected.last() else { continue };
        for (index, (frame, expected)) in place.frames.iter().zip(expected).enumerate() {
            let file = frame.file.as_deref().map(normal);
            if expected.file.as_deref().is_none_or(|file| has_line(file, expected.line)) {
                assert_eq!(file, expected.file.as_deref().map(normal), "file: {at}");
            } else {
                // binutils 2.40 combines a line of a header with the name of the main file.
                assert!(file.is_some_and(|file| has_line(&file, frame.line)), "file: {at}");
            }
            assert_eq!(frame.line, expected.line, "line: {at}");
            assert_eq!(frame.inlined, index + 1 < place.frames.len(), "inlined: {at}");
            compare_names(frame, expected, outermost, &at);
            frames += 1;
            inlined += usize::from(frame.inlined);
        }
    }
    (frames, inlined)
}

/// Whether a source file has so many lines; files that are not at hand have any.
fn has_line(file: &Path, line: Option<u32>) -> bool {
    let Ok(text) = std::fs::read(file) else { return true };
    text.split(|&byte| byte == b'\n').count() >= line.unwrap_or(0) as usize
}

/// Demanglers print types differently ("unsigned long" or "size_t", spaces, std::string): what has
/// to agree is the part of the name before arguments, letter by letter.
///
/// binutils gives an inlined function the name of the symbol that it was inlined into when it
/// starts a range of its own, so that name is accepted as well.
fn compare_names(frame: &Frame, expected: &Expected, outermost: &Expected, at: &str) {
    let Some(ours) = &frame.function else {
        return assert_eq!(expected.function, None, "function: {at}");
    };
    let plain = |name: &str| -> String {
        let name = name.split(['(', '<', '[']).next().unwrap_or_default();
        // DWARF names the function that the compiler took work.cold and work.part.0 out of.
        let name = name.split('.').next().unwrap_or_default();
        name.rsplit("::").next().unwrap_or_default().trim().to_owned()
    };
    let plain_of = |expected: &Expected| expected.demangled.as_deref().map(plain);
    let is_symbol_instead = frame.inlined && plain_of(expected) == plain_of(outermost);
    // Some leave out the return type, which templates carry in their symbols.
    let matches = |theirs: &String| theirs == ours || ours.contains(&plain(theirs));
    let mut theirs = [&expected.function, &expected.demangled].into_iter().flatten();
    assert!(is_symbol_instead || theirs.any(matches), "function: {at}");
}
