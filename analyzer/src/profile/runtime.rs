//! Which frames belong to a runtime: code that allocates for whoever calls it, and that nobody who
//! looks for a leak wants to be sent to.

use std::path::Path;

use super::Frame;

/// Libraries of C, C++ and Rust and our own, up to `.so` or a version.
const MODULES: [&str; 16] = [
    "libc",
    "ld-linux-x86-64",
    "ld-linux-aarch64",
    "ld",
    "libpthread",
    "libm",
    "libdl",
    "librt",
    "libstdc++",
    "libc++",
    "libc++abi",
    "libgcc_s",
    "libsupc++",
    "libmtr",
    "linux-vdso",
    "[vdso]",
];

/// Parts of the path of a source file of a runtime.
const FOLDERS: [&str; 9] = [
    "/rustc/",
    // The crates that Rust's std is built with, in rustup's std.
    "/rust/deps/",
    "/rustlib/src/rust/library/",
    "/library/core/src/",
    "/library/alloc/src/",
    "/library/std/src/",
    "/include/c++/",
    "/libstdc++-v3/",
    "/libcxx/",
];

/// Whose code a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// The program's, or a library's of its own choice.
    Program,
    /// A language's runtime.
    Runtime,
    /// A crate that Rust's std makes backtraces with, if one is being made ([`makes_backtrace`]); else
    /// the program uses it itself.
    Backtrace,
}

/// Whose code a frame is: its module, its source file or, without one, its function says so.
pub(super) fn owner(module: Option<&Path>, frame: Option<&Frame>) -> Owner {
    let is_runtime = |is| if is { Owner::Runtime } else { Owner::Program };
    if module.is_some_and(is_runtime_module) {
        return Owner::Runtime;
    }
    let Some(frame) = frame else { return Owner::Program };
    let function = frame.function.as_deref().unwrap_or_default();
    match &frame.file {
        _ if is_operator_new(function) => Owner::Runtime,
        Some(file) => {
            let file = file.to_string_lossy();
            is_runtime(FOLDERS.iter().any(|folder| file.contains(folder)) || is_vendored(&file))
        }
        None if is_function_of(function, &is_runtime_path) => Owner::Runtime,
        None if is_function_of(function, &is_path_of_backtraces) => Owner::Backtrace,
        None => Owner::Program,
    }
}

/// Whether std makes a backtrace inside of this frame.
pub(super) fn makes_backtrace(frame: &Frame) -> bool {
    const FRONTS: [&str; 6] = [
        "std::backtrace::",
        "<std::backtrace::",
        "std::backtrace_rs::",
        "<std::backtrace_rs::",
        "std::sys::backtrace::",
        "<std::sys::backtrace::",
    ];
    let function = frame.function.as_deref().unwrap_or_default();
    // What begins and ends the part of a stack that is shown: all of a program is inside of it.
    let is_mark = function.contains("_short_backtrace");
    !is_mark && FRONTS.iter().any(|front| function.starts_with(front))
}

/// Whether a source file is that of a crate in a distribution's copy of rustc:
/// `/usr/src/rustc-1.63.0/vendor/hashbrown/src/raw/mod.rs`.
fn is_vendored(file: &str) -> bool {
    file.match_indices("/rustc-").any(|(at, mark)| {
        let (folder, rest) = file[at + mark.len()..].split_once('/').unwrap_or_default();
        let is_version = folder.starts_with(|c: char| c.is_ascii_digit())
            || folder.starts_with("beta")
            || folder.starts_with("nightly");
        is_version && rest.starts_with("vendor/")
    })
}

/// Whether this is a form of `operator new`, be it the program's own: who called it allocates.
pub fn is_operator_new(function: &str) -> bool {
    function.starts_with("operator new(") || function.starts_with("operator new[](")
}

/// Whether a module is the runtime of C++.
pub fn is_cpp_runtime(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    ["libstdc++.so", "libc++.so", "libc++abi.so"].iter().any(|front| name.starts_with(front))
}

/// Whether a module is a runtime, by the name of its file.
pub fn is_runtime_module(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let stem = name.split(".so").next().unwrap_or_default();
    is_module(path, &MODULES)
        // Rust's shared standard library: libstd-0123456789abcdef.so.
        || stem.strip_prefix("libstd-").is_some_and(|hash| hash.len() == 16)
}

/// Whether a module is one of these libraries, named without `.so` and version.
pub fn is_module(path: &Path, libraries: &[&str]) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // Of "libc.so.6", and of "libc-2.31.so" as it was before.
    let end = name.find(".so").unwrap_or(name.len());
    let stem = &name[..end];
    let versioned = |known: &str| {
        let version = stem.strip_prefix(known).and_then(|rest| rest.strip_prefix('-'));
        version.is_some_and(|v| v.starts_with(|c: char| c.is_ascii_digit()))
    };
    let is_library = end < name.len() || name.starts_with('[');
    is_library && libraries.iter().any(|known| stem == *known || versioned(known))
}

/// Whether a path is one of a runtime.
type IsRuntimePath<'a> = &'a dyn Fn(&str) -> bool;

/// Whether a function of which the source is not known is a runtime's.
fn is_function_of(function: &str, is_runtime_path: IsRuntimePath<'_>) -> bool {
    const WHOLE: [&str; 3] = ["_start", "__libc_csu_init", "_init"];
    const FRONTS: [&str; 5] = ["__rust_", "__rustc::", "__rdl_", "__rg_", "rust_begin_unwind"];
    if WHOLE.contains(&function) || FRONTS.iter().any(|front| function.starts_with(front)) {
        return true;
    }
    match function.strip_prefix('<') {
        Some(rest) => is_impl_of(rest, is_runtime_path),
        None => is_runtime_path(name_of(function)),
    }
}

/// A path in the namespace or crate of a runtime. Rust's HashMap is hashbrown's in a coat that is
/// inlined: without a source, nothing tells the one from the other.
fn is_runtime_path(path: &str) -> bool {
    const NAMESPACES: [&str; 8] = [
        "std::",
        "core::",
        "alloc::",
        "hashbrown::",
        "std_detect::",
        "panic_unwind::",
        "__gnu_cxx::",
        "__cxxabiv1::",
    ];
    NAMESPACES.iter().any(|namespace| path.starts_with(namespace))
}

/// The same, or one in a crate that std reads debug information with.
fn is_path_of_backtraces(path: &str) -> bool {
    const CRATES: [&str; 7] = [
        "gimli::",
        "addr2line::",
        "object::",
        "miniz_oxide::",
        "memchr::",
        "rustc_demangle::",
        "adler2::",
    ];
    is_runtime_path(path) || CRATES.iter().any(|name| path.starts_with(name))
}

/// Rust's `<TYPE as TRAIT>::f` and `<TYPE>::f`, without the first bracket. It is the program's own
/// code as soon as the type or the trait is.
fn is_impl_of(rest: &str, is_runtime_path: IsRuntimePath<'_>) -> bool {
    let end = closing(rest);
    let inner = rest.get(..end).unwrap_or(rest);
    let (subject, of) = match split_as(inner) {
        Some((subject, of)) => (subject, Some(of)),
        None => (inner, None),
    };
    let bare = subject.trim_start_matches(['&', '*', '[', '(']);
    let bare = ["mut ", "const ", "dyn "].iter().fold(bare, |b, word| b.trim_start_matches(word));
    // A type without a path is built in or a parameter.
    let name = bare.split(['<', ';', ']', ',', ' ', ')']).next().unwrap_or_default();
    let is_plain = !name.contains("::");
    (is_plain || is_runtime_path(bare)) && of.is_none_or(is_runtime_path)
}

/// Where the bracket that was opened before `text` is closed.
fn closing(text: &str) -> usize {
    let (mut depth, mut before) = (1, ' ');
    for (at, c) in text.char_indices() {
        match c {
            '<' => depth += 1,
            '>' if before != '-' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at;
        }
        before = c;
    }
    text.len()
}

/// The two sides of the ` as ` that stands in no bracket.
fn split_as(text: &str) -> Option<(&str, &str)> {
    let (mut depth, mut before) = (0, ' ');
    for (at, c) in text.char_indices() {
        match c {
            '<' | '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            '>' if before != '-' => depth -= 1,
            ' ' if depth == 0 && text[at..].starts_with(" as ") => {
                return Some((&text[..at], &text[at + 4..]));
            }
            _ => {}
        }
        before = c;
    }
    None
}

/// The qualified name in a demangled C++ signature, which has the type that a template returns in
/// front of it: `void std::vector<int>::grow<char>(char)`.
pub fn name_of(function: &str) -> &str {
    let (mut depth, mut begin) = (0, 0);
    for (at, c) in function.char_indices() {
        match c {
            '<' | '{' => depth += 1,
            '>' | '}' => depth -= 1,
            // "(anonymous namespace)" is a part of a name.
            '(' if depth == 0 && !function[at..].starts_with("(anonymous") => break,
            '(' => depth += 1,
            ')' => depth -= 1,
            ' ' if depth == 0 && !function[..at].ends_with("operator") => begin = at + 1,
            _ => {}
        }
    }
    function[begin..].trim_start_matches(['*', '&'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(name: &str) -> Frame {
        Frame { function: Some(name.into()), ..Frame::default() }
    }

    fn is_runtime(module: Option<&Path>, frame: Option<&Frame>) -> bool {
        owner(module, frame) == Owner::Runtime
    }

    fn is_runtime_name(name: &str) -> bool {
        is_runtime(Some(Path::new("/home/ann/t")), Some(&function(name)))
    }

    #[test]
    fn libraries_are_known_by_name_whatever_their_version() {
        for name in [
            "/lib/x86_64-linux-gnu/libc.so.6",
            "/lib/libc-2.31.so",
            "/lib64/ld-linux-x86-64.so.2",
            "/lib/ld-2.31.so",
            "/usr/lib/libstdc++.so.6.0.30",
            "/usr/lib/libgcc_s.so.1",
            "/usr/lib/libc++abi.so.1",
            "/home/ann/target/release/libmtr.so",
            "/usr/lib/libstd-0123456789abcdef.so",
        ] {
            assert!(is_runtime(Some(Path::new(name)), None), "{name}");
        }
        for name in ["/lib/libcrypt.so.1", "/lib/libmagic.so.1", "/bin/ld", "/opt/libc-client.so"] {
            assert!(!is_runtime(Some(Path::new(name)), None), "{name}");
        }
    }

    #[test]
    fn source_files_tell_and_outweigh_names() {
        let at = |name: &str, file: &str| Frame { file: Some(file.into()), ..function(name) };
        let runtime = [
            at("push<int>", "/rustc/59807616e1/library/alloc/src/vec/mod.rs"),
            at("push_back", "/usr/include/c++/12/bits/stl_vector.h"),
            at("x", "/usr/src/rustc-1.63.0/library/core/src/iter/mod.rs"),
            at("do_alloc", "/rust/deps/hashbrown-0.16.1/src/raw/alloc.rs"),
            at("do_alloc", "/usr/src/rustc-1.63.0/vendor/hashbrown/src/raw/alloc.rs"),
            at("do_alloc", "/build/rustc-nightly-src/vendor/hashbrown-0.15.2/src/raw/alloc.rs"),
            at("operator new(unsigned long)", "/home/ann/new.cpp"),
        ];
        assert!(runtime.iter().all(|frame| is_runtime(None, Some(frame))));
        let own = [
            at("std::hash<Key>::operator()(Key const&) const", "/home/ann/key.cpp"),
            at(
                "hashbrown::map::make",
                "/home/ann/.cargo/registry/src/x/hashbrown-0.15.2/src/map.rs",
            ),
            at("gimli::read::x", "/home/ann/.cargo/registry/src/x/gimli-0.32.3/src/read/mod.rs"),
            at("f", "/home/ann/rustc-plugin/vendor/f/src/lib.rs"),
        ];
        assert!(own.iter().all(|frame| owner(None, Some(frame)) == Owner::Program));
    }

    #[test]
    fn std_makes_backtraces_with_crates_that_a_program_may_use_itself() {
        let of = |name: &str| owner(None, Some(&function(name)));
        for name in [
            "<gimli::read::abbrev::Abbreviations>::insert",
            "addr2line::line::path_push",
            "<&mut object::read::elf::File as core::clone::Clone>::clone",
        ] {
            assert_eq!(of(name), Owner::Backtrace, "{name}");
        }
        assert_eq!(of("objects::gimli::read"), Owner::Program);
        let makes = |name: &str| makes_backtrace(&function(name));
        assert!(makes("std::backtrace_rs::symbolize::gimli::resolve"));
        assert!(makes("<std::backtrace::Backtrace as core::fmt::Display>::fmt"));
        assert!(makes("<std::sys::backtrace::BacktraceLock>::print"));
        assert!(!makes("std::sys::backtrace::__rust_begin_short_backtrace::<fn(), ()>"));
        assert!(!makes("app::backtrace::make"));
    }

    #[test]
    fn names_of_rust_tell_without_a_source() {
        for name in [
            "__rust_alloc",
            "__rustc::__rust_alloc",
            "__rdl_alloc",
            "alloc::raw_vec::RawVecInner<A>::try_allocate_in",
            "core::ops::function::FnOnce::call_once",
            "std::rt::lang_start::{{closure}}",
            "<alloc::vec::Vec<T> as core::clone::Clone>::clone",
            "<T as alloc::slice::hack::ConvertVec>::to_vec",
            "<[T] as alloc::borrow::ToOwned>::to_owned",
            "<&mut core::iter::Map<app::I, F> as core::iter::Iterator>::next",
            "<alloc::vec::Vec<app::Item>>::push",
            "<hashbrown::raw::RawTable<(app::Key, u32)>>::reserve_rehash",
        ] {
            assert!(is_runtime_name(name), "{name}");
        }
        for name in [
            "app::main",
            "<app::Item as core::clone::Clone>::clone",
            "<alloc::vec::Vec<u8> as app::Encode>::encode",
            "<app::Pool<alloc::vec::Vec<u8>>>::grow",
            "<&app::Item as core::fmt::Display>::fmt",
            "stdout_writer",
        ] {
            assert!(!is_runtime_name(name), "{name}");
        }
    }

    #[test]
    fn names_of_cpp_tell_without_a_source() {
        for name in [
            "operator new(unsigned long)",
            "operator new[](unsigned long, std::nothrow_t const&)",
            "std::vector<int, std::allocator<int> >::reserve(unsigned long)",
            "void std::vector<int>::_M_realloc_insert<int const&>(int const&)",
            "std::pair<int, Foo>* std::__uninitialized_copy<false>::f<Foo>(Foo)",
            "__gnu_cxx::new_allocator<char>::allocate(unsigned long, void const*)",
            "std::_Function_handler<void (), main::{lambda()#1}>::_M_invoke(std::_Any_data const&)",
        ] {
            assert!(is_runtime_name(name), "{name}");
        }
        for name in [
            "main",
            "Foo::operator()(std::string)",
            "Foo::operator std::string() const",
            "std::string join(std::vector<std::string>)",
            "void grow<std::vector<int> >(std::vector<int>&)",
            "(anonymous namespace)::read(std::istream&)",
            "main::{lambda(std::string)#1}::operator()(std::string) const",
        ] {
            assert!(!is_runtime_name(name), "{name}");
        }
    }

    #[test]
    fn the_forms_of_operator_new_are_known() {
        assert!(is_operator_new("operator new(unsigned long)"));
        assert!(is_operator_new("operator new[](unsigned long, std::align_val_t)"));
        assert!(!is_operator_new("operator newer"));
    }
}
