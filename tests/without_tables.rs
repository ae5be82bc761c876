//! Call stacks through code that the usual tables do not describe: `.eh_frame` without a header, no
//! CFI at all, code that was made at run time. Compared with what the programs do.

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use support::*;

const NO_HEADER: &str = "-Wl,--no-eh-frame-hdr";
const NO_CFI: [&str; 2] = ["-fno-asynchronous-unwind-tables", "-fno-unwind-tables"];

/// A file, and an address as it states it.
type Place = (PathBuf, u64);

/// The stack of a block of chains.c.
struct Known {
    /// Names of the program's and the plugins' functions on it, innermost first.
    functions: Vec<String>,
    stack: Stack,
    /// Whether the outermost frame is the program's (that of its first code).
    is_whole: bool,
}

/// chains.c as a program and as two plugins that differ in their layout.
struct Chains {
    folder: Folder,
    program: PathBuf,
    plugins: [PathBuf; 2],
}

impl Chains {
    fn build(name: &str, compiler: &str, program_flags: &[&str], plugin_flags: &[&str]) -> Chains {
        let folder = Folder::new(name);
        let source = program("chains.c");
        let plugin = |output: &str, room: &str| {
            let flags = [plugin_flags, &["-shared", "-fPIC", "-DPLUGIN", room]].concat();
            compile_with(compiler, &folder, output, &source, &flags)
        };
        let plugins = [plugin("first.so", "-DROOM=24"), plugin("second.so", "-DROOM=1000")];
        let flags = [program_flags, &["-ldl"]].concat();
        let program = compile_with(compiler, &folder, "chains", &source, &flags);
        Chains { folder, program, plugins }
    }

    fn run(&self) -> Trace {
        let [first, second] = self.plugins.each_ref().map(|path| path.to_str().unwrap());
        let run = Traced::compact(&self.folder, &self.program);
        let run = run.args(&[first, second, first, second]).run().succeeded();
        let trace = run.trace();
        trace.is_finished();
        trace
    }

    /// The stacks of all blocks of the chains, by size.
    fn stacks(&self, trace: &Trace) -> BTreeMap<u64, Vec<Known>> {
        let biases: BTreeMap<(u64, PathBuf), u64> = trace
            .notes("module")
            .iter()
            .map(|note| {
                let text = |at: usize| String::from_utf8_lossy(&note[at]).into_owned();
                let hex = |at| u64::from_str_radix(text(at).trim_start_matches("0x"), 16).unwrap();
                ((hex(0), text(4).into()), hex(2))
            })
            .collect();
        let files = [&self.program, &self.plugins[0], &self.plugins[1]];
        let place = |return_address: u64, position: usize| {
            let module = trace.module_at(return_address, position)?;
            let bias = biases[&(module.start, module.path.clone())];
            let place = (module.path.clone(), return_address - 1 - bias);
            files.contains(&&module.path).then_some(place)
        };
        let mut names: BTreeMap<Place, Option<String>> = BTreeMap::new();
        let mut found: Vec<(u64, Stack, Vec<Option<Place>>)> = Vec::new();
        for event in trace.events.iter().filter(|event| event.kind == Kind::Alloc) {
            let size = event.info.unwrap().size;
            if !(20_000..20_100).contains(&size) {
                continue;
            }
            let stack = trace.stack_of(event);
            let place = |address: &u64| place(*address, event.position);
            let places: Vec<Option<Place>> = stack.frames.iter().map(place).collect();
            names.extend(places.iter().flatten().map(|place| (place.clone(), None)));
            found.push((size, stack, places));
        }
        for file in files {
            let of_it = |(of, address): &Place| (of == file).then_some(*address);
            let addresses: Vec<u64> = names.keys().filter_map(of_it).collect();
            for (address, found) in addresses.iter().zip(addr2line(&with_debug(file), &addresses)) {
                names.insert((file.clone(), *address), found.map(|location| location.function));
            }
        }
        let mut stacks: BTreeMap<u64, Vec<Known>> = BTreeMap::new();
        for (size, stack, places) in found {
            // The program's first code has no debug information.
            let functions = places.iter().flatten().filter_map(|place| names[place].clone());
            let functions = functions.collect();
            let last = places.last().and_then(Option::as_ref);
            let is_whole = last.is_some_and(|(file, _)| *file == self.program)
                && !stack.is_ended
                && stack.cut.is_none();
            stacks.entry(size).or_default().push(Known { functions, stack, is_whole });
        }
        stacks
    }

    /// Every stack is complete and has the functions that were called.
    #[track_caller]
    fn are_exact(&self) {
        const DEPTH: usize = 12;
        let level = |level: usize| ["one", "two", "three"][level % 3];
        let chain = |levels: usize| (0..levels).rev().map(level);
        let stacks = self.stacks(&self.run());
        assert_eq!(stacks.len(), DEPTH + 1);
        for (size, stacks) in stacks {
            let levels = (size - 20_000) as usize + 1;
            let own: Vec<&str> = chain(levels).chain(["main"]).collect();
            let below = ["plugin_run"].into_iter().chain(chain(DEPTH)).chain(["main"]);
            let in_plugin: Vec<&str> = match levels > DEPTH {
                true => below.collect(),
                false => chain(levels).chain(below).collect(),
            };
            let (mut owns, mut in_plugins) = (0, 0);
            for Known { functions, stack, is_whole } in &stacks {
                assert!(is_whole, "{size}: {functions:?} {stack:x?}");
                match *functions == in_plugin {
                    true => in_plugins += 1,
                    false => {
                        assert_eq!(*functions, own, "{size}: {stack:x?}");
                        owns += 1;
                    }
                }
            }
            let expected = if levels > DEPTH { (0, 4 * 20) } else { (5 * 20, 4 * 20 * 20) };
            assert_eq!((owns, in_plugins), expected, "{size}");
        }
    }
}

/// The file that has the debug information of `path`: a copy, where its sections were taken away.
fn with_debug(path: &Path) -> PathBuf {
    let copy = path.with_extension("debug");
    if copy.exists() { copy } else { path.to_owned() }
}

/// Makes a file one without section headers, as some packers leave them.
fn remove_section_headers(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    std::fs::rename(path, path.with_extension("debug")).unwrap();
    bytes[40..48].fill(0); // e_shoff
    bytes[60..64].fill(0); // e_shnum, e_shstrndx
    std::fs::write(path, bytes).unwrap();
    let mode = std::fs::metadata(path.with_extension("debug")).unwrap().permissions();
    std::fs::set_permissions(path, mode).unwrap();
}

#[test]
fn an_eh_frame_without_a_header_is_found() {
    for (compiler, flags) in [
        ("gcc", &["-O0"][..]),
        ("gcc", &["-O0", "-fomit-frame-pointer"]),
        ("gcc", &["-O2"]),
        ("gcc", &["-O1", "-no-pie", "-fno-pie"]),
        ("gcc", &["-O2", "-Wl,-z,noseparate-code,-z,max-page-size=0x200000"]),
        ("clang", &["-O2"]),
    ] {
        if need(compiler, "an_eh_frame_without_a_header_is_found").is_some() {
            let plugin: Vec<&str> =
                flags.iter().filter(|flag| !flag.contains("pie")).copied().collect();
            let [flags, plugin] = [flags, &plugin].map(|flags| [flags, &[NO_HEADER]].concat());
            Chains::build("no-header", compiler, &flags, &plugin).are_exact();
        }
    }
}

#[test]
fn one_module_without_a_header_does_not_matter_to_others() {
    let flags = ["-O2", NO_HEADER];
    Chains::build("no-header-program", "cc", &flags, &["-O2"]).are_exact();
    Chains::build("no-header-plugin", "cc", &["-O2"], &flags).are_exact();
}

#[test]
fn frame_pointers_lead_through_modules_without_cfi() {
    for level in ["-O0", "-O1", "-O2"] {
        let flags = [&[level, "-fno-omit-frame-pointer"][..], &NO_CFI].concat();
        Chains::build("no-cfi", "cc", &flags, &flags).are_exact();
        Chains::build("no-cfi-plugin", "cc", &["-O2"], &flags).are_exact();
        Chains::build("no-cfi-program", "cc", &flags, &["-O2"]).are_exact();
    }
    let no_cfi = [&["-O1", "-fno-omit-frame-pointer"][..], &NO_CFI].concat();
    Chains::build("no-header-no-cfi", "cc", &["-O2", NO_HEADER], &no_cfi).are_exact();
}

#[test]
fn without_section_headers_frame_pointers_are_left() {
    let flags = ["-O1", "-fno-omit-frame-pointer", NO_HEADER];
    let chains = Chains::build("no-sections", "cc", &flags, &flags);
    for path in [&chains.program, &chains.plugins[0], &chains.plugins[1]] {
        remove_section_headers(path);
    }
    chains.are_exact();
}

/// The program's path names another file by the time that it is looked into, or none.
#[test]
fn a_program_that_was_replaced_is_read_all_the_same() {
    let folder = Folder::new("no-header-replaced");
    let program = compile(&folder, "replaced", &program("replaced.c"), &["-O1", NO_HEADER]);
    for what in ["nothing", "another", "fifo"] {
        let _ = std::fs::remove_file(folder.join("victim"));
        std::fs::copy(&program, folder.join("victim")).unwrap();
        let run = Traced::compact(&folder, folder.join("victim")).args(&[what]).run().succeeded();
        let trace = run.trace();
        trace.is_finished();
        let of_it = |event: &&Event| event.info.is_some_and(|info| info.size == 20_001);
        let event = trace.events.iter().find(of_it).unwrap();
        let stack = trace.stack_of(event);
        assert!(!stack.is_ended && stack.frames.len() > 4, "{what}: {stack:x?}");
    }
}

#[test]
fn one_frame_of_generated_code_is_passed_by_its_frame_pointer() {
    let folder = Folder::new("generated-code");
    for flags in [&["-O0"][..], &["-O2"], &["-O2", "-fno-omit-frame-pointer"]] {
        let program = compile(&folder, "generated", &program("generated_code.c"), flags);
        let run = Traced::compact(&folder, &program).run().succeeded();
        let trace = run.trace();
        trace.is_finished();
        let hex = |line: &str| u64::from_str_radix(line.trim_start_matches("0x"), 16).unwrap();
        let printed: Vec<u64> = run.stdout().lines().map(hex).collect();
        let [outside, inside, innermost] = printed[..] else { panic!("{printed:?}") };
        let own = trace.modules().find(|module| module.path == program).unwrap();
        let is_own = |address: &u64| (own.start..own.end).contains(address);
        let mut seen = [0; 3];
        for event in trace.events.iter().filter(|event| event.kind == Kind::Alloc) {
            let size = event.info.unwrap().size;
            let stack = trace.stack_of(event);
            let frames = &stack.frames[..];
            let is_right = match size {
                20_001 => frames[0] == outside && is_own(&frames[1]) && !stack.is_ended,
                20_002 => {
                    frames[0] == inside
                        && is_own(&frames[1])
                        && frames[2] == outside
                        && is_own(&frames[3])
                        && !stack.is_ended
                }
                // One step out of such code, to code that is described, and no other.
                20_003 => frames == [innermost] && stack.is_ended,
                _ => continue,
            };
            assert!(is_right, "{size}: {stack:x?}, {printed:x?}");
            assert!(stack.is_ended || frames.last().is_some_and(is_own), "{stack:x?}");
            seen[size as usize - 20_001] += 1;
        }
        assert_eq!(seen, [100; 3]);
        // A log names the innermost caller.
        let run = Traced::new(&folder, &program).run().succeeded();
        let printed: Vec<u64> = run.stdout().lines().map(hex).collect();
        let text = std::fs::read_to_string(&run.path).unwrap();
        for (caller, size) in [(0, 20_001), (1, 20_002), (2, 20_003)] {
            let place = format!("@ [{:#x}] +", printed[caller]);
            let is_it =
                |line: &&str| line.starts_with(&place) && line.ends_with(&format!(" {size:#x}"));
            assert_eq!(text.lines().filter(is_it).count(), 100, "{size}");
        }
    }
}
