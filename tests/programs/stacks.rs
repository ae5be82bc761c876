//! Call stacks of Rust, in the way of stacks.h: panics through frames whose destructors allocate,
//! catch_unwind, trait objects, closures, sort callbacks, iterators, a thread, what std allocates.
//! libc's backtrace() is called in the function that allocates.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::{c_int, c_void};
use std::hint::black_box;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;

unsafe extern "C" {
    fn malloc(size: usize) -> *mut c_void;
    fn free(block: *mut c_void);
    fn backtrace(frames: *mut *mut c_void, count: c_int) -> c_int;
}

/// Words of stacks.h, and how many blocks there were.
static SEEN: Mutex<(Vec<u64>, u64)> = Mutex::new((Vec::new(), 0));
/// Functions between malloc and the one that called backtrace(): not known.
const ANY: u64 = u64::MAX;

fn keep(size: u64, between: u64, frames: &[*mut c_void]) {
    let mut seen = SEEN.lock().unwrap();
    seen.0.extend([size, between, frames.len() as u64]);
    seen.0.extend(frames.iter().map(|frame| *frame as u64));
}

fn next_size() -> u64 {
    let mut seen = SEEN.lock().unwrap();
    seen.1 += 1;
    100_000 + seen.1
}

macro_rules! frames {
    () => {{
        let mut frames = [std::ptr::null_mut(); 400];
        let count = unsafe { backtrace(frames.as_mut_ptr(), 400) };
        (frames, count as usize)
    }};
}

macro_rules! allocate {
    () => {{
        let size = next_size();
        let block = unsafe { malloc(size as usize) };
        let (frames, count) = frames!();
        keep(size, 0, &frames[..count]);
        unsafe { free(black_box(block)) };
    }};
}

/// By Rust's own library.
macro_rules! allocate_vec {
    () => {{
        let size = next_size();
        let block = Vec::<u8>::with_capacity(size as usize);
        black_box(&block);
        let (frames, count) = frames!();
        keep(size, ANY, &frames[..count]);
    }};
}

thread_local!(static STATE: RefCell<u64> = const { RefCell::new(12345) });

fn random_below(limit: u64) -> u64 {
    STATE.with_borrow_mut(|state| {
        *state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (*state >> 33) % limit
    })
}

struct Guard(u64);

impl Drop for Guard {
    #[inline(never)]
    fn drop(&mut self) {
        match random_below(4) {
            0 => allocate!(),
            1 => allocate_vec!(),
            _ => {}
        }
        black_box(self.0);
    }
}

#[inline(never)]
fn panics(depth: u64) -> u64 {
    let guard = Guard(depth);
    if random_below(3) == 0 {
        allocate!();
    }
    if depth == 0 {
        panic!("out of here");
    }
    panics(depth - 1) + guard.0
}

#[inline(never)]
fn catches(depth: u64) {
    let result = catch_unwind(AssertUnwindSafe(|| panics(depth % 7)));
    allocate!();
    assert!(result.is_err());
    if depth > 0 {
        catches(depth - 1);
    }
    allocate_vec!();
}

trait Shape {
    fn visit(&self, depth: u64, next: &dyn Fn(u64));
}
struct Round([u64; 40]);
struct Square;

impl Shape for Round {
    #[inline(never)]
    fn visit(&self, depth: u64, next: &dyn Fn(u64)) {
        allocate!();
        if depth > 0 {
            shape().visit(depth - 1, next);
        }
        next(depth + self.0[3]);
    }
}

impl Shape for Square {
    #[inline(never)]
    fn visit(&self, depth: u64, next: &dyn Fn(u64)) {
        let deeper = |left: u64| {
            allocate_vec!();
            next(left);
        };
        if depth > 0 {
            shape().visit(depth - 1, &deeper);
        }
    }
}

fn shape() -> Box<dyn Shape> {
    if random_below(2) == 0 { Box::new(Round([7; 40])) } else { Box::new(Square) }
}

fn sorts(length: u64) {
    let mut numbers: Vec<u64> = (0..length).map(|_| random_below(1000)).collect();
    numbers.sort_by(|a, b| {
        if random_below(10) == 0 {
            allocate!();
        }
        a.cmp(b)
    });
    let map: BTreeMap<u64, u64> = numbers
        .iter()
        .filter_map(|n| {
            if n % 16 == 0 {
                allocate_vec!();
            }
            (n % 3 > 0).then_some((*n, n * 2))
        })
        .collect();
    black_box(map);
}

#[inline(never)]
fn many(a: u64, b: f64, c: &str, d: [u64; 20], depth: u64) -> f64 {
    if depth == 0 {
        allocate!();
        return b + c.len() as f64;
    }
    let more = black_box(d.map(|n| n + a));
    let result = many(a + 1, b * 1.5, &c[1..], more, depth - 1);
    if depth % 5 == 0 {
        allocate_vec!();
    }
    result + d[3] as f64
}

fn all() {
    for depth in 0..20 {
        catches(depth);
        shape().visit(depth, &|_| allocate!());
        black_box(many(depth, 1.0, "some text to be cut from its front", [depth; 20], depth));
    }
    sorts(200);
}

fn main() {
    std::panic::set_hook(Box::new(|_| allocate!()));
    frames!(); // the first call loads libgcc_s
    SEEN.lock().unwrap().0.push(0); // where the trampoline of signals would be
    for _ in 0..3 {
        all();
        std::thread::spawn(all).join().unwrap();
    }
    let words = SEEN.lock().unwrap();
    let bytes: Vec<u8> = words.0.iter().flat_map(|word| word.to_ne_bytes()).collect();
    std::fs::write(std::env::args_os().nth(1).expect("a path"), bytes).unwrap();
}
