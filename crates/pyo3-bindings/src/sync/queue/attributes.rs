//! The attributes of a queue: its bound, its counts, and what holds the items.
//!
//! # Safety
//! As in the folder's `mod.rs`.

use super::cast;
use crate::raw::{absent, boolean, none};
use crate::sync::Obj;
use crate::sync::args::flag;
use crate::sync::object::{attribute, or_none, set_or_empty};
use pyo3::ffi::{self, PyGetSetDef};
use std::ffi::{c_int, c_void};
use std::ptr::null_mut;

/// # Safety
/// The GIL is held; `value` is an object or null.
unsafe fn number_of(value: Obj) -> Result<isize, ()> {
    // SAFETY: the caller's promise.
    unsafe {
        if absent(value) {
            return Ok(-1);
        }
        let n = ffi::PyNumber_AsSsize_t(value, null_mut());
        if n == -1 && !ffi::PyErr_Occurred().is_null() {
            return Err(());
        }
        Ok(n)
    }
}

#[crate::entry]
unsafe extern "C" fn get_maxsize(slf: Obj, _: *mut c_void) -> Obj {
    // SAFETY: as the C API calls it, on a queue.
    unsafe {
        let ledger = &(*cast(slf)).ledger;
        if ledger.is_bounded() {
            ffi::PyLong_FromSize_t(ledger.capacity())
        } else {
            none()
        }
    }
}

#[crate::entry]
unsafe extern "C" fn set_maxsize(slf: Obj, value: Obj, _: *mut c_void) -> c_int {
    // SAFETY: as the C API calls it, on a queue.
    unsafe {
        let Ok(n) = number_of(value) else {
            return -1;
        };
        let most = usize::try_from(n).ok().filter(|n| *n > 0);
        (*cast(slf)).ledger.set_capacity(most.unwrap_or(usize::MAX));
        0
    }
}

#[crate::entry]
unsafe extern "C" fn get_raw_maxsize(slf: Obj, _: *mut c_void) -> Obj {
    // SAFETY: a queue. No limit is -1.
    unsafe { ffi::PyLong_FromSsize_t((*cast(slf)).ledger.capacity().cast_signed()) }
}

#[crate::entry]
unsafe extern "C" fn get_unfinished(slf: Obj, _: *mut c_void) -> Obj {
    // SAFETY: as the C API calls it, on a queue.
    unsafe { ffi::PyLong_FromSize_t((*cast(slf)).ledger.unfinished()) }
}

#[crate::entry]
unsafe extern "C" fn set_unfinished(slf: Obj, value: Obj, _: *mut c_void) -> c_int {
    // SAFETY: as the C API calls it, on a queue.
    unsafe {
        let Ok(n) = number_of(value) else {
            return -1;
        };
        let n = usize::try_from(n).unwrap_or(0);
        (*cast(slf)).ledger.set_unfinished(n);
        0
    }
}

#[crate::entry]
unsafe extern "C" fn get_shut(slf: Obj, _: *mut c_void) -> Obj {
    // SAFETY: as the C API calls it, on a queue.
    unsafe { boolean((*cast(slf)).ledger.is_closed()) }
}

#[crate::entry]
unsafe extern "C" fn set_shut(slf: Obj, value: Obj, _: *mut c_void) -> c_int {
    // SAFETY: as the C API calls it, on a queue.
    unsafe {
        match flag(value, false) {
            Ok(true) => _ = (*cast(slf)).ledger.close(),
            Ok(false) => (*cast(slf)).ledger.open(),
            Err(()) => return -1,
        }
        0
    }
}

#[crate::entry]
unsafe extern "C" fn get_store(slf: Obj, _: *mut c_void) -> Obj {
    // SAFETY: as the C API calls it, on a queue.
    unsafe { or_none((*cast(slf)).store) }
}

#[crate::entry]
unsafe extern "C" fn set_store(slf: Obj, value: Obj, _: *mut c_void) -> c_int {
    // SAFETY: as the C API calls it, on a queue.
    unsafe { set_or_empty(&raw mut (*cast(slf)).store, value) }
}

#[crate::entry]
unsafe extern "C" fn get_cond(slf: Obj, _: *mut c_void) -> Obj {
    // SAFETY: as the C API calls it, on a queue.
    unsafe { or_none((*cast(slf)).cond) }
}

/// The table of them.
pub(super) fn attributes() -> Vec<PyGetSetDef> {
    vec![
        attribute(
            c"maxsize",
            get_maxsize,
            Some(set_maxsize),
            c"The greatest number of items, or None if there is no limit.",
        ),
        attribute(
            c"_maxsize",
            get_raw_maxsize,
            Some(set_maxsize),
            c"The same, with -1 for no limit.",
        ),
        attribute(
            c"_unfinished",
            get_unfinished,
            Some(set_unfinished),
            c"How many tasks are not done.",
        ),
        attribute(
            c"is_shutdown",
            get_shut,
            Some(set_shut),
            c"Whether it takes no more items.",
        ),
        attribute(
            c"queue",
            get_store,
            Some(set_store),
            c"What holds the items.",
        ),
        attribute(
            c"_cond_event",
            get_cond,
            None,
            c"The event of those who join.",
        ),
    ]
}
