//! The records of a chunk, one after another.
//!
//! Any bytes at all are something: what is no record, or does not end within the chunk, ends the
//! reading of the chunk, and how much is left tells how much that was.

use super::op::{
    self, ADDRESS_SHIFT, ALLOC, FRAMES_CUT, FREE, Family, FreeKind, Outcome, WALK_ENDED,
    WHOLE_ADDRESS,
};

/// What a record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Record<'a> {
    /// An allocation.
    Alloc {
        /// Number of its call stack.
        node: u32,
        /// The new block.
        ptr: u64,
        /// Requested bytes.
        size: u64,
        /// How it was asked for.
        by: Request,
    },
    /// A free.
    Free {
        /// The block that ends.
        ptr: u64,
        /// Function that was called.
        kind: FreeKind,
        /// Number of its caller, 0 when it was not recorded.
        node: u32,
    },
    /// A piece of text.
    Text(&'a [u8]),
    /// The stream belongs to this thread from here on.
    Thread(u32),
    /// Numbers of nodes start again at 1.
    Forget,
    /// The next node.
    Node {
        /// Its number minus that of its parent.
        up: u64,
        /// Return address, or what stands for one.
        address: u64,
    },
    /// Ticks since the stamp before.
    Stamp(u64),
    /// Resident bytes of the process.
    Resident(u64),
    /// realloc of a block.
    Realloc {
        /// What came of it.
        outcome: Outcome,
        /// The old block.
        ptr: u64,
        /// Number of its caller's stack, 0 for none.
        node: u32,
    },
    /// An allocation failed.
    Failed {
        /// Number of its call stack.
        node: u32,
        /// The block that lives on, 0 for none.
        ptr: u64,
        /// Requested bytes.
        size: u64,
        /// How it was asked for.
        by: Request,
    },
}

/// How a block was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// Function that was called.
    pub family: Family,
    /// What it was asked for, 0 where the family has none.
    pub alignment: u64,
}

impl Request {
    /// What is not stated.
    pub const MALLOC: Request = Request { family: Family::Malloc, alignment: 0 };
}

/// Where the reading of a chunk is. It is given the chunk's records at each step, so that they can
/// lie wherever the reader likes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Decoder {
    position: usize,
    /// Address of the event before, in units of 16 bytes.
    unit: u64,
    /// Return address of the node before.
    address: u64,
}

/// Bytes that most events fit into: 1, a node of 4, an address of 8, a size of 2.
const WINDOW: usize = 16;

impl Decoder {
    /// Before the first record of a chunk.
    pub fn new() -> Decoder {
        Decoder::default()
    }

    /// Bytes of records that have been read.
    pub fn position(&self) -> usize {
        self.position
    }

    /// The next record of the chunk with these records. `None` at their end, and for ever where
    /// something is damaged: then [`Decoder::position`] stays short of the end.
    #[inline(always)]
    pub fn next<'a>(&mut self, records: &'a [u8]) -> Option<Record<'a>> {
        let rest = records.get(self.position..)?;
        let (window, limit) = match rest.first_chunk::<WINDOW>() {
            Some(window) => (u128::from_le_bytes(*window), WINDOW),
            None => (padded(rest)?, rest.len()),
        };
        let first = window as u8;
        if first & ALLOC != 0 {
            let nodes = u32::from(first & 3) + 1;
            let node = (window >> 8) as u32 & u32::MAX >> (32 - 8 * nodes);
            let (length, front) = (usize::from(first >> 2 & 7), 1 + nodes as usize);
            let sizes = 1 << (first >> 5 & 3);
            let end = front + bytes_of_address(length) + sizes;
            let size = match sizes {
                1 | 2 if end <= limit => {
                    (window >> (8 * (end - sizes))) as u64 & 0xffff >> (16 - 8 * sizes)
                }
                _ => padded(rest.get(end - sizes..end)?)? as u64,
            };
            let raw = (window >> (8 * front)) as u64;
            self.position += end;
            let ptr = self.address(length, raw);
            return Some(Record::Alloc { node, ptr, size, by: Request::MALLOC });
        }
        if first & 0xe0 == FREE {
            let kind = FreeKind::of(first >> 3 & 3);
            let (length, raw) = (usize::from(first & 7), (window >> 8) as u64);
            let end = 1 + bytes_of_address(length);
            let short = (window >> (8 * end)) as u32;
            let (node, bytes) = match short & 0x80 {
                0 if end < limit => (short & 0x7f, 1),
                _ => node(rest.get(end..)?)?,
            };
            self.position += end + bytes;
            return Some(Record::Free { ptr: self.address(length, raw), kind, node });
        }
        self.rare(rest)
    }

    /// The address that stands in the first bytes of `raw`.
    #[inline(always)]
    fn address(&mut self, length: usize, raw: u64) -> u64 {
        if length == WHOLE_ADDRESS {
            self.unit = raw >> ADDRESS_SHIFT;
            return raw;
        }
        let difference = zigzag(raw & ((1 << (8 * length)) - 1));
        self.unit = self.unit.wrapping_add(difference);
        self.unit << ADDRESS_SHIFT
    }

    /// Everything but an allocation and a free.
    #[inline(never)]
    fn rare<'a>(&mut self, rest: &'a [u8]) -> Option<Record<'a>> {
        let mut bytes = Bytes { rest };
        let record = match bytes.byte()? {
            first if first & 0xe0 == op::FAMILY => {
                let family = Family::of(first & 0x1f)?;
                let alignment = if family.has_alignment() { bytes.varint()? } else { 0 };
                return self.allocation(rest, bytes.rest, Request { family, alignment });
            }
            op::STAMP => Record::Stamp(bytes.varint()?),
            op::NODE => {
                let (up, difference) = (bytes.varint()?, bytes.varint()?);
                self.address = self.address.wrapping_add(zigzag(difference));
                Record::Node { up, address: self.address }
            }
            op::REALLOC => {
                let outcome = Outcome::of(bytes.byte()?)?;
                let length = usize::from(bytes.byte().filter(|a| *a <= 7)?);
                let stored = bytes.take(if length == WHOLE_ADDRESS { 8 } else { length })?;
                let raw = padded(stored).unwrap_or(0) as u64;
                let node = u32::try_from(bytes.varint()?).ok()?;
                Record::Realloc { outcome, ptr: self.address(length, raw), node }
            }
            op::FAILED => {
                let node = u32::try_from(bytes.varint()?).ok()?;
                let (size, ptr) = (bytes.varint()?, bytes.varint()?);
                Record::Failed { node, ptr, size, by: Request::MALLOC }
            }
            op::TEXT => {
                let length = bytes.byte().filter(|length| *length > 0)?;
                Record::Text(bytes.take(length.into())?)
            }
            op::THREAD => Record::Thread(u32::try_from(bytes.varint()?).ok()?),
            op::FORGET => Record::Forget,
            op::RESIDENT => Record::Resident(bytes.varint()?),
            _ => return None,
        };
        self.position += rest.len() - bytes.rest.len();
        Some(record)
    }

    /// The allocation that follows the FAMILY at the front of `from`. Nothing else may.
    fn allocation<'a>(
        &mut self,
        from: &'a [u8],
        rest: &'a [u8],
        by: Request,
    ) -> Option<Record<'a>> {
        let mut decoder = Decoder { position: 0, ..*self };
        let first = *rest.first()?;
        if first & ALLOC == 0 && first != op::FAILED {
            return None;
        }
        let record = match decoder.next(rest)? {
            Record::Alloc { node, ptr, size, .. } => Record::Alloc { node, ptr, size, by },
            Record::Failed { node, ptr, size, .. } => Record::Failed { node, ptr, size, by },
            _ => return None,
        };
        let position = self.position + (from.len() - rest.len()) + decoder.position;
        *self = Decoder { position, ..decoder };
        Some(record)
    }
}

/// The varint of a node, and its length.
#[inline(never)]
fn node(bytes: &[u8]) -> Option<(u32, usize)> {
    let mut rest = Bytes { rest: bytes };
    let node = u32::try_from(rest.varint()?).ok()?;
    Some((node, bytes.len() - rest.rest.len()))
}

/// Bytes of an address of this length.
#[inline(always)]
const fn bytes_of_address(length: usize) -> usize {
    if length == WHOLE_ADDRESS { 8 } else { length }
}

/// Up to [`WINDOW`] bytes, with zeros behind them; `None` where there are none.
#[cold]
fn padded(bytes: &[u8]) -> Option<u128> {
    if bytes.is_empty() {
        return None;
    }
    let mut window = [0; WINDOW];
    for (place, byte) in window.iter_mut().zip(bytes) {
        *place = *byte;
    }
    Some(u128::from_le_bytes(window))
}

/// 0, -1, 1, -2, ... for 0, 1, 2, 3, ...; what is negative wraps around.
#[inline(always)]
const fn zigzag(value: u64) -> u64 {
    (value >> 1) ^ (value & 1).wrapping_neg()
}

/// Bytes from the front of a slice.
struct Bytes<'a> {
    rest: &'a [u8],
}

impl<'a> Bytes<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*byte)
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(taken)
    }

    /// LEB128; what does not fit into 64 bits is none.
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                return None;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
}

/// What a return address of a node stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Address {
    /// Frames were left out.
    Cut,
    /// The walk ended without reaching the root.
    Ended,
    /// A return address.
    Return(u64),
}

impl Address {
    /// What `address` stands for.
    pub fn of(address: u64) -> Address {
        match address {
            FRAMES_CUT => Address::Cut,
            WALK_ENDED => Address::Ended,
            address => Address::Return(address),
        }
    }
}

#[cfg(test)]
mod tests;
