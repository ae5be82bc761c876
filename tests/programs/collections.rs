//! Collections of Rust's library, each leaked by a function of its own, and one backtrace.
use std::backtrace::Backtrace;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hint::black_box;
use std::mem::forget;
use std::rc::Rc;

#[inline(never)]
fn leak_hash_map() {
    let mut map: HashMap<u32, u32> = HashMap::new();
    for number in 0..black_box(100) {
        map.insert(number, number);
    }
    forget(black_box(map));
}

#[inline(never)]
fn leak_reserved_map() {
    forget(black_box(HashMap::<u64, [u64; 7]>::with_capacity(black_box(200))));
}

#[inline(never)]
fn leak_hash_set() {
    let mut set: HashSet<u64> = HashSet::new();
    set.insert(black_box(1));
    forget(black_box(set));
}

#[inline(never)]
fn leak_btree_map() {
    let mut map: BTreeMap<u16, u64> = BTreeMap::new();
    for number in 0..black_box(30) {
        map.insert(number, number.into());
    }
    forget(black_box(map));
}

#[inline(never)]
fn leak_string() {
    forget(black_box(format!("{} of {}", black_box(1), black_box("many"))));
}

#[inline(never)]
fn leak_rc() {
    forget(black_box(Rc::new(black_box([7u8; 77]))));
}

#[inline(never)]
fn leak_backtrace() {
    forget(black_box(Backtrace::force_capture().to_string()));
}

fn main() {
    leak_hash_map();
    leak_reserved_map();
    leak_hash_set();
    leak_btree_map();
    leak_string();
    leak_rc();
    leak_backtrace();
}
