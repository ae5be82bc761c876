//! Leaks of Rust: a leaked box, a forgotten vector and map, a cycle of reference counts.
//!
//!     rustc -g -o leaks-rs examples/leaks.rs
use std::cell::RefCell;
use std::collections::HashMap;
use std::hint::black_box;
use std::rc::Rc;

struct Node {
    next: RefCell<Option<Rc<Node>>>,
    payload: [u8; 300],
}

fn leak_box() -> &'static mut [u8; 4096] {
    Box::leak(Box::new([7; 4096])) // 4,096 bytes
}

fn forget_vector() -> usize {
    let numbers: Vec<u64> = Vec::with_capacity(1000); // 8,000 bytes
    let capacity = numbers.capacity();
    std::mem::forget(numbers);
    capacity
}

fn forget_map() {
    let names: HashMap<u64, u64> = HashMap::with_capacity(100); // 2,192 bytes
    std::mem::forget(black_box(names));
}

fn leak_cycle() -> u8 {
    let first = Rc::new(Node { next: RefCell::new(None), payload: [1; 300] });
    let second = Rc::new(Node { next: RefCell::new(Some(first.clone())), payload: [2; 300] });
    *first.next.borrow_mut() = Some(second.clone()); // neither count reaches zero any more
    first.payload[0] + second.payload[0]
}

fn main() {
    black_box(leak_box());
    black_box(forget_vector());
    forget_map();
    black_box(leak_cycle());
    drop(black_box(vec![0u8; 5000])); // this one is freed
}
