//! `mtr-report`.

fn main() {}
