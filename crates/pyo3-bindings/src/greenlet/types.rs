//! The Python type `greenlet`: construction, `switch` and `throw`.

use super::attributes;
use super::lifecycle;
use super::object::{PyGreenlet, Raised, globals, initialised, new_ref};
use super::switch::{self, Carry};
use crate::thread_data::ThreadData;
use crate::tstate;
use gevent_hub_core::fiber::Fiber;
use pyo3::ffi::{self, PyObject, PyTypeObject};
use std::ffi::{CStr, c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::{self, null_mut};

/// Runs the body of a slot; a panic becomes a pending SystemError and `failed`.
pub fn guarded<R>(failed: R, body: impl FnOnce() -> R) -> R {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(result) => result,
        Err(_) => {
            let text = c"a panic in gevent._core";
            // SAFETY: slots are called with the GIL held.
            unsafe { ffi::PyErr_SetString(ffi::PyExc_SystemError, text.as_ptr()) };
            failed
        }
    }
}

// ---- construction ----------------------------------------------------------------------------------

/// `tp_new` of `greenlet` and of the raw types below it: the parent is the running greenlet, arguments
/// are for `__init__`.
///
/// # Safety
/// As any `tp_new`; what follows the `PyGreenlet` in the object may be all zeros.
#[crate::entry]
pub unsafe extern "C" fn new(
    ty: *mut PyTypeObject,
    _args: *mut PyObject,
    _kwargs: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: the slot's contract.
    unsafe { make(ty).cast() }
}

/// Makes a greenlet of type `ty` whose parent is the running one.
///
/// # Safety
/// The GIL is held; `ty` is `greenlet` or a type below it.
#[inline]
pub unsafe fn make(ty: *mut PyTypeObject) -> *mut PyGreenlet {
    // SAFETY: the caller's promise.
    unsafe {
        let td = ThreadData::get();
        if td.needs_attention() {
            td.tidy();
        }
        if (*ty).tp_flags & ffi::Py_TPFLAGS_IS_ABSTRACT != 0 {
            // It names the missing methods in its error.
            let object = ffi::PyBaseObject_Type.tp_new.unwrap_unchecked();
            return crate::tstate::tp_new(object, ty, globals().empty_tuple, null_mut()).cast();
        }
        let g = PyGreenlet::alloc(ty, Fiber::new());
        if !g.is_null() {
            // After the allocation, which may have collected garbage and switched.
            (*g).parent.set(new_ref(td.current.get()));
        }
        g
    }
}

/// `tp_init`: `greenlet(run=None, parent=None)`.
///
/// # Safety
/// As any `tp_init`.
#[crate::entry]
pub unsafe extern "C" fn init(
    slf: *mut PyObject,
    args: *mut PyObject,
    kwargs: *mut PyObject,
) -> c_int {
    // SAFETY: the slot's contract; the arguments are borrowed for the call.
    unsafe {
        let mut run: *mut PyObject = null_mut();
        let mut parent: *mut PyObject = null_mut();
        let mut names = [c"run".as_ptr(), c"parent".as_ptr(), ptr::null::<c_char>()];
        if ffi::PyArg_ParseTupleAndKeywords(
            args,
            kwargs,
            c"|OO:greenlet".as_ptr(),
            names.as_mut_ptr().cast(),
            &raw mut run,
            &raw mut parent,
        ) == 0
        {
            return -1;
        }
        if !run.is_null() && attributes::set_run(slf, run, null_mut()) < 0 {
            return -1;
        }
        if !parent.is_null() && !ptr::eq(parent, ffi::Py_None()) {
            return attributes::set_parent(slf, parent, null_mut());
        }
        0
    }
}

/// `greenlet(...)` itself, without a tuple and the two calls of `type.__call__`. Subclasses do not
/// inherit it.
#[crate::entry]
unsafe extern "C" fn call_type(
    ty: *mut PyObject,
    args: *const *mut PyObject,
    nargsf: usize,
    kwnames: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: vectorcall's contract.
    unsafe {
        let nargs = ffi::PyVectorcall_NARGS(nargsf) as usize;
        if nargs > 2 || !kwnames.is_null() {
            return call_type_slowly(ty, args, nargs, kwnames);
        }
        let g = make(ty.cast());
        if g.is_null() {
            return null_mut();
        }
        if nargs > 0 {
            (*g).run.set(new_ref(*args));
        }
        if nargs > 1 && !ptr::eq(*args.add(1), ffi::Py_None()) {
            let done = attributes::set_parent(g.cast(), *args.add(1), null_mut());
            if done < 0 {
                ffi::Py_DECREF(g.cast());
                return null_mut();
            }
        }
        g.cast()
    }
}

/// # Safety
/// As the C API's vectorcall of a type passes it.
#[cold]
unsafe fn call_type_slowly(
    ty: *mut PyObject,
    args: *const *mut PyObject,
    nargs: usize,
    kwnames: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: vectorcall's contract.
    unsafe {
        let Ok(Carry::Call(tuple, dict)) = pack_call(args, nargs, kwnames) else {
            return null_mut();
        };
        let mut result = new(ty.cast(), tuple, dict);
        if !result.is_null() && init(result, tuple, dict) < 0 {
            ffi::Py_DECREF(result);
            result = null_mut();
        }
        Carry::Call(tuple, dict).discard();
        result
    }
}

// ---- switch and throw ------------------------------------------------------------------------------

/// The arguments of a vectorcall as a tuple and a dictionary (null without keywords).
///
/// # Safety
/// As the C API's vectorcall passes it.
unsafe fn pack_call(
    args: *const *mut PyObject,
    nargs: usize,
    kwnames: *mut PyObject,
) -> Result<Carry, Raised> {
    // SAFETY: vectorcall's contract; references are taken before anything can run.
    unsafe {
        let tuple = ffi::PyTuple_New(nargs as ffi::Py_ssize_t);
        if tuple.is_null() {
            return Err(Raised);
        }
        for i in 0..nargs {
            ffi::PyTuple_SET_ITEM(tuple, i as ffi::Py_ssize_t, new_ref(*args.add(i)));
        }
        let mut dict = null_mut();
        if !kwnames.is_null() && ffi::PyTuple_GET_SIZE(kwnames) > 0 {
            dict = ffi::PyDict_New();
            for i in 0..ffi::PyTuple_GET_SIZE(kwnames) {
                let name = ffi::PyTuple_GET_ITEM(kwnames, i);
                if dict.is_null()
                    || ffi::PyDict_SetItem(dict, name, *args.add(nargs + i as usize)) < 0
                {
                    Carry::Call(tuple, dict).discard();
                    return Err(Raised);
                }
            }
        }
        Ok(Carry::Call(tuple, dict))
    }
}

/// `greenlet.switch(*args, **kwargs)`.
///
/// # Safety
/// As any method with `METH_FASTCALL | METH_KEYWORDS`, on a greenlet.
#[crate::entry]
pub unsafe extern "C" fn method_switch(
    slf: *mut PyObject,
    args: *const *mut PyObject,
    nargs: ffi::Py_ssize_t,
    kwnames: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: the slot's contract. The usual case: a live greenlet of this thread, at most one
    // argument; nothing here can run Python before the stacks are exchanged.
    unsafe {
        let td = ThreadData::get();
        let g = slf.cast::<PyGreenlet>();
        if nargs <= 1 && kwnames.is_null() && (*g).bound.get() == td.main && !td.needs_attention() {
            let value = if nargs == 1 {
                *args
            } else {
                globals().empty_tuple
            };
            return switch::depart(td, g, Carry::Value(new_ref(value)));
        }
        switch_slowly(td, g, args, nargs as usize, kwnames)
    }
}

/// # Safety
/// As the C API's vectorcall passes it; `td` is this thread's and `g` a greenlet.
#[cold]
#[inline(never)]
unsafe fn switch_slowly(
    td: &ThreadData,
    g: *mut PyGreenlet,
    args: *const *mut PyObject,
    nargs: usize,
    kwnames: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: as `method_switch`; `self` is held by the caller of a method, but only a bound method
    // holds it over a switch that drops it.
    unsafe {
        let Ok(carry) = pack_call(args, nargs, kwnames) else {
            return null_mut();
        };
        if td.needs_attention() {
            td.tidy();
        }
        guarded(null_mut(), || switch::switch_to(td, g, carry))
    }
}

/// Makes an exception instance of the arguments of `throw`, as `raise` does; null with an error set.
/// The traceback of the instance becomes `tb`.
///
/// # Safety
/// The GIL is held; the pointers are borrowed objects or null.
pub unsafe fn make_exception(
    ty: *mut PyObject,
    value: *mut PyObject,
    tb: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: the caller's promise.
    unsafe {
        let none = ffi::Py_None();
        let tb = if ptr::eq(tb, none) { null_mut() } else { tb };
        if !tb.is_null() && ffi::PyTraceBack_Check(tb) == 0 {
            let text = c"throw() third argument must be a traceback object";
            ffi::PyErr_SetString(ffi::PyExc_TypeError, text.as_ptr());
            return null_mut();
        }
        if ffi::PyExceptionClass_Check(ty) != 0 {
            return tstate::make_exception(ty, value, tb);
        }
        if ffi::PyExceptionInstance_Check(ty) == 0 {
            let text = c"exceptions must be classes, or instances, not %s";
            ffi::PyErr_Format(
                ffi::PyExc_TypeError,
                text.as_ptr(),
                (*ffi::Py_TYPE(ty)).tp_name,
            );
            return null_mut();
        }
        if !value.is_null() && !ptr::eq(value, none) {
            let text = c"instance exception may not have a separate value";
            ffi::PyErr_SetString(ffi::PyExc_TypeError, text.as_ptr());
            return null_mut();
        }
        ffi::PyException_SetTraceback(ty, if tb.is_null() { none } else { tb });
        new_ref(ty)
    }
}

/// Raises `exc` (stolen) in `g` and returns what is switched back; into a dead greenlet GreenletExit
/// goes as a value.
///
/// # Safety
/// As [`switch::switch_to`].
pub unsafe fn throw_into(td: &ThreadData, g: *mut PyGreenlet, exc: *mut PyObject) -> *mut PyObject {
    // SAFETY: the caller's promise.
    unsafe {
        let dead = (*g).started() && !(*g).active();
        let carry = if dead && ffi::PyErr_GivenExceptionMatches(exc, globals().exit) != 0 {
            Carry::Value(exc)
        } else {
            Carry::Raise(exc)
        };
        switch::switch_to(td, g, carry)
    }
}

/// `greenlet.throw(typ=GreenletExit, val=None, tb=None)`.
#[crate::entry]
unsafe extern "C" fn method_throw(
    slf: *mut PyObject,
    args: *mut *mut PyObject,
    nargs: ffi::Py_ssize_t,
) -> *mut PyObject {
    guarded(null_mut(), || {
        // SAFETY: the slot's contract.
        unsafe {
            if nargs > 3 {
                let text = c"throw() takes at most 3 arguments (%zd given)";
                return ffi::PyErr_Format(ffi::PyExc_TypeError, text.as_ptr(), nargs);
            }
            let arg = |i: isize| {
                if i < nargs {
                    *args.offset(i)
                } else {
                    null_mut()
                }
            };
            let ty = if nargs == 0 { globals().exit } else { arg(0) };
            let td = ThreadData::get();
            if td.needs_attention() {
                td.tidy();
            }
            let exc = make_exception(ty, arg(1), arg(2));
            if exc.is_null() {
                return null_mut();
            }
            throw_into(td, slf.cast(), exc)
        }
    })
}

#[crate::entry]
unsafe extern "C" fn method_getstate(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    // SAFETY: the slot's contract.
    unsafe {
        let text = c"cannot serialize '%s' object";
        ffi::PyErr_Format(
            ffi::PyExc_TypeError,
            text.as_ptr(),
            (*ffi::Py_TYPE(slf)).tp_name,
        )
    }
}

// ---- the types -------------------------------------------------------------------------------------

const DOC: &CStr = c"greenlet(run=None, parent=None)

A coroutine with a stack of its own. *run* is the callable that the first switch calls with its
arguments; *parent* gets the result, and is by default the greenlet that makes this one.";

const SWITCH_DOC: &CStr = c"switch(*args, **kwargs)

Go on with this greenlet, and return what the next switch to the caller brings.

The first time, run(*args, **kwargs) is called in it. Later its own switch() returns there: the
argument if it is one, the tuple of none or many, the dictionary of keywords, or a pair of both.
A dead greenlet passes the switch on to its parent.";

const THROW_DOC: &CStr = c"throw(typ=GreenletExit, val=None, tb=None)

Go on with this greenlet by raising an exception there. GreenletExit, when it ends the greenlet,
is not raised in the parent but returned to it as a value.";

fn method(
    name: &'static CStr,
    pointer: ffi::PyMethodDefPointer,
    flags: c_int,
    doc: *const c_char,
) -> ffi::PyMethodDef {
    ffi::PyMethodDef {
        ml_name: name.as_ptr(),
        ml_meth: pointer,
        ml_flags: flags,
        ml_doc: doc,
    }
}

fn methods() -> *mut c_void {
    use ffi::PyMethodDefPointer as P;
    let fast = ffi::METH_FASTCALL;
    let list = vec![
        method(
            c"switch",
            P {
                PyCFunctionFastWithKeywords: method_switch,
            },
            fast | ffi::METH_KEYWORDS,
            SWITCH_DOC.as_ptr(),
        ),
        method(
            c"throw",
            P {
                PyCFunctionFast: method_throw,
            },
            fast,
            THROW_DOC.as_ptr(),
        ),
        method(
            c"__getstate__",
            P {
                PyCFunction: method_getstate,
            },
            ffi::METH_NOARGS,
            ptr::null(),
        ),
        ffi::PyMethodDef::zeroed(),
    ];
    list.leak().as_mut_ptr().cast()
}

fn members() -> *mut c_void {
    let offset = |name: &'static CStr, offset: usize| ffi::PyMemberDef {
        name: name.as_ptr(),
        type_code: ffi::Py_T_PYSSIZET,
        offset: offset as ffi::Py_ssize_t,
        flags: ffi::Py_READONLY,
        doc: ptr::null(),
    };
    let list = vec![
        offset(
            c"__weaklistoffset__",
            std::mem::offset_of!(PyGreenlet, weakreflist),
        ),
        offset(c"__dictoffset__", std::mem::offset_of!(PyGreenlet, dict)),
        ffi::PyMemberDef::default(),
    ];
    list.leak().as_mut_ptr().cast()
}

/// The flags of every raw greenlet type.
pub const TYPE_FLAGS: u32 = (ffi::Py_TPFLAGS_DEFAULT
    | ffi::Py_TPFLAGS_HAVE_GC
    | ffi::Py_TPFLAGS_BASETYPE
    | ffi::Py_TPFLAGS_IMMUTABLETYPE) as u32;

/// Makes a type of a name, a size, slots and perhaps a base; null with an error set if it fails. The
/// slots live as long as the process.
///
/// # Safety
/// The GIL is held; the slots fit the size and the base.
pub unsafe fn make_type(
    name: &'static CStr,
    size: usize,
    mut slots: Vec<ffi::PyType_Slot>,
    base: *mut PyTypeObject,
) -> *mut PyTypeObject {
    slots.push(ffi::PyType_Slot {
        slot: 0,
        pfunc: null_mut(),
    });
    let spec = Box::leak(Box::new(ffi::PyType_Spec {
        name: name.as_ptr(),
        basicsize: size as c_int,
        itemsize: 0,
        flags: TYPE_FLAGS,
        slots: slots.leak().as_mut_ptr(),
    }));
    // SAFETY: the caller's promise.
    unsafe { ffi::PyType_FromSpecWithBases(spec, base.cast()).cast() }
}

/// One slot of a type.
pub fn slot(number: c_int, function: *mut c_void) -> ffi::PyType_Slot {
    ffi::PyType_Slot {
        slot: number,
        pfunc: function,
    }
}

/// The slots that let a type be collected and freed as a greenlet.
fn life_slots() -> Vec<ffi::PyType_Slot> {
    let mut slots = vec![
        slot(ffi::Py_tp_dealloc, lifecycle::dealloc as *mut c_void),
        slot(ffi::Py_tp_traverse, lifecycle::traverse as *mut c_void),
        slot(ffi::Py_tp_clear, lifecycle::tp_clear as *mut c_void),
    ];
    if cfg!(not(Py_3_15)) {
        slots.push(slot(ffi::Py_tp_is_gc, lifecycle::is_gc as *mut c_void));
    }
    slots
}

/// Makes the type `greenlet`.
///
/// # Safety
/// The GIL is held.
pub unsafe fn make_greenlet_type() -> *mut PyTypeObject {
    debug_assert!(!initialised());
    let mut slots = life_slots();
    slots.extend([
        slot(ffi::Py_tp_new, new as *mut c_void),
        slot(ffi::Py_tp_init, init as *mut c_void),
        slot(ffi::Py_tp_repr, attributes::repr as *mut c_void),
        slot(ffi::Py_nb_bool, attributes::truth as *mut c_void),
        slot(ffi::Py_tp_methods, methods()),
        slot(ffi::Py_tp_members, members()),
        slot(ffi::Py_tp_getset, attributes::table()),
        slot(ffi::Py_tp_doc, DOC.as_ptr().cast_mut().cast()),
    ]);
    // SAFETY: the slots are those of a `PyGreenlet`.
    unsafe {
        let ty = make_type(
            c"greenlet.greenlet",
            size_of::<PyGreenlet>(),
            slots,
            null_mut(),
        );
        if !ty.is_null() {
            (*ty).tp_vectorcall = Some(call_type);
        }
        ty
    }
}

/// Makes the type `UnswitchableGreenlet`, which lets greenlet's tests ask for failures.
///
/// # Safety
/// The GIL is held; `base` is the type `greenlet`.
pub unsafe fn make_unswitchable_type(base: *mut PyTypeObject) -> *mut PyTypeObject {
    let mut slots = life_slots();
    slots.push(slot(ffi::Py_tp_getset, attributes::failures_table()));
    let doc = c"A greenlet that fails when it is told to. For tests.";
    slots.push(slot(ffi::Py_tp_doc, doc.as_ptr().cast_mut().cast()));
    let name = c"greenlet._greenlet.UnswitchableGreenlet";
    // SAFETY: a subtype without fields of its own.
    unsafe { make_type(name, size_of::<PyGreenlet>(), slots, base) }
}
