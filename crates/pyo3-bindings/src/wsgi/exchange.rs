//! [`Exchange`]: one request being answered, and at the same time the `start_response` of its application.

use super::app::{Conn, Core, Greenlets};
use super::callable::callable_type;
use super::piece::{Piece, known_length};
use super::raise::{self, raise};
use super::start;
use crate::statics::Immortal;
use gevent_hub_core::cell::LocalCell;
use gevent_wsgi::answer;
use gevent_wsgi::server::Framing;
use pyo3::ffi::{self, PyObject};
use pyo3::prelude::*;
use std::ffi::c_int;
use std::io::IoSlice;
use std::mem::offset_of;
use std::ptr::null_mut;
use std::rc::Rc;

type Obj = *mut PyObject;

/// Answers up to this size go out in one piece with their head, by a copy.
const COPY: usize = 16 * 1024;

const CHUNKED: &[u8] = b"Transfer-Encoding: chunked\r\n";

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

/// What comes behind a piece of a body.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Follows {
    /// Nothing that is known of.
    Nothing,
    /// Another piece, which is there already.
    Piece,
    /// What the application has yet to make: another block, or the end.
    Block,
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

    /// Whether bytes of the answer were sent, or may have been.
    pub fn has_answered(&self) -> bool {
        self.answer.sent
    }

    /// Whether the kernel can send a file on the connection: not through TLS, and not into chunks, which a
    /// block that was written has begun.
    ///
    /// # Safety
    /// The GIL is held.
    pub unsafe fn takes_files(me: *mut Exchange) -> bool {
        // SAFETY: the caller's promise.
        unsafe {
            let conn = (*me).conn.as_ref();
            !(*me).answer.chunked && conn.is_some_and(|conn| !conn.is_tls())
        }
    }

    fn has_body(&self) -> bool {
        !matches!(self.answer.code, 204 | 304) && self.answer.code >= 200
    }

    /// Completes the head: the fields that the application left to the server. `whole`: the length of the
    /// body, if it is known. `gathers`: it may still become known, so the end is left out if it is not. Says
    /// whether it was.
    fn complete_head(&mut self, whole: Option<u64>, gathers: bool) -> Framing {
        let Some(conn) = self.conn.clone() else {
            return Framing::Told;
        };
        let has_body = self.has_body();
        let answer = &mut self.answer;
        answer.sent = true;
        if !answer.has_date {
            answer.head.extend_from_slice(b"Date: ");
            answer.head.extend_from_slice(&answer::http_date());
            answer.head.extend_from_slice(b"\r\n");
        }
        if has_body {
            if answer.length.is_some() {
                answer.left = answer.length;
            } else if let Some(length) = whole {
                answer.head.extend_from_slice(b"Content-Length: ");
                answer::decimal(&mut answer.head, length as usize);
                answer.head.extend_from_slice(b"\r\n");
                answer.left = Some(length);
            } else if self.request.is_10 {
                conn.must_close();
                start::close_instead(&mut answer.head);
            } else {
                answer.chunked = true;
                if gathers {
                    return Framing::Open;
                }
                answer.head.extend_from_slice(CHUNKED);
            }
        } else if answer.code == 101 {
            conn.must_close();
        }
        answer.head.extend_from_slice(b"\r\n");
        Framing::Told
    }

    /// Sends a piece of the body; with the head, if that is not out.
    ///
    /// # Safety
    /// The GIL is held; `me` and what `data` lies in are held by the caller. Waits, so anything may happen.
    pub unsafe fn send(me: *mut Exchange, data: &[u8], follows: Follows) -> Raised<()> {
        // SAFETY: the caller's promise. The head is taken out of the exchange before anything waits.
        unsafe {
            let Some(conn) = (*me).conn.clone() else {
                let text = c"the request is over";
                ffi::PyErr_SetString(ffi::PyExc_ValueError, text.as_ptr());
                return Err(());
            };
            if follows == Follows::Block
                && conn.is_gathering()
                && Self::gather_more(me, &conn, data)
            {
                return Ok(());
            }
            if !data.is_empty() {
                Self::may_have_body(me)?;
            }
            let is_first = !(*me).answer.sent;
            if is_first {
                if (*me).answer.status.is_null() {
                    let text = "The application did not call start_response()";
                    return raise::application_error(&(*me).core, text);
                }
                let whole = match known_length((*me).result) {
                    Ok(whole) => whole,
                    Err(()) => return Err(()),
                };
                let gathers = follows == Follows::Block
                    && !(*me).request.is_head
                    && data.len() <= COPY
                    && conn.may_gather();
                let framing = (*me).complete_head(whole, gathers);
                let answer = &mut (*me).answer;
                if gathers
                    && answer.left.is_none_or(|left| left > data.len() as u64)
                    && conn.gather(&answer.head, data, framing)
                {
                    answer.left = answer.left.map(|left| left - data.len() as u64);
                    answer.count += (answer.head.len() + data.len()) as u64;
                    return Ok(());
                }
                if framing == Framing::Open {
                    answer.head.extend_from_slice(CHUNKED);
                    answer.head.extend_from_slice(b"\r\n");
                }
            }
            let mut out = std::mem::take(&mut (*me).answer.head);
            if !is_first {
                out.clear();
            }
            let answer = &mut (*me).answer;
            let mut data = data;
            let mut excess = 0;
            if (*me).request.is_head {
                data = &[];
            } else if let Some(left) = answer.left {
                excess = (data.len() as u64).saturating_sub(left);
                data = &data[..data.len() - excess as usize];
                answer.left = Some(left - data.len() as u64);
            }
            let chunked = answer.chunked && !data.is_empty();
            if chunked {
                answer::chunk_size(&mut out, data.len());
            }
            let tail: &[u8] = if chunked { b"\r\n" } else { b"" };
            let total = out.len() + data.len() + tail.len();
            let write = |pieces: &[IoSlice<'_>]| match follows {
                // With the last byte of the length the client has it all.
                Follows::Block if answer.left != Some(0) => conn.write_block(&Greenlets, pieces),
                _ => conn.write(&Greenlets, pieces, follows == Follows::Piece),
            };
            let sent = if total == 0 {
                Ok(())
            } else if data.len() <= COPY {
                out.extend_from_slice(data);
                out.extend_from_slice(tail);
                write(&[IoSlice::new(&out)])
            } else {
                write(&[&out, data, tail].map(IoSlice::new))
            };
            if (*me).answer.head.capacity() == 0 {
                // Keeps the memory for the next request.
                out.clear();
                (*me).answer.head = out;
            }
            if let Err(error) = sent {
                return raise(error, &(*me).core);
            }
            (*me).answer.count += total as u64;
            if excess > 0 {
                conn.must_close();
                let text = format!("The body is {excess} bytes longer than its Content-Length");
                return raise::application_error(&(*me).core, &text);
            }
            Ok(())
        }
    }

    /// Adds a block to an answer that is gathered; false: it has to be sent.
    ///
    /// # Safety
    /// The GIL is held.
    #[inline]
    pub unsafe fn gather_more(me: *mut Exchange, conn: &Conn, data: &[u8]) -> bool {
        let length = data.len() as u64;
        // SAFETY: the caller's promise.
        let answer = unsafe { &mut (*me).answer };
        // With the last byte of the length the client is to have it all.
        if answer.left.is_some_and(|left| left <= length) || !conn.gather_more(data) {
            return false;
        }
        answer.left = answer.left.map(|left| left - length);
        answer.count += length;
        true
    }

    /// Sets the error for a piece of a body where there must be none.
    ///
    /// # Safety
    /// The GIL is held.
    unsafe fn may_have_body(me: *mut Exchange) -> Raised<()> {
        // SAFETY: the caller's promise.
        unsafe {
            match (*me).answer.code {
                code @ (204 | 304) => {
                    let text = format!("The {code} response must have no body");
                    raise::application_error(&(*me).core, &text)
                }
                _ => Ok(()),
            }
        }
    }

    /// The end of the body.
    ///
    /// # Safety
    /// As `send`.
    pub unsafe fn end(me: *mut Exchange) -> Raised<()> {
        // SAFETY: the caller's promise.
        unsafe {
            if !(*me).answer.sent && !(*me).answer.status.is_null() {
                Self::send(me, &[], Follows::Nothing)?;
            }
            let Some(conn) = (*me).conn.clone() else {
                return Ok(());
            };
            if (*me).request.is_head {
                return Ok(());
            }
            let gathered = conn.is_gathering()
                && conn
                    .finish_gathering(&Greenlets)
                    .or_else(|error| raise(error, &(*me).core))?;
            if gathered {
                // Its length was told instead.
            } else if (*me).answer.chunked {
                (*me).answer.count += 5;
                conn.write(&Greenlets, &[IoSlice::new(b"0\r\n\r\n")], false)
                    .or_else(|error| raise(error, &(*me).core))?;
            } else if conn.is_holding() {
                conn.write(&Greenlets, &[], false)
                    .or_else(|error| raise(error, &(*me).core))?;
            } else {
                conn.uncork();
            }
            if let Some(left @ 1..) = (*me).answer.left {
                // The client waits for bytes that will not come; the end of the connection tells it.
                conn.must_close();
                raise::log(
                    &(*me).core,
                    &conn,
                    &format!("The body is {left} bytes shorter than its Content-Length"),
                );
            }
            Ok(())
        }
    }

    /// Sends `count` bytes of a file; `Ok(false)`: the kernel cannot, and nothing was sent.
    ///
    /// # Safety
    /// As `send`.
    pub unsafe fn send_file(me: *mut Exchange, fd: c_int, offset: u64, count: u64) -> Raised<bool> {
        // SAFETY: the caller's promise.
        unsafe {
            let Some(conn) = (*me).conn.clone() else {
                return Ok(false);
            };
            if !(*me).answer.sent {
                if (*me).answer.status.is_null() {
                    let text = "The application did not call start_response()";
                    raise::application_error(&(*me).core, text)?;
                }
                (*me).complete_head(Some(count), false);
                let out = std::mem::take(&mut (*me).answer.head);
                conn.write(&Greenlets, &[IoSlice::new(&out)], count > 0)
                    .or_else(|error| raise(error, &(*me).core))?;
                (*me).answer.count += out.len() as u64;
            }
            if (*me).request.is_head || matches!((*me).answer.code, 204 | 304) {
                (*me).answer.left = None;
                return Ok(true);
            }
            let count = (*me).answer.left.map_or(count, |left| count.min(left));
            let sent = match conn.send_file(&Greenlets, fd, offset, count) {
                Ok(sent) => sent,
                Err(error) => {
                    raise(error, &(*me).core)?;
                    0
                }
            };
            (*me).answer.count += sent;
            (*me).answer.left = (*me).answer.left.map(|left| left - sent);
            Ok(true)
        }
    }
}

/// `start_response(status, headers, exc_info=None)`.
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
