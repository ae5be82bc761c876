//! Stacks in which no frame is the program's: what a runtime allocates of its own accord.

use std::path::Path;

use super::{Frame, is_operator_new, is_runtime_module};

/// Whether a function of a runtime only fetches memory for another one, which says more of what it is
/// for: Rust's containers, allocators.
pub(super) fn is_plumbing(frame: &Frame) -> bool {
    const FRONTS: [&str; 8] = [
        "alloc::",
        "core::",
        "hashbrown::",
        "__rust_",
        "__rustc::",
        "__rdl_",
        "__rg_",
        "__gnu_cxx::new_allocator",
    ];
    let function = frame.function.as_deref().unwrap_or_default();
    let path = function.trim_start_matches(['<', '&', '*', '[', '(']);
    let path = ["mut ", "const ", "dyn "].iter().fold(path, |p, word| p.trim_start_matches(word));
    is_operator_new(function) || FRONTS.iter().any(|front| path.starts_with(front))
}

/// What to call the runtime that a frame belongs to.
pub(super) fn name(module: Option<&Path>, frame: Option<&Frame>) -> String {
    let file = module.and_then(Path::file_name).unwrap_or_default().to_string_lossy();
    let source = frame.and_then(|frame| frame.file.as_deref()).unwrap_or(Path::new(""));
    let source = source.to_string_lossy();
    match file.split_once(".so") {
        Some((name, _)) if name.starts_with("ld") => "the loader".into(),
        Some((name, _)) if name.starts_with("libstd-") => "Rust's std".into(),
        Some((name, _)) if module.is_some_and(is_runtime_module) => {
            // "libc-2.31", as it was before.
            name.split_once("-2.").map_or(name, |(name, _)| name).into()
        }
        _ if source.contains("/rustc") || source.contains("/library/") => "Rust's std".into(),
        _ => "a runtime".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(name: &str) -> Frame {
        Frame { function: Some(name.into()), ..Frame::default() }
    }

    #[test]
    fn what_fetches_memory_for_a_runtime_is_told_from_what_it_is_for() {
        let is = |name: &str| is_plumbing(&function(name));
        for name in [
            "alloc::alloc::alloc",
            "<alloc::boxed::Box<[u8]>>::try_new_uninit_in",
            "<&mut core::iter::Map<A> as core::iter::Iterator>::next",
            "__rustc::__rust_alloc",
            "operator new(unsigned long)",
        ] {
            assert!(is(name), "{name}");
        }
        for name in ["std::rt::init", "_IO_file_doallocate", "", "std::locale::locale()"] {
            assert!(!is(name), "{name}");
        }
    }

    #[test]
    fn a_runtime_has_a_name() {
        let of = |module: &str, source: &str| {
            let frame = Frame { file: Some(source.into()), ..function("f") };
            name(Some(Path::new(module)), Some(&frame))
        };
        assert_eq!(of("/usr/lib/libstdc++.so.6.0.30", ""), "libstdc++");
        assert_eq!(of("/lib/libc.so.6", "./malloc/malloc.c"), "libc");
        assert_eq!(of("/lib/libc-2.31.so", ""), "libc");
        assert_eq!(of("/lib64/ld-linux-x86-64.so.2", ""), "the loader");
        assert_eq!(of("/usr/lib/libstd-0123456789abcdef.so", ""), "Rust's std");
        assert_eq!(of("/home/ann/t", "/rustc/59807616e1/library/std/src/rt.rs"), "Rust's std");
        assert_eq!(of("/home/ann/t", "/usr/include/c++/12/thread"), "a runtime");
    }
}
