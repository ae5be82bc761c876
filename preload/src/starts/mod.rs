//! Programs that are started without libmtr.so: with an environment whose LD_PRELOAD lacks it, while
//! this process was traced by that variable. They are counted (untraced.rs); the call itself is the
//! real one, with the same arguments.
//!
//! These functions may be called by a vfork child in its parent's memory, and by signal handlers: what
//! happens here is looking at memory, which may not be there, and counting. libc's own functions
//! start programs without passing by these hooks (system and popen by posix_spawn), so each start is
//! seen once.

mod environment;

use core::ffi::{c_char, c_int, c_void};
use core::sync::atomic::{AtomicBool, Ordering};

use crate::arch::{hook_with_list, hook_with_result};
use crate::global::Scratch;
use crate::untraced::{self, Of};
use crate::{config, lifecycle, log, real};

use environment::Memory;

type Text = *const c_char;
type List = *const Text;

hook_with_list!(execl, execl_body);
hook_with_list!(execlp, execlp_body);
hook_with_list!(execle, execle_body);
hook_with_result!(system, before_system, after_system);
hook_with_result!(popen, before_popen, after_popen);

/// libmtr.so was preloaded by the environment, and not by /etc/ld.so.preload or the like.
static IS_BY_ENVIRONMENT: AtomicBool = AtomicBool::new(false);

/// To be called when the log starts, while the environment is that which the loader saw.
pub(crate) fn start() {
    IS_BY_ENVIRONMENT
        .store(environment::preloads_us(crate::environment::at_start()), Ordering::Relaxed);
}

/// Where a program that is about to start is counted.
#[derive(Clone, Copy)]
enum Counted {
    /// Nowhere: it will be traced, or nobody wanted it to be.
    Not,
    /// As a child of the traced process.
    Child,
    /// As what the traced process itself becomes.
    Itself,
}

/// Counts a program that is about to start with `environment`, if it will run untraced.
fn child(environment: List) -> Counted {
    let is_wanted = lifecycle::is_traced() && config::get().trace_children;
    if !is_wanted || !IS_BY_ENVIRONMENT.load(Ordering::Relaxed) {
        return Counted::Not;
    }
    if environment::preloads_us(environment) {
        return Counted::Not;
    }
    untraced::count_program(Of::Us);
    Counted::Child
}

/// As [`child`], for a program that replaces the one of this process. `path` is NULL where it has none.
fn image(path: Text, environment: List) -> Counted {
    if !lifecycle::has_log() || !lifecycle::is_own_log() {
        return child(environment);
    }
    if !lifecycle::is_traced()
        || !IS_BY_ENVIRONMENT.load(Ordering::Relaxed)
        || environment::preloads_us(environment)
    {
        return Counted::Not;
    }
    lifecycle::state_untraced();
    if let Some(mut line) = Scratch::<8192>::new() {
        line.push(b"# left ");
        let mut memory = Memory::default();
        let mut at = path as usize;
        while let Some(byte @ 1..) = memory.byte(at) {
            line.push_escaped(&[byte]);
            at += 1;
        }
        log::write_comment(line.as_bytes());
    }
    untraced::count_program(Of::Parent);
    Counted::Itself
}

impl Counted {
    /// The program was not started.
    fn take_back(self) {
        match self {
            Counted::Not => {}
            Counted::Child => untraced::discount_program(Of::Us),
            Counted::Itself => {
                untraced::discount_program(Of::Parent);
                log::write_comment(b"# stayed");
            }
        }
    }
}

/// Runs one of the exec functions, which comes back only when it has failed.
fn exec(path: Text, environment: List, real: impl FnOnce() -> c_int) -> c_int {
    let counted = image(path, environment);
    let result = real();
    counted.take_back();
    result
}

/// Runs one of posix_spawn and posix_spawnp, whose result is 0 when there is a child.
fn spawn(environment: List, real: impl FnOnce() -> c_int) -> c_int {
    let counted = child(environment);
    let result = real();
    if result != 0 {
        counted.take_back();
    }
    result
}

/// Exports functions with arguments in registers only.
macro_rules! hooks {
    ($($name:ident($($argument:ident: $type:ty),*) => $counted:expr;)*) => {$(
        /// Hook.
        ///
        /// # Safety
        /// As the function of that name in the C library.
        #[cfg_attr(not(test), unsafe(no_mangle))]
        pub(crate) unsafe extern "C" fn $name($($argument: $type),*) -> c_int {
            // SAFETY: the caller's arguments, passed on.
            let real = || unsafe { real::$name()($($argument),*) };
            ($counted)(real)
        }
    )*};
}

hooks! {
    execve(path: Text, list: List, environment: List) => |real| exec(path, environment, real);
    execv(path: Text, list: List) => |real| exec(path, crate::environment::now(), real);
    execvp(file: Text, list: List) => |real| exec(file, crate::environment::now(), real);
    execvpe(file: Text, list: List, environment: List) => |real| exec(file, environment, real);
    fexecve(fd: c_int, list: List, environment: List) =>
        |real| exec(core::ptr::null(), environment, real);
    execveat(folder: c_int, path: Text, list: List, environment: List, flags: c_int) =>
        |real| exec(path, environment, real);
    posix_spawn(
        pid: *mut c_int, path: Text, actions: *const c_void, attributes: *const c_void, list: List,
        environment: List
    ) => |real| spawn(environment, real);
    posix_spawnp(
        pid: *mut c_int, file: Text, actions: *const c_void, attributes: *const c_void, list: List,
        environment: List
    ) => |real| spawn(environment, real);
}

// The forms with a list of arguments are those with an array, in libc as well.

extern "C" fn execl_body(path: Text, list: List) -> c_int {
    // SAFETY: the caller's arguments, passed on; so in all of these.
    exec(path, crate::environment::now(), || unsafe { real::execv()(path, list) })
}

extern "C" fn execlp_body(file: Text, list: List) -> c_int {
    // SAFETY: see execl_body.
    exec(file, crate::environment::now(), || unsafe { real::execvp()(file, list) })
}

extern "C" fn execle_body(path: Text, list: List) -> c_int {
    // SAFETY: the list ends with NULL, and the environment stands behind that.
    let environment = unsafe {
        let mut at = list;
        while !(*at).is_null() {
            at = at.add(1);
        }
        at.add(1).cast::<List>().read()
    };
    // SAFETY: see execl_body.
    exec(path, environment, || unsafe { real::execve()(path, list, environment) })
}

/// What a hook with a result does next: a call of `target`, with its `after` behind it, or a jump
/// there. system is a point at which the thread may be cancelled: no frame of Rust may be below it.
#[repr(C)]
pub(crate) struct Next {
    target: usize,
    is_call: usize,
}

impl Next {
    fn after(counted: Counted, target: usize) -> Next {
        Next { target, is_call: matches!(counted, Counted::Child).into() }
    }
}

extern "C" fn before_system(command: Text) -> Next {
    // With NULL it only asks for a shell.
    let counted = if command.is_null() { Counted::Not } else { child(crate::environment::now()) };
    Next::after(counted, real::system() as usize)
}

extern "C" fn after_system(status: usize) {
    if status as c_int == -1 {
        untraced::discount_program(Of::Us);
    }
}

extern "C" fn before_popen(_: Text) -> Next {
    Next::after(child(crate::environment::now()), real::popen() as usize)
}

extern "C" fn after_popen(stream: usize) {
    if stream == 0 {
        untraced::discount_program(Of::Us);
    }
}
