//! Small strings for Python.

use gevent_wsgi::answer;
use pyo3::ffi::{self, PyObject};
use std::ffi::CStr;

/// An immortal, interned string.
///
/// # Safety
/// The GIL is held.
pub unsafe fn interned(text: &CStr) -> *mut PyObject {
    // SAFETY: the caller's promise; the reference is never given up.
    unsafe { ffi::PyUnicode_InternFromString(text.as_ptr()) }
}

/// A new native string (PEP 3333) of bytes; null with an error set.
///
/// # Safety
/// The GIL is held.
#[inline]
pub unsafe fn latin1(bytes: &[u8]) -> *mut PyObject {
    // SAFETY: the caller's promise; the bytes are readable for their length.
    unsafe {
        ffi::PyUnicode_DecodeLatin1(
            bytes.as_ptr().cast(),
            bytes.len() as isize,
            std::ptr::null(),
        )
    }
}

/// A new string of a number in decimal.
///
/// # Safety
/// The GIL is held.
pub unsafe fn decimal(n: u64) -> *mut PyObject {
    // SAFETY: the caller's promise.
    unsafe { latin1(answer::digits(&mut [0; 20], n, 10)) }
}

/// The bytes of a string all of whose characters are in Latin-1; `None` for others. They are good while the
/// object is.
///
/// # Safety
/// `text` is a string; the GIL is held.
#[inline]
pub unsafe fn bytes_of<'a>(text: *mut PyObject) -> Option<&'a [u8]> {
    // SAFETY: a ready string of one byte a character has its data in one piece.
    unsafe {
        if ffi::PyUnicode_KIND(text) != ffi::PyUnicode_1BYTE_KIND {
            return None;
        }
        let length = ffi::PyUnicode_GET_LENGTH(text) as usize;
        Some(std::slice::from_raw_parts(
            ffi::PyUnicode_DATA(text).cast(),
            length,
        ))
    }
}
