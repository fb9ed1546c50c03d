//! `wsgi.input`: a request's body, read from the connection as the application asks for it.

use super::app::{Conn, Greenlets};
use super::raise::raise;
use crate::cells::GilCell;
use gevent_wsgi::Framing;
use gevent_wsgi::server::Error;
use pyo3::exceptions::PyOSError;
use pyo3::ffi::PyObject;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyList};
use std::cell::UnsafeCell;
use std::rc::Rc;

/// Bytes asked for at a time when nobody says how many.
const PIECE: usize = 32 * 1024;
/// Room made at once for a body of a known length that may never come.
const MOST_PIECE: usize = 1 << 20;

/// What is read and not yet asked for, and where more comes from.
struct Source {
    conn: Option<Rc<Conn>>,
    pending: Vec<u8>,
    at: usize,
    over: bool,
}

/// The file. Reading past the body is its end; the connection's next request is left alone.
#[pyclass(frozen, module = "gevent._core", name = "HTTPInput")]
pub struct Input {
    source: Held,
    chunked: bool,
    length: Option<u64>,
    position: GilCell<u64>,
}

struct Held(UnsafeCell<Source>);
// SAFETY: touched only with the GIL held, and on the connection's own thread: others are turned away
// by the hub, which is not theirs.
unsafe impl Send for Held {}
// SAFETY: as above.
unsafe impl Sync for Held {}

static EMPTY: PyOnceLock<Py<Input>> = PyOnceLock::new();

/// The input of requests without a body: a new reference.
pub fn empty(py: Python<'_>) -> PyResult<*mut PyObject> {
    let made = EMPTY.get_or_try_init(py, || Py::new(py, Input::new(None, Framing::None)))?;
    Ok(made.clone_ref(py).into_any().into_ptr())
}

impl Input {
    fn new(conn: Option<Rc<Conn>>, framing: Framing) -> Self {
        Input {
            source: Held(UnsafeCell::new(Source {
                over: conn.is_none(),
                conn,
                pending: Vec::new(),
                at: 0,
            })),
            chunked: framing == Framing::Chunked,
            length: match framing {
                Framing::Length(length) => Some(length),
                _ => None,
            },
            position: GilCell::new(0),
        }
    }

    /// One for a body of `conn`.
    ///
    /// # Errors
    /// Of the allocation.
    pub fn of(py: Python<'_>, conn: &Rc<Conn>, framing: Framing) -> PyResult<Py<Self>> {
        Py::new(py, Input::new(Some(conn.clone()), framing))
    }

    /// Takes the connection away: the request is over.
    pub fn detach(&self) {
        let conn = self.with(|s| {
            s.over = true;
            s.conn.take()
        });
        drop(conn);
    }

    /// A short step on the source: nothing in it may run Python or wait.
    fn with<R>(&self, f: impl FnOnce(&mut Source) -> R) -> R {
        // SAFETY: the GIL is held, and `f` runs no Python, so that nobody else is in here.
        f(unsafe { &mut *self.source.0.get() })
    }

    fn failed(&self, py: Python<'_>, error: Error) -> PyErr {
        self.with(|s| s.over = true);
        match error {
            Error::Eof if self.chunked => {
                PyOSError::new_err("unexpected end of file while parsing chunked data")
            }
            Error::Eof => PyOSError::new_err(format!(
                "unexpected end of file while reading request at position {}",
                self.position.get()
            )),
            other => {
                let _ = raise::<()>(other);
                PyErr::fetch(py)
            }
        }
    }

    /// Reads from the connection into `buf`; 0 at the end.
    fn receive(&self, py: Python<'_>, buf: &mut [u8]) -> PyResult<usize> {
        let Some(conn) = self.with(|s| if s.over { None } else { s.conn.clone() }) else {
            return Ok(0);
        };
        match conn.read(&Greenlets, buf) {
            Ok(0) => {
                self.with(|s| s.over = true);
                Ok(0)
            }
            Ok(n) => {
                self.position.set(self.position.get() + n as u64);
                Ok(n)
            }
            Err(error) => Err(self.failed(py, error)),
        }
    }

    /// Takes up to `most` bytes of what is pending.
    fn take(&self, most: usize, out: &mut Vec<u8>) {
        self.with(|s| {
            let n = most.min(s.pending.len() - s.at);
            out.extend_from_slice(&s.pending[s.at..s.at + n]);
            s.at += n;
            if s.at == s.pending.len() {
                s.pending.clear();
                s.at = 0;
            }
        });
    }

    fn read_to(&self, py: Python<'_>, most: usize) -> PyResult<Vec<u8>> {
        let mut out = Vec::new();
        self.take(most, &mut out);
        // `out` is longer than what is in it, so that a client who sends little at a time has little cleared.
        let mut filled = out.len();
        while filled < most {
            if filled == out.len() {
                let known = self
                    .length
                    .map_or(PIECE, |n| n.saturating_sub(self.position.get()) as usize);
                let want = known.clamp(1, MOST_PIECE.max(filled));
                out.resize(filled + want.min(most - filled), 0);
            }
            let got = self.receive(py, &mut out[filled..])?;
            if got == 0 {
                break;
            }
            filled += got;
        }
        out.truncate(filled);
        Ok(out)
    }

    fn read_line(&self, py: Python<'_>, most: usize) -> PyResult<Vec<u8>> {
        let mut out = Vec::new();
        while out.len() < most {
            let (length, complete) = self.with(|s| {
                let waiting = &s.pending[s.at..];
                match memchr::memchr(b'\n', waiting) {
                    Some(end) => (end + 1, true),
                    None => (waiting.len(), false),
                }
            });
            let left = most - out.len();
            self.take(length.min(left), &mut out);
            if complete || length >= left {
                break;
            }
            let mut piece = vec![0; PIECE];
            let got = self.receive(py, &mut piece)?;
            if got == 0 {
                break;
            }
            piece.truncate(got);
            self.with(|s| {
                s.pending = piece;
                s.at = 0;
            });
        }
        Ok(out)
    }
}

/// A size as `read` takes it: none and negative ones mean all.
fn limit(size: Option<isize>) -> usize {
    size.and_then(|n| usize::try_from(n).ok())
        .unwrap_or(usize::MAX)
}

#[crate::entry]
#[pymethods]
impl Input {
    /// read(length=None)
    ///
    /// So many bytes, fewer only at the end; all that is left without a length.
    #[pyo3(signature = (length=None))]
    fn read<'py>(&self, py: Python<'py>, length: Option<isize>) -> PyResult<Bound<'py, PyBytes>> {
        if self.with(|s| s.over && s.pending.is_empty()) {
            return Ok(PyBytes::new(py, b""));
        }
        Ok(PyBytes::new(py, &self.read_to(py, limit(length))?))
    }

    /// readline(size=None)
    ///
    /// A line with its end, or the next size bytes of it.
    #[pyo3(signature = (size=None))]
    fn readline<'py>(&self, py: Python<'py>, size: Option<isize>) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, &self.read_line(py, limit(size))?))
    }

    /// readlines(hint=None)
    ///
    /// All lines; no more once they hold hint bytes together.
    #[pyo3(signature = (hint=None))]
    fn readlines<'py>(&self, py: Python<'py>, hint: Option<isize>) -> PyResult<Bound<'py, PyList>> {
        let most = hint
            .filter(|hint| *hint > 0)
            .map_or(usize::MAX, |hint| hint as usize);
        let lines = PyList::empty(py);
        let mut size = 0;
        while size < most {
            let line = self.read_line(py, usize::MAX)?;
            if line.is_empty() {
                break;
            }
            size += line.len();
            lines.append(PyBytes::new(py, &line))?;
        }
        Ok(lines)
    }

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let line = self.read_line(py, usize::MAX)?;
        Ok((!line.is_empty()).then(|| PyBytes::new(py, &line)))
    }

    /// Bytes of the body that were received.
    #[getter]
    fn position(&self) -> u64 {
        self.position.get()
    }

    /// The length that the client has given; None for chunks, or without a body.
    #[getter]
    fn content_length(&self) -> Option<u64> {
        self.length
    }

    /// Whether the body comes in chunks.
    #[getter]
    fn chunked_input(&self) -> bool {
        self.chunked
    }
}

/// The class, for `isinstance`.
pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<Input>()
}
