//! The methods of every message, written against the C API by hand: `recv`, `recv_into`, `send`, `sendall`.
//!
//! A greenlet spends its life parked in one of them. With thousands of greenlets what lies on a parked stack
//! has left the near caches when its turn comes, so that each frame costs; pyo3's argument parser and its
//! trampoline take more room than the call itself.

use super::base::{Given, SocketBase};
use crate::greenlet::object::Raised;
use crate::raw::{Args, FastKw, fast, none, required};
use pyo3::ffi::{self, PyMethodDef, PyObject};
use pyo3::prelude::*;
use std::ffi::CStr;
use std::ptr::null_mut;

/// What the C API passes besides the socket.
type Passed = (*const *mut PyObject, ffi::Py_ssize_t, *mut PyObject);

/// The socket and the arguments, by position or name; those left out are null. `None` with an error set.
///
/// # Safety
/// The GIL is held, `slf` is a `SocketBase`, and the rest is as the C API passes it.
#[inline]
unsafe fn taken<'a, 'py, const N: usize>(
    slf: &'a *mut PyObject,
    (items, n, names): Passed,
    func: &CStr,
    parameters: [&CStr; N],
) -> Option<(&'a Bound<'py, SocketBase>, [*mut PyObject; N])> {
    // SAFETY: the caller's promise; the reference is borrowed for the call.
    unsafe {
        let args = Args::new(items, n, names).parse(func, parameters).ok()?;
        required(args[0], func, parameters[0]).ok()?;
        let slf = Bound::ref_from_ptr(Python::assume_attached(), slf);
        Some((slf.cast_unchecked(), args))
    }
}

/// An argument that has an `__index__`; `Err` with an error set.
///
/// # Safety
/// The GIL is held; `arg` is an object or null.
#[inline]
unsafe fn index(arg: *mut PyObject, left_out: isize) -> Result<isize, Raised> {
    if arg.is_null() {
        return Ok(left_out);
    }
    // SAFETY: the caller's promise.
    unsafe {
        let n = if ffi::PyLong_CheckExact(arg) != 0 {
            ffi::PyLong_AsSsize_t(arg)
        } else {
            ffi::PyNumber_AsSsize_t(arg, ffi::PyExc_OverflowError)
        };
        if n == -1 && !ffi::PyErr_Occurred().is_null() {
            return Err(Raised);
        }
        Ok(n)
    }
}

/// The `flags` of a call; `Err` with an error set.
///
/// # Safety
/// As [`index`].
#[inline]
unsafe fn flags(arg: *mut PyObject) -> Result<i32, Raised> {
    // SAFETY: the caller's promise.
    let wide = unsafe { index(arg, 0)? };
    i32::try_from(wide).map_err(|_| {
        let text = c"Python int too large to convert to C int";
        // SAFETY: as above.
        unsafe { ffi::PyErr_SetString(ffi::PyExc_OverflowError, text.as_ptr()) };
        Raised
    })
}

/// A method as the C API calls it: `$body` gets the socket and the arguments, and is null with an error set
/// or a new reference.
macro_rules! method {
    ($function:ident, $name:literal, [$($parameter:literal),*], |$slf:ident, $args:pat_param| $body:expr) => {
        unsafe extern "C" fn $function(
            slf: *mut PyObject,
            items: *const *mut PyObject,
            n: ffi::Py_ssize_t,
            names: *mut PyObject,
        ) -> *mut PyObject {
            // SAFETY: as the descriptor calls it, after it has checked the type.
            let taken = unsafe { taken(&slf, (items, n, names), $name, [$($parameter),*]) };
            let Some(($slf, $args)) = taken else {
                return null_mut();
            };
            // SAFETY: the GIL is held, and the arguments are the caller's.
            #[allow(clippy::redundant_closure_call, reason = "for its `?`")]
            unsafe { (|| -> Result<*mut PyObject, Raised> { Ok($body) })() }.unwrap_or(null_mut())
        }
    };
}

method!(recv, c"recv", [c"bufsize", c"flags"], |slf, [size, f]| {
    SocketBase::recv(slf, index(size, 0)?, flags(f)?)?
});

method!(
    recv_into,
    c"recv_into",
    [c"buffer", c"nbytes", c"flags"],
    |slf, [buffer, nbytes, f]| {
        let buffer = Bound::ref_from_ptr(slf.py(), &buffer);
        let n = SocketBase::recv_into(slf, buffer, index(nbytes, 0)?, flags(f)?)?;
        ffi::PyLong_FromSize_t(n)
    }
);

method!(send, c"send", [c"data", c"flags", c"timeout"], |slf,
                                                         [
    data,
    f,
    timeout,
]| {
    let data = Bound::ref_from_ptr(slf.py(), &data);
    let timeout = Bound::from_borrowed_ptr_or_opt(slf.py(), timeout);
    let n = SocketBase::send(slf, data, flags(f)?, Given::of(timeout.as_ref()))?;
    ffi::PyLong_FromSize_t(n)
});

method!(
    sendall,
    c"sendall",
    [c"data", c"flags"],
    |slf, [data, f]| {
        let data = Bound::ref_from_ptr(slf.py(), &data);
        SocketBase::sendall(slf, data, flags(f)?)?;
        none()
    }
);

fn definitions() -> Vec<PyMethodDef> {
    let def = |name, function: FastKw, doc| fast(name, function, 0, doc);
    vec![
        def(
            c"recv",
            recv,
            c"recv(bufsize, flags=0)\n\nReceive up to *bufsize* bytes; none at the end of a stream.",
        ),
        def(
            c"recv_into",
            recv_into,
            c"recv_into(buffer, nbytes=0, flags=0)\n\nReceive into a writable buffer: *nbytes* bytes, or as many as it has.\n\nThe buffer cannot be resized while this waits.",
        ),
        def(
            c"send",
            send,
            c"send(data, flags=0, timeout=None)\n\nSend some of *data*; return how many bytes. Left out, *timeout* is the socket's own.",
        ),
        def(
            c"sendall",
            sendall,
            c"sendall(data, flags=0)\n\nSend all of *data*, within the socket's timeout.",
        ),
    ]
}

/// Adds the methods to the class.
///
/// # Errors
/// Of the C API.
pub(super) fn register(class: &Bound<'_, pyo3::types::PyType>) -> PyResult<()> {
    for (name, descriptor) in crate::raw::descriptors(class, definitions())? {
        class.setattr(name, descriptor)?;
    }
    Ok(())
}
