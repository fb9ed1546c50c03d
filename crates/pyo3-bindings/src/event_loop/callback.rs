//! `callback`: what `loop.run_callback` returns.

use crate::cells::PyCellOpt;
use crate::tstate::call_tuple;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

/// A function and its arguments, queued to be called once by the loop.
///
/// `pending` is cleared before the call and `bool()` after it, as in libev and upstream.
#[pyclass(frozen, weakref, module = "gevent._core", name = "callback")]
pub struct Callback {
    callback: PyCellOpt,
    args: PyCellOpt,
}

impl Callback {
    /// A queued call of `callback(*args)`.
    pub fn new(callback: Py<PyAny>, args: Py<PyTuple>) -> Self {
        Callback {
            callback: PyCellOpt::new(Some(callback)),
            args: PyCellOpt::new(Some(args.into_any())),
        }
    }

    /// Marks a queued one as over without calling it.
    ///
    /// # Safety
    /// `this` is a `Callback` object, and the GIL is held.
    pub unsafe fn forget(this: *mut ffi::PyObject) {
        // SAFETY: the caller's promise.
        let py = unsafe { Python::assume_attached() };
        // SAFETY: as above; borrowed for this scope.
        let this = unsafe { Bound::from_borrowed_ptr(py, this) };
        if let Ok(this) = this.cast::<Callback>() {
            this.get().stop();
        }
    }

    /// Calls it, unless it was stopped. The error is the callable's; the arguments stay, to be seen with it,
    /// until `done`.
    pub fn fire(&self, py: Python<'_>) -> PyResult<()> {
        let (Some(callback), Some(args)) = (self.callback.take(), self.args.get(py)) else {
            self.args.set(None);
            return Ok(());
        };
        call_tuple(callback.bind(py), args.bind(py).cast::<PyTuple>()?).map(drop)
    }
}

impl Callback {
    /// It was called, and its error reported.
    pub fn done(&self) {
        self.args.set(None);
    }
}

#[crate::entry]
#[pymethods]
impl Callback {
    #[new]
    fn py_new(callback: Py<PyAny>, args: Py<PyTuple>) -> Self {
        Self::new(callback, args)
    }

    /// Forgets the call.
    fn stop(&self) {
        self.callback.set(None);
        self.args.set(None);
    }

    /// The same as `stop`.
    fn close(&self) {
        self.stop();
    }

    fn __bool__(&self) -> bool {
        self.args.is_some()
    }

    #[getter]
    fn pending(&self) -> bool {
        self.callback.is_some()
    }

    #[getter(callback)]
    fn get_callback(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.callback.get(py)
    }

    #[setter(callback)]
    fn set_callback(&self, value: Option<Py<PyAny>>) {
        self.callback.set(value);
    }

    #[getter(args)]
    fn get_args(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.args.get(py)
    }

    #[setter(args)]
    fn set_args(&self, value: Option<Py<PyAny>>) {
        self.args.set(value);
    }

    fn _format(&self) -> &'static str {
        ""
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        let me = slf.get();
        let py = slf.py();
        let mut text = format!(
            "<{} at {:#x}",
            slf.get_type().name()?,
            slf.as_ptr() as usize
        );
        let (callback, args) = (me.callback.get(py), me.args.get(py));
        if callback.is_some() {
            text.push_str(" pending");
        }
        if let Some(c) = &callback {
            text.push_str(&format!(" callback={}", c.bind(py).repr()?));
        }
        if let Some(a) = &args {
            text.push_str(&format!(" args={}", a.bind(py).repr()?));
        }
        if callback.is_none() && args.is_none() {
            text.push_str(" stopped");
        }
        text.push('>');
        Ok(text)
    }

    fn __traverse__(&self, visit: pyo3::PyVisit<'_>) -> Result<(), pyo3::PyTraverseError> {
        self.callback.traverse(&visit)?;
        self.args.traverse(&visit)
    }

    fn __clear__(&self) {
        self.stop();
    }
}
