//! The queues: the raw type below `SimpleQueue`, `Queue` and their kin of `gevent.queue`.
//!
//! What is called for each item is here; constructors, texts and what is rare are Python. A subclass
//! may override `_init`, `_put`, `_get`, `_qsize` and `_peek`, as in the standard library.
//!
//! # Safety
//! The GIL is held. `me` or `slf` is a queue, which the caller has a reference to; arguments are borrowed from
//! the caller, or null where they were left out.

mod attributes;
mod storage;
mod tasks;
pub(super) mod waiting;

use super::args::{Limit, flag};
use super::exchange::{self, Exchange, Headed};
use super::object::{free, set, visit_all};
use super::{Obj, in_hub};
use crate::raw::{
    _PyType_Lookup, answer, answer_bool, fast, method, noargs, one, parsed, parsed_first,
};
use crate::raw_type::NewType;
use crate::statics::{Immortal, intern};
use crate::thread_data::Stretch;
use gevent_sync::lines::Line;
use gevent_sync::state::Ledger;
use gevent_sync::turn::Turn;
use pyo3::ffi::{self, PyTypeObject};
use pyo3::prelude::*;
use std::ffi::{c_int, c_void};
use std::mem::offset_of;
use std::ptr::null_mut;
use storage::{How, Order};
use waiting::{EMPTY, FULL, SHUT_DOWN};

/// A queue. Each `Obj` is an owned reference or null.
#[repr(C)]
pub struct Queue {
    head: Exchange,
    /// `queue.queue`.
    store: Obj,
    /// An event that is set while no task is unfinished.
    cond: Obj,
    /// For when Python runs in the middle of an operation.
    turn: Turn<Stretch>,
    ledger: Ledger,
    /// Whether `_put` counts tasks.
    counts: bool,
    order: Order,
}

// SAFETY: `repr(C)`, and the exchange is its first field.
unsafe impl Headed for Queue {}

impl Queue {
    /// Whether somebody waits in a line.
    #[inline]
    fn waits(&self, line: Line) -> bool {
        !self.head.lines.line(line).is_empty()
    }
}

#[inline]
fn cast(slf: Obj) -> *mut Queue {
    slf.cast()
}

struct Names {
    counts_tasks: Obj,
    order: Obj,
}

static NAMES: Immortal<Names> = Immortal::new();

// ---- slots -----------------------------------------------------------------------------------------

/// # Safety
/// The GIL is held; `ty` is a type.
unsafe fn class_number(ty: *mut PyTypeObject, name: Obj) -> std::ffi::c_long {
    // SAFETY: a type; a borrowed look-up.
    unsafe {
        let found = _PyType_Lookup(ty, name);
        if found.is_null() || ffi::PyLong_Check(found) == 0 {
            return 0;
        }
        // What is too large for a number is not one that is known here.
        let mut overflow = 0;
        ffi::PyLong_AsLongAndOverflow(found, &raw mut overflow)
    }
}

#[crate::entry]
unsafe extern "C" fn tp_new(ty: *mut PyTypeObject, _args: Obj, _kwargs: Obj) -> Obj {
    // SAFETY: zeroed memory, in which what is no plain value is written.
    unsafe {
        let me = Exchange::make(ty, waiting::round).cast::<Queue>();
        if me.is_null() {
            return null_mut();
        }
        (&raw mut (*me).ledger).write(Ledger::new(usize::MAX));
        (&raw mut (*me).turn).write(Turn::default());
        (*me).counts = class_number(ty, NAMES.counts_tasks) != 0;
        (&raw mut (*me).order).write(match class_number(ty, NAMES.order) {
            1 => Order::Lifo,
            2 => Order::Heap,
            _ => Order::Fifo,
        });
        me.cast()
    }
}

/// # Safety
/// As the module says.
unsafe fn fields(me: *mut Queue) -> [*mut Obj; 2] {
    // SAFETY: addresses only.
    unsafe { [&raw mut (*me).store, &raw mut (*me).cond] }
}

#[crate::entry]
unsafe extern "C" fn dealloc(slf: Obj) {
    // SAFETY: the slot's contract.
    unsafe {
        ffi::PyObject_GC_UnTrack(slf.cast());
        Exchange::finish(slf.cast());
        for f in fields(cast(slf)) {
            set(f, null_mut());
        }
        std::ptr::drop_in_place(&raw mut (*cast(slf)).turn);
        free(slf);
    }
}

#[crate::entry(silent)]
unsafe extern "C" fn traverse(slf: Obj, visit: ffi::visitproc, arg: *mut c_void) -> c_int {
    // SAFETY: the collector's protocol; nothing here runs Python.
    unsafe {
        match visit_all(fields(cast(slf)).map(|f| *f), visit, arg) {
            0 => Exchange::traverse(slf.cast(), visit, arg),
            r => r,
        }
    }
}

#[crate::entry]
unsafe extern "C" fn clear(slf: Obj) -> c_int {
    // SAFETY: the collector's protocol; fields are emptied before what they held is dropped.
    unsafe {
        Exchange::clear(slf.cast());
        for f in fields(cast(slf)) {
            set(f, null_mut());
        }
        0
    }
}

#[crate::entry]
unsafe extern "C" fn slot_len(slf: Obj) -> ffi::Py_ssize_t {
    // SAFETY: as the C API calls it, on a queue.
    unsafe { storage::len(cast(slf)).unwrap_or(-1) }
}

#[crate::entry]
unsafe extern "C" fn truth(_: Obj) -> c_int {
    1
}

// ---- putting and getting ---------------------------------------------------------------------------

/// # Safety
/// As the module says.
unsafe fn put_item(me: *mut Queue, item: Obj, block: bool, timeout: Obj) -> Obj {
    // SAFETY: the caller's promise.
    unsafe {
        if (*me).ledger.is_closed() {
            SHUT_DOWN.raise();
            return null_mut();
        }
        (*me).head.users.saw();
        let done = match storage::try_put(me, item) {
            Err(()) => return null_mut(),
            Ok(true) => {
                if (*me).waits(Line::Getters) {
                    waiting::wake(me);
                }
                Ok(())
            }
            Ok(false) if in_hub() => waiting::put_in_hub(me, item),
            Ok(false) if block => match Limit::new(timeout) {
                Ok(limit) => waiting::wait_to_put(me, item, limit),
                Err(()) => Err(()),
            },
            Ok(false) => {
                FULL.raise();
                Err(())
            }
        };
        answer(done)
    }
}

method!(
    parsed_first: put,
    c"put",
    [c"item", c"block", c"timeout"],
    |slf, [item, block, timeout]| match flag(block, true) {
        Ok(block) => put_item(cast(slf), item, block, timeout),
        Err(()) => null_mut(),
    }
);

/// # Safety
/// As the module says.
unsafe fn get_item(me: *mut Queue, how: How, block: bool, timeout: Obj) -> Obj {
    // SAFETY: the caller's promise.
    unsafe {
        (*me).head.users.saw();
        let item = match storage::try_get(me, how) {
            Err(()) => return null_mut(),
            Ok(Some(item)) => item,
            Ok(None) => get_later(me, how, block, timeout),
        };
        if how == How::Remove && !item.is_null() && (*me).waits(Line::Putters) {
            waiting::wake(me);
        }
        item
    }
}

/// # Safety
/// As the module says.
unsafe fn get_later(me: *mut Queue, how: How, block: bool, timeout: Obj) -> Obj {
    // SAFETY: the caller's promise.
    unsafe {
        if (*me).ledger.is_closed() {
            SHUT_DOWN.raise();
            return null_mut();
        }
        if block && waiting::check_timeout(timeout).is_err() {
            return null_mut();
        }
        if in_hub() {
            return waiting::get_in_hub(me, how);
        }
        if !block {
            EMPTY.raise();
            return null_mut();
        }
        match Limit::new(timeout) {
            Ok(limit) => waiting::wait_to_get(me, how, limit),
            Err(()) => null_mut(),
        }
    }
}

/// # Safety
/// As the module says.
unsafe fn get_by(slf: Obj, how: How, [block, timeout]: [Obj; 2]) -> Obj {
    // SAFETY: the caller's promise.
    unsafe {
        match flag(block, true) {
            Ok(block) => get_item(cast(slf), how, block, timeout),
            Err(()) => null_mut(),
        }
    }
}

method!(parsed: get, c"get", [c"block", c"timeout"], |slf, args| get_by(slf, How::Remove, args));

method!(parsed: peek, c"peek", [c"block", c"timeout"], |slf, args| get_by(slf, How::Look, args));

#[crate::entry]
unsafe extern "C" fn qsize(slf: Obj, _: Obj) -> Obj {
    // SAFETY: as the C API calls it, on a queue.
    unsafe {
        match storage::len(cast(slf)) {
            Ok(n) => ffi::PyLong_FromSsize_t(n),
            Err(()) => null_mut(),
        }
    }
}

#[crate::entry]
unsafe extern "C" fn empty(slf: Obj, _: Obj) -> Obj {
    // SAFETY: as the C API calls it, on a queue.
    unsafe { answer_bool(storage::len(cast(slf)).map(|n| n == 0)) }
}

#[crate::entry]
unsafe extern "C" fn full(slf: Obj, _: Obj) -> Obj {
    // SAFETY: as the C API calls it, on a queue.
    unsafe { answer_bool(storage::has_room(cast(slf)).map(|room| !room)) }
}

/// What `__next__` returns for an item (owned, or null): the class `StopIteration` ends the iteration.
///
/// # Safety
/// The GIL is held.
pub unsafe fn next_of(item: Obj) -> Obj {
    // SAFETY: the caller's promise.
    unsafe {
        if item == ffi::PyExc_StopIteration {
            ffi::PyErr_SetNone(item);
            ffi::Py_DECREF(item);
            return null_mut();
        }
        item
    }
}

#[crate::entry]
unsafe extern "C" fn next(slf: Obj, _: Obj) -> Obj {
    // SAFETY: as the C API calls it, on a queue.
    unsafe { next_of(get_item(cast(slf), How::Remove, true, null_mut())) }
}

static TYPE: Immortal<*mut PyTypeObject> = Immortal::new();

/// Whether an object is one of the queues.
///
/// # Safety
/// An object; the GIL is held.
pub unsafe fn is_queue(p: Obj) -> bool {
    // SAFETY: the caller's promise.
    TYPE.get()
        .is_some_and(|base| unsafe { ffi::PyObject_TypeCheck(p, *base) } != 0)
}

/// `put(item, False)`: None, or null with an error set.
///
/// # Safety
/// A queue and an object, which the caller holds; the GIL is held.
pub unsafe fn put_now(slf: Obj, item: Obj) -> Obj {
    // SAFETY: the caller's promise.
    unsafe { put_item(cast(slf), item, false, null_mut()) }
}

/// Adds the type.
pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    // SAFETY: at the module's initialisation, with the GIL held.
    unsafe {
        NAMES.set(Names {
            counts_tasks: intern(c"_counts_tasks"),
            order: intern(c"_order"),
        });
    }
    let mut methods = vec![
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
    ];
    methods.extend(tasks::methods());
    let mut attributes = attributes::attributes();
    attributes.extend(exchange::attributes());
    // SAFETY: at the module's initialisation, with the GIL held.
    unsafe {
        let base = NewType::of::<Queue>(c"gevent._core.QueueBase")
            .about(c"The native part of the queues.")
            .methods(methods)
            .attributes(attributes)
            .new_by(tp_new)
            .ended_by(dealloc, traverse, clear)
            .slot(ffi::Py_sq_length, slot_len as *mut c_void)
            .slot(ffi::Py_nb_bool, truth as *mut c_void)
            .weak(offset_of!(Exchange, weak))
            .add(m, None)?;
        TYPE.set(base);
        storage::register(m.py(), base)
    }
}
