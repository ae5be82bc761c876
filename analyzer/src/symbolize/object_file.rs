//! An ELF file as the analyzer needs it: layout, build ID, symbols, bytes of code.

use super::address::Svma;
use super::symbols::SymbolTable;
use addr2line::gimli;
use memmap2::Mmap;
use object::{Object, ObjectSegment};
use std::cell::OnceCell;
use std::fs::File;
use std::io::{self, Read};
use std::ops::{Deref, Range};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Files up to this size are read instead of mapped: no one can pull those bytes away.
const LARGEST_READ: u64 = 16 << 20;

/// glibc and the kernel place segments by pages of this size on x86_64.
pub(super) const PAGE: u64 = 4096;

/// The content of a file.
pub(super) enum FileBytes {
    Read(Vec<u8>),
    Mapped(Mmap),
}

impl FileBytes {
    pub(super) fn open(path: &Path) -> io::Result<FileBytes> {
        // A trace can name anything: opening a pipe would wait for its writer.
        let mut file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        if metadata.len() <= LARGEST_READ {
            let mut bytes = Vec::with_capacity(metadata.len() as usize);
            file.read_to_end(&mut bytes)?;
            return Ok(FileBytes::Read(bytes));
        }
        // SAFETY: the map is private and never written through. Whoever rewrites the file in place
        // while it is being read can make bytes wrong, and then the result is wrong: every parser
        // above checks its bounds. Whoever truncates it in place causes SIGBUS; linkers, package
        // managers and strip replace files by a new inode instead, and that promise is theirs.
        let map = unsafe { Mmap::map(&file)? };
        Ok(FileBytes::Mapped(map))
    }
}

impl Deref for FileBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            FileBytes::Read(bytes) => bytes,
            FileBytes::Mapped(map) => map,
        }
    }
}

/// A part of the file that is mapped executable.
struct Code {
    range: Range<u64>,
    file_offset: usize,
}

/// An executable, a shared library or a separate debug file of one.
pub(super) struct ObjectFile {
    pub(super) path: PathBuf,
    pub(super) build_id: Vec<u8>,
    /// An executable linked for a fixed address (`-no-pie`): its load bias is always 0.
    pub(super) is_fixed: bool,
    pub(super) machine: object::Architecture,
    pub(super) bytes: FileBytes,
    /// Page of the first and address behind the last PT_LOAD segment.
    pub(super) extent: Range<u64>,
    code: Vec<Code>,
    static_symbols: OnceCell<SymbolTable>,
    dynamic_symbols: OnceCell<SymbolTable>,
}

impl ObjectFile {
    /// Reads what is cheap to read; symbols follow when they are asked for.
    pub(super) fn open(path: &Path) -> Result<ObjectFile, String> {
        let bytes = FileBytes::open(path).map_err(|error| error.to_string())?;
        if !bytes.starts_with(b"\x7fELF") {
            return Err("not an ELF file".to_owned());
        }
        let object = object::File::parse(&*bytes).map_err(|error| error.to_string())?;
        let is_fixed = match object.kind() {
            object::ObjectKind::Executable => true,
            object::ObjectKind::Dynamic => false,
            kind => return Err(format!("neither an executable nor a shared library ({kind:?})")),
        };
        let (mut first, mut end) = (u64::MAX, 0);
        let mut code = Vec::new();
        for segment in object.segments() {
            let range = segment.address()..segment.address().saturating_add(segment.size());
            first = first.min(range.start / PAGE * PAGE);
            end = end.max(range.end);
            if segment.permissions().executable() {
                let (offset, size) = segment.file_range();
                let end = range.start.saturating_add(size).min(range.end);
                code.push(Code { range: range.start..end, file_offset: offset as usize });
            }
        }
        let extent = first.min(end)..end;
        let build_id = object.build_id().ok().flatten().unwrap_or_default().to_vec();
        let machine = object.architecture();
        drop(object);
        Ok(ObjectFile {
            path: path.to_owned(),
            build_id,
            is_fixed,
            machine,
            bytes,
            extent,
            code,
            static_symbols: OnceCell::new(),
            dynamic_symbols: OnceCell::new(),
        })
    }

    /// The file parsed anew: borrowing it for the life of `self` would make the type refer to
    /// itself, and parsing reads headers only.
    pub(super) fn parsed(&self) -> Option<object::File<'_>> {
        object::File::parse(&*self.bytes).ok()
    }

    /// Page of the first PT_LOAD segment: what glibc's relative addresses count from.
    pub(super) fn first_load(&self) -> Svma {
        Svma(self.extent.start)
    }

    /// `.symtab`; empty in a stripped file.
    pub(super) fn static_symbols(&self) -> &SymbolTable {
        self.static_symbols.get_or_init(|| {
            self.parsed().map(|o| SymbolTable::new(&self.bytes, o.symbols())).unwrap_or_default()
        })
    }

    /// `.dynsym`.
    pub(super) fn dynamic_symbols(&self) -> &SymbolTable {
        self.dynamic_symbols.get_or_init(|| {
            let object = self.parsed();
            object.map(|o| SymbolTable::new(&self.bytes, o.dynamic_symbols())).unwrap_or_default()
        })
    }

    /// Executable ranges.
    pub(super) fn code(&self) -> impl Iterator<Item = &Range<u64>> {
        self.code.iter().map(|code| &code.range)
    }

    /// The bytes of code in front of an address, all of its segment.
    pub(super) fn code_before(&self, address: Svma) -> &[u8] {
        for Code { range, file_offset } in &self.code {
            if range.start < address.0 && address.0 <= range.end {
                let end = file_offset.saturating_add((address.0 - range.start) as usize);
                return self.bytes.get(*file_offset..end).unwrap_or(&[]);
            }
        }
        &[]
    }

    /// The bytes of code from an address on, to the end of its segment.
    pub(super) fn code_from(&self, address: Svma) -> &[u8] {
        for Code { range, file_offset } in &self.code {
            if range.contains(&address.0) {
                let start = file_offset.saturating_add((address.0 - range.start) as usize);
                let end = start.saturating_add((range.end - address.0) as usize);
                return self.bytes.get(start..end.min(self.bytes.len())).unwrap_or(&[]);
            }
        }
        &[]
    }

    /// Whether the file carries DWARF of its own.
    pub(super) fn has_dwarf(&self) -> bool {
        self.parsed().is_some_and(|object| has_dwarf(&object))
    }
}

/// Line tables are enough: they come with every kind of DWARF.
pub(super) fn has_dwarf(object: &object::File<'_>) -> bool {
    use object::ObjectSection;
    [gimli::SectionId::DebugInfo, gimli::SectionId::DebugLine].iter().any(|id| {
        object.section_by_name(id.name()).is_some_and(|section| {
            section.size() > 0 && section.kind() != object::SectionKind::UninitializedData
        })
    })
}
