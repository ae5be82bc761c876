//! A compact trace of any bytes is read without a panic, and so is one of sound chunks with any
//! records.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use mtr_analyzer::read::Event;
use mtr_analyzer::read::compact::{self, Bytes, Chunks};
use mtr_analyzer::read::tail::Slots;
use mtr_format::compact::chunk::{ALIGN, HEADER, Header, ID, LENGTH, MARK};
use mtr_format::compact::sum;

fn read(bytes: Vec<u8>) {
    let length = bytes.len() as u64;
    let Some(id) = compact::id_of(&bytes) else { return };
    let chunks = Chunks::find(Bytes::Memory(bytes), id, Slots::default()).unwrap();
    let mut records = 0;
    let log = compact::read_from(&chunks, Path::new("fuzz.mtr"), |event| {
        records += u64::from(matches!(event, Event::Record { .. }));
    });
    if let Ok(log) = log {
        assert!(log.records == records && records <= length);
    }
}

/// The same with a mark, an ID, a length and a sum wherever a chunk would begin.
fn mended(bytes: &[u8]) -> Vec<u8> {
    let (mut mended, mut at) = (bytes.to_vec(), 0);
    while let Some(header) = mended.get_mut(at..at + HEADER) {
        header[..4].copy_from_slice(&MARK);
        header[LENGTH + 1..ID].fill(0);
        header[ID..ID + 8].fill(7);
        let header = Header::parse(header);
        let length = HEADER + header.map_or(0, |header| header.length as usize);
        if let Some(chunk) = mended.get_mut(at..at + length) {
            sum::seal(chunk);
        }
        at += header.map_or(ALIGN, |header| header.size());
    }
    mended
}

fuzz_target!(|bytes: &[u8]| {
    read(bytes.to_vec());
    read(mended(bytes));
});
