//! Who used an address last, so that a thread knows when to take a stamp (docs/trace-format.md,
//! "Order").
//!
//! One byte for each 16 bytes of the address space, in leaves of 4 MiB that exist where the program
//! has blocks; only touched pages of them cost memory, a sixteenth of the heap. The byte of a block
//! is read and written by the thread that has the block in hand: after the real malloc, before the
//! real free. The program and its allocator order these accesses, as they order those to the block
//! itself, so they need no order of their own.
//!
//! A process with one stream has no table: there is nobody to take over from. What it used until the
//! second stream came has the byte 0, "nobody that is known".

use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, AtomicU8, Ordering};

use crate::hot::HOT;
use crate::sys;

/// Bits of an address that a leaf spans: as many as an arena of glibc has.
const LEAF_BITS: u32 = 26;
const LEAF_LEN: usize = 1 << (LEAF_BITS - 4);
/// Leaves of the lower half of the address space, which is the program's.
const LEAVES: usize = 1 << (47 - LEAF_BITS);

/// Bytes of a leaf, by address.
type Leaf = AtomicU8;
/// Leaves by address; NULL where there are no blocks.
pub(crate) type Table = AtomicPtr<Leaf>;

/// The marks of streams end here: those beyond take each address for another's.
const LAST_MARK: u32 = 254;

/// Mark of a stream.
pub(super) fn mark(stream: u32) -> u32 {
    stream.min(LAST_MARK) + 1
}

/// The table, once there is one. A fork's child keeps it; the kernel wipes its leaves.
static TABLE: AtomicPtr<Table> = AtomicPtr::new(null_mut());

/// Stands for the table where there is no memory for one: then every event has a stamp.
const NO_TABLE: *mut Table = core::ptr::without_provenance_mut(1);

/// To be called before a second stream stores an event.
#[cold]
pub(super) fn start() {
    const LEN: usize = LEAVES * size_of::<Table>();
    if TABLE.load(Ordering::Acquire).is_null()
        && let Ok(new) = sys::map_anonymous(LEN)
    {
        let (order, otherwise) = (Ordering::AcqRel, Ordering::Relaxed);
        if TABLE.compare_exchange(null_mut(), new.cast(), order, otherwise).is_err() {
            // SAFETY: just made, nobody knows it.
            unsafe { sys::unmap(new, LEN) };
        }
    }
    let table = TABLE.load(Ordering::Acquire);
    HOT.users.store(if table.is_null() { NO_TABLE } else { table }, Ordering::Release);
}

/// Makes the stream with this mark the last user of `ptr`. True unless it was already.
///
/// # Safety
/// `table` is what [`HOT`] has, and not NULL.
#[inline(always)]
pub(super) unsafe fn take_over(table: *const Table, ptr: usize, mark: u32) -> bool {
    let index = ptr >> LEAF_BITS;
    if index >= LEAVES || table == NO_TABLE {
        return true;
    }
    // SAFETY: a table has LEAVES entries.
    let leaf = unsafe { &*table.add(index) };
    let bytes = leaf.load(Ordering::Acquire);
    if bytes.is_null() {
        return first_use(leaf, ptr, mark);
    }
    // SAFETY: a leaf has LEAF_LEN bytes.
    let user = unsafe { &*bytes.add((ptr >> 4) % LEAF_LEN) };
    if u32::from(user.load(Ordering::Relaxed)) == mark && mark <= LAST_MARK {
        return false;
    }
    user.store(mark as u8, Ordering::Relaxed);
    true
}

/// Whether the stream with this mark is the last user of `ptr`, so that [`take_over`] would be false.
///
/// # Safety
/// As [`take_over`].
#[inline(always)]
pub(super) unsafe fn was_last(table: *const Table, ptr: usize, mark: u32) -> bool {
    let index = ptr >> LEAF_BITS;
    if index >= LEAVES || table == NO_TABLE || mark > LAST_MARK {
        return false;
    }
    // SAFETY: a table has LEAVES entries, a leaf LEAF_LEN bytes.
    unsafe {
        let bytes = (*table.add(index)).load(Ordering::Acquire);
        !bytes.is_null()
            && u32::from((*bytes.add((ptr >> 4) % LEAF_LEN)).load(Ordering::Relaxed)) == mark
    }
}

/// As [`take_over`], where there is no leaf yet.
#[cold]
#[inline(never)]
fn first_use(leaf: &Table, ptr: usize, mark: u32) -> bool {
    if let Ok(new) = sys::map_anonymous(LEAF_LEN) {
        // A child's threads are others.
        let is_wiped = sys::wipe_on_fork(new, LEAF_LEN).is_ok();
        let (order, otherwise) = (Ordering::AcqRel, Ordering::Acquire);
        let is_ours =
            is_wiped && leaf.compare_exchange(null_mut(), new.cast(), order, otherwise).is_ok();
        if !is_ours {
            // SAFETY: just made, nobody knows it.
            unsafe { sys::unmap(new, LEAF_LEN) };
        }
    }
    let bytes = leaf.load(Ordering::Acquire);
    if !bytes.is_null() {
        // SAFETY: a leaf has LEAF_LEN bytes.
        unsafe { (*bytes.add((ptr >> 4) % LEAF_LEN)).store(mark as u8, Ordering::Relaxed) };
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_used_an_address_last_does_not_take_it_over() {
        start();
        let table = HOT.users.load(Ordering::Acquire);
        let block = Box::new([0u8; 64]);
        let ptr = (block.as_ptr() as usize).next_multiple_of(16);
        // SAFETY: the table that `start` has published.
        let take = |ptr, stream| unsafe { take_over(table, ptr, mark(stream)) };
        // SAFETY: as above.
        let was_last = |ptr, stream| unsafe { was_last(table, ptr, mark(stream)) };
        let took = [0, 0, 1, 1, 0].map(|stream| {
            let expected = !was_last(ptr, stream);
            assert_eq!(take(ptr, stream), expected);
            expected
        });
        assert_eq!(took, [true, false, true, false, true]);
        assert_eq!([take(ptr + 16, 0), take(ptr, 0)], [true, false]);
    }

    #[test]
    fn streams_without_a_mark_of_their_own_take_everything_over() {
        start();
        let table = HOT.users.load(Ordering::Acquire);
        let block = Box::new([0u8; 64]);
        let ptr = block.as_ptr() as usize;
        // SAFETY: as above.
        let take = |ptr, stream| unsafe { take_over(table, ptr, mark(stream)) };
        let took = [1, 254, 254, 999, 1].map(|stream| take(ptr, stream));
        assert_eq!(took, [true; 5]);
        assert!(take(1 << 47, 0) && take(1 << 47, 0), "no address of the program's");
    }
}
