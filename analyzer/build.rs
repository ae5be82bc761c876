//! Builds libmtr.so, which `mtr-run` carries: optimised always, whatever the outer build is.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the outer build was told; it is not meant for libmtr.so. Flags for sanitizers or coverage
/// would make it call what must not be called inside malloc, and clippy is no compiler.
const NOT_INHERITED: [&str; 6] = [
    "CARGO_ENCODED_RUSTFLAGS",
    "RUSTFLAGS",
    "RUSTC_WORKSPACE_WRAPPER",
    "CARGO_BUILD_RUSTC_WORKSPACE_WRAPPER",
    "CARGO_BUILD_TARGET",
    "CARGO_TARGET_DIR",
];

fn main() {
    let folder = PathBuf::from(variable("CARGO_MANIFEST_DIR"));
    let Some(root) = folder.parent() else { panic!("{} has no parent folder", folder.display()) };
    for source in ["preload", "format", "Cargo.toml", "Cargo.lock"] {
        println!("cargo:rerun-if-changed={}", root.join(source).display());
    }
    let target = Path::new(&variable("OUT_DIR")).join("preload");
    let mut cargo = Command::new(variable("CARGO"));
    cargo
        .args(["build", "--quiet", "--release", "--package", "mtr-preload"])
        // The outer build has fetched all of it, and must not find its lock file changed.
        .args(["--offline", "--locked"])
        .arg("--manifest-path")
        .arg(root.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(&target);
    for name in NOT_INHERITED {
        cargo.env_remove(name);
    }
    let status = match cargo.status() {
        Ok(status) => status,
        Err(error) => panic!("{cargo:?} cannot be started: {error}"),
    };
    assert!(
        status.success(),
        "libmtr.so, which mtr-run carries, was not built: {cargo:?}: {status}"
    );
    let library = target.join("release/libmtr.so");
    assert!(library.is_file(), "expected {} from {cargo:?}, got nothing", library.display());
    println!("cargo:rustc-env=MTR_LIBRARY={}", library.display());
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|error| panic!("{name}, which cargo sets: {error}"))
}
