//! How the results of an `imap`'s tasks come into its queue.

use super::{Obj, done};
use crate::gevent_greenlet::{
    has_ended, is_gevent, is_plain_greenlet, link, make_type, outcome_of,
};
use crate::raw::{Args, fast, none};
use crate::sync::object::{alloc, attribute, free, set};
use crate::sync::queue;
use pyo3::ffi::{self, PyTypeObject};
use pyo3::prelude::*;
use std::collections::HashMap;
use std::ffi::{CStr, c_int, c_void};
use std::ptr::null_mut;
use std::sync::OnceLock;

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

// SAFETY: immortal objects, used with the GIL held.
unsafe impl Send for Names {}
// SAFETY: as above.
unsafe impl Sync for Names {}

static NAMES: OnceLock<Names> = OnceLock::new();

fn names() -> &'static Names {
    NAMES
        .get()
        .expect("gevent._core is initialised before its types are used")
}

fn cast(slf: Obj) -> *mut Sink {
    slf.cast()
}

/// `ImapSink(owner, queue, ordered)`.
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
            if ffi::PyObject_SetAttr(task, names().index, index) < 0 {
                return null_mut();
            }
            ffi::PyObject_CallMethodOneArg(task, names().rawlink, slf)
        };
        if done(r).is_err() {
            return null_mut();
        }
        none()
    }
}

/// A task has ended.
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
            let r = ffi::PyObject_CallMethodNoArgs((*me).owner, names().last);
            if done(r).is_err() {
                return null_mut();
            }
        }
        none()
    }
}

/// Puts what a task returned (borrowed).
unsafe fn put_value(me: *mut Sink, value: Obj, index: Option<isize>) -> Result<(), ()> {
    // SAFETY: a sink that the caller holds.
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
unsafe fn put_slowly(me: *mut Sink, task: Obj, index: Option<isize>) -> Result<(), ()> {
    // SAFETY: a sink that the caller holds.
    unsafe {
        if let Some(index) = index {
            let index = ffi::PyLong_FromSsize_t(index);
            let set = ffi::PyObject_SetAttr(task, names().index, index);
            ffi::Py_XDECREF(index);
            if set < 0 {
                return Err(());
            }
        }
        done(ffi::PyObject_CallMethodOneArg(
            (*me).owner,
            names().slow,
            task,
        ))
    }
}

unsafe extern "C" fn dealloc(slf: Obj) {
    // SAFETY: the slot's contract.
    unsafe {
        ffi::PyObject_GC_UnTrack(slf.cast());
        clear(slf);
        std::ptr::drop_in_place(&raw mut (*cast(slf)).indexes);
        free(slf);
    }
}

unsafe extern "C" fn traverse(slf: Obj, visit: ffi::visitproc, arg: *mut c_void) -> c_int {
    // SAFETY: the collector's protocol.
    unsafe {
        let me = cast(slf);
        for p in [ffi::Py_TYPE(slf).cast(), (*me).owner, (*me).queue] {
            if !p.is_null() {
                let r = visit(p, arg);
                if r != 0 {
                    return r;
                }
            }
        }
        0
    }
}

unsafe extern "C" fn clear(slf: Obj) -> c_int {
    // SAFETY: the collector's protocol. Only when it is unreachable, so that nobody calls it any more.
    unsafe {
        set(&raw mut (*cast(slf)).owner, null_mut());
        set(&raw mut (*cast(slf)).queue, null_mut());
        0
    }
}

unsafe extern "C" fn get_outstanding(slf: Obj, _: *mut c_void) -> Obj {
    // SAFETY: a sink.
    unsafe { ffi::PyLong_FromSsize_t((*cast(slf)).outstanding) }
}

/// Adds the type.
pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = m.py();
    let intern = |text: &CStr| {
        // SAFETY: at the module's initialisation, with the GIL held.
        unsafe { ffi::PyUnicode_InternFromString(text.as_ptr()) }
    };
    let _ = NAMES.set(Names {
        rawlink: intern(c"rawlink"),
        index: intern(c"_imap_task_index"),
        slow: intern(c"_on_result"),
        last: intern(c"_on_last_result"),
    });
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
    let slots = [
        (ffi::Py_tp_new, tp_new as *mut c_void),
        (ffi::Py_tp_dealloc, dealloc as *mut c_void),
        (ffi::Py_tp_traverse, traverse as *mut c_void),
        (ffi::Py_tp_clear, clear as *mut c_void),
        (ffi::Py_tp_call, call as *mut c_void),
        (
            ffi::Py_tp_doc,
            c"ImapSink(owner, queue, ordered)\n\nBrings the results of tasks into a queue."
                .as_ptr()
                .cast_mut()
                .cast(),
        ),
    ];
    // SAFETY: at the module's initialisation, with the GIL held; the size is that of the struct.
    unsafe {
        let ty = make_type(
            py,
            c"gevent._imap.ImapSink",
            size_of::<Sink>(),
            &raw mut ffi::PyBaseObject_Type,
            methods,
            attributes,
            &slots,
        )?;
        m.add("ImapSink", Bound::from_borrowed_ptr(py, ty.cast()))
    }
}
