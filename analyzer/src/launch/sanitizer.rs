//! Whether a program was built with a sanitizer that brings its own malloc: AddressSanitizer ends a
//! program in which another library comes first, and with the others nothing would be recorded.

use std::fs::File;

use object::elf::DT_NEEDED;
use object::read::elf::ElfFile64;
use object::{Endianness, Object, ObjectSymbol, ReadCache};

/// Name, and what stands in a program that was built with it: its library, or one of its functions.
const SANITIZERS: [(&str, &str, &str); 5] = [
    ("AddressSanitizer", "libasan.so", "__asan_init"),
    ("HWAddressSanitizer", "libhwasan.so", "__hwasan_init"),
    ("ThreadSanitizer", "libtsan.so", "__tsan_init"),
    ("MemorySanitizer", "libmsan.so", "__msan_init"),
    ("LeakSanitizer", "liblsan.so", "__lsan_init"),
];

/// The sanitizer that the program was built with. What cannot be read is no reason to refuse it.
pub(super) fn of(program: &File) -> Option<&'static str> {
    let data = ReadCache::new(program);
    let file = ElfFile64::<Endianness, _>::parse(&data).ok()?;
    let dynamic = file.elf_dynamic_table().ok()?;
    for entry in dynamic.iter().filter(|entry| entry.tag == DT_NEEDED) {
        let needed = dynamic.string(entry).unwrap_or_default();
        let is_it = |library: &str| needed.starts_with(library.as_bytes());
        if let Some((name, ..)) = SANITIZERS.iter().find(|(_, library, _)| is_it(library)) {
            return Some(name);
        }
    }
    if let Some(name) = file.dynamic_symbols().find_map(initialized) {
        return Some(name);
    }
    // One that is linked statically (clang's default) defines malloc for all libraries. In a stripped
    // program it is known by the hooks that it offers.
    let mut exports = file.dynamic_symbols().filter(|symbol| symbol.is_definition());
    if !exports.any(|symbol| symbol.name() == Ok("malloc")) {
        return None;
    }
    file.symbols().find_map(initialized).or_else(|| {
        let mut names = file.dynamic_symbols().filter_map(|symbol| symbol.name().ok());
        names.any(|name| name.starts_with("__sanitizer_")).then_some("a sanitizer")
    })
}

/// The sanitizer that a symbol initializes.
fn initialized<'data>(symbol: impl ObjectSymbol<'data>) -> Option<&'static str> {
    let symbol = symbol.name().ok()?;
    let (name, ..) = SANITIZERS.iter().find(|(.., function)| *function == symbol)?;
    Some(name)
}
