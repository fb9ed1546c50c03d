//! `RLock`: a lock that its owner can acquire again.
//!
//! # Safety
//! The GIL is held. `me` is a lock, which the caller has a reference to.

use super::args::{Limit, flag};
use super::object::{alloc, attribute, class_name, clear_weak, free, or_none, text, visit_all};
use super::{Obj, linkable, semaphore};
use crate::raw::{Args, absent, answer_bool, boolean, fast, noargs, none};
use crate::raw_type::NewType;
use crate::thread_data::ThreadData;
use gevent_sync::state::Ownership;
use pyo3::ffi::{self, PyObject, PyTypeObject};
use pyo3::prelude::*;
use std::ffi::{c_int, c_void};
use std::mem::offset_of;
use std::ptr::{NonNull, null_mut};

/// A lock. `block` is an owned reference.
#[repr(C)]
struct RLock {
    base: ffi::PyObject,
    weak: Obj,
    block: *mut semaphore::Semaphore,
    /// The owner is a reference too.
    held: Ownership<NonNull<PyObject>>,
}

fn cast(slf: Obj) -> *mut RLock {
    slf.cast()
}

/// The running greenlet; borrowed.
///
/// # Safety
/// The GIL is held.
#[inline]
unsafe fn running() -> NonNull<PyObject> {
    // SAFETY: the GIL is held; a thread with the GIL runs a greenlet.
    unsafe { NonNull::new_unchecked(ThreadData::get().current.get().cast()) }
}

/// The owner; borrowed or null.
///
/// # Safety
/// As the module says.
unsafe fn owner(me: *mut RLock) -> Obj {
    // SAFETY: the caller's promise.
    unsafe { (*me).held.owner().map_or(null_mut(), |o| o.as_ptr()) }
}

/// Drops a reference to an owner. May run Python.
///
/// # Safety
/// The GIL is held; the reference is owned.
unsafe fn drop_owner(owner: Option<NonNull<PyObject>>) {
    if let Some(owner) = owner {
        // SAFETY: the lock's own reference; the GIL is held.
        unsafe { ffi::Py_DECREF(owner.as_ptr()) };
    }
}

/// Acquires the semaphore; `limit` is only asked for if that has to wait. `Err` with an error set.
///
/// # Safety
/// As the module says.
unsafe fn take(me: *mut RLock, limit: impl FnOnce() -> Result<Limit, ()>) -> Result<bool, ()> {
    // SAFETY: the caller's promise.
    unsafe {
        if semaphore::try_acquire((*me).block) {
            return Ok(true);
        }
        semaphore::acquire_waiting((*me).block, limit()?)
    }
}

/// Says who (borrowed) holds the lock, and how often.
///
/// # Safety
/// As the module says; the caller holds the lock, or nobody does.
unsafe fn held_by(me: *mut RLock, owner: Option<NonNull<PyObject>>, count: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        if let Some(owner) = owner {
            ffi::Py_INCREF(owner.as_ptr());
        }
        drop_owner((*me).held.put(owner, count));
    }
}

#[crate::entry]
unsafe extern "C" fn acquire(slf: Obj, items: *const Obj, n: ffi::Py_ssize_t, names: Obj) -> Obj {
    // SAFETY: as the C API calls it.
    unsafe {
        let me = cast(slf);
        let running = running();
        if (*me).held.again(&running) {
            return ffi::PyLong_FromLong(1);
        }
        let args = Args::new(items, n, names);
        let Ok([blocking, timeout]) = args.parse(c"acquire", [c"blocking", c"timeout"]) else {
            return null_mut();
        };
        let taken = match flag(blocking, true) {
            Err(()) => Err(()),
            Ok(true) => take(me, || Limit::new(timeout)),
            Ok(false) => Ok(semaphore::try_acquire((*me).block)),
        };
        if taken == Ok(true) {
            held_by(me, Some(running), 1);
        }
        answer_bool(taken)
    }
}

#[crate::entry]
unsafe extern "C" fn enter(slf: Obj, _: Obj) -> Obj {
    // SAFETY: as the C API calls it, on a lock.
    unsafe { acquire(slf, std::ptr::null(), 0, null_mut()) }
}

#[crate::entry]
unsafe extern "C" fn release(slf: Obj, _: Obj) -> Obj {
    // SAFETY: as the C API calls it, on a lock.
    unsafe {
        let me = cast(slf);
        let running = running();
        let Ok(free) = (*me).held.leave(&running) else {
            let owner = or_none(owner(me));
            let text = c"cannot release un-acquired lock. Owner: %R Current: %R";
            let class = ffi::PyExc_RuntimeError;
            ffi::PyErr_Format(class, text.as_ptr(), owner, running.as_ptr());
            ffi::Py_DECREF(owner);
            return null_mut();
        };
        if free.is_some() {
            // The running greenlet, which has other references: nothing runs.
            drop_owner(free);
            semaphore::put_back((*me).block);
        }
        none()
    }
}

#[crate::entry]
unsafe extern "C" fn exit(slf: Obj, _items: *const Obj, _n: ffi::Py_ssize_t, _names: Obj) -> Obj {
    // SAFETY: as the C API calls it, on a lock.
    unsafe { release(slf, null_mut()) }
}

#[crate::entry]
unsafe extern "C" fn locked(slf: Obj, _: Obj) -> Obj {
    // SAFETY: as the C API calls it, on a lock.
    unsafe { boolean((*cast(slf)).held.depth() > 0) }
}

/// For `threading.Condition`: `(count, owner)`.
#[crate::entry]
unsafe extern "C" fn acquire_restore(slf: Obj, saved: Obj) -> Obj {
    // SAFETY: as the C API calls it, on a lock.
    unsafe {
        if ffi::PyTuple_Check(saved) == 0 || ffi::PyTuple_GET_SIZE(saved) != 2 {
            ffi::PyErr_SetString(ffi::PyExc_TypeError, c"a pair is needed".as_ptr());
            return null_mut();
        }
        let count = ffi::PyLong_AsSize_t(ffi::PyTuple_GET_ITEM(saved, 0));
        if count == usize::MAX && !ffi::PyErr_Occurred().is_null() {
            return null_mut();
        }
        if take(cast(slf), || Ok(Limit::Never)).is_err() {
            return null_mut();
        }
        let owner = ffi::PyTuple_GET_ITEM(saved, 1);
        let owner = NonNull::new(owner).filter(|o| !absent(o.as_ptr()));
        held_by(cast(slf), owner, count);
        none()
    }
}

#[crate::entry]
unsafe extern "C" fn release_save(slf: Obj, _: Obj) -> Obj {
    // SAFETY: as the C API calls it, on a lock.
    unsafe {
        let me = cast(slf);
        let count = ffi::PyLong_FromSize_t((*me).held.depth());
        let owner = or_none(owner(me));
        let saved = crate::raw::pair(count, owner);
        ffi::Py_XDECREF(count);
        ffi::Py_DECREF(owner);
        if !saved.is_null() {
            drop_owner((*me).held.take().0);
            semaphore::put_back((*me).block);
        }
        saved
    }
}

#[crate::entry]
unsafe extern "C" fn is_owned(slf: Obj, _: Obj) -> Obj {
    // SAFETY: as the C API calls it, on a lock.
    unsafe { boolean((*cast(slf)).held.is(&running())) }
}

/// Another lock of the same state, which shares the semaphore, as upstream's.
#[crate::entry]
unsafe extern "C" fn copy(slf: Obj, _: Obj) -> Obj {
    // SAFETY: as the C API calls it, on a lock; the new one is ours and of the same type.
    unsafe {
        let new = tp_new(ffi::Py_TYPE(slf), null_mut(), null_mut());
        if new.is_null() {
            return new;
        }
        let me = cast(slf);
        ffi::Py_INCREF((*me).block.cast());
        let unused = std::mem::replace(&mut (*cast(new)).block, (*me).block);
        ffi::Py_DECREF(unused.cast());
        let owner = NonNull::new(owner(me));
        if owner.is_some() {
            held_by(cast(new), owner, (*me).held.depth());
        }
        let attributes = ffi::PyObject_GetAttrString(slf, c"__dict__".as_ptr());
        if attributes.is_null() {
            // Only subclasses have some.
            ffi::PyErr_Clear();
            return new;
        }
        let copied = ffi::PyDict_Copy(attributes);
        ffi::Py_DECREF(attributes);
        let failed =
            copied.is_null() || ffi::PyObject_SetAttrString(new, c"__dict__".as_ptr(), copied) < 0;
        ffi::Py_XDECREF(copied);
        if failed {
            ffi::Py_DECREF(new);
            return null_mut();
        }
        new
    }
}

/// In the child of a fork it is free.
#[crate::entry]
unsafe extern "C" fn at_fork_reinit(slf: Obj, _: Obj) -> Obj {
    // SAFETY: as the C API calls it, on a lock.
    unsafe {
        let me = cast(slf);
        let block = semaphore::new_lock(null_mut());
        if block.is_null() {
            return null_mut();
        }
        let old = std::mem::replace(&mut (*me).block, block);
        drop_owner((*me).held.take().0);
        ffi::Py_DECREF(old.cast());
        none()
    }
}

// ---- slots and attributes --------------------------------------------------------------------------

#[crate::entry]
unsafe extern "C" fn tp_new(ty: *mut PyTypeObject, _args: Obj, _kwargs: Obj) -> Obj {
    // SAFETY: the slot's contract.
    unsafe {
        let me = alloc(ty).cast::<RLock>();
        if me.is_null() {
            return null_mut();
        }
        (&raw mut (*me).held).write(Ownership::default());
        (*me).block = semaphore::new_lock(null_mut());
        if (*me).block.is_null() {
            ffi::Py_DECREF(me.cast());
            return null_mut();
        }
        me.cast()
    }
}

#[crate::entry]
unsafe extern "C" fn tp_init(slf: Obj, args: Obj, kwargs: Obj) -> c_int {
    // SAFETY: the slot's contract; borrowed arguments.
    unsafe { linkable::init_with_hub((*cast(slf)).block.cast(), args, kwargs, c"|O:RLock") }
}

#[crate::entry]
unsafe extern "C" fn dealloc(slf: Obj) {
    // SAFETY: the slot's contract.
    unsafe {
        ffi::PyObject_GC_UnTrack(slf.cast());
        let me = cast(slf);
        clear_weak(slf, (*me).weak);
        clear(slf);
        ffi::Py_XDECREF((*me).block.cast());
        free(slf);
    }
}

#[crate::entry(silent)]
unsafe extern "C" fn traverse(slf: Obj, visit: ffi::visitproc, arg: *mut c_void) -> c_int {
    // SAFETY: the collector's protocol.
    unsafe {
        let me = cast(slf);
        let ty = ffi::Py_TYPE(slf).cast();
        visit_all([ty, (*me).block.cast(), owner(me)], visit, arg)
    }
}

#[crate::entry]
unsafe extern "C" fn clear(slf: Obj) -> c_int {
    // SAFETY: the collector's protocol. The semaphore stays, for whoever still holds the lock.
    unsafe {
        drop_owner((*cast(slf)).held.take().0);
        0
    }
}

#[crate::entry]
unsafe extern "C" fn repr(slf: Obj) -> Obj {
    // SAFETY: as the C API calls it, on a lock.
    unsafe {
        text(|py| {
            let me = cast(slf);
            let owner = Bound::from_owned_ptr(py, or_none(owner(me)));
            Ok(format!(
                "<{} at {:#x} _block={} _count={} _owner={})>",
                class_name(py, slf)?,
                slf as usize,
                Bound::from_borrowed_ptr(py, (*me).block.cast()).str()?,
                (*me).held.depth(),
                owner.repr()?
            ))
        })
    }
}

#[crate::entry]
unsafe extern "C" fn get_block(slf: Obj, _: *mut c_void) -> Obj {
    // SAFETY: as the C API calls it, on a lock.
    unsafe { ffi::Py_NewRef((*cast(slf)).block.cast()) }
}

#[crate::entry]
unsafe extern "C" fn get_owner(slf: Obj, _: *mut c_void) -> Obj {
    // SAFETY: as the C API calls it, on a lock.
    unsafe { or_none(owner(cast(slf))) }
}

#[crate::entry]
unsafe extern "C" fn get_count(slf: Obj, _: *mut c_void) -> Obj {
    // SAFETY: as the C API calls it, on a lock.
    unsafe { ffi::PyLong_FromSize_t((*cast(slf)).held.depth()) }
}

/// Adds the type.
pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    let methods = vec![
        fast(
            c"acquire",
            acquire,
            0,
            c"acquire(blocking=True, timeout=None)\n\nAcquire the lock, waiting for it if *blocking*, at most *timeout* seconds. Returns whether it was acquired.",
        ),
        noargs(
            c"release",
            release,
            c"Release the lock once; RuntimeError if it does not belong to the current greenlet.",
        ),
        noargs(c"__enter__", enter, c"Acquire it."),
        fast(c"__exit__", exit, 0, c"Release it."),
        noargs(c"locked", locked, c"Return whether the lock is held."),
        crate::raw::one(
            c"_acquire_restore",
            acquire_restore,
            c"For threading.Condition.",
        ),
        noargs(c"_release_save", release_save, c"For threading.Condition."),
        noargs(
            c"_is_owned",
            is_owned,
            c"Return whether the current greenlet holds it.",
        ),
        noargs(
            c"__copy__",
            copy,
            c"Return a lock in the same state, with the same semaphore.",
        ),
        noargs(
            c"_at_fork_reinit",
            at_fork_reinit,
            c"Make it free, in the child after a fork.",
        ),
    ];
    let attributes = vec![
        attribute(
            c"_block",
            get_block,
            None,
            c"The semaphore of those who wait.",
        ),
        attribute(c"_owner", get_owner, None, c"The greenlet that holds it."),
        attribute(c"_count", get_count, None, c"How often it was acquired."),
    ];
    // SAFETY: at the module's initialisation, with the GIL held.
    unsafe {
        NewType::of::<RLock>(c"gevent.lock.RLock")
            .about(c"RLock(hub=None)\n\nA lock that belongs to a greenlet, which may acquire it any number of times. It must release it as many times. A native thread without other greenlets counts as a greenlet, so this works between threads as well as between greenlets.")
            .methods(methods)
            .attributes(attributes)
            .new_by(tp_new)
            .init_by(tp_init)
            .ended_by(dealloc, traverse, clear)
            .repr_by(repr)
            .weak(offset_of!(RLock, weak))
            .add(m, None)?;
    }
    Ok(())
}
