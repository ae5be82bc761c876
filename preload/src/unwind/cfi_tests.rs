use proptest::prelude::*;

use super::*;
use crate::unwind::cursor::Cursor;
use crate::unwind::eh_frame::{Cie, find_by_walking, find_in, read_fde};
use crate::unwind::memory::Memory;
use crate::unwind::rule::{Kind, Rule};
use RegisterRule::*;

const START: u64 = 0x1000;

/// The row that `program` makes at `START + offset`, after a CIE that says what all of x86-64 do.
fn row(program: &[u8], offset: u64) -> Option<Row> {
    // def_cfa rsp+8; offset ra at CFA-8
    let cie_program = [0x0c, 7, 8, 0x90, 1];
    let bytes = [&cie_program, program].concat();
    let mut cursor = Cursor::new(&bytes, 0x5000);
    let cie_program = cursor.part(cie_program.len() as u64)?;
    let cie = Cie {
        code_alignment: 1,
        data_alignment: -8,
        return_register: 16,
        is_signal: false,
        pointer_encoding: 0,
        has_augmentation: true,
        program: cie_program,
    };
    row_at(&Fde { start: START, program: cursor, cie }, START + offset)
}

/// What `program` says of a register.
fn rule_of(program: &[u8], register: u8) -> RegisterRule {
    row(program, 0).unwrap().register(register)
}

fn cfa_of(program: &[u8]) -> CfaRule {
    row(program, 0).unwrap().cfa()
}

#[test]
fn the_cie_says_what_holds_at_first() {
    let row = row(&[], 0).unwrap();
    assert_eq!(row.cfa(), CfaRule::Offset(RSP, 8));
    assert_eq!(row.register(RETURN_ADDRESS), Offset(-8));
    assert_eq!(row.register(RBP), Unspecified);
}

#[test]
fn rows_begin_where_the_program_advances_to() {
    // In all ways: by 1 (two of them), 0x20, 0x100, 0x10000, to 0x2_0000.
    let mut program = vec![0x41, 0x0e, 16, 0x41, 0x0e, 24, 0x02, 0x20, 0x0e, 32];
    program.extend([0x03, 0, 1, 0x0e, 40, 0x04, 0, 0, 1, 0, 0x0e, 48]);
    program.extend([0x01, 0, 0, 2, 0, 0, 0, 0, 0, 0x0e, 56]);
    program.extend([0x1d, 1, 0, 0, 0, 0, 0, 0, 0, 0x0e, 64]);
    for (offset, cfa) in [
        (0, 8),
        (1, 16),
        (2, 24),
        (0x21, 24),
        (0x22, 32),
        (0x121, 32),
        (0x122, 40),
        (0x10122, 48),
        (0x2_0000 - START - 1, 48),
        (0x2_0000 - START, 56),
        (0x2_0001 - START, 64),
    ] {
        assert_eq!(row(&program, offset).unwrap().cfa(), CfaRule::Offset(RSP, cfa), "{offset:#x}");
    }
}

#[test]
fn the_cfa_is_defined_in_every_way() {
    assert_eq!(cfa_of(&[0x0c, 6, 16]), CfaRule::Offset(RBP, 16));
    assert_eq!(cfa_of(&[0x12, 10, 0x7e]), CfaRule::Offset(10, 16));
    assert_eq!(cfa_of(&[0x0d, 6]), CfaRule::Offset(RBP, 8));
    assert_eq!(cfa_of(&[0x0e, 0x80, 1]), CfaRule::Offset(RSP, 128));
    assert_eq!(cfa_of(&[0x13, 0x7d]), CfaRule::Offset(RSP, 24));
    assert_eq!(cfa_of(&[0x0f, 2, 0x76, 0]), CfaRule::Expression(6));
    // An offset does not end an expression, a register does.
    assert_eq!(cfa_of(&[0x0f, 2, 0x76, 0, 0x0e, 16]), CfaRule::Expression(6));
    assert_eq!(cfa_of(&[0x0f, 2, 0x76, 0, 0x0d, 6]), CfaRule::Offset(RBP, 8));
}

#[test]
fn registers_are_saved_in_every_way() {
    assert_eq!(rule_of(&[0x86, 2], RBP), Offset(-16));
    assert_eq!(rule_of(&[0x05, 12, 3], 12), Offset(-24));
    assert_eq!(rule_of(&[0x11, 12, 0x7e], 12), Offset(16));
    assert_eq!(rule_of(&[0x2f, 3, 2], RBX), Offset(16));
    assert_eq!(rule_of(&[0x14, 7, 2], RSP), ValOffset(-16));
    assert_eq!(rule_of(&[0x15, 7, 0x7e], RSP), ValOffset(16));
    assert_eq!(rule_of(&[0x09, 16, 1], RETURN_ADDRESS), Register(1));
    assert_eq!(rule_of(&[0x07, 16], RETURN_ADDRESS), Undefined);
    assert_eq!(rule_of(&[0x08, 6], RBP), SameValue);
    assert_eq!(rule_of(&[0x10, 6, 2, 0x76, 0], RBP), Expression(7));
    assert_eq!(rule_of(&[0x16, 6, 2, 0x76, 0, 0x86, 2], 6), Offset(-16));
    assert_eq!(rule_of(&[0x16, 6, 2, 0x76, 0], RBP), ValExpression(7));
    // Of no interest, but read over: xmm0, the flags, the size of the arguments.
    assert_eq!(rule_of(&[0x91, 2, 0x05, 49, 2, 0x2e, 0x80, 1, 0x00, 0x86, 2], RBP), Offset(-16));
}

#[test]
fn rules_are_restored_to_those_of_the_cie() {
    assert_eq!(rule_of(&[0x86, 2, 0xc6], RBP), Unspecified);
    assert_eq!(rule_of(&[0x86, 2, 0x06, 6], RBP), Unspecified);
    assert_eq!(rule_of(&[0x07, 16, 0x06, 16], RETURN_ADDRESS), Offset(-8));
}

#[test]
fn states_are_put_aside_one_in_the_other() {
    let program = [0x86, 2, 0x0a, 0x86, 3, 0x0e, 16, 0x0a, 0x86, 4, 0x0b, 0x41, 0x0b];
    assert_eq!(row(&program, 0).unwrap().register(RBP), Offset(-24));
    assert_eq!(row(&program, 0).unwrap().cfa(), CfaRule::Offset(RSP, 16));
    assert_eq!(row(&program, 1).unwrap().register(RBP), Offset(-16));
    assert_eq!(row(&program, 1).unwrap().cfa(), CfaRule::Offset(RSP, 8));
}

#[test]
fn programs_that_make_no_sense_have_no_row() {
    for program in [
        &[0x0b][..],                                 // restore_state without a state
        &[0x0a; MAX_REMEMBERED + 1],                 // more states than we hold
        &[0x0e],                                     // no operand
        &[0x0f, 5, 0],                               // an expression beyond the end
        &[0x3f],                                     // no such operation
        &[0x0e, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f], // an offset of 42 bits
    ] {
        assert!(row(program, 0).is_none(), "{program:x?}");
    }
}

fn packed(program: &[u8]) -> Rule {
    let row = row(program, 0).unwrap();
    let bytes = [&[0x0c, 7, 8, 0x90, 1], program].concat();
    Rule::from_row(&row, Cursor::new(&bytes, 0x5000))
}

#[test]
fn usual_rows_become_rules_and_others_do_not() {
    let rule = packed(&[0x0e, 48, 0x86, 3]);
    assert_eq!((rule.kind(), rule.offset(), rule.rbp_below_cfa()), (Kind::Rsp, 48, 24));
    let rule = packed(&[0x0c, 6, 16, 0x86, 2]);
    assert_eq!((rule.kind(), rule.offset(), rule.rbp_below_cfa()), (Kind::Rbp, 16, 16));
    let rule = packed(&[0x10, 6, 2, 0x76, 0, 0x0f, 3, 0x76, 0x78, 6]);
    assert_eq!((rule.kind(), rule.offset() as i64), (Kind::AtRbp, -8));
    assert_eq!(packed(&[0x07, 16]).kind(), Kind::Root);
    for program in [
        &[0x0c, 3, 16][..],
        &[0x0e, 12],
        &[0x90, 2],
        &[0x09, 7, 1],
        &[0x86, 0],
        &[0x10, 6, 2, 0x76, 0],
        &[0x0f, 3, 0x76, 0x78, 6],
        &[0x10, 6, 2, 0x76, 8, 0x0f, 3, 0x76, 0x78, 6],
        &[0x10, 6, 2, 0x76, 0, 0x0f, 3, 0x77, 0x78, 6],
    ] {
        assert_eq!(packed(program).kind(), Kind::Complex, "{program:x?}");
    }
}

/// A section of two records: a CIE and an FDE of `0x1000..0x1100` whose length takes `wide` bytes.
fn section(augmentation: &[u8], data: &[u8], wide: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut record = |content: &[u8]| {
        let at = bytes.len();
        if wide {
            bytes.extend([0xff; 4]);
            bytes.extend((content.len() as u64).to_le_bytes());
        } else {
            bytes.extend((content.len() as u32).to_le_bytes());
        }
        bytes.extend(content);
        at
    };
    let mut cie = vec![0, 0, 0, 0, 1];
    cie.extend(augmentation);
    cie.extend([0, 1, 0x78, 16]);
    if augmentation.first() == Some(&b'z') {
        cie.push(data.len() as u8);
        cie.extend(data);
    }
    cie.extend([0x0c, 7, 8, 0x90, 1]);
    let len = cie.len();
    record(&cie);
    let head = if wide { 12 } else { 4 };
    let mut fde = ((2 * head + len) as u32).to_le_bytes().to_vec();
    fde.extend(0x1000u64.to_le_bytes());
    fde.extend(0x100u64.to_le_bytes());
    if augmentation.first() == Some(&b'z') {
        fde.push(0);
    }
    fde.extend([0x0e, 64]);
    record(&fde);
    bytes.extend([0; 4]);
    bytes
}

#[test]
fn fdes_are_found_with_a_table_and_without() {
    let personality = [3, 1, 2, 3, 4, 0, 0xff];
    for (augmentation, data) in [
        (&b""[..], &[][..]),
        (b"z", &[]),
        (b"zR", &[0]),
        (b"zPRL", &personality),
        (b"zRS", &[4]),
        (b"zR!", &[0, 9, 9]),
    ] {
        for wide in [false, true] {
            let frames = section(augmentation, data, wide);
            let frames = Cursor::new(&frames, 0x5000);
            let fde_at = 0x5000 + frames.rest().len() as u64 - if wide { 12 } else { 4 } - 4;
            let fde_at = fde_at - (4 + 16 + 2) - u64::from(augmentation.starts_with(b"z"));
            let table = |encoding: u8, first: &[u8]| {
                let mut header = vec![1, 0x03, 0x03, encoding, 0, 0x50, 0, 0, 1, 0, 0, 0];
                header.extend(first);
                header
            };
            let mut entry = (0x1000i32 - 0x4000).to_le_bytes().to_vec();
            entry.extend((fde_at as u32 - 0x4000).to_le_bytes());
            let mut absolute = 0x1000u64.to_le_bytes().to_vec();
            absolute.extend(fde_at.to_le_bytes());
            let without = vec![1, 0x03, 0xff, 0xff, 0, 0x50, 0, 0];
            for header in [
                table(0x3b, &entry),
                table(0x04, &absolute),
                table(0x00, &absolute),
                table(0x01, &[]), // cannot be searched
                without,
            ] {
                let find = |pc| {
                    let header = Cursor::new(&header, 0x4000);
                    find_in(header, pc, |address| frames.at_address(address))
                };
                let fde = find(0x10ff).unwrap();
                assert_eq!(fde.start, 0x1000);
                assert_eq!(fde.cie.is_signal, augmentation.contains(&b'S'));
                assert_eq!(row_at(&fde, 0x1000).unwrap().cfa(), CfaRule::Offset(RSP, 64));
                assert!(find(0x1100).is_none() && find(0xfff).is_none());
            }
        }
    }
}

#[test]
fn functions_that_the_linker_left_out_are_passed_over() {
    // Pointers are relative to where they stand, and the first FDE's is 0: it would begin there.
    let mut bytes = vec![13, 0, 0, 0, 0, 0, 0, 0, 1, b'z', b'R', 0, 1, 0x78, 16, 1, 0x1b];
    let mut fde = |start: i32| {
        let at = bytes.len() as i32;
        bytes.extend(13u32.to_le_bytes());
        bytes.extend((at + 4).to_le_bytes());
        bytes.extend(if start == 0 { 0 } else { start - (0x5000 + at + 8) }.to_le_bytes());
        bytes.extend(0x1000u32.to_le_bytes());
        bytes.push(0);
        0x5000 + at as u64
    };
    fde(0);
    let second = fde(0x4800);
    let frames = Cursor::new(&bytes, 0x5000);
    let find = |pc| find_by_walking(frames, pc, &|address| frames.at_address(address));
    assert_eq!((find(0x5100), find(0x4800)), (Some(second), Some(second)));
    assert_eq!((find(0x47ff), find(0x5800)), (None, None));
}

#[test]
fn an_augmentation_without_a_length_must_be_known() {
    let bytes = section(b"eh", &[], false);
    let frames = Cursor::new(&bytes, 0);
    let fde = frames.at_position(bytes.len() - 4 - 26).unwrap();
    assert!(read_fde(fde, 0, &|address| frames.at_address(address)).is_none());
}

proptest! {
    #[test]
    fn any_program_ends_without_a_panic(program: Vec<u8>, offset in 0u64..300) {
        if let Some(row) = row(&program, offset) {
            let bytes = [&[0x0c, 7, 8, 0x90, 1], &program[..]].concat();
            Rule::from_row(&row, Cursor::new(&bytes, 0x5000));
        }
    }

    #[test]
    fn any_operations_end_without_a_panic(
        program in prop::collection::vec(
            prop_oneof![Just(0x0au8), Just(0x0b), Just(0x0f), 0u8..0x30, 0x40u8..=0xff], 0..60),
    ) {
        let _ = row(&program, 0x40);
    }

    #[test]
    fn any_eh_frame_is_read_within_its_bounds(
        header: Vec<u8>, frames: Vec<u8>, pc: u64, at in 0usize..200,
        fixed in prop::array::uniform4(0u8..=255),
    ) {
        let header = [&[1][..], &fixed[..3], &header[..]].concat();
        let frames = Cursor::new(&frames, 0x5000);
        let at_address = |address: u64| frames.at_position(address as usize % 300);
        if let Some(fde) = find_in(Cursor::new(&header, 0x4000), pc, at_address) {
            let _ = row_at(&fde, pc);
        }
        if let Some(frames) = frames.at_position(at) {
            let _ = read_fde(frames, pc, &at_address).map(|fde| row_at(&fde, pc).is_some());
        }
    }

    #[test]
    fn any_damage_to_a_sound_eh_frame_is_survived(
        place in 0usize..80, value: u8, wide: bool, pc in 0xff0u64..0x1110,
    ) {
        let mut bytes = section(b"zPRL", &[3, 1, 2, 3, 4, 0, 0xff], wide);
        if let Some(byte) = bytes.get_mut(place) {
            *byte = value;
        }
        let frames = Cursor::new(&bytes, 0x5000);
        let header = [1, 0x03, 0xff, 0xff, 0, 0x50, 0, 0];
        let found = find_in(Cursor::new(&header, 0), pc, |address| frames.at_address(address));
        if let Some(fde) = found {
            let _ = row_at(&fde, pc);
        }
    }

    #[test]
    fn any_expression_ends_without_a_panic(mut operations: Vec<u8>, first: Option<u64>) {
        operations.insert(0, operations.len().min(127) as u8);
        let cursor = Cursor::new(&operations, 0x5000);
        let register = |number| (number < 17).then(|| number * 0x1234_5678);
        let _ = crate::unwind::expression::evaluate(
            cursor, first, register, &mut Memory::probing());
    }
}
