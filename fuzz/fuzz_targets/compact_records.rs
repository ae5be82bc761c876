//! Any records are read without a panic, to an end, and none counts twice.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mtr_format::compact::chunk::{Header, version_of};
use mtr_format::compact::decode::Decoder;

fuzz_target!(|bytes: &[u8]| {
    Header::parse(bytes);
    version_of(bytes);
    let mut decoder = Decoder::new();
    let mut end = 0;
    while decoder.next(bytes).is_some() {
        assert!(decoder.position() > end && decoder.position() <= bytes.len());
        end = decoder.position();
    }
    assert_eq!(decoder.position(), end);
});
