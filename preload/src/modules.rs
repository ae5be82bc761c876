//! Modules: which one holds an address, and what the log says of it.
//!
//! The loader is asked through `_dl_find_object`, which takes no lock and allocates nothing. dladdr
//! would take the loader's lock, and a program whose constructor (under that lock) waits for a lock
//! that another thread holds while it allocates would hang.

mod elf;
mod map;
mod scope;
mod sections;

use core::ffi::{CStr, c_char, c_void};
use core::mem::MaybeUninit;

use crate::global::Scratch;
use crate::sites::{Buffer, MAX_TEXT};
use crate::{config, log};

pub(crate) use elf::{LinkMap, code_before, segment_at};
pub(crate) use map::{are_traced, is_known, start, sweep};
pub(crate) use scope::{
    defines, export_before_us, export_of_module_at, is_cpp_runtime, is_own, next_export, others,
    own_name, withdraw,
};
pub(crate) use sections::section;

/// Result of `_dl_find_object` (dlfcn.h, glibc 2.35).
#[repr(C)]
struct DlFindObject {
    flags: u64,
    map_start: *mut c_void,
    map_end: *mut c_void,
    link_map: *const LinkMap,
    eh_frame: *mut c_void,
    reserved: [u64; 7],
}

unsafe extern "C" {
    fn _dl_find_object(address: *mut c_void, result: *mut DlFindObject) -> i32;
}

/// A module that is loaded now.
#[derive(Clone, Copy)]
pub(crate) struct Module {
    /// First address of its first mapping.
    pub(crate) start: usize,
    /// Address behind its last mapping.
    pub(crate) end: usize,
    /// Where what the loader knows by `start` ends: `end`, or, if there are gaps between the segments,
    /// the end of the first one.
    known_end: usize,
    /// The loader's record of it. Valid while code of the module runs, or while it cannot be
    /// unloaded for another reason.
    pub(crate) link_map: *const LinkMap,
    /// Its `.eh_frame_hdr`, 0 when it has none.
    pub(crate) eh_frame_hdr: usize,
}

/// The module that holds an address, which stays loaded meanwhile.
pub(crate) fn find(address: usize) -> Option<Module> {
    let mut module = find_mapped(address)?;
    // Of a module with gaps between its segments the loader knows each segment by itself. The first
    // one has the ELF header; it lies where the module was linked to begin at 0, as libraries are,
    // or where the kernel says that the program's headers are.
    // SAFETY: the module is loaded, and stays so.
    let bias = unsafe { &*module.link_map }.bias();
    if bias != module.start {
        let is_of_it = |first: &Module| core::ptr::eq(first.link_map, module.link_map);
        // SAFETY: reads the auxiliary vector.
        let program = || unsafe { libc::getauxval(libc::AT_PHDR) } as usize;
        let first = find_mapped(bias).filter(is_of_it);
        if let Some(first) = first.or_else(|| find_mapped(program()).filter(is_of_it)) {
            (module.start, module.known_end) = (first.start, first.end);
        }
    }
    module.end = elf::end(&module).unwrap_or(module.end);
    Some(module)
}

/// What the loader knows of an address, whether it stays loaded or not: the module that holds it, or
/// a segment of that.
fn find_mapped(address: usize) -> Option<Module> {
    let mut found = MaybeUninit::<DlFindObject>::zeroed();
    // SAFETY: the loader accepts any address and fills the record when it returns 0.
    let found = unsafe {
        if _dl_find_object(address as *mut c_void, found.as_mut_ptr()) != 0 {
            return None;
        }
        found.assume_init()
    };
    Some(Module {
        start: found.map_start as usize,
        end: found.map_end as usize,
        known_end: found.map_end as usize,
        link_map: found.link_map,
        eh_frame_hdr: found.eh_frame as usize,
    })
}

/// Writes the WHERE text of a return address, and the module's line into the log if it is new. Tells
/// whether the module is a runtime.
///
/// The module cannot go away meanwhile: code of it is running.
pub(crate) fn describe(return_address: usize, out: &mut Buffer) -> bool {
    out.clear();
    out.push(b"@ ");
    let Some(module) = find(return_address) else {
        push_address(out, return_address);
        return false;
    };
    write_line_once(&module);
    // SAFETY: see above: the module is loaded.
    let link_map = unsafe { &*module.link_map };
    // Room is kept for what stands behind the name: the symbol, and at most 40 bytes of numbers.
    out.push_escaped_up_to(link_map.name(), MAX_TEXT / 2);
    out.push(b":");
    let relative = config::get().relative_addresses;
    if let Some((symbol, offset)) = elf::symbol_at(link_map, return_address) {
        out.push(b"(");
        out.push_escaped_up_to(symbol.to_bytes(), MAX_TEXT - 64);
        out.push(if relative { b"+" } else { b"+0x" });
        out.push_hex(offset as u64, 1);
        out.push(b")");
    }
    push_address(out, if relative { return_address - module.start } else { return_address });
    is_runtime(link_map.name())
}

/// Whether a library is the runtime of a language, whose callers are of interest and not itself.
fn is_runtime(name: &[u8]) -> bool {
    const RUNTIMES: [&[u8]; 7] = [
        b"libc.so",
        b"libstdc++.so",
        b"libgcc_s.so",
        b"libc++.so",
        b"libc++abi.so",
        b"libpthread.so",
        b"ld-linux-",
    ];
    let file = name.rsplit(|byte| *byte == b'/').next().unwrap_or(name);
    RUNTIMES.iter().any(|runtime| file.starts_with(runtime))
}

fn write_line_once(module: &Module) {
    if !map::is_known(module) {
        write_line_of(module, log::write_comment);
    }
}

fn push_address(out: &mut Buffer, address: usize) {
    out.push(b"[0x");
    out.push_hex(address as u64, 1);
    out.push(b"] ");
}

/// Where the loader is. To be called when it has loaded what the program was linked with.
pub(crate) fn loader() -> Option<(usize, usize)> {
    let program = program()?;
    // SAFETY: the program stays loaded for good.
    let loader = find(unsafe { &*program.link_map }.loader()?)?;
    Some((loader.start, loader.end))
}

/// The program itself, found by where the kernel put its program headers.
pub(crate) fn program() -> Option<Module> {
    // SAFETY: reads the auxiliary vector.
    find(unsafe { libc::getauxval(libc::AT_PHDR) } as usize)
}

/// Whether the program or a library that it was started with refers to `mtrace` without defining
/// it: then it decides itself when tracing is on.
///
/// # Safety
/// The list of modules does not change meanwhile (the program has not started, or dlopen has not
/// been reached).
pub(crate) unsafe fn program_calls_mtrace() -> bool {
    let Some(program) = program() else { return false };
    // SAFETY: the program stays loaded for good.
    elf::imports(unsafe { &*program.link_map }, c"mtrace")
}

/// Makes the line `# module START END BIAS BUILDID PATH NAME`, has it written, and remembers that.
pub(crate) fn write_line_of(module: &Module, write: impl FnOnce(&[u8])) {
    let Some(mut line) = Scratch::<16384>::new() else { return };
    // SAFETY: the module is loaded (see `describe`; the program always is).
    let link_map = unsafe { &*module.link_map };
    line.push(b"# module");
    for number in [module.start, module.end, link_map.bias()] {
        line.push(b" 0x");
        line.push_hex(number as u64, 1);
    }
    line.push(b" ");
    match elf::build_id(module) {
        Some(id) => id.iter().for_each(|byte| line.push_hex(u64::from(*byte), 2)),
        None => line.push(b"-"),
    }
    line.push(b" ");
    if !map::push_path(module.start, &mut line) {
        line.push_escaped(link_map.name());
    }
    line.push(b" ");
    line.push_escaped(link_map.name());
    write(line.as_bytes());
    map::remember(module);
}

/// # Safety
/// `string` is NULL or a C string that lives as long as is needed.
pub(crate) unsafe fn c_str<'a>(string: *const c_char) -> Option<&'a CStr> {
    // SAFETY: the caller's promise.
    (!string.is_null()).then(|| unsafe { CStr::from_ptr(string) })
}
