//! C and C++ code, compiled here with and without optimization, frame pointers, stack alignment.

use core::ffi::c_void;
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::Ordering;

use super::oracle;

/// One library at a time: the handlers of signals are the process's.
static ONE: Mutex<()> = Mutex::new(());

/// A folder that is removed in the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("mtr-unwind-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn build(folder: &Path, compiler: &str, source: (&str, &str), options: &[&str]) -> Option<PathBuf> {
    let file = folder.join(source.0);
    std::fs::write(&file, source.1).unwrap();
    let library = folder.join(format!("{compiler}{}.so", options.concat().replace('/', "_")));
    let output = Command::new(compiler)
        .args(["-shared", "-fPIC", "-w", "-o"])
        .arg(&library)
        .arg(&file)
        .args(options)
        .output()
        .ok()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(library)
}

/// A library that was opened, and is closed in the end.
struct Library(*mut c_void);

impl Library {
    fn open(path: &Path) -> Library {
        let name = CString::new(path.as_os_str().as_bytes()).unwrap();
        // SAFETY: a library of this test.
        let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_LAZY | libc::RTLD_LOCAL) };
        assert!(!handle.is_null(), "{}", path.display());
        Library(handle)
    }

    /// Calls a function that takes the hook.
    fn call(&self, name: &str) -> usize {
        let name = CString::new(name).unwrap();
        // SAFETY: a function of that type in the sources beside this file.
        unsafe {
            let function = libc::dlsym(self.0, name.as_ptr());
            assert!(!function.is_null());
            let function: extern "C" fn(extern "C" fn(usize) -> usize) -> usize =
                std::mem::transmute(function);
            function(oracle::hook())
        }
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        crate::unwind::begin_unload();
        // SAFETY: nothing of it is running.
        unsafe { libc::dlclose(self.0) };
        crate::unwind::end_unload();
    }
}

/// Stacks and frames that were compared, and stacks that were recalled.
fn compared() -> [usize; 3] {
    [&oracle::STACKS, &oracle::FRAMES, &oracle::RECALLED].map(|count| count.load(Ordering::Relaxed))
}

/// Prints what was compared since `before`; returns the number of stacks.
fn print(what: &str, before: [usize; 3]) -> usize {
    let [stacks, frames, recalled] = compared();
    let [stacks, frames, recalled] = [stacks - before[0], frames - before[1], recalled - before[2]];
    println!("{what}: {stacks} stacks equal, {recalled} of them recalled, {frames} frames");
    stacks
}

const OPTIONS: &[&[&str]] = &[
    &["-O0"],
    &["-O0", "-fomit-frame-pointer"],
    &["-O1", "-fno-plt"],
    &["-O2", "-Wl,-z,lazy"],
    &["-O2", "-fno-omit-frame-pointer", "-Wl,-z,lazy", "-fcf-protection=full"],
    &["-O2", "-mstackrealign", "-mavx2"],
    &["-O3", "-Wl,-z,lazy,-z,noseparate-code", "-fcf-protection=none"],
    &["-Os"],
    &["-O3", "-fno-omit-frame-pointer", "-funroll-loops"],
    &["-O2", "-fstack-clash-protection", "-fstack-protector-all"],
];

/// For code whose `.eh_frame` no header tells of. It registers that with libgcc by itself.
const NO_HEADER: [&str; 3] =
    ["-DREGISTER_FRAMES", "-Wl,--no-eh-frame-hdr", "-Wl,--defsym=first_frame=ADDR(.eh_frame)"];

/// Options that clang knows.
const CLANG_OPTIONS: &[&[&str]] = &[
    &["-O0"],
    &["-O0", "-fomit-frame-pointer"],
    &["-O2", "-Wl,-z,lazy"],
    &["-O2", "-fno-omit-frame-pointer", "-fcf-protection=full"],
    &["-O2", "-mstackrealign", "-mavx2"],
    &["-O3"],
    &["-O3", "-fno-omit-frame-pointer"],
    &["-Os", "-fno-plt"],
];

#[test]
fn c_code_built_by_gcc_in_many_ways() {
    assert!(c_code("gcc", OPTIONS).is_none_or(|stacks| stacks > 10_000));
}

#[test]
fn code_without_an_eh_frame_header() {
    let options = ["-O0", "-O2"].map(|level| [&[level][..], &NO_HEADER].concat());
    let options = options.each_ref().map(Vec::as_slice);
    assert!(c_code("gcc", &options).is_none_or(|stacks| stacks > 4_000));
    assert!(cpp_code("g++", &options).is_none_or(|stacks| stacks > 1_000));
}

#[test]
fn c_code_built_by_clang_in_many_ways() {
    assert!(c_code("clang", CLANG_OPTIONS).is_none_or(|stacks| stacks > 10_000));
}

/// Compares the stacks of native.c; returns how many. `None`: there is no such compiler.
fn c_code(compiler: &str, options: &[&[&str]]) -> Option<usize> {
    let _one = ONE.lock();
    let folder = Folder::new(compiler);
    let before = compared();
    for options in options {
        let source = ("native.c", include_str!("native.c"));
        let Some(path) = build(&folder.0, compiler, source, options) else {
            eprintln!("skipped: stacks of C built by {compiler} (it is not installed)");
            return None;
        };
        // SAFETY: no other thread of the tests reads the environment.
        unsafe { std::env::set_var("MTR_TEST_HOOK", format!("{:x}", oracle::hook() as usize)) };
        let library = Library::open(&path);
        println!("{options:?}");
        library.call("run");
        std::thread::scope(|scope| {
            let call = || Library::open(&path).call("run");
            scope.spawn(call).join().unwrap();
        });
        library.call("single_step");
    }
    Some(print(compiler, before))
}

#[test]
fn cpp_code_built_by_gcc_in_many_ways() {
    assert!(cpp_code("g++", &OPTIONS[..7]).is_none_or(|stacks| stacks > 5_000));
}

#[test]
fn cpp_code_built_by_clang_in_many_ways() {
    assert!(cpp_code("clang++", &CLANG_OPTIONS[..7]).is_none_or(|stacks| stacks > 5_000));
}

/// As [`c_code`], native.cc.
fn cpp_code(compiler: &str, options: &[&[&str]]) -> Option<usize> {
    let _one = ONE.lock();
    let folder = Folder::new(compiler);
    let before = compared();
    for options in options {
        let mut options = options.to_vec();
        options.extend(["-std=c++17", "-static-libstdc++", "-Wl,--wrap=malloc"]);
        let source = ("native.cc", include_str!("native.cc"));
        let Some(path) = build(&folder.0, compiler, source, &options) else {
            eprintln!("skipped: stacks of C++ built by {compiler} (it is not installed)");
            return None;
        };
        println!("{options:?}");
        assert!(Library::open(&path).call("run") > 0);
    }
    Some(print(compiler, before))
}
