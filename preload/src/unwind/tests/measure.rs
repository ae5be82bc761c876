//! What a frame costs. Prints; asserts nothing about time.
//! `cargo test --release -p mtr-preload measure -- --ignored --nocapture`

use core::hint::black_box;
use core::ops::ControlFlow;
use std::cell::Cell;
use std::time::Instant;

use super::names::{Chains, node_of};
use super::oracle::{Frames, of_libgcc};
use crate::arch::hook_with_registers;
use crate::unwind::{LastStack, Registers, Stack, begin_unload, end_unload, walk};

hook_with_registers!(measured_hook, 1, measured_body);

thread_local! {
    static STACK: Cell<Stack> = const { Cell::new(Stack::NEW) };
    static LAST: Cell<*mut LastStack> = const { Cell::new(core::ptr::null_mut()) };
    static NAMES: Cell<*mut Chains> = const { Cell::new(core::ptr::null_mut()) };
    static WAY: Cell<Way> = const { Cell::new(Way::Nothing) };
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    Nothing,
    Walk,
    Probing,
    Incremental,
    Libgcc,
}

extern "C" fn measured_body(_: usize, registers: *const Registers) -> usize {
    // SAFETY: the hook passes the registers that it stored.
    let registers = unsafe { &*registers };
    let mut stack = STACK.get();
    let mut frames = 0;
    let visit = |frame| {
        black_box(frame);
        frames += 1;
        ControlFlow::Continue(())
    };
    match WAY.get() {
        Way::Nothing => {}
        Way::Walk => {
            stack.update(registers.rsp);
            STACK.set(stack);
            walk(registers, &stack, visit);
        }
        Way::Probing => {
            walk(registers, &Stack::NEW, visit);
        }
        Way::Incremental => {
            // SAFETY: memory for this thread alone, see `measure`.
            let (last, names) = unsafe { (&mut *LAST.get(), &mut *NAMES.get()) };
            let (node, _) = node_of(last, registers, &mut stack, names).unwrap();
            STACK.set(stack);
            return black_box(node) as usize;
        }
        Way::Libgcc => {
            let mut frames = Frames::EMPTY;
            of_libgcc(&mut frames);
            return frames.len;
        }
    }
    frames
}

fn call() -> usize {
    // SAFETY: the hook passes its argument on and returns what the body returns.
    let hook: extern "C" fn(usize) -> usize =
        unsafe { core::mem::transmute(measured_hook as unsafe extern "C" fn()) };
    hook(0)
}

#[inline(never)]
fn recurse(depth: usize, calls: usize) -> (usize, f64) {
    if depth > 0 {
        return black_box(recurse(black_box(depth - 1), calls));
    }
    let frames = call();
    let best = (0..7)
        .map(|_| {
            let start = Instant::now();
            for _ in 0..calls {
                black_box(call());
            }
            start.elapsed().as_nanos() as f64 / calls as f64
        })
        .reduce(f64::min);
    (frames, best.unwrap())
}

#[test]
#[ignore = "a measurement"]
fn measure() {
    let mut names = Chains::new();
    NAMES.set(&raw mut names);
    LAST.set(crate::sys::map_anonymous(size_of::<LastStack>()).unwrap().cast());
    for depth in [1, 5, 20, 60, 200] {
        for way in [Way::Nothing, Way::Walk, Way::Incremental, Way::Probing, Way::Libgcc] {
            WAY.set(way);
            let (frames, ns) = recurse(depth, if way == Way::Libgcc { 200 } else { 3000 });
            let each = ns / frames.max(1) as f64;
            println!("depth {depth:3} {way:?}: {ns:.1} ns, {frames} frames, {each:.2} ns each");
        }
        WAY.set(Way::Walk);
        begin_unload();
        let (frames, ns) = recurse(depth, 50);
        end_unload();
        println!("depth {depth:3} uncached: {:.0} ns each", ns / frames as f64);
    }
}
