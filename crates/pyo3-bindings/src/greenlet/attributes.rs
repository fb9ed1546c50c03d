//! The attributes of a greenlet: `run`, `parent`, `dead`, `gr_frame`, `gr_context`, `__dict__`, and how
//! it prints.

use super::object::{Flags, PyGreenlet, new_ref, replace};
use crate::thread_data::ThreadData;
use crate::tstate;
use pyo3::ffi::{self, PyObject};
use std::ffi::{CStr, c_int, c_void};
use std::ptr::{self, null_mut};

/// The value of a getter's reference that may be null for None.
///
/// # Safety
/// The GIL is held; `obj` is an object or null.
unsafe fn or_none(obj: *mut PyObject) -> *mut PyObject {
    // SAFETY: the caller's promise.
    unsafe { new_ref(if obj.is_null() { ffi::Py_None() } else { obj }) }
}

/// # Safety
/// The GIL is held; `kind` is an exception class.
unsafe fn fail(kind: *mut PyObject, text: &CStr) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { ffi::PyErr_SetString(kind, text.as_ptr()) };
    -1
}

/// Whether it is not dead, seeing to it that one whose thread has ended is.
///
/// # Safety
/// The GIL is held.
unsafe fn not_dead(g: &PyGreenlet) -> bool {
    if g.thread_ended() {
        // SAFETY: its thread is gone, so it does not run.
        unsafe { g.abandon() };
        return false;
    }
    g.active() || !g.started()
}

#[crate::entry]
unsafe extern "C" fn get_dead(slf: *mut PyObject, _: *mut c_void) -> *mut PyObject {
    // SAFETY: as the C API calls it.
    unsafe { ffi::PyBool_FromLong((!not_dead(&*slf.cast())).into()) }
}

/// `bool(g)`: whether it was started and is not finished.
///
/// # Safety
/// As any `nb_bool`, on a greenlet.
#[crate::entry]
pub unsafe extern "C" fn truth(slf: *mut PyObject) -> c_int {
    // SAFETY: the slot's contract.
    unsafe { (*slf.cast::<PyGreenlet>()).active().into() }
}

// ---- run and parent --------------------------------------------------------------------------------

#[crate::entry]
unsafe extern "C" fn get_run(slf: *mut PyObject, _: *mut c_void) -> *mut PyObject {
    // SAFETY: as the C API calls it.
    unsafe {
        let g = &*slf.cast::<PyGreenlet>();
        if g.is_main() {
            fail(
                ffi::PyExc_AttributeError,
                c"Main greenlets do not have a run attribute.",
            );
            return null_mut();
        }
        if g.started() || g.run.get().is_null() {
            fail(ffi::PyExc_AttributeError, c"run");
            return null_mut();
        }
        new_ref(g.run.get())
    }
}

/// The setter of `run`.
///
/// # Safety
/// As any setter, on a greenlet.
#[crate::entry]
pub unsafe extern "C" fn set_run(slf: *mut PyObject, run: *mut PyObject, _: *mut c_void) -> c_int {
    // SAFETY: the caller's promise.
    unsafe {
        let g = &*slf.cast::<PyGreenlet>();
        if g.is_main() {
            return fail(
                ffi::PyExc_AttributeError,
                c"Main greenlets do not have a run attribute.",
            );
        }
        if g.started() {
            let text = c"run cannot be set after the start of the greenlet";
            return fail(ffi::PyExc_AttributeError, text);
        }
        replace(&g.run, new_ref(run));
        0
    }
}

#[crate::entry]
unsafe extern "C" fn get_parent(slf: *mut PyObject, _: *mut c_void) -> *mut PyObject {
    // SAFETY: as the C API calls it.
    unsafe { or_none((*slf.cast::<PyGreenlet>()).parent.get().cast()) }
}

/// The setter of `parent`.
///
/// # Safety
/// As any setter, on a greenlet.
#[crate::entry]
pub unsafe extern "C" fn set_parent(
    slf: *mut PyObject,
    parent: *mut PyObject,
    _: *mut c_void,
) -> c_int {
    // SAFETY: the caller's promise; the chain of parents holds its members.
    unsafe {
        let g = &*slf.cast::<PyGreenlet>();
        if parent.is_null() {
            return fail(ffi::PyExc_AttributeError, c"can't delete attribute");
        }
        if g.is_main() {
            let text = c"cannot set the parent of a main greenlet";
            return fail(ffi::PyExc_AttributeError, text);
        }
        if !PyGreenlet::check(parent) {
            let text = c"GreenletChecker: Expected any type of greenlet, not %s";
            let name = (*ffi::Py_TYPE(parent)).tp_name;
            ffi::PyErr_Format(ffi::PyExc_TypeError, text.as_ptr(), name);
            return -1;
        }
        let mut main = null_mut();
        let mut p = parent.cast::<PyGreenlet>();
        while !p.is_null() {
            if ptr::eq(p, g) {
                return fail(ffi::PyExc_ValueError, c"cyclic parent chain");
            }
            main = (*p).main_greenlet();
            p = (*p).parent.get();
        }
        if main.is_null() {
            return fail(
                ffi::PyExc_ValueError,
                c"parent must not be garbage collected",
            );
        }
        if g.started() && g.main.get() != main {
            return fail(
                ffi::PyExc_ValueError,
                c"parent cannot be on a different thread",
            );
        }
        replace(&g.parent, new_ref(parent).cast());
        0
    }
}

// ---- what it was doing -----------------------------------------------------------------------------

#[crate::entry]
unsafe extern "C" fn get_frame(slf: *mut PyObject, _: *mut c_void) -> *mut PyObject {
    // SAFETY: a getter's contract. A parked greenlet's frames lie on its own stack and stay valid;
    // whoever runs Python has its own state installed, so the one asked for is saved in the object;
    // also for one of an ended thread, until it is found to be dead.
    unsafe {
        let g = &*slf.cast::<PyGreenlet>();
        if !g.active() || g.is_running() {
            return new_ref(ffi::Py_None());
        }
        let td = ThreadData::get();
        let frame = g.state.top_frame(td.tstate);
        if frame.is_null() {
            ffi::PyErr_Clear();
            return new_ref(ffi::Py_None());
        }
        frame
    }
}

#[crate::entry]
unsafe extern "C" fn get_context(slf: *mut PyObject, _: *mut c_void) -> *mut PyObject {
    // SAFETY: as the C API calls it.
    unsafe {
        let g = &*slf.cast::<PyGreenlet>();
        let td = ThreadData::get();
        if ptr::eq(td.current.get(), g) {
            return or_none(tstate::context(td.tstate, None));
        }
        if g.is_running() {
            let text = c"cannot get context of a greenlet that is running in a different thread";
            fail(ffi::PyExc_ValueError, text);
            return null_mut();
        }
        or_none(tstate::context(td.tstate, Some(&g.state)))
    }
}

#[crate::entry]
unsafe extern "C" fn set_context(
    slf: *mut PyObject,
    context: *mut PyObject,
    _: *mut c_void,
) -> c_int {
    // SAFETY: a setter's contract; the old context is dropped when the new one is in place.
    unsafe {
        let g = &*slf.cast::<PyGreenlet>();
        if context.is_null() {
            return fail(ffi::PyExc_AttributeError, c"can't delete context attribute");
        }
        let new = if ptr::eq(context, ffi::Py_None()) {
            null_mut()
        } else {
            context
        };
        if !new.is_null() && ffi::PyContext_CheckExact(new) == 0 {
            let text = c"greenlet context must be a contextvars.Context or None";
            return fail(ffi::PyExc_TypeError, text);
        }
        let td = ThreadData::get();
        let place = if ptr::eq(td.current.get(), g) {
            None
        } else if g.is_running() {
            let text = c"cannot set context of a greenlet that is running in a different thread";
            return fail(ffi::PyExc_ValueError, text);
        } else {
            Some(&g.state)
        };
        ffi::Py_XDECREF(tstate::replace_context(td.tstate, place, new_ref(new)));
        0
    }
}

/// Bytes of C stack that a parked greenlet has in use.
#[crate::entry]
unsafe extern "C" fn get_stack_saved(slf: *mut PyObject, _: *mut c_void) -> *mut PyObject {
    // SAFETY: as the C API calls it.
    unsafe {
        let g = &*slf.cast::<PyGreenlet>();
        let at = g.fiber.parked_at();
        let used = if !g.active() || g.is_running() || at == 0 {
            0
        } else if g.is_main() {
            thread_stack_top().saturating_sub(at).max(1)
        } else {
            g.fiber.stack_span().1.saturating_sub(at)
        };
        ffi::PyLong_FromSize_t(used)
    }
}

/// The highest address of the calling thread's own stack, 0 if unknown.
fn thread_stack_top() -> usize {
    #[cfg(target_os = "linux")]
    // SAFETY: the attributes are initialised by the first call and destroyed after use.
    unsafe {
        let mut attr = std::mem::MaybeUninit::uninit();
        if libc::pthread_getattr_np(libc::pthread_self(), attr.as_mut_ptr()) != 0 {
            return 0;
        }
        let (mut low, mut size) = (null_mut(), 0);
        libc::pthread_attr_getstack(attr.as_ptr(), &raw mut low, &raw mut size);
        libc::pthread_attr_destroy(attr.as_mut_ptr());
        low as usize + size
    }
    #[cfg(not(target_os = "linux"))]
    0
}

// ---- __dict__ --------------------------------------------------------------------------------------

#[crate::entry]
unsafe extern "C" fn get_dict(slf: *mut PyObject, _: *mut c_void) -> *mut PyObject {
    // SAFETY: a getter's contract; the new dictionary is set only if no other was made meanwhile.
    unsafe {
        let g = &*slf.cast::<PyGreenlet>();
        if g.dict.get().is_null() {
            let fresh = ffi::PyDict_New();
            if fresh.is_null() {
                return null_mut();
            }
            if g.dict.get().is_null() {
                g.dict.set(fresh);
            } else {
                ffi::Py_DECREF(fresh);
            }
        }
        new_ref(g.dict.get())
    }
}

#[crate::entry]
unsafe extern "C" fn set_dict(slf: *mut PyObject, dict: *mut PyObject, _: *mut c_void) -> c_int {
    // SAFETY: as the C API calls it.
    unsafe {
        if dict.is_null() {
            return fail(ffi::PyExc_TypeError, c"__dict__ may not be deleted");
        }
        if ffi::PyDict_Check(dict) == 0 {
            return fail(ffi::PyExc_TypeError, c"__dict__ must be a dictionary");
        }
        replace(&(*slf.cast::<PyGreenlet>()).dict, new_ref(dict));
        0
    }
}

// ---- repr ------------------------------------------------------------------------------------------

/// `repr(g)`: type, address, the thread's address (`otid`), and its state in words.
///
/// # Safety
/// As any `tp_repr`, on a greenlet.
#[crate::entry]
pub unsafe extern "C" fn repr(slf: *mut PyObject) -> *mut PyObject {
    // SAFETY: the slot's contract.
    unsafe {
        let g = &*slf.cast::<PyGreenlet>();
        let started = g.started();
        let alive = not_dead(g);
        let head = |text: &str| {
            let name = CStr::from_ptr((*ffi::Py_TYPE(slf)).tp_name).to_string_lossy();
            let thread = g.thread();
            let text = if thread.is_null() {
                format!("<{name} object at {slf:p} (otid=(nil)){text}>")
            } else {
                format!("<{name} object at {slf:p} (otid={thread:p}){text}>")
            };
            ffi::PyUnicode_FromStringAndSize(text.as_ptr().cast(), text.len() as isize)
        };
        if !alive {
            return head(if g.thread_ended() {
                " (thread exited) dead"
            } else {
                " dead"
            });
        }
        let place = if ThreadData::get().current.get() == g.as_ptr() {
            " current"
        } else if started {
            " suspended"
        } else {
            ""
        };
        let active = if g.active() { " active" } else { "" };
        let life = if started { " started" } else { " pending" };
        let main = if g.is_main() { " main" } else { "" };
        head(&format!("{place}{active}{life}{main}"))
    }
}

// ---- failures for tests ----------------------------------------------------------------------------

/// The flag that a getter or setter of `UnswitchableGreenlet` is for: its closure is the bit.
fn failure(closure: *mut c_void) -> Flags {
    Flags(closure as usize as u8)
}

#[crate::entry]
unsafe extern "C" fn get_failure(slf: *mut PyObject, closure: *mut c_void) -> *mut PyObject {
    // SAFETY: as the C API calls it.
    unsafe {
        let g = &*slf.cast::<PyGreenlet>();
        ffi::PyBool_FromLong(g.flags.get().has(failure(closure)).into())
    }
}

#[crate::entry]
unsafe extern "C" fn set_failure(
    slf: *mut PyObject,
    value: *mut PyObject,
    closure: *mut c_void,
) -> c_int {
    // SAFETY: as the C API calls it.
    unsafe {
        let g = &*slf.cast::<PyGreenlet>();
        if value.is_null() {
            let text = c"Cannot delete force_switch_error";
            return fail(ffi::PyExc_AttributeError, text);
        }
        match ffi::PyObject_IsTrue(value) {
            -1 => return -1,
            0 => g.remove_flag(failure(closure)),
            _ => g.add_flag(failure(closure)),
        }
        g.rebind();
        0
    }
}

// ---- the tables ------------------------------------------------------------------------------------

fn entry(
    name: &'static CStr,
    get: ffi::getter,
    set: Option<ffi::setter>,
    closure: usize,
) -> ffi::PyGetSetDef {
    ffi::PyGetSetDef {
        name: name.as_ptr(),
        get: Some(get),
        set,
        doc: ptr::null(),
        closure: closure as *mut c_void,
    }
}

fn leak(mut list: Vec<ffi::PyGetSetDef>) -> *mut c_void {
    list.push(ffi::PyGetSetDef {
        name: ptr::null(),
        get: None,
        set: None,
        doc: ptr::null(),
        closure: null_mut(),
    });
    list.leak().as_mut_ptr().cast()
}

/// The getters and setters of `greenlet`.
pub fn table() -> *mut c_void {
    leak(vec![
        entry(c"__dict__", get_dict, Some(set_dict), 0),
        entry(c"run", get_run, Some(set_run), 0),
        entry(c"parent", get_parent, Some(set_parent), 0),
        entry(c"gr_frame", get_frame, None, 0),
        entry(c"gr_context", get_context, Some(set_context), 0),
        entry(c"dead", get_dead, None, 0),
        entry(c"_stack_saved", get_stack_saved, None, 0),
    ])
}

/// The getters and setters of `UnswitchableGreenlet`.
pub fn failures_table() -> *mut c_void {
    let bit = |flag: Flags| usize::from(flag.0);
    leak(vec![
        entry(
            c"force_switch_error",
            get_failure,
            Some(set_failure),
            bit(Flags::FAIL_SWITCH),
        ),
        entry(
            c"force_slp_switch_error",
            get_failure,
            Some(set_failure),
            bit(Flags::FAIL_STACKS),
        ),
    ])
}
