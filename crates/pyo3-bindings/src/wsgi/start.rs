//! `start_response`: the checks of PEP 3333, and the status line and fields as bytes.
//!
//! # Safety
//! The GIL is held. `me` is the exchange, and the caller has a reference to it and to each other object.

use super::exchange::{Exchange, Raised};
use super::raise;
use super::text::bytes_of;
use gevent_wsgi::Policy;
use gevent_wsgi::chars::{is_token, trim};
use pyo3::ffi::{self, PyObject};
use std::ptr::null_mut;

type Obj = *mut PyObject;

/// What the fields said that the server has to know.
#[derive(Default)]
struct Given {
    has_date: bool,
    length: Option<u64>,
    has_connection: bool,
    close: bool,
}

/// # Safety
/// As the module says.
unsafe fn value_error(text: &std::ffi::CStr, part: Obj) -> Raised<()> {
    // SAFETY: the GIL is held; `part` is an object.
    unsafe {
        let message = ffi::PyUnicode_FromString(text.as_ptr());
        let args = ffi::PyTuple_Pack(2, message, part);
        ffi::Py_XDECREF(message);
        if !args.is_null() {
            ffi::PyErr_SetObject(ffi::PyExc_ValueError, args);
            ffi::Py_DECREF(args);
        }
        Err(())
    }
}

/// # Safety
/// As the module says.
unsafe fn unicode_error(text: &std::ffi::CStr, parts: &[Obj]) -> Raised<()> {
    // SAFETY: the caller's promise.
    unsafe {
        let args = ffi::PyTuple_New(1 + parts.len() as isize);
        if args.is_null() {
            return Err(());
        }
        ffi::PyTuple_SET_ITEM(args, 0, ffi::PyUnicode_FromString(text.as_ptr()));
        for (i, part) in parts.iter().enumerate() {
            ffi::PyTuple_SET_ITEM(args, 1 + i as isize, ffi::Py_NewRef(*part));
        }
        ffi::PyErr_SetObject(ffi::PyExc_UnicodeError, args);
        ffi::Py_DECREF(args);
        Err(())
    }
}

fn breaks_line(bytes: &[u8]) -> bool {
    memchr::memchr2(b'\r', b'\n', bytes).is_some()
}

/// A field's name as it stands in a head, where the value is only looked at together with all others.
fn is_name(bytes: &[u8]) -> bool {
    // Without a branch for each byte: it holds mostly.
    !bytes.is_empty() && bytes.iter().fold(true, |all, &c| all & is_token(c))
}

/// How many carriage returns and newlines there are: for a whole head this is quicker than to look for one in
/// each of its parts.
fn line_ends(bytes: &[u8]) -> usize {
    memchr::memchr_iter(b'\r', bytes).count() + memchr::memchr_iter(b'\n', bytes).count()
}

/// # Safety
/// The GIL is held; all are objects that the caller holds, `exc_info` may be null.
pub unsafe fn start_response(
    me: *mut Exchange,
    status: Obj,
    headers: Obj,
    exc_info: Obj,
) -> Raised<()> {
    // SAFETY: the caller's promise.
    unsafe {
        if !crate::raw::absent(exc_info) && ffi::PyObject_IsTrue(exc_info) == 1 && (*me).answer.sent
        {
            return reraise(exc_info);
        }
        let Some(conn) = (*me).conn.clone() else {
            let text = c"the request is over";
            ffi::PyErr_SetString(ffi::PyExc_ValueError, text.as_ptr());
            return Err(());
        };
        let is_first = (*me).answer.status.is_null();
        // What an earlier call has said holds until this one was found right.
        let mut head = match is_first {
            true => std::mem::take(&mut (*me).answer.head),
            false => Vec::with_capacity(256),
        };
        let composed = compose(me, status, headers, &mut head);
        if composed.is_err() && is_first {
            (*me).answer.head = std::mem::take(&mut head);
        }
        let (code, given) = composed?;
        let mut has_connection = given.has_connection;
        if given.close {
            conn.must_close();
        } else if !has_connection {
            let keeps = conn.keeps_alive();
            has_connection = (*me).request.is_10 || !keeps && conn.server().is_draining();
            if (*me).request.is_10 {
                head.extend_from_slice(if keeps {
                    b"Connection: keep-alive\r\n"
                } else {
                    b"Connection: close\r\n"
                });
            } else if has_connection {
                head.extend_from_slice(b"Connection: close\r\n");
            }
        }
        let answer = &mut (*me).answer;
        if answer.sent {
            // A second call without exc_info changes nothing that is out.
            return Ok(());
        }
        answer.head = head;
        answer.code = code;
        answer.has_date = given.has_date;
        answer.has_connection = has_connection;
        answer.length = given.length;
        let old = std::mem::replace(&mut answer.status, ffi::Py_NewRef(status));
        ffi::Py_XDECREF(old);
        Ok(())
    }
}

/// Checks the status and the fields, and writes them into `head`.
///
/// # Safety
/// The GIL is held; all are objects that the caller holds.
unsafe fn compose(
    me: *mut Exchange,
    status: Obj,
    headers: Obj,
    head: &mut Vec<u8>,
) -> Raised<(u32, Given)> {
    // SAFETY: the caller's promise.
    unsafe {
        if ffi::PyUnicode_Check(status) == 0 {
            unicode_error(c"The status string must be a native string", &[])?;
        }
        let Some(line) = bytes_of(status) else {
            let encoded = ffi::PyUnicode_AsLatin1String(status);
            ffi::Py_XDECREF(encoded);
            return Err(());
        };
        if breaks_line(line) {
            value_error(c"carriage return or newline in status", status)?;
        }
        if memchr::memchr(0, line).is_some() {
            value_error(c"a null character in status", status)?;
        }
        let code = code_of(line, status)?;
        head.clear();
        head.extend_from_slice(b"HTTP/1.1 ");
        head.extend_from_slice(line);
        head.extend_from_slice(b"\r\n");
        let given = fields(me, headers, head)?;
        if let 204 | 304 = code
            && let Some(length) = given.length
        {
            bodyless_length(me, code, length, head)?;
        }
        if code < 200 {
            let text = format!("{code} is no final status");
            raise::application_error(&(*me).core, &text)?;
        }
        Ok((code, given))
    }
}

/// A Content-Length where there is no body: of a 304 it is what the 200 would have (RFC 9110 §8.6), a 204 goes
/// without. Upstream's tests want both refused.
///
/// # Safety
/// The GIL is held; `me` is held by the caller.
#[cold]
unsafe fn bodyless_length(
    me: *mut Exchange,
    code: u32,
    length: u64,
    head: &mut Vec<u8>,
) -> Raised<()> {
    // SAFETY: the caller's promise.
    unsafe {
        let as_upstream = (*me)
            .conn
            .as_ref()
            .is_some_and(|conn| conn.server().settings().rules.policy >= Policy::Compatible);
        if length != 0 && (code == 204 || as_upstream) {
            let text = format!(
                "Invalid Content-Length for {code} response: '{length}' (must be absent or zero)"
            );
            return raise::application_error(&(*me).core, text.as_bytes());
        }
    }
    if code == 204 {
        drop_content_length(head);
    }
    Ok(())
}

/// Takes the Content-Length, once or repeated, out of a status line and fields.
fn drop_content_length(head: &mut Vec<u8>) {
    const NAME: &[u8] = b"content-length:";
    let mut kept = Vec::with_capacity(head.len());
    for line in head.split_inclusive(|&c| c == b'\n') {
        let is_it = line.len() >= NAME.len() && line[..NAME.len()].eq_ignore_ascii_case(NAME);
        if !is_it {
            kept.extend_from_slice(line);
        }
    }
    *head = kept;
}

/// Raises what a `sys.exc_info()` holds.
///
/// # Safety
/// As the module says; `exc_info` is a tuple of three.
unsafe fn reraise(exc_info: Obj) -> Raised<()> {
    // SAFETY: the caller's promise.
    unsafe {
        let value = ffi::PySequence_GetItem(exc_info, 1);
        if value.is_null() {
            return Err(());
        }
        let traceback = ffi::PySequence_GetItem(exc_info, 2);
        if traceback.is_null() {
            ffi::Py_DECREF(value);
            return Err(());
        }
        if ffi::PyExceptionInstance_Check(value) == 0 {
            let text = c"exc_info holds no exception";
            ffi::PyErr_SetString(ffi::PyExc_TypeError, text.as_ptr());
        } else {
            if traceback != ffi::Py_None() {
                ffi::PyException_SetTraceback(value, traceback);
            }
            ffi::PyErr_SetObject(ffi::Py_TYPE(value).cast(), value);
        }
        ffi::Py_DECREF(traceback);
        ffi::Py_DECREF(value);
        Err(())
    }
}

/// # Safety
/// As the module says.
unsafe fn code_of(line: &[u8], status: Obj) -> Raised<u32> {
    let word = line.split(|&c| c == b' ').next().unwrap_or(line);
    if let [a, b, c] = word
        && word.iter().all(u8::is_ascii_digit)
    {
        let digit = |c: &u8| u32::from(c - b'0');
        return Ok(digit(a) * 100 + digit(b) * 10 + digit(c));
    }
    // SAFETY: the GIL is held.
    unsafe {
        let text = c"a status begins with three digits: %R";
        ffi::PyErr_Format(ffi::PyExc_ValueError, text.as_ptr(), status);
    }
    Err(())
}

/// # Safety
/// As the module says.
unsafe fn fields(me: *mut Exchange, headers: Obj, head: &mut Vec<u8>) -> Raised<Given> {
    // SAFETY: the GIL is held; items are held by the list, which nothing can change meanwhile unless
    // Python runs, which it does not for plain tuples of strings.
    unsafe {
        let list = ffi::PySequence_Fast(headers, c"headers must be a list of pairs".as_ptr());
        if list.is_null() {
            return Err(());
        }
        let mut given = Given::default();
        // The status line.
        let mut lines = 1;
        let mut i = 0;
        let outcome = loop {
            if i >= ffi::PySequence_Fast_GET_SIZE(list) {
                break Ok(());
            }
            let item = ffi::PySequence_Fast_GET_ITEM(list, i);
            let pair = if ffi::PyTuple_CheckExact(item) != 0 {
                ffi::Py_NewRef(item)
            } else {
                ffi::PySequence_Tuple(item)
            };
            if pair.is_null() {
                break Err(());
            }
            let done = if ffi::PyTuple_GET_SIZE(pair) == 2 {
                let (name, value) = (
                    ffi::PyTuple_GET_ITEM(pair, 0),
                    ffi::PyTuple_GET_ITEM(pair, 1),
                );
                let done = field(me, name, value, head, &mut given);
                done.and_then(|()| {
                    lines += 1;
                    // Behind the last one all are judged together.
                    let is_last = i + 1 >= ffi::PySequence_Fast_GET_SIZE(list);
                    let breaks = is_last
                        && (line_ends(head) != 2 * lines || memchr::memchr(0, head).is_some());
                    if breaks { broken_line(list) } else { Ok(()) }
                })
            } else {
                let text = c"a header is a pair of name and value";
                ffi::PyErr_SetString(ffi::PyExc_ValueError, text.as_ptr());
                Err(())
            };
            ffi::Py_DECREF(pair);
            if done.is_err() {
                break Err(());
            }
            i += 1;
        };
        ffi::Py_DECREF(list);
        outcome.map(|()| given)
    }
}

/// Sets the error for the first field that has a line's end in it.
///
/// # Safety
/// As the module says; `list` is a list or tuple of pairs of strings.
#[cold]
unsafe fn broken_line(list: Obj) -> Raised<()> {
    // SAFETY: the GIL is held; the list is the caller's, and its items are pairs of strings.
    unsafe {
        for i in 0..ffi::PySequence_Fast_GET_SIZE(list) {
            let pair = ffi::PySequence_Tuple(ffi::PySequence_Fast_GET_ITEM(list, i));
            if pair.is_null() {
                return Err(());
            }
            let mut found = Ok(());
            if ffi::PyTuple_GET_SIZE(pair) == 2 {
                let value = ffi::PyTuple_GET_ITEM(pair, 1);
                let value_breaks = bytes_of(value).is_some_and(breaks_line);
                if value_breaks {
                    found = value_error(c"carriage return or newline in header value", value);
                } else if bytes_of(value).is_some_and(|value| value.contains(&0)) {
                    found = value_error(c"a null character in header value", value);
                }
            }
            ffi::Py_DECREF(pair);
            found?;
        }
        // The list was changed meanwhile.
        let text = c"carriage return, newline or null character in a header";
        ffi::PyErr_SetString(ffi::PyExc_ValueError, text.as_ptr());
        Err(())
    }
}

#[cold]
fn name_fault(field: &[u8]) -> &'static std::ffi::CStr {
    match breaks_line(field) {
        true => c"carriage return or newline in header name",
        false => c"a header name is no token",
    }
}

/// # Safety
/// As the module says.
unsafe fn field(
    me: *mut Exchange,
    name: Obj,
    value: Obj,
    head: &mut Vec<u8>,
    given: &mut Given,
) -> Raised<()> {
    // SAFETY: the GIL is held; the pair is held by the caller.
    unsafe {
        if ffi::PyUnicode_Check(name) == 0 {
            return unicode_error(c"The header must be a native string", &[name, value]);
        }
        if ffi::PyUnicode_Check(value) == 0 {
            return unicode_error(c"The value must be a native string", &[name, value]);
        }
        let (Some(field), Some(content)) = (bytes_of(name), bytes_of(value)) else {
            let shown = ffi::PyObject_Repr(name);
            if shown.is_null() {
                return Err(());
            }
            // Without the value: these are logged, and a value may be a secret.
            let failed = unicode_error(c"Non-latin1 header", &[shown]);
            ffi::Py_DECREF(shown);
            return failed;
        };
        match field.len() {
            4 if field.eq_ignore_ascii_case(b"date") => given.has_date = true,
            10 if field.eq_ignore_ascii_case(b"connection") => {
                given.has_connection = true;
                given.close |= gevent_wsgi::chars::has_member(content, "close");
            }
            14 if field.eq_ignore_ascii_case(b"content-length") => {
                let digits = trim(content);
                let length = (!digits.is_empty() && digits.iter().all(u8::is_ascii_digit))
                    .then(|| std::str::from_utf8(digits).ok()?.parse().ok())
                    .flatten();
                match length {
                    Some(length) if given.length.is_none_or(|known| known == length) => {
                        given.length = Some(length);
                    }
                    Some(_) => {
                        let text = "more than one Content-Length, and they differ";
                        return raise::application_error(&(*me).core, text);
                    }
                    None => {
                        let text = c"Content-Length is no number: %R";
                        ffi::PyErr_Format(ffi::PyExc_ValueError, text.as_ptr(), value);
                        return Err(());
                    }
                }
            }
            17 if field.eq_ignore_ascii_case(b"transfer-encoding") => {
                let text = format!(
                    "{} is for the server alone to set (a hop-by-hop field)",
                    String::from_utf8_lossy(field)
                );
                return raise::application_error(&(*me).core, &text);
            }
            _ if !is_name(field) => return value_error(name_fault(field), name),
            _ => {}
        }
        head.extend_from_slice(field);
        head.extend_from_slice(b": ");
        head.extend_from_slice(content);
        head.extend_from_slice(b"\r\n");
        Ok(())
    }
}

/// The connection has to close after all: its end is the body's.
pub fn close_instead(head: &mut Vec<u8>) {
    const KEPT: &[u8] = b"Connection: keep-alive\r\n";
    if let Some(at) = memchr::memmem::find(head, KEPT) {
        head.splice(
            at..at + KEPT.len(),
            b"Connection: close\r\n".iter().copied(),
        );
    }
}

/// Forgets an answer that failed before its first byte was out.
///
/// # Safety
/// The GIL is held.
pub unsafe fn forget(me: *mut Exchange) {
    // SAFETY: the caller's promise.
    unsafe {
        (*me).answer.sent = false;
        (*me).answer.chunked = false;
        (*me).answer.left = None;
        (*me).answer.length = None;
        (*me).result = null_mut();
    }
}
