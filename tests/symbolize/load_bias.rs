//! Logs without a module map: all that glibc ever wrote.

use crate::support::{CPP, Call, calls, have, run};
use mtr_analyzer::read::{Addressing, CallSite, CallSites, Kinds};
use mtr_analyzer::symbolize::{Certainty, Options, Place, Resolved, resolve};
use proptest::prelude::*;
use std::path::{Path, PathBuf};

const TOOLS: &[&str] = &["c++", "cc", "objdump", "readelf"];

/// One program per folder, so that its name can be the same in all.
struct Program {
    _folder: tempfile::TempDir,
    path: PathBuf,
    /// The calls that make records: return address, function, kinds.
    calls: Vec<(u64, Kinds)>,
}

fn build(tool: &str, source: &str, flags: &[&str]) -> Program {
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().canonicalize().expect("folder").join("prog");
    let name = if tool == "cc" && source.contains(".globl") { "p.s" } else { "p.cc" };
    std::fs::write(folder.path().join(name), source).expect("source written");
    let mut args = flags.to_vec();
    args.extend(["-o", "prog", name]);
    run(folder.path(), tool, &args).expect("compiled");
    let calls = calls(&path).iter().filter_map(recording).collect();
    Program { _folder: folder, path, calls }
}

/// The kinds of records that a call makes, by what objdump prints as its target.
fn recording(call: &Call) -> Option<(u64, Kinds)> {
    let name = call.text.split_once('<')?.1.split(['@', '>']).next()?;
    let (mut alloc, mut free, mut realloc) = (false, false, false);
    match name {
        "malloc" | "calloc" => alloc = true,
        "free" | "_ZdlPv" | "_ZdlPvm" | "_ZdaPv" => free = true,
        "realloc" => realloc = true,
        _ => return None,
    }
    Some((call.returns_to, Kinds { alloc, free, realloc }))
}

fn site(object: &Path, address: u64, addressing: Addressing, kinds: Kinds) -> CallSite {
    CallSite {
        object: Some(object.to_str().expect("UTF-8").into()),
        symbol: None,
        address: Some(address),
        addressing,
        module: None,
        kinds,
    }
}

fn log(program: &Program, bias: u64, addressing: Addressing, which: &[(u64, Kinds)]) -> CallSites {
    let sites = which
        .iter()
        .map(|(svma, kinds)| site(&program.path, svma.wrapping_add(bias), addressing, *kinds));
    CallSites { sites: sites.collect(), ..CallSites::default() }
}

fn svmas(resolved: &Resolved) -> Vec<Option<u64>> {
    resolved.places.iter().map(|place| place.svma).collect()
}

/// Not a single address or line may be claimed, and one note says why.
fn assert_unresolved(resolved: &Resolved, reason: &str) {
    for place in &resolved.places {
        assert_eq!(place.certainty, Certainty::Unresolved, "{resolved:?}");
        assert!(place.svma.is_none() && place.frames.is_empty(), "{resolved:?}");
    }
    assert_eq!(resolved.notes.len(), 1, "{:?}", resolved.notes);
    assert!(resolved.notes[0].contains(reason), "{:?}", resolved.notes);
}

fn assert_found(resolved: &Resolved, program: &Program, certainty: Certainty, lines: bool) {
    let expected: Vec<Option<u64>> = program.calls.iter().map(|call| Some(call.0)).collect();
    assert_eq!(svmas(resolved), expected, "{:?}", resolved.notes);
    for place in &resolved.places {
        assert_eq!(place.certainty, certainty);
        assert!(has_line(place) || !lines, "{place:?}");
    }
}

fn has_line(place: &Place) -> bool {
    place.frames.iter().any(|frame| frame.line.is_some() && frame.file.is_some())
}

#[test]
fn the_load_address_of_a_pie_is_found() {
    if !have("the_load_address_of_a_pie_is_found", TOOLS) {
        return;
    }
    for flags in [
        &["-g", "-O0"][..],
        &["-g", "-O2"],
        &["-g", "-O2", "-fno-plt"],
        &["-g", "-O2", "-static-libstdc++"],
    ] {
        let program = build("c++", CPP, flags);
        for (bias, addressing) in [
            (0x5555_5555_4000, Addressing::Unknown),
            (0x55a9_5f85_7000, Addressing::Absolute),
            (0x7f12_3456_7000, Addressing::Unknown),
        ] {
            let sites = log(&program, bias, addressing, &program.calls);
            let resolved = resolve(&sites, &Options::default());
            println!("{flags:?} {bias:#x}: {} sites: {:?}", program.calls.len(), resolved.notes);
            // A static libstdc++ comes without lines.
            let own = !flags.contains(&"-static-libstdc++");
            assert_found(&resolved, &program, Certainty::Inferred, own);
            let path = program.path.display();
            assert_eq!(
                resolved.notes,
                [format!(
                    "load address of {path} inferred from its calls: {bias:#x} (the log has no module map)"
                )]
            );
        }
    }
}

#[test]
fn relative_and_fixed_addresses_are_told_apart() {
    if !have("relative_and_fixed_addresses_are_told_apart", TOOLS) {
        return;
    }
    use Addressing::{Absolute, Relative, Unknown};
    let pie = build("c++", CPP, &["-g", "-O1"]);
    for addressing in [Relative, Unknown] {
        let certainty =
            if addressing == Relative { Certainty::Stated } else { Certainty::Inferred };
        let resolved = resolve(&log(&pie, 0, addressing, &pie.calls), &Options::default());
        assert_found(&resolved, &pie, certainty, true);
        assert_eq!(resolved.notes, [] as [&str; 0]);
    }
    // A non-PIE begins at 0x400000, and glibc 2.35 counts from there.
    let fixed = build("c++", CPP, &["-g", "-O1", "-no-pie"]);
    assert!(fixed.calls[0].0 > 0x400000);
    for (bias, addressing, certainty) in [
        (0u64.wrapping_sub(0x400000), Relative, Certainty::Stated),
        (0u64.wrapping_sub(0x400000), Unknown, Certainty::Inferred),
        (0, Absolute, Certainty::Stated),
        (0, Unknown, Certainty::Inferred),
    ] {
        let resolved = resolve(&log(&fixed, bias, addressing, &fixed.calls), &Options::default());
        assert_found(&resolved, &fixed, certainty, true);
        assert_eq!(resolved.notes, [] as [&str; 0]);
    }
}

#[test]
fn symbols_in_the_log_give_the_load_address() {
    if !have("symbols_in_the_log_give_the_load_address", TOOLS) {
        return;
    }
    // Two pages that differ in nothing but the names of their functions.
    let program = build("cc", &pages(2, "f"), &["-g", "-rdynamic"]);
    let [first, second] = program.calls[..] else { panic!("two calls") };
    let bias = 0x5612_3456_7000;
    let mut sites = log(&program, bias, Addressing::Unknown, &[second]);
    sites.sites[0].symbol = Some((b"f1".to_vec(), 0x18c));
    let resolved = resolve(&sites, &Options::default());
    assert_eq!(svmas(&resolved), [Some(second.0)]);
    assert!(resolved.notes[0].contains("inferred from its symbols in the log: 0x561234567000"));
    // The symbol of one site decides for those without.
    let mut sites = log(&program, bias, Addressing::Unknown, &[first, second]);
    sites.sites[1].symbol = Some((b"f1".to_vec(), 0x18c));
    assert_eq!(svmas(&resolve(&sites, &Options::default())), [Some(first.0), Some(second.0)]);
    // Symbols that contradict each other, or the file, are not averaged.
    sites.sites[0].symbol = Some((b"f1".to_vec(), 0x18c));
    let resolved = resolve(&sites, &Options::default());
    assert!(
        resolved.places.iter().all(|p| p.certainty == Certainty::Unresolved && p.svma.is_none())
    );
    // What the log states is still said.
    assert_eq!(resolved.places[0].frames[0].function.as_deref(), Some("f1"));
}

/// Assembler: pages that each call malloc at 0x187 and at nothing else.
fn pages(count: usize, name: &str) -> String {
    let mut text = ".text\n".to_owned();
    for page in 0..count {
        text.push_str(&format!(
            ".p2align 12\n.globl {name}{page}\n.type {name}{page}, @function\n{name}{page}:\n\
             .fill 0x187, 1, 0x90\ncall malloc@PLT\nret\n.size {name}{page}, . - {name}{page}\n"
        ));
    }
    text.push_str(".globl main\nmain: xor %eax, %eax\nret\n.section .note.GNU-stack\n");
    text
}

#[test]
fn what_fits_twice_stays_unresolved() {
    if !have("what_fits_twice_stays_unresolved", TOOLS) {
        return;
    }
    let program = build("cc", &pages(3, "f"), &["-g"]);
    let bias = 0x5612_3456_7000;
    let sites = log(&program, bias, Addressing::Unknown, &program.calls[..1]);
    assert_unresolved(&resolve(&sites, &Options::default()), "3 load addresses fit");
    // The first and the third page are apart as no other two are.
    let ends = [program.calls[0], program.calls[2]];
    let resolved = resolve(&log(&program, bias, Addressing::Unknown, &ends), &Options::default());
    assert_eq!(svmas(&resolved), [Some(ends[0].0), Some(ends[1].0)]);
}

#[test]
fn the_wrong_kind_of_call_excludes_a_candidate() {
    if !have("the_wrong_kind_of_call_excludes_a_candidate", TOOLS) {
        return;
    }
    let bias = 0x5612_3456_7000;
    let kinds = Kinds { free: true, ..Kinds::default() };
    // The second page calls something else: free decides, printf is excluded, a function of the
    // program is excluded unless it could jump to free.
    for (second, resolves) in [
        ("call free@PLT", true),
        ("call printf@PLT", false),
        ("nop; nop; nop; call *%rax", true),
        ("call local", false),
        ("call wrapper", true),
    ] {
        let mut source = pages(2, "f");
        let at = source.rfind("call malloc@PLT").expect("second call");
        source.replace_range(at..at + "call malloc@PLT".len(), second);
        source.push_str(
            ".text\n.type local, @function\nlocal: nop\nret\n.size local, . - local\n\
             .type wrapper, @function\nwrapper: jmp free@PLT\n.size wrapper, . - wrapper\n",
        );
        let program = build("cc", &source, &["-g"]);
        let path = &program.path;
        let page = program.calls[0].0 - 0x18c;
        let address = page + 0x1000 + 0x18c;
        let sites = vec![site(path, address + bias, Addressing::Unknown, kinds)];
        let resolved = resolve(&CallSites { sites, ..CallSites::default() }, &Options::default());
        if resolves {
            assert_eq!(svmas(&resolved), [Some(address)], "{second}");
        } else {
            assert_unresolved(&resolved, "its calls do not fit");
        }
    }
}

/// A log of glibc 2.28, from a program that no one has any more: one that has the two calls at the
/// same places of its page stands in for it.
#[test]
fn the_classic_log() {
    if !have("the_classic_log", TOOLS) {
        return;
    }
    let source = ".text\n.p2align 12\n.globl main\n.type main, @function\nmain:\n\
        .fill 0x187, 1, 0x90\ncall malloc@PLT\n.fill 0x14, 1, 0x90\ncall malloc@PLT\nret\n\
        .size main, . - main\n.section .note.GNU-stack\n";
    let program = build("cc", source, &["-g"]);
    let text = std::fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/cases/classic/pie.log"),
    )
    .expect("log");
    let kinds = Kinds { alloc: true, ..Kinds::default() };
    let mut sites: Vec<CallSite> = Vec::new();
    for line in text.lines() {
        let Some((_, rest)) = line.split_once(":[0x") else { continue };
        let address = rest.split_once(']').expect("bracket").0;
        let address = u64::from_str_radix(address, 16).expect("hex");
        sites.push(CallSite {
            object: Some(b"./t_mtrace".to_vec()),
            ..site(&program.path, address, Addressing::Unknown, kinds)
        });
    }
    assert_eq!(sites.len(), 3);
    let sites = CallSites { sites, ..CallSites::default() };
    // It is the only program of the log, so the one that is named is meant.
    let options = Options { programs: vec![program.path.clone()], ..Options::default() };
    let resolved = resolve(&sites, &options);
    let [first, second] = program.calls[..] else { panic!("two calls") };
    assert_eq!(svmas(&resolved), [Some(first.0), Some(first.0), Some(second.0)]);
    let base = 0x5555_5555_518c - first.0;
    assert_eq!(
        resolved.notes,
        [format!(
            "load address of ./t_mtrace inferred from its calls: {base:#x} (the log has no module map)"
        )]
    );
    // Without it there is nothing to infer from.
    assert_unresolved(&resolve(&sites, &Options::default()), "file not found");
}

#[test]
fn a_rebuilt_program_gets_no_lines() {
    if !have("a_rebuilt_program_gets_no_lines", TOOLS) {
        return;
    }
    let traced = build("c++", CPP, &["-g", "-O1"]);
    let changed = CPP
        .replace("int main(", "int more() { return getenv(\"X\") ? puts(\"a\") : 9; }\nint main(");
    let changed = changed.replace(
        "static inline void *innermost",
        "int front(int n) { return n * n + rand(); }\nstatic inline void *innermost",
    );
    let rebuilt = build("c++", &changed, &["-g", "-O1"]);
    for (bias, addressing) in [
        (0x5555_5555_4000, Addressing::Absolute),
        (0x5555_5555_4000, Addressing::Unknown),
        (0, Addressing::Relative),
        (0, Addressing::Unknown),
    ] {
        let mut sites = log(&traced, bias, addressing, &traced.calls);
        for site in &mut sites.sites {
            site.object = Some(rebuilt.path.to_str().expect("UTF-8").into());
        }
        let resolved = resolve(&sites, &Options::default());
        assert_unresolved(&resolved, "or was changed since");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Whatever part of the sites a log has, and wherever the program was: right or not at all.
    #[test]
    fn an_inferred_address_is_the_true_one(seed in any::<u64>(), page in 0x5_5550_0000u64..0x7_ffff_0000, size in 1usize..8) {
        thread_local! {
            static PROGRAMS: Vec<Program> = programs("an_inferred_address_is_the_true_one");
        }
        PROGRAMS.with(|programs| for program in programs {
            let mut state = seed;
            let chosen: Vec<(u64, Kinds)> = (0..size).map(|_| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                program.calls[(state >> 33) as usize % program.calls.len()]
            }).collect();
            let resolved = resolve(&log(program, page << 12, Addressing::Unknown, &chosen), &Options::default());
            for (place, (svma, _)) in resolved.places.iter().zip(&chosen) {
                assert!(place.svma.is_none() || place.svma == Some(*svma), "{:?}", resolved.notes);
                assert_eq!(place.svma.is_none(), place.certainty == Certainty::Unresolved);
            }
        });
    }
}

/// With and without symbols: without them, any call inside the program may be a wrapper's.
fn programs(test: &str) -> Vec<Program> {
    if !have(test, TOOLS) {
        return Vec::new();
    }
    let flags = ["-g", "-O1", "-static-libstdc++", "-static-libgcc"];
    let whole = build("c++", CPP, &flags);
    let mut stripped = build("c++", CPP, &flags);
    let folder = stripped.path.parent().expect("folder");
    run(folder, "strip", &["--strip-all", "prog"]).expect("stripped");
    stripped.calls = whole.calls.clone();
    vec![whole, stripped]
}
