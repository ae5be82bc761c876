//! Call stacks from `.eh_frame`: exact, without frame pointers, reading the stack and never writing
//! to it.
//!
//! ```text
//! return address -> cache -> (miss) eh_frame finds the FDE -> cfi runs it -> rule packs the row
//!               walk: rule + registers + memory -> next frame
//!               step: the same without rules, for all registers, where a rule cannot say it
//! ```
//!
//! A rule can be wrong (hand-written code, code without CFI, a damaged file). Then the walk ends
//! early or with a wrong frame, but every read stays inside the stack ([`bounds`]) or in a page that
//! the kernel has just read ([`memory`]).

mod bounds; // where the stack of this thread is
mod descriptor; // what glibc says of that
mod cache; // PC -> rule
mod cfi; // DW_CFA_*: a row of the table for a PC
mod cursor; // bounded reading of a module's bytes
mod eh_frame; // the FDE of a PC
mod unlisted; // where no table says which
mod expression; // DW_OP_*
mod memory; // words of the stack
mod rule; // a row in 31 bits
mod step; // one frame, by all that the row says
mod walk; // frame by frame
mod words; // the words that a stack was recovered from
mod search; // to the first frame that is known
mod incremental; // only the frames that are new since the last time
#[cfg(feature = "verify-stacks")]
pub(crate) mod verify; // that nothing is missed so

pub(crate) use bounds::Stack;
pub(crate) use cache::{begin_unload, end_unload};
#[cfg(test)]
use incremental::MAX_FRAMES;
pub(crate) use incremental::{Key, LastStack, Names};
pub(crate) use step::{Caller, Registers};
pub(crate) use walk::End;
#[cfg(test)]
pub(crate) use walk::walk;

#[cfg(test)]
mod tests;
