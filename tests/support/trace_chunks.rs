//! Chunks of a compact trace and the fields of their records, after docs/trace-format.md.

/// A chunk as its header describes it.
#[derive(Debug, Clone, Default)]
pub(super) struct Chunk {
    pub(super) id: u64,
    pub(super) stream: u32,
    pub(super) number: u32,
    pub(super) stamp: u64,
    pub(super) thread: u32,
    pub(super) nodes: u32,
    pub(super) lost: u32,
    pub(super) forgets: u32,
    pub(super) records: Vec<u8>,
}

const HEADER: usize = 64;
const MOST: usize = 32_704;
/// How the damage is called where a file ends inside of a chunk.
pub(super) const WRONG_SUM: &str = ": a chunk with a wrong sum";
pub(super) const CUT_OFF: &str = ": the file ends inside of this chunk";

impl Chunk {
    /// The chunk that `bytes` begin with.
    fn parse(bytes: &[u8]) -> Option<Chunk> {
        if bytes.len() < HEADER || !bytes.starts_with(b"mtr\x02") {
            return None;
        }
        let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        let length = u32_at(4) as usize;
        if length > MOST {
            return None;
        }
        Some(Chunk {
            id: u64_at(8),
            stream: u32_at(16),
            number: u32_at(20),
            stamp: u64_at(24),
            thread: u32_at(40),
            nodes: u32_at(44),
            lost: u32_at(52),
            forgets: u32_at(56),
            records: bytes.get(HEADER..HEADER + length)?.to_vec(),
        })
    }
}

/// The sum of a chunk, header and records.
pub(crate) fn sum_of(chunk: &[u8]) -> u32 {
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut chunk = chunk.to_vec();
    chunk[48..52].fill(0);
    let [begin, length] =
        [60, 62].map(|at| usize::from(chunk[at]) + 256 * usize::from(chunk[at + 1]));
    chunk[begin..begin + length].fill(0);
    chunk.resize(chunk.len().next_multiple_of(32), 0);
    let mut lanes = [1u64, 2, 3, 4];
    for (index, word) in chunk.chunks(8).enumerate() {
        let word = u64::from_le_bytes(word.try_into().unwrap());
        let lane = &mut lanes[index % 4];
        *lane = (*lane ^ word).wrapping_mul(FACTOR).rotate_left(29);
    }
    let step = |sum: u64, lane: u64| (sum ^ lane).wrapping_mul(FACTOR).rotate_left(29);
    let sum = lanes.into_iter().fold(0, step);
    (sum ^ sum >> 32) as u32
}

/// Stores it in a chunk.
pub(crate) fn seal(chunk: &mut [u8]) {
    let sum = sum_of(chunk);
    chunk[48..52].copy_from_slice(&sum.to_le_bytes());
}

/// The chunks of a file, in its order. One that was being written when all threads ended may be there
/// once more in part.
pub(super) fn chunks_of(bytes: &[u8], damaged: &mut Vec<String>) -> Vec<Chunk> {
    let (mut chunks, mut at) = (Vec::<Chunk>::new(), 0);
    let mut wrong = Vec::new();
    while at < bytes.len() {
        match Chunk::parse(&bytes[at..]) {
            Some(chunk) => {
                let whole = &bytes[at..at + HEADER + chunk.records.len()];
                if sum_of(whole).to_le_bytes() != whole[48..52] {
                    wrong.push((chunk.stream, chunk.number, format!("byte {at}{WRONG_SUM}")));
                    let begins = |at: &usize| bytes[*at..].starts_with(b"mtr\x02");
                    at = (at + 64..bytes.len()).step_by(64).find(begins).unwrap_or(bytes.len());
                    continue;
                }
                if chunks.first().is_some_and(|first| first.id != chunk.id) {
                    damaged.push(format!("byte {at}: a chunk of another trace"));
                }
                at += (HEADER + chunk.records.len()).next_multiple_of(64);
                chunks.push(chunk);
            }
            None if bytes[at..].starts_with(b"mtr\x02") && bytes.len() - at <= HEADER + MOST => {
                damaged.push(format!("byte {at}{CUT_OFF}"));
                break;
            }
            None => {
                let end = bytes.len().min(at + 64);
                if bytes[at..end].iter().any(|byte| *byte != 0) {
                    damaged.push(format!("byte {at}: neither a chunk nor a hole"));
                }
                at = end;
            }
        }
    }
    let is_there = |stream, number| chunks.iter().any(|c| (c.stream, c.number) == (stream, number));
    wrong.retain(|(stream, number, _)| !is_there(*stream, *number));
    damaged.extend(wrong.into_iter().map(|(.., what)| what));
    chunks
}

/// The ID in a tail, and its chunks.
pub(super) fn slots_of(tail: &[u8]) -> Result<(u64, Vec<Chunk>), String> {
    if tail.len() < 4096 || &tail[..8] != b"MTRTAIL2" {
        return Err("this is no tail".into());
    }
    let id = u64::from_le_bytes(tail[8..16].try_into().unwrap());
    let half = |at: usize| u32::from_le_bytes(tail[at..at + 4].try_into().unwrap()) as usize;
    let (size, count) = (half(16), half(20));
    if size != 32_768 || tail.len() < 4096 + size * count {
        return Err(format!("{count} slots of {size} bytes in {} bytes", tail.len()));
    }
    let slots = tail[4096..].chunks(size).take(count);
    Ok((id, slots.filter_map(Chunk::parse).filter(|chunk| !chunk.records.is_empty()).collect()))
}

/// The first byte of a record without the lengths in it, and its fields, differences undone.
#[derive(Debug, Clone, Copy)]
pub(super) struct Record {
    fields: [u64; 6],
    count: usize,
}

impl std::ops::Deref for Record {
    type Target = [u64];

    fn deref(&self) -> &[u64] {
        &self.fields[..self.count]
    }
}

fn record<const N: usize>(given: [u64; N]) -> Record {
    let mut fields = [0; 6];
    fields[..N].copy_from_slice(&given);
    Record { fields, count: N }
}

/// The records of one chunk.
pub(super) struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Where the last record began.
    begin: usize,
    /// Address of the last event.
    event: u64,
    /// Return address of the last node.
    node: u64,
}

impl<'a> Fields<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Fields<'a> {
        Fields { bytes, at: 0, begin: 0, event: 0, node: 0 }
    }

    /// Where the last record began.
    pub(super) fn position(&self) -> usize {
        self.begin
    }

    /// The bytes of the TEXT that was read last; empty for another record.
    pub(super) fn text(&self) -> Vec<u8> {
        match self.bytes[self.begin] {
            1 => self.bytes[self.begin + 2..self.at].to_vec(),
            _ => Vec::new(),
        }
    }

    /// The next record; `None` at the end, `Some(None)` for damage.
    pub(super) fn record(&mut self) -> Option<Option<Record>> {
        self.begin = self.at;
        (self.at < self.bytes.len()).then(|| self.fields())
    }

    fn fields(&mut self) -> Option<Record> {
        let first = self.byte()?;
        Some(match first {
            0x61..=0x6c => {
                let (family, is_aligned) = (first - 0x60, matches!(first, 0x64..=0x66));
                let alignment = if is_aligned { self.varint()? } else { 0 };
                let follows = *self.bytes.get(self.at)?;
                let mut record = (follows >= 0x80 || follows == 9).then(|| self.fields())??;
                let count = record.count;
                record.fields[count - 2] = family.into();
                record.fields[count - 1] = alignment;
                record
            }
            0x80.. => {
                let node = self.number(usize::from(first & 3) + 1)?;
                let address = self.address(usize::from(first >> 2 & 7))?;
                let size = self.number(1 << (first >> 5 & 3))?;
                record([0x80, node, address, size, 1, 0])
            }
            0x40..=0x5f => {
                let address = self.address(usize::from(first & 7))?;
                record([0x40, address, self.varint()?])
            }
            1 => {
                let length = self.byte().filter(|length| *length > 0)?;
                self.take(length.into())?;
                record([1])
            }
            3 => record([3]),
            2 | 6 | 7 => record([first.into(), self.varint()?]),
            4 => {
                let up = self.varint()?;
                let difference = self.varint()?;
                self.node = unzigzag(self.node, difference);
                record([4, up, self.node])
            }
            8 => {
                let outcome = self.byte().filter(|outcome| *outcome <= 3)?;
                let a = self.byte().filter(|a| *a <= 7)?;
                let address = self.address(a.into())?;
                record([8, outcome.into(), address, self.varint()?])
            }
            9 => {
                let (node, size) = (self.varint()?, self.varint()?);
                record([9, node, self.varint()?, size, 1, 0])
            }
            _ => return None,
        })
    }

    fn byte(&mut self) -> Option<u8> {
        Some(self.take(1)?[0])
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at + count)?;
        self.at += count;
        Some(taken)
    }

    fn number(&mut self, bytes: usize) -> Option<u64> {
        let bytes = self.take(bytes)?;
        Some(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn varint(&mut self) -> Option<u64> {
        let mut number: u128 = 0;
        for shift in (0..).step_by(7).take(10) {
            let byte = self.byte()?;
            number |= u128::from(byte & 127) << shift;
            if byte < 128 {
                return number.try_into().ok();
            }
        }
        None
    }

    fn address(&mut self, a: usize) -> Option<u64> {
        if a == 7 {
            let address = self.number(8)?;
            self.event = address & !15;
            return Some(address);
        }
        let difference = self.number(a)?;
        self.event = unzigzag(self.event >> 4, difference) << 4;
        Some(self.event)
    }
}

fn unzigzag(from: u64, n: u64) -> u64 {
    match n % 2 {
        0 => from.wrapping_add(n / 2),
        _ => from.wrapping_sub(n / 2 + 1),
    }
}
