//! Which file is used: changed, missing, deleted, replaced, named by the user.

use crate::support::{CPP, build_id, calls, have, run, stated};
use mtr_analyzer::read::{Addressing, CallSite, CallSites, Kinds};
use mtr_analyzer::symbolize::{Certainty, Options, Resolved, resolve};
use std::path::PathBuf;

const TOOLS: &[&str] = &["c++", "objdump", "readelf"];
const BIAS: u64 = 0x5581_2345_6000;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Folder {
        let folder = tempfile::tempdir().expect("temporary folder");
        std::fs::write(folder.path().join("p.cc"), CPP).expect("source written");
        Folder(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().canonicalize().expect("folder").join(name)
    }

    fn build(&self, name: &str, flags: &[&str]) -> PathBuf {
        if let Some(folder) = self.path(name).parent() {
            std::fs::create_dir_all(folder).expect("folder");
        }
        run(self.0.path(), "c++", &[&["-o", name, "p.cc"], flags].concat()).expect("compiled");
        self.path(name)
    }
}

fn trace(program: &std::path::Path) -> CallSites {
    let svmas: Vec<u64> = calls(program).iter().map(|call| call.returns_to).collect();
    stated(program, BIAS, &svmas)
}

fn lines(resolved: &Resolved) -> usize {
    resolved.places.iter().filter(|p| p.frames.iter().any(|f| f.line.is_some())).count()
}

fn named(paths: &[&PathBuf]) -> Options {
    Options { programs: paths.iter().map(|path| (*path).clone()).collect(), ..Options::default() }
}

#[test]
fn a_changed_or_missing_file_gets_no_lines() {
    if !have("a_changed_or_missing_file_gets_no_lines", TOOLS) {
        return;
    }
    let folder = Folder::new();
    let program = folder.build("p", &["-g", "-O1"]);
    let sites = trace(&program);
    let kept = folder.path("kept");
    std::fs::rename(&program, &kept).expect("moved");

    let missing = resolve(&sites, &Options::default());
    assert_eq!(lines(&missing), 0);
    assert_eq!(missing.notes.len(), 1);
    assert!(missing.notes[0].contains("p: No such file"), "{:?}", missing.notes);

    folder.build("p", &["-g", "-O2"]);
    let changed = resolve(&sites, &Options::default());
    assert_eq!(lines(&changed), 0);
    assert_eq!(changed.notes.len(), 1);
    let hex: String = build_id(&kept).iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(changed.notes[0].contains("has been changed since it was traced"));
    assert!(changed.notes[0].contains(&format!("expected {hex}")), "{:?}", changed.notes);
    for place in missing.places.iter().chain(&changed.places) {
        // Module and address are what the trace states all the same.
        assert_eq!(place.certainty, Certainty::Stated);
        assert_eq!(place.module.as_ref(), Some(&program));
        assert!(place.svma.is_some());
    }

    // The right build, named by the user, helps in both cases; another one is said to be wrong.
    let resolved = resolve(&sites, &named(&[&kept]));
    assert!(lines(&resolved) > 30);
    assert_eq!(resolved.notes, [] as [&str; 0]);
    let resolved = resolve(&sites, &named(&[&program]));
    assert_eq!(lines(&resolved), 0);
    assert!(resolved.notes.iter().any(|note| note.contains("is not the program that was traced")));
}

#[test]
fn a_deleted_file_is_the_one_at_its_name_if_the_build_id_says_so() {
    if !have("a_deleted_file_is_the_one_at_its_name", TOOLS) {
        return;
    }
    let folder = Folder::new();
    let program = folder.build("p", &["-g", "-O1"]);
    let mut sites = trace(&program);
    sites.modules[0].path = folder.path("p (deleted)");
    let resolved = resolve(&sites, &Options::default());
    assert!(lines(&resolved) > 30);
    assert_eq!(resolved.notes, [] as [&str; 0]);
}

#[test]
fn a_module_without_a_build_id_is_checked_by_its_calls() {
    if !have("a_module_without_a_build_id_is_checked_by_its_calls", TOOLS) {
        return;
    }
    let folder = Folder::new();
    let program = folder.build("p", &["-g", "-O1", "-Wl,--build-id=none"]);
    let sites = trace(&program);
    assert!(sites.modules[0].build_id.is_empty());
    assert!(lines(&resolve(&sites, &Options::default())) > 30);
    folder.build("p", &["-g", "-O2", "-Wl,--build-id=none"]);
    let resolved = resolve(&sites, &Options::default());
    assert_eq!(lines(&resolved), 0);
    assert_eq!(resolved.notes.len(), 1, "{:?}", resolved.notes);
    assert!(resolved.notes[0].contains("has been changed since it was traced"));
}

#[test]
fn addresses_relative_to_the_first_mapping() {
    if !have("addresses_relative_to_the_first_mapping", TOOLS) {
        return;
    }
    let folder = Folder::new();
    // The first segment of a non-PIE is at 0x400000, its bias is 0.
    let program = folder.build("p", &["-g", "-O1", "-no-pie"]);
    let svmas: Vec<u64> = calls(&program).iter().map(|call| call.returns_to).collect();
    let mut sites = stated(&program, 0, &svmas);
    sites.modules[0].start = 0x400000;
    for site in &mut sites.sites {
        site.addressing = Addressing::Relative;
        site.address = site.address.map(|address| address - 0x400000);
    }
    let resolved = resolve(&sites, &Options::default());
    let found: Vec<Option<u64>> = resolved.places.iter().map(|place| place.svma).collect();
    assert_eq!(found, svmas.into_iter().map(Some).collect::<Vec<_>>());
    assert!(lines(&resolved) > 30);
}

#[test]
fn what_is_no_file_is_no_problem() {
    let mut sites = CallSites::default();
    let module = |path: &str| mtr_analyzer::read::Module {
        start: 0x7000_0000_0000,
        end: 0x7000_0000_2000,
        bias: 0x7000_0000_0000,
        build_id: vec![1; 20],
        path: path.into(),
        name: path.into(),
    };
    sites.modules = vec![module("[vdso]"), module("/nowhere/libgone.so (deleted)")];
    let site = |module, address, symbol| CallSite {
        object: None,
        symbol,
        address,
        addressing: Addressing::Absolute,
        module,
        kinds: Kinds { alloc: true, ..Kinds::default() },
    };
    sites.sites = vec![
        site(Some(0), Some(0x7000_0000_0123), None),
        site(None, Some(0x1234_5678), None), // code that a JIT made
        site(None, None, None),              // a record without a place
        site(Some(1), Some(0x7000_0000_0999), Some((b"_ZN3FooC1Ei".to_vec(), 9))),
        site(Some(7), Some(1), None), // no such module
    ];
    let resolved = resolve(&sites, &Options::default());
    let svmas: Vec<Option<u64>> = resolved.places.iter().map(|place| place.svma).collect();
    assert_eq!(svmas, [Some(0x123), None, None, Some(0x999), None]);
    assert_eq!(resolved.places[3].frames[0].function.as_deref(), Some("Foo::Foo(int)"));
    assert_eq!(resolved.notes.len(), 1, "{:?}", resolved.notes);
    assert!(resolved.notes[0].starts_with("/nowhere/libgone.so: No such file"));
}

#[test]
fn names_of_a_log_without_module_map_are_looked_for() {
    if !have("names_of_a_log_without_module_map_are_looked_for", TOOLS) {
        return;
    }
    let folder = Folder::new();
    let program = folder.build("sub/p", &["-g", "-O1"]);
    let svmas: Vec<u64> = calls(&program).iter().map(|call| call.returns_to).collect();
    let log = |name: &str| {
        let mut sites = stated(&program, 0, &svmas);
        sites.modules.clear();
        for site in &mut sites.sites {
            site.module = None;
            site.addressing = Addressing::Relative;
            site.object = Some(name.into());
        }
        sites
    };
    let full = lines(&resolve(&log(program.to_str().expect("UTF-8")), &Options::default()));
    assert!(full > 30);
    let in_folder = |name| Options { trace_folder: Some(folder.path(name)), ..Options::default() };
    assert_eq!(lines(&resolve(&log("sub/p"), &in_folder(""))), full);
    assert_eq!(lines(&resolve(&log("./elsewhere/p"), &in_folder("sub"))), full);
    let mut sites = log("./p");
    sites.directory = Some(folder.path("sub"));
    assert_eq!(lines(&resolve(&sites, &Options::default())), full);
    // Named by the user: by the same file name, or as the only program.
    assert_eq!(lines(&resolve(&log("/gone/p"), &named(&[&program]))), full);
    assert_eq!(lines(&resolve(&log("other"), &named(&[&program]))), full);
    let library = resolve(&log("/gone/libother.so.1"), &named(&[&program]));
    assert_eq!(lines(&library), 0);
    assert_eq!(library.notes, ["/gone/libother.so.1: file not found: no file:line"]);
    // What is named and no program is said.
    let resolved = resolve(&log("./p"), &named(&[&folder.path("p.cc")]));
    assert!(resolved.notes[0].ends_with("p.cc: not an ELF file"), "{:?}", resolved.notes);
}

/// Figures: `cargo test --release --test symbolize -- --ignored --nocapture many_sites`.
#[test]
#[ignore = "measures; slow without optimization"]
fn many_sites_take_seconds() {
    if !have("many_sites_take_seconds", TOOLS) {
        return;
    }
    let program = std::env::current_exe().expect("own path");
    let svmas: Vec<u64> = calls(&program).iter().map(|call| call.returns_to).collect();
    let mut sites = stated(&program, BIAS, &svmas);
    let start = std::time::Instant::now();
    let resolved = resolve(&sites, &Options::default());
    println!("{} sites, {} with lines: {:?}", svmas.len(), lines(&resolved), start.elapsed());
    sites.modules.clear();
    for site in &mut sites.sites {
        site.module = None;
        site.object = Some(program.to_str().expect("UTF-8").into());
        site.addressing = Addressing::Unknown;
    }
    let start = std::time::Instant::now();
    let resolved = resolve(&sites, &Options::default());
    println!("without module map: {:?}: {:?}", start.elapsed(), resolved.notes);
    assert!(resolved.places.iter().zip(&svmas).all(|(place, svma)| place.svma == Some(*svma)));
    // Each site alone.
    let start = std::time::Instant::now();
    let (mut found, step) = (0, svmas.len() / 200);
    for index in (0..svmas.len()).step_by(step) {
        let mut one = sites.clone();
        one.sites = vec![sites.sites[index].clone()];
        one.sites[0].kinds = Kinds { alloc: true, ..Kinds::default() };
        found += usize::from(resolve(&one, &Options::default()).places[0].svma.is_some());
    }
    println!("{found} of 200 single sites found, {:?} each", start.elapsed() / 200);
}

#[test]
fn damaged_files_are_no_disaster() {
    if !have("damaged_files_are_no_disaster", TOOLS) {
        return;
    }
    let folder = Folder::new();
    let program = folder.build("p", &["-g", "-O1"]);
    let sites = trace(&program);
    let whole = std::fs::read(&program).expect("read");
    let mut state = 1u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % below
    };
    for round in 0..60 {
        let mut bytes = whole.clone();
        if round % 3 == 0 {
            bytes.truncate(random(whole.len()));
        } else {
            for _ in 0..1 << (round % 8) {
                let at = random(bytes.len());
                bytes[at] = random(256) as u8;
            }
        }
        std::fs::write(&program, bytes).expect("written");
        let mut sites = sites.clone();
        if round % 2 == 0 {
            sites.modules[0].build_id.clear();
        }
        let resolved = resolve(&sites, &Options::default());
        assert_eq!(resolved.places.len(), sites.sites.len());
    }
}
