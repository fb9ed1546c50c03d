//! How an [`Exchange`] sends its answer: the head completed, then the body in blocks, chunks or from a file,
//! held to its length.

use super::app::{Conn, Greenlets};
use super::exchange::{COPY, Exchange, Raised};
use super::piece::known_length;
use super::raise::{self, raise};
use super::start;
use gevent_wsgi::answer;
use gevent_wsgi::server::{Error, Framing};
use pyo3::ffi;
use std::ffi::c_int;
use std::io::IoSlice;

const CHUNKED: &[u8] = b"Transfer-Encoding: chunked\r\n";

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

impl Exchange {
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
        if conn.waits_for_leave() {
            conn.must_close();
            if !answer.has_connection {
                answer.head.extend_from_slice(b"Connection: close\r\n");
            }
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
            if is_first && Self::begin(me, &conn, data, follows)? {
                return Ok(());
            }
            let mut out = std::mem::take(&mut (*me).answer.head);
            if !is_first {
                out.clear();
            }
            let (data, excess) = (*me).cut(data);
            let answer = &(*me).answer;
            let chunked = answer.chunked && !data.is_empty();
            // With the last byte of the length the client has it all.
            let follows = match follows {
                Follows::Block if answer.left == Some(0) => Follows::Nothing,
                other => other,
            };
            let sent = put_out(&conn, &mut out, data, chunked, follows);
            if (*me).answer.head.capacity() == 0 {
                // Keeps the memory for the next request.
                out.clear();
                (*me).answer.head = out;
            }
            (*me).answer.count += sent.or_else(raise)? as u64;
            if excess > 0 {
                conn.must_close();
                let text = format!("The body is {excess} bytes longer than its Content-Length");
                return raise::application_error(&(*me).core, &text);
            }
            Ok(())
        }
    }

    /// Completes the head, with `data` to go behind it. Whether the answer is gathered, both of them: then
    /// there is nothing to send yet.
    ///
    /// # Safety
    /// The GIL is held.
    unsafe fn begin(me: *mut Exchange, conn: &Conn, data: &[u8], follows: Follows) -> Raised<bool> {
        // SAFETY: the caller's promise.
        unsafe {
            Self::must_have_started(me)?;
            let whole = known_length((*me).result)?;
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
                return Ok(true);
            }
            if framing == Framing::Open {
                answer.head.extend_from_slice(CHUNKED);
                answer.head.extend_from_slice(b"\r\n");
            }
            Ok(false)
        }
    }

    /// The part of `data` that belongs to the answer, and how much of it is beyond the Content-Length.
    fn cut<'d>(&mut self, data: &'d [u8]) -> (&'d [u8], usize) {
        if self.request.is_head {
            return (&[], 0);
        }
        let Some(left) = self.answer.left else {
            return (data, 0);
        };
        let fits = data.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        self.answer.left = Some(left - fits as u64);
        (&data[..fits], data.len() - fits)
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

    /// Sets the error for a body without a `start_response` before it.
    ///
    /// # Safety
    /// The GIL is held.
    unsafe fn must_have_started(me: *mut Exchange) -> Raised<()> {
        // SAFETY: the caller's promise.
        unsafe {
            if (*me).answer.status.is_null() {
                let text = "The application did not call start_response()";
                return raise::application_error(&(*me).core, text);
            }
            Ok(())
        }
    }

    /// Sets the error for a piece of a body where there must be none.
    ///
    /// # Safety
    /// The GIL is held.
    pub unsafe fn may_have_body(me: *mut Exchange) -> Raised<()> {
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
            let gathered =
                conn.is_gathering() && conn.finish_gathering(&Greenlets).or_else(raise)?;
            if gathered {
                // Its length was told instead.
            } else if (*me).answer.chunked {
                (*me).answer.count += 5;
                conn.write(&Greenlets, &[IoSlice::new(b"0\r\n\r\n")], false)
                    .or_else(raise)?;
            } else if conn.is_holding() {
                conn.write(&Greenlets, &[], false).or_else(raise)?;
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
                Self::must_have_started(me)?;
                (*me).complete_head(Some(count), false);
                let out = std::mem::take(&mut (*me).answer.head);
                conn.write(&Greenlets, &[IoSlice::new(&out)], count > 0)
                    .or_else(raise)?;
                (*me).answer.count += out.len() as u64;
            }
            if (*me).request.is_head || matches!((*me).answer.code, 204 | 304) {
                (*me).answer.left = None;
                return Ok(true);
            }
            let count = (*me).answer.left.map_or(count, |left| count.min(left));
            let sent = conn
                .send_file(&Greenlets, fd, offset, count)
                .or_else(raise)?;
            (*me).answer.count += sent;
            (*me).answer.left = (*me).answer.left.map(|left| left - sent);
            Ok(true)
        }
    }
}

/// Sends `out`, which is the head or empty, and `data` behind it. Returns how many bytes that made.
fn put_out(
    conn: &Conn,
    out: &mut Vec<u8>,
    data: &[u8],
    chunked: bool,
    follows: Follows,
) -> Result<usize, Error> {
    if chunked {
        answer::chunk_size(out, data.len());
    }
    let tail: &[u8] = if chunked { b"\r\n" } else { b"" };
    let total = out.len() + data.len() + tail.len();
    let write = |pieces: &[IoSlice<'_>]| match follows {
        Follows::Block => conn.write_block(&Greenlets, pieces),
        _ => conn.write(&Greenlets, pieces, follows == Follows::Piece),
    };
    if total == 0 {
        return Ok(0);
    }
    if data.len() <= COPY {
        out.extend_from_slice(data);
        out.extend_from_slice(tail);
        write(&[IoSlice::new(out)])?;
    } else {
        write(&[&*out, data, tail].map(IoSlice::new))?;
    }
    Ok(total)
}
