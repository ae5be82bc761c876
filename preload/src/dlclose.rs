//! What an unloaded module means for the log: its addresses may be another module's next.
//!
//! dlclose is hooked. libc closes modules of its own (iconv's, those of a dlopen that failed) without
//! it; but the last thing that the loader does with any module is to free its record, and that is a
//! hooked free. By then the module is unmapped and no longer found, and the loader's lock keeps
//! another from being loaded. (Memory that another thread maps there in that moment and fills with
//! code is not a module: it has no rules.)

use core::ffi::{c_int, c_void};
use core::sync::atomic::{AtomicUsize, Ordering};

use crate::real::{self, arena};
use crate::record::compact;
use crate::{lifecycle, modules, sites, unwind};

/// The loader's code; nothing before [`start`].
static LOADER_START: AtomicUsize = AtomicUsize::new(0);
static LOADER_LEN: AtomicUsize = AtomicUsize::new(0);

/// To be called before the first event.
pub(crate) fn start() {
    if let Some((start, end)) = modules::loader() {
        LOADER_START.store(start, Ordering::Relaxed);
        LOADER_LEN.store(end - start, Ordering::Relaxed);
    }
}

/// Whether an address is in the loader's code.
#[inline(always)]
pub(crate) fn is_loaders(address: usize) -> bool {
    let offset = address.wrapping_sub(LOADER_START.load(Ordering::Relaxed));
    offset < LOADER_LEN.load(Ordering::Relaxed)
}

/// To be called for each free that returns there.
#[inline(always)]
pub(crate) fn before_free(block: *mut c_void, return_address: usize) {
    if is_loaders(return_address) {
        before_free_by_loader(block);
    }
}

#[cold]
#[inline(never)]
fn before_free_by_loader(block: *mut c_void) {
    if arena::contains(block as usize) {
        return;
    }
    // SAFETY: a live block of the allocator, which has as many bytes.
    let is_record = unsafe {
        real::malloc_usable_size()(block) >= modules::LinkMap::LEAST_SIZE
            && (*block.cast::<modules::LinkMap>()).is_live()
    };
    if is_record {
        around(|| 0);
    }
}

/// Runs the real dlclose; no address that was met before or during it is taken for the same call
/// site afterwards if a module has gone.
pub(crate) fn around(real: impl FnOnce() -> c_int) -> c_int {
    if !lifecycle::has_log() {
        return real();
    }
    sites::begin_unload();
    unwind::begin_unload();
    let result = real();
    unwind::end_unload();
    let unloaded = modules::sweep();
    if unloaded {
        compact::modules_changed();
    }
    sites::end_unload(unloaded);
    result
}
