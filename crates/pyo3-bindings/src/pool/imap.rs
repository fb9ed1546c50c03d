//! How the results of an `imap`'s tasks come into its queue.

use super::Obj;
use crate::gevent_greenlet::{has_ended, is_gevent, is_plain_greenlet, link, outcome_of};
use crate::raw::{Args, done, fast, none};
use crate::raw_type::NewType;
use crate::statics::{Immortal, intern};
use crate::sync::object::{self, Fields, alloc, attribute};
use crate::sync::queue;
use pyo3::ffi::{self, PyTypeObject};
use pyo3::prelude::*;
use std::collections::HashMap;
use std::ffi::{c_int, c_void};
use std::ptr::null_mut;

/// Linked to every task of one `imap`. `owner` and `queue` are owned references.
#[repr(C)]
struct Sink {
    base: ffi::PyObject,
    /// The `IMapUnordered`.
    owner: Obj,
    queue: Obj,
    /// Whether results go into the queue with the index of their task.
    ordered: bool,
    outstanding: isize,
    /// The indexes of the tasks that are plain greenlets, by address; a linked task is alive.
    indexes: HashMap<usize, isize>,
}

struct Names {
    rawlink: Obj,
    index: Obj,
    slow: Obj,
    last: Obj,
}

static NAMES: Immortal<Names> = Immortal::new();

// SAFETY: the struct begins so, and these are all of its references.
unsafe impl Fields for Sink {
    unsafe fn fields(me: *mut Self) -> impl Iterator<Item = *mut Obj> {
        // SAFETY: addresses only.
        unsafe { [&raw mut (*me).owner, &raw mut (*me).queue] }.into_iter()
    }

    unsafe fn finish(me: *mut Self) {
        // SAFETY: the caller's promise.
        unsafe { std::ptr::drop_in_place(&raw mut (*me).indexes) };
    }
}

fn cast(slf: Obj) -> *mut Sink {
    slf.cast()
}

/// `ImapSink(owner, queue, ordered)`.
#[crate::entry]
unsafe extern "C" fn tp_new(ty: *mut PyTypeObject, args: Obj, _kwargs: Obj) -> Obj {
    // SAFETY: the slot's contract; borrowed arguments.
    unsafe {
        let (mut owner, mut queue, mut ordered): (Obj, Obj, c_int) = (null_mut(), null_mut(), 0);
        let ok = ffi::PyArg_ParseTuple(
            args,
            c"OOp:ImapSink".as_ptr(),
            &raw mut owner,
            &raw mut queue,
            &raw mut ordered,
        );
        if ok == 0 {
            return null_mut();
        }
        if !queue::is_queue(queue) || !is_gevent(owner) {
            let text = c"a greenlet and a queue are needed";
            ffi::PyErr_SetString(ffi::PyExc_TypeError, text.as_ptr());
            return null_mut();
        }
        let me = alloc(ty).cast::<Sink>();
        if me.is_null() {
            return null_mut();
        }
        (&raw mut (*me).indexes).write(HashMap::new());
        (*me).owner = ffi::Py_NewRef(owner);
        (*me).queue = ffi::Py_NewRef(queue);
        (*me).ordered = ordered != 0;
        me.cast()
    }
}

/// `expect(task, index)`: links this to a task.
#[crate::entry]
unsafe extern "C" fn expect(slf: Obj, items: *const Obj, n: ffi::Py_ssize_t, kw: Obj) -> Obj {
    // SAFETY: as the C API calls it.
    unsafe {
        let args = Args::new(items, n, kw);
        if args.len() != 2 || args.keywords() != 0 {
            let text = c"expect() takes a task and an index";
            ffi::PyErr_SetString(ffi::PyExc_TypeError, text.as_ptr());
            return null_mut();
        }
        let (task, index) = (args.at(0), args.at(1));
        let me = cast(slf);
        (*me).outstanding += 1;
        let r = if is_plain_greenlet(task) {
            if (*me).ordered {
                let at = ffi::PyLong_AsSsize_t(index);
                (*me).indexes.insert(task as usize, at);
            }
            link(task, slf)
        } else {
            if ffi::PyObject_SetAttr(task, NAMES.index, index) < 0 {
                return null_mut();
            }
            ffi::PyObject_CallMethodOneArg(task, NAMES.rawlink, slf)
        };
        if done(r).is_err() {
            return null_mut();
        }
        none()
    }
}

/// A task has ended.
#[crate::entry]
unsafe extern "C" fn call(slf: Obj, args: Obj, _kwargs: Obj) -> Obj {
    // SAFETY: as the C API calls it; the caller holds the sink, and the sink the rest.
    unsafe {
        if ffi::PyTuple_GET_SIZE(args) != 1 {
            let text = c"one argument is needed: the task";
            ffi::PyErr_SetString(ffi::PyExc_TypeError, text.as_ptr());
            return null_mut();
        }
        let task = ffi::PyTuple_GET_ITEM(args, 0);
        let me = cast(slf);
        (*me).outstanding -= 1;
        let index = if (*me).ordered {
            (*me).indexes.remove(&(task as usize))
        } else {
            None
        };
        let put = if is_plain_greenlet(task)
            && let Some(value) = outcome_of(task)
        {
            put_value(me, value, index)
        } else {
            put_slowly(me, task, index)
        };
        if put.is_err() {
            return null_mut();
        }
        if (*me).outstanding <= 0 && has_ended((*me).owner) {
            let r = ffi::PyObject_CallMethodNoArgs((*me).owner, NAMES.last);
            if done(r).is_err() {
                return null_mut();
            }
        }
        none()
    }
}

/// Puts what a task returned (borrowed).
///
/// # Safety
/// The GIL is held; the caller has a reference to `me` and `value`.
unsafe fn put_value(me: *mut Sink, value: Obj, index: Option<isize>) -> Result<(), ()> {
    // SAFETY: the caller's promise.
    unsafe {
        let item = match index {
            None => ffi::Py_NewRef(value),
            Some(index) => {
                let index = ffi::PyLong_FromSsize_t(index);
                if index.is_null() {
                    return Err(());
                }
                let pair = crate::raw::pair(index, value);
                ffi::Py_DECREF(index);
                pair
            }
        };
        if item.is_null() {
            return Err(());
        }
        let r = queue::put_now((*me).queue, item);
        ffi::Py_DECREF(item);
        done(r)
    }
}

/// Has Python say what goes into the queue: for failures, and tasks that are no plain greenlets.
///
/// # Safety
/// The GIL is held; the caller has a reference to `me` and `task`.
unsafe fn put_slowly(me: *mut Sink, task: Obj, index: Option<isize>) -> Result<(), ()> {
    // SAFETY: the caller's promise.
    unsafe {
        if let Some(index) = index {
            let index = ffi::PyLong_FromSsize_t(index);
            let set = ffi::PyObject_SetAttr(task, NAMES.index, index);
            ffi::Py_XDECREF(index);
            if set < 0 {
                return Err(());
            }
        }
        done(ffi::PyObject_CallMethodOneArg(
            (*me).owner,
            NAMES.slow,
            task,
        ))
    }
}

#[crate::entry]
unsafe extern "C" fn get_outstanding(slf: Obj, _: *mut c_void) -> Obj {
    // SAFETY: as the C API calls it, on a sink.
    unsafe { ffi::PyLong_FromSsize_t((*cast(slf)).outstanding) }
}

/// Adds the type.
pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    // SAFETY: at the module's initialisation, with the GIL held.
    unsafe {
        NAMES.set(Names {
            rawlink: intern(c"rawlink"),
            index: intern(c"_imap_task_index"),
            slow: intern(c"_on_result"),
            last: intern(c"_on_last_result"),
        });
    }
    let methods = vec![fast(
        c"expect",
        expect,
        0,
        c"expect(task, index)\n\nPut the result of *task* into the queue when it has ended.",
    )];
    let attributes = vec![attribute(
        c"outstanding",
        get_outstanding,
        None,
        c"How many tasks have not ended.",
    )];
    // SAFETY: as above.
    unsafe {
        NewType::of::<Sink>(c"gevent._imap.ImapSink")
            .about(c"ImapSink(owner, queue, ordered)\n\nBrings the results of tasks into a queue.")
            .methods(methods)
            .attributes(attributes)
            .new_by(tp_new)
            .ended_by(
                object::dealloc::<Sink>,
                object::traverse::<Sink>,
                object::clear::<Sink>,
            )
            .call_by(call)
            .add(m, None)?;
    }
    Ok(())
}
