//! Counts that a program keeps in a file that outlives it (tests/programs/counted_loop.c).

use super::Folder;
use std::path::PathBuf;
use std::process::Child;

/// The shared counters of counted_loop.c.
pub(crate) struct Counters(pub(crate) PathBuf);

impl Counters {
    pub(crate) fn new(folder: &Folder) -> Self {
        let path = folder.join("counters");
        std::fs::write(&path, [0; 4096]).unwrap();
        Counters(path)
    }

    /// (allocations, frees) of each of `threads` threads.
    pub(crate) fn read(&self, threads: usize) -> Vec<(u64, u64)> {
        let bytes = std::fs::read(&self.0).unwrap();
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        (0..threads).map(|i| (word(16 * i), word(16 * i + 8))).collect()
    }

    pub(crate) fn sums(&self, threads: usize) -> (usize, usize) {
        let all = self.read(threads);
        let sum = |f: fn(&(u64, u64)) -> u64| all.iter().map(f).sum::<u64>() as usize;
        (sum(|c| c.0), sum(|c| c.1))
    }

    /// Waits until every thread has allocated `enough` blocks.
    pub(crate) fn wait_for(&self, child: &mut Child, threads: usize, enough: u64) {
        while self.read(threads).iter().any(|(allocations, _)| *allocations < enough) {
            if let Some(status) = child.try_wait().unwrap() {
                panic!("the program ended by itself: {status}, {:?}", self.read(threads));
            }
            std::thread::yield_now();
        }
    }
}
