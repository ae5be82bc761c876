//! programs/daemon.c: a process that goes on when the program that was started has ended.

use super::{Folder, clean_command};
use std::fs::{self, File};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The FIFO that a daemon waits at, and has open until it ends.
pub(crate) struct Daemon {
    fifo: PathBuf,
}

impl Daemon {
    pub(crate) fn new(folder: &Folder) -> Self {
        let fifo = folder.join("fifo");
        assert!(clean_command("mkfifo").arg(&fifo).status().unwrap().success());
        Daemon { fifo }
    }

    /// What the program gets as argument.
    pub(crate) fn fifo(&self) -> &Path {
        &self.fifo
    }

    /// Lets it go on, and returns when it has ended.
    pub(crate) fn finish(&self) {
        fs::write(&self.fifo, "").unwrap();
        // Without anybody at its other end, a FIFO cannot be opened so.
        let is_there = || {
            let mut options = File::options();
            options.write(true).custom_flags(libc::O_NONBLOCK).open(&self.fifo).is_ok()
        };
        while is_there() {
            std::thread::yield_now();
        }
    }
}
