//! Whether an environment makes the loader preload libmtr.so. It is the program's: the kernel answers
//! EFAULT for one that is not there, so nothing is read before the kernel says that it can be.

use core::ffi::c_char;

use crate::{modules, sys};

/// Memory of which nobody knows whether it is there. A page is asked for when it is first read.
#[derive(Default)]
pub(super) struct Memory {
    page: usize,
}

impl Memory {
    const PAGE: usize = 4096;

    fn is_readable(&mut self, at: usize) -> bool {
        let page = at & !(Self::PAGE - 1);
        if page != self.page {
            if !sys::is_readable(page as u64) {
                return false;
            }
            self.page = page;
        }
        page != 0
    }

    /// The byte at an address.
    pub(super) fn byte(&mut self, at: usize) -> Option<u8> {
        // SAFETY: its page can be read.
        self.is_readable(at).then(|| unsafe { (at as *const u8).read_volatile() })
    }

    /// The word at an address.
    fn word(&mut self, at: usize) -> Option<usize> {
        let last = at.checked_add(size_of::<usize>() - 1)?;
        // SAFETY: all of it can be read.
        (self.is_readable(at) && self.is_readable(last))
            .then(|| unsafe { (at as *const usize).read_unaligned() })
    }
}

/// Whether libmtr.so will be loaded in a program that gets this environment. True also where it
/// cannot be read: such a program will not start.
pub(super) fn preloads_us(environment: *const *const c_char) -> bool {
    preloads(environment, file_of(modules::own_name()))
}

fn file_of(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or(path)
}

fn preloads(environment: *const *const c_char, library: &[u8]) -> bool {
    if environment.is_null() {
        return false; // the kernel takes it for an empty one
    }
    let (mut entries, mut texts) = (Memory::default(), Memory::default());
    let mut at = environment as usize;
    let mut is_found = false;
    loop {
        match entries.word(at) {
            None => return true,
            Some(0) => return is_found,
            Some(text) => match value(text, &mut texts) {
                // The loader takes the last of several.
                Some(Some(value)) => match lists(value, library, &mut texts) {
                    Some(lists) => is_found = lists,
                    None => return true,
                },
                Some(None) => {}
                None => return true,
            },
        }
        at += size_of::<usize>();
    }
}

/// Where the value stands if the text at `at` sets LD_PRELOAD. `None`: it cannot be read.
fn value(mut at: usize, memory: &mut Memory) -> Option<Option<usize>> {
    for expected in b"LD_PRELOAD=" {
        if memory.byte(at)? != *expected {
            return Some(None);
        }
        at += 1;
    }
    Some(Some(at))
}

/// Whether a list of paths, divided by blanks and colons, has one whose last part is `library`.
/// `None`: it cannot be read.
fn lists(mut at: usize, library: &[u8], memory: &mut Memory) -> Option<bool> {
    // How many bytes of the last part are those of `library`, as long as all are.
    let mut same = Some(0);
    loop {
        let byte = memory.byte(at)?;
        match byte {
            0 | b' ' | b':' if same == Some(library.len()) && same != Some(0) => {
                return Some(true);
            }
            0 => return Some(false),
            b' ' | b':' | b'/' => same = Some(0),
            byte => same = same.filter(|n| library.get(*n) == Some(&byte)).map(|n| n + 1),
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CString;

    fn found(entries: &[&str]) -> bool {
        let texts: Vec<_> = entries.iter().map(|text| CString::new(*text).unwrap()).collect();
        let mut list: Vec<_> = texts.iter().map(|text| text.as_ptr()).collect();
        list.push(core::ptr::null());
        preloads(list.as_ptr(), b"libmtr.so")
    }

    #[test]
    fn the_library_is_known_by_the_name_of_its_file() {
        for value in ["libmtr.so", "/a/b/libmtr.so", "/x.so:/a/libmtr.so", "libmtr.so /y/x.so"] {
            assert!(found(&["A=1", &format!("LD_PRELOAD={value}"), "B=2"]), "{value}");
        }
        for value in ["", "/x.so", "libmtr.so.1", "/libmtr.so/x", "xlibmtr.so", "libmtr.s", ":"] {
            assert!(!found(&["A=1", &format!("LD_PRELOAD={value}"), "B=2"]), "{value}");
        }
        assert!(!found(&[]) && !found(&["XLD_PRELOAD=libmtr.so", "LD_PRELOAD"]));
        assert!(!found(&["LD_PRELOAD=libmtr.so", "LD_PRELOAD="]), "the last one counts");
        assert!(!preloads(core::ptr::null(), b"libmtr.so"));
    }

    #[test]
    fn what_cannot_be_read_is_no_reason_to_count() {
        assert!(preloads(core::ptr::dangling(), b"libmtr.so"));
        let bad = [16 as *const c_char, core::ptr::null()];
        assert!(preloads(bad.as_ptr(), b"libmtr.so"));
    }
}
