//! The result of an analysis: plain data, no input or output.
