//! Who runs the tests, and whom they can become.

use super::{library, skip};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// A user without rights.
pub(crate) const NOBODY: u32 = 65534;

pub(crate) fn is_root() -> bool {
    // SAFETY: has no preconditions and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// Whether a program can be run by a user without special rights: the one who runs the tests, or
/// [`NOBODY`]. If not, a line says that `test` skips.
pub(crate) fn need_ordinary_user(test: &str) -> bool {
    let mut probe = Command::new("cat");
    probe.args([library(), env!("CARGO_BIN_EXE_mtr-run")]);
    let output = by_ordinary_user(&mut probe).output();
    let has_one = output.is_ok_and(|output| output.status.success());
    if !has_one {
        skip(test, "another user cannot read the library");
    }
    has_one
}

/// Makes a command one of an ordinary user.
pub(crate) fn by_ordinary_user(command: &mut Command) -> &mut Command {
    if is_root() { command.uid(NOBODY).gid(NOBODY) } else { command }
}
