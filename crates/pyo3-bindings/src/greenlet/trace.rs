//! `settrace`: telling a thread's tracer of a switch, in the greenlet that was switched to.

use super::object::{PyGreenlet, clear, globals, new_ref};
use crate::thread_data::ThreadData;
use crate::tstate;
use pyo3::ffi::{self, PyObject};
use std::ptr::null_mut;

/// Tells the thread's tracer that `origin` switched to `target`, or threw into it. A tracer that raises is
/// removed, and its error returned, which then replaces what the switch brought.
///
/// # Safety
/// The GIL is held, no error is set, `target` is current and its state installed; a tracer is set.
#[cold]
pub unsafe fn call(
    td: &ThreadData,
    origin: *mut PyGreenlet,
    target: *mut PyGreenlet,
    thrown: bool,
) -> Result<(), *mut PyObject> {
    // SAFETY: the caller's promise. The tracer is held while it runs: it may remove itself.
    unsafe {
        let tracer = new_ref(td.tracer.get());
        let event = if thrown {
            globals().str_throw
        } else {
            globals().str_switch
        };
        let result = tstate::without_tracing(td.tstate, || {
            let pair = ffi::PyTuple_New(2);
            if pair.is_null() {
                return null_mut();
            }
            ffi::PyTuple_SET_ITEM(pair, 0, new_ref(origin).cast());
            ffi::PyTuple_SET_ITEM(pair, 1, new_ref(target).cast());
            let result =
                ffi::PyObject_CallFunctionObjArgs(tracer, event, pair, null_mut::<PyObject>());
            ffi::Py_DECREF(pair);
            result
        });
        ffi::Py_DECREF(tracer);
        if result.is_null() {
            let error = tstate::take_raised();
            clear(&td.tracer);
            return Err(error);
        }
        ffi::Py_DECREF(result);
        Ok(())
    }
}
