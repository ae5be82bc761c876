//! All that depends on the processor, one module per architecture with the same names in each.

#[cfg(target_arch = "x86_64")]
mod x86_64;
#[cfg(target_arch = "x86_64")]
pub(crate) use x86_64::*;

#[cfg(not(target_arch = "x86_64"))]
compile_error!("libmtr.so is for x86_64: another architecture needs its own module in src/arch");
