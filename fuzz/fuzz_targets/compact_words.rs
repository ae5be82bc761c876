//! Any words are read without a panic, and none counts twice.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mtr_format::compact::decode::{Decoder, is_trace, words};

fuzz_target!(|bytes: &[u8]| {
    is_trace(bytes);
    let mut decoder = Decoder::new();
    let records = words(bytes).filter_map(|word| decoder.push(word)).count() as u64;
    assert!(records + decoder.torn() + decoder.malformed() <= bytes.len() as u64 / 8);
});
