//! The tail file: the part of a log (docs/log-format.md) or of a compact trace
//! (docs/trace-format.md) that is not written out yet.

/// First bytes of the file.
pub const MAGIC: [u8; 8] = *b"MTRTAIL1";
/// First bytes of the tail of a compact trace. Its fields stand where those of a log's tail do;
/// from [`SLOTS`] on it holds chunks.
pub const MAGIC2: [u8; 8] = *b"MTRTAIL2";
/// Offset of the slots in the tail of a compact trace; each has the size of a block.
pub const SLOTS: usize = 4096;
/// Offset of the ID of the log, a `u64`.
pub const ID: usize = 8;
/// Offset of the bytes per block, a `u32`.
pub const BLOCK_SIZE: usize = 16;
/// Offset of the number of blocks, a `u32`.
pub const BLOCK_COUNT: usize = 20;
/// Offset of the number of records that could not be written, a `u64`.
pub const LOST: usize = 24;
/// Offset of the errno of the first loss, an `i32`.
pub const LOST_ERRNO: usize = 32;
/// Offset of the number of streams whose chunk is in memory alone, a `u32`: if the process does not end
/// by exit, what they recorded last is missing.
pub const UNSAVED: usize = 36;
/// Offset of the position at which the log ends because writing was stopped, a `u64`; 0 for none.
pub const END: usize = 40;
/// Offset of the nanoseconds from the start of the log to the first loss, a `u64`.
pub const LOST_SINCE: usize = 48;
/// Of a compact trace: offset of the number of readings of its clock, a `u64`. The last of them is in
/// the first or the second of the places behind it, as that number is even or odd.
pub const CLOCK: usize = 64;
/// Offset of the first of these places: a stamp and its time in nanoseconds since the trace began, a
/// `u64` each.
pub const CLOCK_READINGS: usize = 72;
/// Offset of the block numbers, one `u64` each.
pub const NUMBERS: usize = 64;
/// Offset of the blocks.
pub const BLOCKS: usize = 4096;
/// Most blocks that the page in front of them can number.
pub const MAX_BLOCKS: usize = (BLOCKS - NUMBERS) / 8;

/// Set in a block number while the block is being written out.
pub const BUSY: u64 = 1 << 63;
/// Number of a block that is not in use.
pub const UNUSED: u64 = u64::MAX;
/// Suffix of the tail's name, appended to that of the log.
pub const SUFFIX: &str = ".tail";

/// In place of an errno: the log has the size that was asked for.
pub const AT_MAX_SIZE: i32 = 10_001;
/// In place of an errno: the disk was nearly full.
pub const DISK_NEARLY_FULL: i32 = 10_002;
