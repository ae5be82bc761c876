//! What memcheck's HEAP SUMMARY counts, counted the same way.

/// Counts over a whole trace. A realloc is one allocation and one free, and all of its new size
/// counts as allocated; a failed call is neither.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Allocations.
    pub allocs: u64,
    /// Ends of blocks that were live; `allocs - frees` blocks are live at the end.
    pub frees: u64,
    /// Requested bytes of all allocations.
    pub bytes: u64,
    /// Calls that failed.
    pub failed: u64,
    /// Requested bytes of the largest of them.
    pub largest_failed: u64,
    /// Frees of blocks whose allocation the trace does not show.
    pub unknown_frees: u64,
    /// Frees of blocks that the process had from its parent, where these are known.
    pub inherited_frees: u64,
    /// Frees that stood behind the reuse of their block, as in glibc's logs of several threads.
    pub late_frees: u64,
    /// Frees that the trace does not show, of blocks whose addresses it shows allocated again. They are
    /// among `frees`.
    pub implied_frees: u64,
    /// Blocks live at the end.
    pub live_blocks: u64,
    /// Requested bytes live at the end.
    pub live_bytes: u64,
    /// Most resident bytes of the process, where the trace has samples of them; else 0.
    pub resident: u64,
}

impl Totals {
    /// Adds the counts of another process.
    pub fn add(&mut self, other: &Totals) {
        let add = |count: &mut u64, more: u64| *count = count.saturating_add(more);
        add(&mut self.allocs, other.allocs);
        add(&mut self.frees, other.frees);
        add(&mut self.bytes, other.bytes);
        add(&mut self.failed, other.failed);
        self.largest_failed = self.largest_failed.max(other.largest_failed);
        add(&mut self.unknown_frees, other.unknown_frees);
        add(&mut self.inherited_frees, other.inherited_frees);
        add(&mut self.late_frees, other.late_frees);
        add(&mut self.implied_frees, other.implied_frees);
        add(&mut self.live_blocks, other.live_blocks);
        add(&mut self.live_bytes, other.live_bytes);
        // Pages that they share would count twice.
        self.resident = self.resident.max(other.resident);
    }

    #[inline]
    pub(super) fn begin(&mut self, size: u64) {
        self.allocs += 1;
        self.bytes = self.bytes.saturating_add(size);
    }

    #[cold]
    pub(super) fn fail(&mut self, size: u64) {
        self.failed += 1;
        self.largest_failed = self.largest_failed.max(size);
    }
}
