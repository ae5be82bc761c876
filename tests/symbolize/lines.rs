//! file:line, functions and inlined frames for every way of storing debug information.

use crate::support::{CPP, addr2line, calls, compare, have, run, stated};
use mtr_analyzer::symbolize::{Certainty, Options, Resolved, resolve};
use std::path::{Path, PathBuf};

const TOOLS: &[&str] = &["c++", "objdump", "addr2line", "readelf"];
const BIAS: u64 = 0x5581_2345_6000;

/// A folder with `p.cc` and what was built from it.
struct Build {
    folder: tempfile::TempDir,
}

impl Build {
    fn new() -> Build {
        let folder = tempfile::tempdir().expect("temporary folder");
        std::fs::write(folder.path().join("p.cc"), CPP).expect("source written");
        Build { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().canonicalize().expect("folder").join(name)
    }

    fn compile(&self, name: &str, flags: &[&str]) -> Result<PathBuf, String> {
        let mut args = flags.to_vec();
        args.extend(["-o", name, "p.cc"]);
        run(self.folder.path(), "c++", &args)?;
        Ok(self.path(name))
    }

    fn run(&self, tool: &str, args: &[&str]) -> String {
        run(&self.path(""), tool, args).expect("tool ran")
    }
}

fn returns(program: &Path) -> Vec<u64> {
    calls(program).iter().map(|call| call.returns_to).collect()
}

/// Resolves every call of a program under a module map and compares with addr2line on `oracle`,
/// which must have the same code.
fn check(what: &str, program: &Path, oracle: &Path, bias: u64) -> Resolved {
    let addresses = returns(oracle);
    assert_eq!(addresses, returns(program), "{what}: code differs");
    check_addresses(what, program, oracle, bias, &addresses)
}

fn check_addresses(
    what: &str,
    program: &Path,
    oracle: &Path,
    bias: u64,
    addresses: &[u64],
) -> Resolved {
    let resolved = resolve(&stated(program, bias, addresses), &Options::default());
    let (frames, inlined) = compare(what, &resolved.places, &addr2line(oracle, addresses));
    println!("{what}: {} addresses, {frames} frames, {inlined} inlined", addresses.len());
    for (place, address) in resolved.places.iter().zip(addresses) {
        assert_eq!(place.svma, Some(*address), "{what}");
        assert_eq!(place.module.as_deref(), Some(program), "{what}");
        assert_eq!(place.certainty, Certainty::Stated, "{what}");
    }
    resolved
}

#[test]
fn all_kinds_of_objects_and_debug_information() {
    if !have("all_kinds_of_objects_and_debug_information", TOOLS) {
        return;
    }
    let build = Build::new();
    let kinds: [(&str, &[&str], u64); 9] = [
        ("pie-O0", &["-g", "-O0"], BIAS),
        ("pie-O2", &["-g", "-O2"], BIAS),
        ("no-pie", &["-g", "-O2", "-no-pie"], 0),
        ("shared", &["-g", "-O2", "-shared", "-fPIC", "-DLIBRARY"], 0x7f12_3456_7000),
        ("g1", &["-g1", "-O2"], BIAS),
        ("dwarf4", &["-g", "-O2", "-gdwarf-4"], BIAS),
        ("sections", &["-g", "-O2", "-ffunction-sections", "-Wl,--gc-sections"], BIAS),
        ("no-debug", &["-O2"], BIAS),
        ("no-build-id", &["-g", "-O0", "-Wl,--build-id=none"], BIAS),
    ];
    for (what, flags, bias) in kinds {
        let program = build.compile(what, flags).expect("compiled");
        let resolved = check(what, &program, &program, bias);
        assert_eq!(resolved.notes, [] as [&str; 0], "{what}");
        if what == "pie-O2" {
            assert!(resolved.places.iter().any(|place| place.frames.len() >= 3), "inlined twice");
        }
    }
}

#[test]
fn compressed_sections() {
    if !have("compressed_sections", TOOLS) {
        return;
    }
    let build = Build::new();
    let oracle = build.compile("plain", &["-g", "-O2"]).expect("compiled");
    for compression in ["zlib", "zlib-gnu", "zstd"] {
        let flag = format!("-gz={compression}");
        match build.compile(compression, &["-g", "-O2", &flag]) {
            Ok(program) => {
                assert_eq!(check(compression, &program, &oracle, BIAS).notes, [] as [&str; 0]);
            }
            Err(error) => {
                // The compiler may not know zstd; objcopy may.
                let args = ["--compress-debug-sections=zstd", "plain", "zstd"];
                if run(&build.path(""), "objcopy", &args).is_ok() {
                    check(compression, &build.path("zstd"), &oracle, BIAS);
                } else {
                    println!(
                        "skipped: compressed_sections {compression} (needs a newer c++): {error}"
                    );
                }
            }
        }
    }
}

#[test]
fn split_dwarf_with_and_without_a_package() {
    if !have("split_dwarf_with_and_without_a_package", TOOLS) {
        return;
    }
    let build = Build::new();
    for version in ["-gdwarf-5", "-gdwarf-4"] {
        let flags = ["-g", version, "-O2"];
        let oracle = build.compile("whole", &flags).expect("compiled");
        let flags = ["-g", version, "-O2", "-gsplit-dwarf"];
        let program = build.compile("split", &flags).expect("compiled");
        let dwo = std::fs::read_dir(build.path(""))
            .expect("folder")
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| path.extension().is_some_and(|extension| extension == "dwo"))
            .expect("a .dwo was written");
        let resolved = check(&format!("dwo {version}"), &program, &oracle, BIAS);
        assert_eq!(resolved.notes, [] as [&str; 0]);

        // Without its .dwo, lines stay and the loss is said.
        let aside = build.path("aside");
        std::fs::rename(&dwo, &aside).expect("moved");
        let addresses = returns(&program);
        let resolved = resolve(&stated(&program, BIAS, &addresses), &Options::default());
        assert_eq!(resolved.notes.len(), 1, "{:?}", resolved.notes);
        assert!(resolved.notes[0].contains("split debug information not found"));
        assert!(resolved.places.iter().any(|place| place.frames[0].line.is_some()));
        std::fs::rename(&aside, &dwo).expect("moved back");

        if !have("split_dwarf_with_and_without_a_package: package", &["dwp"]) {
            continue;
        }
        if let Err(error) = run(&build.path(""), "dwp", &["-e", "split", "-o", "split.dwp"]) {
            println!("skipped: package with {version} (needs a newer dwp): {error}");
            continue;
        }
        std::fs::remove_file(&dwo).expect("removed");
        let resolved = check(&format!("dwp {version}"), &program, &oracle, BIAS);
        assert_eq!(resolved.notes, [] as [&str; 0]);

        // The package lies next to the program, the rest in a separate debug file.
        std::fs::create_dir_all(build.path(".debug")).expect("folder");
        build.run("objcopy", &["--only-keep-debug", "split", ".debug/split.debug"]);
        build.run("strip", &["-g", "split"]);
        build.run("objcopy", &["--add-gnu-debuglink=.debug/split.debug", "split"]);
        let resolved = check(&format!("dwp and debug link {version}"), &program, &oracle, BIAS);
        assert_eq!(resolved.notes, [] as [&str; 0]);
        std::fs::remove_file(build.path("split.dwp")).expect("removed");
    }
}

/// Strips `p` into `p` and `p.debug` and returns the whole program.
fn separate(build: &Build) -> PathBuf {
    build.compile("whole", &["-g", "-O2"]).expect("compiled");
    build.run("objcopy", &["--only-keep-debug", "whole", "p.debug"]);
    build.run("objcopy", &["--strip-all", "whole", "p"]);
    build.path("whole")
}

#[test]
fn a_separate_debug_file_by_link() {
    if !have("a_separate_debug_file_by_link", TOOLS)
        || !have("a_separate_debug_file_by_link", &["objcopy"])
    {
        return;
    }
    let build = Build::new();
    let whole = separate(&build);
    build.run("objcopy", &["--add-gnu-debuglink=p.debug", "p"]);
    let resolved = check("debug link", &build.path("p"), &whole, BIAS);
    assert_eq!(resolved.notes, [] as [&str; 0]);

    std::fs::create_dir(build.path(".debug")).expect("folder");
    std::fs::rename(build.path("p.debug"), build.path(".debug/p.debug")).expect("moved");
    let resolved = check("debug link in .debug", &build.path("p"), &whole, BIAS);
    assert_eq!(resolved.notes, [] as [&str; 0]);

    // That of another build is not used, and this is said.
    build.compile("other", &["-g", "-O1"]).expect("compiled");
    build.run("objcopy", &["--only-keep-debug", "other", ".debug/p.debug"]);
    let addresses = returns(&whole);
    let resolved = resolve(&stated(&build.path("p"), BIAS, &addresses), &Options::default());
    assert!(resolved.places.iter().all(|place| place.frames.iter().all(|f| f.line.is_none())));
    assert_eq!(resolved.notes.len(), 1, "{:?}", resolved.notes);
    assert!(resolved.notes[0].contains("of another build"), "{:?}", resolved.notes);
}

const CHILD_FOLDER: &str = "MTR_TEST_FOLDER";

#[test]
fn a_separate_debug_file_by_build_id() {
    if !have("a_separate_debug_file_by_build_id", TOOLS) {
        return;
    }
    let build = Build::new();
    let whole = separate(&build);
    let hex: String =
        crate::support::build_id(&whole).iter().map(|byte| format!("{byte:02x}")).collect();
    let folder = build.path("debug").join(".build-id").join(&hex[..2]);
    std::fs::create_dir_all(&folder).expect("folder");
    std::fs::rename(build.path("p.debug"), folder.join(format!("{}.debug", &hex[2..])))
        .expect("moved");
    // The environment belongs to the whole process: a process of its own has it.
    let path = format!("/nowhere::{}", build.path("debug").display());
    let output = std::process::Command::new(std::env::current_exe().expect("own path"))
        .args(["--ignored", "--exact", "lines::with_a_folder_of_debug_files", "--nocapture"])
        .env("MTR_DEBUG_PATH", path)
        .env(CHILD_FOLDER, build.path(""))
        .output()
        .expect("started");
    let text = String::from_utf8_lossy(&output.stdout);
    print!("{text}");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("by build ID:"), "{text} {errors}");
}

#[test]
#[ignore = "part of a_separate_debug_file_by_build_id"]
fn with_a_folder_of_debug_files() {
    let Some(folder) = std::env::var_os(CHILD_FOLDER).map(PathBuf::from) else {
        return println!("skipped: with_a_folder_of_debug_files (needs its parent test)");
    };
    let (program, whole) = (folder.join("p"), folder.join("whole"));
    let resolved = check("by build ID", &program, &whole, BIAS);
    assert_eq!(resolved.notes, [] as [&str; 0]);
    // Even when the program itself is gone.
    let addresses = returns(&whole);
    let sites = stated(&program, BIAS, &addresses);
    std::fs::remove_file(&program).expect("removed");
    let resolved = resolve(&sites, &Options::default());
    compare("debug file alone", &resolved.places, &addr2line(&whole, &addresses));
    assert_eq!(resolved.notes, [] as [&str; 0]);
}

#[test]
fn a_rust_program() {
    const RUST: &str = r#"
        use std::collections::HashMap;
        #[inline(always)]
        fn boxed(n: u64) -> Box<[u64; 8]> { Box::new([n; 8]) }
        #[inline(never)]
        fn generic<T: Clone>(item: &T, n: usize) -> Vec<T> { vec![item.clone(); n] }
        fn main() {
            let mut map: HashMap<String, Box<[u64; 8]>> = HashMap::new();
            for n in 0..std::env::args().count() as u64 { map.insert(n.to_string(), boxed(n)); }
            let all = generic(&"x".to_string(), map.len());
            println!("{}", all.len());
        }"#;
    if !have("a_rust_program", &["rustc", "objdump", "addr2line", "readelf"]) {
        return;
    }
    let build = Build::new();
    std::fs::write(build.path("r.rs"), RUST).expect("written");
    let split = ["-C", "split-debuginfo=packed", "-C", "dwarf-version=5"];
    for (what, flags, split) in [
        ("rust", &["-g"][..], &[][..]),
        ("rust -O v0", &["-g", "-O", "-C", "symbol-mangling-version=v0"], &[]),
        ("rust line tables", &["-C", "debuginfo=line-tables-only", "-O"], &[]),
        ("rust package", &["-g"], &split[..2]),
        ("rust package DWARF 5", &["-g"], &split[..]),
    ] {
        let common = ["--edition", "2024", "r.rs", "-o"];
        build.run("rustc", &[flags, &common[..], &["whole"]].concat());
        build.run("rustc", &[flags, split, &common[..], &["r"]].concat());
        // The program's own functions: the standard library is another matter.
        let text = build.run("objdump", &["-d", "-C", "-j", ".text", "whole"]);
        let (mut own, mut inside) = (Vec::new(), false);
        for line in text.lines() {
            if line.ends_with(">:") {
                inside = ["<r::", "<whole::", "alloc::"].iter().any(|name| line.contains(name));
            } else if let Some((address, _)) = line.trim().split_once(":\t").filter(|_| inside) {
                own.extend(u64::from_str_radix(address, 16));
            }
        }
        let (program, whole) = (build.path("r"), build.path("whole"));
        let mut addresses = returns(&whole);
        assert_eq!(addresses, returns(&program), "{what}: code differs");
        addresses.retain(|address| own.binary_search(address).is_ok());
        assert!(addresses.len() > 20);
        let resolved = check_addresses(what, &program, &whole, BIAS, &addresses);
        assert_eq!(resolved.notes, [] as [&str; 0], "{what}");
    }
}
