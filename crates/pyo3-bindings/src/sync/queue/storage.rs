//! Where a queue keeps its items: the Python object `queue.queue`, and who reads and writes it.
//!
//! With the classes' own methods on a deque or list, an operation runs no Python, so that it is done in one
//! piece under the GIL. Methods that a subclass overrides, and comparisons of a heap, do run Python: then
//! native threads take turns, each for as long as it does not switch to another greenlet in the middle.
//!
//! # Safety
//! The GIL is held. `me` is a queue, and an object is alive: the caller has a reference to each, which also
//! lasts over what runs Python.

use super::{Obj, Queue, cast};
use crate::cells::GilCell;
use crate::raw::_PyType_Lookup;
use crate::statics::{Immortal, intern};
use crate::sync::parker::wait_after;
use crate::sync::{enter_python, event};
use crate::thread_data::{Stretch, ThreadData};
use gevent_hub_core::reactor::{Nanos, monotonic};
use gevent_sync::parker::Parker;
use gevent_sync::turn::Turn;
use pyo3::ffi;
use pyo3::prelude::*;
use std::ffi::c_int;
use std::ptr::null_mut;
use std::sync::Arc;

/// In which order items come out.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// As they were put: a deque.
    Fifo,
    /// The newest first: a list.
    Lifo,
    /// The smallest first: a list that is a heap.
    Heap,
}

/// What lives as long as the process.
struct Statics {
    deque: *mut ffi::PyTypeObject,
    append: Method,
    popleft: Method,
    heappush: Obj,
    heappop: Obj,
    /// Names that subclasses override, and what they name here.
    hooks: [(Obj, Obj); 4],
    str_append: Obj,
    str_pop: Obj,
    str_popleft: Obj,
}

/// A method of a builtin class of one argument or none.
struct Method {
    descriptor: Obj,
    /// Its C function, if that is called in the oldest and plainest of ways.
    direct: Option<ffi::PyCFunction>,
}

impl Method {
    /// Takes a reference to the descriptor, which lives for ever.
    ///
    /// # Safety
    /// The GIL is held; `descriptor` is an owned reference.
    unsafe fn new(descriptor: Obj, flags: c_int) -> Self {
        // SAFETY: the type says which struct it is, and the flags which function.
        unsafe {
            let method = ffi::Py_TYPE(descriptor) == &raw mut ffi::PyMethodDescr_Type;
            let def = if method {
                (*descriptor.cast::<ffi::PyMethodDescrObject>()).d_method
            } else {
                null_mut()
            };
            let direct =
                (!def.is_null() && (*def).ml_flags == flags).then(|| (*def).ml_meth.PyCFunction);
            Method { descriptor, direct }
        }
    }

    /// # Safety
    /// The GIL is held; `slf` is an instance of the class that has the method.
    #[inline]
    unsafe fn call(&self, slf: Obj, arg: Obj) -> Obj {
        // SAFETY: `slf` is an instance of the class.
        unsafe {
            if let Some(f) = self.direct {
                return f(slf, arg);
            }
            let args = [slf, arg];
            let n = if arg.is_null() { 1 } else { 2 };
            ffi::PyObject_Vectorcall(self.descriptor, args.as_ptr(), n, null_mut())
        }
    }
}

static STATICS: Immortal<Statics> = Immortal::new();

/// The class that was looked at last, its version, and whether it overrides a hook.
static SEEN: GilCell<(*mut ffi::PyTypeObject, u32, bool)> = GilCell::new((null_mut(), 0, false));

/// Whether a class overrides `_put`, `_get`, `_qsize` or `_peek`.
///
/// # Safety
/// The GIL is held; `ty` is a type below that of queues.
#[inline]
unsafe fn overrides(ty: *mut ffi::PyTypeObject) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        let version = (*ty).tp_version_tag;
        let (seen, tag, overrides) = SEEN.get();
        if seen == ty && tag == version && version != 0 {
            return overrides;
        }
        let found = STATICS
            .hooks
            .iter()
            .any(|&(name, ours)| _PyType_Lookup(ty, name) != ours);
        // The look-up may have given the type its version.
        SEEN.set((ty, (*ty).tp_version_tag, found));
        found
    }
}

/// Whether operations run no Python.
///
/// # Safety
/// As the module says.
#[inline]
pub unsafe fn is_simple(me: *mut Queue) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        let store = (*me).store;
        !store.is_null()
            && !overrides(ffi::Py_TYPE(me.cast()))
            && match (*me).order {
                Order::Fifo => ffi::Py_TYPE(store) == STATICS.deque,
                Order::Lifo => ffi::PyList_CheckExact(store) != 0,
                Order::Heap => false,
            }
    }
}

/// Whether it is a list that is ordered by the class's own methods.
///
/// # Safety
/// As the module says.
#[inline]
unsafe fn is_plain_heap(me: *mut Queue) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        let store = (*me).store;
        (*me).order == Order::Heap
            && !store.is_null()
            && ffi::PyList_CheckExact(store) != 0
            && !overrides(ffi::Py_TYPE(me.cast()))
    }
}

/// The number of items of a queue that `is_simple` or a plain heap.
///
/// # Safety
/// As the module says; [`is_simple`] or [`is_plain_heap`] was true, and no Python has run since.
#[inline]
unsafe fn size(me: *mut Queue) -> isize {
    // SAFETY: both kinds of store have their length in the head.
    unsafe { (*(*me).store.cast::<ffi::PyVarObject>()).ob_size }
}

/// The number of items; `Err` with an error set.
///
/// # Safety
/// As the module says.
#[inline]
pub unsafe fn len(me: *mut Queue) -> Result<isize, ()> {
    // SAFETY: a queue; both kinds of store have their length in the head.
    unsafe {
        if is_simple(me) || is_plain_heap(me) {
            return Ok(size(me));
        }
        enter_python();
        let r = ffi::PyObject_CallMethodNoArgs(me.cast(), STATICS.hooks[2].0);
        if r.is_null() {
            return Err(());
        }
        let n = ffi::PyLong_AsSsize_t(r);
        ffi::Py_DECREF(r);
        if n == -1 && !ffi::PyErr_Occurred().is_null() {
            return Err(());
        }
        Ok(n)
    }
}

/// Whether an item may be put; `Err` with an error set.
///
/// # Safety
/// As the module says.
#[inline]
pub unsafe fn has_room(me: *mut Queue) -> Result<bool, ()> {
    // SAFETY: the caller's promise.
    unsafe { Ok(!(*me).ledger.is_bounded() || (*me).ledger.has_room(len(me)?.cast_unsigned())) }
}

/// Runs `f`, if that may run Python in the turn of this thread; `Err` with an error set.
///
/// # Safety
/// As the module says.
#[inline]
pub unsafe fn locked<R>(me: *mut Queue, f: impl FnOnce() -> Result<R, ()>) -> Result<R, ()> {
    // SAFETY: a queue; the caller has a reference, and no reference to the turn is kept over `f`.
    unsafe {
        if is_simple(me) {
            return f();
        }
        enter_python();
        let mut stretch = ThreadData::get().stretch();
        let turn = &raw mut (*me).turn;
        if let Err(parker) = (*turn).begin(stretch, |s| s.lasts()) {
            stretch = wait_for_turn(turn, parker)?;
        }
        let result = f();
        (*turn).end(&stretch);
        result
    }
}

/// Calls `f` with a reference to the store, which Python code may put another in place of.
///
/// # Safety
/// As the module says; `store` is alive.
#[inline]
unsafe fn held<R>(store: Obj, f: impl FnOnce() -> R) -> R {
    // SAFETY: the caller's promise.
    unsafe {
        ffi::Py_INCREF(store);
        let result = f();
        ffi::Py_DECREF(store);
        result
    }
}

/// How long a thread sleeps before it looks whether the one whose turn it is has ended or switched, in
/// nanoseconds; twice as long after each look, up to the second.
const SLICES: [Nanos; 2] = [1_000_000, 50_000_000];

/// Waits for the turn of this thread, which begins. Signals are handled meanwhile; `Err` with an error set.
///
/// # Safety
/// The GIL is held; the caller has a reference to the object that has the turn.
#[cold]
unsafe fn wait_for_turn(turn: *mut Turn<Stretch>, mut parker: Arc<Parker>) -> Result<Stretch, ()> {
    let [mut slice, longest] = SLICES;
    // SAFETY: the caller's promise; no reference to the turn is kept over a wait or a handler.
    unsafe {
        loop {
            wait_after(&parker, Some(monotonic() + slice), || ());
            (*turn).leave(&parker);
            if ffi::PyErr_CheckSignals() < 0 {
                return Err(());
            }
            // A handler may have switched.
            let stretch = ThreadData::get().stretch();
            match (*turn).begin(stretch, |s| s.lasts()) {
                Ok(()) => return Ok(stretch),
                Err(again) => parker = again,
            }
            slice = longest.min(slice * 2);
        }
    }
}

/// `a(b, c)`, dropping the result.
///
/// # Safety
/// As the module says.
unsafe fn call2(f: Obj, a: Obj, b: Obj) -> Result<(), ()> {
    // SAFETY: objects; the GIL is held.
    unsafe {
        let args = [a, b];
        let r = ffi::PyObject_Vectorcall(f, args.as_ptr(), 2, null_mut());
        if r.is_null() {
            return Err(());
        }
        ffi::Py_DECREF(r);
        Ok(())
    }
}

/// What `_put` of the classes themselves does: stores an item, and counts it as a task.
///
/// # Safety
/// As the module says.
#[inline]
pub unsafe fn raw_put(me: *mut Queue, item: Obj) -> Result<(), ()> {
    // SAFETY: the caller's promise.
    unsafe {
        let store = (*me).store;
        if store.is_null() {
            return missing();
        }
        match (*me).order {
            Order::Fifo if ffi::Py_TYPE(store) == STATICS.deque => {
                let r = STATICS.append.call(store, item);
                if r.is_null() {
                    return Err(());
                }
                ffi::Py_DECREF(r);
            }
            Order::Lifo if ffi::PyList_CheckExact(store) != 0 => {
                if ffi::PyList_Append(store, item) < 0 {
                    return Err(());
                }
            }
            Order::Heap => held(store, || call2(STATICS.heappush, store, item))?,
            _ => {
                let append = || ffi::PyObject_CallMethodOneArg(store, STATICS.str_append, item);
                let r = held(store, append);
                if r.is_null() {
                    return Err(());
                }
                ffi::Py_DECREF(r);
            }
        }
        if (*me).counts {
            did_put_task(me);
        }
        Ok(())
    }
}

/// Counts a task that is to be done.
///
/// # Safety
/// As the module says.
#[inline]
pub unsafe fn did_put_task(me: *mut Queue) {
    // SAFETY: a queue, whose `_cond` is null or an event.
    unsafe {
        (*me).ledger.begin();
        if !(*me).cond.is_null() {
            event::reset((*me).cond);
        }
    }
}

/// # Safety
/// The GIL is held.
unsafe fn missing<R>() -> Result<R, ()> {
    // SAFETY: the caller's promise.
    unsafe {
        let text = c"the queue was not initialized";
        ffi::PyErr_SetString(ffi::PyExc_AttributeError, text.as_ptr());
    }
    Err(())
}

/// What `_get` of the classes themselves does; a new reference, or null with an error set.
///
/// # Safety
/// As the module says.
#[inline]
pub unsafe fn raw_get(me: *mut Queue) -> Obj {
    // SAFETY: the caller's promise.
    unsafe {
        let store = (*me).store;
        if store.is_null() {
            let _ = missing::<()>();
            return null_mut();
        }
        match (*me).order {
            Order::Fifo if ffi::Py_TYPE(store) == STATICS.deque => {
                STATICS.popleft.call(store, null_mut())
            }
            Order::Lifo
                if ffi::PyList_CheckExact(store) != 0 && ffi::PyList_GET_SIZE(store) > 0 =>
            {
                let last = ffi::PyList_GET_SIZE(store) - 1;
                let item = ffi::Py_NewRef(ffi::PyList_GET_ITEM(store, last));
                if ffi::PyList_SetSlice(store, last, last + 1, null_mut()) < 0 {
                    ffi::Py_DECREF(item);
                    return null_mut();
                }
                item
            }
            Order::Heap => held(store, || ffi::PyObject_CallOneArg(STATICS.heappop, store)),
            Order::Fifo => held(store, || {
                ffi::PyObject_CallMethodNoArgs(store, STATICS.str_popleft)
            }),
            Order::Lifo => held(store, || {
                ffi::PyObject_CallMethodNoArgs(store, STATICS.str_pop)
            }),
        }
    }
}

/// What `_peek` of the classes themselves does; a new reference, or null with an error set.
///
/// # Safety
/// As the module says.
pub unsafe fn raw_peek(me: *mut Queue) -> Obj {
    // SAFETY: the caller's promise.
    unsafe {
        let store = (*me).store;
        if store.is_null() {
            let _ = missing::<()>();
            return null_mut();
        }
        let at = if (*me).order == Order::Lifo { -1 } else { 0 };
        held(store, || ffi::PySequence_GetItem(store, at))
    }
}

/// Puts an item by the class's `_put`.
///
/// # Safety
/// As the module says.
#[inline]
pub unsafe fn put(me: *mut Queue, item: Obj) -> Result<(), ()> {
    // SAFETY: the caller's promise.
    unsafe {
        if !overrides(ffi::Py_TYPE(me.cast())) {
            return raw_put(me, item);
        }
        let r = ffi::PyObject_CallMethodOneArg(me.cast(), STATICS.hooks[0].0, item);
        if r.is_null() {
            return Err(());
        }
        ffi::Py_DECREF(r);
        Ok(())
    }
}

/// Whether an item is removed or only looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// `get`.
    Remove,
    /// `peek`.
    Look,
}

/// Gets an item by the class's `_get` or `_peek` if there is one; `Err` with an error set.
///
/// # Safety
/// As the module says.
#[inline]
pub unsafe fn try_get(me: *mut Queue, how: How) -> Result<Option<Obj>, ()> {
    // SAFETY: the caller's promise.
    unsafe {
        if is_simple(me) {
            if size(me) <= 0 {
                return Ok(None);
            }
            let item = match how {
                How::Remove => raw_get(me),
                How::Look => raw_peek(me),
            };
            return if item.is_null() {
                Err(())
            } else {
                Ok(Some(item))
            };
        }
        locked(me, || {
            if len(me)? <= 0 {
                return Ok(None);
            }
            let item = if !overrides(ffi::Py_TYPE(me.cast())) {
                if how == How::Remove {
                    raw_get(me)
                } else {
                    raw_peek(me)
                }
            } else {
                let name = STATICS.hooks[if how == How::Remove { 1 } else { 3 }].0;
                ffi::PyObject_CallMethodNoArgs(me.cast(), name)
            };
            if item.is_null() {
                Err(())
            } else {
                Ok(Some(item))
            }
        })
    }
}

/// Puts an item if there is room; `Err` with an error set.
///
/// # Safety
/// As the module says.
#[inline]
pub unsafe fn try_put(me: *mut Queue, item: Obj) -> Result<bool, ()> {
    // SAFETY: the caller's promise.
    unsafe {
        if is_simple(me) {
            if !(*me).ledger.has_room(size(me).cast_unsigned()) {
                return Ok(false);
            }
            return raw_put(me, item).map(|()| true);
        }
        locked(me, || {
            if !has_room(me)? {
                return Ok(false);
            }
            put(me, item).map(|()| true)
        })
    }
}

// ---- the hooks as methods --------------------------------------------------------------------------

#[crate::entry]
pub unsafe extern "C" fn py_put(slf: Obj, item: Obj) -> Obj {
    // SAFETY: as the C API calls it, on a queue.
    unsafe {
        match raw_put(cast(slf), item) {
            Ok(()) => crate::raw::none(),
            Err(()) => null_mut(),
        }
    }
}

#[crate::entry]
pub unsafe extern "C" fn py_get(slf: Obj, _: Obj) -> Obj {
    // SAFETY: as the C API calls it, on a queue.
    unsafe { raw_get(cast(slf)) }
}

#[crate::entry]
pub unsafe extern "C" fn py_peek(slf: Obj, _: Obj) -> Obj {
    // SAFETY: as the C API calls it, on a queue.
    unsafe { raw_peek(cast(slf)) }
}

#[crate::entry]
pub unsafe extern "C" fn py_qsize(slf: Obj, _: Obj) -> Obj {
    // SAFETY: as the C API calls it, on a queue.
    unsafe {
        if (*cast(slf)).store.is_null() {
            let _ = missing::<()>();
            return null_mut();
        }
        let store = (*cast(slf)).store;
        match held(store, || ffi::PyObject_Size(store)) {
            -1 => null_mut(),
            n => ffi::PyLong_FromSsize_t(n),
        }
    }
}

/// Looks up what is used of the standard library, and the hooks of the base type.
pub fn register(py: Python<'_>, base: *mut ffi::PyTypeObject) -> PyResult<()> {
    let deque = py.import("collections")?.getattr("deque")?;
    let heapq = py.import("_heapq")?;
    let kept = |o: Bound<'_, PyAny>| o.into_ptr();
    // SAFETY: at the module's initialisation, with the GIL held.
    unsafe {
        let hook = |t: &std::ffi::CStr| {
            let name = intern(t);
            (name, _PyType_Lookup(base, name))
        };
        STATICS.set(Statics {
            append: Method::new(kept(deque.getattr("append")?), ffi::METH_O),
            popleft: Method::new(kept(deque.getattr("popleft")?), ffi::METH_NOARGS),
            deque: kept(deque).cast(),
            heappush: kept(heapq.getattr("heappush")?),
            heappop: kept(heapq.getattr("heappop")?),
            hooks: [
                hook(c"_put"),
                hook(c"_get"),
                hook(c"_qsize"),
                hook(c"_peek"),
            ],
            str_append: intern(c"append"),
            str_pop: intern(c"pop"),
            str_popleft: intern(c"popleft"),
        });
    }
    Ok(())
}
