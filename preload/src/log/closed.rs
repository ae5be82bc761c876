//! The `# closed` line of a compact trace: how much its file had when it was whole without its tail. A
//! file that has less was cut off, and one that does not say so lacks its tail. It stands in the first
//! chunk, with zeros at first, and is overwritten in place.

use core::sync::atomic::{AtomicU64, Ordering};

use super::file;
use crate::global::Text;
use crate::record::compact::{self, clock};

/// What the line says; zeros while it says nothing.
#[derive(Clone, Copy, Default)]
pub(super) struct Closed {
    /// Bytes of the file.
    pub(super) bytes: u64,
    /// Chunks of its streams.
    pub(super) chunks: u64,
    /// A stamp, and its time in nanoseconds since the trace began; zeros when that is not known.
    pub(super) stamp: u64,
    pub(super) time: u64,
}

/// Position of the line in the file, 0 for none.
static AT: AtomicU64 = AtomicU64::new(0);

/// Begins with a trace that has the line at this position.
pub(super) fn open(at: u64) {
    AT.store(at, Ordering::Relaxed);
}

/// Appends the line, as long for any values.
pub(super) fn push_line<const N: usize>(closed: &Closed, line: &mut Text<N>) {
    let Closed { bytes, chunks, stamp, time } = *closed;
    line.push(b"# closed");
    for value in [bytes, chunks, stamp, time] {
        line.push(b" ");
        line.push_padded(value, 20);
    }
    line.push(b"\n");
}

/// States that the file has all that was recorded. What comes later makes it longer only. False where
/// that cannot be said.
pub(crate) fn state() -> bool {
    let at = AT.load(Ordering::Relaxed);
    if at == 0 || !file::has_front() {
        return true;
    }
    let Some(bytes) = file::length() else { return false };
    let (stamp, time) = clock::reading().unwrap_or((0, 0));
    let mut line = Text::<128>::EMPTY;
    push_line(&Closed { bytes, chunks: compact::chunks_begun(), stamp, time }, &mut line);
    file::overwrite(at, line.as_bytes())
}
