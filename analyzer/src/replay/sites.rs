//! Totals, live blocks and share of the peak of every call site.

use mtr_format::compact::op::FreeKind;

use super::ends::Families;
use super::live::Block;
use super::peak::Peak;
use crate::read::By;

/// Numbers of one call site, as the allocator of its blocks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SiteTotals {
    /// Allocations.
    pub allocs: u64,
    /// Requested bytes of all allocations.
    pub bytes: u64,
    /// Blocks live at the end.
    pub live_blocks: u64,
    /// Requested bytes live at the end.
    pub live_bytes: u64,
    /// Blocks live at the peak.
    pub peak_blocks: u64,
    /// Requested bytes live at the peak.
    pub peak_bytes: u64,
    /// Functions that allocated them.
    pub families: Families,
    /// Blocks that each function ended, by [`FreeKind`]; the others were ended by realloc, or the
    /// trace does not say.
    pub ended_by: [u64; 3],
    /// Generation of the peak that `peak_*` belong to; see [`Peak::generation`].
    generation: u64,
}

impl SiteTotals {
    /// Call before a change: what the site holds now it held at the peak, too, unless it has
    /// changed since.
    #[inline]
    fn note_peak(&mut self, peak: &Peak) {
        if self.generation != peak.generation() {
            self.generation = peak.generation();
            self.peak_blocks = self.live_blocks;
            self.peak_bytes = self.live_bytes;
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Sites {
    by_id: Vec<SiteTotals>,
}

impl Sites {
    #[inline]
    pub(super) fn begin(&mut self, block: &Block, by: By, peak: &Peak) {
        let index = block.site as usize;
        if index >= self.by_id.len() {
            self.by_id.resize(index + 1, SiteTotals::default());
        }
        let site = &mut self.by_id[index];
        site.note_peak(peak);
        site.families.add(by);
        site.allocs += 1;
        site.bytes = site.bytes.saturating_add(block.size);
        site.live_blocks += 1;
        site.live_bytes = site.live_bytes.saturating_add(block.size);
    }

    #[inline]
    pub(super) fn end(&mut self, block: &Block, peak: &Peak) {
        if let Some(site) = self.by_id.get_mut(block.site as usize) {
            site.note_peak(peak);
            site.live_blocks -= 1;
            site.live_bytes = site.live_bytes.saturating_sub(block.size);
        }
    }

    /// Counts the function that ended a block; whether it is the first time here.
    #[inline]
    pub(super) fn is_first(&mut self, block: &Block, kind: FreeKind) -> bool {
        let site = self.by_id.get_mut(block.site as usize);
        let Some(count) = site.and_then(|site| site.ended_by.get_mut(kind as usize)) else {
            return false;
        };
        *count += 1;
        *count == 1
    }

    pub(super) fn undo_end(&mut self, block: &Block, peak: &Peak) {
        if let Some(site) = self.by_id.get_mut(block.site as usize) {
            site.note_peak(peak);
            site.live_blocks += 1;
            site.live_bytes = site.live_bytes.saturating_add(block.size);
        }
    }

    pub(super) fn finish(mut self, peak: &Peak) -> Vec<SiteTotals> {
        for site in &mut self.by_id {
            site.note_peak(peak);
            // Only the values count for who compares two results.
            site.generation = 0;
        }
        self.by_id
    }
}
