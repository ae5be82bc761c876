//! Symbolization of real programs, compared with binutils' addr2line and with what is known about
//! how they were built.
//!
//! - `support`: compiling, disassembling, asking addr2line
//! - `lines`: file:line, functions and inlined frames for every way of storing debug information
//! - `files`: which file is used: changed, missing, deleted, replaced, named by the user
//! - `load_bias`: logs without a module map
//! - `real_logs`: what glibc writes of installed programs

mod files;
mod lines;
mod load_bias;
mod real_logs;
mod support;
