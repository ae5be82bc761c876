//! Where the stack of a thread is. Asked of the kernel: libc's answer takes locks and allocates.

use core::ffi::c_void;

use super::descriptor;
use crate::sys::mappings::Mappings;
use crate::{arch, sys};

/// The kernel leaves this much free below a stack that grows (`stack_guard_gap`).
const GROWTH_GAP: u64 = 1 << 20;
/// What is taken for a thread's stack below its rsp when no guard page shows where it begins.
const UNGUARDED: u64 = 256 << 10;

/// What a thread knows of its own stack; other stacks it may run on (alternate signal stacks,
/// coroutines) are not known, because they can vanish at any time.
///
/// All zeros is "not looked up yet", so that it can live in zeroed memory.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stack {
    /// An rsp from here ...
    low: u64,
    /// ... to here is on the stack, and everything from it to here is readable as long as the thread
    /// runs there.
    high: u64,
    /// An rsp from here to `low` may be on it too, if it has grown since: look again.
    floor: u64,
    is_known: bool,
}

unsafe extern "C" {
    /// rsp at the program's first instruction: the outermost frame of the main thread.
    static __libc_stack_end: *const c_void;
}

/// rsp at the program's first instruction.
pub(super) fn stack_end() -> u64 {
    // SAFETY: set by the loader before any other code ran, and never written since.
    unsafe { (&raw const __libc_stack_end).read() as u64 }
}

impl Stack {
    /// Not looked up yet.
    pub(crate) const NEW: Stack = Stack { low: 0, high: 0, floor: 0, is_known: false };

    /// Whether `rsp` is on the stack.
    #[inline(always)]
    pub(crate) fn holds(&self, rsp: u64) -> bool {
        rsp >= self.low && rsp < self.high
    }

    /// Where it ends (it grows downwards).
    #[inline(always)]
    pub(super) fn high(&self) -> u64 {
        self.high
    }

    /// Makes sure that the stack is known if `rsp` is on it. To be called before each walk; costs
    /// two comparisons but for the first time in a thread, and when the main thread's stack has
    /// grown by a megabyte.
    #[inline(always)]
    pub(crate) fn update(&mut self, rsp: u64) {
        if !self.holds(rsp) {
            self.look_again(rsp);
        }
    }

    #[cold]
    #[inline(never)]
    fn look_again(&mut self, rsp: u64) {
        if !self.is_known || (rsp >= self.floor && rsp < self.low) {
            *self = Stack::find(rsp);
        }
    }

    fn find(rsp: u64) -> Stack {
        let stack_end = stack_end();
        let thread_pointer = arch::thread_pointer();
        // A thread has its thread control block at the end of its stack. Main has not.
        if let Some(low) = guarded_start(rsp, thread_pointer) {
            return Stack { low, high: thread_pointer, floor: low, is_known: true };
        }
        let unknown = Stack { is_known: true, ..Stack::NEW };
        let Some([main, thread]) = mappings_of([stack_end, thread_pointer]) else {
            return unknown;
        };
        if thread.start <= rsp && rsp < thread_pointer {
            let low = match thread.is_guarded {
                true => thread.start,
                false => thread.start.max(rsp.saturating_sub(UNGUARDED)),
            };
            return Stack { low, high: thread_pointer, floor: thread.start, is_known: true };
        }
        if main.end != 0 && sys::gettid() == sys::getpid() {
            let low = main.previous_end.max(main.start.saturating_sub(GROWTH_GAP));
            return Stack { low, high: main.end, floor: main.previous_end, is_known: true };
        }
        if thread.is_guarded && thread.end != 0 {
            // Now on another stack; its own is this.
            let low = thread.start;
            return Stack { low, high: thread_pointer, floor: low, is_known: true };
        }
        unknown
    }
}

/// Where the stack of a thread begins that `rsp` is on, if a guard page is below it.
fn guarded_start(rsp: u64, thread_pointer: u64) -> Option<u64> {
    if let Some(low) = descriptor::stack(thread_pointer)
        && (low..thread_pointer).contains(&rsp)
    {
        return Some(low);
    }
    let mappings = Mappings::open()?;
    let thread = mappings.query(thread_pointer)?;
    if !(thread.start..thread_pointer).contains(&rsp) {
        return None;
    }
    let guard = mappings.query(thread.start - 1)?;
    if guard.is_readable {
        return None;
    }
    // SAFETY: a part of this mapping, the thread pointer, is read by all code.
    unsafe { descriptor::learn(thread_pointer, guard.start, thread.start, thread.end) };
    Some(thread.start)
}

/// A line of /proc/self/maps, and what is below it.
#[derive(Clone, Copy, Default)]
struct Mapping {
    start: u64,
    end: u64,
    /// Where the mapping below ends.
    previous_end: u64,
    /// Whether that one touches it and cannot be read.
    is_guarded: bool,
}

/// The mappings that hold `addresses`; all zeros for one that none holds.
fn mappings_of(addresses: [u64; 2]) -> Option<[Mapping; 2]> {
    let fd = sys::openat(c"/proc/self/maps", libc::O_RDONLY | libc::O_CLOEXEC, 0).ok()?;
    let mut found = [Mapping::default(); 2];
    let mut lines = Lines::default();
    let mut chunk = [0; 512];
    loop {
        match sys::read(fd, &mut chunk) {
            Ok(0) => break,
            Err(libc::EINTR) => {}
            Err(_) => {
                sys::close(fd);
                return None;
            }
            Ok(len) => chunk.iter().take(len).for_each(|byte| {
                let Some(mapping) = lines.next_byte(*byte) else { return };
                for (address, found) in addresses.iter().zip(&mut found) {
                    if (mapping.start..mapping.end).contains(address) {
                        *found = mapping;
                    }
                }
            }),
        }
    }
    sys::close(fd);
    Some(found)
}

/// Reads lines `START-END rw-p ...` byte by byte.
#[derive(Default)]
struct Lines {
    start: u64,
    end: u64,
    /// Which field of the line the next byte belongs to.
    field: u8,
    is_readable: bool,
    previous_end: u64,
    previous_is_readable: bool,
}

impl Lines {
    /// The mapping of a line that `byte` ends.
    fn next_byte(&mut self, byte: u8) -> Option<Mapping> {
        if byte == b'\n' {
            let mapping = Mapping {
                start: self.start,
                end: self.end,
                previous_end: self.previous_end,
                is_guarded: self.previous_end == self.start && !self.previous_is_readable,
            };
            *self = Lines {
                previous_end: self.end,
                previous_is_readable: self.is_readable,
                ..Lines::default()
            };
            return Some(mapping);
        }
        let digit = || u64::from((byte as char).to_digit(16).unwrap_or(0));
        match (self.field, byte) {
            (0, b'-') | (1, b' ') => self.field += 1,
            (0, _) => self.start = self.start << 4 | digit(),
            (1, _) => self.end = self.end << 4 | digit(),
            (2, _) => {
                self.is_readable = byte == b'r';
                self.field += 1;
            }
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rsp() -> u64 {
        let local = 0u64;
        &raw const local as u64 & !15
    }

    #[test]
    fn lines_of_the_map_are_read() {
        let text = b"1000-3000 ---p 0 0:0 0\n3000-5000 rw-p 00000000 00:00 0   [stack]\n";
        let mut lines = Lines::default();
        let mappings: Vec<Mapping> =
            text.iter().filter_map(|byte| lines.next_byte(*byte)).collect();
        let [guard, stack] = <[Mapping; 2]>::try_from(mappings).ok().unwrap();
        assert_eq!((guard.start, guard.end, guard.is_guarded), (0x1000, 0x3000, false));
        assert_eq!((stack.start, stack.end, stack.previous_end), (0x3000, 0x5000, 0x3000));
        assert!(stack.is_guarded);
    }

    #[test]
    fn the_stack_of_a_thread_is_the_one_that_it_was_given() {
        let size = 1 << 20;
        let check = move || {
            let mut stack = Stack::NEW;
            stack.update(rsp());
            assert!(stack.holds(rsp()));
            assert_eq!(stack.high, arch::thread_pointer());
            if let Some(low) = descriptor::stack(stack.high) {
                assert_eq!(low, stack.low);
                let [_, thread] = mappings_of([stack_end(), stack.high]).unwrap();
                assert_eq!(low, thread.start, "what the kernel says");
            }
            let len = stack.high - stack.low;
            // libc may hand out the stack of a thread that ended, up to four times as large.
            assert!(len <= 4 * size + 8192 && len > size - 65536, "{len:#x}");
            let elsewhere = Box::new(0u64);
            assert!(!stack.holds(&raw const *elsewhere as u64));
            stack.update(&raw const *elsewhere as u64);
            assert!(stack.holds(rsp()));
        };
        // The second one's is known by what was learned from the first, where that can be.
        for _ in 0..2 {
            let thread = std::thread::Builder::new().stack_size(size as usize);
            thread.spawn(check).unwrap().join().unwrap();
        }
    }

    #[test]
    fn the_stack_of_the_main_thread_holds_its_outermost_frame() {
        let stack_end = stack_end();
        let [main, _] = mappings_of([stack_end, 0]).unwrap();
        assert!(main.start <= stack_end && stack_end < main.end);
        assert!(main.previous_end <= main.start - GROWTH_GAP);
    }
}
