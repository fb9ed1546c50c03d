//! The queues: the raw type below `SimpleQueue`, `Queue` and their kin of `gevent.queue`.
//!
//! What is called for each item is here; constructors, texts and what is rare are Python. A subclass
//! may override `_init`, `_put`, `_get`, `_qsize` and `_peek`, as in the standard library.

mod storage;
mod waiting;

pub use waiting::serve_from_queue;

use super::args::{Limit, flag};
use super::object::{alloc, attribute, free, or_none, set, weakly_referenced};
use super::wait::wait;
use super::{Obj, event, thread_mark};
use crate::gevent_greenlet::make_type;
use crate::hub::HubCore;
use crate::raw::{_PyType_Lookup, Args, absent, boolean, fast, noargs, none, one};
use pyo3::ffi::{self, PyTypeObject};
use pyo3::prelude::*;
use std::collections::VecDeque;
use std::ffi::{CStr, c_int, c_void};
use std::mem::{self, offset_of};
use std::ptr::null_mut;
use std::sync::OnceLock;
use storage::{How, Order};
use waiting::Waiter;

/// A queue. Each `Obj` is an owned reference or null.
#[repr(C)]
pub struct Queue {
    base: ffi::PyObject,
    weak: Obj,
    /// The hub of the first greenlet that waited.
    hub: Obj,
    /// `queue.queue`.
    store: Obj,
    /// An event that is set while no task is unfinished.
    cond: Obj,
    /// A lock for when Python runs in the middle of an operation.
    lock: Obj,
    /// Not above 0 for no limit.
    maxsize: isize,
    unfinished: isize,
    /// Whether `_put` counts tasks.
    counts: bool,
    is_shut: bool,
    order: Order,
    getters: VecDeque<Waiter>,
    putters: VecDeque<Waiter>,
    /// The hubs in which a look at the waiters is queued or running.
    notifiers: Vec<u64>,
    /// Errors on their way to putters.
    failures: Vec<((u64, u64), Obj)>,
    /// The only thread that used it; 0 for none, 1 for several.
    thread: usize,
}

impl Queue {
    #[inline]
    fn saw_thread(&mut self) {
        let mark = thread_mark();
        if self.thread != mark {
            self.thread = if self.thread == 0 { mark } else { 1 };
        }
    }

    fn is_shared(&self) -> bool {
        self.thread == 1
    }

    /// A greenlet is going to wait. `Err` with an error set if it must not.
    unsafe fn begin(&mut self, hub: &HubCore) -> Result<(), ()> {
        // SAFETY: the GIL is held.
        unsafe {
            hub.may_block()?;
            if self.hub.is_null() {
                self.hub = ffi::Py_NewRef(hub.greenlet().cast());
            }
            Ok(())
        }
    }
}

#[inline]
fn cast(slf: Obj) -> *mut Queue {
    slf.cast()
}

// ---- slots -----------------------------------------------------------------------------------------

unsafe fn class_number(ty: *mut PyTypeObject, name: &CStr) -> std::ffi::c_long {
    // SAFETY: a type; a borrowed look-up.
    unsafe {
        let name = ffi::PyUnicode_InternFromString(name.as_ptr());
        let found = _PyType_Lookup(ty, name);
        ffi::Py_DECREF(name);
        if found.is_null() || ffi::PyLong_Check(found) == 0 {
            return 0;
        }
        ffi::PyLong_AsLong(found)
    }
}

unsafe extern "C" fn tp_new(ty: *mut PyTypeObject, _args: Obj, _kwargs: Obj) -> Obj {
    // SAFETY: zeroed memory, in which what is no plain value is written.
    unsafe {
        let me = alloc(ty).cast::<Queue>();
        if me.is_null() {
            return null_mut();
        }
        (&raw mut (*me).getters).write(VecDeque::new());
        (&raw mut (*me).putters).write(VecDeque::new());
        (&raw mut (*me).notifiers).write(Vec::new());
        (&raw mut (*me).failures).write(Vec::new());
        (*me).counts = class_number(ty, c"_counts_tasks") != 0;
        (&raw mut (*me).order).write(match class_number(ty, c"_order") {
            1 => Order::Lifo,
            2 => Order::Heap,
            _ => Order::Fifo,
        });
        me.cast()
    }
}

unsafe fn fields(me: *mut Queue) -> [*mut Obj; 4] {
    // SAFETY: addresses only.
    unsafe {
        [
            &raw mut (*me).hub,
            &raw mut (*me).store,
            &raw mut (*me).cond,
            &raw mut (*me).lock,
        ]
    }
}

unsafe extern "C" fn dealloc(slf: Obj) {
    // SAFETY: the slot's contract. Waiting greenlets and threads have references to the queue, so that
    // whoever is left in a line waits on a stack that was given up.
    unsafe {
        ffi::PyObject_GC_UnTrack(slf.cast());
        let me = cast(slf);
        if !(*me).weak.is_null() {
            ffi::PyObject_ClearWeakRefs(slf);
        }
        clear(slf);
        std::ptr::drop_in_place(&raw mut (*me).getters);
        std::ptr::drop_in_place(&raw mut (*me).putters);
        std::ptr::drop_in_place(&raw mut (*me).notifiers);
        std::ptr::drop_in_place(&raw mut (*me).failures);
        free(slf);
    }
}

unsafe extern "C" fn traverse(slf: Obj, visit: ffi::visitproc, arg: *mut c_void) -> c_int {
    // SAFETY: the collector's protocol; nothing here runs Python.
    unsafe {
        let me = cast(slf);
        let r = visit(ffi::Py_TYPE(slf).cast(), arg);
        if r != 0 {
            return r;
        }
        let items = (*me).putters.iter().map(|w| w.item);
        let errors = (*me).failures.iter().map(|(_, e)| *e);
        for p in fields(me)
            .into_iter()
            .map(|f| *f)
            .chain(items)
            .chain(errors)
        {
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
    // SAFETY: the collector's protocol; fields are emptied before what they held is dropped.
    unsafe {
        let me = cast(slf);
        for f in fields(me) {
            set(f, null_mut());
        }
        for (_, error) in mem::take(&mut (*me).failures) {
            ffi::Py_DECREF(error);
        }
        let items: Vec<Obj> = (*me)
            .putters
            .iter_mut()
            .map(|w| mem::replace(&mut w.item, null_mut()))
            .collect();
        for item in items {
            ffi::Py_XDECREF(item);
        }
        0
    }
}

unsafe extern "C" fn slot_len(slf: Obj) -> ffi::Py_ssize_t {
    // SAFETY: a queue.
    unsafe { storage::len(cast(slf)).unwrap_or(-1) }
}

unsafe extern "C" fn truth(_: Obj) -> c_int {
    1
}

// ---- putting and getting ---------------------------------------------------------------------------

unsafe fn put_item(me: *mut Queue, item: Obj, block: bool, timeout: Obj) -> Obj {
    // SAFETY: a queue; borrowed arguments.
    unsafe {
        if (*me).is_shut {
            waiting::raise_shut_down();
            return null_mut();
        }
        (*me).saw_thread();
        if block && !absent(timeout) && waiting::check_timeout(timeout).is_err() {
            return null_mut();
        }
        let done = match storage::try_put(me, item) {
            Err(()) => return null_mut(),
            Ok(true) => {
                if !(*me).getters.is_empty() {
                    waiting::wake(me);
                }
                Ok(())
            }
            Ok(false) if waiting::in_hub() => waiting::put_in_hub(me, item),
            Ok(false) if block => match Limit::new(timeout) {
                Ok(limit) => waiting::wait_to_put(me, item, limit),
                Err(()) => Err(()),
            },
            Ok(false) => {
                waiting::raise_full();
                Err(())
            }
        };
        match done {
            Ok(()) => none(),
            Err(()) => null_mut(),
        }
    }
}

unsafe extern "C" fn put(slf: Obj, items: *const Obj, n: ffi::Py_ssize_t, names: Obj) -> Obj {
    // SAFETY: as the C API calls it.
    unsafe {
        let args = Args::new(items, n, names);
        let Ok([item, block, timeout]) = args.parse(c"put", [c"item", c"block", c"timeout"]) else {
            return null_mut();
        };
        if item.is_null() {
            let text = c"put() missing 1 required positional argument: 'item'";
            ffi::PyErr_SetString(ffi::PyExc_TypeError, text.as_ptr());
            return null_mut();
        }
        match flag(block, true) {
            Ok(block) => put_item(cast(slf), item, block, timeout),
            Err(()) => null_mut(),
        }
    }
}

unsafe fn get_item(me: *mut Queue, how: How, block: bool, timeout: Obj) -> Obj {
    // SAFETY: a queue; borrowed arguments.
    unsafe {
        (*me).saw_thread();
        let item = match storage::try_get(me, how) {
            Err(()) => return null_mut(),
            Ok(Some(item)) => item,
            Ok(None) => get_later(me, how, block, timeout),
        };
        if how == How::Remove && !item.is_null() && !(*me).putters.is_empty() {
            waiting::wake(me);
        }
        item
    }
}

unsafe fn get_later(me: *mut Queue, how: How, block: bool, timeout: Obj) -> Obj {
    // SAFETY: a queue; borrowed arguments.
    unsafe {
        if (*me).is_shut {
            waiting::raise_shut_down();
            return null_mut();
        }
        if block && waiting::check_timeout(timeout).is_err() {
            return null_mut();
        }
        if waiting::in_hub() {
            return waiting::get_in_hub(me, how);
        }
        if !block {
            waiting::raise_empty();
            return null_mut();
        }
        match Limit::new(timeout) {
            Ok(limit) => waiting::wait_to_get(me, how, limit),
            Err(()) => null_mut(),
        }
    }
}

unsafe fn get_by(
    slf: Obj,
    how: How,
    name: &CStr,
    items: *const Obj,
    n: ffi::Py_ssize_t,
    names: Obj,
) -> Obj {
    // SAFETY: as the C API calls it.
    unsafe {
        let args = Args::new(items, n, names);
        let Ok([block, timeout]) = args.parse(name, [c"block", c"timeout"]) else {
            return null_mut();
        };
        match flag(block, true) {
            Ok(block) => get_item(cast(slf), how, block, timeout),
            Err(()) => null_mut(),
        }
    }
}

unsafe extern "C" fn get(slf: Obj, items: *const Obj, n: ffi::Py_ssize_t, names: Obj) -> Obj {
    // SAFETY: as the C API calls it.
    unsafe { get_by(slf, How::Remove, c"get", items, n, names) }
}

unsafe extern "C" fn peek(slf: Obj, items: *const Obj, n: ffi::Py_ssize_t, names: Obj) -> Obj {
    // SAFETY: as the C API calls it.
    unsafe { get_by(slf, How::Look, c"peek", items, n, names) }
}

unsafe extern "C" fn qsize(slf: Obj, _: Obj) -> Obj {
    // SAFETY: a queue.
    unsafe {
        match storage::len(cast(slf)) {
            Ok(n) => ffi::PyLong_FromSsize_t(n),
            Err(()) => null_mut(),
        }
    }
}

unsafe extern "C" fn empty(slf: Obj, _: Obj) -> Obj {
    // SAFETY: a queue.
    unsafe {
        match storage::len(cast(slf)) {
            Ok(n) => boolean(n == 0),
            Err(()) => null_mut(),
        }
    }
}

unsafe extern "C" fn full(slf: Obj, _: Obj) -> Obj {
    // SAFETY: a queue.
    unsafe {
        match storage::has_room(cast(slf)) {
            Ok(room) => boolean(!room),
            Err(()) => null_mut(),
        }
    }
}

unsafe extern "C" fn next(slf: Obj, _: Obj) -> Obj {
    // SAFETY: a queue. The class `StopIteration` as an item ends the iteration.
    unsafe {
        let item = get_item(cast(slf), How::Remove, true, null_mut());
        if item == ffi::PyExc_StopIteration {
            ffi::PyErr_SetNone(item);
            ffi::Py_DECREF(item);
            return null_mut();
        }
        item
    }
}

static TYPE: OnceLock<Base> = OnceLock::new();

struct Base(*mut PyTypeObject);

// SAFETY: an immortal type, used with the GIL held.
unsafe impl Send for Base {}
// SAFETY: as above.
unsafe impl Sync for Base {}

/// Whether an object is one of the queues.
///
/// # Safety
/// An object; the GIL is held.
pub unsafe fn is_queue(p: Obj) -> bool {
    // SAFETY: the caller's promise.
    TYPE.get()
        .is_some_and(|base| unsafe { ffi::PyObject_TypeCheck(p, base.0) } != 0)
}

/// `put(item, False)`: None, or null with an error set.
///
/// # Safety
/// A queue and an object, which the caller holds; the GIL is held.
pub unsafe fn put_now(slf: Obj, item: Obj) -> Obj {
    // SAFETY: the caller's promise.
    unsafe { put_item(cast(slf), item, false, null_mut()) }
}

// ---- tasks -----------------------------------------------------------------------------------------

unsafe extern "C" fn did_put_task(slf: Obj, _: Obj) -> Obj {
    // SAFETY: a queue.
    unsafe {
        storage::did_put_task(cast(slf));
        none()
    }
}

unsafe extern "C" fn task_done(slf: Obj, _: Obj) -> Obj {
    // SAFETY: a queue; the event is held over what may run Python.
    unsafe {
        let me = cast(slf);
        if (*me).unfinished <= 0 {
            let text = c"task_done() called too many times";
            ffi::PyErr_SetString(ffi::PyExc_ValueError, text.as_ptr());
            return null_mut();
        }
        (*me).unfinished -= 1;
        if (*me).unfinished == 0 && !(*me).cond.is_null() {
            let cond = ffi::Py_NewRef((*me).cond);
            event::raise_flag(cond);
            ffi::Py_DECREF(cond);
        }
        none()
    }
}

unsafe extern "C" fn join(slf: Obj, items: *const Obj, n: ffi::Py_ssize_t, names: Obj) -> Obj {
    // SAFETY: as the C API calls it; the event is held over the wait.
    unsafe {
        let args = Args::new(items, n, names);
        let Ok([timeout]) = args.parse(c"join", [c"timeout"]) else {
            return null_mut();
        };
        let Ok(limit) = Limit::new(timeout) else {
            return null_mut();
        };
        if (*cast(slf)).cond.is_null() {
            return boolean(true);
        }
        let cond = ffi::Py_NewRef((*cast(slf)).cond);
        let came = wait(cond.cast(), limit);
        ffi::Py_DECREF(cond);
        match came {
            Ok(came) => boolean(came),
            Err(()) => null_mut(),
        }
    }
}

/// `_start_tasks(n)`: how many tasks are unfinished at the beginning.
unsafe extern "C" fn start_tasks(slf: Obj, n: Obj) -> Obj {
    // SAFETY: a queue.
    unsafe {
        let n = ffi::PyLong_AsSsize_t(n);
        if n == -1 && !ffi::PyErr_Occurred().is_null() {
            return null_mut();
        }
        let cond = event::new_event(n == 0);
        if cond.is_null() {
            return null_mut();
        }
        (*cast(slf)).unfinished = n;
        set(&raw mut (*cast(slf)).cond, cond);
        none()
    }
}

unsafe extern "C" fn shut_waiters(slf: Obj, _: Obj) -> Obj {
    // SAFETY: a queue.
    unsafe {
        waiting::shut(cast(slf));
        none()
    }
}

// ---- attributes ------------------------------------------------------------------------------------

unsafe fn number_of(value: Obj) -> Result<isize, ()> {
    // SAFETY: an object or null.
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

unsafe extern "C" fn get_maxsize(slf: Obj, _: *mut c_void) -> Obj {
    // SAFETY: a queue.
    unsafe {
        match (*cast(slf)).maxsize {
            n if n > 0 => ffi::PyLong_FromSsize_t(n),
            _ => none(),
        }
    }
}

unsafe extern "C" fn set_maxsize(slf: Obj, value: Obj, _: *mut c_void) -> c_int {
    // SAFETY: a queue.
    unsafe {
        match number_of(value) {
            Ok(n) => {
                (*cast(slf)).maxsize = if n > 0 { n } else { -1 };
                0
            }
            Err(()) => -1,
        }
    }
}

unsafe extern "C" fn get_raw_maxsize(slf: Obj, _: *mut c_void) -> Obj {
    // SAFETY: a queue.
    unsafe { ffi::PyLong_FromSsize_t((*cast(slf)).maxsize) }
}

unsafe extern "C" fn get_unfinished(slf: Obj, _: *mut c_void) -> Obj {
    // SAFETY: a queue.
    unsafe { ffi::PyLong_FromSsize_t((*cast(slf)).unfinished) }
}

unsafe extern "C" fn set_unfinished(slf: Obj, value: Obj, _: *mut c_void) -> c_int {
    // SAFETY: a queue.
    unsafe {
        match number_of(value) {
            Ok(n) => {
                (*cast(slf)).unfinished = n;
                0
            }
            Err(()) => -1,
        }
    }
}

unsafe extern "C" fn get_shut(slf: Obj, _: *mut c_void) -> Obj {
    // SAFETY: a queue.
    unsafe { boolean((*cast(slf)).is_shut) }
}

unsafe extern "C" fn set_shut(slf: Obj, value: Obj, _: *mut c_void) -> c_int {
    // SAFETY: a queue.
    unsafe {
        match flag(value, false) {
            Ok(on) => {
                (*cast(slf)).is_shut = on;
                0
            }
            Err(()) => -1,
        }
    }
}

unsafe extern "C" fn get_store(slf: Obj, _: *mut c_void) -> Obj {
    // SAFETY: a queue.
    unsafe { or_none((*cast(slf)).store) }
}

unsafe extern "C" fn set_store(slf: Obj, value: Obj, _: *mut c_void) -> c_int {
    // SAFETY: a queue.
    unsafe {
        let value = if absent(value) {
            null_mut()
        } else {
            ffi::Py_NewRef(value)
        };
        set(&raw mut (*cast(slf)).store, value);
        0
    }
}

unsafe extern "C" fn get_cond(slf: Obj, _: *mut c_void) -> Obj {
    // SAFETY: a queue.
    unsafe { or_none((*cast(slf)).cond) }
}

unsafe extern "C" fn get_hub(slf: Obj, _: *mut c_void) -> Obj {
    // SAFETY: a queue.
    unsafe { or_none((*cast(slf)).hub) }
}

/// A tuple with None for each waiter, or its item.
unsafe fn shown(line: &VecDeque<Waiter>) -> Obj {
    // SAFETY: the items are held before anything is allocated.
    unsafe {
        let items: Vec<Obj> = line.iter().map(|w| or_none(w.item)).collect();
        let tuple = ffi::PyTuple_New(items.len() as isize);
        for (at, item) in items.into_iter().enumerate() {
            if tuple.is_null() {
                ffi::Py_DECREF(item);
            } else {
                ffi::PyTuple_SET_ITEM(tuple, at as isize, item);
            }
        }
        tuple
    }
}

unsafe extern "C" fn get_getters(slf: Obj, _: *mut c_void) -> Obj {
    // SAFETY: a queue.
    unsafe { shown(&(*cast(slf)).getters) }
}

unsafe extern "C" fn get_putters(slf: Obj, _: *mut c_void) -> Obj {
    // SAFETY: a queue.
    unsafe { shown(&(*cast(slf)).putters) }
}

/// Adds the type.
pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = m.py();
    let methods = vec![
        fast(
            c"put",
            put,
            0,
            c"put(item, block=True, timeout=None)\n\nPut *item* into the queue. If the queue is full, wait for room, at most *timeout* seconds, and raise `Full` if there is none then or *block* is false. A negative *timeout* is a ValueError.",
        ),
        fast(
            c"get",
            get,
            0,
            c"get(block=True, timeout=None)\n\nRemove an item from the queue and return it. If there is none, wait for one, at most *timeout* seconds, and raise `Empty` if there is none then or *block* is false.",
        ),
        fast(
            c"peek",
            peek,
            0,
            c"peek(block=True, timeout=None)\n\nLike `get`, but leave the item in the queue.",
        ),
        noargs(c"qsize", qsize, c"Return the number of items."),
        noargs(c"empty", empty, c"Return whether there are no items."),
        noargs(
            c"full",
            full,
            c"Return whether there are as many items as the queue takes.",
        ),
        one(c"_put", storage::py_put, c"Store an item."),
        noargs(c"_get", storage::py_get, c"Remove an item and return it."),
        noargs(c"_peek", storage::py_peek, c"Return the next item."),
        noargs(c"_qsize", storage::py_qsize, c"Return the number of items."),
        noargs(
            c"__next__",
            next,
            c"Get an item; the class StopIteration ends the iteration.",
        ),
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
    ];
    let attributes = vec![
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
        attribute(c"_unfinished", get_unfinished, Some(set_unfinished), c"How many tasks are not done."),
        attribute(c"is_shutdown", get_shut, Some(set_shut), c"Whether it takes no more items."),
        attribute(c"queue", get_store, Some(set_store), c"What holds the items."),
        attribute(c"_cond_event", get_cond, None, c"The event of those who join."),
        attribute(
            c"hub",
            get_hub,
            None,
            c"The hub of the first greenlet that waited. It says nothing about who may use the queue.",
        ),
        attribute(c"getters", get_getters, None, c"Those who wait for an item, each as None."),
        attribute(c"putters", get_putters, None, c"The items of those who wait for room."),
    ];
    let slots = [
        (ffi::Py_tp_new, tp_new as *mut c_void),
        (ffi::Py_tp_dealloc, dealloc as *mut c_void),
        (ffi::Py_tp_traverse, traverse as *mut c_void),
        (ffi::Py_tp_clear, clear as *mut c_void),
        (ffi::Py_sq_length, slot_len as *mut c_void),
        (ffi::Py_nb_bool, truth as *mut c_void),
        (
            ffi::Py_tp_members,
            weakly_referenced(offset_of!(Queue, weak)),
        ),
        (
            ffi::Py_tp_doc,
            c"The native part of the queues.".as_ptr().cast_mut().cast(),
        ),
    ];
    // SAFETY: at the module's initialisation, with the GIL held; the size is that of the struct.
    unsafe {
        let base = make_type(
            py,
            c"gevent._core.QueueBase",
            size_of::<Queue>(),
            &raw mut ffi::PyBaseObject_Type,
            methods,
            attributes,
            &slots,
        )?;
        storage::register(py, base)?;
        let _ = TYPE.set(Base(base));
        m.add("QueueBase", Bound::from_borrowed_ptr(py, base.cast()))
    }
}
