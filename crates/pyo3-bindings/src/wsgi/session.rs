//! [`Session`]: what the greenlet of a connection runs: request after request, until nothing more was received.
//!
//! # Safety
//! The GIL is held, by the greenlet of the connection. The caller has a reference to each object, `me` among
//! them, for as long as this waits.

use super::app::{Conn, Core, Greenlets, Request};
use super::callable::callable_type;
use super::exchange::{self, Exchange, Raised};
use super::file_wrapper::FileWrapper;
use super::piece::Piece;
use super::raise::{glue, raise};
use super::sending::Follows;
use super::{log, start};
use crate::statics::Immortal;
use crate::tstate::vectorcall_at_bottom;
use gevent_wsgi::server::{Next, Phase};
use pyo3::ffi::{self, PyObject};
use pyo3::prelude::*;
use std::mem::offset_of;
use std::ptr::null_mut;
use std::rc::Rc;

type Obj = *mut PyObject;

/// A callable for one greenlet. If it is dropped without being called, the connection closes.
#[repr(C)]
pub struct Session {
    ob_base: PyObject,
    vectorcall: Option<ffi::vectorcallfunc>,
    live: bool,
    work: Option<(Rc<Conn>, Rc<Core>, Request)>,
}

static TYPE: Immortal<*mut ffi::PyTypeObject> = Immortal::new();

impl Session {
    /// A new one; null with an error set.
    ///
    /// # Safety
    /// The GIL is held.
    pub unsafe fn new(conn: Rc<Conn>, core: Rc<Core>, request: Request) -> *mut Session {
        // SAFETY: the caller's promise; the fields of fresh memory are written, not replaced.
        unsafe {
            let me = ffi::PyType_GenericAlloc(*TYPE, 0).cast::<Session>();
            if !me.is_null() {
                (&raw mut (*me).vectorcall).write(Some(run));
                (&raw mut (*me).work).write(Some((conn, core, request)));
                (*me).live = true;
            }
            me
        }
    }
}

#[crate::entry]
unsafe extern "C" fn dealloc(slf: Obj) {
    // SAFETY: the slot's contract.
    unsafe {
        let me = slf.cast::<Session>();
        let ty = ffi::Py_TYPE(slf);
        if (*me).live
            && let Some((conn, _, _)) = (*me).work.take()
        {
            conn.close();
        }
        if let Some(free) = (*ty).tp_free {
            free(slf.cast());
        }
        ffi::Py_DECREF(ty.cast());
    }
}

#[crate::entry]
unsafe extern "C" fn run(slf: Obj, _: *const Obj, _: usize, _: Obj) -> Obj {
    // SAFETY: as the C API calls it.
    unsafe {
        let Some((conn, core, request)) = (*slf.cast::<Session>()).work.take() else {
            return crate::raw::none();
        };
        let mut request = request;
        loop {
            handle(&conn, &core, request);
            match conn.next() {
                Next::Request(next) if next.upgrade.is_none() && !next.environ.is_null() => {
                    request = next;
                }
                Next::Request(next) if next.upgrade.is_some() => {
                    // In this greenlet: it has its place in the pool already.
                    let server = conn.server().clone();
                    server
                        .app()
                        .hand_over(Python::assume_attached(), &conn, next, true);
                    break;
                }
                Next::Request(_) => {
                    // Why it has no environ was reported.
                    conn.close();
                    break;
                }
                Next::Released => break,
            }
        }
        crate::raw::none()
    }
}

/// Serves one request. No error is set afterwards.
///
/// # Safety
/// As the module says.
unsafe fn handle(conn: &Rc<Conn>, core: &Rc<Core>, mut request: Request) {
    // SAFETY: a greenlet that runs holds the GIL.
    unsafe {
        let began = request.line.as_ref().map(|_| log::now());
        let py = Python::assume_attached();
        let facts = exchange::Request {
            is_10: request.is_10,
            is_head: request.is_head,
        };
        let me = Exchange::new(conn.clone(), core.clone(), facts);
        if me.is_null() {
            PyErr::fetch(py).write_unraisable(py, None);
            conn.must_close();
            return;
        }
        if run_application(me, core, request.environ).is_err() {
            failed(me, conn, core, request.environ);
        }
        if let Some(input) = request.input.take() {
            input.get().detach();
        }
        (*me).answer.count += conn.take_framing();
        if let (Some(line), Some(began)) = (request.line.take(), began) {
            log::request(core, conn, me, &line, began);
        }
        Exchange::finish(me);
        drop(request);
    }
}

/// Calls the application and sends what it returns.
///
/// # Safety
/// As the module says.
unsafe fn run_application(me: *mut Exchange, core: &Rc<Core>, environ: Obj) -> Raised<()> {
    // SAFETY: all are held by the caller; the GIL is held.
    unsafe {
        let app = core.application();
        if app.is_null() {
            return Err(());
        }
        let mut args = [null_mut(), environ, me.cast()];
        let flags = ffi::PY_VECTORCALL_ARGUMENTS_OFFSET;
        let result = vectorcall_at_bottom(app, args.as_mut_ptr().add(1), 2 | flags, null_mut());
        ffi::Py_DECREF(app);
        if result.is_null() {
            return Err(());
        }
        (*me).result = result;
        let sent = process(me, result);
        (*me).result = null_mut();
        let closed = close(result, sent);
        ffi::Py_DECREF(result);
        closed
    }
}

/// Calls the `close` that a result may have, whatever came before. An error of it takes the place of an
/// earlier one, which becomes its context.
///
/// # Safety
/// As the module says.
unsafe fn close(result: Obj, sent: Raised<()>) -> Raised<()> {
    // SAFETY: the caller's promise.
    unsafe {
        if ffi::PyList_CheckExact(result) != 0 || ffi::PyTuple_CheckExact(result) != 0 {
            return sent;
        }
        if sent.is_ok() && ffi::PyGen_CheckExact(result) != 0 {
            // It was run to its end, and there is nothing to close.
            return sent;
        }
        let py = Python::assume_attached();
        let earlier = if sent.is_err() { PyErr::take(py) } else { None };
        let name = c"close".as_ptr();
        let method = ffi::PyObject_GetAttrString(result, name);
        if method.is_null() {
            if ffi::PyErr_ExceptionMatches(ffi::PyExc_AttributeError) == 0 {
                return Err(());
            }
            ffi::PyErr_Clear();
        } else if method != ffi::Py_None() {
            let r = ffi::PyObject_CallNoArgs(method);
            ffi::Py_DECREF(method);
            if r.is_null() {
                return Err(());
            }
            ffi::Py_DECREF(r);
        } else {
            ffi::Py_DECREF(method);
        }
        match earlier {
            Some(error) => {
                error.restore(py);
                Err(())
            }
            None => sent,
        }
    }
}

/// # Safety
/// As the module says.
unsafe fn process(me: *mut Exchange, result: Obj) -> Raised<()> {
    // SAFETY: both are held by the caller; items are held while they are sent, as sending waits.
    unsafe {
        if ffi::PyList_CheckExact(result) != 0 || ffi::PyTuple_CheckExact(result) != 0 {
            let is_list = ffi::PyList_CheckExact(result) != 0;
            let mut i = 0;
            while i < ffi::PySequence_Size(result) {
                let item = if is_list {
                    ffi::PyList_GET_ITEM(result, i)
                } else {
                    ffi::PyTuple_GET_ITEM(result, i)
                };
                i += 1;
                let follows = match i < ffi::PySequence_Size(result) {
                    true => Follows::Piece,
                    false => Follows::Nothing,
                };
                ffi::Py_INCREF(item);
                let sent = send_item(me, item, follows);
                ffi::Py_DECREF(item);
                sent?;
            }
            return Exchange::end(me);
        }
        if let Some(sent) = FileWrapper::send(me, result)? {
            return if sent { Exchange::end(me) } else { Ok(()) };
        }
        let iterator = ffi::PyObject_GetIter(result);
        if iterator.is_null() {
            return Err(());
        }
        let conn = (*me).conn.clone();
        let gather = |item: Obj| {
            ffi::PyBytes_CheckExact(item) != 0
                && conn.as_ref().is_some_and(|conn| {
                    conn.is_gathering() && {
                        let size = ffi::Py_SIZE(item) as usize;
                        let data =
                            std::slice::from_raw_parts(ffi::PyBytes_AS_STRING(item).cast(), size);
                        Exchange::gather_more(me, conn, data)
                    }
                })
        };
        let done = loop {
            let item = ffi::PyIter_Next(iterator);
            if item.is_null() {
                break if ffi::PyErr_Occurred().is_null() {
                    Ok(())
                } else {
                    Err(())
                };
            }
            let sent = match gather(item) {
                true => Ok(()),
                false => send_item(me, item, Follows::Block),
            };
            ffi::Py_DECREF(item);
            if sent.is_err() {
                break Err(());
            }
        };
        ffi::Py_DECREF(iterator);
        if done.is_err()
            && let Some(conn) = conn
        {
            // What was yielded before does not wait for what is done about the error.
            conn.send_held();
        }
        done?;
        Exchange::end(me)
    }
}

/// # Safety
/// As the module says.
unsafe fn send_item(me: *mut Exchange, item: Obj, follows: Follows) -> Raised<()> {
    // SAFETY: both are held by the caller.
    unsafe {
        let piece = Piece::of(item)?;
        if piece.bytes().is_empty() {
            return Ok(());
        }
        Exchange::send(me, piece.bytes(), follows)
    }
}

/// The application, or sending its answer, has failed: the error is set, and is not afterwards.
///
/// # Safety
/// As the module says; an error is set.
unsafe fn failed(me: *mut Exchange, conn: &Rc<Conn>, core: &Rc<Core>, environ: Obj) {
    // SAFETY: all are held by the caller; the GIL is held.
    unsafe {
        let py = Python::assume_attached();
        let error = PyErr::fetch(py);
        if conn.phase() != Phase::Served {
            conn.must_close();
        }
        let environ = Bound::from_borrowed_ptr(py, environ);
        // Says what to answer by, 0 for nothing.
        let verdict = glue(py, "failed").and_then(|f| {
            let address = super::raise::address(py, conn.peer())?;
            let value = error.value(py);
            f.call1((core.server(py), address, conn.fd(), environ, value))?
                .extract::<u16>()
        });
        drop(error);
        let status = match verdict {
            Ok(status) => status,
            Err(e) => {
                e.write_unraisable(py, Some(&core.server(py)));
                500
            }
        };
        conn.must_close();
        if status == 0 || (*me).has_answered() || conn.phase() != Phase::Served {
            return;
        }
        if refuse(me, status).is_err() {
            // The client is gone, or this greenlet is being killed.
            let e = PyErr::fetch(py);
            if e.is_instance_of::<pyo3::exceptions::PyOSError>(py) {
                return;
            }
            e.write_unraisable(py, None);
        }
    }
}

/// Answers by an error in place of the application.
///
/// # Safety
/// As the module says.
unsafe fn refuse(me: *mut Exchange, status: u16) -> Raised<()> {
    // SAFETY: as `failed`.
    unsafe {
        start::forget(me);
        let body: &[u8] = if status == 500 {
            b"Internal Server Error"
        } else {
            b""
        };
        let line = format!("{status} {}", gevent_wsgi::reject::phrase(status));
        let answer = &mut (*me).answer;
        answer.head.clear();
        answer.head.extend_from_slice(b"HTTP/1.1 ");
        answer.head.extend_from_slice(line.as_bytes());
        answer
            .head
            .extend_from_slice(b"\r\nContent-Type: text/plain\r\nConnection: close\r\n");
        answer.code = u32::from(status);
        answer.has_date = false;
        answer.has_connection = true;
        let text = super::text::latin1(line.as_bytes());
        ffi::Py_XDECREF(std::mem::replace(&mut answer.status, text));
        if text.is_null() {
            return Err(());
        }
        answer.length = Some(body.len() as u64);
        answer.head.extend_from_slice(b"Content-Length: ");
        gevent_wsgi::answer::decimal(&mut answer.head, body.len());
        answer.head.extend_from_slice(b"\r\n");
        Exchange::send(me, body, Follows::Nothing)?;
        if let Some(conn) = (*me).conn.clone() {
            conn.flush(&Greenlets).or_else(raise)?;
        }
        Ok(())
    }
}

/// Makes the type.
pub fn register(py: Python<'_>) -> PyResult<()> {
    // SAFETY: the struct is `repr(C)`, with its vectorcall where it is said to be. The type lives for ever.
    unsafe {
        TYPE.set(callable_type(
            py,
            c"gevent._core.HTTPSession",
            size_of::<Session>(),
            offset_of!(Session, vectorcall),
            dealloc,
        )?);
    }
    Ok(())
}
