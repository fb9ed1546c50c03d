//! [`Exchange`]: one request being answered, and at the same time the `start_response` of its application.

use super::app::{Conn, Core};
use super::callable::callable_type;
use super::piece::Piece;
use super::sending::Follows;
use super::start;
use crate::statics::Immortal;
use gevent_hub_core::cell::LocalCell;
use pyo3::ffi::{self, PyObject};
use pyo3::prelude::*;
use std::mem::offset_of;
use std::ptr::null_mut;
use std::rc::Rc;

type Obj = *mut PyObject;

/// Answers up to this size go out in one piece with their head, by a copy.
pub const COPY: usize = 16 * 1024;

/// What is known of the answer.
pub struct Answer {
    /// The status as the application gave it: owned, or null before `start_response`.
    pub status: Obj,
    /// The number in it.
    pub code: u32,
    /// The status line and the application's fields.
    pub head: Vec<u8>,
    /// The application gave a Date.
    pub has_date: bool,
    /// The head says whether the connection goes on.
    pub has_connection: bool,
    /// The Content-Length that the application gave.
    pub length: Option<u64>,
    /// The head is out, or on its way.
    pub sent: bool,
    /// The body goes out in chunks.
    pub chunked: bool,
    /// Bytes of the body that the Content-Length still allows.
    pub left: Option<u64>,
    /// Bytes sent, head and framing included.
    pub count: u64,
}

/// The request's side that the answer depends on.
#[derive(Clone, Copy, Default)]
pub struct Request {
    pub is_10: bool,
    pub is_head: bool,
}

/// See the module. Not seen by the garbage collector: it is emptied when its request is over.
#[repr(C)]
pub struct Exchange {
    ob_base: PyObject,
    vectorcall: Option<ffi::vectorcallfunc>,
    /// Made by `Exchange::new`.
    live: bool,
    pub conn: Option<Rc<Conn>>,
    pub core: Option<Rc<Core>>,
    pub request: Request,
    pub answer: Answer,
    /// What the application returned, while it is sent; borrowed or null.
    pub result: Obj,
    /// The `write` callable, owned, once it was asked for. It holds the exchange, until that is over.
    writer: Obj,
}

/// Exchanges that are over and nobody has kept, each with its `write`.
#[derive(Default)]
pub struct Spare(LocalCell<Vec<*mut Exchange>>);

impl Spare {
    /// Frees them. The GIL is held.
    pub fn clear(&self) {
        for me in self.0.take() {
            // SAFETY: the list's own reference; nothing else but its `write` has one.
            unsafe {
                ffi::Py_XDECREF(std::mem::replace(&mut (*me).writer, null_mut()));
                ffi::Py_DECREF(me.cast());
            }
        }
    }
}

/// The Python error is set.
pub type Raised<T> = Result<T, ()>;

static TYPE: Immortal<*mut ffi::PyTypeObject> = Immortal::new();

impl Exchange {
    /// A new one; null with an error set.
    ///
    /// # Safety
    /// The GIL is held.
    pub unsafe fn new(conn: Rc<Conn>, core: Rc<Core>, request: Request) -> *mut Exchange {
        // SAFETY: the caller's promise; the fields of fresh memory are written, not replaced.
        unsafe {
            if let Some(me) = core.spare.0.with(Vec::pop) {
                (*me).conn = Some(conn);
                (*me).core = Some(core);
                (*me).request = request;
                let answer = &mut (*me).answer;
                answer.code = 0;
                answer.has_date = false;
                answer.has_connection = false;
                answer.length = None;
                answer.sent = false;
                answer.chunked = false;
                answer.left = None;
                answer.count = 0;
                return me;
            }
            let me = ffi::PyType_GenericAlloc(*TYPE, 0).cast::<Exchange>();
            if me.is_null() {
                return me;
            }
            let head = Vec::with_capacity(512);
            (&raw mut (*me).vectorcall).write(Some(call));
            (&raw mut (*me).conn).write(Some(conn));
            (&raw mut (*me).core).write(Some(core));
            (&raw mut (*me).request).write(request);
            (&raw mut (*me).result).write(null_mut());
            (&raw mut (*me).writer).write(null_mut());
            (&raw mut (*me).answer).write(Answer {
                status: null_mut(),
                code: 0,
                head,
                has_date: false,
                has_connection: false,
                length: None,
                sent: false,
                chunked: false,
                left: None,
                count: 0,
            });
            (*me).live = true;
            me
        }
    }

    /// The request is over: whatever the application kept of it does nothing any more. Takes the caller's
    /// reference.
    ///
    /// # Safety
    /// The GIL is held. May run Python.
    pub unsafe fn finish(me: *mut Exchange) {
        // SAFETY: the caller's promise; each field is emptied before what it held is dropped.
        unsafe {
            drop((*me).conn.take());
            let core = (*me).core.take();
            (*me).result = null_mut();
            ffi::Py_XDECREF(std::mem::replace(&mut (*me).answer.status, null_mut()));
            let writer = (*me).writer;
            let kept = writer.is_null()
                || ffi::Py_REFCNT(writer) != 1
                || ffi::Py_REFCNT(me.cast()) != 2
                || (*me).answer.head.capacity() > COPY * 2;
            if let Some(core) = core.filter(|_| !kept) {
                (*me).answer.head.clear();
                let room = core.spare.0.with(|spare| {
                    let room = spare.len() < 64;
                    if room {
                        spare.push(me);
                    }
                    room
                });
                if room {
                    return;
                }
            }
            ffi::Py_XDECREF(std::mem::replace(&mut (*me).writer, null_mut()));
            ffi::Py_DECREF(me.cast());
        }
    }
}

/// `start_response(status, headers, exc_info=None)`.
#[crate::entry]
unsafe extern "C" fn call(slf: Obj, args: *const Obj, nargsf: usize, names: Obj) -> Obj {
    // SAFETY: as the C API calls it.
    unsafe {
        let n = ffi::PyVectorcall_NARGS(nargsf);
        let me = slf.cast::<Exchange>();
        let args = crate::raw::Args::new(args, n, names);
        let parsed = args.parse(c"start_response", [c"status", c"headers", c"exc_info"]);
        let Ok([status, headers, exc_info]) = parsed else {
            return null_mut();
        };
        if status.is_null() || headers.is_null() {
            let text = c"start_response() needs a status and headers";
            ffi::PyErr_SetString(ffi::PyExc_TypeError, text.as_ptr());
            return null_mut();
        }
        if start::start_response(me, status, headers, exc_info).is_err() {
            return null_mut();
        }
        if (*me).writer.is_null() {
            (*me).writer = writer(slf);
        }
        let writer = (*me).writer;
        ffi::Py_XINCREF(writer);
        writer
    }
}

/// The `write` callable.
///
/// # Safety
/// The GIL is held; `slf` is an exchange that is alive.
unsafe fn writer(slf: Obj) -> Obj {
    struct Def(std::cell::UnsafeCell<ffi::PyMethodDef>);
    // SAFETY: CPython only reads it.
    unsafe impl Sync for Def {}
    static DEF: Def = Def(std::cell::UnsafeCell::new(crate::raw::one(
        c"write",
        write,
        c"Send a piece of the body.",
    )));
    // SAFETY: the definition lives for ever; the function holds the exchange.
    unsafe { ffi::PyCFunction_NewEx(DEF.0.get(), slf, null_mut()) }
}

#[crate::entry]
unsafe extern "C" fn write(slf: Obj, data: Obj) -> Obj {
    // SAFETY: as the C API calls it; the caller holds both.
    unsafe {
        // Before it is looked at whether it is bytes.
        if ffi::PyObject_IsTrue(data) == 1 && Exchange::may_have_body(slf.cast()).is_err() {
            return null_mut();
        }
        let Ok(piece) = Piece::of(data) else {
            return null_mut();
        };
        match Exchange::send(slf.cast(), piece.bytes(), Follows::Nothing) {
            Ok(()) => {
                // In a pipeline it was held back.
                if let Some(conn) = (*slf.cast::<Exchange>()).conn.clone()
                    && conn.is_holding()
                {
                    conn.send_held();
                }
                crate::raw::none()
            }
            Err(()) => null_mut(),
        }
    }
}

#[crate::entry]
unsafe extern "C" fn dealloc(slf: Obj) {
    // SAFETY: the slot's contract.
    unsafe {
        let me = slf.cast::<Exchange>();
        let ty = ffi::Py_TYPE(slf);
        if (*me).live {
            drop((*me).conn.take());
            drop((*me).core.take());
            ffi::Py_XDECREF(std::mem::replace(&mut (*me).answer.status, null_mut()));
            ffi::Py_XDECREF(std::mem::replace(&mut (*me).writer, null_mut()));
            std::ptr::drop_in_place(&raw mut (*me).answer);
        }
        if let Some(free) = (*ty).tp_free {
            free(slf.cast());
        }
        ffi::Py_DECREF(ty.cast());
    }
}

/// Makes the type.
pub fn register(py: Python<'_>) -> PyResult<()> {
    // SAFETY: the struct is `repr(C)`, with its vectorcall where it is said to be. The type lives for ever.
    unsafe {
        TYPE.set(callable_type(
            py,
            c"gevent._core.start_response",
            size_of::<Exchange>(),
            offset_of!(Exchange, vectorcall),
            dealloc,
        )?);
    }
    Ok(())
}
