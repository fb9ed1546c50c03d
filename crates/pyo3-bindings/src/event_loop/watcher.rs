//! The base of all watchers: what start, stop, close, ref, priority and the callback mean.
//!
//! A watcher that is active holds a reference to itself, so that a started one is never collected. Its
//! callback and arguments are cleared when it stops, also by itself (a timer that has fired).

use super::{Loop, Owner};
use crate::cells::{GilCell, PyCellOpt};
use crate::tstate::call_tuple;
use gevent_hub_core::reactor::{Reactor, Revents, WatcherId, WatcherKind};
use pyo3::exceptions::{PyAttributeError, PyTypeError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyString, PyTuple};
use std::rc::Rc;

/// The base class of watchers.
#[pyclass(subclass, frozen, weakref, module = "gevent._core", name = "watcher")]
pub struct Watcher {
    loop_: PyCellOpt,
    id: GilCell<Option<WatcherId>>,
    callback: PyCellOpt,
    args: PyCellOpt,
    /// It holds a reference to itself.
    kept: GilCell<bool>,
    want_ref: GilCell<bool>,
    /// Counts its starts.
    started: GilCell<u32>,
}

impl Watcher {
    /// Makes an inactive watcher on `loop_`. `None` as priority means 0.
    pub fn create(
        loop_: &Bound<'_, Loop>,
        kind: WatcherKind,
        want_ref: bool,
        priority: Option<i32>,
    ) -> PyResult<Self> {
        let reactor = loop_.get().reactor()?;
        let id = reactor.add(kind, 0);
        if !want_ref {
            reactor.set_ref(id, false);
        }
        if let Some(p) = priority {
            reactor.set_priority(id, clamp(p));
        }
        Ok(Watcher {
            loop_: PyCellOpt::new(Some(loop_.clone().unbind().into_any())),
            id: GilCell::new(Some(id)),
            callback: PyCellOpt::new(None),
            args: PyCellOpt::new(None),
            kept: GilCell::new(false),
            want_ref: GilCell::new(want_ref),
            started: GilCell::new(0),
        })
    }

    /// Its loop.
    ///
    /// # Errors
    /// `ValueError` when the watcher was closed.
    #[inline]
    pub fn get_loop<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, Loop>> {
        let l = self.loop_.get(py).ok_or_else(closed)?.into_bound(py);
        // SAFETY: it is what `create` was given.
        Ok(unsafe { l.cast_into_unchecked() })
    }

    /// Its reactor and name there.
    ///
    /// # Errors
    /// `ValueError` when the watcher was closed or its loop destroyed.
    #[inline]
    pub fn parts(&self, py: Python<'_>) -> PyResult<(Rc<Reactor>, WatcherId)> {
        self.place(py).map(|(_, reactor, id)| (reactor, id))
    }

    /// The same, and its loop.
    #[inline]
    pub fn place<'py>(
        &self,
        py: Python<'py>,
    ) -> PyResult<(Bound<'py, Loop>, Rc<Reactor>, WatcherId)> {
        let id = self.id.get().ok_or_else(closed)?;
        let l = self.get_loop(py)?;
        let reactor = l.get().reactor()?;
        Ok((l, reactor, id))
    }

    /// The same, for what changes the watcher.
    ///
    /// # Errors
    /// Also `RuntimeError` on a thread that does not own the loop.
    #[inline]
    pub fn own_place<'py>(
        &self,
        py: Python<'py>,
    ) -> PyResult<(Bound<'py, Loop>, Rc<Reactor>, WatcherId)> {
        let place = self.place(py)?;
        place.0.get().check_thread()?;
        Ok(place)
    }

    /// Whether `close` was called.
    pub fn is_closed(&self) -> bool {
        self.id.get().is_none()
    }

    fn live(&self, py: Python<'_>) -> Option<(Rc<Reactor>, WatcherId)> {
        self.parts(py).ok()
    }

    fn keep(slf: &Bound<'_, Self>) {
        let me = slf.get();
        if !me.kept.get() {
            me.kept.set(true);
            // SAFETY: released by `unkeep`.
            unsafe { ffi::Py_INCREF(slf.as_ptr()) };
        }
    }

    fn unkeep(slf: &Bound<'_, Self>) {
        let me = slf.get();
        if me.kept.get() {
            me.kept.set(false);
            // SAFETY: the reference of `keep`; `slf` holds another.
            unsafe { ffi::Py_DECREF(slf.as_ptr()) };
        }
    }

    fn set_call(&self, callback: &Bound<'_, PyAny>, args: Py<PyAny>) -> PyResult<()> {
        if !callback.is_callable() {
            return Err(PyTypeError::new_err(format!(
                "Expected callable, not {}",
                callback.repr()?
            )));
        }
        self.callback.set(Some(callback.clone().unbind()));
        self.args.set(Some(args));
        Ok(())
    }

    /// Remembers the call and hands the watcher to the reactor; `again` uses the timer's other start.
    pub fn start_with(
        slf: &Bound<'_, Self>,
        callback: &Bound<'_, PyAny>,
        args: Bound<'_, PyTuple>,
        again: bool,
    ) -> PyResult<()> {
        let py = slf.py();
        let me = slf.get();
        let (_, reactor, id) = me.own_place(py)?;
        me.set_call(callback, args.into_any().unbind())?;
        me.started.set(me.started.get().wrapping_add(1));
        reactor.set_data(id, Owner::Watcher(slf.as_ptr()).into_word());
        let started = if again {
            reactor.again(id);
            Ok(())
        } else {
            reactor.start(id)
        };
        if let Err(e) = started {
            me.callback.set(None);
            me.args.set(None);
            return Err(crate::errors::io_error(&e));
        }
        if reactor.is_active(id) {
            Self::keep(slf);
        } else {
            Self::unkeep(slf);
        }
        Ok(())
    }

    /// Calls the callback because of `revents`.
    pub fn fire(slf: &Bound<'_, Self>, revents: Revents) -> PyResult<()> {
        let py = slf.py();
        let me = slf.get();
        let (Some(callback), Some(args)) = (me.callback.get(py), me.args.get(py)) else {
            return Ok(());
        };
        let args = args.into_bound(py).cast_into::<PyTuple>()?;
        let result = match args.get_borrowed_item(0) {
            Ok(first) if first.is(super::events_marker(py)?) => {
                let mut items: Vec<Bound<'_, PyAny>> = args.iter().collect();
                items[0] = revents.0.into_pyobject(py)?.into_any();
                call_tuple(callback.bind(py), &PyTuple::new(py, items)?)
            }
            _ => call_tuple(callback.bind(py), &args),
        };
        if !Self::is_busy(slf) {
            Self::settle(slf);
        }
        result.map(drop)
    }

    /// Has another thread's loop stop it. At once it calls nothing more; until the loop has stopped it, it
    /// stays alive. False if the loop has ended.
    #[cold]
    fn stop_away(slf: &Bound<'_, Self>, l: &Loop, id: WatcherId) -> bool {
        let me = slf.get();
        me.callback.set(None);
        me.args.set(None);
        let held = slf.clone().unbind();
        let started = me.started.get();
        l.later(move |r| {
            // SAFETY: jobs run with the GIL held.
            let py = unsafe { Python::assume_attached() };
            let watcher = held.bind(py);
            // Its own thread may have started it again meanwhile.
            if watcher.get().started.get() == started {
                r.stop(id);
                Self::settle(watcher);
            }
        })
    }

    fn is_busy(slf: &Bound<'_, Self>) -> bool {
        slf.get()
            .live(slf.py())
            .is_some_and(|(r, id)| r.is_active(id) || r.is_pending(id))
    }

    /// Forgets callback and arguments of a watcher that is not active any more.
    pub fn settle(slf: &Bound<'_, Self>) {
        let me = slf.get();
        me.callback.set(None);
        me.args.set(None);
        Self::unkeep(slf);
    }

    /// The loop of an active watcher is being destroyed: what it held, itself too, is moved to `held`.
    pub fn loop_gone(slf: &Bound<'_, Self>, held: &mut Vec<Py<PyAny>>) {
        let me = slf.get();
        held.extend(me.callback.take());
        held.extend(me.args.take());
        if me.kept.get() {
            me.kept.set(false);
            // SAFETY: the reference of `keep`.
            held.push(unsafe { Bound::from_owned_ptr(slf.py(), slf.as_ptr()).unbind() });
        }
    }
}

#[cold]
fn closed() -> PyErr {
    PyValueError::new_err("operation on closed watcher")
}

fn clamp(priority: i32) -> i32 {
    priority.clamp(-2, 2)
}

impl Drop for Watcher {
    fn drop(&mut self) {
        // Not kept, hence not active: only its name in the reactor is left to free.
        if let Some(id) = self.id.get() {
            let py = unsafe {
                // SAFETY: objects are deallocated with the GIL held.
                Python::assume_attached()
            };
            if let Ok(l) = self.get_loop(py) {
                l.get().remove(id);
            }
        }
    }
}

#[crate::entry]
#[pymethods]
impl Watcher {
    /// Starts to watch: `callback(*args)` is called for each event.
    #[pyo3(signature = (callback, *args))]
    fn start(
        slf: &Bound<'_, Self>,
        callback: &Bound<'_, PyAny>,
        args: Bound<'_, PyTuple>,
    ) -> PyResult<()> {
        Self::start_with(slf, callback, args, false)
    }

    /// Stops watching, and forgets the callback.
    fn stop(slf: &Bound<'_, Self>) {
        let me = slf.get();
        if let Ok((l, reactor, id)) = me.place(slf.py()) {
            if l.get().may_stop(&reactor, id) {
                reactor.stop(id);
            } else if Self::stop_away(slf, l.get(), id) {
                return;
            }
        }
        Self::settle(slf);
    }

    /// Stops for good and lets go of the loop.
    pub fn close(slf: &Bound<'_, Self>) {
        Self::stop(slf);
        let me = slf.get();
        if let Some(id) = me.id.get() {
            me.id.set(None);
            if let Ok(l) = me.get_loop(slf.py()) {
                l.get().remove(id);
            }
        }
        me.loop_.set(None);
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    #[pyo3(signature = (*_exc))]
    fn __exit__(slf: &Bound<'_, Self>, _exc: &Bound<'_, PyTuple>) -> PyResult<()> {
        slf.call_method0("close").map(drop)
    }

    /// Makes the event `revents` pending, with this callback.
    #[pyo3(signature = (revents, callback, *args))]
    fn feed(
        slf: &Bound<'_, Self>,
        revents: u32,
        callback: &Bound<'_, PyAny>,
        args: Bound<'_, PyTuple>,
    ) -> PyResult<()> {
        let me = slf.get();
        let (_, reactor, id) = me.own_place(slf.py())?;
        me.set_call(callback, args.into_any().unbind())?;
        reactor.set_data(id, Owner::Watcher(slf.as_ptr()).into_word());
        Self::keep(slf);
        reactor.feed(id, Revents(revents));
        Ok(())
    }

    #[getter]
    fn active(&self, py: Python<'_>) -> bool {
        self.live(py).is_some_and(|(r, id)| r.is_active(id))
    }

    #[getter]
    fn pending(&self, py: Python<'_>) -> bool {
        self.live(py).is_some_and(|(r, id)| r.is_pending(id))
    }

    #[getter(r#loop)]
    fn py_loop(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.loop_.get(py)
    }

    #[getter(callback)]
    fn get_callback(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.callback.get(py)
    }

    #[setter(callback)]
    fn set_callback(&self, callback: Option<Bound<'_, PyAny>>) -> PyResult<()> {
        if let Some(c) = &callback
            && !c.is_callable()
        {
            return Err(PyTypeError::new_err(format!(
                "Expected callable, not {}",
                c.repr()?
            )));
        }
        self.callback.set(callback.map(Bound::unbind));
        Ok(())
    }

    #[getter(args)]
    fn get_args(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.args.get(py)
    }

    #[setter(args)]
    fn set_args(&self, args: Option<Bound<'_, PyAny>>) -> PyResult<()> {
        if args
            .as_ref()
            .is_some_and(|a| !a.is_instance_of::<PyTuple>())
        {
            return Err(PyTypeError::new_err("args must be a tuple or None"));
        }
        self.args.set(args.map(Bound::unbind));
        Ok(())
    }

    /// Whether the watcher keeps its loop running.
    #[getter(r#ref)]
    fn get_ref(&self) -> bool {
        self.want_ref.get()
    }

    #[setter(r#ref)]
    fn set_ref(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = super::truth)] value: bool,
    ) -> PyResult<()> {
        let (_, reactor, id) = self.own_place(py)?;
        self.want_ref.set(value);
        reactor.set_ref(id, value);
        Ok(())
    }

    #[getter(priority)]
    fn get_priority(&self, py: Python<'_>) -> PyResult<i32> {
        let (reactor, id) = self.parts(py)?;
        Ok(reactor.priority(id))
    }

    #[setter(priority)]
    fn set_priority(&self, py: Python<'_>, priority: i32) -> PyResult<()> {
        let (_, reactor, id) = self.own_place(py)?;
        if reactor.is_active(id) {
            return Err(PyAttributeError::new_err(
                "Cannot set priority of an active watcher",
            ));
        }
        reactor.set_priority(id, clamp(priority));
        Ok(())
    }

    /// What a kind of watcher adds to its `repr`.
    fn _format(&self) -> String {
        String::new()
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        let me = slf.get();
        let py = slf.py();
        let base = format!(
            "<{} at {:#x}",
            slf.get_type().name()?,
            slf.as_ptr() as usize
        );
        // The arguments may hold the watcher itself.
        // SAFETY: a call of the C API with a live object; balanced below.
        let seen = unsafe { ffi::Py_ReprEnter(slf.as_ptr()) };
        if seen != 0 {
            return if seen < 0 {
                Err(PyErr::fetch(py))
            } else {
                Ok(base + ">")
            };
        }
        let text = (|| -> PyResult<String> {
            let mut text = base;
            let extra = slf.call_method0("_format")?;
            text.push_str(extra.cast::<PyString>()?.to_str()?);
            if me.active(py) {
                text.push_str(" active");
            }
            if me.pending(py) {
                text.push_str(" pending");
            }
            if let Some(callback) = me.callback.get(py) {
                text.push_str(&format!(" callback={}", callback.bind(py).repr()?));
            }
            if let Some(args) = me.args.get(py) {
                text.push_str(&format!(" args={}", args.bind(py).repr()?));
            }
            Ok(text + ">")
        })();
        // SAFETY: as above.
        unsafe { ffi::Py_ReprLeave(slf.as_ptr()) };
        text
    }

    fn __traverse__(&self, visit: pyo3::PyVisit<'_>) -> Result<(), pyo3::PyTraverseError> {
        self.loop_.traverse(&visit)?;
        self.callback.traverse(&visit)?;
        self.args.traverse(&visit)
    }

    fn __clear__(&self) {
        self.callback.set(None);
        self.args.set(None);
    }
}
