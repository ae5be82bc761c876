//! What the loader and the ELF file in memory say of a module. Layouts: `<link.h>`, and the ELF
//! specification (gABI chapters 4 and 5; hash sections of the GNU ABI).

use core::ffi::{CStr, c_char};
use core::slice;
use core::sync::atomic::{AtomicU64, Ordering};

use libc::{Elf64_Ehdr, Elf64_Phdr, Elf64_Sym};

use super::{Module, c_str};
use crate::{config, sys};

/// The public part of the loader's `struct link_map`.
#[repr(C)]
pub(crate) struct LinkMap {
    bias: usize,
    name: *const c_char,
    dynamic: *const Dyn,
    next: *const LinkMap,
    previous: *const LinkMap,
    /// Not public, but there since glibc 2.2: the module itself, or what it stands for in another
    /// namespace.
    real: *const LinkMap,
}

/// `Elf64_Dyn`.
#[repr(C)]
struct Dyn {
    tag: i64,
    value: usize,
}

const DT_NULL: i64 = 0;
const DT_HASH: i64 = 4;
const DT_STRTAB: i64 = 5;
const DT_SYMTAB: i64 = 6;
const DT_DEBUG: i64 = 21;
const DT_GNU_HASH: i64 = 0x6fff_fef5;
const STT_FUNC: u8 = 2;
const STT_TLS: u8 = 6;
const NT_GNU_BUILD_ID: u32 = 3;

impl LinkMap {
    /// Bytes that a record has at least.
    pub(crate) const LEAST_SIZE: usize = size_of::<LinkMap>();

    /// Whether this, if it is what it seems to be, is the record of a module of its own.
    pub(crate) fn is_live(&self) -> bool {
        core::ptr::eq(self.real, self)
    }

    /// AVMA - SVMA.
    pub(crate) fn bias(&self) -> usize {
        self.bias
    }

    /// The module that was loaded after this one.
    ///
    /// # Safety
    /// No module is being loaded or unloaded.
    pub(super) unsafe fn next(&self) -> Option<&LinkMap> {
        // SAFETY: the loader's list holds live records, the caller's promise keeps it still.
        unsafe { self.next.as_ref() }
    }

    /// The module that was loaded before this one.
    ///
    /// # Safety
    /// No module is being loaded or unloaded.
    pub(super) unsafe fn previous(&self) -> Option<&LinkMap> {
        // SAFETY: as in `next`.
        unsafe { self.previous.as_ref() }
    }

    /// The loader's name for the module; for the program, which has none there, argv[0].
    pub(crate) fn name(&self) -> &[u8] {
        // SAFETY: the loader's string lives as long as the module.
        match unsafe { c_str(self.name) }.map(CStr::to_bytes) {
            None | Some(b"") => config::get().program_name.as_bytes(),
            Some(name) => name,
        }
    }

    /// Address of the loader that loaded this program: it leaves its `struct r_debug`, whose fifth
    /// word says so, for debuggers.
    pub(super) fn loader(&self) -> Option<usize> {
        let debug = self.dynamic_pointer(DT_DEBUG).filter(|debug| *debug != 0)? as *const usize;
        // SAFETY: the loader's own record.
        Some(unsafe { debug.add(4).read() })
    }

    /// Address that a pointer in the dynamic section stands for.
    fn dynamic_pointer(&self, tag: i64) -> Option<usize> {
        let mut entry = self.dynamic;
        if entry.is_null() {
            return None;
        }
        // SAFETY: the dynamic section of a loaded module ends with DT_NULL.
        while unsafe { (*entry).tag } != DT_NULL {
            // SAFETY: as above.
            let Dyn { tag: found, value } = unsafe { &*entry };
            if *found == tag {
                // glibc relocates these in place, but for the vDSO, whose section is read-only.
                return Some(if *value < self.bias { value + self.bias } else { *value });
            }
            // SAFETY: not the last one.
            entry = unsafe { entry.add(1) };
        }
        None
    }
}

/// The dynamic symbols of a module. Its hash section is what tells how many there are.
struct Symbols {
    table: *const Elf64_Sym,
    strings: *const c_char,
    /// Symbols before this one are not defined here.
    first_defined: usize,
    hash: Hash,
}

enum Hash {
    Gnu(GnuHash),
    /// The hash section of the System V ABI, which a linker can write in its place: number of
    /// symbols. It is read from end to end; it is rare.
    SystemV(usize),
}

#[derive(Clone, Copy)]
struct GnuHash {
    /// Buckets of the hash table: index of the first symbol of each chain.
    buckets: &'static [u32],
    /// Hash values from `first_defined` on; the lowest bit ends a chain.
    chains: *const u32,
}

impl Symbols {
    fn of(module: &LinkMap) -> Option<Symbols> {
        let table = module.dynamic_pointer(DT_SYMTAB)? as *const Elf64_Sym;
        let strings = module.dynamic_pointer(DT_STRTAB)? as *const c_char;
        let Some(hash) = module.dynamic_pointer(DT_GNU_HASH) else {
            let hash = module.dynamic_pointer(DT_HASH)? as *const u32;
            // SAFETY: the module is loaded, so its hash section is mapped. Its second word is the
            // number of chains: one for each symbol.
            let count = unsafe { *hash.add(1) } as usize;
            return Some(Symbols { table, strings, first_defined: 1, hash: Hash::SystemV(count) });
        };
        let hash = hash as *const u32;
        // SAFETY: the module is loaded, so its hash section is mapped: four words, then the Bloom
        // filter in words of 64 bits, then the buckets, then the chains.
        unsafe {
            let [bucket_count, first_defined, bloom_words, _shift] = *hash.cast::<[u32; 4]>();
            let buckets = hash.add(4 + 2 * bloom_words as usize);
            Some(Symbols {
                table,
                strings,
                first_defined: first_defined as usize,
                hash: Hash::Gnu(GnuHash {
                    buckets: slice::from_raw_parts(buckets, bucket_count as usize),
                    chains: buckets.add(bucket_count as usize),
                }),
            })
        }
    }

    /// Number of symbols in all.
    fn count(&self) -> usize {
        let GnuHash { buckets, chains } = match self.hash {
            Hash::Gnu(hash) => hash,
            Hash::SystemV(count) => return count,
        };
        let mut last = match buckets.iter().max() {
            Some(&last) if last as usize >= self.first_defined => last as usize,
            _ => return self.first_defined,
        };
        // SAFETY: chains end with an odd value (GNU hash section).
        while unsafe { *chains.add(last - self.first_defined) } & 1 == 0 {
            last += 1;
        }
        last + 1
    }

    /// # Safety
    /// `from..to` is inside the symbol table.
    unsafe fn slice(&self, from: usize, to: usize) -> &'static [Elf64_Sym] {
        // SAFETY: the caller's promise; the table is mapped while the module is loaded.
        unsafe { slice::from_raw_parts(self.table.add(from), to.saturating_sub(from)) }
    }

    fn name(&self, symbol: &Elf64_Sym) -> &'static CStr {
        // SAFETY: names of a loaded module are C strings in its string table.
        unsafe { CStr::from_ptr(self.strings.add(symbol.st_name as usize)) }
    }
}

/// The exported symbol that covers an address, and the address's offset in it: as dladdr finds it.
pub(super) fn symbol_at(module: &LinkMap, address: usize) -> Option<(&'static CStr, usize)> {
    let symbols = Symbols::of(module)?;
    // SAFETY: from the first defined symbol to the last.
    let defined = unsafe { symbols.slice(symbols.first_defined, symbols.count()) };
    let best = defined
        .iter()
        .filter(|symbol| {
            let start = module.bias.wrapping_add(symbol.st_value as usize);
            let nowhere = symbol.st_shndx == 0 && symbol.st_value == 0;
            let sized = symbol.st_shndx != 0 && symbol.st_size != 0;
            let covers = (!sized && address == start)
                || (address >= start && address - start < symbol.st_size as usize);
            !nowhere && symbol.st_info & 15 != STT_TLS && covers
        })
        .reduce(|best, next| if next.st_value > best.st_value { next } else { best })?;
    Some((symbols.name(best), address - module.bias.wrapping_add(best.st_value as usize)))
}

/// Whether the module refers to `name` and leaves its definition to others.
pub(super) fn imports(module: &LinkMap, name: &CStr) -> bool {
    let Some(symbols) = Symbols::of(module) else { return false };
    let end = match symbols.hash {
        Hash::Gnu(_) => symbols.first_defined,
        Hash::SystemV(count) => count,
    };
    // SAFETY: the symbols that the GNU hash table leaves out, or all.
    unsafe { symbols.slice(1, end) }
        .iter()
        .any(|symbol| symbol.st_shndx == 0 && symbols.name(symbol) == name)
}

/// Address of the function that the module itself exports as `name`.
pub(super) fn export(module: &LinkMap, name: &CStr) -> Option<usize> {
    let symbol = exported(module, name)?;
    Some(module.bias.wrapping_add(symbol.st_value as usize))
}

/// The symbol of a function that the module exports.
fn exported(module: &LinkMap, name: &CStr) -> Option<&'static Elf64_Sym> {
    let symbols = Symbols::of(module)?;
    let is_it = |symbol: &Elf64_Sym| {
        symbol.st_shndx != 0 && symbol.st_info & 15 == STT_FUNC && symbols.name(symbol) == name
    };
    let GnuHash { buckets, chains } = match symbols.hash {
        Hash::Gnu(hash) => hash,
        Hash::SystemV(count) => {
            // SAFETY: all symbols but the first, which is none.
            return unsafe { symbols.slice(1, count) }.iter().find(|symbol| is_it(symbol));
        }
    };
    let hash = gnu_hash(name);
    let bucket = hash as usize % buckets.len().max(1);
    let first = *buckets.get(bucket)? as usize;
    if first < symbols.first_defined {
        return None;
    }
    for index in first.. {
        // SAFETY: chains end with an odd value (GNU hash section), and none goes beyond the symbols.
        let (symbol, found) =
            unsafe { (&*symbols.table.add(index), *chains.add(index - symbols.first_defined)) };
        if found | 1 == hash | 1 && is_it(symbol) {
            return Some(symbol);
        }
        if found & 1 == 1 {
            break;
        }
    }
    None
}

/// Makes a module's symbol one without a value, which the loader's lookup passes over.
pub(super) fn withdraw(module: &Module, name: &CStr) {
    const PAGE: usize = 4096;
    // SAFETY: the module is loaded.
    let link_map = unsafe { &*module.link_map };
    let Some(symbol) = exported(link_map, name) else { return };
    let at = &raw const symbol.st_value;
    let segment = program_headers(module).and_then(|headers| {
        headers.iter().find(|header| {
            let start = link_map.bias.wrapping_add(header.p_vaddr as usize);
            header.p_type == libc::PT_LOAD
                && (at as usize).wrapping_sub(start) < header.p_memsz as usize
        })
    });
    let flags = segment.map_or(0, |segment| segment.p_flags);
    let protection = |flag, protection| if flags & flag != 0 { protection } else { 0 };
    let before = protection(libc::PF_R, libc::PROT_READ)
        | protection(libc::PF_W, libc::PROT_WRITE)
        | protection(libc::PF_X, libc::PROT_EXEC);
    let page = at as usize / PAGE * PAGE;
    // SAFETY: whole pages of a private mapping, which stay readable and executable. The word lies
    // in one page, being aligned; the loader reads it, and takes either value. Nothing of ours
    // holds a reference to the symbol any more.
    unsafe {
        if before != 0 && sys::protect(page, PAGE, before | libc::PROT_WRITE).is_ok() {
            AtomicU64::from_ptr(at.cast_mut()).store(0, Ordering::Relaxed);
            let _ = sys::protect(page, PAGE, before);
        }
    }
}

/// The hash function of the GNU hash section (Bernstein's).
fn gnu_hash(name: &CStr) -> u32 {
    let next = |hash: u32, byte: &u8| hash.wrapping_mul(33).wrapping_add(u32::from(*byte));
    name.to_bytes().iter().fold(5381, next)
}

/// The ELF header of a module, if its first mapping begins with it.
pub(super) fn header(module: &Module) -> Option<&'static Elf64_Ehdr> {
    // SAFETY: the first mapping of a module is readable and at least a page; it holds the ELF header
    // if it begins with the magic.
    let header = unsafe { &*(module.start as *const Elf64_Ehdr) };
    (header.e_ident.first_chunk() == Some(b"\x7fELF")).then_some(header)
}

/// Program headers of a module whose first mapping begins with its ELF header.
pub(super) fn program_headers(module: &Module) -> Option<&'static [Elf64_Phdr]> {
    let header = header(module)?;
    // SAFETY: with the ELF header the program headers are mapped too (the loader read them there).
    unsafe {
        let first = (&raw const *header).cast::<u8>().add(header.e_phoff as usize);
        Some(slice::from_raw_parts(first.cast(), header.e_phnum.into()))
    }
}

/// The address behind the last segment of a module.
pub(super) fn end(module: &Module) -> Option<usize> {
    // SAFETY: the module is loaded.
    let bias = unsafe { (*module.link_map).bias };
    let segments = program_headers(module)?.iter().filter(|header| header.p_type == libc::PT_LOAD);
    let end = segments.map(|header| (header.p_vaddr + header.p_memsz) as usize).max()?;
    Some(bias.wrapping_add(end))
}

/// The readable segment of a module that holds `address`.
pub(crate) fn segment_at(module: &Module, address: usize) -> Option<&'static [u8]> {
    // SAFETY: the module is loaded.
    let bias = unsafe { (*module.link_map).bias };
    program_headers(module)?.iter().find_map(|header| {
        let start = bias.wrapping_add(header.p_vaddr as usize);
        let len = header.p_memsz as usize;
        let holds = header.p_type == libc::PT_LOAD
            && header.p_flags & libc::PF_R != 0
            && address.wrapping_sub(start) < len;
        // SAFETY: the loader has mapped the segment, readable, for as long as the module is loaded.
        // What `.eh_frame` lies in is never written to.
        holds.then(|| unsafe { slice::from_raw_parts(start as *const u8, len) })
    })
}

/// The bytes before an address of a module's code: of the file's, not of what a program has made.
pub(crate) fn code_before<const N: usize>(module: &Module, address: usize) -> Option<[u8; N]> {
    // SAFETY: the module is loaded.
    let bias = unsafe { (*module.link_map).bias };
    let start = address.checked_sub(N)?;
    let is_in = |segment: &Elf64_Phdr| {
        let offset = start.wrapping_sub(bias.wrapping_add(segment.p_vaddr as usize)) as u64;
        segment.p_type == libc::PT_LOAD
            && segment.p_flags & (libc::PF_R | libc::PF_X) == libc::PF_R | libc::PF_X
            && offset.checked_add(N as u64).is_some_and(|end| end <= segment.p_filesz)
    };
    // SAFETY: the loader has mapped the segment, readable, for as long as the module is loaded.
    // Volatile, because a program may change its own code.
    let code = || unsafe { (start as *const [u8; N]).read_volatile() };
    program_headers(module)?.iter().any(is_in).then(code)
}

/// Build ID from the notes of a module whose first mapping begins with its ELF header.
pub(super) fn build_id(module: &Module) -> Option<&'static [u8]> {
    // SAFETY: the module is loaded.
    let bias = unsafe { (*module.link_map).bias };
    let headers = program_headers(module)?;
    headers.iter().filter(|header| header.p_type == libc::PT_NOTE).find_map(|header| {
        let at = bias.wrapping_add(header.p_vaddr as usize) as *const u8;
        // SAFETY: PT_NOTE lies in a loaded segment.
        find_build_id(unsafe { slice::from_raw_parts(at, header.p_filesz as usize) })
    })
}

/// A note is three words (length of the name, length of the content, type), then both, padded to 4.
fn find_build_id(mut notes: &'static [u8]) -> Option<&'static [u8]> {
    loop {
        let word = |at| notes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes);
        let (name_len, len, kind) = (word(0)? as usize, word(4)? as usize, word(8)?);
        let content = 12 + name_len.next_multiple_of(4);
        if kind == NT_GNU_BUILD_ID && notes.get(12..16) == Some(b"GNU\0") {
            return notes.get(content..content + len);
        }
        notes = notes.get(content + len.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_that_of_the_gnu_hash_section() {
        // Values from the examples of the specification's author.
        assert_eq!(gnu_hash(c""), 0x1505);
        assert_eq!(gnu_hash(c"printf"), 0x156b2bb8);
        assert_eq!(gnu_hash(c"syscall"), 0xbac212a0);
    }

    #[test]
    fn the_build_id_is_found_among_other_notes() {
        let other = b"\x04\0\0\0\x03\0\0\0\x05\0\0\0GNU\0abc\0";
        let build_id = b"\x04\0\0\0\x02\0\0\0\x03\0\0\0GNU\0\xca\xfe\0\0";
        let notes: &'static [u8] = Box::leak([&other[..], build_id].concat().into_boxed_slice());
        assert_eq!(find_build_id(notes), Some(&b"\xca\xfe"[..]));
        assert_eq!(find_build_id(other), None);
    }
}
