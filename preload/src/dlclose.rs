//! What an unloaded module means for the log: its addresses may be another module's next.

use core::ffi::c_int;

use crate::record::compact;
use crate::{lifecycle, modules, sites, unwind};

/// Runs the real dlclose; no address that was met before or during it is taken for the same call
/// site afterwards if a module has gone.
pub(crate) fn around(real: impl FnOnce() -> c_int) -> c_int {
    if !lifecycle::has_log() {
        return real();
    }
    sites::begin_unload();
    unwind::begin_unload();
    let result = real();
    unwind::end_unload();
    let unloaded = modules::sweep();
    if unloaded {
        compact::modules_changed();
    }
    sites::end_unload(unloaded);
    result
}
