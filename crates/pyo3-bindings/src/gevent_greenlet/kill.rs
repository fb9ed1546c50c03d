//! Killing: exceptions that the hub throws on behalf of others.

use super::object::GreenletObject;
use crate::event_loop::{LoopHost, Payload};
use crate::greenlet::{PyGreenlet, make_exception, throw_into};
use crate::hub::{HubCore, Waiter};
use crate::raw::{method, parsed};
use crate::thread_data::ThreadData;
use gevent_hub_core::reactor::{Entry, Wake};
use pyo3::ffi::{self, PyObject};
use pyo3::prelude::*;
use std::ptr::null_mut;

/// What a queued kill holds: owned references, and who waits until it is over, one way or another.
struct Kill {
    greenlet: *mut PyObject,
    exception: *mut PyObject,
    then: Option<Waiter>,
}

impl Drop for Kill {
    fn drop(&mut self) {
        if let Some(waiter) = self.then {
            waiter.wake(Wake::Event);
        }
        // SAFETY: queue entries are run and dropped with the GIL held.
        unsafe {
            ffi::Py_DECREF(self.greenlet);
            ffi::Py_DECREF(self.exception);
        }
    }
}

/// Has the hub of `greenlet`, which may be another thread's, throw `exception` (a class, an instance or a
/// triple) into it, and then end the park `then`. `Err` with an error set.
///
/// # Safety
/// The GIL is held; both are objects.
pub unsafe fn queue(
    greenlet: *mut PyObject,
    exception: *mut PyObject,
    then: Option<Waiter>,
) -> Result<(), ()> {
    // SAFETY: new references, dropped with the job.
    let kill = unsafe {
        Kill {
            greenlet: ffi::Py_NewRef(greenlet),
            exception: ffi::Py_NewRef(exception),
            then,
        }
    };
    let mut kill = kill;
    let job: Box<dyn FnOnce()> = Box::new(move || {
        if let Some(hub) = HubCore::current() {
            // SAFETY: run by the hub, with its state installed.
            unsafe { throw_and_report(&hub, kill.greenlet, kill.exception) };
        }
        let then = kill.then.take();
        drop(kill);
        if let Some(waiter) = then {
            waiter.hand_over(Wake::Event);
        }
    });
    let entry = Entry::Call(Payload::Job(Box::new(job)).into_word());
    // SAFETY: a greenlet; the GIL is held.
    unsafe {
        match HubCore::current() {
            Some(hub) if hub.greenlet() == (*greenlet.cast::<PyGreenlet>()).parent.get() => {
                hub.reactor().push(entry);
                Ok(())
            }
            _ => super::life::send_home(greenlet.cast(), entry),
        }
    }
}

/// Throws into a greenlet, and hands the hub what comes back as an error.
///
/// # Safety
/// The GIL is held, by the hub; the caller has a reference to both objects.
unsafe fn throw_and_report(hub: &HubCore, greenlet: *mut PyObject, exception: *mut PyObject) {
    // SAFETY: the GIL is held; the hub runs.
    unsafe {
        let r = throw(greenlet, exception);
        let td = ThreadData::get();
        td.install(td.current.get());
        td.empty_drops();
        if !r.is_null() {
            ffi::Py_DECREF(r);
            return;
        }
        let py = Python::assume_attached();
        let error = PyErr::fetch(py);
        let loop_ = Bound::from_borrowed_ptr(py, hub.loop_object());
        let loop_ = loop_.cast_into_unchecked::<crate::event_loop::Loop>();
        let context = Bound::from_borrowed_ptr(py, greenlet);
        LoopHost::new(&loop_).report(&context, Err(error));
    }
}

/// `greenlet.throw(exception)`, or with a triple `greenlet.throw(*exception)`.
///
/// # Safety
/// Objects; the GIL is held.
pub unsafe fn throw(greenlet: *mut PyObject, exception: *mut PyObject) -> *mut PyObject {
    // SAFETY: objects; the GIL is held.
    unsafe {
        let triple = ffi::PyTuple_Check(exception) != 0 && ffi::PyTuple_GET_SIZE(exception) == 3;
        if !triple && super::is_plain(greenlet) {
            let me = greenlet.cast::<GreenletObject>();
            if (*me).base.active() {
                let exc = make_exception(exception, null_mut(), null_mut());
                if exc.is_null() {
                    return null_mut();
                }
                return throw_into(ThreadData::get(), greenlet.cast::<PyGreenlet>(), exc);
            }
        }
        let name = crate::greenlet::globals().str_throw;
        if triple {
            let f = ffi::PyObject_GetAttr(greenlet, name);
            if f.is_null() {
                return f;
            }
            let r = ffi::PyObject_CallObject(f, exception);
            ffi::Py_DECREF(f);
            return r;
        }
        ffi::PyObject_CallMethodOneArg(greenlet, name, exception)
    }
}

/// Whether a greenlet, raw or not, is dead. `Err` with an error set.
///
/// # Safety
/// The GIL is held; `g` is alive.
unsafe fn is_dead(g: *mut PyObject) -> Result<bool, ()> {
    // SAFETY: the caller's promise.
    unsafe {
        if super::is_plain(g) {
            return Ok(GreenletObject::is_dead(g.cast()));
        }
        let dead = ffi::PyObject_GetAttrString(g, c"dead".as_ptr());
        if dead.is_null() {
            return Err(());
        }
        let r = ffi::PyObject_IsTrue(dead);
        ffi::Py_DECREF(dead);
        if r < 0 { Err(()) } else { Ok(r != 0) }
    }
}

// `throw_all(greenlets, exception)`: run by the hub.
method!(
    parsed: throw_all,
    c"throw_all",
    [c"greenlets", c"exception"],
    |_module, [greenlets, exception]| {
        let Ok(hub) = crate::hub::get_core() else {
            return null_mut();
        };
        let list = ffi::PySequence_List(greenlets);
        let alive = ffi::PyList_New(0);
        if list.is_null() || alive.is_null() {
            ffi::Py_XDECREF(list);
            ffi::Py_XDECREF(alive);
            return null_mut();
        }
        for i in 0..ffi::PyList_GET_SIZE(list) {
            let g = ffi::PyList_GET_ITEM(list, i);
            let ok = match is_dead(g) {
                Ok(true) => true,
                Ok(false) => {
                    throw_and_report(&hub, g, exception);
                    match is_dead(g) {
                        Ok(true) => true,
                        Ok(false) => ffi::PyList_Append(alive, g) == 0,
                        Err(()) => false,
                    }
                }
                Err(()) => false,
            };
            if !ok {
                ffi::Py_DECREF(list);
                ffi::Py_DECREF(alive);
                return null_mut();
            }
        }
        ffi::Py_DECREF(list);
        alive
    }
);
