//! What the two commands share.

pub mod report; // the options of a report, and reporting a list of files
