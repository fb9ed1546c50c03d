//! `gevent._threading.Queue`: how tasks come to native threads.
//!
//! It works the same whether threading has been patched or not, and takes no lock: the GIL guards it.

use super::{flush, settle, wake_later};
use crate::errors::ErrorClass;
use crate::event_loop::nanos;
use crate::hub::HubCore;
use crate::raw::{boolean, fast, method, noargs, none, parsed, parsed_first};
use crate::raw_type::NewType;
use crate::sync::object::{alloc, attribute, clear_weak, free, visit_all};
use crate::sync::parker::wait_after;
use crate::sync::{args, flag};
use gevent_hub_core::reactor::{Wake, monotonic};
use gevent_sync::jobs::Jobs;
use gevent_sync::parker::Parker;
use pyo3::ffi::{self, PyObject, PyTypeObject};
use pyo3::prelude::*;
use std::ffi::{c_int, c_void};
use std::mem::offset_of;
use std::ptr::null_mut;

type Obj = *mut PyObject;

static EMPTY_TIMEOUT: ErrorClass = ErrorClass::new("gevent._threading", "EmptyTimeout");

/// A queue. The items are owned references.
#[repr(C)]
struct Queue {
    base: ffi::PyObject,
    weak: Obj,
    jobs: Jobs<Obj>,
}

fn cast(slf: Obj) -> *mut Queue {
    slf.cast()
}

#[crate::entry]
unsafe extern "C" fn tp_new(ty: *mut PyTypeObject, _args: Obj, _kwargs: Obj) -> Obj {
    // SAFETY: zeroed memory, in which what is no plain value is written.
    unsafe {
        let me = alloc(ty).cast::<Queue>();
        if !me.is_null() {
            (&raw mut (*me).jobs).write(Jobs::default());
        }
        me.cast()
    }
}

#[crate::entry]
unsafe extern "C" fn dealloc(slf: Obj) {
    // SAFETY: the slot's contract. Waiting threads have references.
    unsafe {
        ffi::PyObject_GC_UnTrack(slf.cast());
        clear_weak(slf, (*cast(slf)).weak);
        clear(slf);
        std::ptr::drop_in_place(&raw mut (*cast(slf)).jobs);
        free(slf);
    }
}

#[crate::entry(silent)]
unsafe extern "C" fn traverse(slf: Obj, visit: ffi::visitproc, arg: *mut c_void) -> c_int {
    // SAFETY: the collector's protocol; nothing here runs Python.
    unsafe {
        let ty: Obj = ffi::Py_TYPE(slf).cast();
        let items = (*cast(slf)).jobs.iter().copied();
        visit_all(std::iter::once(ty).chain(items), visit, arg)
    }
}

#[crate::entry]
unsafe extern "C" fn clear(slf: Obj) -> c_int {
    // SAFETY: the collector's protocol; items are dropped when the queue is empty.
    unsafe {
        for item in (*cast(slf)).jobs.take_all() {
            ffi::Py_DECREF(item);
        }
        0
    }
}

/// # Safety
/// The GIL is held; the caller has a reference to `me`.
unsafe fn check_alive(me: *mut Queue) -> Result<(), ()> {
    // SAFETY: the caller's promise.
    unsafe {
        if !(*me).jobs.is_abandoned() {
            return Ok(());
        }
        let text = c"the queue belongs to the parent of this process";
        ffi::PyErr_SetString(ffi::PyExc_RuntimeError, text.as_ptr());
        Err(())
    }
}

// `put(item, lazily=False)`.
method!(parsed_first: put, c"put", [c"item", c"lazily"], |slf, [item, lazily]| {
    let me = cast(slf);
    let Ok(lazily) = flag(lazily, false) else {
        return null_mut();
    };
    if check_alive(me).is_err() {
        return null_mut();
    }
    if let Some(parker) = (*me).jobs.put(ffi::Py_NewRef(item)) {
        // If the hub has anything else to do first, the worker should not wait for that.
        let idle = HubCore::current().is_some_and(|hub| {
            hub.reactor().queue_len() == 0 && hub.td().current.get() != hub.greenlet()
        });
        if lazily && idle {
            wake_later(parker);
        } else {
            parker.end(Wake::Event);
        }
    }
    none()
});

// `get(cookie, timeout=-1)`.
method!(parsed: get, c"get", [c"cookie", c"timeout"], |slf, [_cookie, timeout]| {
    // The caller holds the queue.
    let me = cast(slf);
    let deadline = if timeout.is_null() {
        None
    } else {
        match args::seconds(timeout) {
            Err(()) => return null_mut(),
            Ok(seconds) if seconds < 0.0 => None,
            Ok(seconds) => Some(monotonic().saturating_add(nanos(seconds))),
        }
    };
    let mut parker = None;
    loop {
        if check_alive(me).is_err() {
            return null_mut();
        }
        if let Some(item) = (*me).jobs.take() {
            flush();
            settle();
            return item;
        }
        let parker = parker.get_or_insert_with(Parker::new);
        (*me).jobs.enter(parker);
        let woken = wait_after(parker, deadline, flush).is_some();
        if !woken {
            (*me).jobs.leave(parker);
        }
        settle();
        if !woken && (*me).jobs.is_empty() {
            EMPTY_TIMEOUT.raise();
            return null_mut();
        }
    }
});

#[crate::entry]
unsafe extern "C" fn task_done(slf: Obj, _: Obj) -> Obj {
    // SAFETY: as the C API calls it, on a queue.
    unsafe {
        let me = cast(slf);
        if check_alive(me).is_err() {
            return null_mut();
        }
        if !(*me).jobs.done() {
            let text = c"task_done() called too many times; 0 remaining tasks";
            ffi::PyErr_SetString(ffi::PyExc_ValueError, text.as_ptr());
            return null_mut();
        }
        none()
    }
}

#[crate::entry]
unsafe extern "C" fn qsize(slf: Obj, _: Obj) -> Obj {
    // SAFETY: as the C API calls it, on a queue.
    unsafe { ffi::PyLong_FromSize_t((*cast(slf)).jobs.len()) }
}

#[crate::entry]
unsafe extern "C" fn empty(slf: Obj, _: Obj) -> Obj {
    // SAFETY: as the C API calls it, on a queue.
    unsafe { boolean((*cast(slf)).jobs.is_empty()) }
}

#[crate::entry]
unsafe extern "C" fn full(_: Obj, _: Obj) -> Obj {
    // SAFETY: the GIL is held.
    unsafe { boolean(false) }
}

#[crate::entry]
unsafe extern "C" fn allocate_cookie(_: Obj, _: Obj) -> Obj {
    // SAFETY: the GIL is held.
    unsafe { none() }
}

#[crate::entry]
unsafe extern "C" fn kill(slf: Obj, _: Obj) -> Obj {
    // SAFETY: a queue. The threads that waited are not in this process.
    unsafe {
        for item in (*cast(slf)).jobs.abandon() {
            ffi::Py_DECREF(item);
        }
        none()
    }
}

#[crate::entry]
unsafe extern "C" fn get_unfinished(slf: Obj, _: *mut c_void) -> Obj {
    // SAFETY: as the C API calls it, on a queue.
    unsafe {
        let jobs = &(*cast(slf)).jobs;
        if jobs.is_abandoned() {
            return none();
        }
        ffi::PyLong_FromSize_t(jobs.unfinished())
    }
}

/// Adds the type.
pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    let methods = vec![
        fast(
            c"put",
            put,
            0,
            c"put(item, lazily=False)\n\nPut *item* into the queue and wake the thread that began to wait last. *lazily* is for a greenlet that blocks next: the thread is woken when the hub goes to sleep, or by `flush_wakes`.",
        ),
        fast(
            c"get",
            get,
            0,
            c"get(cookie, timeout=-1)\n\nRemove an item and return it, waiting for one. After *timeout* seconds raise `EmptyTimeout`; -1 is no timeout. *cookie* comes from `allocate_cookie`.",
        ),
        noargs(
            c"task_done",
            task_done,
            c"Say that the work for one item is done. `ValueError` if called more often than `put`.",
        ),
        noargs(
            c"qsize",
            qsize,
            c"Return the number of items at this moment.",
        ),
        noargs(
            c"empty",
            empty,
            c"Return whether there are no items at this moment.",
        ),
        noargs(c"full", full, c"Return false."),
        noargs(
            c"allocate_cookie",
            allocate_cookie,
            c"Return what a thread passes to `get`.",
        ),
        noargs(
            c"kill",
            kill,
            c"Drop everything, for the child of a fork, which has none of the threads.",
        ),
    ];
    let attributes = vec![attribute(
        c"unfinished_tasks",
        get_unfinished,
        None,
        c"How many items there were for which `task_done` was not called.",
    )];
    // SAFETY: at the module's initialisation, with the GIL held.
    unsafe {
        NewType::of::<Queue>(c"gevent._threading.Queue")
            .about(c"A queue without a limit, between a hub's thread and native threads.")
            .methods(methods)
            .attributes(attributes)
            .new_by(tp_new)
            .ended_by(dealloc, traverse, clear)
            .weak(offset_of!(Queue, weak))
            .add(m, Some("TaskQueue"))?;
    }
    Ok(())
}
