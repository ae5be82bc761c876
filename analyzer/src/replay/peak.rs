//! The moment of most live bytes.

/// The first moment at which live bytes were largest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Peak {
    /// Live bytes then.
    pub bytes: u64,
    /// Live blocks then.
    pub blocks: u64,
    /// Line of the log that reached it; 0 when nothing was ever live.
    pub line: u64,
    /// Nanoseconds since the trace began, as of the last sample before; `None` without samples.
    pub time: Option<u64>,
    /// As of the first sample behind it; `None` without one.
    pub until: Option<u64>,
    now: Option<u64>,
    /// The generation that `until` is of.
    dated: u64,
    live: u64,
    generation: u64,
}

impl Peak {
    /// Rises with every new peak. A call site that last changed under an older generation had at
    /// the peak what it has now, so its share is noted only when it changes next.
    #[inline]
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// The time at which what follows happens.
    pub(super) fn go_on(&mut self, nanoseconds: u64) {
        self.now = Some(nanoseconds);
        if self.dated != self.generation {
            self.dated = self.generation;
            self.until = self.now;
        }
    }

    #[inline]
    pub(super) fn raise(&mut self, size: u64, line: u64) {
        self.live = self.live.saturating_add(size);
        if self.live > self.bytes {
            self.bytes = self.live;
            self.line = line;
            self.time = self.now;
            self.generation += 1;
        }
    }

    #[inline]
    pub(super) fn lower(&mut self, size: u64) {
        self.live = self.live.saturating_sub(size);
    }

    pub(super) fn live_bytes(&self) -> u64 {
        self.live
    }
}
