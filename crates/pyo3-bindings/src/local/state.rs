//! What stands behind one `local`: its constructor's arguments, and a dictionary for each greenlet.
//!
//! An entry goes when its greenlet ends, when the greenlet object goes, or with the `local`. It is found
//! by the greenlet's address, so it must never outlive the object: that is why there is a weak reference
//! even where a link tells of the end.
//!
//! # Safety
//! The GIL is held. `me` is a state and `g` a greenlet; the caller has a reference to each object.

use super::Obj;
use crate::gevent_greenlet::{is_gevent, link, unlink};
use crate::greenlet::PyGreenlet;
use crate::raw::{_PyType_Lookup, none};
use crate::raw_type::NewType;
use crate::statics::{Immortal, intern};
use crate::sync::object::{alloc, attribute, free, or_none};
use pyo3::ffi::{self, PyTypeObject};
use pyo3::prelude::*;
use std::collections::HashMap;
use std::ffi::{CString, c_int, c_void};
use std::hash::{BuildHasherDefault, Hasher};
use std::mem::offset_of;
use std::ptr::null_mut;

/// Spreads an address: the default hasher would be most of a look-up.
#[derive(Default)]
pub struct AddressHasher(u64);

impl Hasher for AddressHasher {
    fn write(&mut self, bytes: &[u8]) {
        for &b in bytes {
            self.write_usize(usize::from(b));
        }
    }

    fn write_usize(&mut self, n: usize) {
        // Multiplied by 2^64 / phi; the table takes the high bits as well as the low ones.
        self.0 = (self.0 ^ n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }
}

/// What one greenlet has in a `local`. All are owned references.
struct Entry {
    values: Obj,
    /// A weak reference to the greenlet, with `ended` as its callback.
    greenlet: Obj,
    /// An [`Ended`].
    ended: Obj,
}

/// The state of a `local`. `kwargs` may be null; the other references are owned.
#[repr(C)]
pub struct State {
    base: ffi::PyObject,
    weak: Obj,
    pub args: Obj,
    pub kwargs: Obj,
    class: Obj,
    /// The address of the `local`, for those who list them.
    owner: usize,
    /// The key in greenlets' dictionaries.
    key: Obj,
    /// Who asked last, and the values that it has: borrowed from the entry.
    last: usize,
    last_values: Obj,
    entries: HashMap<usize, Entry, BuildHasherDefault<AddressHasher>>,
}

/// Called when a greenlet has ended: takes its entry away.
#[repr(C)]
struct Ended {
    base: ffi::PyObject,
    /// Null once the entry is gone.
    state: *mut State,
    greenlet: usize,
}

struct Types {
    state: *mut PyTypeObject,
    ended: *mut PyTypeObject,
    str_rawlink: Obj,
    str_unlink: Obj,
}

static TYPES: Immortal<Types> = Immortal::new();

/// What a weak reference refers to: a new reference, or null.
///
/// # Safety
/// As the module says; `weak` is a weak reference.
unsafe fn target(weak: Obj) -> Obj {
    let mut found = null_mut();
    // SAFETY: a weak reference; the GIL is held.
    unsafe {
        if ffi::compat::PyWeakref_GetRef(weak, &raw mut found) < 0 {
            ffi::PyErr_Clear();
        }
    }
    found
}

/// Runs what must not disturb an error that is set.
///
/// # Safety
/// As the module says.
unsafe fn quietly(f: impl FnOnce()) {
    // SAFETY: the caller's promise.
    unsafe {
        let error = crate::tstate::take_raised();
        f();
        ffi::PyErr_Clear();
        if !error.is_null() {
            crate::tstate::set_raised(error);
        }
    }
}

impl Entry {
    /// Drops the references. Runs Python.
    ///
    /// # Safety
    /// The GIL is held.
    unsafe fn release(self) {
        // SAFETY: owned references; the GIL is held.
        unsafe {
            (*self.ended.cast::<Ended>()).state = null_mut();
            for p in [self.greenlet, self.ended, self.values] {
                ffi::Py_DECREF(p);
            }
        }
    }
}

/// Removes the key from a greenlet's dictionary.
///
/// # Safety
/// As the module says.
unsafe fn forget_key(g: *mut PyGreenlet, key: Obj) {
    // SAFETY: the caller's promise.
    unsafe {
        let dict = (*g).dict.get();
        if !dict.is_null() && !key.is_null() {
            quietly(|| {
                ffi::PyDict_DelItem(dict, key);
            });
        }
    }
}

impl State {
    /// For `class(*args, **kwargs)` at the address `owner`; null with an error set. The arguments are
    /// borrowed.
    ///
    /// # Safety
    /// The GIL is held.
    pub unsafe fn make(class: *mut PyTypeObject, owner: Obj, args: Obj, kwargs: Obj) -> *mut Self {
        // SAFETY: zeroed memory, in which what is no plain value is written.
        unsafe {
            let me = alloc(TYPES.state).cast::<State>();
            if me.is_null() {
                return me;
            }
            (&raw mut (*me).entries).write(HashMap::default());
            (*me).class = ffi::Py_NewRef(class.cast());
            (*me).owner = owner as usize;
            (*me).args = ffi::Py_NewRef(args);
            if !kwargs.is_null() && ffi::PyDict_Size(kwargs) > 0 {
                (*me).kwargs = ffi::PyDict_Copy(kwargs);
                if (*me).kwargs.is_null() {
                    ffi::Py_DECREF(me.cast());
                    return null_mut();
                }
            }
            let key = CString::new(format!("{}{}", super::KEY_PREFIX, me as usize))
                .expect("digits have no zero byte");
            (*me).key = ffi::PyUnicode_FromString(key.as_ptr());
            if (*me).key.is_null() {
                ffi::Py_DECREF(me.cast());
                return null_mut();
            }
            me
        }
    }

    /// The values of a greenlet: borrowed, null if it has none yet.
    ///
    /// # Safety
    /// The GIL is held.
    #[inline]
    pub unsafe fn values(me: *mut Self, g: *mut PyGreenlet) -> Obj {
        // SAFETY: the caller's promise; nothing runs meanwhile.
        unsafe {
            if (*me).last == g as usize {
                return (*me).last_values;
            }
            match (*me).entries.get(&(g as usize)) {
                Some(entry) => {
                    (*me).last = g as usize;
                    (*me).last_values = entry.values;
                    entry.values
                }
                None => null_mut(),
            }
        }
    }

    /// Gives a greenlet that has none its values: borrowed, null with an error set.
    ///
    /// # Safety
    /// The GIL is held; `g` is the running greenlet.
    pub unsafe fn enter(me: *mut Self, g: *mut PyGreenlet) -> Obj {
        // SAFETY: the caller's promise. Each step that can run Python leaves a whole map behind.
        unsafe {
            let values = ffi::PyDict_New();
            if values.is_null() {
                return values;
            }
            Self::enter_with(me, g, values)
        }
    }

    /// The same with `values` (stolen), which replace others.
    ///
    /// # Safety
    /// As [`enter`](Self::enter).
    pub unsafe fn enter_with(me: *mut Self, g: *mut PyGreenlet, values: Obj) -> Obj {
        // SAFETY: the caller's promise.
        unsafe {
            let id = g as usize;
            if let Some(entry) = (*me).entries.get_mut(&id) {
                let old = std::mem::replace(&mut entry.values, values);
                (*me).last = 0;
                ffi::Py_DECREF(old);
                return values;
            }
            let ended = alloc(TYPES.ended);
            if ended.is_null() {
                ffi::Py_DECREF(values);
                return null_mut();
            }
            (*ended.cast::<Ended>()).greenlet = id;
            let greenlet = ffi::PyWeakref_NewRef(g.cast(), ended);
            if greenlet.is_null() {
                ffi::Py_DECREF(values);
                ffi::Py_DECREF(ended);
                return null_mut();
            }
            (*ended.cast::<Ended>()).state = me;
            let entry = Entry {
                values,
                greenlet,
                ended,
            };
            (*me).entries.insert(id, entry);
            ffi::Py_INCREF(ended);
            let linked = Self::announce(me, g, ended);
            ffi::Py_DECREF(ended);
            if !linked {
                quietly(|| Self::remove(me, id));
                return null_mut();
            }
            values
        }
    }

    /// Has the greenlet tell of its end, and know of its values.
    ///
    /// # Safety
    /// As the module says.
    unsafe fn announce(me: *mut Self, g: *mut PyGreenlet, ended: Obj) -> bool {
        // SAFETY: as `enter`; `ended` is held by the caller.
        unsafe {
            let t = &*TYPES;
            if is_gevent(g.cast()) {
                let r = link(g.cast(), ended);
                if r.is_null() {
                    return false;
                }
                ffi::Py_DECREF(r);
            } else if !_PyType_Lookup(ffi::Py_TYPE(g.cast()), t.str_rawlink).is_null() {
                let r = ffi::PyObject_CallMethodOneArg(g.cast(), t.str_rawlink, ended);
                if r.is_null() {
                    return false;
                }
                ffi::Py_DECREF(r);
            }
            if (*g).dict.get().is_null() {
                let fresh = ffi::PyDict_New();
                if fresh.is_null() {
                    return false;
                }
                if (*g).dict.get().is_null() {
                    (*g).dict.set(fresh);
                } else {
                    ffi::Py_DECREF(fresh);
                }
            }
            let weak = ffi::PyWeakref_NewRef(me.cast(), null_mut());
            if weak.is_null() {
                return false;
            }
            let set = ffi::PyDict_SetItem((*g).dict.get(), (*me).key, weak);
            ffi::Py_DECREF(weak);
            set == 0
        }
    }

    /// Takes a greenlet's entry away.
    ///
    /// # Safety
    /// As the module says.
    unsafe fn remove(me: *mut Self, id: usize) {
        // SAFETY: the GIL is held; the entry is dropped when the map is whole.
        unsafe {
            if (*me).last == id {
                (*me).last = 0;
            }
            if let Some(entry) = (*me).entries.remove(&id) {
                entry.release();
            }
        }
    }

    /// Takes all entries away, and out of the greenlets.
    ///
    /// # Safety
    /// As the module says.
    unsafe fn remove_all(me: *mut Self) {
        // SAFETY: the GIL is held; entries are dropped when the map is empty.
        unsafe {
            (*me).last = 0;
            let entries = std::mem::take(&mut (*me).entries);
            // All of them before anything runs: a greenlet that ends meanwhile would take a reference to the
            // state, which may be on its way out.
            for entry in entries.values() {
                (*entry.ended.cast::<Ended>()).state = null_mut();
            }
            for entry in entries.into_values() {
                let g = target(entry.greenlet);
                if !g.is_null() {
                    quietly(|| {
                        let t = &*TYPES;
                        let r = if is_gevent(g) {
                            unlink(g, entry.ended)
                        } else if !_PyType_Lookup(ffi::Py_TYPE(g), t.str_unlink).is_null() {
                            ffi::PyObject_CallMethodOneArg(g, t.str_unlink, entry.ended)
                        } else {
                            null_mut()
                        };
                        ffi::Py_XDECREF(r);
                    });
                    forget_key(g.cast(), (*me).key);
                    ffi::Py_DECREF(g);
                }
                entry.release();
            }
        }
    }
}

#[crate::entry]
unsafe extern "C" fn ended_call(slf: Obj, _args: Obj, _kwargs: Obj) -> Obj {
    // SAFETY: an `Ended`. The state is alive while it has the entry, and held over what follows.
    unsafe {
        let me = slf.cast::<Ended>();
        let state = (*me).state;
        if !state.is_null() {
            ffi::Py_INCREF(state.cast());
            ffi::Py_INCREF(slf);
            let id = (*me).greenlet;
            if let Some(entry) = (*state).entries.get(&id) {
                let g = target(entry.greenlet);
                if !g.is_null() {
                    forget_key(g.cast(), (*state).key);
                    ffi::Py_DECREF(g);
                }
            }
            State::remove(state, id);
            ffi::Py_DECREF(slf);
            ffi::Py_DECREF(state.cast());
        }
        none()
    }
}

#[crate::entry]
unsafe extern "C" fn ended_dealloc(slf: Obj) {
    // SAFETY: the slot's contract; it owns nothing.
    unsafe {
        ffi::PyObject_GC_UnTrack(slf.cast());
        free(slf);
    }
}

#[crate::entry(silent)]
unsafe extern "C" fn ended_traverse(slf: Obj, visit: ffi::visitproc, arg: *mut c_void) -> c_int {
    // SAFETY: the collector's protocol.
    unsafe { visit(ffi::Py_TYPE(slf).cast(), arg) }
}

#[crate::entry]
unsafe extern "C" fn dealloc(slf: Obj) {
    // SAFETY: the slot's contract.
    unsafe {
        ffi::PyObject_GC_UnTrack(slf.cast());
        let me = slf.cast::<State>();
        if !(*me).weak.is_null() {
            ffi::PyObject_ClearWeakRefs(slf);
        }
        State::remove_all(me);
        std::ptr::drop_in_place(&raw mut (*me).entries);
        for p in [(*me).args, (*me).kwargs, (*me).class, (*me).key] {
            ffi::Py_XDECREF(p);
        }
        free(slf);
    }
}

#[crate::entry(silent)]
unsafe extern "C" fn traverse(slf: Obj, visit: ffi::visitproc, arg: *mut c_void) -> c_int {
    // SAFETY: the collector's protocol; nothing here runs Python.
    unsafe {
        let me = slf.cast::<State>();
        let own = [
            ffi::Py_TYPE(slf).cast(),
            (*me).args,
            (*me).kwargs,
            (*me).class,
        ];
        let entries = (*me).entries.values();
        for p in own
            .into_iter()
            .chain(entries.flat_map(|e| [e.values, e.greenlet, e.ended]))
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

#[crate::entry]
unsafe extern "C" fn clear(slf: Obj) -> c_int {
    // SAFETY: the collector's protocol. The arguments stay: finalizers may still use the `local`.
    unsafe {
        State::remove_all(slf.cast());
        0
    }
}

#[crate::entry]
unsafe extern "C" fn get_args(slf: Obj, _: *mut c_void) -> Obj {
    // SAFETY: as the C API calls it, on a state.
    unsafe { or_none((*slf.cast::<State>()).args) }
}

#[crate::entry]
unsafe extern "C" fn get_kwargs(slf: Obj, _: *mut c_void) -> Obj {
    // SAFETY: as the C API calls it, on a state.
    unsafe {
        match (*slf.cast::<State>()).kwargs {
            kwargs if kwargs.is_null() => ffi::PyDict_New(),
            kwargs => ffi::Py_NewRef(kwargs),
        }
    }
}

#[crate::entry]
unsafe extern "C" fn get_key(slf: Obj, _: *mut c_void) -> Obj {
    // SAFETY: as the C API calls it, on a state.
    unsafe { or_none((*slf.cast::<State>()).key) }
}

#[crate::entry]
unsafe extern "C" fn get_type_id(slf: Obj, _: *mut c_void) -> Obj {
    // SAFETY: as the C API calls it, on a state.
    unsafe {
        let id = ffi::PyLong_FromSize_t((*slf.cast::<State>()).owner);
        if id.is_null() {
            return id;
        }
        let pair = crate::raw::pair((*slf.cast::<State>()).class, id);
        ffi::Py_DECREF(id);
        pair
    }
}

#[crate::entry]
unsafe extern "C" fn values_of(slf: Obj, greenlet: Obj) -> Obj {
    // SAFETY: a state; the argument is only an address.
    unsafe {
        let me = slf.cast::<State>();
        match (*me).entries.get(&(greenlet as usize)) {
            Some(entry) => ffi::Py_NewRef(entry.values),
            None => none(),
        }
    }
}

/// Adds the types.
pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    let attributes = vec![
        attribute(
            c"localargs",
            get_args,
            None,
            c"The constructor's positional arguments.",
        ),
        attribute(
            c"localkwargs",
            get_kwargs,
            None,
            c"The constructor's keyword arguments.",
        ),
        attribute(
            c"key",
            get_key,
            None,
            c"The key in the dictionaries of greenlets that use it.",
        ),
        attribute(
            c"localtypeid",
            get_type_id,
            None,
            c"The class and the id of the local object.",
        ),
    ];
    let methods = vec![crate::raw::one(
        c"values_of",
        values_of,
        c"values_of(greenlet)\n\nReturn the dictionary that a greenlet has, or None.",
    )];
    // SAFETY: at the module's initialisation, with the GIL held.
    unsafe {
        let state = NewType::of::<State>(c"gevent.local._localimpl")
            .about(
                c"The state of one local: its constructor's arguments and a dictionary for each greenlet.",
            )
            .methods(methods)
            .attributes(attributes)
            .ended_by(dealloc, traverse, clear)
            .weak(offset_of!(State, weak))
            .add(m, None)?;
        let ended = NewType::of::<Ended>(c"gevent.local._greenlet_deleted")
            .slot(ffi::Py_tp_dealloc, ended_dealloc as *mut c_void)
            .slot(ffi::Py_tp_traverse, ended_traverse as *mut c_void)
            .call_by(ended_call)
            .add(m, None)?;
        for ty in [state, ended] {
            (*ty).tp_new = None;
        }
        TYPES.set(Types {
            state,
            ended,
            str_rawlink: intern(c"rawlink"),
            str_unlink: intern(c"unlink"),
        });
    }
    Ok(())
}
