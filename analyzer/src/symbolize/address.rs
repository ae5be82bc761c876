//! The address spaces, each with its own type.

/// Stated virtual address: as written in the ELF file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Svma(pub(super) u64);

/// Actual virtual address: as it was in the traced process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Avma(pub(super) u64);

/// AVMA - SVMA of a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct LoadBias(pub(super) u64);

/// The address behind a call instruction, as an SVMA.
///
/// It belongs to whatever follows the call: possibly to the next line, or, when the called function
/// never returns, to the next function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ReturnAddress(pub(super) Svma);

impl Avma {
    /// The same place as an address of the file. Biases may be "negative": all of it wraps.
    pub(super) fn to_svma(self, bias: LoadBias) -> Svma {
        Svma(self.0.wrapping_sub(bias.0))
    }
}

impl Svma {
    pub(super) fn wrapping_add(self, offset: i64) -> Svma {
        Svma(self.0.wrapping_add_signed(offset))
    }
}

impl ReturnAddress {
    /// An address inside the call instruction: the one to look up. This is the only place that
    /// knows about the one byte.
    pub(super) fn for_lookup(self) -> Svma {
        self.0.wrapping_add(-1)
    }
}
