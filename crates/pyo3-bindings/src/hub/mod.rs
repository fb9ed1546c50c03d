//! The hub: its raw type, and what the rest of the binding asks of it.

mod core;
mod home;
mod reference;
mod wait;
mod waiter;

pub use core::{HubCore, Parked};
pub use home::{Home, home_of};
pub use reference::HubRef;
pub use waiter::Waiter;

use crate::event_loop::Loop;
use crate::gevent_greenlet::{TrackedObject, tracked_type};
use crate::greenlet::{Carry, Flags, PyGreenlet, globals, switch_to};
use crate::raw::{self, noargs};
use crate::raw_type::NewType;
use crate::statics::{Immortal, intern};
use crate::thread_data::ThreadData;
use crate::tstate;
use pyo3::exceptions::PyRuntimeError;
use pyo3::ffi::{self, PyObject, PyTypeObject};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyTuple;
use std::cell::Cell;
use std::ffi::{CStr, c_int, c_void};
use std::ptr::null_mut;
use std::rc::Rc;

/// A `gevent.hub.Hub`.
#[repr(C)]
struct HubObject {
    /// The tracked raw greenlet, whose `loop_` is the hub's loop.
    base: TrackedObject,
    /// The native side, while it is attached to its loop.
    core: Option<Rc<HubCore>>,
}

struct Statics {
    switch_method: *mut PyObject,
    str_switch_out: *mut PyObject,
    str_update_now: *mut PyObject,
    hub_type: *mut PyTypeObject,
}

static STATICS: Immortal<Statics> = Immortal::new();

/// The raw type of hubs.
fn hub_type() -> *mut PyTypeObject {
    STATICS.hub_type
}

static EXCEPTIONS: PyOnceLock<Py<PyModule>> = PyOnceLock::new();

/// A class of `gevent.exceptions`.
fn exception_class<'py>(py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
    let module =
        EXCEPTIONS.get_or_try_init(py, || py.import("gevent.exceptions").map(Bound::unbind))?;
    module.bind(py).getattr(name)
}

fn raise(name: &str, text: &str) {
    // SAFETY: callers hold the GIL.
    let py = unsafe { Python::assume_attached() };
    match exception_class(py, name) {
        Ok(class) => PyErr::from_type(
            class.cast_into().expect("an exception class"),
            (text.to_owned(),),
        )
        .restore(py),
        Err(e) => e.restore(py),
    }
}

fn raise_blocking() {
    raise(
        "BlockingSwitchOutError",
        "Impossible to call blocking function in the event loop callback",
    );
}

/// Whether an error is HubDestroyed.
fn is_hub_destroyed(py: Python<'_>, error: &PyErr) -> bool {
    exception_class(py, "HubDestroyed").is_ok_and(|class| error.is_instance(py, &class))
}

/// Raises InvalidSwitchError for a value (stolen) that came instead of a wake.
///
/// # Safety
/// The GIL is held.
pub unsafe fn unexpected_switch(what: &CStr, value: *mut PyObject) {
    // SAFETY: the caller's promise; the reference is ours.
    unsafe {
        let py = Python::assume_attached();
        let value = Bound::from_owned_ptr(py, value);
        let shown = value.repr().map(|r| r.to_string()).unwrap_or_default();
        raise(
            "InvalidSwitchError",
            &format!("Invalid switch into {}: {shown}", what.to_string_lossy()),
        );
    }
}

/// Sets an OSError.
pub fn set_os_error(error: &std::io::Error) {
    // SAFETY: callers hold the GIL.
    let py = unsafe { Python::assume_attached() };
    crate::errors::io_error(error).restore(py);
}

/// The native hub of the running thread, which is made if there is none. `Err` with an error set.
#[inline]
pub fn get_core() -> Result<HubRef, ()> {
    match HubCore::current() {
        Some(hub) => Ok(hub),
        None => make_hub(),
    }
}

thread_local! {
    static BEING_MADE: Cell<bool> = const { Cell::new(false) };
}

/// Whether the running thread is making its hub.
pub fn is_being_made() -> bool {
    BEING_MADE.get()
}

/// Says whether the calling thread is making its hub; returns what it was.
#[pyfunction]
fn hub_is_being_made(now: bool) -> bool {
    BEING_MADE.replace(now)
}

#[cold]
fn make_hub() -> Result<HubRef, ()> {
    // SAFETY: callers hold the GIL.
    let py = unsafe { Python::assume_attached() };
    let made = py
        .import("gevent._hub_local")
        .and_then(|m| m.getattr("get_hub"))
        .and_then(|f| crate::tstate::call_tuple(&f, &PyTuple::empty(py)));
    match (made, HubCore::current()) {
        (_, Some(hub)) => Ok(hub),
        (Ok(hub), None) => {
            let text = format!("{hub} is not attached to a loop");
            PyRuntimeError::new_err(text).restore(py);
            Err(())
        }
        (Err(e), None) => {
            e.restore(py);
            Err(())
        }
    }
}

/// Calls `switch_out` of a greenlet that is about to block, if it has one. `Err` with an error set.
///
/// # Safety
/// The GIL is held; `g` is the running greenlet.
#[inline]
unsafe fn switch_out(g: *mut PyGreenlet) -> Result<(), ()> {
    // SAFETY: the running greenlet; look-ups are borrowed.
    unsafe {
        let s = &*STATICS;
        let dict = (*g).dict.get();
        let on_class = raw::_PyType_Lookup(ffi::Py_TYPE(g.cast()), s.str_switch_out);
        if on_class.is_null()
            && (dict.is_null() || ffi::PyDict_GetItemWithError(dict, s.str_switch_out).is_null())
        {
            return Ok(());
        }
        let f = ffi::PyObject_GetAttr(g.cast(), s.str_switch_out);
        if f.is_null() {
            ffi::PyErr_Clear();
            return Ok(());
        }
        let r = if f == ffi::Py_None() {
            ffi::Py_NewRef(f)
        } else {
            ffi::PyObject_CallNoArgs(f)
        };
        ffi::Py_DECREF(f);
        if r.is_null() {
            return Err(());
        }
        ffi::Py_DECREF(r);
        Ok(())
    }
}

/// The number of a hub object's native side; 0 if it has none, or `hub` is null or no hub.
///
/// # Safety
/// The GIL is held.
pub unsafe fn id_of(hub: *mut PyObject) -> u64 {
    // SAFETY: null or an object; the type is checked.
    unsafe {
        if hub.is_null() || ffi::PyObject_TypeCheck(hub, STATICS.hub_type) == 0 {
            return 0;
        }
        let core = &(*hub.cast::<HubObject>()).core;
        core.as_ref().map_or(0, |c| c.core().id())
    }
}

fn update_now_name() -> *mut PyObject {
    STATICS.str_update_now
}

/// Whether a hub class still has the native `switch`.
///
/// # Safety
/// The GIL is held; `ty` is a type.
unsafe fn is_native_switch(ty: *mut PyTypeObject) -> bool {
    // SAFETY: the caller's promise.
    unsafe { raw::_PyType_Lookup(ty, globals().str_switch) == STATICS.switch_method }
}

// ---- the type --------------------------------------------------------------------------------------

#[crate::entry]
unsafe extern "C" fn tp_init(
    slf: *mut PyObject,
    args: *mut PyObject,
    kwargs: *mut PyObject,
) -> c_int {
    // SAFETY: the slot's contract.
    unsafe {
        let Some(init) = (*tracked_type()).tp_init else {
            return -1;
        };
        let r = init(slf, args, kwargs);
        if r == 0 {
            (*slf.cast::<PyGreenlet>()).add_flag(Flags::DROPS_RESULTS);
        }
        r
    }
}

#[crate::entry]
unsafe extern "C" fn tp_new(
    ty: *mut PyTypeObject,
    args: *mut PyObject,
    kwargs: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: the slot's contract; zeroed memory is a `None`.
    unsafe {
        let Some(new) = (*tracked_type()).tp_new else {
            return null_mut();
        };
        let hub = crate::tstate::tp_new(new, ty, args, kwargs);
        if !hub.is_null() {
            (&raw mut (*hub.cast::<HubObject>()).core).write(None);
        }
        hub
    }
}

/// # Safety
/// After the type of tracked greenlets was made; `slot` is one that a heap type may have.
unsafe fn tracked_slot(slot: c_int) -> *mut c_void {
    // SAFETY: the caller's promise.
    unsafe { ffi::PyType_GetSlot(tracked_type(), slot) }
}

#[crate::entry(silent)]
unsafe extern "C" fn traverse(
    slf: *mut PyObject,
    visit: ffi::visitproc,
    arg: *mut c_void,
) -> c_int {
    // SAFETY: the slot of the base has this type.
    unsafe {
        let f: ffi::traverseproc = std::mem::transmute(tracked_slot(ffi::Py_tp_traverse));
        f(slf, visit, arg)
    }
}

#[crate::entry]
unsafe extern "C" fn clear(slf: *mut PyObject) -> c_int {
    // SAFETY: the slot of the base has this type.
    unsafe {
        let f: ffi::inquiry = std::mem::transmute(tracked_slot(ffi::Py_tp_clear));
        f(slf)
    }
}

/// # Safety
/// The GIL is held; `slf` is a hub that is being cleared or freed.
unsafe fn drop_fields(slf: *mut PyObject) {
    // SAFETY: called once, when the object is certainly going.
    unsafe {
        unhook(slf.cast());
        let base = slf.cast::<TrackedObject>();
        for f in [
            &raw mut (*base).spawning_greenlet,
            &raw mut (*base).spawn_tree_locals,
            &raw mut (*base).loop_,
        ] {
            let old = std::mem::replace(&mut *f, null_mut());
            ffi::Py_XDECREF(old);
        }
    }
}

#[crate::entry]
unsafe extern "C" fn dealloc(slf: *mut PyObject) {
    // SAFETY: the slot's contract.
    unsafe { crate::greenlet::lifecycle::dealloc_with(slf, drop_fields) }
}

/// As any object's; a `switch` of the instance's own is noted, since each block has to call it.
#[crate::entry]
unsafe extern "C" fn set_attribute(
    slf: *mut PyObject,
    name: *mut PyObject,
    value: *mut PyObject,
) -> c_int {
    // SAFETY: the slot's contract; a hub object.
    unsafe {
        let base: ffi::setattrofunc = std::mem::transmute(tracked_slot(ffi::Py_tp_setattro));
        let r = base(slf, name, value);
        if r == 0
            && let Some(core) = &(*slf.cast::<HubObject>()).core
            && ffi::PyUnicode_Check(name) != 0
            && ffi::PyUnicode_Compare(name, globals().str_switch) == 0
        {
            core.set_own_switch(!value.is_null());
        }
        r
    }
}

/// Lets go of the native side.
///
/// # Safety
/// The GIL is held; `me` is a hub.
unsafe fn unhook(me: *mut HubObject) {
    // SAFETY: the caller's promise.
    unsafe {
        let Some(core) = (*me).core.take() else {
            return;
        };
        core.detach();
        let py = Python::assume_attached();
        let loop_ = (*me).base.loop_;
        if !loop_.is_null()
            && let Ok(l) = Bound::from_borrowed_ptr(py, loop_).cast::<Loop>()
            && l.get().on_thread()
        {
            l.get().set_hub(None);
        }
        if core.on_thread() {
            reference::let_go(core);
        } else {
            // Another thread's parks and reactor: they are left alone.
            std::mem::forget(core);
        }
    }
}

#[crate::entry]
unsafe extern "C" fn attach(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    // SAFETY: as the C API calls it, on a hub object.
    unsafe {
        let me = slf.cast::<HubObject>();
        let py = Python::assume_attached();
        let loop_ = (*me).base.loop_;
        let l = if loop_.is_null() {
            None
        } else {
            Bound::from_borrowed_ptr(py, loop_).cast_into::<Loop>().ok()
        };
        let Some(l) = l else {
            PyRuntimeError::new_err("a hub needs a loop of gevent's").restore(py);
            return null_mut();
        };
        let reactor = match l.get().check_thread().and_then(|()| l.get().reactor()) {
            Ok(r) => r,
            Err(e) => {
                e.restore(py);
                return null_mut();
            }
        };
        let core = HubCore::new(reactor, slf.cast(), loop_);
        core.attach();
        l.get().set_hub(Some(core.clone()));
        (*me).core = Some(core);
        raw::none()
    }
}

/// The thread ends, maybe without a word to its hub: nothing will run the loop any more, so that its kernel
/// objects are freed, and other threads that send to it get to know.
///
/// # Safety
/// Called by the thread's data as it goes, with the GIL held.
pub unsafe fn thread_ends(td: &ThreadData, mine: bool) {
    // Whoever clears another thread's state is in a forked child, or ends the interpreter.
    if !mine {
        return;
    }
    let hub = HubCore::current().filter(|hub| std::ptr::eq(hub.td(), td));
    if let Some(hub) = &hub {
        // SAFETY: the GIL is held; the clone keeps the loop while what it owned is dropped.
        let loop_ = unsafe {
            let py = Python::assume_attached();
            Bound::from_borrowed_ptr(py, hub.loop_object()).cast_into_unchecked::<Loop>()
        };
        hub.detach();
        Loop::destroy(&loop_);
    }
    crate::event_loop::thread_ends();
    // SAFETY: the GIL is held, in the thread that ends.
    unsafe { reference::thread_ends(hub, td) };
}

#[crate::entry]
unsafe extern "C" fn detach(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    // SAFETY: as the C API calls it, on a hub object.
    unsafe {
        unhook(slf.cast());
        raw::none()
    }
}

#[crate::entry]
unsafe extern "C" fn stopping(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    // SAFETY: as the C API calls it, on a hub object.
    unsafe {
        let core = &(*slf.cast::<HubObject>()).core;
        raw::boolean(core.as_ref().is_none_or(|c| c.stopping()))
    }
}

/// `switch()`: the running greenlet gives way to the hub, and gets what it is switched back with.
#[crate::entry]
unsafe extern "C" fn switch(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    // SAFETY: a hub object; the running greenlet is another one, or its `switch_out` raises.
    unsafe {
        let td = ThreadData::get();
        if switch_out(td.current.get()).is_err() {
            return null_mut();
        }
        let args = globals().empty_tuple;
        ffi::Py_INCREF(args);
        let value = switch_to(td, slf.cast(), Carry::Call(args, null_mut()));
        if td.observers.may_be() && td.observers.tell().is_err() {
            tstate::drop_keeping_raised(value);
            return null_mut();
        }
        value
    }
}

#[crate::entry]
unsafe extern "C" fn py_switch_out(_: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    raise_blocking();
    null_mut()
}

/// Adds the type and the functions.
pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(hub_is_being_made, m)?)?;
    // SAFETY: at the module's initialisation, with the GIL held.
    unsafe {
        let methods = vec![
            noargs(
                c"attach",
                attach,
                c"Become the thread's hub, parking greenlets on the loop.",
            ),
            noargs(c"detach", detach, c"The opposite of attach."),
            noargs(c"stopping", stopping, c"Whether it was told to end."),
            noargs(
                c"switch",
                switch,
                c"Give way to the hub; return what comes back.",
            ),
            noargs(
                c"switch_out",
                py_switch_out,
                c"Raise BlockingSwitchOutError: the hub cannot block.",
            ),
        ];
        let hub_type = NewType::of::<HubObject>(c"gevent._core.Hub")
            .below(tracked_type())
            .methods(methods)
            .new_by(tp_new)
            .init_by(tp_init)
            .ended_by(dealloc, traverse, clear)
            .slot(
                ffi::Py_tp_is_gc,
                crate::greenlet::lifecycle::is_gc as *mut c_void,
            )
            .slot(ffi::Py_tp_setattro, set_attribute as *mut c_void)
            .add(m, None)?;
        STATICS.set(Statics {
            switch_method: raw::_PyType_Lookup(hub_type, globals().str_switch),
            str_switch_out: intern(c"switch_out"),
            str_update_now: intern(c"update_now"),
            hub_type,
        });
    }
    wait::register(m)
}
