//! How a native thread without a hub waits: without the GIL.

use crate::tstate;
use gevent_hub_core::reactor::{Nanos, Wake};
use gevent_sync::parker::Parker;
use pyo3::ffi;

/// Waits without the GIL until `parker` is ended or `deadline`; `first` is called when the GIL is free.
/// Returns how it was ended, if it was.
///
/// # Safety
/// The GIL is held, by the thread that made the parker; `first` touches nothing of Python's.
pub unsafe fn wait_after(
    parker: &Parker,
    deadline: Option<Nanos>,
    first: impl FnOnce(),
) -> Option<Wake> {
    // SAFETY: the GIL is held, and taken again before anything of Python's is touched.
    unsafe {
        let saved = ffi::PyEval_SaveThread();
        first();
        parker.sleep(deadline);
        tstate::restore_thread(saved);
    }
    parker.ended()
}
