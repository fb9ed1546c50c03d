//! The slots of `gevent.Greenlet`: how one is made, visited, cleared and freed.

use super::life::{self};
use super::object::{GreenletObject, StartState};
use super::spawn_site::{LIMIT, SpawnSite};
use super::tracked::spawner;
use super::types::types;
use crate::greenlet::{Flags, PyGreenlet, globals, lifecycle};
use crate::hub::get_core;
use crate::raw::{self, absent, none};
use crate::sync::object::set;
use crate::thread_data::ThreadData;
use gevent_hub_core::fiber::Fiber;
use pyo3::ffi::{self, PyObject};
use std::ffi::{c_int, c_void};
use std::ptr::null_mut;

type Obj = *mut PyObject;

fn cast(slf: Obj) -> *mut GreenletObject {
    slf.cast()
}

#[crate::entry]
pub unsafe extern "C" fn tp_new(ty: *mut ffi::PyTypeObject, _args: Obj, _kwargs: Obj) -> Obj {
    // SAFETY: `ty` is this type or one below it.
    unsafe {
        let g = PyGreenlet::alloc(ty, Fiber::new());
        if g.is_null() {
            return null_mut();
        }
        GreenletObject::init_fields(g.cast());
        if super::is_plain_class(ty)
            || raw::_PyType_Lookup(ty, globals().str_run) == types().run_method
        {
            (*g).native_run.set(Some(life::body));
        }
        if !super::is_plain_class(ty)
            && raw::_PyType_Lookup(ty, globals().str_switch) != types().switch_method
        {
            (*g).add_flag(Flags::OWN_SWITCH);
        }
        (*g).parent
            .set(ffi::Py_NewRef(ThreadData::get().current.get().cast()).cast());
        g.cast()
    }
}

/// `Greenlet(run=None, *args, **kwargs)`.
#[crate::entry]
pub unsafe extern "C" fn tp_init(slf: Obj, args: Obj, kwargs: Obj) -> c_int {
    // SAFETY: as the C API calls it.
    unsafe {
        if (*cast(slf)).base.started() {
            // A second time, which would take the arguments and the parent from under it.
            let text = c"run cannot be set after the start of the greenlet";
            ffi::PyErr_SetString(ffi::PyExc_AttributeError, text.as_ptr());
            return -1;
        }
        let n = ffi::PyTuple_GET_SIZE(args);
        let mut run = if n > 0 {
            ffi::PyTuple_GET_ITEM(args, 0)
        } else {
            null_mut()
        };
        let rest = if n > 1 {
            ffi::PyTuple_GetSlice(args, 1, n)
        } else {
            ffi::Py_NewRef(globals().empty_tuple)
        };
        if rest.is_null() {
            return -1;
        }
        let mut own_kwargs = null_mut();
        if !kwargs.is_null() && ffi::PyDict_Size(kwargs) > 0 {
            own_kwargs = ffi::PyDict_Copy(kwargs);
            if own_kwargs.is_null() {
                ffi::Py_DECREF(rest);
                return -1;
            }
            let named = ffi::PyDict_GetItemString(kwargs, c"run".as_ptr());
            if !named.is_null() {
                if !run.is_null() {
                    let text = c"__init__() got multiple values for argument 'run'";
                    ffi::PyErr_SetString(ffi::PyExc_TypeError, text.as_ptr());
                    ffi::Py_XDECREF(own_kwargs);
                    ffi::Py_XDECREF(rest);
                    return -1;
                }
                run = named;
                if ffi::PyDict_DelItemString(own_kwargs, c"run".as_ptr()) < 0 {
                    ffi::Py_DECREF(own_kwargs);
                    ffi::Py_DECREF(rest);
                    return -1;
                }
            }
        }
        match fill(cast(slf), run, rest, own_kwargs) {
            Ok(()) => 0,
            Err(()) => -1,
        }
    }
}

/// Sets up a new greenlet: `run` is borrowed and may be null, `args` and `kwargs` are stolen.
///
/// # Safety
/// The GIL is held; `me` is new, `run` borrowed, and `args` and `kwargs` owned or null.
pub(super) unsafe fn fill(
    me: *mut GreenletObject,
    run: Obj,
    args: Obj,
    kwargs: Obj,
) -> Result<(), ()> {
    // SAFETY: the caller's promise.
    unsafe {
        let Ok(hub) = get_core() else {
            ffi::Py_XDECREF(args);
            ffi::Py_XDECREF(kwargs);
            return Err(());
        };
        set(&raw mut (*me).args, args);
        set(&raw mut (*me).kwargs, kwargs);
        let old = (*me)
            .base
            .parent
            .replace(ffi::Py_NewRef(hub.greenlet().cast()).cast());
        ffi::Py_XDECREF(old.cast());
        if !absent(run) {
            if ffi::PyCallable_Check(run) == 0 {
                let text = c"The run argument or self._run must be callable";
                ffi::PyErr_SetString(ffi::PyExc_TypeError, text.as_ptr());
                return Err(());
            }
            let found = raw::_PyType_Lookup(ffi::Py_TYPE(me.cast()), types().str_run_);
            if found == types().run_descriptor {
                set(&raw mut (*me).func, ffi::Py_NewRef(run));
            } else if ffi::PyObject_SetAttr(me.cast(), types().str_run_, run) < 0 {
                return Err(());
            }
        } else {
            life::has_runner(me)?;
        }
        if super::tracking() {
            let (weak, locals) = spawner()?;
            set(&raw mut (*me).spawning_greenlet, weak);
            set(&raw mut (*me).spawn_tree_locals, locals);
            let limit = stack_limit(me)?;
            let site = SpawnSite::capture(hub.td().tstate, limit);
            // One that is there, if this is a second time, is dropped when it is out of reach.
            drop(std::mem::replace(&mut (*me).site, site));
        } else {
            set(&raw mut (*me).spawning_greenlet, none());
            set(&raw mut (*me).spawn_tree_locals, none());
        }
        Ok(())
    }
}

/// A `gevent.Greenlet` that runs `callable` without arguments: a new reference. `Err` with an error set.
///
/// # Safety
/// The GIL is held.
pub(super) unsafe fn plain(callable: Obj) -> Result<Obj, ()> {
    // SAFETY: the public class is the native one or a subclass without a constructor of its own.
    unsafe {
        let g = tp_new(super::public_class(), null_mut(), null_mut());
        if g.is_null() {
            return Err(());
        }
        let args = ffi::Py_NewRef(globals().empty_tuple);
        if fill(g.cast(), callable, args, null_mut()).is_err() {
            ffi::Py_DECREF(g);
            return Err(());
        }
        Ok(g)
    }
}

/// How many frames its class wants to be kept, which says `spawning_stack_limit`; a negative number is for all of
/// them. `Err` with an error set.
///
/// # Safety
/// The GIL is held; `me` is alive.
unsafe fn stack_limit(me: *mut GreenletObject) -> Result<usize, ()> {
    // SAFETY: the caller's promise.
    unsafe {
        if ffi::Py_TYPE(me.cast()) == super::public_class() {
            return Ok(LIMIT);
        }
        let found = ffi::PyObject_GetAttr(me.cast(), types().str_stack_limit);
        if found.is_null() {
            return Err(());
        }
        let limit = ffi::PyLong_AsLong(found);
        ffi::Py_DECREF(found);
        if limit == -1 && !ffi::PyErr_Occurred().is_null() {
            return Err(());
        }
        Ok(usize::try_from(limit).unwrap_or(usize::MAX))
    }
}

#[crate::entry(silent)]
pub unsafe extern "C" fn traverse(slf: Obj, visit: ffi::visitproc, arg: *mut c_void) -> c_int {
    // SAFETY: the collector's protocol.
    unsafe {
        let r = GreenletObject::traverse(cast(slf), visit, arg);
        if r != 0 {
            r
        } else {
            lifecycle::traverse(slf, visit, arg)
        }
    }
}

#[crate::entry]
pub unsafe extern "C" fn clear(slf: Obj) -> c_int {
    // SAFETY: the collector's protocol.
    unsafe {
        GreenletObject::clear(cast(slf));
        lifecycle::tp_clear(slf)
    }
}

/// # Safety
/// The GIL is held; `slf` is a `Greenlet` that is being cleared or freed.
unsafe fn drop_fields(slf: Obj) {
    // SAFETY: called once, when the object is certainly going.
    unsafe {
        let me = cast(slf);
        GreenletObject::clear(me);
        // The vectors' memory; they are empty.
        std::ptr::drop_in_place(&raw mut (*me).links);
    }
}

#[crate::entry]
pub unsafe extern "C" fn dealloc(slf: Obj) {
    // SAFETY: the slot's contract.
    unsafe { lifecycle::dealloc_with(slf, drop_fields) }
}

#[crate::entry]
pub unsafe extern "C" fn truth(slf: Obj) -> c_int {
    // SAFETY: as the C API calls it, on a `Greenlet`.
    unsafe {
        c_int::from((*cast(slf)).start != StartState::Never && (*cast(slf)).exc_info.is_null())
    }
}
