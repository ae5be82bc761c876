//! The environment of the program: reading it, and completing what is ours in it.

use core::ffi::{CStr, c_char, c_void};

use crate::modules::c_str;
use crate::sys;

type Entries = *const *const c_char;

unsafe extern "C" {
    static mut environ: Entries;
    static __libc_stack_end: *const c_void;
}

/// The environment at the start. `environ` is not set before libc is initialized, and programs may
/// allocate before that (`.preinit_array`).
pub(crate) fn at_start() -> Entries {
    let now = now();
    if now.is_null() { on_the_stack() } else { now }
}

/// Where the kernel put the environment: behind the arguments.
fn on_the_stack() -> Entries {
    const MOST: usize = 1 << 24;
    // SAFETY: the kernel puts the number of arguments there, the arguments, NULL and the environment.
    unsafe {
        let bottom = __libc_stack_end.cast::<usize>();
        match bottom.as_ref() {
            Some(count) if *count < MOST && *bottom.add(1 + count) == 0 => {
                bottom.add(2 + count).cast()
            }
            _ => core::ptr::null(),
        }
    }
}

/// The environment as it is now.
pub(crate) fn now() -> Entries {
    // SAFETY: libc's variable; who changes it while it is read does so to libc's own functions too.
    unsafe { (&raw const environ).read() }
}

/// The value of an environment variable.
pub(crate) fn variable(name: &[u8]) -> Option<&'static [u8]> {
    // SAFETY: a list of C strings that ends with NULL, or NULL.
    unsafe {
        let mut entry = at_start();
        while let Some(text) = (!entry.is_null()).then(|| c_str(*entry)).flatten() {
            let text = text.to_bytes();
            if text.strip_prefix(name).is_some_and(|rest| rest.first() == Some(&b'=')) {
                return text.get(name.len() + 1..);
            }
            entry = entry.add(1);
        }
    }
    None
}

/// Puts `text` in the place of a variable; false where it is not set.
///
/// # Safety
/// The caller is the thread that starts the log, or a constructor of this library.
pub(crate) unsafe fn replace(name: &[u8], text: &'static CStr) -> bool {
    let mut is_set = false;
    // SAFETY: as in `variable`; nobody else changes the environment before the program runs.
    unsafe {
        let mut entry = at_start().cast_mut();
        while let Some(old) = (!entry.is_null()).then(|| c_str(*entry)).flatten() {
            let rest = old.to_bytes().strip_prefix(name);
            if rest.is_some_and(|rest| rest.first() == Some(&b'=')) {
                *entry = text.as_ptr();
                is_set = true;
            }
            entry = entry.add(1);
        }
    }
    is_set
}

/// Adds a variable. The list on the stack has no room for one, so `environ` becomes a longer copy of
/// it, as setenv(3) does it. What looks for the auxiliary vector behind the list finds it there, too.
///
/// # Safety
/// The caller is a constructor of this library: libc has set `environ`, and the program does not run
/// yet.
pub(crate) unsafe fn add(text: &'static CStr) {
    const WORD: usize = size_of::<usize>();
    let old = now();
    if old.is_null() {
        return;
    }
    // SAFETY: a list that ends with NULL; that of the kernel has pairs behind it, the last one with
    // AT_NULL. The new list has room for all of it and one more.
    unsafe {
        let mut len = 0;
        while !(*old.add(len)).is_null() {
            len += 1;
        }
        let mut behind = 0;
        if old == on_the_stack() {
            let auxiliary = old.add(len + 1).cast::<u64>();
            while *auxiliary.add(behind) != libc::AT_NULL {
                behind += 2;
            }
            behind += 2;
        }
        let Ok(new) = sys::map_anonymous((len + 2 + behind) * WORD) else { return };
        let new = new.cast::<*const c_char>();
        new.copy_from_nonoverlapping(old, len);
        new.add(len).write(text.as_ptr());
        // NULL, and what is behind it.
        new.add(len + 1).copy_from_nonoverlapping(old.add(len), 1 + behind);
        (&raw mut environ).write(new.cast_const());
    }
}
