//! The methods of every message, written against the C API by hand: `recv`, `recv_into`, `send`, `sendall`.
//!
//! A greenlet spends its life parked in one of them. With thousands of greenlets what lies on a parked stack
//! has left the near caches when its turn comes, so that each frame costs; pyo3's argument parser and its
//! trampoline take more room than the call itself.

use super::base::{Given, SocketBase, fail};
use crate::greenlet::object::Raised;
use crate::raw::{Args, FastKw, Passed, fast, method, none};
use pyo3::ffi::{self, PyMethodDef, PyObject};
use pyo3::prelude::*;
use std::ffi::CStr;
use std::ptr::null_mut;

/// Runs a method: `body` gets the socket and the arguments, by position or name, of which those left out are
/// null. What it returns is a new reference.
///
/// # Safety
/// The GIL is held, `slf` is a `SocketBase`, and the rest is as the C API passes it.
#[inline(always)]
unsafe fn run<'py, const N: usize>(
    slf: *mut PyObject,
    (items, n, names): Passed,
    func: &CStr,
    parameters: [&CStr; N],
    body: impl FnOnce(&Bound<'py, SocketBase>, [*mut PyObject; N]) -> Result<*mut PyObject, Raised>,
) -> *mut PyObject {
    // SAFETY: the caller's promise; the reference is borrowed for the call.
    unsafe {
        let Ok(args) = Args::new(items, n, names).parse_first(func, parameters) else {
            return null_mut();
        };
        let slf = Bound::ref_from_ptr(Python::assume_attached(), &slf);
        body(slf.cast_unchecked(), args).unwrap_or(null_mut())
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

/// Refuses a closed socket, before a look at the arguments.
#[inline]
fn open(slf: &Bound<'_, SocketBase>) -> Result<(), Raised> {
    if slf.get().fd() < 0 {
        return Err(fail(slf.py(), libc::EBADF));
    }
    Ok(())
}

method!(
    run: recv,
    c"recv",
    [c"bufsize", c"flags"],
    |slf, [size, f]| {
        open(slf)?;
        SocketBase::recv(slf, index(size, 0)?, flags(f)?)
    }
);

method!(
    run: recv_into,
    c"recv_into",
    [c"buffer", c"nbytes", c"flags"],
    |slf, [buffer, nbytes, f]| {
        open(slf)?;
        let buffer = Bound::ref_from_ptr(slf.py(), &buffer);
        let n = SocketBase::recv_into(slf, buffer, index(nbytes, 0)?, flags(f)?)?;
        Ok(ffi::PyLong_FromSize_t(n))
    }
);

method!(
    run: send,
    c"send",
    [c"data", c"flags", c"timeout"],
    |slf, [data, f, timeout]| {
        open(slf)?;
        let data = Bound::ref_from_ptr(slf.py(), &data);
        let timeout = Bound::from_borrowed_ptr_or_opt(slf.py(), timeout);
        let n = SocketBase::send(slf, data, flags(f)?, Given::of(timeout.as_ref()))?;
        Ok(ffi::PyLong_FromSize_t(n))
    }
);

method!(
    run: sendall,
    c"sendall",
    [c"data", c"flags"],
    |slf, [data, f]| {
        let data = Bound::ref_from_ptr(slf.py(), &data);
        SocketBase::sendall(slf, data, flags(f)?)?;
        Ok(none())
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
