//! What a kill at any instruction of `lose` leaves: each event there to be read, or counted.

use core::sync::atomic::AtomicPtr;

use mtr_format::compact::encode::{self, Address};
use mtr_format::tail;

use super::*;
use crate::stepping::at_each_instruction;

const EVENTS: u32 = 3;

static RECORDS: AtomicPtr<u8> = AtomicPtr::new(null_mut());
static NEITHER: AtomicU32 = AtomicU32::new(0);
static BOTH: AtomicU32 = AtomicU32::new(0);
static UNEXPLAINED: AtomicU32 = AtomicU32::new(0);

/// A field in the header of the slot.
fn field(at: usize) -> u32 {
    let slot = RECORDS.load(Ordering::Relaxed).wrapping_sub(chunk::HEADER);
    // SAFETY: the slot of the test, its fields at their natural alignment.
    unsafe { (*slot.add(at).cast::<AtomicU32>()).load(Ordering::Relaxed) }
}

fn look() {
    let (lost, errno) = file::lost();
    let is_counted = lost >= EVENTS.into();
    let is_there = field(chunk::LENGTH) > 0;
    NEITHER.fetch_add(u32::from(!is_counted && !is_there), Ordering::Relaxed);
    BOTH.fetch_add(u32::from(is_counted && is_there), Ordering::Relaxed);
    UNEXPLAINED.fetch_add(u32::from(lost > 0 && errno == 0), Ordering::Relaxed);
}

#[test]
fn events_that_are_lost_are_counted_before_they_are_given_up() {
    let page = |bytes: usize| sys::map_anonymous(bytes).unwrap();
    let (front, slot) = (page(tail::SLOTS), page(chunk::CHUNK));
    let (mut previous, mut bytes) = (0, Vec::new());
    for at in 1..=u64::from(EVENTS) {
        let address = Address::behind(&mut previous, at * 64);
        bytes.extend_from_slice(encode::alloc(1, address, 100).bytes());
    }
    let header = chunk::Header { length: bytes.len() as u32, ..chunk::Header::default() };
    // SAFETY: the slot is longer, and nobody else knows it.
    let records = unsafe {
        slot.copy_from_nonoverlapping(header.encode().as_ptr(), chunk::HEADER);
        let records = slot.add(chunk::HEADER);
        records.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        records
    };
    RECORDS.store(records, Ordering::Relaxed);
    let prepare = || file::count_in(front);
    // SAFETY: the records of a slot.
    let steps = at_each_instruction(prepare, || unsafe { lose(records, libc::EIO) }, look);
    assert!(steps > 30, "{steps}");
    let seen = |what: &AtomicU32| what.load(Ordering::Relaxed);
    assert_eq!((seen(&NEITHER), seen(&UNEXPLAINED)), (0, 0));
    assert!(seen(&BOTH) > 0, "it was looked at in between");
    assert_eq!((file::lost(), field(chunk::LENGTH)), ((EVENTS.into(), libc::EIO), 0));
    assert_eq!(field(chunk::LOST), EVENTS, "the next chunk says what was lost before it");
}
