//! Functions that park the running greenlet: `sleep`, and waits with a deadline.

use super::{Parked, get_core, unexpected_switch};
use crate::event_loop::nanos;
use crate::raw::{self, fast, method, parsed};
use gevent_hub_core::reactor::Wake;
use pyo3::ffi;
use pyo3::prelude::*;
use std::ptr::null_mut;

// `sleep(seconds=0, ref=True)`.
method!(parsed: sleep, c"sleep", [c"seconds", c"ref"], |_module, [seconds, counts]| {
    let seconds = if seconds.is_null() {
        0.0
    } else {
        ffi::PyFloat_AsDouble(seconds)
    };
    if seconds == -1.0 && !ffi::PyErr_Occurred().is_null() {
        return null_mut();
    }
    let counts = if counts.is_null() {
        1
    } else {
        ffi::PyObject_IsTrue(counts)
    };
    if counts < 0 {
        return null_mut();
    }
    let Ok(hub) = get_core() else {
        return null_mut();
    };
    if hub.may_block().is_err() {
        return null_mut();
    }
    let outcome = if seconds <= 0.0 {
        let park = hub.core().prepare();
        hub.core().unpark(park.token(), Wake::Event);
        hub.park(park, None)
    } else {
        if hub.update_now().is_err() {
            return null_mut();
        }
        let r = hub.reactor();

        let park = hub.core().prepare();
        let deadline = r.now().saturating_add(nanos(seconds));
        let timer = r.arm_sleep(deadline, park.token(), counts != 0);
        let outcome = hub.park(park, None);
        r.disarm(timer);
        outcome
    };
    match outcome {
        Parked::Woken(_) => raw::none(),
        Parked::Switched(value, _) => {
            unexpected_switch(c"sleep()", value);
            null_mut()
        }
        Parked::Raised(_) => null_mut(),
    }
});

/// Adds the functions.
pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    raw::add_functions(
        m,
        "gevent.hub",
        vec![fast(
            c"sleep",
            sleep,
            0,
            c"sleep(seconds=0, ref=True)\n\nBlock for so long; with 0, let others have their turn. With a false ref the wait does not keep the loop running.",
        )],
    )
}
