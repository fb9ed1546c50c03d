//! A method of the socket as the C API calls it: the frame that the plain methods and those of TLS share.

use pyo3::ffi::{self, PyObject};

/// What the C API passes besides the socket: the array, how many are positional, the names of the others.
pub(super) type Passed = (*const *mut PyObject, ffi::Py_ssize_t, *mut PyObject);

/// Defines `$function`, a [`FastKw`](crate::raw::FastKw), by `$run`: an unsafe function that gets the
/// socket, what was [`Passed`], the name and parameters for its messages, and `$body`.
///
/// `$body` stands in an unsafe block: while it runs the GIL is held and the arguments are the caller's.
macro_rules! method {
    ($run:ident: $function:ident, $name:literal, [$($parameter:literal),*], $body:expr) => {
        unsafe extern "C" fn $function(
            slf: *mut ::pyo3::ffi::PyObject,
            items: *const *mut ::pyo3::ffi::PyObject,
            n: ::pyo3::ffi::Py_ssize_t,
            names: *mut ::pyo3::ffi::PyObject,
        ) -> *mut ::pyo3::ffi::PyObject {
            // SAFETY: as the descriptor calls it, after it has checked the type.
            unsafe { $run(slf, (items, n, names), $name, [$($parameter),*], $body) }
        }
    };
}

pub(super) use method;
