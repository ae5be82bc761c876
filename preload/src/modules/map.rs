//! Which modules the log already speaks of.

use core::ffi::CStr;
use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use super::{LinkMap, Module, find, find_mapped};
use crate::global::{Scratch, Text};
use crate::{log, sys};

/// More modules than this are described again each time one of their call sites is new.
const CAPACITY: usize = 2048;

/// A module that the log speaks of; `start` 0: unloaded since, 1: being written.
struct Known {
    start: AtomicUsize,
    end: AtomicUsize,
    /// See [`Module::known_end`].
    known_end: AtomicUsize,
    link_map: AtomicPtr<LinkMap>,
}

static KNOWN: [Known; CAPACITY] = [const {
    Known {
        start: AtomicUsize::new(0),
        end: AtomicUsize::new(0),
        known_end: AtomicUsize::new(0),
        link_map: AtomicPtr::new(core::ptr::null_mut()),
    }
}; CAPACITY];
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// Forgets all, for a new log.
pub(crate) fn start() {
    for known in known() {
        known.start.store(0, Ordering::Relaxed);
    }
    COUNT.store(0, Ordering::Relaxed);
}

fn known() -> impl Iterator<Item = &'static Known> {
    KNOWN.iter().take(COUNT.load(Ordering::Acquire))
}

pub(crate) fn is_known(module: &Module) -> bool {
    known().any(|known| {
        known.start.load(Ordering::Acquire) == module.start
            && known.end.load(Ordering::Relaxed) == module.end
            && known.link_map.load(Ordering::Relaxed).cast_const() == module.link_map
    })
}

/// Two threads may remember (and describe) one module twice; that does no harm.
pub(crate) fn remember(module: &Module) {
    for (index, known) in KNOWN.iter().enumerate() {
        if known.start.compare_exchange(0, 1, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            known.end.store(module.end, Ordering::Relaxed);
            known.known_end.store(module.known_end, Ordering::Relaxed);
            known.link_map.store(module.link_map.cast_mut(), Ordering::Relaxed);
            known.start.store(module.start, Ordering::Release);
            COUNT.fetch_max(index + 1, Ordering::AcqRel);
            return;
        }
    }
}

/// Notes in the log which modules are gone. True if any is.
pub(crate) fn sweep() -> bool {
    let mut any = false;
    for known in known() {
        let start = known.start.load(Ordering::Acquire);
        let end = known.end.load(Ordering::Relaxed);
        let known_end = known.known_end.load(Ordering::Relaxed);
        let link_map = known.link_map.load(Ordering::Relaxed).cast_const();
        // Not `find`: another thread may be about to unload it.
        let is_loaded = start <= 1
            || find_mapped(start).is_some_and(|now| {
                now.start == start && now.end == known_end && now.link_map == link_map
            });
        let claim = || known.start.compare_exchange(start, 1, Ordering::AcqRel, Ordering::Relaxed);
        if !is_loaded && claim().is_ok() {
            any = true;
            let mut line = Text::<64>::EMPTY;
            line.push(b"# unload 0x");
            line.push_hex(start as u64, 1);
            line.push(b" 0x");
            line.push_hex(end as u64, 1);
            log::write_comment(line.as_bytes());
            known.start.store(0, Ordering::Release);
        }
    }
    any
}

/// Appends the path of the file that is mapped at `start`, as /proc/self/maps has it: absolute even
/// where the loader's name is relative to a folder that is no longer the current one.
#[inline(never)] // its buffer would be on the stack while the line is written
pub(super) fn push_path<const N: usize>(start: usize, out: &mut Text<N>) -> bool {
    find_mapping(c"/proc/self/maps", |line| {
        let path = path_of_mapping(line, Some(start));
        path.map(|path| out.push_escaped(path)).is_some()
    })
}

/// As [`push_path`], without escapes.
#[inline(never)]
pub(super) fn push_raw_path<const N: usize>(start: usize, out: &mut Text<N>) -> bool {
    find_mapping(c"/proc/self/maps", |line| {
        let path = path_of_mapping(line, Some(start));
        path.map(|path| out.push(path)).is_some()
    })
}

/// Whether libmtr.so is mapped in a process. False where nobody can tell.
#[cold]
pub(crate) fn are_traced(pid: i32) -> bool {
    let (Some(mut own), Some(mut escaped)) = (
        Scratch::<{ libc::PATH_MAX as usize }>::new(),
        Scratch::<{ libc::PATH_MAX as usize }>::new(),
    ) else {
        return false;
    };
    let mut maps = Text::<32>::EMPTY;
    maps.push(b"/proc/");
    maps.push_decimal(pid as u64);
    maps.push(b"/maps");
    find(are_traced as *const () as usize).is_some_and(|module| push_path(module.start, &mut own))
        && find_mapping(maps.as_c_str(), |line| {
            escaped.clear();
            path_of_mapping(line, None).is_some_and(|path| {
                escaped.push_escaped(path);
                escaped.as_bytes() == own.as_bytes()
            })
        })
}

/// Whether a line of a file like /proc/PID/maps is what one looks for.
fn find_mapping(maps: &CStr, mut is_it: impl FnMut(&[u8]) -> bool) -> bool {
    let Some(mut line) = Scratch::<{ libc::PATH_MAX as usize + 128 }>::new() else { return false };
    let Some(mut chunk) = Scratch::<4064>::new() else { return false };
    let chunk = chunk.space();
    let Ok(fd) = sys::openat(maps, libc::O_RDONLY | libc::O_CLOEXEC, 0) else { return false };
    let mut found = false;
    'file: loop {
        let len = match sys::read(fd, chunk) {
            Ok(0) => break,
            Err(libc::EINTR) => continue,
            Err(_) => break,
            Ok(len) => len,
        };
        for byte in chunk.iter().take(len) {
            if *byte != b'\n' {
                line.push(&[*byte]);
                continue;
            }
            if is_it(line.as_bytes()) {
                found = true;
                break 'file;
            }
            line.clear();
        }
    }
    sys::close(fd);
    found
}

/// The path in a line `START-END PERM OFFSET DEV INODE      PATH`, only if its START is `start` where
/// that is given.
fn path_of_mapping(line: &[u8], start: Option<usize>) -> Option<&[u8]> {
    let dash = line.iter().position(|byte| *byte == b'-')?;
    let digits = core::str::from_utf8(line.get(..dash)?).ok()?;
    let found = usize::from_str_radix(digits, 16).ok()?;
    if start.is_some_and(|start| start != found) {
        return None;
    }
    let mut rest = line;
    for _ in 0..5 {
        let blank = rest.iter().position(|byte| *byte == b' ')?;
        rest = rest.get(blank + 1..)?;
    }
    let path = rest.get(rest.iter().position(|byte| *byte != b' ')?..)?;
    Some(path)
}

#[cfg(test)]
mod tests {
    use super::path_of_mapping;

    const LINE: &[u8] =
        b"7f12a000-7f12b000 r--p 00000000 fe:01 1234                   /a b/c (deleted)";

    #[test]
    fn the_path_of_a_mapping_keeps_its_blanks() {
        assert_eq!(path_of_mapping(LINE, Some(0x7f12a000)), Some(&b"/a b/c (deleted)"[..]));
    }

    #[test]
    fn another_mapping_or_one_without_a_path_is_passed_over() {
        assert_eq!(path_of_mapping(LINE, Some(0x7f12b000)), None);
        assert_eq!(path_of_mapping(b"7f12a000-7f12b000 rw-p 00000000 00:00 0 ", None), None);
    }
}
