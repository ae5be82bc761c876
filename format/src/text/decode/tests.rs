use super::*;
use proptest::prelude::*;
use std::format;
use std::string::String;
use std::vec::Vec;

fn record(line: &str) -> (Option<&str>, Op) {
    match Line::parse(line.as_bytes()) {
        Line::Record { place, op } => (place.map(|p| std::str::from_utf8(p).unwrap()), op),
        other => panic!("{line}: {other:?}"),
    }
}

fn malformed_at(line: &[u8]) -> usize {
    match Line::parse(line) {
        Line::Malformed { column, .. } => column,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_five_operations_are_told_apart() {
    let (ptr, size) = (0x55a0, 0x64);
    assert_eq!(record("+ 0x55a0 0x64"), (None, Op::Alloc { ptr, size }));
    assert_eq!(record("- 0x55a0"), (None, Op::Free { ptr }));
    assert_eq!(record("< 0x55a0"), (None, Op::ReallocFrom { ptr }));
    assert_eq!(record("> 0x55a0 0x64"), (None, Op::ReallocTo { ptr, size }));
    assert_eq!(record("! 0x55a0 0x64"), (None, Op::ReallocFailed { ptr, size }));
    assert_eq!(record("+ (nil) 0x64"), (None, Op::Alloc { ptr: 0, size }));
    assert_eq!(record("+ 0x55a0 0"), (None, Op::Alloc { ptr, size: 0 }));
    assert_eq!(record("+ 0x55A0 64"), (None, Op::Alloc { ptr, size }));
}

#[test]
fn blanks_of_any_kind_separate() {
    let op = Op::Alloc { ptr: 0x10, size: 0x20 };
    assert_eq!(record("@ ./t:[0x1157] + 0x10 0x20\r"), (Some("./t:[0x1157]"), op));
    assert_eq!(record("@\t./t:[0x1157]\t+\t0x10\t0x20"), (Some("./t:[0x1157]"), op));
    assert_eq!(record("  @ ./t:[0x1157] + 0x10 0x20  "), (Some("./t:[0x1157]"), op));
}

#[test]
fn a_place_ends_at_the_last_bracket_whatever_the_path_holds() {
    let op = Op::Free { ptr: 0x10 };
    for place in [
        "./my prog:[0x1157]",
        "./evil + 0x1 0x2:[0x1157]",
        "./a[0x1] - 0x2:(main+1d)[0x1157]",
        "./a]b:c:[0x1157]",
        "[0x7f77561ac00d]",
        "[0x8048abc]:main",
        "file.c:12",
    ] {
        assert_eq!(record(&format!("@ {place} - 0x10")), (Some(place), op));
    }
}

#[test]
fn a_name_need_not_be_utf8() {
    let line = b"@ ./t\xff\x80:[0x1157] - 0x10";
    let place = Some(&b"./t\xff\x80:[0x1157]"[..]);
    assert_eq!(Line::parse(line), Line::Record { place, op: Op::Free { ptr: 0x10 } });
}

#[test]
fn all_dialects_of_a_place_are_taken_apart() {
    let symbol = |prefixed| Some(Symbol { name: b"main", offset: 0x1d, prefixed });
    let cases: [(&[u8], Place<'_>); 7] = [
        (
            b"./t:(main+0x1d)[0x55bbd5ef5186]",
            Place { object: Some(b"./t"), symbol: symbol(true), address: Some(0x55bb_d5ef_5186) },
        ),
        (
            b"./t:(main+1d)[0x1186]",
            Place { object: Some(b"./t"), symbol: symbol(false), address: Some(0x1186) },
        ),
        (b"./t:[0x1157]", Place { object: Some(b"./t"), symbol: None, address: Some(0x1157) }),
        (b"./a:(b):[0x1]", Place { object: Some(b"./a:(b)"), symbol: None, address: Some(1) }),
        (b"[0x7f00]", Place { object: None, symbol: None, address: Some(0x7f00) }),
        (
            b"[0x8048]:main",
            Place {
                object: None,
                symbol: Some(Symbol { name: b"main", offset: 0, prefixed: true }),
                address: Some(0x8048),
            },
        ),
        (b"file.c:12", Place { object: Some(b"file.c:12"), symbol: None, address: None }),
    ];
    for (text, place) in cases {
        assert_eq!(Place::parse(text), place, "{}", String::from_utf8_lossy(text));
    }
}

#[test]
fn marks_comments_and_blank_lines_are_no_records() {
    assert_eq!(Line::parse(b"= Start"), Line::Start);
    assert_eq!(Line::parse(b"= End\r"), Line::End);
    assert_eq!(Line::parse(b""), Line::Blank);
    assert_eq!(Line::parse(b" \t\r"), Line::Blank);
    assert_eq!(Line::parse(b"# exit"), Line::Meta(Meta::Exit));
}

#[test]
fn a_torn_line_is_malformed_where_it_is_torn() {
    assert_eq!(malformed_at(b"- 0x5568f909d= Start"), 13);
    assert_eq!(malformed_at(b"4a0"), 0);
    assert_eq!(malformed_at(b"@ ./t:[0x1157] + 0x10"), 21);
    assert_eq!(malformed_at(b"@ ./t:[0x11"), 11);
    assert_eq!(malformed_at(b"+ 0x123456789abcdef01 0x1"), 20);
    assert_eq!(malformed_at(b"+ 1000 0x1"), 2);
    assert_eq!(malformed_at(b"- 0x10 - 0x20"), 7);
}

#[test]
fn the_rest_of_an_announced_free_names_its_block() {
    let announced = |rest: &'static [u8]| Line::parse_after_gap(rest);
    let unpublished = |place: &'static str, is_realloc| {
        let place = place.as_bytes();
        Line::Unpublished { ptr: 0x10, is_realloc, place }
    };
    assert_eq!(announced(b"gram:[0x1157] < 0x10"), unpublished("gram:[0x1157]", true));
    assert_eq!(announced(b"-x:(f+0x1)[0x1157] - 0x10"), unpublished("-x:(f+0x1)[0x1157]", false));
    assert_eq!(announced(b"+0x1d)[0x1157] - 0x10"), unpublished("+0x1d)[0x1157]", false));
    assert!(matches!(announced(b"gram:[0x1157] + 0x10 0x20"), Line::Malformed { .. }));
    assert!(matches!(announced(b"02a12a0"), Line::Malformed { .. }));
    assert!(matches!(announced(b"@ ./t:[0x1] - 0x10"), Line::Record { .. }));
    assert_eq!(announced(b""), Line::Blank);
}

/// The writer's side of [`Line::parse`], slow and obvious.
fn encode(place: Option<&[u8]>, op: Op) -> Vec<u8> {
    let pointer = |ptr| if ptr == 0 { "(nil)".into() } else { format!("{ptr:#x}") };
    let size = |size| if size == 0 { "0".into() } else { format!("{size:#x}") };
    let mut line = Vec::new();
    if let Some(place) = place {
        line.extend_from_slice(b"@ ");
        line.extend_from_slice(place);
        line.push(b' ');
    }
    let op = match op {
        Op::Alloc { ptr, size: n } => format!("+ {} {}", pointer(ptr), size(n)),
        Op::Free { ptr } => format!("- {}", pointer(ptr)),
        Op::ReallocFrom { ptr } => format!("< {}", pointer(ptr)),
        Op::ReallocTo { ptr, size: n } => format!("> {} {}", pointer(ptr), size(n)),
        Op::ReallocFailed { ptr, size: n } => format!("! {} {}", pointer(ptr), size(n)),
    };
    line.extend_from_slice(op.as_bytes());
    line
}

fn any_op() -> impl Strategy<Value = Op> {
    (0..5, any::<u64>(), any::<u64>()).prop_map(|(kind, ptr, size)| match kind {
        0 => Op::Alloc { ptr, size },
        1 => Op::Free { ptr },
        2 => Op::ReallocFrom { ptr },
        3 => Op::ReallocTo { ptr, size },
        _ => Op::ReallocFailed { ptr, size },
    })
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(line: Vec<u8>) {
        let _ = Line::parse(&line);
        let _ = Line::parse_after_gap(&line);
        let _ = Place::parse(&line);
    }

    #[test]
    fn no_bytes_of_the_alphabet_make_it_panic(line in "[@#=+<>! :()\\[\\]0x1anilmoduestrc\\-]{0,40}") {
        let _ = Line::parse(line.as_bytes());
        let _ = Line::parse_after_gap(line.as_bytes());
        let _ = Place::parse(line.as_bytes());
    }

    #[test]
    fn what_is_encoded_is_read_back(
        name in proptest::collection::vec(any::<u8>(), 0..40),
        address: u64,
        op in any_op(),
        placed: bool,
    ) {
        let mut name = name;
        // A file name of glibc's may hold all but NUL and, for the sake of lines, the newline;
        // blanks at its front cannot be told from those behind `@`.
        name.retain(|b| !matches!(b, 0 | b'\n'));
        name.insert(0, b'/');
        let mut place = name.clone();
        place.extend_from_slice(format!(":[{address:#x}]").as_bytes());
        let place = placed.then_some(&place[..]);
        let line = encode(place, op);
        prop_assert_eq!(Line::parse(&line), Line::Record { place, op });
        if let Some(place) = place {
            let parsed = Place::parse(place);
            prop_assert_eq!(parsed.address, Some(address));
            if parsed.symbol.is_none() {
                prop_assert_eq!(parsed.object, Some(&name[..]));
            }
        }
    }

    #[test]
    fn the_last_bracket_is_found(line in proptest::collection::vec(
        prop_oneof![Just(b']'), Just(0xdd), any::<u8>()], 0..40)) {
        prop_assert_eq!(last_bracket(&line), line.iter().rposition(|b| *b == b']'));
    }
}
