//! Running a program under libmtr.so: what `mtr-run` does before and after the report.

pub mod program; // which file will run, and can it be traced
mod sanitizer; // was it built with one
pub mod library; // libmtr.so, unpacked
pub mod output; // where the traces go
pub mod file_size; // a limit of it is an error, not our end
pub mod child; // start it, pass signals on, wait for it
mod witness; // was a signal for the whole group
pub mod session; // the traces of this run
