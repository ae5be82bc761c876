//! One line on the program's stderr, for what would otherwise go unnoticed: why it runs untraced. Only
//! the process that was told to trace says so; its children's stderr is not ours to write on.

use core::ffi::CStr;

use crate::global::Scratch;
use crate::{config, modules, sys};

/// Says that the program runs untraced, and why, if this is the first program of the run.
pub(crate) fn complain(parts: &[&[u8]]) {
    if config::get().is_later_image || modules::are_traced(sys::getppid()) {
        return;
    }
    let Some(mut line) = Scratch::<8192>::new() else { return };
    line.push(b"mtr: ");
    parts.iter().for_each(|part| line.push(part));
    line.push(b"; the program runs untraced\n");
    let _ = sys::write(2, line.as_bytes());
}

/// strerror(3) for what can happen here; libc's own may allocate.
pub(crate) fn describe(errno: i32) -> &'static [u8] {
    let text: &CStr = match errno {
        libc::EACCES | libc::EPERM => c"Permission denied",
        libc::ENOENT => c"No such file or directory",
        libc::ENOTDIR => c"Not a directory",
        libc::EISDIR => c"Is a directory",
        libc::ENOSPC => c"No space left on device",
        libc::EDQUOT => c"Disk quota exceeded",
        libc::EROFS => c"Read-only file system",
        libc::EMFILE | libc::ENFILE => c"Too many open files",
        libc::ENAMETOOLONG => c"File name too long",
        libc::ELOOP => c"Too many levels of symbolic links",
        libc::ENOMEM => c"Cannot allocate memory",
        libc::EFBIG => c"File too large",
        _ => c"Input/output error",
    };
    text.to_bytes()
}
