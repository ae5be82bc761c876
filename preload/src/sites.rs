//! Call sites: the WHERE text of a line, made once per return address.
//!
//! A hash table without locks: readers probe it on every event, writers claim an entry, fill it and
//! publish its key. What a table refers to is never freed or moved, so a reader needs no protection;
//! it checks that the text it found is the one for its key, because a stale entry may be taken over
//! while it looks.

use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use crate::global::Text;
use crate::hot::HOT;
use crate::{modules, sys};

/// Longest WHERE text. A path so long that it does not fit is cut there; the `# module` line has
/// it whole.
///
/// A buffer of this size is on the program's stack while a call site is met for the first time.
pub(crate) const MAX_TEXT: usize = 640;

/// Bits of a return address; the rest of a key is the generation.
const ADDRESS_BITS: u32 = 48;

/// Key of an entry that is being written.
const CLAIMED: u64 = u64::MAX;

/// Entries looked at before the table is said not to have a key.
const PROBES: usize = 16;

/// The WHERE text of one call site, behind this header.
#[repr(C, align(8))]
struct Site {
    key: AtomicU64,
    /// Length, and [`IS_RUNTIME`].
    len: u32,
    text: [u8; 0],
}

/// Bit of a length: the call site is in a runtime (modules.rs).
const IS_RUNTIME: u32 = 1 << 31;

/// A WHERE text: `@ FILE:(SYMBOL+0x1d)[0xADDR] `.
#[derive(Clone, Copy)]
pub(crate) struct Where {
    text: *const u8,
    /// Length, and [`IS_RUNTIME`].
    len: u32,
}

impl Where {
    #[inline(always)]
    pub(crate) fn as_ptr(&self) -> *const u8 {
        self.text
    }

    #[inline(always)]
    pub(crate) fn len(&self) -> usize {
        (self.len & !IS_RUNTIME) as usize
    }

    /// Whether it names a place in libc, libstdc++ or the like.
    #[inline(always)]
    pub(crate) fn is_runtime(&self) -> bool {
        self.len & IS_RUNTIME != 0
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        // SAFETY: made from a text of that length which lives as long as the borrow of `self`
        // (in a table for good, or in the buffer of the hook that asked for it).
        unsafe { core::slice::from_raw_parts(self.text, self.len()) }
    }
}

/// Room for the text of a call site that must not be cached.
pub(crate) type Buffer = Text<MAX_TEXT>;

#[repr(C)]
struct Entry {
    key: AtomicU64,
    site: AtomicPtr<Site>,
}

/// Header of a table; its entries follow.
#[repr(C, align(64))]
pub(crate) struct Table {
    /// log2 of the number of entries.
    bits: u32,
    /// Entries in use, stale ones included.
    used: AtomicU32,
    entries: [Entry; 0],
}

/// Dlclose calls under way: what is found meanwhile may be another module a moment later.
static UNLOADING: AtomicUsize = AtomicUsize::new(0);
static GROWING: AtomicBool = AtomicBool::new(false);

impl Table {
    fn allocate(bits: u32) -> Option<&'static Table> {
        let len = size_of::<Table>() + (size_of::<Entry>() << bits);
        let table = sys::map_anonymous(len).ok()?.cast::<Table>();
        // SAFETY: a new zeroed mapping of that size, page-aligned, never unmapped; zeros are valid
        // entries (no key).
        unsafe {
            (*table).bits = bits;
            Some(&*table)
        }
    }

    #[inline(always)]
    fn entry(&self, index: u64) -> &Entry {
        let mask = (1u64 << self.bits) - 1;
        // SAFETY: `1 << bits` entries follow the header.
        unsafe { &*(&raw const self.entries).cast::<Entry>().add((index & mask) as usize) }
    }

    #[inline(always)]
    fn first_index(&self, key: u64) -> u64 {
        // The multiplier is 2^64 / golden ratio (Knuth): spreads neighbouring addresses.
        key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - self.bits)
    }

    #[inline(always)]
    fn get(&self, key: u64) -> Option<Where> {
        let first = self.first_index(key);
        for probe in 0..PROBES as u64 {
            let entry = self.entry(first + probe);
            let found = entry.key.load(Ordering::Acquire);
            if found == key {
                // SAFETY: a published entry points to a site, and sites are never freed.
                let site = unsafe { &*entry.site.load(Ordering::Acquire) };
                if site.key.load(Ordering::Relaxed) == key {
                    return Some(Where { text: (&raw const site.text).cast(), len: site.len });
                }
                return None;
            }
            if found == 0 {
                return None;
            }
        }
        None
    }

    /// Enters a site under its key, taking over an entry of an earlier generation where there is
    /// one. False when the neighbourhood is full.
    fn insert(&self, key: u64, text: &[u8], flags: u32) -> bool {
        let first = self.first_index(key);
        for probe in 0..PROBES as u64 {
            let entry = self.entry(first + probe);
            let old = entry.key.load(Ordering::Acquire);
            if old == key {
                return true;
            }
            let free = old == 0 || (old != CLAIMED && old >> ADDRESS_BITS != key >> ADDRESS_BITS);
            let (order, otherwise) = (Ordering::AcqRel, Ordering::Relaxed);
            if !free || entry.key.compare_exchange(old, CLAIMED, order, otherwise).is_err() {
                continue;
            }
            if old == 0 {
                self.used.fetch_add(1, Ordering::Relaxed);
            }
            let site = match entry.site.load(Ordering::Acquire) {
                // The same place in another generation: dlclose removed some other module.
                site if !site.is_null() && site_text(site) == text => {
                    // SAFETY: sites are never freed.
                    unsafe { (*site).key.store(key, Ordering::Release) };
                    Some(site)
                }
                _ => new_site(key, text, flags),
            };
            let Some(site) = site else {
                entry.key.store(old, Ordering::Release);
                return false;
            };
            entry.site.store(site, Ordering::Release);
            entry.key.store(key, Ordering::Release);
            return true;
        }
        false
    }
}

fn site_text(site: *const Site) -> &'static [u8] {
    // SAFETY: called for sites in a table only: never freed, `len` bytes of text behind the header.
    unsafe {
        let len = (*site).len & !IS_RUNTIME;
        core::slice::from_raw_parts((&raw const (*site).text).cast(), len as usize)
    }
}

fn new_site(key: u64, text: &[u8], flags: u32) -> Option<*mut Site> {
    let site = arena::allocate(size_of::<Site>() + text.len())?.cast::<Site>();
    // SAFETY: fresh memory of that size, aligned to 8, which nobody else knows.
    unsafe {
        (*site).key = AtomicU64::new(key);
        (*site).len = text.len() as u32 | flags;
        (&raw mut (*site).text).cast::<u8>().copy_from_nonoverlapping(text.as_ptr(), text.len());
    }
    Some(site)
}

/// Memory that is never given back.
mod arena {
    use super::{AtomicPtr, AtomicUsize, Ordering};
    use crate::sys;

    const CHUNK: usize = 1 << 16;

    /// The first bytes of a chunk say how much of it is taken.
    static CURRENT: AtomicPtr<AtomicUsize> = AtomicPtr::new(core::ptr::null_mut());

    /// `len` bytes aligned to 8; `len` is much smaller than a chunk.
    pub(super) fn allocate(len: usize) -> Option<*mut u8> {
        let len = len.next_multiple_of(8);
        loop {
            let chunk = CURRENT.load(Ordering::Acquire);
            if !chunk.is_null() {
                // SAFETY: chunks are never unmapped.
                let at = unsafe { (*chunk).fetch_add(len, Ordering::Relaxed) };
                if at + len <= CHUNK {
                    // SAFETY: inside the chunk.
                    return Some(unsafe { chunk.cast::<u8>().add(at) });
                }
            }
            let new = sys::map_anonymous(CHUNK).ok()?.cast::<AtomicUsize>();
            // SAFETY: a new mapping; nobody else knows it yet.
            unsafe { (*new).store(size_of::<usize>(), Ordering::Relaxed) };
            let (order, otherwise) = (Ordering::AcqRel, Ordering::Relaxed);
            if CURRENT.compare_exchange(chunk, new, order, otherwise).is_err() {
                // SAFETY: nobody else knows it.
                unsafe { sys::unmap(new.cast(), CHUNK) };
            }
        }
    }
}

/// Gives this process an empty table. False when there is no memory.
pub(crate) fn start() -> bool {
    let Some(table) = Table::allocate(12) else { return false };
    GROWING.store(false, Ordering::Relaxed);
    UNLOADING.store(0, Ordering::Relaxed);
    HOT.generation.store(0, Ordering::Relaxed);
    HOT.sites.store((&raw const *table).cast_mut(), Ordering::Release);
    true
}

#[inline(always)]
fn key(return_address: usize) -> u64 {
    return_address as u64 ^ HOT.generation.load(Ordering::Relaxed)
}

/// `None` in a child that a signal handler forked while the hook below it was at work.
#[inline(always)]
fn table() -> Option<&'static Table> {
    // SAFETY: set before recording is switched on, never freed.
    unsafe { HOT.sites.load(Ordering::Acquire).as_ref() }
}

/// The WHERE text for a return address, from the table.
#[inline(always)]
pub(crate) fn get(return_address: usize) -> Option<Where> {
    table()?.get(key(return_address))
}

/// The WHERE text for a return address, made anew; entered into the table if it is to stay.
#[cold]
#[inline(never)]
pub(crate) fn make(return_address: usize, buffer: &mut Buffer) -> Where {
    let key = key(return_address);
    let is_runtime = modules::describe(return_address, buffer);
    let flags = if is_runtime { IS_RUNTIME } else { 0 };
    let is_lasting = UNLOADING.load(Ordering::Acquire) == 0;
    if let Some(table) = table().filter(|_| is_lasting && return_address >> ADDRESS_BITS == 0) {
        let full = table.used.load(Ordering::Relaxed) as usize * 2 > 1 << table.bits;
        if full || !table.insert(key, buffer.as_bytes(), flags) {
            grow(table);
        }
    }
    Where { text: buffer.as_bytes().as_ptr(), len: buffer.as_bytes().len() as u32 | flags }
}

/// Replaces the table by one four times as large; call sites come back as they are met. The old one
/// stays, because somebody may be reading it: all of them together are a third of the last.
fn grow(table: &'static Table) {
    if table.bits >= 24 || GROWING.swap(true, Ordering::AcqRel) {
        return;
    }
    if let Some(larger) = Table::allocate(table.bits + 2) {
        for index in 0..1u64 << table.bits {
            let key = table.entry(index).key.load(Ordering::Acquire);
            if let Some(place) = (key != 0 && key != CLAIMED).then(|| table.get(key)).flatten() {
                larger.insert(key, place.as_bytes(), place.len & IS_RUNTIME);
            }
        }
        HOT.sites.store((&raw const *larger).cast_mut(), Ordering::Release);
    }
    GROWING.store(false, Ordering::Release);
}

/// To be called around a real dlclose: between the two, and for what was cached before them,
/// addresses are looked up anew.
pub(crate) fn begin_unload() {
    UNLOADING.fetch_add(1, Ordering::AcqRel);
}

/// See [`begin_unload`]. `unloaded` tells whether a module went away.
pub(crate) fn end_unload(unloaded: bool) {
    if unloaded {
        HOT.generation.fetch_add(1 << ADDRESS_BITS, Ordering::AcqRel);
    }
    UNLOADING.fetch_sub(1, Ordering::AcqRel);
}
