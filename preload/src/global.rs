//! Plain values in statics, and paths in fixed buffers: what stands in for `OnceLock` and `PathBuf`
//! in a library that must not allocate.

use core::cell::UnsafeCell;
use core::ffi::CStr;

/// A static that one thread writes while the process's log starts, and that is only read after.
pub(crate) struct Global<T>(UnsafeCell<T>);

// SAFETY: the starting thread is alone (lifecycle.rs lets one through), and its writes happen
// before it publishes the state that lets others read.
unsafe impl<T> Sync for Global<T> {}

impl<T> Global<T> {
    pub(crate) const fn new(value: T) -> Self {
        Global(UnsafeCell::new(value))
    }

    /// # Safety
    /// Nobody is writing: the log has started, or the caller is the thread that starts it.
    pub(crate) unsafe fn get(&self) -> &T {
        // SAFETY: the caller's promise.
        unsafe { &*self.0.get() }
    }

    /// # Safety
    /// The caller is the thread that starts the log, and holds no other reference to the value.
    #[allow(clippy::mut_from_ref)] // the caller's promise replaces the borrow checker's
    pub(crate) unsafe fn get_mut(&self) -> &mut T {
        // SAFETY: the caller's promise.
        unsafe { &mut *self.0.get() }
    }
}

/// A string of bytes in a buffer of its own, always followed by a NUL. What does not fit is cut and
/// remembered.
#[derive(Clone, Copy)]
pub(crate) struct Text<const N: usize> {
    bytes: [u8; N],
    len: usize,
    cut: bool,
}

/// A path.
pub(crate) type Path = Text<{ libc::PATH_MAX as usize }>;

impl<const N: usize> Text<N> {
    pub(crate) const EMPTY: Self = Text { bytes: [0; N], len: 0, cut: false };

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&[])
    }

    /// As a C string; up to the first NUL where the text has one.
    pub(crate) fn as_c_str(&self) -> &CStr {
        // SAFETY: a NUL follows the text, inside the buffer: `push` and `truncate` keep one there.
        unsafe { CStr::from_ptr(self.bytes.as_ptr().cast()) }
    }

    /// Whether something did not fit.
    pub(crate) fn is_cut(&self) -> bool {
        self.cut
    }

    /// The whole buffer, for a system call to fill. What it holds is not part of the text.
    pub(crate) fn space(&mut self) -> &mut [u8] {
        self.clear();
        &mut self.bytes
    }

    pub(crate) fn clear(&mut self) {
        self.truncate(0);
        self.cut = false;
    }

    pub(crate) fn truncate(&mut self, len: usize) {
        self.len = len.min(self.len);
        if let Some(end) = self.bytes.get_mut(self.len) {
            *end = 0;
        }
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if self.len + 1 >= N {
                self.cut = true;
                return;
            }
            if let Some(place) = self.bytes.get_mut(self.len) {
                *place = *byte;
            }
            self.len += 1;
            if let Some(end) = self.bytes.get_mut(self.len) {
                *end = 0;
            }
        }
    }

    pub(crate) fn push_decimal(&mut self, value: u64) {
        let mut digits = [0; 20];
        let len = mtr_format::text::encode::decimal(value, &mut digits);
        self.push(digits.get(..len).unwrap_or(&[]));
    }

    /// Appends a number with zeros in front, at least `width` digits.
    pub(crate) fn push_padded(&mut self, value: u64, width: u32) {
        let digits = value.checked_ilog10().map_or(1, |log| log + 1);
        (digits..width).for_each(|_| self.push(b"0"));
        self.push_decimal(value);
    }

    /// Appends hex digits without `0x`, at least `width` of them.
    pub(crate) fn push_hex(&mut self, value: u64, width: usize) {
        let mut digits = [0; 16];
        let len = mtr_format::text::encode::hex(value, &mut digits);
        for _ in len..width {
            self.push(b"0");
        }
        self.push(digits.get(..len).unwrap_or(&[]));
    }

    /// As [`Text::push_escaped`], but leaves the text no longer than `limit`.
    pub(crate) fn push_escaped_up_to(&mut self, name: &[u8], limit: usize) {
        for byte in name {
            if self.len + mtr_format::text::escape::MAX_ESCAPED > limit {
                return;
            }
            self.push_escaped(&[*byte]);
        }
    }

    /// Appends `name` with escapes for what would break a line apart. No escape is cut.
    pub(crate) fn push_escaped(&mut self, name: &[u8]) {
        let mut form = [0; mtr_format::text::escape::MAX_ESCAPED];
        for byte in name {
            let len = mtr_format::text::escape::escape(&[*byte], &mut form);
            if self.len + len >= N {
                self.cut = true;
                return;
            }
            self.push(form.get(..len).unwrap_or(&[]));
        }
    }
}

/// A text too large for the program's stack (a hook may use 2 KiB of it), in memory of its own.
pub(crate) struct Scratch<const N: usize>(*mut Text<N>);

impl<const N: usize> Scratch<N> {
    /// An empty text, `None` when there is no memory.
    pub(crate) fn new() -> Option<Self> {
        // Zeroed memory is an empty text: length 0, not cut.
        crate::sys::map_anonymous(size_of::<Text<N>>()).ok().map(|at| Scratch(at.cast()))
    }
}

impl<const N: usize> core::ops::Deref for Scratch<N> {
    type Target = Text<N>;
    fn deref(&self) -> &Text<N> {
        // SAFETY: a live mapping of the size of a text that only this value refers to.
        unsafe { &*self.0 }
    }
}

impl<const N: usize> core::ops::DerefMut for Scratch<N> {
    fn deref_mut(&mut self) -> &mut Text<N> {
        // SAFETY: as in `deref`.
        unsafe { &mut *self.0 }
    }
}

impl<const N: usize> Drop for Scratch<N> {
    fn drop(&mut self) {
        // SAFETY: nothing refers to the mapping after its owner.
        unsafe { crate::sys::unmap(self.0.cast(), size_of::<Text<N>>()) }
    }
}
