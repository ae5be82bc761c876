//! Panics caught at all depths, in threads too; what they pass is freed on the way. Prints as counts.h
//! does.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

static MADE: [AtomicU64; 8] = [const { AtomicU64::new(0) }; 8];
static ENDED: [AtomicU64; 8] = [const { AtomicU64::new(0) }; 8];

struct Held(usize, Vec<u8>);

impl Held {
    fn new(n: usize) -> Held {
        let mut bytes = Vec::with_capacity(90_000 + n);
        bytes.push(std::hint::black_box(1));
        MADE[n].fetch_add(1, Relaxed);
        Held(n, bytes)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        ENDED[self.0].fetch_add(u64::from(self.1[0]), Relaxed);
    }
}

#[inline(never)]
fn deeper(depth: usize) -> usize {
    let held = Held::new(depth % 8);
    if depth == 0 {
        std::panic::panic_any(String::from("the bottom"));
    }
    deeper(depth - 1) + held.0
}

fn work() {
    for round in 0..300 {
        assert!(std::panic::catch_unwind(|| deeper(round % 40)).is_err());
    }
}

fn main() {
    std::panic::set_hook(Box::new(|_| {}));
    let threads: Vec<_> = (0..3).map(|_| std::thread::spawn(work)).collect();
    work();
    for thread in threads {
        thread.join().unwrap();
    }
    for (n, (made, ended)) in MADE.iter().zip(&ENDED).enumerate() {
        println!("{} {} {}", 90_000 + n, made.load(Relaxed), ended.load(Relaxed));
    }
}
