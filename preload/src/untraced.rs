//! Children made by fork that could not be traced. Their stderr is the program's own, so they say
//! nothing: they are counted in memory that they share with their parent, whose log states it.

use core::sync::atomic::{AtomicI32, AtomicPtr, AtomicU32, AtomicU64, Ordering};

use crate::sys::{self, Errno};

/// In memory that is shared with the children.
#[repr(C)]
struct Shared {
    children: AtomicU32,
    /// Why the first was not.
    errno: AtomicI32,
}

static SHARED: AtomicPtr<Shared> = AtomicPtr::new(core::ptr::null_mut());

/// In place of an errno: the child lives below another root, where the path of its log means
/// something else.
pub(crate) const OTHER_ROOT: Errno = libc::EXDEV;

/// Device and inode of the root folder.
static ROOT: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];

fn root_now() -> [u64; 2] {
    sys::lstat(c"/").map_or([0; 2], |stat| [stat.st_dev, stat.st_ino])
}

/// To be called when a log starts, whose children are counted from then on.
pub(crate) fn start() {
    for (place, value) in ROOT.iter().zip(root_now()) {
        place.store(value, Ordering::Relaxed);
    }
    let page = sys::map_with_children(size_of::<Shared>()).unwrap_or(core::ptr::null_mut());
    let before = SHARED.swap(page.cast(), Ordering::AcqRel);
    if !before.is_null() {
        // SAFETY: this process is a child of fork that counts its own children from here on; it is
        // the only one that knows this mapping in this process.
        unsafe { sys::unmap(before.cast(), size_of::<Shared>()) };
    }
}

/// Whether paths mean something else than in the parent.
pub(crate) fn is_below_another_root() -> bool {
    ROOT.each_ref().map(|part| part.load(Ordering::Relaxed)) != root_now()
}

/// In a child: it is not traced.
pub(crate) fn count(errno: Errno) {
    // SAFETY: NULL or a mapping of that size that stays until this process has a log of its own.
    if let Some(shared) = unsafe { SHARED.load(Ordering::Acquire).as_ref() } {
        let _ = shared.errno.compare_exchange(0, errno, Ordering::Relaxed, Ordering::Relaxed);
        shared.children.fetch_add(1, Ordering::Relaxed);
    }
}

/// How many children of this process were not traced, and why the first.
pub(crate) fn counted() -> (u32, Errno) {
    // SAFETY: as in `count`.
    unsafe { SHARED.load(Ordering::Acquire).as_ref() }.map_or((0, 0), |shared| {
        (shared.children.load(Ordering::Relaxed), shared.errno.load(Ordering::Relaxed))
    })
}
