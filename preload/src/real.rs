//! The real functions: what the program would have called without us.
//!
//! They are found by `dlsym(RTLD_NEXT)`, which respects another allocator that is preloaded or
//! linked, when the first hook is called. Until then, and for what dlsym itself allocates, there is
//! a small arena whose blocks are never freed.

use core::ffi::{CStr, c_int, c_void};
use core::sync::atomic::{AtomicUsize, Ordering};

pub(crate) mod arena;

type Ptr = *mut c_void;

macro_rules! real_functions {
    ($($name:ident: fn($($argument:ty),*) $(-> $result:ty)?, else $bootstrap:expr;)*) => {
        /// Addresses, 0 until they are known.
        struct Addresses { $($name: AtomicUsize,)* }
        static ADDRESSES: Addresses = Addresses { $($name: AtomicUsize::new(0),)* };

        fn look_up_all() {
            $(look_up(&ADDRESSES.$name, concat!(stringify!($name), "\0"));)*
        }

        $(
            /// The real function of this name, or what stands in for it until it is known.
            #[inline(always)]
            pub(crate) fn $name() -> unsafe extern "C" fn($($argument),*) $(-> $result)? {
                let mut address = ADDRESSES.$name.load(Ordering::Relaxed);
                if address == 0 {
                    resolve();
                    address = ADDRESSES.$name.load(Ordering::Relaxed);
                    if address == 0 {
                        return $bootstrap;
                    }
                }
                // SAFETY: the address of a function with this signature, by its manual page.
                unsafe { core::mem::transmute(address) }
            }
        )*
    };
}

real_functions! {
    malloc: fn(usize) -> Ptr, else arena::malloc;
    free: fn(Ptr), else arena::free;
    calloc: fn(usize, usize) -> Ptr, else arena::calloc;
    realloc: fn(Ptr, usize) -> Ptr, else arena::realloc;
    memalign: fn(usize, usize) -> Ptr, else arena::memalign;
    aligned_alloc: fn(usize, usize) -> Ptr, else arena::memalign;
    posix_memalign: fn(*mut Ptr, usize, usize) -> c_int, else arena::posix_memalign;
    valloc: fn(usize) -> Ptr, else arena::valloc;
    pvalloc: fn(usize) -> Ptr, else arena::valloc;
    malloc_usable_size: fn(Ptr) -> usize, else arena::usable_size;
    dlclose: fn(Ptr) -> c_int, else dlclose_of_nothing;
}

unsafe extern "C" fn dlclose_of_nothing(_: Ptr) -> c_int {
    -1
}

fn look_up(place: &AtomicUsize, name: &'static str) {
    if let Ok(name) = CStr::from_bytes_with_nul(name.as_bytes()) {
        // SAFETY: a C string; RTLD_NEXT is meant for the module that calls, which is this one.
        let address = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) };
        place.store(address as usize, Ordering::Relaxed);
    }
}

/// Looks up what every libc has. A second thread, and what dlsym itself allocates, find the table
/// as far as it has been filled; the arena serves them for the rest.
#[cold]
#[inline(never)]
fn resolve() {
    static RESOLVING: AtomicUsize = AtomicUsize::new(0);
    if RESOLVING.swap(1, Ordering::AcqRel) == 0 {
        look_up_all();
    }
}

/// Functions that not every process has, looked up when the log starts. 0: not there.
static OPTIONAL: [AtomicUsize; OPTIONAL_NAMES.len()] =
    [const { AtomicUsize::new(0) }; OPTIONAL_NAMES.len()];

/// The forms of operator delete, in the order of the hooks, and the C23 functions.
const OPTIONAL_NAMES: [&CStr; 14] = [
    c"_ZdlPv",
    c"_ZdaPv",
    c"_ZdlPvm",
    c"_ZdaPvm",
    c"_ZdlPvSt11align_val_t",
    c"_ZdaPvSt11align_val_t",
    c"_ZdlPvmSt11align_val_t",
    c"_ZdaPvmSt11align_val_t",
    c"_ZdlPvRKSt9nothrow_t",
    c"_ZdaPvRKSt9nothrow_t",
    c"_ZdlPvSt11align_val_tRKSt9nothrow_t",
    c"_ZdaPvSt11align_val_tRKSt9nothrow_t",
    c"free_sized",
    c"free_aligned_sized",
];

/// Index of `free_sized` in [`OPTIONAL_NAMES`].
pub(crate) const FREE_SIZED: usize = 12;

/// See [`OPTIONAL`].
///
/// # Safety
/// No module is being loaded or unloaded.
pub(crate) unsafe fn resolve_optional() {
    for (place, name) in OPTIONAL.iter().zip(OPTIONAL_NAMES) {
        // SAFETY: the caller's promise.
        let address = unsafe { crate::modules::next_export(name) };
        place.store(address.unwrap_or(0), Ordering::Relaxed);
    }
}

/// What a call of the optional function `index` from `return_address` would have reached: the next
/// definition in the global scope, else the caller's own (a plugin opened with RTLD_LOCAL that
/// brings its operators along), else free, which is what those of libstdc++ and libc++ are.
pub(crate) extern "C" fn optional(index: usize, return_address: usize) -> usize {
    let address = OPTIONAL.get(index).map_or(0, |place| place.load(Ordering::Relaxed));
    if address != 0 {
        return address;
    }
    let own = OPTIONAL_NAMES
        .get(index)
        .and_then(|name| crate::modules::export_of_module_at(return_address, name));
    own.unwrap_or(crate::hooks::free as *const () as usize)
}
