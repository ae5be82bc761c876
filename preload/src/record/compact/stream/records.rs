//! What is stored in a stream: one function for each kind of record.

use core::sync::atomic::Ordering;

use mtr_format::compact::chunk::{self, Stated};
use mtr_format::compact::encode::{self, Address, AllocHead, FreeTail, Short};
use mtr_format::compact::op::{Family, FreeKind, MAX_TEXT, Outcome, TEXT};

use super::super::Attempt;
use super::{CAPACITY, DEFINITION, EVENT, Stream, lose};
use crate::lifecycle;

/// Largest allocation that may do without a stamp of its own. One that is larger makes the peak more
/// often than not, and costs the allocator more than a stamp.
const SMALL: usize = 0xffff;

impl Stream {
    /// Stores an allocation.
    #[inline(always)]
    pub(in crate::record::compact) fn alloc(&mut self, node: u32, size: usize, ptr: usize) {
        if !self.begin_record(EVENT) {
            return lose();
        }
        self.order(ptr);
        let address = Address::behind(&mut self.previous, ptr as u64);
        match encode::short_alloc(AllocHead::of(node), address, size as u64) {
            Some(pieces) => self.append(pieces),
            None => self.append_long_alloc(node, address, size),
        }
        self.end_record();
    }

    #[cold]
    #[inline(never)]
    fn append_long_alloc(&mut self, node: u32, address: Address, size: usize) {
        // Not where it would begin a chunk, to which the address is no difference.
        if size > SMALL && self.len + 2 * EVENT <= CAPACITY {
            self.stamp_now();
        }
        self.append_bytes(encode::alloc(node, address, size as u64).bytes());
    }

    #[cold]
    #[inline(never)]
    fn append_long_free(&mut self, node: u32, address: Address, kind: FreeKind) {
        self.append_bytes(encode::free(address, kind, node).bytes());
    }

    /// As [`Stream::alloc`], of another function than malloc.
    #[inline]
    pub(in crate::record::compact) fn alloc_by(
        &mut self,
        family: Family,
        alignment: usize,
        node: u32,
        size: usize,
        ptr: usize,
    ) {
        if !self.begin_record(EVENT + DEFINITION) {
            return lose();
        }
        if size > SMALL {
            self.stamp_now();
        }
        self.order(ptr);
        let address = Address::behind(&mut self.previous, ptr as u64);
        let alloc = encode::short_alloc(AllocHead::of(node), address, size as u64);
        match (encode::short_family(family), alloc) {
            (Some(family), Some([a, b, c])) => self.append([family, a, b, c]),
            _ => self.append_long_alloc_by(family, alignment, node, address, size),
        }
        self.end_record();
    }

    #[cold]
    #[inline(never)]
    fn append_long_alloc_by(
        &mut self,
        family: Family,
        alignment: usize,
        node: u32,
        address: Address,
        size: usize,
    ) {
        let family = encode::family(family, alignment as u64);
        let alloc = encode::alloc(node, address, size as u64);
        self.append_parts(&[family.bytes(), alloc.bytes()]);
    }

    /// Whether a short record about `ptr` has room and needs no stamp, so that storing it takes no
    /// call.
    #[inline(always)]
    pub(in crate::record::compact) fn is_ready_for(&self, ptr: usize) -> bool {
        self.len + EVENT <= self.limit() && self.goes_on_in_order(ptr)
    }

    /// As [`Stream::alloc`], if it [is ready](Stream::is_ready_for) and the record is short.
    #[inline(always)]
    pub(in crate::record::compact) fn alloc_usually(
        &mut self,
        head: AllocHead,
        size: usize,
        ptr: usize,
    ) -> Attempt {
        let mut previous = self.previous;
        let address = Address::behind(&mut previous, ptr as u64);
        self.store_usually(encode::short_alloc(head, address, size as u64), previous)
    }

    /// As [`Stream::free`], if it [is ready](Stream::is_ready_for) and the record is short.
    #[inline(always)]
    pub(in crate::record::compact) fn free_usually(
        &mut self,
        tail: FreeTail,
        ptr: usize,
        kind: FreeKind,
    ) -> Attempt {
        let mut previous = self.previous;
        let address = Address::behind(&mut previous, ptr as u64);
        self.store_usually(encode::short_free(address, kind, tail), previous)
    }

    #[inline(always)]
    fn store_usually<const N: usize>(
        &mut self,
        pieces: Option<[Short; N]>,
        previous: u64,
    ) -> Attempt {
        let Some(pieces) = pieces else { return Attempt::Failed };
        self.until_stamp -= 1;
        self.previous = previous;
        self.append(pieces);
        match self.limit() {
            0 => Attempt::Unfinished,
            _ => Attempt::Done,
        }
    }

    /// Stores a free, called at `node`.
    #[inline(always)]
    pub(in crate::record::compact) fn free(&mut self, node: u32, ptr: usize, kind: FreeKind) {
        if !self.begin_record(EVENT) {
            return lose();
        }
        self.order(ptr);
        let address = Address::behind(&mut self.previous, ptr as u64);
        match FreeTail::of(node).and_then(|tail| encode::short_free(address, kind, tail)) {
            Some(pieces) => self.append(pieces),
            None => self.append_long_free(node, address, kind),
        }
        self.end_record();
    }

    /// Stores a realloc, called at `node`. The place of its outcome, if it has one; as long as that is
    /// open the record has not ended.
    #[inline]
    pub(in crate::record::compact) fn realloc(
        &mut self,
        node: u32,
        ptr: usize,
        outcome: Outcome,
    ) -> Option<*mut u8> {
        if !self.begin_record(EVENT) {
            lose();
            return None;
        }
        self.order(ptr);
        let address = Address::behind(&mut self.previous, ptr as u64);
        let at = self.len as usize + encode::OUTCOME_AT;
        self.append_bytes(encode::realloc(address, outcome, node).bytes());
        // Who ends the process may have closed the stream by now: what is written then stays as it is.
        if outcome != Outcome::Open {
            self.end_record();
        }
        // SAFETY: inside the record, which is inside the chunk.
        Some(unsafe { self.records().add(at) })
    }

    /// Stores the outcome of the realloc that was stored last, which ends it.
    pub(in crate::record::compact) fn set_outcome(&self, place: *mut u8, outcome: Outcome) {
        if self.has_slot() {
            // SAFETY: what `realloc` returned; the chunk is the same, because nothing else was
            // stored in this stream meanwhile.
            unsafe { place.write_volatile(outcome as u8) };
            self.end_record();
        }
    }

    /// Stores an allocation that failed; `ptr` is the block that lives on.
    #[cold]
    pub(in crate::record::compact) fn failed(
        &mut self,
        family: Family,
        alignment: usize,
        node: u32,
        size: usize,
        ptr: usize,
    ) {
        self.store_event(2 * DEFINITION, |stream| {
            let failed = encode::failed(node, size as u64, ptr as u64);
            match family {
                Family::Malloc => stream.append_bytes(failed.bytes()),
                _ => {
                    let family = encode::family(family, alignment as u64);
                    stream.append_parts(&[family.bytes(), failed.bytes()]);
                }
            }
        });
    }

    /// Defines a node; its number.
    pub(in crate::record::compact) fn node(&mut self, parent: u32, address: u64) -> u32 {
        let mut number = 0;
        self.store(DEFINITION, |stream| {
            number = stream.nodes + 1;
            let record = encode::node(number, parent, address, stream.address);
            (stream.nodes, stream.address) = (number, address);
            stream.append_bytes(record.bytes());
        });
        number
    }

    /// Stores lines that are not records.
    #[cold]
    pub(in crate::record::compact) fn text(&mut self, parts: &[&[u8]]) {
        // The records of other threads that rely on them come after.
        if self.len > 0 {
            self.store_stamp();
        }
        let mut bytes = parts.iter().copied().flatten().copied();
        loop {
            let mut piece = [0; MAX_TEXT];
            let len = piece.iter_mut().zip(&mut bytes).map(|(place, byte)| *place = byte).count();
            if len == 0 {
                return;
            }
            let piece = piece.get(..len).unwrap_or(&[]);
            let head = [TEXT, len as u8];
            self.store(2 + MAX_TEXT as u32, |stream| {
                stream.append_parts(&[&head, piece]);
            });
        }
    }

    /// Stores lines in one record that are overwritten in the file; where its bytes are there if this is
    /// the front of the trace, else 0.
    #[cold]
    pub(in crate::record::compact) fn text_in_front(&mut self, lines: &[u8]) -> u64 {
        let mut at = 0;
        let head = [TEXT, lines.len() as u8];
        self.store(2 + MAX_TEXT as u32, |stream| {
            if stream.index == 0 && stream.number == 0 {
                at = chunk::HEADER as u16 + stream.len as u16 + head.len() as u16;
                let stated = Stated { at, length: lines.len() as u16 };
                stream.header_u32(chunk::STATED).store(stated.word(), Ordering::Relaxed);
            }
            stream.append_parts(&[&head, lines]);
        });
        at.into()
    }

    /// Notes the memory that the process has, now and then.
    #[cold]
    pub(super) fn sample(&mut self) {
        if let Some(bytes) = lifecycle::resident_memory_now_and_then() {
            self.put(DEFINITION, &encode::resident(bytes));
        }
    }
}
