use super::super::word::{
    self, FIRST_LINE, SEGMENTS, alignment, continuation, first, long, pointer, size_and_family,
};
use super::*;
use proptest::prelude::*;
use std::{vec, vec::Vec};

/// A record as a writer knows it.
#[derive(Debug, Clone)]
enum Written {
    Text(Vec<u8>),
    Node(u32, u32, u64),
    Info(u32, u32, u64, Family, u64),
    Long(LongKind, u32, u64),
    Alloc(u8, u32, u32),
    Free(u8, u32, u32),
    Time(u64),
    Rss(u64),
}

fn encode(record: &Written) -> Vec<u64> {
    match record {
        Written::Text(text) => {
            let first = first(Tag::Text as u8, text.len() as u32, 0);
            [first].into_iter().chain(text.chunks(TEXT_BYTES).map(word::text)).collect()
        }
        Written::Node(id, parent, address) => {
            vec![first(Tag::Node as u8, *id, *parent), continuation(*address)]
        }
        Written::Info(id, node, size, family, align) => {
            let mut words =
                vec![first(Tag::Info as u8, *id, *node), size_and_family(*size, *family)];
            words.extend(family.has_alignment().then(|| alignment(*align)));
            words
        }
        Written::Long(kind, id, ptr) => vec![long(*kind, *id), pointer(*ptr)],
        Written::Alloc(segment, info, b) => vec![first(Tag::Alloc as u8 + segment, *info, *b)],
        Written::Free(segment, node, b) => vec![first(Tag::Free as u8 + segment, *node, *b)],
        Written::Time(time) => vec![time << 4 | Tag::Time as u64],
        Written::Rss(bytes) => vec![bytes << 4 | Tag::Rss as u64],
    }
}

/// High bits of the four segments that the tests define.
const HIGH: [u32; SEGMENTS] = [0, 0x7f, 0x5_5555, 0xfff_ffff];

fn segments() -> Vec<u64> {
    (0..).zip(HIGH).map(|(index, high)| first(Tag::Segment as u8, index, high)).collect()
}

fn address(segment: u8, b: u32) -> u64 {
    u64::from(HIGH[usize::from(segment)]) << 36 | u64::from(b) << 4
}

/// What a record should be read as; texts are put together again.
#[derive(Debug, PartialEq)]
enum Read {
    Text(Vec<u8>),
    Other(Record),
}

fn expected(record: &Written) -> Option<Read> {
    Some(Read::Other(match *record {
        Written::Text(ref text) => return (!text.is_empty()).then(|| Read::Text(text.clone())),
        Written::Node(id, parent, address) => Record::Node { id, parent, address },
        Written::Info(id, node, size, family, align) => {
            let alignment = if family.has_alignment() { align } else { 0 };
            Record::Info { id, node, size, family, alignment }
        }
        Written::Long(kind, id, ptr) => match kind {
            LongKind::Alloc => Record::Alloc { info: id, ptr },
            LongKind::Free => Record::Free { node: id, ptr },
            LongKind::ReallocOld => Record::ReallocOld { node: id, ptr },
            LongKind::Failed => Record::Failed { info: id, ptr },
            LongKind::Nothing => return None,
        },
        Written::Alloc(segment, info, b) => Record::Alloc { info, ptr: address(segment, b) },
        Written::Free(segment, node, b) => Record::Free { node, ptr: address(segment, b) },
        Written::Time(time) => Record::Time(time),
        Written::Rss(bytes) => Record::Rss(bytes),
    }))
}

fn decode(words: &[u64]) -> (Vec<Read>, Decoder) {
    let (mut decoder, mut read, mut text) = (Decoder::new(), Vec::new(), Vec::new());
    for word in words {
        match decoder.push(*word) {
            Some(Record::Text(piece)) => {
                if piece.is_first {
                    text.clear();
                }
                text.extend_from_slice(piece.bytes());
                if piece.is_last {
                    read.push(Read::Text(core::mem::take(&mut text)));
                }
            }
            Some(Record::Orphan(_)) | None => {}
            Some(record) => read.push(Read::Other(record)),
        }
    }
    (read, decoder)
}

fn any_record() -> impl Strategy<Value = Written> {
    let id = 1..=MAX_ID;
    let address = 1..1u64 << 60;
    let family = (1..=8u8).prop_map(|number| family(number).unwrap());
    let kind = (1..=5u32).prop_map(|number| long_kind(number).unwrap());
    prop_oneof![
        prop::collection::vec(1u8.., 0..40).prop_map(Written::Text),
        (id.clone(), 0..=MAX_ID, address).prop_map(|(a, b, c)| Written::Node(a, b, c)),
        (id, 0..=MAX_ID, 0..1u64 << 52, family, 0..1u64 << 48)
            .prop_map(|(a, b, c, d, e)| Written::Info(a, b, c, d, e)),
        (kind, 0..=MAX_ID, 0..1u64 << 59).prop_map(|(a, b, c)| Written::Long(a, b, c)),
        (0..4u8, 0..=MAX_ID, any::<u32>()).prop_map(|(a, b, c)| Written::Alloc(a, b, c)),
        (0..4u8, 0..=MAX_ID, any::<u32>()).prop_map(|(a, b, c)| Written::Free(a, b, c)),
        (0..1u64 << 60).prop_map(Written::Time),
        (0..1u64 << 60).prop_map(Written::Rss),
    ]
}

proptest! {
    #[test]
    fn what_was_written_is_read(records in prop::collection::vec(any_record(), 0..20)) {
        let words: Vec<u64> = segments().into_iter().chain(records.iter().flat_map(encode)).collect();
        prop_assert!(words.iter().all(|word| *word != 0));
        let (read, decoder) = decode(&words);
        prop_assert_eq!(read, records.iter().filter_map(expected).collect::<Vec<_>>());
        prop_assert_eq!((decoder.torn(), decoder.is_inside_record()), (0, false));
        // A text of no bytes says nothing.
        let empty = records.iter().filter(|record| matches!(record, Written::Text(t) if t.is_empty()));
        prop_assert_eq!(decoder.malformed(), empty.count() as u64);
    }

    #[test]
    fn a_hole_takes_the_records_that_it_touches_and_no_others(
        records in prop::collection::vec(any_record(), 1..20),
        begin in 0..1000usize,
        length in 1..10usize,
    ) {
        let mut words = segments();
        let mut left = Vec::new();
        let total: usize = records.iter().map(|record| encode(record).len()).sum();
        let hole = words.len() + begin % total..words.len() + begin % total + length;
        for record in &records {
            let (from, to) = (words.len(), words.len() + encode(record).len());
            if to <= hole.start || from >= hole.end {
                left.extend(expected(record));
            }
            words.extend(encode(record));
        }
        let end = hole.end.min(words.len());
        words[hole.start..end].fill(0);
        prop_assert_eq!(decode(&words).0, left);
    }

    #[test]
    fn any_words_are_read_without_panic(
        words in prop::collection::vec((any::<u64>(), 0..64u32).prop_map(|(w, s)| w >> s), 0..200),
    ) {
        let (read, decoder) = decode(&words);
        prop_assert!(read.len() as u64 + decoder.torn() + decoder.malformed() <= 200);
    }

    #[test]
    fn any_bytes_are_a_trace_or_not(bytes: Vec<u8>) {
        is_trace(&bytes);
    }
}

#[test]
fn the_example_of_the_document_is_read() {
    let words = [
        0x0000000000000012,
        0x0000000126700000,
        0x0000000100000022,
        0x0000000004011360,
        0x0000000200000013,
        0x0000000000064010,
        0x0000000000000004,
        0x0004052a00000018,
        0x0004052a0000000c,
    ];
    let (read, _) = decode(&words);
    assert_eq!(Address::of(0, 0x12670000), Address::Thread(4711));
    assert_eq!(
        read,
        [
            Record::Node { id: 1, parent: 0, address: 0x12670000 },
            Record::Node { id: 2, parent: 1, address: 0x401136 },
            Record::Info { id: 1, node: 2, size: 100, family: Family::Malloc, alignment: 0 },
            Record::Alloc { info: 1, ptr: 0x4052a0 },
            Record::Free { node: 0, ptr: 0x4052a0 },
        ]
        .map(Read::Other)
    );
}

#[test]
fn an_event_in_a_segment_that_was_not_defined_is_malformed() {
    let (read, decoder) = decode(&encode(&Written::Free(2, 0, 7)));
    assert_eq!((read.len(), decoder.malformed()), (0, 1));
}

#[test]
fn a_record_without_its_continuation_is_torn_and_the_next_is_read() {
    let mut words = segments();
    words.push(long(LongKind::Free, 0));
    words.push(first(Tag::Free as u8, 0, 7));
    let (read, decoder) = decode(&words);
    assert_eq!(read, [Read::Other(Record::Free { node: 0, ptr: 0x70 })]);
    assert_eq!(decoder.torn(), 1);
}

#[test]
fn a_trace_is_known_by_its_first_text() {
    let trace: Vec<u8> =
        encode(&Written::Text(FIRST_LINE.to_vec())).iter().flat_map(|w| w.to_le_bytes()).collect();
    assert!(is_trace(&trace));
    assert!(is_trace(&[&[0; 16][..], &trace].concat()));
    assert!(!is_trace(&trace[..16]));
    assert!(!is_trace(b"# mtr log 1\n# mtr trace 1\n# id 00\n"));
    assert!(!is_trace(b"\x01\x02"));
}
