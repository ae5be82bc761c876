//! A compact trace of any bytes is read without a panic, the same in chunks of any size.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use mtr_analyzer::read::{Holes, compact};

fuzz_target!(|input: (u8, &[u8])| {
    let (chunk, bytes) = (usize::from(input.0), input.1);
    let read = |chunk| {
        let mut events = Vec::new();
        let path = Path::new("fuzz.mtr");
        let log = compact::read_from(bytes, path, chunk, Holes::AreLosses, |e| events.push(e));
        (log.ok().map(|log| (log.records, log.damage, log.sites.stacks)), events)
    };
    assert_eq!(read(chunk), read(1 << 16));
});
