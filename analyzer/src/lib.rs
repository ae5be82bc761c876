//! The analyzer of mtr: what you supply is a trace (and, where the trace cannot say it, the
//! program); what you get is a [`profile::Profile`] and text made from it.
//!
//! The modules are the stages in the order in which data passes through them. Each may use those
//! above it; `output` sees nothing but `profile`.
//!
//! This is not a library for other tools to build on: it serves `mtr-report` and `mtr-run`.

pub mod output;
pub mod profile; // 4. the result: plain data
pub mod read; // 1. bytes of a trace -> events and call sites
pub mod replay; // 3. events -> live blocks, totals, peak, faults
pub mod symbolize; // 2. call site -> function, file:line, inlined frames // 5. one file per output format
