//! The loop object and its watchers: the reactor as Python sees it.
//!
//! `gevent.core.loop` is a Python subclass of [`Loop`] that adds what is rarely called. What runs the
//! reactor (calls callbacks, lets go of the GIL, looks at signals) is in `host`.

mod alarm;
mod callback;
mod host;
mod kinds;
mod looper;
mod payload;
mod watcher;

pub use callback::Callback;
pub use host::{LoopHost, release_gil, take_gil};
pub use looper::{Loop, thread_ends, thread_mark};
pub use payload::{Owner, Payload};
pub use watcher::Watcher;

use gevent_hub_core::reactor::Nanos;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

/// Seconds as nanoseconds; negative ones and NaN are 0.
pub fn nanos(seconds: f64) -> Nanos {
    // `as` saturates, and maps NaN to 0.
    (seconds * 1e9) as Nanos
}

/// Whether an argument is true, of any type: by itself pyo3 takes nothing but a `bool`.
fn truth(value: &Bound<'_, PyAny>) -> PyResult<bool> {
    value.is_truthy()
}

/// The same, with None for what was left out.
fn truth_or_none(value: &Bound<'_, PyAny>) -> PyResult<Option<bool>> {
    if value.is_none() {
        return Ok(None);
    }
    truth(value).map(Some)
}

static EVENTS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// The object that stands for "the events" among a callback's arguments.
pub fn events_marker(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    EVENTS
        .get_or_try_init(py, || Ok(Bound::new(py, EventsMarker)?.into_any().unbind()))
        .map(|m| m.bind(py))
}

/// The class of `gevent.core.EVENTS`.
#[pyclass(frozen, module = "gevent.core", name = "_EVENTSType")]
struct EventsMarker;

#[crate::entry]
#[pymethods]
impl EventsMarker {
    fn __repr__(&self) -> &'static str {
        "gevent.core.EVENTS"
    }
}

const NAMES: [(u32, &str); 17] = [
    (0x1, "READ"),
    (0x2, "WRITE"),
    (0x80, "_IOFDSET"),
    (0x100, "TIMER"),
    (0x200, "PERIODIC"),
    (0x400, "SIGNAL"),
    (0x800, "CHILD"),
    (0x1000, "STAT"),
    (0x2000, "IDLE"),
    (0x4000, "PREPARE"),
    (0x8000, "CHECK"),
    (0x1_0000, "EMBED"),
    (0x2_0000, "FORK"),
    (0x4_0000, "CLEANUP"),
    (0x8_0000, "ASYNC"),
    (0x100_0000, "CUSTOM"),
    (0x8000_0000, "ERROR"),
];

/// Event bits by libev's names, joined by `|`; unknown ones in hexadecimal.
pub fn events_to_str(events: u32) -> String {
    let mut left = events;
    let mut names = Vec::new();
    for (bit, name) in NAMES {
        if left & bit != 0 {
            names.push(name.to_owned());
            left &= !bit;
        }
    }
    if left != 0 || names.is_empty() {
        names.push(format!("{left:#x}"));
    }
    names.join("|")
}

#[pyfunction]
fn _events_to_str(events: u32) -> String {
    events_to_str(events)
}

/// Adds everything of this module to `gevent._core`.
pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    kinds::register(m)?;
    m.add_class::<Loop>()?;
    m.add_class::<Callback>()?;
    m.add("EVENTS", events_marker(m.py())?)?;
    m.add_function(wrap_pyfunction!(_events_to_str, m)?)?;
    looper::register(m)
}
