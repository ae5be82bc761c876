//! One file per output format.

pub mod number; // numbers as reports show them
pub mod text;
