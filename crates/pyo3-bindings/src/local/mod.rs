//! `gevent.local.local`: an object whose attributes each greenlet has for itself.
//!
//! Attributes are found as `object` finds them, with the running greenlet's dictionary in place of the
//! instance's: data descriptors of the class, then the dictionary, then the rest of the class. A
//! greenlet that comes for the first time gets a dictionary, and `__init__` is called for it.
//!
//! # Safety
//! The GIL is held. `slf` is a `local` and `name` a string; the caller has a reference to each object.

mod state;

use crate::raw::{_PyType_Lookup, is_name, noargs};
use crate::raw_type::NewType;
use crate::statics::{Immortal, intern};
use crate::sync::object::{alloc, attribute, free};
use crate::thread_data::ThreadData;
use pyo3::ffi::{self, PyObject, PyTypeObject};
use pyo3::prelude::*;
use state::State;
use std::ffi::{CStr, c_int, c_void};
use std::ptr::null_mut;

type Obj = *mut PyObject;

/// In a greenlet's dictionary, the key of a weak reference to a state begins with this.
const KEY_PREFIX: &str = "_gevent_local_localimpl_";

/// A `local`. The state is an owned reference, and there from the beginning to the end.
#[repr(C)]
struct Local {
    base: ffi::PyObject,
    state: *mut State,
}

struct Names {
    local: *mut PyTypeObject,
    /// The descriptor of `object.__class__`.
    class: Obj,
    /// The descriptor of `local._local__impl`.
    state: Obj,
    str_dict: Obj,
    str_init: Obj,
    str_set: Obj,
    str_delete: Obj,
}

static NAMES: Immortal<Names> = Immortal::new();

/// The running greenlet's values: a new reference, null with an error set. Calls `__init__` if it has
/// none yet.
///
/// # Safety
/// As the module says.
#[inline]
unsafe fn values(slf: Obj) -> Obj {
    // SAFETY: the caller's promise.
    unsafe {
        let state = (*slf.cast::<Local>()).state;
        let g = ThreadData::get().current.get();
        let found = State::values(state, g);
        if found.is_null() {
            return first_values(slf);
        }
        ffi::Py_NewRef(found)
    }
}

/// # Safety
/// As the module says.
#[cold]
unsafe fn first_values(slf: Obj) -> Obj {
    // SAFETY: as `values`. The dictionary is there before `__init__` uses it.
    unsafe {
        let state = (*slf.cast::<Local>()).state;
        let values = State::enter(state, ThreadData::get().current.get());
        if values.is_null() {
            return values;
        }
        ffi::Py_INCREF(values);
        let init = ffi::PyObject_GetAttr(slf, NAMES.str_init);
        let r = if init.is_null() {
            init
        } else {
            ffi::PyObject_Call(init, (*state).args, (*state).kwargs)
        };
        ffi::Py_XDECREF(init);
        if r.is_null() {
            ffi::Py_DECREF(values);
            return null_mut();
        }
        ffi::Py_DECREF(r);
        values
    }
}

/// Whether a name is `__dict__`, cheaply for all others.
///
/// # Safety
/// As the module says.
#[inline]
unsafe fn is_dict(name: Obj) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        name == NAMES.str_dict
            || (ffi::PyUnicode_GET_LENGTH(name) == 8 && is_name(name, c"__dict__"))
    }
}

/// # Safety
/// As the module says.
unsafe fn check_name(name: Obj) -> Result<(), ()> {
    // SAFETY: the caller's promise.
    unsafe {
        if ffi::PyUnicode_Check(name) != 0 {
            return Ok(());
        }
        let text = c"attribute name must be string, not '%.200s'";
        ffi::PyErr_Format(
            ffi::PyExc_TypeError,
            text.as_ptr(),
            (*ffi::Py_TYPE(name)).tp_name,
        );
        Err(())
    }
}

/// # Safety
/// As the module says; `ty` is a type.
unsafe fn missing(ty: *mut PyTypeObject, name: Obj) -> Obj {
    // SAFETY: the caller's promise.
    unsafe {
        let class = ffi::PyObject_GetAttrString(ty.cast(), c"__name__".as_ptr());
        if class.is_null() {
            return class;
        }
        let text = c"%R object has no attribute '%U'";
        ffi::PyErr_Format(ffi::PyExc_AttributeError, text.as_ptr(), class, name);
        ffi::Py_DECREF(class);
        null_mut()
    }
}

/// An item of a dictionary: a new reference; null, perhaps with an error set.
///
/// # Safety
/// As the module says; `dict` is a dictionary.
#[inline]
unsafe fn item(dict: Obj, key: Obj) -> Obj {
    // SAFETY: the caller's promise.
    unsafe {
        let found = ffi::PyDict_GetItemWithError(dict, key);
        ffi::Py_XINCREF(found);
        found
    }
}

#[crate::entry]
unsafe extern "C" fn getattro(slf: Obj, name: Obj) -> Obj {
    // SAFETY: the slot's contract; what is used over a call is held.
    unsafe {
        if check_name(name).is_err() {
            return null_mut();
        }
        let ty = ffi::Py_TYPE(slf);
        let found = _PyType_Lookup(ty, name);
        if found.is_null() && !is_dict(name) {
            let values = values(slf);
            if values.is_null() {
                return values;
            }
            let value = item(values, name);
            ffi::Py_DECREF(values);
            if value.is_null() && ffi::PyErr_Occurred().is_null() {
                return missing(ty, name);
            }
            return value;
        }
        get_from_class(slf, name, found)
    }
}

/// As `getattro`, for a name that the class has (`found`, borrowed), or `__dict__`.
///
/// # Safety
/// As the module says.
unsafe fn get_from_class(slf: Obj, name: Obj, found: Obj) -> Obj {
    // SAFETY: as `getattro`.
    unsafe {
        let n = &*NAMES;
        if found == n.class || found == n.state {
            // isinstance() asks for the class: that is no use of the object by this greenlet.
            return ffi::PyObject_GenericGetAttr(slf, name);
        }
        ffi::Py_XINCREF(found);
        let values = values(slf);
        if values.is_null() || is_dict(name) {
            ffi::Py_XDECREF(found);
            return values;
        }
        let get = (*ffi::Py_TYPE(found)).tp_descr_get;
        let is_data = get.is_some() && (*ffi::Py_TYPE(found)).tp_descr_set.is_some();
        let mut result = null_mut();
        if !is_data {
            result = item(values, name);
        }
        ffi::Py_DECREF(values);
        if result.is_null() && ffi::PyErr_Occurred().is_null() {
            match get {
                Some(get) => {
                    result = crate::tstate::tp_descr_get(get, found, slf, ffi::Py_TYPE(slf).cast());
                }
                None => return found,
            }
        }
        ffi::Py_DECREF(found);
        result
    }
}

/// Whether the class of a descriptor says what assignment (or deletion) is.
///
/// # Safety
/// As the module says; `value` may be null.
unsafe fn has_method(descriptor: Obj, value: Obj) -> bool {
    // SAFETY: an object; a borrowed look-up.
    unsafe {
        let n = &*NAMES;
        let name = if value.is_null() {
            n.str_delete
        } else {
            n.str_set
        };
        !_PyType_Lookup(ffi::Py_TYPE(descriptor), name).is_null()
    }
}

#[crate::entry]
unsafe extern "C" fn setattro(slf: Obj, name: Obj, value: Obj) -> c_int {
    // SAFETY: the slot's contract; what is used over a call is held. A null value deletes.
    unsafe {
        if check_name(name).is_err() {
            return -1;
        }
        if is_dict(name) {
            return read_only(slf, value);
        }
        let ty = ffi::Py_TYPE(slf);
        let found = _PyType_Lookup(ty, name);
        let set = if found.is_null() {
            None
        } else {
            (*ffi::Py_TYPE(found)).tp_descr_set
        };
        if let Some(set) = set
            && has_method(found, value)
        {
            ffi::Py_INCREF(found);
            // Assigning is a use of the object by this greenlet.
            let uses = !value.is_null() && found != NAMES.class && found != NAMES.state;
            let values = if uses { values(slf) } else { null_mut() };
            let r = if uses && values.is_null() {
                -1
            } else {
                set(found, slf, value)
            };
            ffi::Py_XDECREF(values);
            ffi::Py_DECREF(found);
            return r;
        }
        let values = values(slf);
        if values.is_null() {
            return -1;
        }
        let r = if value.is_null() {
            let r = ffi::PyDict_DelItem(values, name);
            if r < 0 && ffi::PyErr_ExceptionMatches(ffi::PyExc_KeyError) != 0 {
                ffi::PyErr_Clear();
                ffi::PyErr_SetObject(ffi::PyExc_AttributeError, name);
            }
            r
        } else {
            ffi::PyDict_SetItem(values, name, value)
        };
        ffi::Py_DECREF(values);
        r
    }
}

/// # Safety
/// As the module says.
unsafe fn read_only(slf: Obj, value: Obj) -> c_int {
    // SAFETY: the caller's promise.
    unsafe {
        let ty: Obj = ffi::Py_TYPE(slf).cast();
        let shown = if value.is_null() {
            ffi::PyObject_GetAttrString(ty, c"__name__".as_ptr())
        } else {
            ffi::Py_NewRef(ty)
        };
        if !shown.is_null() {
            let text = c"%R object attribute '__dict__' is read-only";
            ffi::PyErr_Format(ffi::PyExc_AttributeError, text.as_ptr(), shown);
            ffi::Py_DECREF(shown);
        }
        -1
    }
}

#[crate::entry]
unsafe extern "C" fn tp_new(ty: *mut PyTypeObject, args: Obj, kwargs: Obj) -> Obj {
    // SAFETY: the slot's contract; borrowed arguments.
    unsafe {
        let given =
            ffi::PyTuple_GET_SIZE(args) > 0 || (!kwargs.is_null() && ffi::PyDict_Size(kwargs) > 0);
        let of_object = ffi::PyBaseObject_Type.tp_init;
        if given && (*ty).tp_init.map(|f| f as usize) == of_object.map(|f| f as usize) {
            let kwargs = if kwargs.is_null() {
                ffi::PyDict_New()
            } else {
                ffi::Py_NewRef(kwargs)
            };
            let text = c"Initialization arguments are not supported";
            let text = ffi::PyUnicode_FromString(text.as_ptr());
            if !text.is_null() && !kwargs.is_null() {
                let error = ffi::PyTuple_Pack(3, text, args, kwargs);
                if !error.is_null() {
                    ffi::PyErr_SetObject(ffi::PyExc_TypeError, error);
                    ffi::Py_DECREF(error);
                }
            }
            ffi::Py_XDECREF(text);
            ffi::Py_XDECREF(kwargs);
            return null_mut();
        }
        let me = alloc(ty);
        if me.is_null() {
            return me;
        }
        let state = State::make(ty, me, args, kwargs);
        if state.is_null() {
            ffi::Py_DECREF(me);
            return null_mut();
        }
        (*me.cast::<Local>()).state = state;
        // Now, so that __init__, which is called next, does not find it missing and is run twice.
        if State::enter(state, ThreadData::get().current.get()).is_null() {
            ffi::Py_DECREF(me);
            return null_mut();
        }
        me
    }
}

#[crate::entry]
unsafe extern "C" fn dealloc(slf: Obj) {
    // SAFETY: the slot's contract.
    unsafe {
        ffi::PyObject_GC_UnTrack(slf.cast());
        ffi::Py_XDECREF((*slf.cast::<Local>()).state.cast());
        free(slf);
    }
}

#[crate::entry(silent)]
unsafe extern "C" fn traverse(slf: Obj, visit: ffi::visitproc, arg: *mut c_void) -> c_int {
    // SAFETY: the collector's protocol.
    unsafe {
        let r = visit(ffi::Py_TYPE(slf).cast(), arg);
        let state = (*slf.cast::<Local>()).state;
        if r == 0 && !state.is_null() {
            return visit(state.cast(), arg);
        }
        r
    }
}

/// Cycles are broken where they are closed, in the state: methods need the state to the end.
#[crate::entry]
unsafe extern "C" fn clear(_: Obj) -> c_int {
    0
}

#[crate::entry]
unsafe extern "C" fn copy(slf: Obj, _: Obj) -> Obj {
    // SAFETY: a `local`; what is used over a call is held.
    unsafe {
        let state = (*slf.cast::<Local>()).state;
        let g = ThreadData::get().current.get();
        let found = State::values(state, g);
        if found.is_null() {
            let id = ffi::PyLong_FromVoidPtr(g.cast());
            if !id.is_null() {
                ffi::PyErr_SetObject(ffi::PyExc_KeyError, id);
                ffi::Py_DECREF(id);
            }
            return null_mut();
        }
        let values = ffi::PyDict_Copy(found);
        if values.is_null() {
            return values;
        }
        let ty: Obj = ffi::Py_TYPE(slf).cast();
        let duplicate = ffi::PyObject_Call(ty, (*state).args, (*state).kwargs);
        if duplicate.is_null() || ffi::PyObject_TypeCheck(duplicate, NAMES.local) == 0 {
            ffi::Py_DECREF(values);
            return duplicate;
        }
        let state = (*duplicate.cast::<Local>()).state;
        if State::enter_with(state, ThreadData::get().current.get(), values).is_null() {
            ffi::Py_DECREF(duplicate);
            return null_mut();
        }
        duplicate
    }
}

#[crate::entry]
unsafe extern "C" fn get_state(slf: Obj, _: *mut c_void) -> Obj {
    // SAFETY: as the C API calls it, on a `local`.
    unsafe { ffi::Py_NewRef((*slf.cast::<Local>()).state.cast()) }
}

const ABOUT: &CStr = c"An object whose attributes are greenlet-local.\n\nA subclass may have an `__init__` with arguments: it is called, with the arguments of the constructor, in each greenlet that uses the object. Slots are shared by all greenlets.";

/// Adds the types.
pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    state::register(m)?;
    let methods = vec![noargs(
        c"__copy__",
        copy,
        c"Return a new object with the values that this greenlet has.",
    )];
    let attributes = vec![attribute(
        c"_local__impl",
        get_state,
        None,
        c"What stands behind the object.",
    )];
    // SAFETY: at the module's initialisation, with the GIL held.
    unsafe {
        let ty = NewType::of::<Local>(c"gevent.local.local")
            .about(ABOUT)
            .methods(methods)
            .attributes(attributes)
            .new_by(tp_new)
            .ended_by(dealloc, traverse, clear)
            .slot(ffi::Py_tp_getattro, getattro as *mut c_void)
            .slot(ffi::Py_tp_setattro, setattro as *mut c_void)
            .add(m, None)?;
        NAMES.set(Names {
            local: ty,
            class: _PyType_Lookup(ty, intern(c"__class__")),
            state: _PyType_Lookup(ty, intern(c"_local__impl")),
            str_dict: intern(c"__dict__"),
            str_init: intern(c"__init__"),
            str_set: intern(c"__set__"),
            str_delete: intern(c"__delete__"),
        });
        m.add("_local_key_prefix", KEY_PREFIX)
    }
}
