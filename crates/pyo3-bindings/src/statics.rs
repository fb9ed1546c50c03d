//! [`Immortal`]: what is made once, with the module, and lives as long as the process: types, interned names.

use pyo3::ffi::{self, PyObject};
use std::ffi::CStr;
use std::ops::Deref;
use std::sync::OnceLock;

struct Shared<T>(T);

// SAFETY: immortal objects, used with the GIL held.
unsafe impl<T> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Shared<T> {}

/// A static value of pointers to immortal objects, which is there from the module's initialisation on.
pub struct Immortal<T>(OnceLock<Shared<T>>);

impl<T> Default for Immortal<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Immortal<T> {
    /// Not made yet.
    pub const fn new() -> Self {
        Immortal(OnceLock::new())
    }

    /// Makes it, unless it was made before.
    ///
    /// # Safety
    /// What `value` points to is never freed, and its users hold the GIL.
    pub unsafe fn set(&self, value: T) {
        let _ = self.0.set(Shared(value));
    }

    /// The value, if it was made.
    #[inline]
    pub fn get(&self) -> Option<&T> {
        self.0.get().map(|shared| &shared.0)
    }
}

impl<T> Deref for Immortal<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        self.get()
            .expect("gevent._core is initialised before its types are used")
    }
}

/// An interned string, which lives for ever.
///
/// # Safety
/// The GIL is held.
pub unsafe fn intern(text: &CStr) -> *mut PyObject {
    // SAFETY: the caller's promise; the reference is never given back.
    unsafe { ffi::PyUnicode_InternFromString(text.as_ptr()) }
}
