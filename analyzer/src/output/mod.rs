//! One file per output format.

pub mod number; // numbers as reports show them
pub mod signal; // signals by name
pub mod processes; // one line for each process
pub mod text; // for a terminal
pub mod mtrace; // as glibc's script prints it
