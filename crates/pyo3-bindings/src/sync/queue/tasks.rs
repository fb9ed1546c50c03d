//! The tasks of a queue, which are counted until they are done, and the end of those who wait.
//!
//! # Safety
//! As in the folder's `mod.rs`.

use super::{cast, storage, waiting};
use crate::raw::{answer_bool, boolean, fast, method, noargs, none, one, parsed};
use crate::sync::args::Limit;
use crate::sync::object::set;
use crate::sync::wait::wait;
use crate::sync::{Obj, event};
use pyo3::ffi::{self, PyMethodDef};
use std::ptr::null_mut;

#[crate::entry]
unsafe extern "C" fn did_put_task(slf: Obj, _: Obj) -> Obj {
    // SAFETY: as the C API calls it, on a queue.
    unsafe {
        storage::did_put_task(cast(slf));
        none()
    }
}

#[crate::entry]
unsafe extern "C" fn task_done(slf: Obj, _: Obj) -> Obj {
    // SAFETY: a queue; the event is held over what may run Python.
    unsafe {
        let me = cast(slf);
        let Some(last) = (*me).ledger.done() else {
            let text = c"task_done() called too many times";
            ffi::PyErr_SetString(ffi::PyExc_ValueError, text.as_ptr());
            return null_mut();
        };
        if last && !(*me).cond.is_null() {
            let cond = ffi::Py_NewRef((*me).cond);
            event::raise_flag(cond);
            ffi::Py_DECREF(cond);
        }
        none()
    }
}

method!(parsed: join, c"join", [c"timeout"], |slf, [timeout]| {
    // The event is held over the wait.
    let Ok(limit) = Limit::new(timeout) else {
        return null_mut();
    };
    if (*cast(slf)).cond.is_null() {
        return boolean(true);
    }
    let cond = ffi::Py_NewRef((*cast(slf)).cond);
    let came = wait(cond.cast(), limit);
    ffi::Py_DECREF(cond);
    answer_bool(came)
});

/// `_start_tasks(n)`: how many tasks are unfinished at the beginning.
#[crate::entry]
unsafe extern "C" fn start_tasks(slf: Obj, n: Obj) -> Obj {
    // SAFETY: as the C API calls it, on a queue.
    unsafe {
        let n = ffi::PyLong_AsSsize_t(n);
        if n == -1 && !ffi::PyErr_Occurred().is_null() {
            return null_mut();
        }
        let n = usize::try_from(n).unwrap_or(0);
        let cond = event::new_event(n == 0);
        if cond.is_null() {
            return null_mut();
        }
        (*cast(slf)).ledger.set_unfinished(n);
        set(&raw mut (*cast(slf)).cond, cond);
        none()
    }
}

#[crate::entry]
unsafe extern "C" fn shut_waiters(slf: Obj, _: Obj) -> Obj {
    // SAFETY: as the C API calls it, on a queue.
    unsafe {
        waiting::shut(cast(slf));
        none()
    }
}

/// What the type has of methods for it.
pub(super) fn methods() -> Vec<PyMethodDef> {
    vec![
        noargs(c"_did_put_task", did_put_task, c"Count one more task."),
        noargs(
            c"_task_done",
            task_done,
            c"Say that the work for one item is done. ValueError if called more often than `put`.",
        ),
        fast(
            c"_join",
            join,
            0,
            c"Wait until all tasks are done, at most *timeout* seconds.",
        ),
        one(
            c"_start_tasks",
            start_tasks,
            c"Begin to count, with so many tasks.",
        ),
        noargs(
            c"_shut_waiters",
            shut_waiters,
            c"Raise ShutDown in everyone who waits.",
        ),
    ]
}
