//! Stacks of this process: Rust, libc and libstd frames.

use core::cell::Cell;
use core::ffi::{c_int, c_void};
use core::hint::black_box;

use super::oracle::{check, compare};
use crate::unwind::step::Registers;

#[inline(never)]
fn recurse(depth: usize, locals: &mut [usize; 9]) -> usize {
    if depth == 0 {
        return check();
    }
    locals[depth % 9] += depth; // a frame of some size
    let mut more = *locals;
    let frames = recurse(depth - 1, &mut more);
    black_box(more);
    frames
}

#[test]
fn recursion_of_any_depth() {
    for depth in [0, 1, 10, 60] {
        assert!(recurse(depth, &mut [0; 9]) > depth);
    }
    let deep = || {
        assert!(recurse(600, &mut [0; 9]) > 600);
        assert!(recurse(1500, &mut [0; 9]) > 1500);
    };
    std::thread::Builder::new().stack_size(16 << 20).spawn(deep).unwrap().join().unwrap();
}

#[test]
fn callbacks_of_libc() {
    thread_local!(static CALLS: Cell<usize> = const { Cell::new(0) });
    extern "C" fn order(left: *const c_void, right: *const c_void) -> c_int {
        CALLS.set(CALLS.get() + 1);
        assert!(check() > 4);
        // SAFETY: qsort passes elements of the array.
        unsafe { left.cast::<i32>().read().cmp(&right.cast::<i32>().read()) as c_int }
    }
    let mut numbers: Vec<i32> = (0..200).map(|n| n * 7919 % 200).collect();
    // SAFETY: as many elements as there are, of their size.
    unsafe { libc::qsort(numbers.as_mut_ptr().cast(), numbers.len(), 4, Some(order)) };
    assert!(numbers.is_sorted());
    assert!(CALLS.get() > 200);
}

#[test]
fn closures_and_iterators() {
    let frames: usize = (0..50)
        .map(|n| Box::new(move |m: usize| if m == n { check() } else { 0 }))
        .flat_map(|test| (0..50).filter_map(move |m| Some(test(m)).filter(|frames| *frames > 0)))
        .inspect(|frames| assert!(*frames > 3))
        .sum();
    assert!(frames > 150);
    let mut sorted: Vec<usize> = (0..100).rev().collect();
    sorted.sort_by_key(|n| (check() > 3, *n));
    let text = format!("{}", Checking);
    assert_eq!(text, "checked");
}

struct Checking;

impl std::fmt::Display for Checking {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        assert!(check() > 3);
        f.write_str("checked")
    }
}

#[test]
fn thread_starts_and_ends() {
    struct AtExit;
    impl Drop for AtExit {
        fn drop(&mut self) {
            assert!(check() > 2);
        }
    }
    thread_local!(static AT_EXIT: AtExit = const { AtExit });
    extern "C" fn start(_: *mut c_void) -> *mut c_void {
        AT_EXIT.with(|_| {});
        check() as *mut c_void
    }
    for _ in 0..8 {
        // SAFETY: a plain thread, joined.
        let frames = unsafe {
            let mut thread = 0;
            let mut frames = core::ptr::null_mut();
            assert_eq!(
                libc::pthread_create(&mut thread, std::ptr::null(), start, std::ptr::null_mut()),
                0
            );
            libc::pthread_join(thread, &mut frames);
            frames as usize
        };
        assert!((2..20).contains(&frames), "{frames}");
    }
    std::thread::scope(|scope| {
        (0..4).for_each(|_| drop(scope.spawn(check)));
    });
}

thread_local!(static HANDLED: Cell<usize> = const { Cell::new(0) });

extern "C" fn handler(_: c_int) {
    HANDLED.set(check());
}

fn install(signal: c_int, handler: extern "C" fn(c_int), flags: c_int) {
    // SAFETY: a handler that does nothing but to unwind.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as *const () as usize;
        action.sa_flags = flags;
        libc::sigaction(signal, &action, std::ptr::null_mut());
    }
}

#[inline(never)]
fn raise_below(depth: usize, signal: c_int) {
    if depth > 0 {
        raise_below(black_box(depth - 1), signal);
        black_box(depth);
    } else {
        // SAFETY: of this thread, which has a handler.
        unsafe { libc::raise(signal) };
    }
}

#[test]
fn signal_handlers() {
    install(libc::SIGUSR1, handler, 0);
    for depth in [0, 5, 50] {
        raise_below(depth, libc::SIGUSR1);
        assert!(HANDLED.get() > depth + 4);
    }
}

#[test]
fn signal_handlers_on_an_alternate_stack_and_nested() {
    extern "C" fn outer(_: c_int) {
        check();
        raise_below(3, libc::SIGWINCH);
    }
    install(libc::SIGUSR2, outer, libc::SA_ONSTACK);
    install(libc::SIGWINCH, handler, 0);
    let mut memory = vec![0u8; 64 << 10];
    let stack =
        libc::stack_t { ss_sp: memory.as_mut_ptr().cast(), ss_flags: 0, ss_size: memory.len() };
    // SAFETY: the memory outlives its use, which is undone below.
    unsafe { libc::sigaltstack(&stack, std::ptr::null_mut()) };
    raise_below(20, libc::SIGUSR2);
    assert!(HANDLED.get() > 28);
    let none = libc::stack_t { ss_flags: libc::SS_DISABLE, ..stack };
    // SAFETY: back to none.
    unsafe { libc::sigaltstack(&none, std::ptr::null_mut()) };
}

#[test]
fn a_handler_at_any_instruction() {
    extern "C" fn tick(_: c_int) {
        check();
    }
    install(libc::SIGALRM, tick, 0);
    // SAFETY: timer signals for this process; the handler is in place, and stays.
    unsafe {
        let every = libc::timeval { tv_sec: 0, tv_usec: 500 };
        let timer = libc::itimerval { it_interval: every, it_value: every };
        libc::setitimer(libc::ITIMER_REAL, &timer, std::ptr::null_mut());
        let mut text = String::new();
        for n in 0..20_000 {
            text = format!("{n} {:?} {}", text.len(), f64::from(n).sqrt());
        }
        black_box(text);
        let off = libc::itimerval { it_interval: std::mem::zeroed(), it_value: std::mem::zeroed() };
        libc::setitimer(libc::ITIMER_REAL, &off, std::ptr::null_mut());
    }
}

/// Registers that make no sense end the walk and nothing else.
#[test]
fn any_registers_are_survived() {
    let mut seed = 1u64;
    let mut next = || {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        seed >> 8 ^ seed << 20
    };
    let elsewhere = vec![compare as *const () as u64 + 20; 512];
    let code = compare as *const () as u64;
    let local = 0u64;
    let here = &raw const local as u64;
    for round in 0..20_000 {
        let mut value = || match next() % 6 {
            0 => next(),
            1 => here.wrapping_add(next() % 65536) & !7,
            2 => here.wrapping_add(next() % 65536),
            3 => code.wrapping_add(next() % 1_000_000),
            4 => libc::qsort as *const () as u64 + next() % 100_000,
            _ => 0,
        };
        let registers = Registers {
            // rsp is true, or no hook would have run: here or on a coroutine's stack.
            rsp: if round % 2 == 0 { here } else { &raw const elsewhere[round % 512] as u64 },
            r15: value(),
            r14: value(),
            r13: value(),
            r12: value(),
            rbx: value(),
            rbp: value(),
            return_address: value(),
        };
        let mut stack = crate::unwind::Stack::NEW;
        stack.update(here);
        let mut frames = 0;
        crate::unwind::walk(&registers, &stack, |_| {
            frames += 1;
            if frames < 10_000 {
                std::ops::ControlFlow::Continue(())
            } else {
                std::ops::ControlFlow::Break(())
            }
        });
    }
}
