//! `mtr-run`.

fn main() {}
