//! Which functions ended the blocks of a call site.

use mtr_format::compact::op::{Family, FreeKind};

use crate::read::{By, SiteId};

/// The first block of a call site that one function ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// Who had allocated it.
    pub allocated: SiteId,
    /// Its requested bytes.
    pub size: u64,
    /// The function.
    pub kind: FreeKind,
    /// Its address.
    pub ptr: u64,
    /// Line of the log, or number of the event.
    pub line: u64,
    /// Who called the function.
    pub site: SiteId,
}

/// The functions that allocated at a call site: one, unless the trace is damaged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Families(u16);

impl Families {
    #[inline]
    pub(super) fn add(&mut self, by: By) {
        self.0 |= match by {
            By::Alloc(request) => 1 << request.family as u8,
            By::Free(_) | By::Unknown => 1,
        };
    }

    /// Whether all of them are among these.
    pub fn are_among(&self, families: &[Family]) -> bool {
        let allowed = families.iter().fold(0, |mask, family| mask | 1 << *family as u8);
        self.0 != 0 && self.0 & !allowed == 0
    }
}
