//! The hot half of a TLS socket: the calls that read and write by the interpreter's own `_ssl`.
//!
//! `_ssl` can only say by an exception that it has to wait, and makes one for each message. Here a read is
//! not tried while the socket is known to be empty: by the loop's latch, or else by a poll, which costs less
//! than the call, OpenSSL's look at the socket and the exception. After a read that was cut short by its
//! size OpenSSL may hold more, and the socket says nothing.
//!
//! These are method descriptors of `SocketBase` that `gevent.ssl.SSLSocket` takes into its own namespace.

use super::base::{Given, ReadableView, SocketBase, WritableView};
use super::wait::Direction;
use crate::raw::{_PyType_Lookup, Args, Passed, descriptors, fast, method};
use gevent_hub_core::reactor::{Nanos, monotonic};
use pyo3::exceptions::{PyTimeoutError, PyValueError};
use pyo3::ffi::{self, PyMethodDef, PyObject};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyInt, PyMemoryView, PyString};
use std::ffi::CStr;
use std::ptr::null_mut;

/// The most that a TLS record holds: one call of `_ssl` writes no more.
const RECORD: usize = 16 << 10;

const READ_REFUSED: &str = "Read on closed or unwrapped SSL socket.";
const WRITE_REFUSED: &str = "Write on closed or unwrapped SSL socket.";

/// What is asked of the Python side.
struct Known {
    want_read: Py<PyAny>,
    want_write: Py<PyAny>,
    ssl_error: Py<PyAny>,
    /// `SSLSocket`'s own methods, by which those of a subclass are told.
    read: Py<PyAny>,
    send: Py<PyAny>,
    check_closed: Py<PyAny>,
    ragged_end: Py<PyAny>,
    forbid: Py<PyAny>,
    empty: Py<PyBytes>,
    zero: Py<PyInt>,
}

static KNOWN: PyOnceLock<Known> = PyOnceLock::new();

fn known(py: Python<'_>) -> PyResult<&Known> {
    KNOWN.get(py).ok_or_else(|| {
        pyo3::exceptions::PyRuntimeError::new_err("gevent.ssl has not been imported")
    })
}

/// `bind_tls(cls)`: notes which methods are `SSLSocket`'s own.
#[crate::entry]
#[pyfunction]
fn bind_tls(cls: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = cls.py();
    let ssl = py.import("_ssl")?;
    let own = |name| cls.getattr(name).map(Bound::unbind);
    let known = Known {
        want_read: ssl.getattr("SSLWantReadError")?.unbind(),
        want_write: ssl.getattr("SSLWantWriteError")?.unbind(),
        ssl_error: ssl.getattr("SSLError")?.unbind(),
        read: own("read")?,
        send: own("send")?,
        check_closed: own("_checkClosed")?,
        ragged_end: own("_is_ragged_end")?,
        forbid: own("_forbid")?,
        empty: PyBytes::new(py, b"").unbind(),
        zero: PyInt::new(py, 0).unbind(),
    };
    // Whoever came second binds the same.
    let _first = KNOWN.set(py, known);
    Ok(())
}

/// Whether the type of `slf` has `own` under this name.
#[inline]
fn has(slf: &Bound<'_, SocketBase>, name: &Bound<'_, PyString>, own: &Py<PyAny>) -> bool {
    // SAFETY: a type and an interned name; the result is borrowed and only compared.
    unsafe { _PyType_Lookup(ffi::Py_TYPE(slf.as_ptr()), name.as_ptr()) == own.as_ptr() }
}

/// Tells a subclass that wants to know, as the first act of each call.
#[inline]
fn check_closed(slf: &Bound<'_, SocketBase>, known: &Known) -> PyResult<()> {
    let name = intern!(slf.py(), "_checkClosed");
    if has(slf, name, &known.check_closed) {
        return Ok(());
    }
    slf.call_method0(name).map(drop)
}

/// Refuses flags that are not zero.
#[inline]
fn no_flags(slf: &Bound<'_, SocketBase>, known: &Known, name: &str, flags: i32) -> PyResult<()> {
    if flags == 0 {
        return Ok(());
    }
    known
        .forbid
        .bind(slf.py())
        .call1((slf, name, flags))
        .map(drop)
}

/// One of the two calls.
#[derive(Clone, Copy)]
struct Call<'a, 'py> {
    name: &'a Bound<'py, PyString>,
    /// Its arguments, as many as are not null.
    args: [*mut PyObject; 2],
    /// Whether it reads, with arguments that will not be refused: there is no use in it before there is data.
    wants_data: bool,
    /// What is said for want of a TLS object, and when the time is over.
    refused: &'static str,
    late: &'static str,
}

impl SocketBase {
    /// Whether the socket is known to have nothing: the loop says so, or the kernel does when asked, which then
    /// clears what the loop says.
    fn has_nothing(&self) -> (bool, bool) {
        if !self.place().maybe_readable() {
            return (true, false);
        }
        let mut asked = libc::pollfd {
            fd: self.fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // Not a peek: that would take a pending error, such as a reset, which OpenSSL has to meet.
        // SAFETY: one entry, for the call.
        let n = unsafe { libc::poll(&raw mut asked, 1, 0) };
        (n == 0, true)
    }

    /// Waits, in the words of TLS.
    fn tls_wait(
        slf: &Bound<'_, Self>,
        direction: Direction,
        deadline: Option<Nanos>,
        clear: bool,
        late: &'static str,
    ) -> PyResult<()> {
        Self::wait_again(slf, direction, deadline, clear).map_err(|e| {
            let e = e.into_error(slf.py());
            if e.is_instance_of::<PyTimeoutError>(slf.py()) {
                PyTimeoutError::new_err(late)
            } else {
                e
            }
        })
    }

    /// Calls the TLS object, and waits for what it wants, until it is done.
    fn tls_drive<'py>(
        slf: &Bound<'py, Self>,
        known: &Known,
        call: Call<'_, 'py>,
        given: &Given,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let me = slf.get();
        let mut looked = !call.wants_data || me.tls_has_more() || !me.may_wait(given);
        // The limit is for the whole: a peer that sends a record in drops does not stretch it.
        let mut patience = None;
        loop {
            // Looked up each time: somebody may have unwrapped it in the meantime.
            let Some(tls) = me.tls(py) else {
                return Err(PyValueError::new_err(call.refused));
            };
            if !looked {
                looked = true;
                if let (true, clear) = me.has_nothing() {
                    let (_, deadline) = *patience.get_or_insert_with(|| me.patience(given));
                    Self::tls_wait(slf, Direction::Read, deadline, clear, call.late)?;
                    continue;
                }
            }
            let mut args = [null_mut(), tls.as_ptr(), call.args[0], call.args[1]];
            let n = 1 + call.args.iter().filter(|a| !a.is_null()).count();
            // SAFETY: so many live objects, with a free place before them; the result is a new reference.
            let result = unsafe {
                let result = ffi::PyObject_VectorcallMethod(
                    call.name.as_ptr(),
                    args.as_mut_ptr().add(1),
                    n | ffi::PY_VECTORCALL_ARGUMENTS_OFFSET,
                    null_mut(),
                );
                Bound::from_owned_ptr_or_err(py, result)
            };
            let error = match result {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            let direction = if error.matches(py, &known.want_read)? {
                Direction::Read
            } else if error.matches(py, &known.want_write)? {
                Direction::Write
            } else {
                return Err(error);
            };
            let (waits, deadline) = *patience.get_or_insert_with(|| me.patience(given));
            if !waits {
                return Err(error);
            }
            drop(error);
            Self::tls_wait(slf, direction, deadline, true, call.late)?;
        }
    }

    fn tls_read<'py>(
        slf: &Bound<'py, Self>,
        known: &'py Known,
        nbytes: &Bound<'py, PyAny>,
        buffer: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let me = slf.get();
        check_closed(slf, known)?;
        if !me.has_tls() {
            return Err(PyValueError::new_err(READ_REFUSED));
        }
        let nothing = || match buffer {
            None => known.empty.bind(py).clone().into_any(),
            Some(_) => known.zero.bind(py).clone().into_any(),
        };
        // What is no number is for `_ssl` to refuse.
        let asked: isize = nbytes.extract().unwrap_or(isize::MAX);
        if asked == 0 {
            return Ok(nothing());
        }
        let call = Call {
            name: intern!(py, "read"),
            args: [nbytes.as_ptr(), buffer.map_or(null_mut(), Bound::as_ptr)],
            wants_data: (1..=i32::MAX as isize).contains(&asked)
                && buffer.is_none_or(|b| WritableView::of(b).is_ok()),
            refused: READ_REFUSED,
            late: "The read operation timed out",
        };
        match Self::tls_drive(slf, known, call, &Given::Omitted) {
            Ok(value) => {
                let got = match value.cast::<PyBytes>() {
                    Ok(bytes) => bytes.as_bytes().len() as isize,
                    Err(_) => value.extract().unwrap_or(isize::MAX),
                };
                me.set_tls_has_more(got >= asked);
                Ok(value)
            }
            Err(error) if error.matches(py, &known.ssl_error)? => {
                let ended = known.ragged_end.bind(py).call1((slf, error.value(py)))?;
                if ended.is_truthy()? {
                    Ok(nothing())
                } else {
                    Err(error)
                }
            }
            Err(error) => Err(error),
        }
    }

    /// As `read`, by way of a subclass's own if it has one.
    fn tls_read_by_name<'py>(
        slf: &Bound<'py, Self>,
        known: &'py Known,
        nbytes: &Bound<'py, PyAny>,
        buffer: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let name = intern!(slf.py(), "read");
        if has(slf, name, &known.read) {
            return Self::tls_read(slf, known, nbytes, buffer);
        }
        match buffer {
            None => slf.call_method1(name, (nbytes,)),
            Some(buffer) => slf.call_method1(name, (nbytes, buffer)),
        }
    }

    fn tls_write<'py>(
        slf: &Bound<'py, Self>,
        known: &Known,
        data: &Bound<'py, PyAny>,
        given: &Given,
        late: &'static str,
    ) -> PyResult<Bound<'py, PyAny>> {
        let call = Call {
            name: intern!(slf.py(), "write"),
            args: [data.as_ptr(), null_mut()],
            wants_data: false,
            refused: WRITE_REFUSED,
            late,
        };
        Self::tls_drive(slf, known, call, given)
    }

    fn tls_sendall<'py>(
        slf: &Bound<'py, Self>,
        known: &Known,
        data: &Bound<'py, PyAny>,
    ) -> PyResult<()> {
        let py = slf.py();
        let me = slf.get();
        let len = ReadableView::of(data)?.len();
        let (_, end) = me.patience(&Given::Omitted);
        let mut sent = 0;
        let mut view = None;
        while sent < len {
            let left = match end {
                None => Given::Omitted,
                // The limit is for the whole; the first piece is tried even if it is over.
                Some(end) => match end.saturating_sub(monotonic()) {
                    0 if sent > 0 => return Err(PyTimeoutError::new_err("timed out")),
                    left => Given::Seconds(left as f64 / 1e9),
                },
            };
            let piece = if sent == 0 && len <= RECORD {
                data.clone()
            } else {
                let bytes = view.get_or_insert_with(|| {
                    PyMemoryView::from(data).and_then(|v| v.call_method1("cast", ("B",)))
                });
                let bytes = bytes.as_ref().map_err(|e| e.clone_ref(py))?;
                let (from, to) = (sent as isize, (sent + RECORD).min(len) as isize);
                // Not by `PySlice::new`, which leaks the numbers (pyo3 0.30).
                // SAFETY: a live sequence; the result is a new reference.
                unsafe {
                    let piece = ffi::PySequence_GetSlice(bytes.as_ptr(), from, to);
                    Bound::from_owned_ptr_or_err(py, piece)?
                }
            };
            let n = Self::tls_write(slf, known, &piece, &left, "timed out")?;
            sent += n.extract::<usize>()?;
        }
        Ok(())
    }
}

/// What a method was given: the socket, what Python knows, and the arguments.
type Body<const N: usize> = for<'py> fn(
    &Bound<'py, SocketBase>,
    &'py Known,
    [Option<Bound<'py, PyAny>>; N],
) -> PyResult<Bound<'py, PyAny>>;

/// Runs a method as the C API calls it.
///
/// # Safety
/// The GIL is held, `slf` is a `SocketBase`, and the rest is as the C API passes it.
unsafe fn run<const N: usize>(
    slf: *mut PyObject,
    (items, n, names): Passed,
    func: &CStr,
    parameters: [&CStr; N],
    body: Body<N>,
) -> *mut PyObject {
    // SAFETY: the caller's promise.
    unsafe {
        let py = Python::assume_attached();
        let Ok(args) = Args::new(items, n, names).parse(func, parameters) else {
            return null_mut();
        };
        let slf = Bound::from_borrowed_ptr(py, slf).cast_into_unchecked::<SocketBase>();
        let args = args.map(|a| (!a.is_null()).then(|| Bound::from_borrowed_ptr(py, a)));
        match known(py).and_then(|known| body(&slf, known, args)) {
            Ok(value) => value.into_ptr(),
            Err(error) => {
                error.restore(py);
                null_mut()
            }
        }
    }
}

fn required<'py>(
    value: Option<Bound<'py, PyAny>>,
    func: &str,
    name: &str,
) -> PyResult<Bound<'py, PyAny>> {
    value.ok_or_else(|| {
        pyo3::exceptions::PyTypeError::new_err(format!(
            "SSLSocket.{func}() missing 1 required positional argument: '{name}'"
        ))
    })
}

/// An argument that is not None.
fn given(value: Option<Bound<'_, PyAny>>) -> Option<Bound<'_, PyAny>> {
    value.filter(|v| !v.is_none())
}

fn flags_of(flags: Option<Bound<'_, PyAny>>) -> PyResult<i32> {
    flags.map_or(Ok(0), |f| f.extract())
}

method!(
    run: read,
    c"read",
    [c"nbytes", c"buffer"],
    |slf, known, [nbytes, buffer]| {
        let nbytes = given(nbytes).unwrap_or_else(|| PyInt::new(slf.py(), 2014).into_any());
        let buffer = given(buffer);
        SocketBase::tls_read(slf, known, &nbytes, buffer.as_ref())
    }
);

method!(run: write, c"write", [c"data"], |slf, known, [data]| {
    check_closed(slf, known)?;
    let data = required(data, "write", "data")?;
    let late = "The write operation timed out";
    SocketBase::tls_write(slf, known, &data, &Given::Omitted, late)
});

method!(
    run: recv,
    c"recv",
    [c"buflen", c"flags"],
    |slf, known, [buflen, flags]| {
        let py = slf.py();
        check_closed(slf, known)?;
        let buflen = given(buflen).unwrap_or_else(|| PyInt::new(py, 1024).into_any());
        let flags = flags_of(flags)?;
        if !slf.get().has_tls() {
            let bytes =
                SocketBase::recv(slf, buflen.extract()?, flags).map_err(|e| e.into_error(py))?;
            // A new reference; the method's body is unsafe.
            return Ok(Bound::from_owned_ptr(py, bytes));
        }
        no_flags(slf, known, "recv", flags)?;
        if !buflen.is_truthy()? {
            return Ok(known.empty.bind(py).clone().into_any());
        }
        SocketBase::tls_read_by_name(slf, known, &buflen, None)
    }
);

method!(
    run: recv_into,
    c"recv_into",
    [c"buffer", c"nbytes", c"flags"],
    |slf, known, [buffer, nbytes, flags]| {
        let py = slf.py();
        check_closed(slf, known)?;
        let buffer = required(buffer, "recv_into", "buffer")?;
        let flags = flags_of(flags)?;
        let nbytes = match given(nbytes) {
            Some(nbytes) => nbytes,
            None => {
                let len = match buffer.is_none() {
                    true => 0,
                    false => ReadableView::of(&buffer)?.len(),
                };
                PyInt::new(py, if len == 0 { 1024 } else { len }).into_any()
            }
        };
        if !slf.get().has_tls() {
            let got = SocketBase::recv_into(slf, &buffer, nbytes.extract()?, flags)
                .map_err(|e| e.into_error(py))?;
            return Ok(PyInt::new(py, got).into_any());
        }
        no_flags(slf, known, "recv_into", flags)?;
        let buffer = given(Some(buffer));
        SocketBase::tls_read_by_name(slf, known, &nbytes, buffer.as_ref())
    }
);

method!(
    run: send,
    c"send",
    [c"data", c"flags", c"timeout"],
    |slf, known, [data, flags, timeout]| {
        let py = slf.py();
        check_closed(slf, known)?;
        let data = required(data, "send", "data")?;
        let flags = flags_of(flags)?;
        let given = match timeout {
            None => Given::Omitted,
            Some(timeout) => timeout.extract()?,
        };
        if !slf.get().has_tls() {
            let sent = SocketBase::send(slf, &data, flags, given).map_err(|e| e.into_error(py))?;
            return Ok(PyInt::new(py, sent).into_any());
        }
        no_flags(slf, known, "send", flags)?;
        match SocketBase::tls_write(slf, known, &data, &given, "timed out") {
            Err(error)
                if error.matches(py, &known.want_write)? || error.matches(py, &known.want_read)? =>
            {
                Ok(known.zero.bind(py).clone().into_any())
            }
            other => other,
        }
    }
);

method!(
    run: sendall,
    c"sendall",
    [c"data", c"flags"],
    |slf, known, [data, flags]| {
        let py = slf.py();
        check_closed(slf, known)?;
        let data = required(data, "sendall", "data")?;
        let flags = flags_of(flags)?;
        let me = slf.get();
        if !me.has_tls() {
            SocketBase::sendall(slf, &data, flags).map_err(|e| e.into_error(py))?;
            return Ok(py.None().into_bound(py));
        }
        no_flags(slf, known, "sendall", flags)?;
        if me.may_wait(&Given::Omitted) && has(slf, intern!(py, "send"), &known.send) {
            SocketBase::tls_sendall(slf, known, &data)?;
        } else {
            // A subclass that sends in its own way, or a socket that does not wait.
            let name = intern!(py, "_sendall_by_send");
            slf.call_method1(name, (data, flags)).map_err(|e| {
                if me.may_wait(&Given::Omitted) || !e.is_instance_of::<PyTimeoutError>(py) {
                    return e;
                }
                let text = "The operation did not complete (write)";
                let error = known.want_write.bind(py).call1((text,));
                error.map_or_else(|e| e, PyErr::from_value)
            })?;
        }
        Ok(py.None().into_bound(py))
    }
);

fn definitions() -> Vec<PyMethodDef> {
    vec![
        fast(
            c"read",
            read,
            0,
            c"read(nbytes=2014, buffer=None)\n\nRead up to *nbytes*: return them, or their number if they went to *buffer*.\n\nNothing is the end, be it announced or, with *suppress_ragged_eofs*, not.",
        ),
        fast(
            c"write",
            write,
            0,
            c"write(data)\n\nEncrypt and send some of *data*; return how much.",
        ),
        fast(
            c"recv",
            recv,
            0,
            c"recv(buflen=1024, flags=0)\n\nReceive up to *buflen* bytes; none at the end.",
        ),
        fast(
            c"recv_into",
            recv_into,
            0,
            c"recv_into(buffer, nbytes=None, flags=0)\n\nReceive into a writable buffer: up to *nbytes* bytes, or as many as it has.",
        ),
        fast(
            c"send",
            send,
            0,
            c"send(data, flags=0, timeout=None)\n\nEncrypt and send some of *data*; return how much. Left out, *timeout* is the socket's own.",
        ),
        fast(
            c"sendall",
            sendall,
            0,
            c"sendall(data, flags=0)\n\nEncrypt and send all of *data*, within the socket's timeout.",
        ),
    ]
}

/// Adds `bind_tls`, and `tls_methods`: the descriptors by their names.
pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = m.py();
    let methods = PyDict::new(py);
    for (name, descriptor) in descriptors(&py.get_type::<SocketBase>(), definitions())? {
        methods.set_item(name, descriptor)?;
    }
    m.add("tls_methods", methods)?;
    m.add_function(wrap_pyfunction!(bind_tls, m)?)
}
