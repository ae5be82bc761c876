//! `--format mtrace`: what glibc's `mtrace` script prints, byte for byte.
//!
//! This is not made from a profile like the other formats. The script's report follows from the
//! log's lines by rules of its own, which no sound replay shares: its blocks are keyed by the text
//! of an address, a second `+` keeps the first block, a `+` without `0x` is nothing, and faults are
//! printed while the log is read. So this is a replay of lines, after the script of glibc 2.36 in
//! its one-argument form (those of 2.23 to 2.43 print the same).
//!
//! Two things differ from the script. A path with blanks in it is read right, by the rule in
//! `line.rs`. And perl's warnings on stderr about numbers beyond 64 bits are not repeated.

mod line;
mod live;
mod location;
mod number;

use std::io::{self, Write};

use self::line::Record;
use self::live::{Block, Blocks, Places};
pub use self::location::{Locations, script_location};
use self::number::{Number, hex, write_blank_padded, write_zero_padded};

/// The digits of an address: `%#018x`, which the script's build fixes for 64-bit machines.
const ADDRESS_WIDTH: usize = 18;

/// What turns a raw WHERE into the text that stands for it in the report.
///
/// It is asked in the order in which the texts are printed, and never for the empty WHERE of a
/// record without a place. [`Locations::location`] is the script's own.
pub type Place<'a> = dyn FnMut(&[u8]) -> Vec<u8> + 'a;

/// The script's replay of a log.
#[derive(Debug, Default)]
pub struct Script {
    /// Lines read so far, blank ones and those of no meaning included.
    lines: u64,
    blocks: Blocks,
    places: Places,
}

impl Script {
    /// Before the first line.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next line, without its newline, and prints the fault that it shows, if any.
    pub fn line(
        &mut self,
        line: &[u8],
        out: &mut dyn Write,
        place: &mut Place<'_>,
    ) -> io::Result<()> {
        self.lines += 1;
        let Some(record) = line::parse(line) else { return Ok(()) };
        match record.operation {
            b'+' => self.allocated(record, out, place),
            b'-' => self.freed(record, "Free", out, place),
            b'<' => self.freed(record, "Realloc", out, place),
            b'>' => self.reallocated(record, out, place),
            // A realloc that failed: the old block stays.
            _ => Ok(()),
        }
    }

    /// `+`. Its second place is printed raw.
    fn allocated(
        &mut self,
        record: Record<'_>,
        out: &mut dyn Write,
        place: &mut Place<'_>,
    ) -> io::Result<()> {
        // `(nil)`, or rubbish. But a `>` may have put a block there, which makes it a duplicate.
        let live = if record.address.starts_with(b"0x") {
            self.insert_or_get(record)
        } else {
            self.blocks.get(record.address)
        };
        let Some(live) = live else { return Ok(()) };
        self.fault(b'+', "Alloc", record.address, out)?;
        out.write_all(b" duplicate: ")?;
        self.write_place(self.places.text(live.place()), out, place)?;
        out.write_all(b" ")?;
        out.write_all(record.where_)?;
        out.write_all(b"\n")
    }

    /// `>`, which takes any address.
    fn reallocated(
        &mut self,
        record: Record<'_>,
        out: &mut dyn Write,
        place: &mut Place<'_>,
    ) -> io::Result<()> {
        let Some(live) = self.insert_or_get(record) else { return Ok(()) };
        self.fault(b'+', "Realloc", record.address, out)?;
        out.write_all(b" duplicate: ")?;
        write_zero_padded(out, live.size(), 10)?;
        out.write_all(b" ")?;
        self.write_place(self.places.text(live.place()), out, place)?;
        out.write_all(b" ")?;
        self.write_place(record.where_, out, place)?;
        out.write_all(b"\n")
    }

    /// `-` and `<`.
    fn freed(
        &mut self,
        record: Record<'_>,
        what: &str,
        out: &mut dyn Write,
        place: &mut Place<'_>,
    ) -> io::Result<()> {
        if self.blocks.remove(record.address) {
            return Ok(());
        }
        self.fault(b'-', what, record.address, out)?;
        out.write_all(b" was never alloc'd ")?;
        self.write_place(record.where_, out, place)?;
        out.write_all(b"\n")
    }

    fn insert_or_get(&mut self, record: Record<'_>) -> Option<Block> {
        let Self { blocks, places, .. } = self;
        blocks.insert_or_get(record.address, || {
            Block::new(hex(record.size), places.id(record.where_))
        })
    }

    /// The beginning that all faults share.
    fn fault(&self, sign: u8, what: &str, address: &[u8], out: &mut dyn Write) -> io::Result<()> {
        out.write_all(&[sign, b' '])?;
        write_zero_padded(out, hex(address), ADDRESS_WIDTH)?;
        write!(out, " {what} {}", self.lines)
    }

    fn write_place(
        &self,
        where_: &[u8],
        out: &mut dyn Write,
        place: &mut Place<'_>,
    ) -> io::Result<()> {
        if where_.is_empty() { Ok(()) } else { out.write_all(&place(where_)) }
    }

    /// Prints the blocks that are still live, and whether there are any, which is when the script
    /// exits 1.
    pub fn finish(self, out: &mut dyn Write, place: &mut Place<'_>) -> io::Result<bool> {
        let blocks = self.blocks.into_sorted();
        if blocks.is_empty() {
            out.write_all(b"No memory leaks.\n")?;
            return Ok(false);
        }
        out.write_all(b"\nMemory not freed:\n-----------------\n")?;
        out.write_all(b"           Address     Size     Caller\n")?;
        // Asked once per WHERE: the answer does not change, and there may be a million rows.
        let mut placed: Vec<Option<Vec<u8>>> = vec![None; self.places.len()];
        for (address, block) in blocks {
            let where_ = self.places.text(block.place());
            let text = placed[block.place() as usize].get_or_insert_with(|| match where_ {
                b"" => Vec::new(),
                where_ => place(where_),
            });
            write_row(out, address.number(), block.size(), text)?;
        }
        Ok(true)
    }
}

fn write_row(out: &mut dyn Write, address: Number, size: Number, place: &[u8]) -> io::Result<()> {
    write_zero_padded(out, address, ADDRESS_WIDTH)?;
    out.write_all(b" ")?;
    write_blank_padded(out, size, 8)?;
    out.write_all(b"  at ")?;
    out.write_all(place)?;
    out.write_all(b"\n")
}
