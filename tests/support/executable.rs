//! Programs that a test does not compile but copies, and scripts that it writes.
//!
//! Other processes write them. A file that this process has open for writing is open, too, in a
//! child that another test forks meanwhile, until that child has executed its program; and a file
//! that is open for writing cannot be executed: `ETXTBSY`, execve(2).

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// Copies the program `from` to `to`, which can be executed at once.
pub(crate) fn copy_program(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("--").args([from, to]).status().unwrap();
    assert!(status.success(), "cp {} {}: {status}", from.display(), to.display());
}

/// Writes a script to `path`, which can be executed at once.
pub(crate) fn write_script(path: &Path, text: &str) {
    let mut shell = Command::new("sh")
        .args(["-c", r#"cat > "$1" && chmod 755 "$1""#, "sh"])
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    shell.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let status = shell.wait().unwrap();
    assert!(status.success(), "writing {}: {status}", path.display());
}
