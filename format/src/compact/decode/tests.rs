use super::super::op::MAX_TEXT;
use super::*;
use proptest::prelude::*;
use std::{vec, vec::Vec};

/// A record as a writer knows it, with addresses and numbers as they are.
#[derive(Debug, Clone)]
enum Written {
    Text(Vec<u8>),
    Thread(u32),
    Forget,
    Node(u64, u64),
    Alloc(u32, u64, u64, Request),
    Free(u64, FreeKind, u32),
    Stamp(u64),
    Resident(u64),
    Realloc(Outcome, u64, u32),
    Failed(u32, u64, u64, Request),
}

/// A slow and obvious writer.
#[derive(Default)]
struct Writer {
    bytes: Vec<u8>,
    event: u64,
    node: u64,
}

impl Writer {
    fn varint(&mut self, mut value: u64) {
        while value > 127 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }

    /// Length and bytes of an address.
    fn address(&mut self, ptr: u64) -> (u8, Vec<u8>) {
        let difference = (ptr as i64 >> 4) - (self.event as i64 >> 4);
        self.event = ptr & !15;
        let zigzag = match difference {
            0.. => 2 * difference as u128,
            _ => (-2 * i128::from(difference) - 1) as u128,
        };
        let length = (0..=6).find(|a| zigzag < 1 << (8 * a));
        match length.filter(|_| ptr.is_multiple_of(16) && ptr < 1 << 62) {
            Some(a) => (a, zigzag.to_le_bytes()[..usize::from(a)].to_vec()),
            None => (7, ptr.to_le_bytes().to_vec()),
        }
    }

    /// The family of what follows.
    fn by(&mut self, by: &Request) {
        if *by != Request::MALLOC {
            self.bytes.push(0x60 + by.family as u8);
        }
        if by.family.has_alignment() {
            self.varint(by.alignment);
        }
    }

    fn put(&mut self, record: &Written) {
        match record {
            Written::Text(text) => {
                self.bytes.extend([1, text.len() as u8]);
                self.bytes.extend_from_slice(text);
            }
            Written::Thread(thread) => {
                self.bytes.push(2);
                self.varint((*thread).into());
            }
            Written::Forget => self.bytes.push(3),
            Written::Node(up, address) => {
                self.bytes.push(4);
                self.varint(*up);
                let difference = address.wrapping_sub(self.node) as i64;
                self.varint((difference << 1 ^ difference >> 63) as u64);
                self.node = *address;
            }
            Written::Alloc(node, ptr, size, by) => {
                self.by(by);
                let (a, address) = self.address(*ptr);
                let n = (1..4).find(|n| u64::from(*node) < 1 << (8 * n)).unwrap_or(4);
                let s = (0..3).find(|s| *size < 1 << (8 << s)).unwrap_or(3);
                self.bytes.push(0x80 + (s << 5) + (a << 2) + (n - 1));
                self.bytes.extend_from_slice(&node.to_le_bytes()[..n.into()]);
                self.bytes.extend(address);
                self.bytes.extend_from_slice(&size.to_le_bytes()[..1 << s]);
            }
            Written::Free(ptr, kind, node) => {
                let (a, address) = self.address(*ptr);
                self.bytes.push(0x40 + ((*kind as u8) << 3) + a);
                self.bytes.extend(address);
                self.varint((*node).into());
            }
            Written::Stamp(ticks) => {
                self.bytes.push(6);
                self.varint(*ticks);
            }
            Written::Resident(resident) => {
                self.bytes.push(7);
                self.varint(*resident);
            }
            Written::Realloc(outcome, ptr, node) => {
                let (a, address) = self.address(*ptr);
                self.bytes.extend([8, *outcome as u8, a]);
                self.bytes.extend(address);
                self.varint((*node).into());
            }
            Written::Failed(node, ptr, size, by) => {
                self.by(by);
                self.bytes.push(9);
                self.varint((*node).into());
                self.varint(*size);
                self.varint(*ptr);
            }
        }
    }
}

fn expected(record: &Written) -> Record<'_> {
    match *record {
        Written::Text(ref text) => Record::Text(text),
        Written::Thread(thread) => Record::Thread(thread),
        Written::Forget => Record::Forget,
        Written::Node(up, address) => Record::Node { up, address },
        Written::Alloc(node, ptr, size, by) => Record::Alloc { node, ptr, size, by },
        Written::Free(ptr, kind, node) => Record::Free { ptr, kind, node },
        Written::Stamp(ticks) => Record::Stamp(ticks),
        Written::Resident(bytes) => Record::Resident(bytes),
        Written::Realloc(outcome, ptr, node) => Record::Realloc { outcome, ptr, node },
        Written::Failed(node, ptr, size, by) => Record::Failed { node, ptr, size, by },
    }
}

/// All records, and how many bytes they are.
fn decode(bytes: &[u8]) -> (Vec<Record<'_>>, usize) {
    let mut decoder = Decoder::new();
    let records = core::iter::from_fn(|| decoder.next(bytes)).collect();
    assert_eq!(decoder.next(bytes), None);
    (records, decoder.position())
}

fn any_address() -> impl Strategy<Value = u64> {
    // Near each other, far apart, and such as no block has.
    prop_oneof![
        4 => (0..4096u64).prop_map(|n| 0x5555_0000_0000 + n * 16),
        2 => (0..1u64 << 43).prop_map(|n| n * 16),
        1 => any::<u64>(),
    ]
}

fn number() -> impl Strategy<Value = u64> {
    (any::<u64>(), 0..64u32).prop_map(|(value, shift)| value >> shift)
}

fn any_record() -> impl Strategy<Value = Written> {
    let by = || {
        let family = prop_oneof![Just(1), 1..=12u8].prop_map(|n| Family::of(n).unwrap());
        (family, number()).prop_map(|(family, n)| {
            let alignment = if family.has_alignment() { n } else { 0 };
            Request { family, alignment }
        })
    };
    let outcome = (0..=3u8).prop_map(|number| Outcome::of(number).unwrap());
    let node = || (any::<u32>(), 0..32u32).prop_map(|(value, shift)| value >> shift);
    prop_oneof![
        6 => (node(), any_address(), number(), by())
            .prop_map(|(node, ptr, size, by)| Written::Alloc(node, ptr, size, by)),
        6 => (any_address(), 0..4u8, node())
            .prop_map(|(ptr, kind, node)| Written::Free(ptr, FreeKind::of(kind), node)),
        1 => prop::collection::vec(any::<u8>(), 1..=MAX_TEXT).prop_map(Written::Text),
        1 => any::<u32>().prop_map(Written::Thread),
        1 => Just(Written::Forget),
        1 => (number(), any::<u64>()).prop_map(|(up, address)| Written::Node(up, address)),
        1 => number().prop_map(Written::Stamp),
        1 => number().prop_map(Written::Resident),
        1 => (outcome, any_address(), node())
            .prop_map(|(outcome, ptr, node)| Written::Realloc(outcome, ptr, node)),
        1 => (node(), number(), number(), by())
            .prop_map(|(node, ptr, size, by)| Written::Failed(node, ptr, size, by)),
    ]
}

proptest! {
    #[test]
    fn what_was_written_is_read(records in prop::collection::vec(any_record(), 0..40)) {
        let mut writer = Writer::default();
        records.iter().for_each(|record| writer.put(record));
        let (read, length) = decode(&writer.bytes);
        prop_assert_eq!(read, records.iter().map(expected).collect::<Vec<_>>());
        prop_assert_eq!(length, writer.bytes.len());
    }

    #[test]
    fn of_a_chunk_that_is_cut_the_whole_records_are_read(
        records in prop::collection::vec(any_record(), 1..20),
        cut in 0..10_000usize,
    ) {
        let (mut writer, mut ends) = (Writer::default(), vec![0]);
        for record in &records {
            writer.put(record);
            ends.push(writer.bytes.len());
        }
        let cut = cut % (writer.bytes.len() + 1);
        let whole = ends.iter().filter(|end| **end <= cut).count() - 1;
        let (read, length) = decode(&writer.bytes[..cut]);
        prop_assert_eq!(read, records[..whole].iter().map(expected).collect::<Vec<_>>());
        prop_assert_eq!(length, ends[whole]);
    }

    #[test]
    fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let (read, length) = decode(&bytes);
        prop_assert!(read.len() <= length && length <= bytes.len());
    }
}

#[test]
fn the_example_of_the_document_is_read() {
    let bytes = [
        &[0x02, 0xe7, 0x24][..],
        &[0x04, 0x01, 0xec, 0xc4, 0x80, 0x04],
        &[0x8c, 0x01, 0x54, 0x0a, 0x08, 0x64],
        &[0x84, 0x01, 0x0e, 0x64],
        &[0x04, 0x02, 0x24],
        &[0x41, 0x0d, 0x02],
    ]
    .concat();
    assert_eq!(
        decode(&bytes).0,
        [
            Record::Thread(4711),
            Record::Node { up: 1, address: 0x401136 },
            Record::Alloc { node: 1, ptr: 0x4052a0, size: 100, by: Request::MALLOC },
            Record::Alloc { node: 1, ptr: 0x405310, size: 100, by: Request::MALLOC },
            Record::Node { up: 2, address: 0x401148 },
            Record::Free { ptr: 0x4052a0, kind: FreeKind::Free, node: 2 },
        ]
    );
}

#[test]
fn what_no_record_begins_with_ends_the_chunk() {
    for first in (0..0x80u8).filter(|b| !matches!(b, 1..=4 | 6..=9 | 0x40..=0x5f)) {
        let bytes = [&[3, first][..], &[1; 20]].concat();
        assert_eq!(decode(&bytes), (vec![Record::Forget], 1), "{first:#x}");
    }
}

#[test]
fn what_a_record_cannot_say_ends_the_chunk() {
    let too_long = [6, 255, 255, 255, 255, 255, 255, 255, 255, 255, 2];
    for bytes in [&too_long[..], &[1, 0, 3], &[0x62, 4, 1, 1], &[8, 4, 0], &[8, 0, 8, 1, 1, 1, 1]] {
        assert_eq!(decode(bytes), (vec![], 0), "{bytes:x?}");
    }
    assert_eq!(decode(&[2, 255, 255, 255, 255, 31]), (vec![], 0), "no TID has so many bits");
}
