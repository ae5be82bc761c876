//! Reading of a module's bytes, forwards and never beyond their end. Every function returns `None`
//! where the bytes end or make no sense.

/// A position in (a part of) a segment of a module.
#[derive(Clone, Copy)]
pub(super) struct Cursor<'a> {
    /// The whole segment.
    segment: &'a [u8],
    /// Address of its first byte.
    address: u64,
    /// Next byte to read.
    at: usize,
    /// Where this part ends, at most `segment.len()`.
    end: usize,
}

/// Pointer encodings (`DW_EH_PE_*`, Linux Standard Base, "DWARF Extensions").
pub(super) mod encoding {
    pub(in crate::unwind) const ABSOLUTE: u8 = 0x00;
    pub(in crate::unwind) const ULEB128: u8 = 0x01;
    pub(in crate::unwind) const UDATA2: u8 = 0x02;
    pub(in crate::unwind) const UDATA4: u8 = 0x03;
    pub(in crate::unwind) const UDATA8: u8 = 0x04;
    pub(in crate::unwind) const SIGNED: u8 = 0x08;
    pub(in crate::unwind) const SLEB128: u8 = 0x09;
    pub(in crate::unwind) const SDATA2: u8 = 0x0a;
    pub(in crate::unwind) const SDATA4: u8 = 0x0b;
    pub(in crate::unwind) const SDATA8: u8 = 0x0c;
    pub(in crate::unwind) const PC_RELATIVE: u8 = 0x10;
    pub(in crate::unwind) const DATA_RELATIVE: u8 = 0x30;
    pub(in crate::unwind) const ALIGNED: u8 = 0x50;
    /// The address of the pointer rather than the pointer.
    pub(in crate::unwind) const INDIRECT: u8 = 0x80;
    pub(in crate::unwind) const OMITTED: u8 = 0xff;
}

impl<'a> Cursor<'a> {
    /// At the first byte of `segment`, which lies at `address`.
    pub(super) fn new(segment: &'a [u8], address: u64) -> Self {
        Cursor { segment, address, at: 0, end: segment.len() }
    }

    /// From `address` to the end of the segment.
    pub(super) fn at_address(self, address: u64) -> Option<Self> {
        self.at_position(usize::try_from(address.checked_sub(self.address)?).ok()?)
    }

    /// From byte `position` of the segment to its end.
    pub(super) fn at_position(self, position: usize) -> Option<Self> {
        let end = self.segment.len();
        (position <= end).then_some(Cursor { at: position, end, ..self })
    }

    /// Where in the segment the next byte is.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// Address of the next byte.
    pub(super) fn next_address(&self) -> u64 {
        self.address.wrapping_add(self.at as u64)
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.at >= self.end
    }

    /// What is left.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.segment.get(self.at..self.end).unwrap_or(&[])
    }

    /// The next `len` bytes as a cursor of their own.
    pub(super) fn part(&mut self, len: u64) -> Option<Self> {
        let start = self.at;
        self.skip(len)?;
        Some(Cursor { at: start, end: self.at, ..*self })
    }

    pub(super) fn skip(&mut self, len: u64) -> Option<()> {
        let left = self.end.checked_sub(self.at)? as u64;
        if len > left {
            return None;
        }
        self.at += len as usize;
        Some(())
    }

    /// Moves by `distance` bytes, within this part.
    pub(super) fn jump(&mut self, distance: i64, start: &Cursor<'_>) -> Option<()> {
        let to = usize::try_from(self.at as i64 + distance).ok()?;
        if to < start.at || to > self.end {
            return None;
        }
        self.at = to;
        Some(())
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let bytes = *self.rest().first_chunk()?;
        self.at += N;
        Some(bytes)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn uleb128(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..).step_by(7) {
            let byte = self.u8()?;
            if shift < 64 {
                value |= u64::from(byte & 0x7f) << shift;
            }
            if byte & 0x80 == 0 {
                break;
            }
        }
        Some(value)
    }

    pub(super) fn sleb128(&mut self) -> Option<i64> {
        let mut value = 0;
        for shift in (0..).step_by(7) {
            let byte = self.u8()?;
            if shift < 64 {
                value |= i64::from(byte & 0x7f) << shift;
            }
            if byte & 0x80 == 0 {
                if byte & 0x40 != 0 && shift + 7 < 64 {
                    value |= -1 << (shift + 7);
                }
                break;
            }
        }
        Some(value)
    }

    /// Bytes up to a NUL, which is skipped.
    pub(super) fn text(&mut self) -> Option<&'a [u8]> {
        let rest = self.rest();
        let len = rest.iter().position(|byte| *byte == 0)?;
        self.at += len + 1;
        rest.get(..len)
    }

    /// A number in the form that the low half of a pointer encoding tells.
    pub(super) fn encoded_value(&mut self, encoding: u8) -> Option<u64> {
        use encoding::*;
        Some(match encoding & 0x0f {
            ABSOLUTE | UDATA8 | SDATA8 | SIGNED => self.u64()?,
            ULEB128 => self.uleb128()?,
            UDATA2 => self.u16()?.into(),
            UDATA4 => self.u32()?.into(),
            SLEB128 => self.sleb128()? as u64,
            SDATA2 => self.u16()? as i16 as u64,
            SDATA4 => self.u32()? as i32 as u64,
            _ => return None,
        })
    }

    /// A pointer. `data` is what `DATA_RELATIVE` ones are relative to.
    pub(super) fn encoded_pointer(&mut self, encoding: u8, data: u64) -> Option<u64> {
        use encoding::*;
        if encoding == ALIGNED {
            let misaligned = self.next_address() % 8;
            self.skip(if misaligned == 0 { 0 } else { 8 - misaligned })?;
            return self.u64();
        }
        if encoding & INDIRECT != 0 {
            return None;
        }
        let base = match encoding & 0x70 {
            ABSOLUTE => 0,
            PC_RELATIVE => self.next_address(),
            DATA_RELATIVE => data,
            _ => return None,
        };
        self.encoded_value(encoding).map(|value| base.wrapping_add(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leb128_is_that_of_the_dwarf_standard() {
        // The examples of DWARF 5, 7.6.
        let unsigned = |bytes: &[u8]| Cursor::new(bytes, 0).uleb128();
        assert_eq!(unsigned(&[2]), Some(2));
        assert_eq!(unsigned(&[0x80, 1]), Some(128));
        assert_eq!(unsigned(&[0x39 + 0x80, 0x64]), Some(12857));
        let signed = |bytes: &[u8]| Cursor::new(bytes, 0).sleb128();
        assert_eq!(signed(&[0x7e]), Some(-2));
        assert_eq!(signed(&[0xff, 0]), Some(127));
        assert_eq!(signed(&[0x81, 0x7f]), Some(-127));
        assert_eq!(signed(&[0x80, 1]), Some(128));
        assert_eq!(signed(&[0x80]), None);
        assert_eq!(signed(&[0x80; 30]), None);
    }

    #[test]
    fn pointers_are_relative_to_what_their_encoding_says() {
        let bytes = [0xff, 0xfe, 0xff, 0xff, 0xff, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0];
        let from = |position| Cursor::new(&bytes, 0x1000).at_position(position).unwrap();
        assert_eq!(from(1).encoded_pointer(0x1b, 0), Some(0xfff));
        assert_eq!(from(1).encoded_pointer(0x3b, 0x5000), Some(0x4ffe));
        assert_eq!(from(1).encoded_pointer(0x03, 0), Some(0xffff_fffe));
        assert_eq!(from(2).encoded_pointer(0x50, 0), Some(8));
        assert_eq!(from(1).encoded_pointer(0x9b, 0), None);
        assert_eq!(from(13).encoded_pointer(0x1b, 0), None);
    }
}
