//! Compiles the programs that are traced.

use super::{Folder, clean_command};
use std::path::{Path, PathBuf};

/// The top of the repository.
pub(crate) fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// A source of examples/.
pub(crate) fn example(name: &str) -> PathBuf {
    repository()
        .join("examples")
        .join(name)
        .canonicalize()
        .unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// A source of tests/programs/.
pub(crate) fn program(name: &str) -> PathBuf {
    let path = repository().join("tests/programs").join(name);
    path.canonicalize().unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// Compiles `source`, by its suffix as C, C++ or Rust, with debug information and `flags`, into
/// `folder/output`.
pub(crate) fn compile(folder: &Folder, output: &str, source: &Path, flags: &[&str]) -> PathBuf {
    let compiler = match source.extension().and_then(|e| e.to_str()) {
        Some("c") => "cc",
        Some("cpp") => "c++",
        Some("rs") => "rustc",
        other => panic!("{}: no compiler for {other:?}", source.display()),
    };
    compile_with(compiler, folder, output, source, flags)
}

/// As [`compile`], by this compiler.
pub(crate) fn compile_with(
    compiler: &str,
    folder: &Folder,
    output: &str,
    source: &Path,
    flags: &[&str],
) -> PathBuf {
    let result = folder.join(output);
    let mut command = clean_command(compiler);
    command.current_dir(folder.path()).arg("-g").arg("-o").arg(&result);
    if compiler != "rustc" {
        command.args(["-Wall", "-Wextra"]);
    }
    // The flags come last: libraries have to follow what needs them.
    command.arg(source).args(flags);
    let done = command.output().unwrap_or_else(|e| {
        panic!("these tests compile small programs and need `{compiler}`: {e}")
    });
    assert!(
        done.status.success(),
        "{command:?} failed:\n{}",
        String::from_utf8_lossy(&done.stderr)
    );
    result
}

/// The number of the one line of `source` that contains `needle`.
pub(crate) fn line_of(source: &Path, needle: &str) -> u32 {
    let text = std::fs::read_to_string(source).unwrap();
    let lines: Vec<u32> =
        (1..).zip(text.lines()).filter(|(_, l)| l.contains(needle)).map(|(n, _)| n).collect();
    assert!(lines.len() == 1, "{}: `{needle}` on lines {lines:?}", source.display());
    lines[0]
}
