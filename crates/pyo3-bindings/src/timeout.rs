//! `gevent.Timeout`: an exception that a timer throws into the greenlet that started it.
//!
//! The reactor's timer is made when the timeout starts and freed when it is cancelled, closed or fires,
//! so that one that is not running holds nothing native. While it runs it holds a reference to itself.

use crate::event_loop::{LoopHost, Owner, nanos};
use crate::gevent_greenlet::{make_type, throw_exception};
use crate::hub::{get_core, set_os_error};
use crate::raw::{self, Args, absent, boolean, fast, noargs, none};
use crate::thread_data::ThreadData;
use gevent_hub_core::reactor::{Reactor, WatcherId, WatcherKind};
use pyo3::exceptions::PyAssertionError;
use pyo3::ffi::{self, PyGetSetDef, PyObject, PyTypeObject};
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use std::ffi::{c_int, c_void};
use std::ptr::null_mut;
use std::rc::Rc;
use std::sync::OnceLock;

type Obj = *mut PyObject;

/// A `Timeout`. Each `Obj` is an owned reference or null.
#[repr(C)]
struct TimeoutObject {
    base: ffi::PyBaseExceptionObject,
    seconds: Obj,
    exception: Obj,
    /// The greenlet that started it, and what it will get, while it runs.
    greenlet: Obj,
    throws: Obj,
    loop_: Obj,
    id: Option<WatcherId>,
    priority: i32,
    counts: bool,
    one_shot: bool,
    closed: bool,
}

struct Statics {
    timeout: *mut PyTypeObject,
    on_expiration: Obj,
    str_on_expiration: Obj,
    str_start: Obj,
    str_close: Obj,
    never: Obj,
}

// SAFETY: immortal objects, used with the GIL held.
unsafe impl Send for Statics {}
// SAFETY: as above.
unsafe impl Sync for Statics {}

static STATICS: OnceLock<Statics> = OnceLock::new();

fn statics() -> &'static Statics {
    STATICS
        .get()
        .expect("gevent._core is initialised before its types are used")
}

fn cast(slf: Obj) -> *mut TimeoutObject {
    slf.cast()
}

unsafe fn set(field: *mut Obj, value: Obj) {
    // SAFETY: an owned field; the GIL is held.
    unsafe {
        let old = std::mem::replace(&mut *field, value);
        ffi::Py_XDECREF(old);
    }
}

/// The timer of a timeout that never expires, and what `Timeout._start_new_or_dummy(None)` returns.
#[pyclass(frozen, module = "gevent.timeout", name = "_FakeTimer")]
struct Never;

#[pymethods]
impl Never {
    #[classattr]
    #[pyo3(name = "pending")]
    const PENDING: bool = false;
    #[classattr]
    #[pyo3(name = "active")]
    const ACTIVE: bool = false;

    #[getter]
    fn seconds(&self) -> Option<f64> {
        None
    }

    #[getter]
    fn timer(&self) -> Option<f64> {
        None
    }

    #[getter]
    fn exception(&self) -> Option<f64> {
        None
    }

    #[pyo3(signature = (*_args, **_kwargs))]
    fn start(
        &self,
        _args: &Bound<'_, PyTuple>,
        _kwargs: Option<&Bound<'_, pyo3::types::PyDict>>,
    ) -> PyResult<()> {
        Err(PyAssertionError::new_err(
            "non-expiring timer cannot be started",
        ))
    }

    fn stop(&self) {}

    fn cancel(&self) {}

    fn close(&self) {}

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    #[pyo3(signature = (*_exc))]
    fn __exit__(&self, _exc: &Bound<'_, PyTuple>) {}
}

/// `Timeout.timer`: what can be seen and done of the native timer.
#[pyclass(frozen, module = "gevent.timeout", name = "_Timer")]
struct TimerView(Py<PyAny>);

#[pymethods]
impl TimerView {
    #[getter]
    fn pending(&self, py: Python<'_>) -> bool {
        // SAFETY: it holds a timeout.
        unsafe { is_pending(cast(self.0.bind(py).as_ptr())) }
    }

    #[getter]
    fn active(&self, py: Python<'_>) -> bool {
        self.pending(py)
    }

    fn stop(&self, py: Python<'_>) {
        // SAFETY: it holds a timeout.
        unsafe { halt(cast(self.0.bind(py).as_ptr())) };
    }

    fn close(&self, py: Python<'_>) {
        self.stop(py);
    }
}

/// Whether an object is a `Timeout`.
///
/// # Safety
/// An object; the GIL is held.
pub unsafe fn is_timeout(p: Obj) -> bool {
    // SAFETY: the caller's promise.
    unsafe { ffi::PyObject_TypeCheck(p, statics().timeout) != 0 }
}

/// Raises a new `Timeout(seconds)`; null for none. Returns null.
///
/// # Safety
/// The GIL is held.
pub unsafe fn raise_new(seconds: Obj) -> Obj {
    // SAFETY: the caller's promise.
    unsafe {
        let ty: Obj = statics().timeout.cast();
        let t = if seconds.is_null() {
            ffi::PyObject_CallNoArgs(ty)
        } else {
            ffi::PyObject_CallOneArg(ty, seconds)
        };
        if !t.is_null() {
            ffi::PyErr_SetObject(ty, t);
            ffi::Py_DECREF(t);
        }
        null_mut()
    }
}

// ---- slots -----------------------------------------------------------------------------------------

unsafe extern "C" fn tp_new(ty: *mut PyTypeObject, _args: Obj, _kwargs: Obj) -> Obj {
    // SAFETY: the base's constructor allocates, zeroed, an object of `ty`.
    unsafe {
        let base = ffi::PyExc_BaseException.cast::<PyTypeObject>();
        let Some(new) = (*base).tp_new else {
            return null_mut();
        };
        let t = new(ty, crate::greenlet::globals().empty_tuple, null_mut());
        if !t.is_null() {
            let me = cast(t);
            (&raw mut (*me).id).write(None);
            (*me).counts = true;
            (*me).priority = -1;
        }
        t
    }
}

unsafe extern "C" fn tp_init(slf: Obj, args: Obj, kwargs: Obj) -> c_int {
    // SAFETY: the slot's contract; borrowed arguments.
    unsafe {
        let mut v: [Obj; 5] = [null_mut(); 5];
        let names = [c"seconds", c"exception", c"ref", c"priority", c"_one_shot"];
        let mut list: Vec<_> = names.iter().map(|n| n.as_ptr()).collect();
        list.push(std::ptr::null());
        let [seconds, exception, counts, priority, one_shot] = &mut v;
        if ffi::PyArg_ParseTupleAndKeywords(
            args,
            kwargs,
            c"|OOOOO:Timeout".as_ptr(),
            list.as_mut_ptr().cast(),
            &raw mut *seconds,
            &raw mut *exception,
            &raw mut *counts,
            &raw mut *priority,
            &raw mut *one_shot,
        ) == 0
        {
            return -1;
        }
        fill(cast(slf), v)
    }
}

/// Sets the fields from the constructor's arguments, borrowed or null.
unsafe fn fill(
    me: *mut TimeoutObject,
    [seconds, exception, counts, priority, one_shot]: [Obj; 5],
) -> c_int {
    // SAFETY: a timeout; the GIL is held.
    unsafe {
        for (flag, arg) in [
            (&raw mut (*me).counts, counts),
            (&raw mut (*me).one_shot, one_shot),
        ] {
            if !arg.is_null() {
                let truth = ffi::PyObject_IsTrue(arg);
                if truth < 0 {
                    return -1;
                }
                *flag = truth != 0;
            }
        }
        if !absent(priority) {
            let p = ffi::PyLong_AsLong(priority);
            if p == -1 && !ffi::PyErr_Occurred().is_null() {
                return -1;
            }
            (*me).priority = p.clamp(-2, 2) as i32;
        }
        if !absent(seconds) {
            let s = ffi::PyFloat_AsDouble(seconds);
            if s == -1.0 && !ffi::PyErr_Occurred().is_null() {
                return -1;
            }
            let Ok(hub) = get_core() else { return -1 };
            set(&raw mut (*me).loop_, ffi::Py_NewRef(hub.loop_object()));
        }
        let keep = |p: Obj| {
            if p.is_null() {
                none()
            } else {
                ffi::Py_NewRef(p)
            }
        };
        set(&raw mut (*me).seconds, keep(seconds));
        set(&raw mut (*me).exception, keep(exception));
        0
    }
}

unsafe fn fields(me: *mut TimeoutObject) -> [*mut Obj; 5] {
    // SAFETY: addresses only.
    unsafe {
        [
            &raw mut (*me).seconds,
            &raw mut (*me).exception,
            &raw mut (*me).greenlet,
            &raw mut (*me).throws,
            &raw mut (*me).loop_,
        ]
    }
}

unsafe extern "C" fn traverse(slf: Obj, visit: ffi::visitproc, arg: *mut c_void) -> c_int {
    // SAFETY: the collector's protocol.
    unsafe {
        let ty: Obj = ffi::Py_TYPE(slf).cast();
        let r = visit(ty, arg);
        if r != 0 {
            return r;
        }
        for f in fields(cast(slf)) {
            if !(*f).is_null() {
                let r = visit(*f, arg);
                if r != 0 {
                    return r;
                }
            }
        }
        match (*ffi::PyExc_BaseException.cast::<PyTypeObject>()).tp_traverse {
            Some(f) => f(slf, visit, arg),
            None => 0,
        }
    }
}

unsafe extern "C" fn clear(slf: Obj) -> c_int {
    // SAFETY: the collector's protocol.
    unsafe {
        for f in fields(cast(slf)) {
            set(f, null_mut());
        }
        match (*ffi::PyExc_BaseException.cast::<PyTypeObject>()).tp_clear {
            Some(f) => f(slf),
            None => 0,
        }
    }
}

unsafe extern "C" fn dealloc(slf: Obj) {
    // SAFETY: the slot's contract. A running timeout holds a reference to itself, so this one does not run.
    unsafe {
        ffi::PyObject_GC_UnTrack(slf.cast());
        for f in fields(cast(slf)) {
            set(f, null_mut());
        }
        let ty: Obj = ffi::Py_TYPE(slf).cast();
        if let Some(f) = (*ffi::PyExc_BaseException.cast::<PyTypeObject>()).tp_dealloc {
            f(slf);
        }
        // The base is a static type, whose deallocator leaves the type's count alone.
        ffi::Py_DECREF(ty);
    }
}

// ---- the timer -------------------------------------------------------------------------------------

unsafe fn reactor(me: *mut TimeoutObject) -> Option<Rc<Reactor>> {
    // SAFETY: `loop_` is null or a loop.
    unsafe {
        if (*me).loop_.is_null() {
            return None;
        }
        let py = Python::assume_attached();
        let l = Bound::from_borrowed_ptr(py, (*me).loop_);
        l.cast_unchecked::<crate::event_loop::Loop>()
            .get()
            .reactor_ref()
            .cloned()
    }
}

unsafe fn is_pending(me: *mut TimeoutObject) -> bool {
    // SAFETY: a timeout.
    unsafe { (*me).id.is_some() }
}

/// Stops the timer.
unsafe fn halt(me: *mut TimeoutObject) {
    // SAFETY: a timeout; the caller holds a reference.
    unsafe {
        let Some(id) = (*me).id.take() else { return };
        let py = Python::assume_attached();
        let l = Bound::from_borrowed_ptr(py, (*me).loop_);
        l.cast_unchecked::<crate::event_loop::Loop>()
            .get()
            .remove(id);
        set(&raw mut (*me).greenlet, null_mut());
        set(&raw mut (*me).throws, null_mut());
        ffi::Py_DECREF(me.cast());
    }
}

/// Starts the timer. `Err` with an error set.
unsafe fn begin(me: *mut TimeoutObject) -> Result<(), ()> {
    // SAFETY: a timeout; the GIL is held.
    unsafe {
        if is_pending(me) {
            let text = c"%R is already started; to restart it, cancel it first";
            ffi::PyErr_Format(ffi::PyExc_AssertionError, text.as_ptr(), me);
            return Err(());
        }
        if absent((*me).seconds) {
            return Ok(());
        }
        if (*me).closed {
            let text = c"non-expiring timer cannot be started";
            ffi::PyErr_SetString(ffi::PyExc_AssertionError, text.as_ptr());
            return Err(());
        }
        let Some(r) = reactor(me) else {
            let text = c"operation on destroyed loop";
            ffi::PyErr_SetString(ffi::PyExc_ValueError, text.as_ptr());
            return Err(());
        };
        let exception = (*me).exception;
        let own = absent(exception)
            || exception == ffi::Py_False()
            || ffi::PyUnicode_Check(exception) != 0;
        let throws = if own {
            null_mut()
        } else {
            ffi::Py_NewRef(exception)
        };
        set(&raw mut (*me).throws, throws);
        let current = ThreadData::get().current.get();
        set(&raw mut (*me).greenlet, ffi::Py_NewRef(current.cast()));
        let after = nanos(ffi::PyFloat_AsDouble((*me).seconds));
        match crate::hub::HubCore::current() {
            Some(hub) => hub.update_now()?,
            None => r.update_now(),
        }
        let id = r.add(
            WatcherKind::Timer { after, repeat: 0 },
            Owner::Timeout(me.cast()).into_word(),
        );
        r.set_priority(id, (*me).priority);
        if !(*me).counts {
            r.set_ref(id, false);
        }
        if let Err(e) = r.start(id) {
            r.remove(id);
            set_os_error(&e);
            return Err(());
        }
        (*me).id = Some(id);
        ffi::Py_INCREF(me.cast());
        Ok(())
    }
}

/// The timer of a timeout has fired: throws. Takes the timer's reference.
pub fn expire(host: &LoopHost<'_, '_>, p: Obj) {
    let me = cast(p);
    // SAFETY: a running timeout, which holds itself; the hub's state is installed.
    unsafe {
        if let (Some(id), Some(r)) = ((*me).id.take(), host.loop_().get().reactor_ref()) {
            r.remove(id);
        }
        let py = host.loop_().py();
        let context = Bound::from_owned_ptr(py, p);
        let greenlet = std::mem::replace(&mut (*me).greenlet, null_mut());
        let throws = std::mem::replace(&mut (*me).throws, null_mut());
        let throws = if throws.is_null() {
            ffi::Py_NewRef(p)
        } else {
            throws
        };
        if !greenlet.is_null() {
            let s = statics();
            let hook = raw::_PyType_Lookup(ffi::Py_TYPE(p), s.str_on_expiration);
            let r = if hook == s.on_expiration {
                throw_exception(greenlet, throws)
            } else {
                ffi::PyObject_CallMethodObjArgs(
                    p,
                    s.str_on_expiration,
                    greenlet,
                    throws,
                    null_mut::<PyObject>(),
                )
            };
            let td = ThreadData::get();
            td.install(td.current.get());
            td.empty_drops();
            if r.is_null() {
                host.report(&context, Err(PyErr::fetch(py)));
            } else {
                ffi::Py_DECREF(r);
            }
        }
        ffi::Py_DECREF(throws);
        ffi::Py_XDECREF(greenlet);
    }
}

/// The loop of a running timeout was destroyed.
pub fn loop_gone(_py: Python<'_>, p: Obj) {
    // SAFETY: a running timeout, which holds itself.
    unsafe {
        let me = cast(p);
        (*me).id = None;
        set(&raw mut (*me).greenlet, null_mut());
        set(&raw mut (*me).throws, null_mut());
        ffi::Py_DECREF(p);
    }
}

// ---- methods ---------------------------------------------------------------------------------------

unsafe extern "C" fn start(slf: Obj, _: Obj) -> Obj {
    // SAFETY: a timeout.
    unsafe {
        if begin(cast(slf)).is_ok() {
            none()
        } else {
            null_mut()
        }
    }
}

unsafe extern "C" fn close(slf: Obj, _: Obj) -> Obj {
    // SAFETY: a timeout.
    unsafe {
        halt(cast(slf));
        (*cast(slf)).closed = true;
        none()
    }
}

unsafe extern "C" fn cancel(slf: Obj, _: Obj) -> Obj {
    // SAFETY: a timeout.
    unsafe {
        halt(cast(slf));
        if (*cast(slf)).one_shot {
            (*cast(slf)).closed = true;
        }
        none()
    }
}

unsafe extern "C" fn on_expiration(
    _slf: Obj,
    items: *const Obj,
    n: ffi::Py_ssize_t,
    names: Obj,
) -> Obj {
    // SAFETY: as the C API calls it.
    unsafe {
        let args = Args::new(items, n, names);
        match args.parse(c"_on_expiration", [c"prev_greenlet", c"ex"]) {
            Ok([greenlet, ex]) if !greenlet.is_null() && !ex.is_null() => {
                throw_exception(greenlet, ex)
            }
            Ok(_) => {
                let text = c"_on_expiration() takes 2 arguments";
                ffi::PyErr_SetString(ffi::PyExc_TypeError, text.as_ptr());
                null_mut()
            }
            Err(()) => null_mut(),
        }
    }
}

/// Calls `start`, the class's if it has its own.
unsafe fn start_any(t: Obj) -> Result<(), ()> {
    // SAFETY: a timeout.
    unsafe {
        if ffi::Py_TYPE(t) == statics().timeout {
            return begin(cast(t));
        }
        let r = ffi::PyObject_CallMethodNoArgs(t, statics().str_start);
        if r.is_null() {
            return Err(());
        }
        ffi::Py_DECREF(r);
        Ok(())
    }
}

unsafe fn new_started(class: Obj, timeout: Obj, exception: Obj, counts: Obj, one_shot: Obj) -> Obj {
    // SAFETY: a class of timeouts; arguments are borrowed or null.
    unsafe {
        if !timeout.is_null() && is_timeout(timeout) {
            if !is_pending(cast(timeout)) && start_any(timeout).is_err() {
                return null_mut();
            }
            return ffi::Py_NewRef(timeout);
        }
        let t = if class == statics().timeout.cast() {
            let t = tp_new(class.cast(), null_mut(), null_mut());
            if !t.is_null() && fill(cast(t), [timeout, exception, counts, null_mut(), one_shot]) < 0
            {
                ffi::Py_DECREF(t);
                return null_mut();
            }
            t
        } else {
            call_class(class, timeout, exception, counts, one_shot)
        };
        if !t.is_null() && start_any(t).is_err() {
            ffi::Py_DECREF(t);
            return null_mut();
        }
        t
    }
}

/// `class(timeout, exception, ref=counts, _one_shot=one_shot)`.
unsafe fn call_class(class: Obj, timeout: Obj, exception: Obj, counts: Obj, one_shot: Obj) -> Obj {
    // SAFETY: borrowed arguments or null.
    unsafe {
        let or_none = |p: Obj| if p.is_null() { ffi::Py_None() } else { p };
        let args = raw::pair(or_none(timeout), or_none(exception));
        let kwargs = ffi::PyDict_New();
        let mut t = null_mut();
        if !args.is_null() && !kwargs.is_null() {
            let counts = if counts.is_null() {
                ffi::Py_True()
            } else {
                counts
            };
            let one_shot = if one_shot.is_null() {
                ffi::Py_False()
            } else {
                one_shot
            };
            if ffi::PyDict_SetItemString(kwargs, c"ref".as_ptr(), counts) == 0
                && ffi::PyDict_SetItemString(kwargs, c"_one_shot".as_ptr(), one_shot) == 0
            {
                t = ffi::PyObject_Call(class, args, kwargs);
            }
        }
        ffi::Py_XDECREF(args);
        ffi::Py_XDECREF(kwargs);
        t
    }
}

unsafe extern "C" fn start_new(
    class: Obj,
    items: *const Obj,
    n: ffi::Py_ssize_t,
    names: Obj,
) -> Obj {
    // SAFETY: as the C API calls it.
    unsafe {
        let args = Args::new(items, n, names);
        match args.parse(
            c"start_new",
            [c"timeout", c"exception", c"ref", c"_one_shot"],
        ) {
            Ok([timeout, exception, counts, one_shot]) => {
                new_started(class, timeout, exception, counts, one_shot)
            }
            Err(()) => null_mut(),
        }
    }
}

unsafe extern "C" fn start_new_or_dummy(
    _: Obj,
    items: *const Obj,
    n: ffi::Py_ssize_t,
    names: Obj,
) -> Obj {
    // SAFETY: as the C API calls it.
    unsafe {
        let args = Args::new(items, n, names);
        match args.parse(c"_start_new_or_dummy", [c"timeout", c"exception", c"ref"]) {
            Ok([timeout, ..]) if absent(timeout) => ffi::Py_NewRef(statics().never),
            Ok([timeout, exception, counts]) => new_started(
                statics().timeout.cast(),
                timeout,
                exception,
                counts,
                ffi::Py_True(),
            ),
            Err(()) => null_mut(),
        }
    }
}

unsafe extern "C" fn enter(slf: Obj, _: Obj) -> Obj {
    // SAFETY: a timeout.
    unsafe {
        if !is_pending(cast(slf)) && start_any(slf).is_err() {
            return null_mut();
        }
        ffi::Py_NewRef(slf)
    }
}

unsafe extern "C" fn exit(slf: Obj, items: *const Obj, n: ffi::Py_ssize_t, _names: Obj) -> Obj {
    // SAFETY: as the C API calls it; `value` is the second argument.
    unsafe {
        let r = if ffi::Py_TYPE(slf) == statics().timeout {
            close(slf, null_mut())
        } else {
            ffi::PyObject_CallMethodNoArgs(slf, statics().str_close)
        };
        if r.is_null() {
            return r;
        }
        ffi::Py_DECREF(r);
        let value = if n > 1 { *items.add(1) } else { null_mut() };
        if value == slf && (*cast(slf)).exception == ffi::Py_False() {
            return boolean(true);
        }
        none()
    }
}

// ---- attributes and texts --------------------------------------------------------------------------

unsafe extern "C" fn get_pending(slf: Obj, _: *mut c_void) -> Obj {
    // SAFETY: a timeout.
    unsafe { boolean(is_pending(cast(slf))) }
}

unsafe extern "C" fn get_timer(slf: Obj, _: *mut c_void) -> Obj {
    // SAFETY: a timeout.
    unsafe {
        if absent((*cast(slf)).seconds) || (*cast(slf)).closed {
            return ffi::Py_NewRef(statics().never);
        }
        let py = Python::assume_attached();
        match Bound::new(py, TimerView(Bound::from_borrowed_ptr(py, slf).unbind())) {
            Ok(v) => v.into_ptr(),
            Err(e) => {
                e.restore(py);
                null_mut()
            }
        }
    }
}

macro_rules! attribute {
    ($get:ident, $set:ident, $field:ident) => {
        unsafe extern "C" fn $get(slf: Obj, _: *mut c_void) -> Obj {
            // SAFETY: a timeout.
            unsafe {
                let p = (*cast(slf)).$field;
                if p.is_null() {
                    none()
                } else {
                    ffi::Py_NewRef(p)
                }
            }
        }

        unsafe extern "C" fn $set(slf: Obj, value: Obj, _: *mut c_void) -> c_int {
            // SAFETY: a timeout.
            unsafe {
                let value = if value.is_null() {
                    none()
                } else {
                    ffi::Py_NewRef(value)
                };
                set(&raw mut (*cast(slf)).$field, value);
                0
            }
        }
    };
}

attribute!(get_seconds, set_seconds, seconds);
attribute!(get_exception, set_exception, exception);

fn text_of(py: Python<'_>, p: Obj, repr: bool) -> PyResult<String> {
    // SAFETY: null or an object that is alive.
    let p = unsafe { Bound::from_borrowed_ptr(py, if p.is_null() { ffi::Py_None() } else { p }) };
    Ok(if repr {
        p.repr()?.to_string()
    } else {
        p.str()?.to_string()
    })
}

unsafe fn finish(py: Python<'_>, text: PyResult<String>) -> Obj {
    match text.map(|t| pyo3::types::PyString::new(py, &t)) {
        Ok(t) => t.into_ptr(),
        Err(e) => {
            e.restore(py);
            null_mut()
        }
    }
}

unsafe extern "C" fn repr(slf: Obj) -> Obj {
    // SAFETY: a timeout.
    unsafe {
        let py = Python::assume_attached();
        let me = cast(slf);
        let text = (|| -> PyResult<String> {
            let class = Bound::from_borrowed_ptr(py, slf)
                .get_type()
                .name()?
                .to_string();
            let seconds = text_of(py, (*me).seconds, false)?;
            let exception = if absent((*me).exception) {
                String::new()
            } else {
                format!(" exception={}", text_of(py, (*me).exception, true)?)
            };
            let pending = if is_pending(me) { " pending" } else { "" };
            Ok(format!(
                "<{class} at {:#x} seconds={seconds}{exception}{pending}>",
                slf as usize
            ))
        })();
        finish(py, text)
    }
}

unsafe extern "C" fn str(slf: Obj) -> Obj {
    // SAFETY: a timeout.
    unsafe {
        let py = Python::assume_attached();
        let me = cast(slf);
        let text = (|| -> PyResult<String> {
            if absent((*me).seconds) {
                return Ok(String::new());
            }
            let seconds = Bound::from_borrowed_ptr(py, (*me).seconds);
            let plural = if seconds.eq(1)? { "" } else { "s" };
            let mut text = format!("{} second{plural}", seconds.str()?);
            if (*me).exception == ffi::Py_False() {
                text.push_str(" (silent)");
            } else if !absent((*me).exception) {
                text.push_str(&format!(": {}", text_of(py, (*me).exception, false)?));
            }
            Ok(text)
        })();
        finish(py, text)
    }
}

/// `<` compares seconds, with another timeout or a number; nothing else is ordered.
unsafe extern "C" fn compare(a: Obj, b: Obj, op: c_int) -> Obj {
    // SAFETY: a timeout and an object.
    unsafe {
        let other = match op {
            ffi::Py_LT if is_timeout(b) => (*cast(b)).seconds,
            ffi::Py_LT => b,
            _ => {
                return ffi::PyBaseObject_Type
                    .tp_richcompare
                    .map_or(null_mut(), |f| f(a, b, op));
            }
        };
        let r = ffi::PyObject_RichCompare((*cast(a)).seconds, other, ffi::Py_LT);
        if r.is_null() && !is_timeout(b) && ffi::PyErr_ExceptionMatches(ffi::PyExc_TypeError) != 0 {
            ffi::PyErr_Clear();
            return ffi::Py_NewRef(ffi::Py_NotImplemented());
        }
        r
    }
}

/// Adds the type and its dummy.
pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = m.py();
    let fake = Bound::new(py, Never)?;
    let getset =
        |name: &'static std::ffi::CStr, get, set, doc: &'static std::ffi::CStr| PyGetSetDef {
            name: name.as_ptr(),
            get: Some(get),
            set,
            doc: doc.as_ptr(),
            closure: null_mut(),
        };
    let methods = vec![
        noargs(c"start", start, c"Start it: it will be raised in this greenlet after its seconds."),
        noargs(c"cancel", cancel, c"Stop it, if it runs. It can be started again."),
        noargs(c"close", close, c"Stop it for good."),
        fast(c"_on_expiration", on_expiration, 0, c"_on_expiration(prev_greenlet, ex)\n\nThrow. For subclasses to override."),
        fast(c"start_new", start_new, ffi::METH_CLASS, c"start_new(timeout=None, exception=None, ref=True)\n\nMake one of seconds, or take one, and start it."),
        fast(c"_start_new_or_dummy", start_new_or_dummy, ffi::METH_STATIC, c"_start_new_or_dummy(timeout, exception=None, ref=True)\n\nThe same, but for None something that does nothing."),
        noargs(c"__enter__", enter, c"Start it, unless it runs."),
        fast(c"__exit__", exit, 0, c"Close it; suppress it if its exception is False."),
    ];
    let attributes = vec![
        getset(c"pending", get_pending, None, c"Whether it runs."),
        getset(c"timer", get_timer, None, c"Its timer."),
        getset(
            c"seconds",
            get_seconds,
            Some(set_seconds),
            c"After how many seconds it is raised; None for never.",
        ),
        getset(
            c"exception",
            get_exception,
            Some(set_exception),
            c"What is raised instead of itself, if not None, False or a text.",
        ),
    ];
    let slots: Vec<(c_int, *mut c_void)> = vec![
        (ffi::Py_tp_new, tp_new as *mut c_void),
        (ffi::Py_tp_init, tp_init as *mut c_void),
        (ffi::Py_tp_dealloc, dealloc as *mut c_void),
        (ffi::Py_tp_traverse, traverse as *mut c_void),
        (ffi::Py_tp_clear, clear as *mut c_void),
        (ffi::Py_tp_repr, repr as *mut c_void),
        (ffi::Py_tp_str, str as *mut c_void),
        (ffi::Py_tp_richcompare, compare as *mut c_void),
        (ffi::Py_tp_hash, hash as *mut c_void),
        (
            ffi::Py_tp_doc,
            c"Timeout(seconds=None, exception=None, ref=True, priority=-1)\n\nRaise an exception in the current greenlet after some seconds: this one, unless another is given. Always close it when its time is over; a with statement does."
                .as_ptr()
                .cast_mut()
                .cast(),
        ),
    ];
    // SAFETY: at the module's initialisation, with the GIL held.
    unsafe {
        let timeout = make_type(
            py,
            c"gevent.timeout.Timeout",
            size_of::<TimeoutObject>(),
            ffi::PyExc_BaseException.cast(),
            methods,
            attributes,
            &slots,
        )?;
        let intern = |t: &std::ffi::CStr| ffi::PyUnicode_InternFromString(t.as_ptr());
        let str_on_expiration = intern(c"_on_expiration");
        let _ = STATICS.set(Statics {
            timeout,
            on_expiration: raw::_PyType_Lookup(timeout, str_on_expiration),
            str_on_expiration,
            str_start: intern(c"start"),
            str_close: intern(c"close"),
            never: fake.clone().into_ptr(),
        });
        m.add("Timeout", Bound::from_borrowed_ptr(py, timeout.cast()))?;
    }
    m.add("_FakeTimer", fake)
}

unsafe extern "C" fn hash(slf: Obj) -> ffi::Py_hash_t {
    // SAFETY: `object.__hash__`.
    unsafe { ffi::PyBaseObject_Type.tp_hash.map_or(0, |f| f(slf)) }
}
