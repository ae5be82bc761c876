//! FDEs that no table lists: of modules that were linked without `.eh_frame_hdr`, or whose header has
//! no table that can be searched.
//!
//! They are found by walking `.eh_frame` from its beginning, which is slow, and where it begins only
//! the section headers in the module's file may say. So both is remembered, also that there was
//! nothing to find. The tables are emptied with that of the rules (cache.rs), and like there an entry
//! is one word, so that nobody sees half of one.
//!
//! What programs register with libgcc by themselves (`__register_frame`) nobody can ask for.

use core::sync::atomic::{AtomicU64, Ordering};

use super::cache::{PC_LIMIT, Rules, keep};
use super::eh_frame::{cursor_at, find_by_walking};
use crate::modules::{self, Module};
use crate::sys::silence;

/// Modules without a header that are remembered. More of them are taken for ones without CFI: to
/// open a file at each step would cost too much.
const MODULES: usize = 256;
const FDE_INDEX_BITS: u32 = 14;
/// Addresses in a module take so many bits, and must be multiples of 4: what is further behind its
/// start than 2 GiB is not found.
const OFFSET_BITS: u32 = 29;
const TAG_BITS: u32 = PC_LIMIT.trailing_zeros() - FDE_INDEX_BITS;
const _: () = assert!(PC_LIMIT.is_power_of_two() && TAG_BITS + OFFSET_BITS <= u64::BITS);

/// Where `.eh_frame` is: the page that the module starts at, then the place of `.eh_frame`. 0 in an
/// unused entry.
static LISTS: [AtomicU64; MODULES] = [const { AtomicU64::new(0) }; MODULES];

/// Which FDE covers a PC: what is left of the PC besides the entry's index, then the place of the FDE.
static FDES: [AtomicU64; 1 << FDE_INDEX_BITS] = [const { AtomicU64::new(0) }; 1 << FDE_INDEX_BITS];

/// What an entry of [`FDES`] holds besides its place, and the entry.
fn entry_of(pc: u64) -> Option<(u64, &'static AtomicU64)> {
    /// Odd, so one-to-one: index and tag together are the PC. PCs that share an entry of the rules'
    /// table have different ones here.
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let key = pc.wrapping_mul(FACTOR) % PC_LIMIT;
    let index = key >> TAG_BITS;
    Some(((key % (1 << TAG_BITS)) << OFFSET_BITS, FDES.get(index as usize)?))
}

/// A place in a module, packed; 0: nowhere.
#[derive(Clone, Copy)]
struct Place(u64);

impl Place {
    const NOWHERE: Place = Place(0);

    /// `None` where the place cannot be packed. What is at the start of a module is its ELF header.
    fn new(module: &Module, address: u64) -> Option<Place> {
        let offset = address.checked_sub(module.start as u64)?;
        let fits = offset.is_multiple_of(4) && offset > 0 && offset < 4 << OFFSET_BITS;
        fits.then_some(Place(offset / 4))
    }

    /// Of the low bits of an entry.
    fn from_bits(bits: u64) -> Place {
        Place(bits & ((1 << OFFSET_BITS) - 1))
    }

    fn address(self, module: &Module) -> Option<u64> {
        (self.0 != 0).then(|| module.start as u64 + 4 * self.0)
    }
}

/// To be called when modules may have been unloaded, before the new epoch.
pub(super) fn forget() {
    for entry in LISTS.iter().chain(&FDES) {
        // Where nothing was kept, no memory is touched.
        if entry.load(Ordering::SeqCst) != 0 {
            entry.store(0, Ordering::SeqCst);
        }
    }
}

/// Address of the FDE that covers `pc`. `frames` is where the list of them begins, if that is known.
#[cold]
#[inline(never)]
pub(super) fn address_of(module: &Module, frames: Option<u64>, pc: u64) -> Option<u64> {
    let epoch = Rules::current().epoch();
    let (tag, entry) = entry_of(pc)?;
    let known = entry.load(Ordering::Relaxed);
    let may_keep = epoch.filter(|_| pc < PC_LIMIT);
    if may_keep.is_some() && Place::from_bits(known).0 | tag == known && known != 0 {
        return Place::from_bits(known).address(module);
    }
    let frames = match frames {
        Some(frames) => frames,
        None => list_of(module, epoch)?.address(module)?,
    };
    let found = walk(module, frames, pc);
    let place = match found {
        None => Some(Place::NOWHERE),
        Some(address) => Place::new(module, address),
    };
    if let (Some(epoch), Some(Place(place))) = (may_keep, place) {
        keep(entry, tag | place, epoch);
    }
    found
}

/// Apart, so that what it takes of the stack is free again.
#[inline(never)]
fn walk(module: &Module, frames: u64, pc: u64) -> Option<u64> {
    let at = |address| cursor_at(module, address);
    find_by_walking(at(frames)?, pc, &at)
}

/// Where `.eh_frame` of a module without a header is. `None` where nobody can tell now.
fn list_of(module: &Module, epoch: Option<u64>) -> Option<Place> {
    let tag = (module.start as u64 >> 12) << OFFSET_BITS;
    let mut free = None;
    for entry in &LISTS {
        let known = entry.load(Ordering::Relaxed);
        if known == 0 {
            free = Some(entry);
            break;
        }
        if Place::from_bits(known).0 | tag == known && epoch.is_some() {
            return Some(Place::from_bits(known));
        }
    }
    if free.is_none() || silence::is_silent() {
        return None;
    }
    let address = modules::section(module, b".eh_frame");
    let found = address.and_then(|address| Place::new(module, address as u64));
    let place = found.unwrap_or(Place::NOWHERE);
    if let (Some(free), Some(epoch)) = (free, epoch) {
        // Another thread may fill the same entry: then one of the two modules is looked up again.
        keep(free, tag | place.0, epoch);
    }
    Some(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> Module {
        modules::find(own as *const () as usize).unwrap()
    }

    #[test]
    fn a_place_in_a_module_is_kept_or_refused() {
        let module = own();
        let start = module.start as u64;
        for offset in [4, 8, 1 << 20, (4 << OFFSET_BITS) - 4] {
            let place = Place::new(&module, start + offset).unwrap();
            let kept = Place::from_bits(u64::MAX << OFFSET_BITS | place.0);
            assert_eq!(kept.address(&module), Some(start + offset));
        }
        for offset in [0, 2, 6, 4 << OFFSET_BITS, 0u64.wrapping_sub(8)] {
            assert!(Place::new(&module, start.wrapping_add(offset)).is_none(), "{offset:#x}");
        }
        assert_eq!(Place::NOWHERE.address(&module), None);
    }

    /// This program has a header, but it is found without it too.
    #[test]
    fn the_section_of_a_module_is_found_in_its_file_and_kept() {
        let module = own();
        let pc = own as *const () as u64 + 1;
        let at = |address| cursor_at(&module, address);
        let listed = crate::unwind::eh_frame::find(pc).unwrap();
        // Other tests unload: any number of tries may be spoilt.
        let is_kept = (0..1000).any(|_| {
            let address = address_of(&module, None, pc).unwrap();
            let fde = crate::unwind::eh_frame::read_fde(at(address).unwrap(), pc, &at).unwrap();
            assert_eq!(fde.start, listed.start);
            assert_eq!(fde.program.position(), listed.program.position());
            let (tag, entry) = entry_of(pc).unwrap();
            let place = Place::new(&module, address).unwrap().0;
            entry.load(Ordering::Relaxed) == tag | place
        });
        assert!(is_kept);
    }

    #[test]
    fn that_no_fde_covers_a_pc_is_kept_too() {
        let module = own();
        // Its ELF header is no code.
        let pc = module.start as u64 + 16;
        let (tag, entry) = entry_of(pc).unwrap();
        let is_kept = (0..1000).any(|_| {
            assert_eq!(address_of(&module, None, pc), None);
            entry.load(Ordering::Relaxed) == tag
        });
        assert!(is_kept);
    }
}
