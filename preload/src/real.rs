//! The real functions: what the program would have called without us.
//!
//! They are found by `dlsym(RTLD_NEXT)`, which respects another allocator that is preloaded or
//! linked, when the first hook is called. Until then, and for what dlsym itself allocates, there is
//! a small arena whose blocks are never freed.

use core::ffi::{CStr, c_char, c_int, c_void};
use core::sync::atomic::{AtomicUsize, Ordering};

pub(crate) mod arena;

type Ptr = *mut c_void;
type Text = *const c_char;
type List = *const Text;

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
    execve: fn(Text, List, List) -> c_int, else missing();
    execv: fn(Text, List) -> c_int, else missing();
    execvp: fn(Text, List) -> c_int, else missing();
    execvpe: fn(Text, List, List) -> c_int, else missing();
    fexecve: fn(c_int, List, List) -> c_int, else missing();
    execveat: fn(c_int, Text, List, List, c_int) -> c_int, else missing();
    posix_spawn: fn(*mut c_int, Text, *const c_void, *const c_void, List, List) -> c_int, else missing();
    posix_spawnp: fn(*mut c_int, Text, *const c_void, *const c_void, List, List) -> c_int, else missing();
    system: fn(Text) -> c_int, else missing();
    popen: fn(Text, Text) -> Ptr, else no_stream;
    _exit: fn(c_int), else exit_at_once;
}

/// The real free, if it is known.
#[inline(always)]
pub(crate) fn known_free() -> Option<unsafe extern "C" fn(Ptr)> {
    let address = ADDRESSES.free.load(Ordering::Relaxed);
    // SAFETY: the address of free; NULL is `None`.
    unsafe { core::mem::transmute::<usize, Option<unsafe extern "C" fn(Ptr)>>(address) }
}

unsafe extern "C" fn dlclose_of_nothing(_: Ptr) -> c_int {
    -1
}

unsafe extern "C" fn no_stream(_: Text, _: Text) -> Ptr {
    missing_function();
    core::ptr::null_mut()
}

unsafe extern "C" fn exit_at_once(status: c_int) {
    crate::sys::exit(status)
}

extern "C" fn missing_function() -> c_int {
    // SAFETY: errno of this thread.
    unsafe { *libc::__errno_location() = libc::ENOSYS };
    -1
}

/// In place of a function that starts a program, which nobody calls while libc is being set up.
fn missing<Function: Copy>() -> Function {
    const { assert!(size_of::<Function>() == size_of::<usize>()) };
    let function = missing_function as *const ();
    // SAFETY: the type is that of a C function that returns an int; one that ignores its arguments
    // can stand in for it.
    unsafe { core::mem::transmute_copy(&function) }
}

/// Finds the real function of a name, which ends with a NUL.
pub(crate) fn look_up(place: &AtomicUsize, name: &'static str) {
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
