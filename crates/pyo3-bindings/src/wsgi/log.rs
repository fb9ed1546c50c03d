//! The access log: upstream's line, made only when there is a log.

use super::app::{Conn, Core};
use super::exchange::Exchange;
use super::raise::glue;
use super::text::{bytes_of, latin1};
use gevent_wsgi::server::Peer;
use pyo3::ffi::{self, PyTypeObject};
use pyo3::prelude::*;
use std::ptr::null_mut;
use std::rc::Rc;
use std::sync::atomic::{AtomicPtr, Ordering};

static NOOP: AtomicPtr<PyTypeObject> = AtomicPtr::new(null_mut());

/// The class of logs that do nothing; null before it is known.
#[inline]
pub fn noop_type() -> *mut PyTypeObject {
    NOOP.load(Ordering::Relaxed)
}

/// Learns the class of logs that do nothing.
///
/// # Errors
/// Of the import.
pub fn learn(py: Python<'_>) -> PyResult<()> {
    let class = glue(py, "_NoopLog")?;
    // Kept for ever, as the module that defines it is.
    NOOP.store(class.into_ptr().cast(), Ordering::Relaxed);
    Ok(())
}

/// Seconds since 1970.
pub fn now() -> f64 {
    let mut t = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `t` outlives the call, which cannot fail for this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_REALTIME, &mut t) };
    t.tv_sec as f64 + t.tv_nsec as f64 / 1e9
}

/// `2026-01-31 12:00:00` in local time.
fn local_time(seconds: f64) -> String {
    let t = seconds as libc::time_t;
    // SAFETY: plain numbers and a pointer, for which zeros are valid.
    let mut tm: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both outlive the call.
    unsafe { libc::localtime_r(&t, &mut tm) };
    format!(
        "{:04}-{:02}-{:02} {:02}:{:02}:{:02}",
        tm.tm_year + 1900,
        tm.tm_mon + 1,
        tm.tm_mday,
        tm.tm_hour,
        tm.tm_min,
        tm.tm_sec
    )
}

/// Logs a request that was answered. No error is set afterwards.
///
/// # Safety
/// The GIL is held; `me` is held by the caller.
pub unsafe fn request(core: &Rc<Core>, conn: &Conn, me: *mut Exchange, line: &[u8], began: f64) {
    // SAFETY: the caller's promise.
    unsafe {
        let log = core.log();
        if log.is_null() {
            return;
        }
        let py = Python::assume_attached();
        let ended = now();
        let address = match conn.peer() {
            Peer::Internet(address) => address.ip().to_string(),
            Peer::Local => "-".to_owned(),
        };
        let answer = &(*me).answer;
        let status = if answer.status.is_null() {
            &b"000"[..]
        } else {
            bytes_of(answer.status).unwrap_or(b"000")
        };
        let status = status.split(|&c| c == b' ').next().unwrap_or(b"000");
        let length = match answer.count {
            0 => "-".to_owned(),
            n => n.to_string(),
        };
        let mut text = format!("{address} - - [{}] \"", local_time(ended)).into_bytes();
        text.extend_from_slice(line);
        text.extend_from_slice(b"\" ");
        text.extend_from_slice(status);
        text.extend_from_slice(format!(" {length} {:.6}\n", ended - began).as_bytes());
        let text = latin1(&text);
        let done = if text.is_null() {
            text
        } else {
            ffi::PyObject_CallMethodObjArgs(
                log,
                ffi::PyUnicode_InternFromString(c"write".as_ptr()),
                text,
                null_mut::<ffi::PyObject>(),
            )
        };
        if done.is_null() {
            PyErr::fetch(py).write_unraisable(py, Some(&Bound::from_borrowed_ptr(py, log)));
        }
        ffi::Py_XDECREF(done);
        ffi::Py_XDECREF(text);
        ffi::Py_DECREF(log);
    }
}
