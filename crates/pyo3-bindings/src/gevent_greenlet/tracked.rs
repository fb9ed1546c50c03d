//! `TrackedRawGreenlet`: a raw greenlet that knows who spawned it, and `spawn_raw`, which makes them.

use super::types::types;
use crate::event_loop::Payload;
use crate::greenlet::{PyGreenlet, globals, lifecycle};
use crate::raw::Args;
use crate::sync::object::set;
use crate::thread_data::ThreadData;
use gevent_hub_core::fiber::Fiber;
use gevent_hub_core::reactor::Entry;
use pyo3::ffi::{self, PyObject};
use std::ffi::{c_int, c_void};
use std::ptr::null_mut;

/// A raw greenlet with its spawner. All `*mut PyObject` are owned references or null.
#[repr(C)]
pub struct TrackedObject {
    /// The raw greenlet; must stay first.
    pub base: PyGreenlet,
    /// A weak reference.
    pub spawning_greenlet: *mut PyObject,
    /// A dict that is shared along a tree of spawns.
    pub spawn_tree_locals: *mut PyObject,
    /// The loop that it was spawned on; for a hub, its loop.
    pub loop_: *mut PyObject,
}

/// Who spawns: a weak reference to the running greenlet, and the locals of its tree.
///
/// # Safety
/// The GIL is held.
pub unsafe fn spawner() -> Result<(*mut PyObject, *mut PyObject), ()> {
    // SAFETY: the running greenlet is alive; references are new.
    unsafe {
        let current = ThreadData::get().current.get().cast::<PyObject>();
        let weak = ffi::PyWeakref_NewRef(current, null_mut());
        if weak.is_null() {
            return Err(());
        }
        match tree_locals(current) {
            Ok(locals) => Ok((weak, locals)),
            Err(()) => {
                ffi::Py_DECREF(weak);
                Err(())
            }
        }
    }
}

/// The locals of the spawner's tree: a new reference, or null if the new greenlet begins a tree, which
/// gets its dictionary when somebody asks for it.
///
/// # Safety
/// The GIL is held; `current` is the running greenlet.
unsafe fn tree_locals(current: *mut PyObject) -> Result<*mut PyObject, ()> {
    // SAFETY: the caller's promise.
    unsafe {
        let t = types();
        if super::life::PyObject_IsGevent(current) {
            return Ok(ffi::Py_NewRef(own_locals(
                &raw mut (*current.cast::<super::object::GreenletObject>()).spawn_tree_locals,
            )?));
        }
        if ffi::PyObject_TypeCheck(current, t.tracked) != 0 {
            return Ok(ffi::Py_NewRef(own_locals(
                &raw mut (*current.cast::<TrackedObject>()).spawn_tree_locals,
            )?));
        }
        let raw = &*current.cast::<PyGreenlet>();
        if ffi::Py_TYPE(current) == globals().greenlet_type {
            // A look into the dictionary costs no AttributeError.
            let dict = raw.dict.get();
            if !dict.is_null() {
                let found = ffi::PyDict_GetItemWithError(dict, t.str_spawn_tree_locals);
                if !found.is_null() {
                    return Ok(ffi::Py_NewRef(found));
                }
            }
        } else {
            let found = ffi::PyObject_GetAttr(current, t.str_spawn_tree_locals);
            if !found.is_null() {
                return Ok(found);
            }
            if ffi::PyErr_ExceptionMatches(ffi::PyExc_AttributeError) == 0 {
                return Err(());
            }
            ffi::PyErr_Clear();
        }
        if raw.parent.get().is_null() {
            return Ok(null_mut());
        }
        let locals = ffi::PyDict_New();
        if locals.is_null() {
            return Err(());
        }
        if ffi::PyObject_SetAttr(current, t.str_spawn_tree_locals, locals) < 0 {
            ffi::Py_DECREF(locals);
            return Err(());
        }
        Ok(locals)
    }
}

/// The dictionary in a field, made if there is none; borrowed. `Err` with an error set.
///
/// # Safety
/// The field owns its value; the GIL is held.
pub unsafe fn own_locals(field: *mut *mut PyObject) -> Result<*mut PyObject, ()> {
    // SAFETY: the caller's promise.
    unsafe {
        if (*field).is_null() {
            let made = ffi::PyDict_New();
            if made.is_null() {
                return Err(());
            }
            set(field, made);
        }
        Ok(*field)
    }
}

/// `tp_new`: the fields are null, the parent the running greenlet.
#[crate::entry]
pub unsafe extern "C" fn tp_new(
    ty: *mut ffi::PyTypeObject,
    args: *mut PyObject,
    kwargs: *mut PyObject,
) -> *mut PyObject {
    let _ = (args, kwargs);
    // SAFETY: `ty` is this type or one below it.
    unsafe {
        let g = PyGreenlet::alloc(ty, Fiber::new());
        if g.is_null() {
            return null_mut();
        }
        (*g).parent
            .set(ffi::Py_NewRef(ThreadData::get().current.get().cast()).cast());
        g.cast()
    }
}

/// `tp_init(run, parent)`: as greenlet's, and remembers the spawner.
#[crate::entry]
pub unsafe extern "C" fn tp_init(
    slf: *mut PyObject,
    args: *mut PyObject,
    kwargs: *mut PyObject,
) -> c_int {
    // SAFETY: a tracked greenlet; the base's initialiser takes the same arguments.
    unsafe {
        let Some(base_init) = (*globals().greenlet_type).tp_init else {
            return -1;
        };
        let kwargs_of_base = rename_function(kwargs);
        let r = base_init(slf, args, kwargs_of_base);
        ffi::Py_XDECREF(kwargs_of_base);
        if r < 0 {
            return r;
        }
        let me = slf.cast::<TrackedObject>();
        let Ok((weak, locals)) = spawner() else {
            return -1;
        };
        set(&raw mut (*me).spawning_greenlet, weak);
        set(&raw mut (*me).spawn_tree_locals, locals);
        0
    }
}

/// Upstream calls the first parameter `function`; greenlet calls it `run`.
///
/// # Safety
/// The GIL is held; `kwargs` is a dictionary or null.
unsafe fn rename_function(kwargs: *mut PyObject) -> *mut PyObject {
    // SAFETY: null or a dictionary; a new reference is returned.
    unsafe {
        if kwargs.is_null() {
            return null_mut();
        }
        let function = ffi::PyDict_GetItemString(kwargs, c"function".as_ptr());
        if function.is_null() {
            return ffi::Py_NewRef(kwargs);
        }
        let copy = ffi::PyDict_Copy(kwargs);
        if !copy.is_null() {
            ffi::PyDict_SetItemString(copy, c"run".as_ptr(), function);
            ffi::PyDict_DelItemString(copy, c"function".as_ptr());
        }
        copy
    }
}

#[crate::entry(silent)]
pub unsafe extern "C" fn traverse(
    slf: *mut PyObject,
    visit: ffi::visitproc,
    arg: *mut c_void,
) -> c_int {
    // SAFETY: the collector's protocol.
    unsafe {
        let me = &*slf.cast::<TrackedObject>();
        for p in [me.spawning_greenlet, me.spawn_tree_locals, me.loop_] {
            if !p.is_null() {
                let r = visit(p, arg);
                if r != 0 {
                    return r;
                }
            }
        }
        lifecycle::traverse(slf, visit, arg)
    }
}

/// # Safety
/// The GIL is held; `slf` is a `TrackedObject` that is being cleared or freed.
pub unsafe fn drop_fields(slf: *mut PyObject) {
    // SAFETY: the object is being cleared or freed, with the GIL held.
    unsafe {
        let me = slf.cast::<TrackedObject>();
        for f in [
            &raw mut (*me).spawning_greenlet,
            &raw mut (*me).spawn_tree_locals,
            &raw mut (*me).loop_,
        ] {
            set(f, null_mut());
        }
    }
}

#[crate::entry]
pub unsafe extern "C" fn clear(slf: *mut PyObject) -> c_int {
    // SAFETY: the collector's protocol.
    unsafe {
        drop_fields(slf);
        lifecycle::tp_clear(slf)
    }
}

#[crate::entry]
pub unsafe extern "C" fn dealloc(slf: *mut PyObject) {
    // SAFETY: the slot's contract.
    unsafe { lifecycle::dealloc_with(slf, drop_fields) }
}

/// `spawn_raw(function, *args, **kwargs)`.
#[crate::entry]
pub unsafe extern "C" fn spawn_raw(
    _module: *mut PyObject,
    items: *const *mut PyObject,
    n: ffi::Py_ssize_t,
    names: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: as the C API calls it.
    unsafe {
        let args = Args::new(items, n, names);
        if args.is_empty() || ffi::PyCallable_Check(args.at(0)) == 0 {
            let text = if args.is_empty() {
                c"spawn_raw() missing 1 required positional argument: 'function'"
            } else {
                c"function must be callable"
            };
            ffi::PyErr_SetString(ffi::PyExc_TypeError, text.as_ptr());
            return null_mut();
        }
        let Ok(hub) = crate::hub::get_core() else {
            return null_mut();
        };
        let function = if args.len() > 1 || args.keywords() > 0 {
            bind(&args)
        } else {
            ffi::Py_NewRef(args.at(0))
        };
        if function.is_null() {
            return null_mut();
        }
        let t = types();
        let tracked = super::tracking();
        let ty = if tracked {
            t.tracked
        } else {
            globals().greenlet_type
        };
        let g = PyGreenlet::alloc(ty, Fiber::new());
        if g.is_null() {
            ffi::Py_DECREF(function);
            return null_mut();
        }
        (*g).run.set(function);
        (*g).parent
            .set(ffi::Py_NewRef(hub.greenlet().cast()).cast());
        if tracked {
            let me = g.cast::<TrackedObject>();
            let Ok((weak, locals)) = spawner() else {
                ffi::Py_DECREF(g.cast());
                return null_mut();
            };
            (*me).spawning_greenlet = weak;
            (*me).spawn_tree_locals = locals;
            (*me).loop_ = ffi::Py_NewRef(hub.loop_object());
        } else if ffi::PyObject_SetAttrString(g.cast(), c"loop".as_ptr(), hub.loop_object()) < 0 {
            ffi::Py_DECREF(g.cast());
            return null_mut();
        }
        ffi::Py_INCREF(g.cast());
        hub.reactor()
            .push(Entry::Call(Payload::Start(g.cast()).into_word()));
        g.cast()
    }
}

/// `functools.partial(*args, **kwargs)`.
///
/// # Safety
/// The GIL is held.
unsafe fn bind(args: &Args) -> *mut PyObject {
    // SAFETY: the GIL is held; references are new.
    unsafe {
        let all = args.tuple_from(0);
        let Ok(kwargs) = args.dict(None) else {
            ffi::Py_XDECREF(all);
            return null_mut();
        };
        let r = if all.is_null() {
            null_mut()
        } else {
            ffi::PyObject_Call(types().partial, all, kwargs)
        };
        ffi::Py_XDECREF(all);
        ffi::Py_XDECREF(kwargs);
        r
    }
}

macro_rules! field_access {
    ($get:ident, $set:ident, $field:ident, $name:literal) => {
        /// The attribute's value; AttributeError when it was never set.
        #[crate::entry]
        pub unsafe extern "C" fn $get(slf: *mut PyObject, _: *mut c_void) -> *mut PyObject {
            // SAFETY: a tracked greenlet.
            unsafe {
                let p = (*slf.cast::<TrackedObject>()).$field;
                if p.is_null() {
                    ffi::PyErr_SetString(ffi::PyExc_AttributeError, $name.as_ptr());
                    return null_mut();
                }
                ffi::Py_NewRef(p)
            }
        }

        /// Sets or deletes it.
        #[crate::entry]
        pub unsafe extern "C" fn $set(
            slf: *mut PyObject,
            value: *mut PyObject,
            _: *mut c_void,
        ) -> c_int {
            // SAFETY: a tracked greenlet.
            unsafe {
                ffi::Py_XINCREF(value);
                set(&raw mut (*slf.cast::<TrackedObject>()).$field, value);
                0
            }
        }
    };
}

field_access!(
    get_spawning,
    set_spawning,
    spawning_greenlet,
    c"spawning_greenlet"
);
field_access!(
    _get_locals_raw,
    set_locals,
    spawn_tree_locals,
    c"spawn_tree_locals"
);

/// `spawn_tree_locals`: made when it is first asked for.
#[crate::entry]
pub unsafe extern "C" fn get_locals(slf: *mut PyObject, _: *mut c_void) -> *mut PyObject {
    // SAFETY: as the C API calls it, on a tracked greenlet.
    unsafe {
        match own_locals(&raw mut (*slf.cast::<TrackedObject>()).spawn_tree_locals) {
            Ok(locals) => ffi::Py_NewRef(locals),
            Err(()) => null_mut(),
        }
    }
}

field_access!(get_loop, set_loop, loop_, c"loop");
