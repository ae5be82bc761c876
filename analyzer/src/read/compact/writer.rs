//! A trace written by hand, for tests.

use mtr_format::compact::word::{self, FIRST_LINE, Family, LongKind, THREAD_SHIFT, Tag};

/// The words of a trace.
#[derive(Debug, Clone, Default)]
pub(crate) struct Writer {
    pub(crate) words: Vec<u64>,
    nodes: u32,
    infos: u32,
}

impl Writer {
    /// With a header, for a program at 0x400000 and a C library at 0x7f0000000000.
    pub(crate) fn new() -> Writer {
        let mut trace = Writer::default();
        let mut header = FIRST_LINE.to_vec();
        header.extend_from_slice(
            b"# id 1f2e3d4c5b6a7988\n# pid 4711\n# started 1790000000.123456789 88231\n\
              # program /home/ann/t\\040x\n# addresses absolute\n# start process\n\
              # module 0x400000 0x405000 0x0 9d1c /home/ann/t\\040x ./t\\040x\n\
              # module 0x7f0000000000 0x7f0000200000 0x7f0000000000 aa /lib/libc.so.6 \
              /lib/libc.so.6\n= Start\n",
        );
        trace.text(&header);
        for (index, high) in [(0, 0), (1, 0x7f0)] {
            trace.words.push(word::first(Tag::Segment as u8, index, high));
        }
        trace
    }

    pub(crate) fn text(&mut self, text: &[u8]) -> &mut Writer {
        self.words.push(word::first(Tag::Text as u8, text.len() as u32, 0));
        self.words.extend(text.chunks(word::TEXT_BYTES).map(word::text));
        self
    }

    pub(crate) fn node(&mut self, parent: u32, address: u64) -> u32 {
        self.nodes += 1;
        self.words.push(word::first(Tag::Node as u8, self.nodes, parent));
        self.words.push(word::continuation(address));
        self.nodes
    }

    /// The stack with these return addresses, innermost first, in a thread.
    pub(crate) fn stack(&mut self, thread: u64, addresses: &[u64]) -> u32 {
        let root = self.node(0, thread << THREAD_SHIFT);
        addresses.iter().rev().fold(root, |parent, address| self.node(parent, *address))
    }

    pub(crate) fn info(&mut self, node: u32, size: u64, family: Family) -> u32 {
        self.infos += 1;
        self.words.push(word::first(Tag::Info as u8, self.infos, node));
        self.words.push(word::size_and_family(size, family));
        self.words.extend(family.has_alignment().then(|| word::alignment(16)));
        self.infos
    }

    /// A block in segment 0.
    pub(crate) fn alloc(&mut self, info: u32, ptr: u64) -> &mut Writer {
        self.words.push(word::first(Tag::Alloc as u8, info, (ptr >> 4) as u32));
        self
    }

    pub(crate) fn free(&mut self, node: u32, ptr: u64) -> &mut Writer {
        self.words.push(word::first(Tag::Free as u8, node, (ptr >> 4) as u32));
        self
    }

    pub(crate) fn long(&mut self, kind: LongKind, id: u32, ptr: u64) -> &mut Writer {
        self.words.extend([word::long(kind, id), word::pointer(ptr)]);
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }
}
