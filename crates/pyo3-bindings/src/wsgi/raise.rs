//! Errors of the server as Python's, and lines of its error log.

use super::app::{Conn, Core};
use super::exchange::Raised;
use gevent_wsgi::Reject;
use gevent_wsgi::server::{Error, Peer};
use pyo3::exceptions::{PyAssertionError, PyOSError, PyTimeoutError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use std::rc::Rc;

static GLUE: PyOnceLock<Py<PyModule>> = PyOnceLock::new();

/// A name in `gevent.pywsgi._native`, where the cold half of the server is.
pub fn glue<'py>(py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
    let module =
        GLUE.get_or_try_init(py, || py.import("gevent.pywsgi._native").map(Bound::unbind))?;
    module.bind(py).getattr(name)
}

/// An `_InvalidClientInput` for a body that was not understood.
fn invalid_input(py: Python<'_>, reject: Reject) -> PyErr {
    match glue(py, "invalid_input").and_then(|f| f.call1((reject.status, reject.reason))) {
        Ok(error) => PyErr::from_value(error),
        Err(error) => error,
    }
}

/// Sets the Python error for a failed call on a connection. The result is always `Err`.
pub fn raise<T>(error: Error) -> Raised<T> {
    // SAFETY: fibers call this with the GIL held.
    let py = unsafe { Python::assume_attached() };
    let error = match error {
        // It was thrown into the fiber, and is set.
        Error::Interrupted(_) => return Err(()),
        Error::Os(errno) => crate::errors::os_error(errno),
        Error::TimedOut => PyTimeoutError::new_err("timed out"),
        Error::Closed => crate::errors::os_error(libc::EPIPE),
        Error::Eof => PyOSError::new_err("unexpected end of file"),
        Error::Reject(reject) => invalid_input(py, reject),
        Error::Response(why) => PyAssertionError::new_err(why),
    };
    error.restore(py);
    Err(())
}

fn application_error_class<'py>(
    py: Python<'py>,
    core: &Option<Rc<Core>>,
) -> PyResult<Bound<'py, PyAny>> {
    match core {
        Some(core) => core
            .server(py)
            .getattr("handler_class")?
            .getattr("ApplicationError"),
        None => Ok(py.get_type::<PyValueError>().into_any()),
    }
}

/// Raises the handler's `ApplicationError`, with a text or, as upstream has some, bytes: the application did
/// what it must not.
pub fn application_error<T>(
    core: &Option<Rc<Core>>,
    text: impl for<'py> IntoPyObject<'py>,
) -> Raised<T> {
    // SAFETY: called with the GIL held.
    let py = unsafe { Python::assume_attached() };
    let error = application_error_class(py, core)
        .and_then(|class| class.call1((text,)))
        .map_or_else(|e| e, PyErr::from_value);
    error.restore(py);
    Err(())
}

/// A client's address as Python has it: a pair, or an empty string.
pub fn address(py: Python<'_>, peer: Peer) -> PyResult<Py<PyAny>> {
    match peer {
        Peer::Internet(address) => (address.ip().to_string(), address.port())
            .into_pyobject(py)
            .map(|pair| pair.into_any().unbind()),
        Peer::Local => Ok("".into_pyobject(py)?.into_any().unbind()),
    }
}

/// Writes a line to the server's error log. An error that is set stays so.
pub fn log(core: &Option<Rc<Core>>, conn: &Conn, text: &str) {
    // SAFETY: called with the GIL held.
    let py = unsafe { Python::assume_attached() };
    let Some(core) = core else { return };
    let pending = PyErr::take(py);
    let done = glue(py, "log_error").and_then(|f| {
        f.call1((core.server(py), address(py, conn.peer())?, conn.fd(), text))
            .map(drop)
    });
    if let Err(e) = done {
        e.write_unraisable(py, Some(&core.server(py)));
    }
    if let Some(pending) = pending {
        pending.restore(py);
    }
}
