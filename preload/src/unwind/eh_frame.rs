//! The frame description (FDE) of a PC. Layout: Linux Standard Base, "Exception Frames".
//!
//! `.eh_frame` is a list of records: CIEs, which say what many functions share, and FDEs, one per
//! function. `.eh_frame_hdr` holds a sorted table of the FDEs.

use super::cursor::{Cursor, encoding};
use super::unlisted;
use crate::modules;

/// What many FDEs share.
#[derive(Clone, Copy)]
pub(super) struct Cie<'a> {
    pub(super) code_alignment: u64,
    pub(super) data_alignment: i64,
    pub(super) return_register: u64,
    /// `S`: the caller was interrupted, so its PC is no return address.
    pub(super) is_signal: bool,
    pub(super) pointer_encoding: u8,
    pub(super) has_augmentation: bool,
    pub(super) program: Cursor<'a>,
}

/// A range of code, from `start` on, and its CFA program.
#[derive(Clone, Copy)]
pub(super) struct Fde<'a> {
    pub(super) start: u64,
    pub(super) program: Cursor<'a>,
    pub(super) cie: Cie<'a>,
}

/// A record of `.eh_frame`, told apart but not read.
enum Record<'a> {
    Cie,
    Fde { cie_address: u64, content: Cursor<'a> },
}

/// What `.eh_frame_hdr` says of a PC.
enum Listed {
    /// Address of the only FDE that can cover it.
    Fde(u64),
    /// Nothing but the address of `.eh_frame`, or not even that: there is no table to search.
    Start(Option<u64>),
}

/// The FDE that covers `pc`, from the module that is loaded there.
///
/// The module stays loaded while the result is used: code of it is running, or (for a PC that was
/// guessed) the program is not unloading modules under the feet of its other threads.
#[inline(never)]
pub(super) fn find(pc: u64) -> Option<Fde<'static>> {
    let module = modules::find(pc as usize)?;
    let address = match listed(&module, pc)? {
        Listed::Fde(address) => address,
        Listed::Start(frames) => unlisted::address_of(&module, frames, pc)?,
    };
    fde_at(&module, address, pc)
}

/// Apart, as is [`fde_at`]: what they take of the stack is free again while a list is walked.
#[inline(never)]
fn listed(module: &modules::Module, pc: u64) -> Option<Listed> {
    match module.eh_frame_hdr as u64 {
        0 => Some(Listed::Start(None)),
        header => find_in_header(cursor_at(module, header)?, pc),
    }
}

#[inline(never)]
fn fde_at(module: &modules::Module, address: u64, pc: u64) -> Option<Fde<'static>> {
    let at = |address| cursor_at(module, address);
    read_fde(at(address)?, pc, &at)
}

/// The readable segment of `module` that holds `address`, from there on.
pub(super) fn cursor_at(module: &modules::Module, address: u64) -> Option<Cursor<'static>> {
    let segment = modules::segment_at(module, address as usize)?;
    Cursor::new(segment, segment.as_ptr() as u64).at_address(address)
}

/// The FDE of `pc` by the `.eh_frame_hdr` at `header`. `at` finds the bytes at an address.
#[cfg(test)]
pub(super) fn find_in<'a>(
    header: Cursor<'a>,
    pc: u64,
    at: impl Fn(u64) -> Option<Cursor<'a>>,
) -> Option<Fde<'a>> {
    let address = match find_in_header(header, pc)? {
        Listed::Fde(address) => address,
        Listed::Start(frames) => find_by_walking(at(frames?)?, pc, &at)?,
    };
    read_fde(at(address)?, pc, &at)
}

fn find_in_header(mut header: Cursor<'_>, pc: u64) -> Option<Listed> {
    let data = header.next_address();
    let [version, frame_encoding, count_encoding, table_encoding] =
        [header.u8()?, header.u8()?, header.u8()?, header.u8()?];
    if version != 1 || frame_encoding == encoding::OMITTED {
        return None;
    }
    let frames = header.encoded_pointer(frame_encoding, data)?;
    if count_encoding != encoding::OMITTED
        && let Some(width) = table_width(table_encoding)
    {
        let count = header.encoded_pointer(count_encoding, data)?;
        return search(header, table_encoding, width, count, data, pc).map(Listed::Fde);
    }
    Some(Listed::Start(Some(frames)))
}

/// Bytes per pointer of a table that can be searched.
fn table_width(table_encoding: u8) -> Option<u64> {
    use encoding::*;
    if table_encoding & 0xf0 != DATA_RELATIVE && table_encoding & 0xf0 != ABSOLUTE {
        return None;
    }
    match table_encoding & 0x0f {
        UDATA2 | SDATA2 => Some(2),
        UDATA4 | SDATA4 => Some(4),
        ABSOLUTE | UDATA8 | SDATA8 => Some(8),
        _ => None,
    }
}

/// Address of the last FDE of the table that begins at or before `pc`.
fn search(
    table: Cursor<'_>,
    table_encoding: u8,
    width: u64,
    count: u64,
    data: u64,
    pc: u64,
) -> Option<u64> {
    let entry = |index: u64| {
        let mut entry = table;
        entry.skip(index.checked_mul(2 * width)?)?;
        let start = entry.encoded_pointer(table_encoding, data)?;
        Some((start, entry.encoded_pointer(table_encoding, data)?))
    };
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low + (high - low) / 2;
        if entry(middle)?.0 <= pc {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    entry(low.checked_sub(1)?).map(|(_, fde)| fde)
}

/// Address of the FDE that covers `pc`, in the list that begins at `frames`.
pub(super) fn find_by_walking<'a>(
    mut frames: Cursor<'a>,
    pc: u64,
    at: &impl Fn(u64) -> Option<Cursor<'a>>,
) -> Option<u64> {
    // Of the last CIE, which the next FDEs have too: its address and its pointer encoding.
    let mut last = (0, encoding::OMITTED);
    loop {
        let address = frames.next_address();
        let Record::Fde { cie_address, mut content } = read_record(&mut frames)? else { continue };
        if last.0 != cie_address {
            let cie = at(cie_address).and_then(read_cie);
            last = (cie_address, cie.map_or(encoding::OMITTED, |cie| cie.pointer_encoding));
        }
        // A linker writes 0 for a function that it has left out.
        let is_null = { content }.encoded_value(last.1) == Some(0);
        let range = code_range(&mut content, last.1);
        if !is_null && range.is_some_and(|(start, end)| (start..end).contains(&pc)) {
            return Some(address);
        }
    }
}

/// The code that an FDE covers.
fn code_range(content: &mut Cursor<'_>, pointer_encoding: u8) -> Option<(u64, u64)> {
    let start = content.encoded_pointer(pointer_encoding, 0)?;
    Some((start, start.wrapping_add(content.encoded_value(pointer_encoding)?)))
}

/// The record at `frames`, which moves behind it. `None` at the end of the list.
fn read_record<'a>(frames: &mut Cursor<'a>) -> Option<Record<'a>> {
    let mut len = u64::from(frames.u32()?);
    if len == 0xffff_ffff {
        len = frames.u64()?;
    }
    if len == 0 {
        return None;
    }
    let mut content = frames.part(len)?;
    let field = content.next_address();
    // Four bytes even in a record whose length takes twelve.
    match content.u32()? {
        0 => Some(Record::Cie),
        distance => Some(Record::Fde { cie_address: field.wrapping_sub(distance.into()), content }),
    }
}

/// The FDE at `frames`, if it covers `pc`.
pub(super) fn read_fde<'a>(
    mut frames: Cursor<'a>,
    pc: u64,
    at: &impl Fn(u64) -> Option<Cursor<'a>>,
) -> Option<Fde<'a>> {
    match read_record(&mut frames)? {
        Record::Fde { cie_address, content } => read_fde_content(cie_address, content, pc, at),
        Record::Cie => None,
    }
}

fn read_fde_content<'a>(
    cie_address: u64,
    mut content: Cursor<'a>,
    pc: u64,
    at: &impl Fn(u64) -> Option<Cursor<'a>>,
) -> Option<Fde<'a>> {
    let cie = read_cie(at(cie_address)?)?;
    let (start, end) = code_range(&mut content, cie.pointer_encoding)?;
    if pc < start || pc >= end {
        return None;
    }
    if cie.has_augmentation {
        let len = content.uleb128()?;
        content.skip(len)?;
    }
    Some(Fde { start, program: content, cie })
}

fn read_cie(mut frames: Cursor<'_>) -> Option<Cie<'_>> {
    let mut len = u64::from(frames.u32()?);
    if len == 0xffff_ffff {
        len = frames.u64()?;
    }
    let mut content = frames.part(len)?;
    if content.u32()? != 0 {
        return None;
    }
    let version = content.u8()?;
    let augmentation = content.text()?;
    if version == 4 {
        content.skip(2)?; // sizes of an address and of a segment selector
    }
    let code_alignment = content.uleb128()?;
    let data_alignment = content.sleb128()?;
    let return_register = if version == 1 { content.u8()?.into() } else { content.uleb128()? };
    let mut cie = Cie {
        code_alignment,
        data_alignment,
        return_register,
        is_signal: false,
        pointer_encoding: encoding::ABSOLUTE,
        has_augmentation: false,
        program: content,
    };
    match augmentation.split_first() {
        None => {}
        Some((b'z', letters)) => {
            cie.has_augmentation = true;
            let len = content.uleb128()?;
            let mut data = content.part(len)?;
            cie.program = content;
            for letter in letters {
                match letter {
                    b'R' => cie.pointer_encoding = data.u8()?,
                    b'L' => data.skip(1)?,
                    b'P' => {
                        // The personality is of no interest; it may be indirect.
                        let encoding = data.u8()? & !encoding::INDIRECT;
                        data.encoded_pointer(encoding, 0)?;
                    }
                    b'S' => cie.is_signal = true,
                    // What follows is unknown, but its length is not.
                    _ => break,
                }
            }
        }
        // "eh" of gcc 2, or another: where the program begins is not known.
        Some(_) => return None,
    }
    Some(cie)
}
