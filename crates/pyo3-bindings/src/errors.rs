//! Errors of the operating system as Python's: the one place where an errno becomes an `OSError`; and
//! classes of errors that are Python's own.

use pyo3::exceptions::PyOSError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use std::ffi::CStr;
use std::io;

/// `OSError(errno, os.strerror(errno))`, of the subclass that belongs to the number.
pub fn os_error(errno: i32) -> PyErr {
    let mut text = [0; 128];
    // SAFETY: strerror_r writes a terminated text of at most that length.
    let text = unsafe {
        libc::strerror_r(errno, text.as_mut_ptr(), text.len());
        CStr::from_ptr(text.as_ptr()).to_string_lossy().into_owned()
    };
    PyOSError::new_err((errno, text))
}

/// An error of a Rust call: by its number if it has one.
pub fn io_error(error: &io::Error) -> PyErr {
    match error.raw_os_error() {
        Some(errno) => os_error(errno),
        None => PyOSError::new_err(error.to_string()),
    }
}

/// The number of the last failed call.
pub fn last_errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// A class of exceptions that is Python's, looked up when it is first raised.
pub struct ErrorClass {
    module: &'static str,
    name: &'static str,
    class: PyOnceLock<Py<PyAny>>,
}

impl ErrorClass {
    /// `module.name`.
    pub const fn new(module: &'static str, name: &'static str) -> Self {
        ErrorClass {
            module,
            name,
            class: PyOnceLock::new(),
        }
    }

    /// The class.
    ///
    /// # Errors
    /// Of the import.
    pub fn get(&self, py: Python<'_>) -> PyResult<&Py<PyAny>> {
        self.class.get_or_try_init(py, || {
            py.import(self.module)?
                .getattr(self.name)
                .map(Bound::unbind)
        })
    }

    /// Sets an error of the class, without arguments.
    ///
    /// # Safety
    /// The GIL is held.
    pub unsafe fn raise(&self) {
        // SAFETY: the caller's promise.
        let py = unsafe { Python::assume_attached() };
        match self.get(py) {
            // SAFETY: a class of exceptions.
            Ok(class) => unsafe { ffi::PyErr_SetNone(class.as_ptr()) },
            Err(e) => e.restore(py),
        }
    }
}
