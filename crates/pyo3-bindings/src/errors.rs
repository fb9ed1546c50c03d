//! Errors of the operating system as Python's: the one place where an errno becomes an `OSError`.

use pyo3::PyErr;
use pyo3::exceptions::PyOSError;
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
