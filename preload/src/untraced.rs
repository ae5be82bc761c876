//! Children without a trace. Those that fork made and that could not be traced say nothing, because
//! their stderr is the program's own; and a program that is started without libmtr.so cannot. They are
//! counted in memory that this process shares with its children; its log states the numbers.

use core::sync::atomic::{AtomicI32, AtomicPtr, AtomicU32, AtomicU64, Ordering};

use crate::sys::{self, Errno};

/// In memory that is shared with the children.
#[repr(C)]
struct Shared {
    /// Children made by fork that could not be traced.
    children: AtomicU32,
    /// Why the first was not.
    errno: AtomicI32,
    /// Programs that were started without libmtr.so.
    programs: AtomicU32,
}

static SHARED: AtomicPtr<Shared> = AtomicPtr::new(core::ptr::null_mut());
/// The one in which this process itself is counted, where its parent is traced.
static PARENTS: AtomicPtr<Shared> = AtomicPtr::new(core::ptr::null_mut());

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
    let parents = SHARED.swap(page.cast(), Ordering::AcqRel);
    let grandparents = PARENTS.swap(parents, Ordering::AcqRel);
    if !grandparents.is_null() {
        // SAFETY: this process is a child of fork that counts its own children from here on; it is
        // the only one that knows this mapping in this process.
        unsafe { sys::unmap(grandparents.cast(), size_of::<Shared>()) };
    }
}

/// Whether paths mean something else than in the parent.
pub(crate) fn is_below_another_root() -> bool {
    ROOT.each_ref().map(|part| part.load(Ordering::Relaxed)) != root_now()
}

fn shared(place: &AtomicPtr<Shared>) -> Option<&Shared> {
    // SAFETY: NULL or a mapping of that size that stays until this process has a log of its own.
    unsafe { place.load(Ordering::Acquire).as_ref() }
}

/// In a child: it is not traced.
pub(crate) fn count(errno: Errno) {
    if let Some(shared) = shared(&SHARED) {
        let _ = shared.errno.compare_exchange(0, errno, Ordering::Relaxed, Ordering::Relaxed);
        shared.children.fetch_add(1, Ordering::Relaxed);
    }
}

/// Whose child a program is that runs untraced.
#[derive(Clone, Copy)]
pub(crate) enum Of {
    /// The process that has the log.
    Us,
    /// Our parent's, if that is traced: this very process becomes it.
    Parent,
}

/// A program was started without libmtr.so, or is about to be.
pub(crate) fn count_program(of: Of) {
    if let Some(shared) = shared(of.place()) {
        shared.programs.fetch_add(1, Ordering::Relaxed);
    }
}

/// It was not started after all.
pub(crate) fn discount_program(of: Of) {
    if let Some(shared) = shared(of.place()) {
        shared.programs.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Of {
    fn place(self) -> &'static AtomicPtr<Shared> {
        match self {
            Of::Us => &SHARED,
            Of::Parent => &PARENTS,
        }
    }
}

/// Numbers of a process and its children.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Children made by fork that were not traced.
    pub(crate) children: u32,
    /// Why the first was not.
    pub(crate) errno: Errno,
    /// Programs that were started without libmtr.so.
    pub(crate) programs: u32,
}

/// What was counted so far.
pub(crate) fn counted() -> Counts {
    shared(&SHARED).map_or(Counts::default(), |shared| Counts {
        children: shared.children.load(Ordering::Relaxed),
        errno: shared.errno.load(Ordering::Relaxed),
        programs: shared.programs.load(Ordering::Relaxed),
    })
}
