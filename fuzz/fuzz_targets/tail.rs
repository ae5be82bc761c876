//! A log or a compact trace is read with any tail beside it, without a panic and without memory or
//! time that the tail only claims; and what absorbing the tail leaves reads the same.
//!
//! The input (seeds.py makes such ones): the length of the log as u32, the log, the first 64 bytes of
//! the tail, and its blocks, each as a number (u64), a length (u16) and bytes.
#![no_main]

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use mtr_analyzer::read::tail::{Absorbed, absorb, tail_path};
use mtr_analyzer::read::{Event, read};
use mtr_format::tail::{BLOCK_COUNT, BLOCK_SIZE, BLOCKS, MAX_BLOCKS, NUMBERS};

/// The log, in a folder of this process.
static LOG: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = std::env::temp_dir().join(format!("mtr-fuzz-tail-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    folder.join("log")
});

/// Most bytes of the tail file; what is claimed beyond the blocks is a hole.
const LARGEST: u64 = 1 << 40;

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(count)?;
    *bytes = rest;
    Some(taken)
}

/// As many as there are.
fn take_up_to<'a>(bytes: &mut &'a [u8], most: usize) -> &'a [u8] {
    let (taken, rest) = bytes.split_at(most.min(bytes.len()));
    *bytes = rest;
    taken
}

fn u32_of(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(bytes.try_into().unwrap())
}

/// Writes a log and its tail.
fn write(mut input: &[u8]) -> Option<()> {
    let length = u32_of(take(&mut input, 4)?) as usize;
    let log = take_up_to(&mut input, length);
    fs::write(&*LOG, log).unwrap();
    let head = take(&mut input, NUMBERS)?;
    let (size, count) = (u32_of(&head[BLOCK_SIZE..][..4]), u32_of(&head[BLOCK_COUNT..][..4]));
    let tail = File::create(tail_path(&LOG)).unwrap();
    let blocks = (u64::from(size) * u64::from(count)).min(LARGEST);
    tail.set_len(BLOCKS as u64 + blocks).unwrap();
    tail.write_all_at(head, 0).unwrap();
    for index in 0..(count as usize).min(MAX_BLOCKS) {
        let Some(number) = take(&mut input, 8) else { break };
        tail.write_all_at(number, (NUMBERS + 8 * index) as u64).unwrap();
        let length = take(&mut input, 2)?;
        let length = usize::from(u16::from_le_bytes(length.try_into().unwrap()));
        let block = take_up_to(&mut input, length.min(size as usize));
        let place = BLOCKS as u64 + u64::from(size) * index as u64;
        if place < LARGEST {
            tail.write_all_at(block, place).unwrap();
        }
    }
    Some(())
}

/// Whether it is a compact trace; and all records in their order, without what only says where in
/// the trace they stand.
fn records(log: &Path) -> Option<(bool, Vec<String>)> {
    let mut records = Vec::new();
    let read = read(log, |event| {
        if let Event::Record { op, thread, by, .. } = event {
            records.push(format!("{op:?} {thread} {by:?}"));
        }
    });
    read.ok().map(|log| (log.is_compact, records))
}

fuzz_target!(|input: &[u8]| {
    let _ = fs::remove_file(tail_path(&LOG));
    if write(input).is_none() {
        return;
    }
    let before = records(&LOG);
    if let Ok(Absorbed::Done) = absorb(&LOG, u64::MAX) {
        let after = records(&LOG);
        // A block of a log can be made to look like a chunk of a trace.
        if before.as_ref().map(|read| read.0) == after.as_ref().map(|read| read.0) {
            assert_eq!(before, after);
        }
    }
});
