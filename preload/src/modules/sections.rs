//! Sections of a module. Only its file has their headers: programs run without them, so they are not
//! loaded.

use core::ffi::CStr;
use core::mem::MaybeUninit;
use core::slice;

use libc::{Elf64_Ehdr, Elf64_Phdr, Elf64_Shdr};

use super::{Module, elf, map};
use crate::global::Scratch;
use crate::sys;

const SHT_PROGBITS: u32 = 1;
/// What some linkers write for `.eh_frame`.
const SHT_X86_64_UNWIND: u32 = 0x7000_0001;
const SHF_WRITE: u64 = 1;
const SHF_ALLOC: u64 = 2;
/// Names that are looked for are shorter.
const MAX_NAME: usize = 16;

/// Address of the section of this name, which is loaded, and read only. `None` also where the file
/// cannot be read, is another one by now, or has no section headers.
#[cold]
#[inline(never)]
pub(crate) fn section(module: &Module, name: &[u8]) -> Option<usize> {
    let mut path = Scratch::<{ libc::PATH_MAX as usize }>::new()?;
    if map::push_raw_path(module.start, &mut path)
        && is_regular(path.as_c_str())
        && let Some(found) = section_by_file(path.as_c_str(), module, name)
    {
        return Some(found);
    }
    // The program's file can be opened even if it has been removed.
    section_by_file(c"/proc/self/exe", module, name)
}

/// Whether there still is a file under the path, and not a FIFO in its place: opening that could take
/// for ever.
#[inline(never)] // like its neighbours, so that one of them is on the stack at a time
fn is_regular(path: &CStr) -> bool {
    sys::lstat(path).is_ok_and(|stat| stat.st_mode & libc::S_IFMT == libc::S_IFREG)
}

#[inline(never)]
fn section_by_file(path: &CStr, module: &Module, name: &[u8]) -> Option<usize> {
    let file = File::open(path)?;
    let (header, segments) = (elf::header(module)?, elf::program_headers(module)?);
    if !file.has(0, bytes_of(header)) || !file.has(header.e_phoff, bytes_of_all(segments)) {
        return None;
    }
    // A file with more sections than fit here has 0.
    let sections = (0..header.e_shnum).filter_map(|index| file.section(header, index));
    let names = file.section(header, header.e_shstrndx)?.sh_offset;
    let mut buffer = [0; MAX_NAME];
    let named = buffer.get_mut(..name.len() + 1)?;
    for section in sections {
        if !matches!(section.sh_type, SHT_PROGBITS | SHT_X86_64_UNWIND)
            || section.sh_flags & (SHF_WRITE | SHF_ALLOC) != SHF_ALLOC
            || !file.read(names.checked_add(section.sh_name.into())?, named)
            || named.split_last() != Some((&0, name))
        {
            continue;
        }
        let content = loaded(module, &section)?;
        let first = content.get(..content.len().min(64))?;
        let is_same = !first.is_empty() && file.has(section.sh_offset, first);
        return is_same.then_some(content.as_ptr() as usize);
    }
    None
}

/// What a module has loaded of a section of its file, if that is readable.
fn loaded(module: &Module, section: &Elf64_Shdr) -> Option<&'static [u8]> {
    let (address, len) = (section.sh_addr, section.sh_size);
    let is_of_it = |segment: &&Elf64_Phdr| {
        let offset = address.wrapping_sub(segment.p_vaddr);
        segment.p_type == libc::PT_LOAD
            && offset.checked_add(len).is_some_and(|end| end <= segment.p_filesz)
            && segment.p_offset.wrapping_add(offset) == section.sh_offset
    };
    elf::program_headers(module)?.iter().find(is_of_it)?;
    // SAFETY: the module is loaded.
    let start = unsafe { (*module.link_map).bias() }.wrapping_add(address as usize);
    let segment = elf::segment_at(module, start)?;
    segment.get(start - segment.as_ptr() as usize..)?.get(..len as usize)
}

/// A file that is open for reading.
struct File(sys::Fd);

impl Drop for File {
    fn drop(&mut self) {
        sys::close(self.0);
    }
}

impl File {
    fn open(path: &CStr) -> Option<File> {
        sys::openat(path, libc::O_RDONLY | libc::O_CLOEXEC, 0).ok().map(File)
    }

    /// Fills `to` with what stands at `offset`; false if that is not possible.
    fn read(&self, offset: u64, to: &mut [u8]) -> bool {
        // SAFETY: the buffer is as long as that.
        unsafe { sys::pread(self.0, to.as_mut_ptr(), to.len(), offset) == Ok(to.len()) }
    }

    /// Whether these bytes stand at `offset`.
    fn has(&self, offset: u64, bytes: &[u8]) -> bool {
        let mut buffer = [0; 64];
        bytes.chunks(buffer.len()).zip(0u64..).all(|(bytes, index)| {
            let Some(part) = buffer.get_mut(..bytes.len()) else { return false };
            self.read(offset.wrapping_add(64 * index), part) && part == bytes
        })
    }

    fn section(&self, header: &Elf64_Ehdr, index: u16) -> Option<Elf64_Shdr> {
        const SIZE: usize = size_of::<Elf64_Shdr>();
        if usize::from(header.e_shentsize) != SIZE {
            return None;
        }
        let offset = header.e_shoff.checked_add(u64::from(index) * SIZE as u64)?;
        let mut section = MaybeUninit::<Elf64_Shdr>::zeroed();
        // SAFETY: a section header is made of integers without gaps, so of initialized bytes, and
        // any bytes are one.
        unsafe {
            let bytes = slice::from_raw_parts_mut(section.as_mut_ptr().cast::<u8>(), SIZE);
            self.read(offset, bytes).then(|| section.assume_init())
        }
    }
}

fn bytes_of(header: &Elf64_Ehdr) -> &[u8] {
    // SAFETY: an ELF header is made of integers without gaps.
    unsafe { slice::from_raw_parts((&raw const *header).cast(), size_of::<Elf64_Ehdr>()) }
}

fn bytes_of_all(headers: &[Elf64_Phdr]) -> &[u8] {
    // SAFETY: program headers are made of integers without gaps.
    unsafe { slice::from_raw_parts(headers.as_ptr().cast(), size_of_val(headers)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::modules;

    #[test]
    fn a_section_is_found_by_its_name() {
        let own = modules::find(a_section_is_found_by_its_name as *const () as usize).unwrap();
        let address = |name: &[u8]| section(&own, name);
        assert!((own.start..own.end).contains(&address(b".eh_frame").unwrap()));
        assert_eq!(address(b".eh_frame_hdr"), Some(own.eh_frame_hdr));
        // Not there, cut off, written to, not loaded, too long.
        for name in [&b".eh_fram3"[..], b".eh_fram", b".data", b".comment", b".a_very_long_name"] {
            assert_eq!(address(name), None);
        }
    }

    #[test]
    fn another_file_is_not_taken_for_the_modules() {
        let own = modules::find(a_section_is_found_by_its_name as *const () as usize).unwrap();
        assert!(section_by_file(c"/proc/self/exe", &own, b".eh_frame").is_some());
        for other in [c"/bin/sh", c"/dev/null", c"/proc/self/maps", c"/", c"/nowhere"] {
            assert_eq!(section_by_file(other, &own, b".eh_frame"), None);
        }
    }
}
