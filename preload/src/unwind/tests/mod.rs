//! The unwinder against libgcc's, address by address, on every kind of stack that a hook can meet.

mod generated; // code without CFI
mod measure; // what a frame costs
mod names; // what frames are known by
mod native; // C and C++ code, built in many ways
mod oracle; // the comparison
mod rust; // this process: threads, signals, callbacks
mod table; // every row of real files, against readelf
