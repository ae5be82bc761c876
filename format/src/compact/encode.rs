//! Records -> bytes. What every event needs is a word that can be stored at once; the rest goes into
//! a buffer.

use core::num::NonZeroU32;

use super::op::{self, Family, FreeKind, Outcome};

/// Bytes of the largest record but TEXT.
pub const MAX_RECORD: usize = 48;

/// Up to eight bytes of a record, the first in the lowest bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Short {
    /// The bytes; those beyond `len` are 0.
    pub bytes: u64,
    /// How many, 8 at most.
    pub len: u32,
}

/// How the address of an event is stated: as a difference, or as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// Zigzag difference in units of 16 bytes, or the address itself.
    value: u64,
    /// Bytes of it, as the first byte of a record states them.
    code: u32,
}

/// Code of an address that is stated as it is, in eight bytes.
const WHOLE: u32 = op::WHOLE_ADDRESS as u32;
/// Bits of a zigzag difference.
const DIFFERENCE_BITS: u32 = 8 * op::MAX_DIFFERENCE as u32;

impl Address {
    /// The statement of `ptr` behind an event at `previous`, in units of 16 bytes; what the next one
    /// is a difference to becomes `previous`.
    #[inline(always)]
    pub fn behind(previous: &mut u64, ptr: u64) -> Address {
        let unit = ptr >> 4;
        let difference = unit.wrapping_sub(*previous) as i64;
        let value = (difference << 1 ^ difference >> 63) as u64;
        *previous = unit;
        if ptr & 15 != 0 || value >> DIFFERENCE_BITS != 0 {
            return Address { value: ptr, code: WHOLE };
        }
        Address { value, code: (bits(value) + 7) >> 3 }
    }

    fn len(self) -> usize {
        if self.code == WHOLE { 8 } else { self.code as usize }
    }
}

/// Bits of a number; 0 has none.
#[inline(always)]
fn bits(value: u64) -> u32 {
    63 - (value << 1 | 1).leading_zeros()
}

/// What the record of each allocation at a node begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub struct AllocHead(u64);

impl AllocHead {
    /// Of the allocations at `node`.
    #[inline(always)]
    pub fn of(node: u32) -> AllocHead {
        AllocHead(u64::from(node) << 8 | u64::from(op::ALLOC) | u64::from(node_len(node) - 1))
    }

    /// Bytes of the first byte and the node.
    #[inline(always)]
    fn len(self) -> u32 {
        2 + (self.0 as u32 & 3)
    }
}

/// An allocation in three pieces, each of which is stored behind the one before; `None` when it is
/// none of the usual ones.
#[inline(always)]
pub fn short_alloc(head: AllocHead, address: Address, size: u64) -> Option<[Short; 3]> {
    if address.code == WHOLE || size > 0xffff {
        return None;
    }
    let is_long = u32::from(size > 0xff);
    let codes = is_long << 5 | address.code << 2;
    Some([
        Short { bytes: head.0 | u64::from(codes), len: head.len() },
        Short { bytes: address.value, len: address.code },
        Short { bytes: size, len: 1 + is_long },
    ])
}

/// The family of the allocation that follows; `None` of one that has an alignment.
#[inline(always)]
pub fn short_family(family: Family) -> Option<Short> {
    let bytes = u64::from(op::FAMILY | family as u8);
    (!family.has_alignment()).then_some(Short { bytes, len: 1 })
}

/// Bytes of a node of an ALLOC.
#[inline(always)]
fn node_len(node: u32) -> u32 {
    1 + (31 - (node | 1).leading_zeros()) / 8
}

/// What the record of each free that is called at a node ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub struct FreeTail(
    /// A varint of three bytes at most, and its length above them.
    NonZeroU32,
);

impl FreeTail {
    /// Of the frees that are called at `node`; `None` when it is none of the usual ones.
    #[inline(always)]
    pub fn of(node: u32) -> Option<FreeTail> {
        let tail = match node {
            0..0x80 => node | 1 << 24,
            0x80..0x4000 => node & 0x7f | 0x80 | node >> 7 << 8 | 2 << 24,
            0x4000..0x20_0000 => {
                node & 0x7f | 0x80 | (node >> 7 & 0x7f | 0x80) << 8 | node >> 14 << 16 | 3 << 24
            }
            _ => 0,
        };
        NonZeroU32::new(tail).map(FreeTail)
    }
}

/// A free in two pieces; `None` when it is none of the usual ones.
#[inline(always)]
pub fn short_free(address: Address, kind: FreeKind, tail: FreeTail) -> Option<[Short; 2]> {
    if address.code == WHOLE {
        return None;
    }
    let first = u64::from(op::FREE) | (kind as u64) << 3 | u64::from(address.code);
    Some([
        Short { bytes: first | address.value << 8, len: 1 + address.code },
        Short { bytes: u64::from(tail.0.get() & 0xff_ffff), len: tail.0.get() >> 24 },
    ])
}

/// Bytes of one record.
#[derive(Debug, Clone)]
pub struct Buffer {
    bytes: [u8; MAX_RECORD],
    len: usize,
}

impl Buffer {
    /// What is in it.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&self.bytes)
    }

    fn new(first: u8) -> Buffer {
        let mut buffer = Buffer { bytes: [0; MAX_RECORD], len: 0 };
        buffer.push(first);
        buffer
    }

    fn push(&mut self, byte: u8) {
        if let Some(place) = self.bytes.get_mut(self.len) {
            *place = byte;
            self.len += 1;
        }
    }

    fn varint(mut self, mut value: u64) -> Buffer {
        while value >= 0x80 {
            self.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.push(value as u8);
        self
    }

    fn zigzag(self, value: i64) -> Buffer {
        self.varint((value << 1 ^ value >> 63) as u64)
    }

    fn fixed(mut self, value: u64, len: usize) -> Buffer {
        value.to_le_bytes().into_iter().take(len).for_each(|byte| self.push(byte));
        self
    }
}

/// An allocation of any kind.
pub fn alloc(node: u32, address: Address, size: u64) -> Buffer {
    let node_len = node_len(node);
    let (code, size_len) = match size {
        0..0x100 => (0, 1),
        0x100..0x1_0000 => (1, 2),
        0x1_0000..0x1_0000_0000 => (2, 4),
        _ => (3, 8),
    };
    Buffer::new(op::ALLOC | (code << 5 | address.code << 2 | (node_len - 1)) as u8)
        .fixed(node.into(), node_len as usize)
        .fixed(address.value, address.len())
        .fixed(size, size_len)
}

/// The family of the allocation that follows.
pub fn family(family: Family, alignment: u64) -> Buffer {
    let buffer = Buffer::new(op::FAMILY | family as u8);
    if family.has_alignment() { buffer.varint(alignment) } else { buffer }
}

/// A free of any kind.
pub fn free(address: Address, kind: FreeKind, node: u32) -> Buffer {
    Buffer::new(op::FREE | (kind as u8) << 3 | address.code as u8)
        .fixed(address.value, address.len())
        .varint(node.into())
}

/// Where in a REALLOC its outcome is.
pub const OUTCOME_AT: usize = 1;

/// A realloc, called at `node`.
pub fn realloc(address: Address, outcome: Outcome, node: u32) -> Buffer {
    let mut buffer = Buffer::new(op::REALLOC);
    buffer.push(outcome as u8);
    buffer.push(address.code as u8);
    buffer.fixed(address.value, address.len()).varint(node.into())
}

/// An allocation that failed; `ptr` is the block that lives on, 0 for none.
pub fn failed(node: u32, size: u64, ptr: u64) -> Buffer {
    Buffer::new(op::FAILED).varint(node.into()).varint(size).varint(ptr)
}

/// The definition of node `number`. `previous` is the return address of the one defined before it in
/// this chunk.
pub fn node(number: u32, parent: u32, address: u64, previous: u64) -> Buffer {
    Buffer::new(op::NODE)
        .varint(number.wrapping_sub(parent).into())
        .zigzag(address.wrapping_sub(previous) as i64)
}

/// The thread that the stream belongs to from here on.
pub fn thread(id: u32) -> Buffer {
    Buffer::new(op::THREAD).varint(id.into())
}

/// What was numbered so far is forgotten.
pub fn forget() -> Buffer {
    Buffer::new(op::FORGET)
}

/// A new stamp.
pub fn stamp(ticks_since_the_last: u64) -> Buffer {
    Buffer::new(op::STAMP).varint(ticks_since_the_last)
}

/// Resident memory.
pub fn resident(bytes: u64) -> Buffer {
    Buffer::new(op::RESIDENT).varint(bytes)
}

/// A new stamp in eight bytes; `None` when it needs more.
#[inline(always)]
pub fn short_stamp(ticks_since_the_last: u64) -> Option<Short> {
    if ticks_since_the_last >> 49 != 0 {
        return None;
    }
    let (mut bytes, mut len, mut rest) = (u64::from(op::STAMP), 1, ticks_since_the_last);
    while rest >= 0x80 {
        bytes |= (rest & 0x7f | 0x80) << (8 * len);
        rest >>= 7;
        len += 1;
    }
    Some(Short { bytes: bytes | rest << (8 * len), len: len + 1 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn bytes_of(pieces: &[Short]) -> Vec<u8> {
        pieces
            .iter()
            .flat_map(|piece| piece.bytes.to_le_bytes()[..piece.len as usize].to_vec())
            .collect()
    }

    proptest! {
        #[test]
        fn records_in_pieces_are_those_of_the_general_way(
            (node, bits) in (any::<u32>(), 0u32..32),
            (ptr, previous) in (any::<u64>(), any::<u64>()),
            (distance, size) in (0u32..64, any::<u64>()),
        ) {
            let node = node >> bits;
            let (ptr, previous) = (ptr << 4, (ptr ^ previous >> distance) << 4);
            let address = || Address::behind(&mut (previous >> 4), ptr);
            let size = size >> distance;
            if let Some(pieces) = short_alloc(AllocHead::of(node), address(), size) {
                prop_assert_eq!(bytes_of(&pieces), alloc(node, address(), size).bytes().to_vec());
            } else {
                prop_assert!(address().code == WHOLE || size > 0xffff);
            }
            for family in (0..16).filter_map(Family::of) {
                let pieces = short_family(family);
                prop_assert_eq!(pieces.is_some(), !family.has_alignment());
                if let Some(piece) = pieces {
                    prop_assert_eq!(bytes_of(&[piece]), super::family(family, 0).bytes().to_vec());
                }
            }
            let tail = FreeTail::of(node);
            prop_assert_eq!(tail.is_some(), node < 0x20_0000);
            for kind in [FreeKind::Free, FreeKind::DeleteArray] {
                let pieces = tail.and_then(|tail| short_free(address(), kind, tail));
                prop_assert_eq!(pieces.is_some(), tail.is_some() && address().code != WHOLE);
                if let Some(pieces) = pieces {
                    prop_assert_eq!(bytes_of(&pieces), free(address(), kind, node).bytes().to_vec());
                }
            }
        }
    }
}
