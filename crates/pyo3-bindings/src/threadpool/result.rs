//! `gevent.threadpool.ThreadResult`: how the result of a task comes back to the hub's thread.
//!
//! # Safety
//! The GIL is held. `me` or `slf` is a result, which the caller has a reference to.

use super::send_later;
use crate::event_loop::Payload;
use crate::gevent_greenlet::nothing;
use crate::hub::{HubCore, get_core};
use crate::raw::{Args, answer, boolean, done, fast, method, noargs, none, parsed};
use crate::raw_type::NewType;
use crate::sync::object::{self, Fields, alloc, attribute, or_none, set};
use crate::sync::{async_result, enter_python, flag, semaphore};
use gevent_hub_core::reactor::{Entry, Remote};
use pyo3::ffi::{self, PyObject, PyTypeObject};
use pyo3::prelude::*;
use std::ffi::c_void;
use std::ptr::null_mut;
use std::sync::Arc;

type Obj = *mut PyObject;

/// A result. Each `Obj` is an owned reference or null.
#[repr(C)]
struct ThreadResult {
    base: ffi::PyObject,
    /// Called with this object, like a greenlet's link.
    receiver: Obj,
    hub: Obj,
    /// Called first; a semaphore is released.
    when_ready: Obj,
    /// For the message that the hub prints of an error.
    context: Obj,
    value: Obj,
    /// `sys.exc_info()` of an error, or null.
    exc_info: Obj,
    /// The way to the hub, while the hub's loop is kept running for the result.
    remote: Option<Arc<Remote>>,
    /// The number of that hub.
    home: u64,
}

fn cast(slf: Obj) -> *mut ThreadResult {
    slf.cast()
}

// SAFETY: the struct begins so, and these are all of its references.
unsafe impl Fields for ThreadResult {
    unsafe fn fields(me: *mut Self) -> impl Iterator<Item = *mut Obj> {
        // SAFETY: addresses only.
        unsafe {
            [
                &raw mut (*me).receiver,
                &raw mut (*me).hub,
                &raw mut (*me).when_ready,
                &raw mut (*me).context,
                &raw mut (*me).value,
                &raw mut (*me).exc_info,
            ]
        }
        .into_iter()
    }

    unsafe fn finish(me: *mut Self) {
        // SAFETY: the caller's promise; an error that is set survives.
        unsafe {
            let error = crate::tstate::take_raised();
            release_loop(me);
            if !error.is_null() {
                crate::tstate::set_raised(error);
            }
            std::ptr::drop_in_place(&raw mut (*me).remote);
        }
    }
}

/// Moves a field's reference out.
///
/// # Safety
/// The GIL is held; `field` is a field of a result.
unsafe fn take(field: *mut Obj) -> Obj {
    // SAFETY: the caller's promise.
    unsafe { std::mem::replace(&mut *field, null_mut()) }
}

#[crate::entry]
unsafe extern "C" fn tp_new(ty: *mut PyTypeObject, args: Obj, kwargs: Obj) -> Obj {
    // SAFETY: the slot's contract; borrowed arguments.
    unsafe {
        let (mut receiver, mut hub, mut when_ready): (Obj, Obj, Obj) =
            (null_mut(), null_mut(), null_mut());
        let mut names = [
            c"receiver".as_ptr(),
            c"hub".as_ptr(),
            c"call_when_ready".as_ptr(),
            std::ptr::null(),
        ];
        if ffi::PyArg_ParseTupleAndKeywords(
            args,
            kwargs,
            c"OOO:ThreadResult".as_ptr(),
            names.as_mut_ptr().cast(),
            &raw mut receiver,
            &raw mut hub,
            &raw mut when_ready,
        ) == 0
        {
            return null_mut();
        }
        make(ty, receiver, hub, when_ready)
    }
}

/// The type's own call: three arguments by position need no tuple.
#[crate::entry]
unsafe extern "C" fn construct(ty: Obj, args: *const Obj, nargsf: usize, names: Obj) -> Obj {
    // SAFETY: the vectorcall protocol, on the type; what is made here is dropped here.
    unsafe {
        let n = ffi::PyVectorcall_NARGS(nargsf);
        if n == 3 && names.is_null() {
            return make(ty.cast(), *args, *args.add(1), *args.add(2));
        }
        let args = Args::new(args, n, names);
        let Ok(keywords) = args.dict(None) else {
            return null_mut();
        };
        let positional = args.tuple_from(0);
        let made = if positional.is_null() {
            positional
        } else {
            tp_new(ty.cast(), positional, keywords)
        };
        ffi::Py_XDECREF(positional);
        ffi::Py_XDECREF(keywords);
        made
    }
}

/// # Safety
/// The GIL is held; `ty` is a type of this layout, and the others are alive.
unsafe fn make(ty: *mut PyTypeObject, receiver: Obj, hub: Obj, when_ready: Obj) -> Obj {
    // SAFETY: a type of this layout; borrowed references.
    unsafe {
        let Ok(core) = get_core() else {
            return null_mut();
        };
        let me = alloc(ty).cast::<ThreadResult>();
        if me.is_null() {
            return null_mut();
        }
        (&raw mut (*me).remote).write(Some(core.remote().clone()));
        core.reactor().reference();
        (*me).home = core.core().id();
        (*me).receiver = ffi::Py_NewRef(receiver);
        (*me).hub = ffi::Py_NewRef(hub);
        (*me).when_ready = ffi::Py_NewRef(when_ready);
        me.cast()
    }
}

/// The loop need not go on for this any more. Only where that is known to be the hub's thread the loop is
/// told at once.
///
/// # Safety
/// As the module says.
unsafe fn release_loop(me: *mut ThreadResult) {
    // SAFETY: the caller's promise.
    unsafe {
        let Some(remote) = (*me).remote.take() else {
            return;
        };
        match HubCore::current() {
            Some(hub) if hub.core().id() == (*me).home => hub.reactor().unreference(),
            _ => {
                let home = (*me).home;
                let job: Box<dyn FnOnce()> = Box::new(move || {
                    if let Some(hub) = HubCore::current()
                        && hub.core().id() == home
                    {
                        hub.reactor().unreference();
                    }
                });
                let word = Payload::Job(Box::new(job)).into_word();
                if !remote.push(Entry::Call(word)) {
                    Payload::from_word(word).discard();
                }
            }
        }
    }
}

/// Sends it to the hub.
///
/// # Safety
/// As the module says.
unsafe fn send(slf: Obj, later: bool) {
    // SAFETY: the entry has a reference of its own.
    unsafe {
        let Some(remote) = &(*cast(slf)).remote else {
            return;
        };
        ffi::Py_INCREF(slf);
        let word = Payload::Done(slf).into_word();
        if later {
            send_later(remote.clone(), word);
        } else if !remote.push(Entry::Call(word)) {
            ffi::Py_DECREF(slf);
        }
    }
}

// `set(value, later=False)`.
method!(parsed: py_set, c"set", [c"value", c"later"], |slf, [value, later]| {
    let Ok(later) = flag(later, false) else {
        return null_mut();
    };
    let value = if value.is_null() {
        ffi::Py_None()
    } else {
        value
    };
    set(&raw mut (*cast(slf)).value, ffi::Py_NewRef(value));
    send(slf, later);
    none()
});

method!(parsed: handle_error, c"handle_error", [c"context", c"exc_info"], |slf, [context, info]| {
    if info.is_null() || ffi::PyTuple_Check(info) == 0 || ffi::PyTuple_GET_SIZE(info) != 3 {
        let text = c"handle_error() needs a context and sys.exc_info()";
        ffi::PyErr_SetString(ffi::PyExc_TypeError, text.as_ptr());
        return null_mut();
    }
    set(&raw mut (*cast(slf)).context, ffi::Py_NewRef(context));
    set(&raw mut (*cast(slf)).exc_info, ffi::Py_NewRef(info));
    send(slf, false);
    none()
});

/// Calls `hub.handle_error(context, *exc_info)`. `Err` with an error set.
///
/// # Safety
/// As the module says; the result has an error.
unsafe fn report(me: *mut ThreadResult) -> Result<(), ()> {
    // SAFETY: a result with an error, held by the caller.
    unsafe {
        let (hub, context) = (or_none((*me).hub), or_none((*me).context));
        let info = ffi::Py_NewRef((*me).exc_info);
        let f = ffi::PyObject_GetAttrString(hub, c"handle_error".as_ptr());
        let r = if f.is_null() {
            f
        } else {
            ffi::PyObject_CallFunctionObjArgs(
                f,
                context,
                ffi::PyTuple_GET_ITEM(info, 0),
                ffi::PyTuple_GET_ITEM(info, 1),
                ffi::PyTuple_GET_ITEM(info, 2),
                null_mut::<PyObject>(),
            )
        };
        for p in [hub, context, info] {
            ffi::Py_DECREF(p);
        }
        ffi::Py_XDECREF(f);
        done(r)
    }
}

/// In the hub: the worker is done. `Err` with an error set.
///
/// # Safety
/// As the module says; in the hub's thread.
unsafe fn on_async(slf: Obj) -> Result<(), ()> {
    // SAFETY: the caller's promise.
    unsafe {
        let me = cast(slf);
        release_loop(me);
        let result = tell(slf);
        let error = crate::tstate::take_raised();
        set(&raw mut (*me).receiver, null_mut());
        set(&raw mut (*me).value, null_mut());
        let info = (*me).exc_info;
        if !info.is_null() {
            // The exception's owner has it now; the traceback's frames must not live on here.
            let short = ffi::PyTuple_Pack(
                3,
                ffi::PyTuple_GET_ITEM(info, 0),
                ffi::PyTuple_GET_ITEM(info, 1),
                ffi::Py_None(),
            );
            set(&raw mut (*me).exc_info, short);
        }
        ffi::PyErr_Clear();
        if !error.is_null() {
            crate::tstate::set_raised(error);
        }
        result
    }
}

/// # Safety
/// As [`on_async`].
unsafe fn tell(slf: Obj) -> Result<(), ()> {
    // SAFETY: as `on_async`.
    unsafe {
        let me = cast(slf);
        let when_ready = take(&raw mut (*me).when_ready);
        if !when_ready.is_null() {
            let told = if semaphore::is_plain(when_ready) {
                semaphore::put_back(when_ready.cast());
                Ok(())
            } else {
                done(ffi::PyObject_CallNoArgs(when_ready))
            };
            ffi::Py_DECREF(when_ready);
            told?;
        }
        // If the hub fails to report the error, whoever waits has to be told of it all the same.
        let reported = match (*me).exc_info.is_null() || report(me).is_ok() {
            true => null_mut(),
            false => crate::tstate::take_raised(),
        };
        let told = tell_receiver(slf);
        if !reported.is_null() {
            ffi::PyErr_Clear();
            crate::tstate::set_raised(reported);
            return Err(());
        }
        told
    }
}

/// # Safety
/// As [`on_async`]; no error is set.
unsafe fn tell_receiver(slf: Obj) -> Result<(), ()> {
    // SAFETY: as `on_async`.
    unsafe {
        let me = cast(slf);
        set(&raw mut (*me).context, null_mut());
        set(&raw mut (*me).hub, null_mut());
        let receiver = take(&raw mut (*me).receiver);
        if receiver.is_null() {
            return Ok(());
        }
        let plain = async_result::is_plain(receiver) && (*me).exc_info.is_null();
        let r = if plain && !(*me).value.is_null() {
            async_result::put(receiver, (*me).value);
            none()
        } else {
            crate::tstate::call_one_at_bottom(receiver, slf)
        };
        ffi::Py_DECREF(receiver);
        done(r)
    }
}

/// An entry of the hub's queue: a result has come. Owns a reference to it; `report` gets the error that a
/// receiver raised.
///
/// # Safety
/// From the queue, in the hub.
pub unsafe fn finish_from_queue(p: Obj, report: impl FnOnce(&Bound<'_, PyAny>, PyErr)) {
    // SAFETY: the queue's own reference.
    unsafe {
        enter_python();
        if on_async(p).is_err() {
            let py = Python::assume_attached();
            let error = PyErr::fetch(py);
            report(&Bound::from_borrowed_ptr(py, p), error);
        }
        ffi::Py_DECREF(p);
    }
}

#[crate::entry]
unsafe extern "C" fn py_on_async(slf: Obj, _: Obj) -> Obj {
    // SAFETY: as the C API calls it, on a result.
    unsafe { answer(on_async(slf)) }
}

#[crate::entry]
unsafe extern "C" fn destroy(slf: Obj, _: Obj) -> Obj {
    // SAFETY: as the C API calls it, on a result.
    unsafe {
        let me = cast(slf);
        release_loop(me);
        for field in [
            &raw mut (*me).context,
            &raw mut (*me).hub,
            &raw mut (*me).when_ready,
            &raw mut (*me).receiver,
        ] {
            set(field, null_mut());
        }
        none()
    }
}

#[crate::entry]
unsafe extern "C" fn successful(slf: Obj, _: Obj) -> Obj {
    // SAFETY: as the C API calls it, on a result.
    unsafe {
        let e = get_exception(slf, null_mut());
        let good = e == ffi::Py_None();
        ffi::Py_DECREF(e);
        boolean(good)
    }
}

#[crate::entry]
unsafe extern "C" fn get_exception(slf: Obj, _: *mut c_void) -> Obj {
    // SAFETY: a result; the tuple has three items.
    unsafe {
        match (*cast(slf)).exc_info {
            info if info.is_null() => none(),
            info => ffi::Py_NewRef(ffi::PyTuple_GET_ITEM(info, 1)),
        }
    }
}

#[crate::entry]
unsafe extern "C" fn get_exc_info(slf: Obj, _: *mut c_void) -> Obj {
    // SAFETY: as the C API calls it, on a result.
    unsafe {
        match (*cast(slf)).exc_info {
            info if info.is_null() => ffi::PyTuple_New(0),
            info => ffi::Py_NewRef(info),
        }
    }
}

/// The receiver; when it has been told, a function that does nothing.
#[crate::entry]
unsafe extern "C" fn get_receiver(slf: Obj, _: *mut c_void) -> Obj {
    // SAFETY: as the C API calls it, on a result.
    unsafe {
        match (*cast(slf)).receiver {
            receiver if receiver.is_null() => nothing(),
            receiver => ffi::Py_NewRef(receiver),
        }
    }
}

#[crate::entry]
unsafe extern "C" fn get_watcher(_: Obj, _: *mut c_void) -> Obj {
    // SAFETY: the GIL is held.
    unsafe { none() }
}

#[crate::entry]
unsafe extern "C" fn get_hub(slf: Obj, _: *mut c_void) -> Obj {
    // SAFETY: as the C API calls it, on a result.
    unsafe { or_none((*cast(slf)).hub) }
}

#[crate::entry]
unsafe extern "C" fn get_context(slf: Obj, _: *mut c_void) -> Obj {
    // SAFETY: as the C API calls it, on a result.
    unsafe { or_none((*cast(slf)).context) }
}

#[crate::entry]
unsafe extern "C" fn get_value(slf: Obj, _: *mut c_void) -> Obj {
    // SAFETY: as the C API calls it, on a result.
    unsafe { or_none((*cast(slf)).value) }
}

/// Adds the type.
pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    let methods = vec![
        fast(
            c"set",
            py_set,
            0,
            c"set(value, later=False)\n\nIn the worker: the task returned *value*. With *later*, the hub hears of it when the thread next waits for a task, or by `flush_wakes`.",
        ),
        fast(
            c"handle_error",
            handle_error,
            0,
            c"handle_error(context, exc_info)\n\nIn the worker: the task raised. *context* is for the message that the hub prints.",
        ),
        noargs(
            c"destroy_in_main_thread",
            destroy,
            c"Forget everything, in the hub's thread: there will be no result.",
        ),
        noargs(
            c"successful",
            successful,
            c"Return whether the task returned.",
        ),
        noargs(
            c"_on_async",
            py_on_async,
            c"In the hub: the worker is done.",
        ),
    ];
    let attributes = vec![
        attribute(
            c"receiver",
            get_receiver,
            None,
            c"What is called with this object.",
        ),
        attribute(
            c"hub",
            get_hub,
            None,
            c"The hub, until the result is there.",
        ),
        attribute(
            c"async_watcher",
            get_watcher,
            None,
            c"None: the result comes by the hub's queue, without a watcher.",
        ),
        attribute(
            c"context",
            get_context,
            None,
            c"For the message that the hub prints.",
        ),
        attribute(
            c"value",
            get_value,
            None,
            c"What the task returned, until the receiver has it.",
        ),
        attribute(
            c"exc_info",
            get_exc_info,
            None,
            c"What sys.exc_info() said in the worker, or ().",
        ),
        attribute(
            c"exception",
            get_exception,
            None,
            c"The exception of the task, or None.",
        ),
    ];
    // SAFETY: at the module's initialisation, with the GIL held.
    unsafe {
        let ty = NewType::of::<ThreadResult>(c"gevent.threadpool.ThreadResult")
            .about(c"ThreadResult(receiver, hub, call_when_ready)\n\nCarries the result of a task from a worker to the hub's thread, which makes and destroys it.\n\nThere it calls *call_when_ready*, or releases it if it is a `Semaphore`, prints the exception if there is one, and gives itself to *receiver*, as a greenlet does to its links. Until then it keeps the hub's loop running.")
            .methods(methods)
            .attributes(attributes)
            .new_by(tp_new)
            .ended_by(
                object::dealloc::<ThreadResult>,
                object::traverse::<ThreadResult>,
                object::clear::<ThreadResult>,
            )
            .add(m, None)?;
        (*ty).tp_vectorcall = Some(construct);
    }
    Ok(())
}
