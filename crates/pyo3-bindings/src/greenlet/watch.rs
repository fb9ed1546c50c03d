//! Watching a thread's switches from another thread, without a tracer: by a number that counts them.

use super::object::{PyGreenlet, new_ref, replace};
use crate::thread_data::ThreadData;
use pyo3::prelude::*;

/// Tells how often the thread that made it has switched, and to which greenlet last. Any thread may ask.
#[pyclass(frozen, module = "gevent._core")]
struct SwitchWatch {
    /// The thread's main greenlet, which knows whether the thread has ended.
    main: Py<PyAny>,
}

impl SwitchWatch {
    fn look<R>(&self, f: impl FnOnce(&ThreadData) -> R) -> Option<R> {
        // SAFETY: a main greenlet, which is alive; it forgets its thread before that is gone, with the
        // GIL held, as it is here.
        unsafe {
            let td = (*self.main.as_ptr().cast::<PyGreenlet>()).td.get();
            td.as_ref().map(f)
        }
    }
}

#[crate::entry]
#[pymethods]
impl SwitchWatch {
    #[new]
    fn new(py: Python<'_>) -> Self {
        // SAFETY: the GIL is held; the main greenlet lives as long as its thread.
        let main = unsafe { Bound::from_borrowed_ptr(py, ThreadData::get().main.cast()) };
        SwitchWatch {
            main: main.unbind(),
        }
    }

    /// How many switches there were. 0 if the thread has ended.
    fn switches(&self) -> u64 {
        self.look(|td| td.switches.get()).unwrap_or(0)
    }

    /// The greenlet that runs, or None if the thread has ended.
    fn current(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        // SAFETY: the running greenlet is alive.
        self.look(|td| unsafe { Bound::from_borrowed_ptr(py, td.current.get().cast()).unbind() })
    }
}

/// Makes `gettrace()` show *tracer*, which is not called, since it has a `SwitchWatch`. False if there is
/// another tracer, or one is called.
#[pyfunction]
fn set_quiet_tracer(tracer: &Bound<'_, PyAny>) -> bool {
    // SAFETY: the GIL is held, in the thread whose data it is.
    unsafe {
        let td = ThreadData::get();
        if !td.tracer.get().is_null() || !td.quiet_tracer.get().is_null() {
            return false;
        }
        replace(&td.quiet_tracer, new_ref(tracer.as_ptr()));
    }
    true
}

/// Adds the class and the function.
pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<SwitchWatch>()?;
    m.add_function(wrap_pyfunction!(set_quiet_tracer, m)?)
}
