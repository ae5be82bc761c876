//! Stacks that are brought up to date from event to event equal those of a whole walk, in every event
//! of whole runs of real programs. The library is built anew for it, with the feature
//! `verify-stacks`, in which each hook takes its stack both ways.

mod support;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use support::*;

/// libmtr.so that compares.
fn verifying_library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("verify-stacks");
        let mut cargo = clean_command(env!("CARGO"));
        cargo
            .args(["build", "--quiet", "--release", "--offline", "--locked"])
            .args(["--package", "mtr-preload", "--features", "verify-stacks"])
            .arg("--manifest-path")
            .arg(repository().join("Cargo.toml"))
            .arg("--target-dir")
            .arg(&target);
        // What the build of the tests was told is not meant for the library (analyzer/build.rs).
        for name in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "RUSTC_WORKSPACE_WRAPPER"] {
            cargo.env_remove(name);
        }
        assert!(cargo.status().expect("cargo").success(), "{cargo:?}");
        target.join("release/libmtr.so")
    })
}

/// Sums of what the processes of a run compared.
#[derive(Default, Debug)]
struct Verified {
    processes: u64,
    stacks: u64,
    frames: u64,
    /// Found to be the last one by comparing words alone.
    unchanged: u64,
    /// Found to have changed as before, by comparing words alone.
    recalled: u64,
    /// Compared with a walk without rules, too.
    slowly: u64,
    /// Too deep to be held.
    deep: u64,
}

/// A program whose stacks are compared, with those of the processes that it starts.
fn verifying(folder: &Folder, program: impl AsRef<std::ffi::OsStr>) -> Traced {
    Traced::compact(folder, program).env("LD_PRELOAD", verifying_library())
}

/// Adds what the processes whose traces are in `folder` say, and removes the traces.
#[track_caller]
fn add_verified(sums: &mut Verified, folder: &Folder) {
    for trace in traces_beside(&folder.join("trace.mtr")) {
        let words = |words: &[Vec<u8>]| words.join(&b' ');
        let different: Vec<String> = trace
            .notes("different")
            .iter()
            .map(|note| String::from_utf8_lossy(&words(note)).into_owned())
            .collect();
        let [note] = trace.notes("verified")[..] else {
            // Ended otherwise than by exit().
            assert!(different.is_empty(), "{}: {different:#?}", trace.path.display());
            std::fs::remove_file(&trace.path).unwrap();
            continue;
        };
        let number = |at: usize| String::from_utf8_lossy(&note[at]).parse::<u64>().unwrap();
        // PC, frames that were equal, all frames, outermost PC, in which way it was found.
        assert_eq!(number(6), 0, "{}: {different:#?}", trace.path.display());
        sums.processes += 1;
        sums.stacks += number(0);
        sums.frames += number(1);
        sums.unchanged += number(2);
        sums.recalled += number(3);
        sums.slowly += number(4);
        sums.deep += number(5);
        std::fs::remove_file(&trace.path).unwrap();
    }
}

const PYTHON: &str = r#"
import ctypes, json, re, sys, threading, decimal, collections
data = [{"n%d" % i: [i, i * 2.5, str(i) * 3]} for i in range(3000)]
assert json.loads(json.dumps(data)) == data
assert len(re.findall(r"(\w+)-(\d+)", "abc-12 def-345 " * 500)) == 1000
print(sum(decimal.Decimal(i).sqrt() for i in range(200)))

def deep(n):
    return [n] + deep(n - 1) if n else []
def fails(n):
    try:
        if n == 0: raise KeyError(deep(20))
        fails(n - 1)
    except KeyError as error:
        raise ValueError(str(n)) from error
for n in range(30):
    deep(n * 20)
    try: fails(n)
    except ValueError: pass

# Through code that libffi makes at run time.
libc = ctypes.CDLL(None)
order = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_int), ctypes.POINTER(ctypes.c_int))
numbers = (ctypes.c_int * 100)(*[i * 37 % 101 for i in range(100)])
def compare(a, b):
    json.dumps({"a": a[0], "b": [b[0]] * 5})
    return a[0] - b[0]
libc.qsort(numbers, 100, 4, order(compare))
assert list(numbers) == sorted(numbers)

def work():
    counts = collections.Counter(str(i % 97) for i in range(5000))
    json.dumps(counts)
threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()

def generate(n):
    if n: yield from generate(n - 1)
    yield [n]
for _ in range(20): list(generate(40))
"#;

#[test]
fn stacks_of_python_are_those_of_whole_walks() {
    let Some(python) = need_elf("python3", "stacks_of_python_are_those_of_whole_walks") else {
        return;
    };
    let folder = Folder::new("verify-python");
    let run = verifying(&folder, python).args(&["-c", PYTHON]);
    run.env("PYTHONMALLOC", "malloc").run().succeeded();
    let mut sums = Verified::default();
    add_verified(&mut sums, &folder);
    println!("{sums:?}");
    assert!(sums.stacks > 100_000 && sums.slowly > 1000 && sums.unchanged > 1000, "{sums:?}");
    assert!(sums.recalled > 50_000, "{sums:?}");
}

#[test]
fn stacks_of_a_compiler_are_those_of_whole_walks() {
    let folder = Folder::new("verify-gcc");
    let mut sums = Verified::default();
    for flags in [&["-O0", "-g"][..], &["-O2"]] {
        for (compiler, source) in [("cc", "stacks.c"), ("c++", "stacks.cpp")] {
            let run = verifying(&folder, compiler).args(flags).args(&["-c", "-o", "out.o"]);
            run.arg(program(source)).run().succeeded();
            add_verified(&mut sums, &folder);
        }
    }
    // Driver, compiler and assembler each time.
    println!("{sums:?}");
    assert!(sums.stacks > 200_000 && sums.processes >= 8, "{sums:?}");
}

#[test]
fn stacks_of_git_are_those_of_whole_walks() {
    if need("git", "stacks_of_git_are_those_of_whole_walks").is_none() {
        return;
    }
    let folder = Folder::new("verify-git");
    std::fs::create_dir(folder.join("work")).unwrap();
    for name in ["stacks.c", "stacks.cpp", "stacks.h", "ends.c", "cancel.c"] {
        std::fs::copy(program(name), folder.join("work").join(name)).unwrap();
    }
    let mut sums = Verified::default();
    for arguments in [
        &["init", "-q"][..],
        &["add", "."],
        &["commit", "-q", "-m", "All"],
        &["mv", "ends.c", "begins.c"],
        &["commit", "-q", "-a", "-m", "Move"],
        &["log", "--stat", "-p", "-M"],
        &["repack", "-q", "-a", "-d", "-f"],
        &["blame", "begins.c"],
        &["grep", "-n", "-E", "al+oc"],
        &["fsck", "--full"],
        &["archive", "--format=tar.gz", "-o", "all.tar.gz", "HEAD"],
        &["clone", "-q", ".", "copy"],
    ] {
        // What git starts in the background would go on while its trace is read.
        let settings =
            ["user.name=Nobody", "user.email=nobody@example.org", "maintenance.auto=false"];
        let settings = settings.map(|setting| ["-c", setting]).concat();
        let run = verifying(&folder, "git").args(&settings).args(arguments);
        let run = run.env("HOME", folder.path()).env("GIT_CONFIG_NOSYSTEM", "1");
        run.current_dir(&folder.join("work")).run().succeeded();
        add_verified(&mut sums, &folder);
    }
    println!("{sums:?}");
    assert!(sums.stacks > 5000 && sums.processes >= 12, "{sums:?}");
}

#[test]
fn stacks_of_the_test_programs_are_those_of_whole_walks() {
    let folder = Folder::new("verify-programs");
    let mut sums = Verified::default();
    for flags in [&["-O0"][..], &["-O2"], &["-O3", "-fno-omit-frame-pointer"]] {
        let shared = [flags, &["-shared", "-fPIC"]].concat();
        compile(&folder, "plugin.so", &program("stacks_plugin.c"), &shared);
        for (name, arguments) in
            [("stacks.c", &["seen", "./plugin.so"][..]), ("stacks.cpp", &["seen"])]
        {
            let flags = [flags, &["-pthread", "-ldl"]].concat();
            let program = compile(&folder, "stacks", &program(name), &flags);
            verifying(&folder, program).args(arguments).run().succeeded();
            add_verified(&mut sums, &folder);
        }
    }
    println!("{sums:?}");
    assert!(sums.stacks > 10_000 && sums.processes == 6, "{sums:?}");
}

#[test]
fn stacks_through_code_without_tables_are_those_of_whole_walks() {
    const NO_HEADER: &str = "-Wl,--no-eh-frame-hdr";
    const NO_CFI: [&str; 3] =
        ["-fno-asynchronous-unwind-tables", "-fno-unwind-tables", "-fno-omit-frame-pointer"];
    let folder = Folder::new("verify-without-tables");
    let mut sums = Verified::default();
    let plugins = ["./first.so", "./second.so", "./first.so", "./second.so"];
    for flags in [&["-O2", NO_HEADER][..], &[&["-O1"], &NO_CFI[..]].concat()] {
        let plugin = [flags, &["-shared", "-fPIC", "-DPLUGIN"]].concat();
        compile(&folder, "first.so", &program("chains.c"), &plugin);
        // The other kind of module.
        let plugin = ["-O1", NO_HEADER, "-shared", "-fPIC", "-DPLUGIN", "-DROOM=1000"];
        compile(&folder, "second.so", &program("chains.c"), &plugin);
        let flags = [flags, &["-ldl"]].concat();
        let chains = compile(&folder, "chains", &program("chains.c"), &flags);
        verifying(&folder, chains).args(&plugins).run().succeeded();
        add_verified(&mut sums, &folder);
    }
    let generated = compile(&folder, "generated", &program("generated_code.c"), &["-O2"]);
    verifying(&folder, generated).run().succeeded();
    add_verified(&mut sums, &folder);
    println!("{sums:?}");
    assert!(sums.stacks > 4000 * 2 && sums.processes == 3, "{sums:?}");
}
