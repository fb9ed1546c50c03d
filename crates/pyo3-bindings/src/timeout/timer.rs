//! The timer behind a running timeout, and what happens when it fires.

use super::{Obj, STATICS, TimeoutObject, cast};
use crate::event_loop::{LoopHost, Owner, nanos};
use crate::gevent_greenlet::throw_exception;
use crate::hub::{get_core, set_os_error};
use crate::raw::{self, absent};
use crate::sync::object::set;
use crate::thread_data::ThreadData;
use gevent_hub_core::reactor::{Reactor, WatcherId, WatcherKind};
use pyo3::ffi::{self, PyObject};
use pyo3::prelude::*;
use std::ptr::null_mut;
use std::rc::Rc;

/// # Safety
/// As `timeout` says.
pub(super) unsafe fn reactor(me: *mut TimeoutObject) -> Option<Rc<Reactor>> {
    // SAFETY: `loop_` is null or a loop.
    unsafe {
        if (*me).loop_.is_null() {
            return None;
        }
        let py = Python::assume_attached();
        let l = Bound::from_borrowed_ptr(py, (*me).loop_);
        l.cast_unchecked::<crate::event_loop::Loop>()
            .get()
            .reactor_ref()
            .cloned()
    }
}

/// # Safety
/// As `timeout` says.
pub(super) unsafe fn is_pending(me: *mut TimeoutObject) -> bool {
    // SAFETY: the caller's promise.
    unsafe { (*me).id.is_some() }
}

/// Stops the timer.
///
/// # Safety
/// As `timeout` says.
pub(super) unsafe fn halt(me: *mut TimeoutObject) {
    // SAFETY: a timeout; the caller holds a reference.
    unsafe {
        let Some(id) = (*me).id.take() else { return };
        let py = Python::assume_attached();
        let l = Bound::from_borrowed_ptr(py, (*me).loop_);
        l.cast_unchecked::<crate::event_loop::Loop>()
            .get()
            .remove(id);
        set(&raw mut (*me).greenlet, null_mut());
        set(&raw mut (*me).throws, null_mut());
        ffi::Py_DECREF(me.cast());
    }
}

/// Starts the timer. `Err` with an error set.
///
/// # Safety
/// As `timeout` says.
pub(super) unsafe fn begin(me: *mut TimeoutObject) -> Result<(), ()> {
    // SAFETY: the caller's promise.
    unsafe {
        if is_pending(me) {
            let text = c"%R is already started; to restart it, cancel it first";
            ffi::PyErr_Format(ffi::PyExc_AssertionError, text.as_ptr(), me);
            return Err(());
        }
        if absent((*me).seconds) {
            return Ok(());
        }
        if (*me).closed {
            let text = c"non-expiring timer cannot be started";
            ffi::PyErr_SetString(ffi::PyExc_AssertionError, text.as_ptr());
            return Err(());
        }
        // May be anything, since the attribute can be set, and may run Python.
        let seconds = ffi::Py_NewRef((*me).seconds);
        let after = ffi::PyFloat_AsDouble(seconds);
        ffi::Py_DECREF(seconds);
        if after == -1.0 && !ffi::PyErr_Occurred().is_null() {
            return Err(());
        }
        // As the constructor does: a thread that got the timeout from another one may have no hub yet.
        let hub = get_core()?;
        if is_pending(me) {
            // That Python has started it.
            let text = c"%R is already started; to restart it, cancel it first";
            ffi::PyErr_Format(ffi::PyExc_AssertionError, text.as_ptr(), me);
            return Err(());
        }
        let after = nanos(after);
        if (*me).loop_ != hub.loop_object() {
            // Made in another thread, or before the thread's loop was replaced.
            set(&raw mut (*me).loop_, ffi::Py_NewRef(hub.loop_object()));
        }
        let Some(r) = reactor(me) else {
            let text = c"operation on destroyed loop";
            ffi::PyErr_SetString(ffi::PyExc_ValueError, text.as_ptr());
            return Err(());
        };
        let exception = (*me).exception;
        let own = absent(exception)
            || exception == ffi::Py_False()
            || ffi::PyUnicode_Check(exception) != 0;
        let throws = if own {
            null_mut()
        } else {
            ffi::Py_NewRef(exception)
        };
        set(&raw mut (*me).throws, throws);
        let current = ThreadData::get().current.get();
        set(&raw mut (*me).greenlet, ffi::Py_NewRef(current.cast()));
        hub.update_now()?;
        let id = r.add(
            WatcherKind::Timer { after, repeat: 0 },
            Owner::Timeout(me.cast()).into_word(),
        );
        r.set_priority(id, (*me).priority);
        if !(*me).counts {
            r.set_ref(id, false);
        }
        if let Err(e) = r.start(id) {
            r.remove(id);
            set_os_error(&e);
            return Err(());
        }
        (*me).id = Some(id);
        ffi::Py_INCREF(me.cast());
        Ok(())
    }
}

/// The timer of a timeout has fired: throws. Takes the timer's reference.
pub fn expire(host: &LoopHost<'_, '_>, id: WatcherId, p: Obj) {
    let me = cast(p);
    // SAFETY: a running timeout, which holds itself; the hub's state is installed.
    unsafe {
        (*me).id = None;
        if let Some(r) = host.loop_().get().reactor_ref() {
            r.remove(id);
        }
        let py = host.loop_().py();
        let context = Bound::from_owned_ptr(py, p);
        let greenlet = std::mem::replace(&mut (*me).greenlet, null_mut());
        let throws = std::mem::replace(&mut (*me).throws, null_mut());
        let throws = if throws.is_null() {
            ffi::Py_NewRef(p)
        } else {
            throws
        };
        if !greenlet.is_null() {
            let s = &*STATICS;
            let hook = raw::_PyType_Lookup(ffi::Py_TYPE(p), s.str_on_expiration);
            let r = if hook == s.on_expiration {
                throw_exception(greenlet, throws)
            } else {
                ffi::PyObject_CallMethodObjArgs(
                    p,
                    s.str_on_expiration,
                    greenlet,
                    throws,
                    null_mut::<PyObject>(),
                )
            };
            let td = ThreadData::get();
            td.install(td.current.get());
            td.empty_drops();
            if r.is_null() {
                host.report(&context, Err(PyErr::fetch(py)));
            } else {
                ffi::Py_DECREF(r);
            }
        }
        ffi::Py_DECREF(throws);
        ffi::Py_XDECREF(greenlet);
    }
}

/// Whether a running timeout is meant for `greenlet`.
///
/// # Safety
/// `p` is a timeout; the GIL is held.
pub unsafe fn is_of(p: Obj, greenlet: Obj) -> bool {
    // SAFETY: the caller's promise.
    unsafe { (*cast(p)).greenlet == greenlet }
}

/// The loop of a running timeout is being destroyed: what it held, itself too, is moved to `held`.
pub fn loop_gone(py: Python<'_>, p: Obj, held: &mut Vec<Py<PyAny>>) {
    // SAFETY: a running timeout, which holds itself; its fields are owned references or null.
    unsafe {
        let me = cast(p);
        (*me).id = None;
        for field in [&raw mut (*me).greenlet, &raw mut (*me).throws] {
            let old = Bound::from_owned_ptr_or_opt(py, field.replace(null_mut()));
            held.extend(old.map(Bound::unbind));
        }
        held.push(Bound::from_owned_ptr(py, p).unbind());
    }
}
