//! The class: what it knows of the socket in `_sock`, and the calls that move data.

use super::wait::{Direction, Place, timed_out};
use crate::cells::{GilCell, PyCellOpt};
use crate::errors::{last_errno, os_error};
use crate::event_loop::{Loop, nanos};
use crate::greenlet::object::Raised;
use crate::raw::_PyType_Lookup;
use crate::tstate::without_gil;
use gevent_hub_core::reactor::{Kind, Nanos, monotonic};
use pyo3::exceptions::{PyBlockingIOError, PyTypeError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use std::cell::UnsafeCell;
use std::os::fd::RawFd;

/// Reads up to this many bytes go through a buffer of the thread, and with the GIL held.
const SCRATCH: usize = 64 << 10;

thread_local! {
    static BUFFER: UnsafeCell<Box<[u8; SCRATCH]>> =
        UnsafeCell::new(vec![0; SCRATCH].into_boxed_slice().try_into().expect("of that size"));
}

/// A socket whose last message was as large gets the next one into an object of its full size; below
/// that a copy out of the thread's buffer is cheaper.
const DIRECT: usize = 8 << 10;

/// `SO_SNDBUF` sized pieces are not needed: the kernel takes what it can.
const GIL_HELD_UP_TO: usize = 64 << 10;

/// The base of `gevent.socket.socket`.
#[pyclass(subclass, frozen, module = "gevent._core", name = "SocketBase")]
pub struct SocketBase {
    sock: PyCellOpt,
    timeout: PyCellOpt,
    /// The timeout in nanoseconds; `u64::MAX` for none.
    limit: GilCell<Nanos>,
    fd: GilCell<RawFd>,
    kind: GilCell<Kind>,
    /// What the last `recv` got, in bytes.
    last_got: GilCell<usize>,
    /// The object of `_ssl` that encrypts, of a TLS socket.
    tls: PyCellOpt,
    /// Whether that may hold bytes that were received and not read.
    tls_has_more: GilCell<bool>,
    place: PlaceCell,
}

/// One `recv`, without the GIL if `size` is large.
///
/// # Safety
/// `at` is writable for `size` bytes, and stays in place while the GIL is given up.
unsafe fn receive(py: Python<'_>, fd: RawFd, at: *mut u8, size: usize, flags: i32) -> isize {
    if size <= GIL_HELD_UP_TO {
        // SAFETY: the caller's promise.
        return unsafe { libc::recv(fd, at.cast(), size, flags) };
    }
    let at = at as usize;
    let (n, errno) = without_gil(py, move || {
        // SAFETY: as above.
        let n = unsafe { libc::recv(fd, at as *mut libc::c_void, size, flags) };
        (n, last_errno())
    });
    // SAFETY: errno is the thread's.
    unsafe { *libc::__errno_location() = errno };
    n
}

struct PlaceCell(Place);
// SAFETY: touched only with the GIL held.
unsafe impl Send for PlaceCell {}
// SAFETY: as above.
unsafe impl Sync for PlaceCell {}

unsafe extern "C" {
    /// Cuts a new bytes object to size; exported by every CPython, and absent from pyo3's list.
    fn _PyBytes_Resize(bytes: *mut *mut ffi::PyObject, size: isize) -> i32;
}

const NEVER: Nanos = Nanos::MAX;

/// The version of the last class that was found to have `send` from here; CPython gives a class another one
/// when it or a base changes.
static SENDS_OUR_WAY: GilCell<u32> = GilCell::new(0);

/// A timeout in nanoseconds: 0, which is not to wait at all, only for zero.
fn limit_of(seconds: f64) -> Nanos {
    if seconds > 0.0 {
        nanos(seconds).max(1)
    } else {
        nanos(seconds)
    }
}

/// Sets the error of a failed call.
#[cold]
pub(super) fn fail(py: Python<'_>, errno: i32) -> Raised {
    let error = match errno {
        libc::EAGAIN => PyBlockingIOError::new_err((errno, "Resource temporarily unavailable")),
        _ => os_error(errno),
    };
    raise(py, error)
}

#[cold]
fn raise(py: Python<'_>, error: PyErr) -> Raised {
    error.restore(py);
    Raised
}

impl SocketBase {
    /// The descriptor, -1 when it is closed.
    #[inline]
    pub fn fd(&self) -> RawFd {
        self.fd.get()
    }

    /// Whether the socket is still open under the number that is known here: it may have been closed below this
    /// object, and the number be another's by now.
    fn has_own_number(&self, py: Python<'_>) -> bool {
        let fileno = |sock: Py<PyAny>| sock.call_method0(py, "fileno")?.extract::<RawFd>(py);
        let sock = self.sock.get(py);
        sock.is_some_and(|sock| matches!(fileno(sock), Ok(fd) if fd >= 0 && fd == self.fd.get()))
    }

    /// Where it is registered.
    #[inline]
    pub fn place(&self) -> &Place {
        &self.place.0
    }

    /// Whether there is an object of `_ssl`.
    #[inline]
    pub(super) fn has_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// That object.
    #[inline]
    pub(super) fn tls(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.tls.get(py)
    }

    /// Whether it may hold bytes that were received and not read.
    #[inline]
    pub(super) fn tls_has_more(&self) -> bool {
        self.tls_has_more.get()
    }

    /// Says so, after a read.
    #[inline]
    pub(super) fn set_tls_has_more(&self, more: bool) {
        self.tls_has_more.set(more);
    }

    /// Whether a call may wait at all.
    #[inline]
    pub(super) fn may_wait(&self, given: &Given) -> bool {
        match given {
            Given::Omitted => self.limit.get() != 0,
            Given::Never => true,
            Given::Seconds(seconds) => limit_of(*seconds) != 0,
        }
    }

    /// When a call that begins now times out. The first part is false for a non-blocking socket.
    #[inline]
    pub(super) fn patience(&self, given: &Given) -> (bool, Option<Nanos>) {
        let limit = match given {
            Given::Omitted => self.limit.get(),
            Given::Never => NEVER,
            Given::Seconds(seconds) => limit_of(*seconds),
        };
        match limit {
            0 => (false, None),
            NEVER => (true, None),
            ns => (true, Some(monotonic().saturating_add(ns))),
        }
    }

    /// Repeats `call`, which passes `flags` to the kernel, until it gives something else than EAGAIN,
    /// waiting in between.
    #[inline]
    fn until_done(
        slf: &Bound<'_, Self>,
        direction: Direction,
        flags: i32,
        given: Given,
        mut call: impl FnMut(RawFd) -> isize,
    ) -> Result<usize, Raised> {
        let me = slf.get();
        let mut patience = None;
        if direction == Direction::Read && me.is_known_empty(flags) {
            let (_, deadline) = *patience.get_or_insert_with(|| me.patience(&given));
            Self::wait_again(slf, direction, deadline, false)?;
        }
        loop {
            let fd = me.fd();
            if fd < 0 {
                return Err(fail(slf.py(), libc::EBADF));
            }
            let n = call(fd);
            if n >= 0 {
                return Ok(n as usize);
            }
            match last_errno() {
                libc::EAGAIN => {
                    let (waits, deadline) = *patience.get_or_insert_with(|| me.patience(&given));
                    if !waits {
                        return Err(fail(slf.py(), libc::EAGAIN));
                    }
                    Self::wait(slf, direction, deadline)?;
                }
                // SAFETY: the GIL is held.
                libc::EINTR if unsafe { ffi::PyErr_CheckSignals() } == 0 => {}
                libc::EINTR => return Err(Raised),
                errno => return Err(fail(slf.py(), errno)),
            }
        }
    }

    /// Notes what a read of `got` bytes where `size` were asked for says of the next one.
    #[inline]
    fn note_read(&self, got: usize, size: usize, flags: i32) {
        let kind = self.kind.get();
        if got < size && flags == 0 && kind != Kind::Other {
            self.place().was_read(kind, got, size);
        }
    }

    /// Whether a read is known to give EAGAIN, and may wait.
    ///
    /// Only of ordinary data: what is urgent or in the error queue comes without an event of this kind.
    #[inline]
    fn is_known_empty(&self, flags: i32) -> bool {
        self.limit.get() != 0
            && !self.place().maybe_readable()
            && flags & (libc::MSG_OOB | libc::MSG_ERRQUEUE) == 0
    }

    /// Waits to be readable if a read is known to give EAGAIN.
    fn await_known_empty(slf: &Bound<'_, Self>, flags: i32) -> Result<(), Raised> {
        let me = slf.get();
        if me.is_known_empty(flags) {
            let (_, deadline) = me.patience(&Given::Omitted);
            Self::wait_again(slf, Direction::Read, deadline, false)?;
        }
        Ok(())
    }

    /// Whether the class has `send` from here, so that `sendall` may do without it.
    #[inline]
    fn sends_our_way(slf: &Bound<'_, Self>) -> bool {
        // SAFETY: the type's fields are read with the GIL held.
        let version = unsafe { (*ffi::Py_TYPE(slf.as_ptr())).tp_version_tag };
        (version != 0 && version == SENDS_OUR_WAY.get()) || Self::look_at_send(slf)
    }

    #[cold]
    fn look_at_send(slf: &Bound<'_, Self>) -> bool {
        let py = slf.py();
        let base = py.get_type::<SocketBase>();
        let name = pyo3::intern!(py, "send").as_ptr();
        // SAFETY: types and an interned name; the results are borrowed and only compared.
        unsafe {
            let ty = ffi::Py_TYPE(slf.as_ptr());
            let ours = _PyType_Lookup(ty, name) == _PyType_Lookup(base.as_type_ptr(), name);
            if ours {
                SENDS_OUR_WAY.set((*ty).tp_version_tag);
            }
            ours
        }
    }

    fn send_some(
        slf: &Bound<'_, Self>,
        data: *const u8,
        len: usize,
        flags: i32,
        given: Given,
    ) -> Result<usize, Raised> {
        let py = slf.py();
        let flags = flags | libc::MSG_NOSIGNAL;
        Self::until_done(slf, Direction::Write, flags, given, |fd| {
            // SAFETY: `data` is readable for `len`: the caller holds its buffer.
            let send = || unsafe { libc::send(fd, data.cast(), len, flags) };
            if len <= GIL_HELD_UP_TO {
                send()
            } else {
                let addr = data as usize;
                let (n, errno) = without_gil(py, move || {
                    // SAFETY: as above; the buffer stays exported.
                    let n = unsafe { libc::send(fd, addr as *const libc::c_void, len, flags) };
                    (n, last_errno())
                });
                // SAFETY: errno is the thread's.
                unsafe { *libc::__errno_location() = errno };
                n
            }
        })
    }
}

/// A `timeout` argument.
pub(super) enum Given {
    /// Left out: the socket's own counts.
    Omitted,
    /// None.
    Never,
    /// Seconds.
    Seconds(f64),
}

impl<'a, 'py> FromPyObject<'a, 'py> for Given {
    type Error = PyErr;

    fn extract(ob: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        Ok(Given::of(Some(&ob)))
    }
}

impl Given {
    /// What a call was given, if anything.
    pub(super) fn of(timeout: Option<&Bound<'_, PyAny>>) -> Self {
        match timeout {
            None => Given::Omitted,
            Some(t) if t.is_none() => Given::Never,
            // Anything else is `timeout_default`, the marker of the Python side.
            Some(t) => t.extract::<f64>().map_or(Given::Omitted, Given::Seconds),
        }
    }
}

/// The calls of every message; [`super::calls`] are their methods.
impl SocketBase {
    /// Receives up to `bufsize` bytes; none at the end of a stream.
    pub(super) fn recv<'py>(
        slf: &Bound<'py, Self>,
        bufsize: isize,
        flags: i32,
    ) -> Result<*mut ffi::PyObject, Raised> {
        let py = slf.py();
        let Ok(size) = usize::try_from(bufsize) else {
            let error = PyValueError::new_err("negative buffersize in recv");
            return Err(raise(py, error));
        };
        let me = slf.get();
        if size == 0 {
            // As the standard library's sockets: not even a look at what is there.
            // SAFETY: the GIL is held.
            return Ok(unsafe { ffi::PyBytes_FromStringAndSize(std::ptr::null(), 0) });
        }
        if size <= SCRATCH && me.last_got.get() < DIRECT {
            let buffer = BUFFER.with(|b| b.get());
            let got = Self::until_done(slf, Direction::Read, flags, Given::Omitted, |fd| {
                // SAFETY: the thread's own buffer; nothing else uses it between this call and the copy
                // below, because neither switches.
                unsafe { libc::recv(fd, (*buffer).as_mut_ptr().cast(), size, flags) }
            })?;
            me.note_read(got, size, flags);
            me.last_got.set(got);
            // SAFETY: `got` bytes were just written.
            let bytes =
                unsafe { ffi::PyBytes_FromStringAndSize((*buffer).as_ptr().cast(), got as isize) };
            return if bytes.is_null() {
                Err(Raised)
            } else {
                Ok(bytes)
            };
        }
        // Wait before the memory is taken, where that is known to be needed.
        Self::await_known_empty(slf, flags)?;
        // SAFETY: a new bytes object that nobody else has; it is cut to what was written.
        unsafe {
            let bytes = ffi::PyBytes_FromStringAndSize(std::ptr::null(), size as isize);
            if bytes.is_null() {
                return Err(Raised);
            }
            let mut bytes = bytes;
            let at = ffi::PyBytes_AsString(bytes).cast::<u8>();
            let got = Self::until_done(slf, Direction::Read, flags, Given::Omitted, |fd| {
                receive(py, fd, at, size, flags)
            });
            match got {
                Ok(got) => {
                    me.note_read(got, size, flags);
                    me.last_got.set(got);
                    if _PyBytes_Resize(&raw mut bytes, got as isize) < 0 {
                        return Err(Raised);
                    }
                    Ok(bytes)
                }
                Err(e) => {
                    ffi::Py_DECREF(bytes);
                    Err(e)
                }
            }
        }
    }

    /// Receives into a writable buffer: `nbytes` bytes, or as many as it has. The buffer cannot be resized
    /// while this waits.
    pub(super) fn recv_into(
        slf: &Bound<'_, Self>,
        buffer: &Bound<'_, PyAny>,
        nbytes: isize,
        flags: i32,
    ) -> Result<usize, Raised> {
        let py = slf.py();
        let Ok(mut size) = usize::try_from(nbytes) else {
            let error = PyValueError::new_err("negative buffersize in recv_into");
            return Err(raise(py, error));
        };
        let view = WritableView::of(buffer).map_err(|e| raise(py, e))?;
        if size == 0 {
            size = view.len();
        }
        if size > view.len() {
            let error = PyValueError::new_err("buffer too small for requested bytes");
            return Err(raise(py, error));
        }
        let at = view.ptr();
        let me = slf.get();
        if size == 0 {
            return Ok(0);
        }
        let got = Self::until_done(slf, Direction::Read, flags, Given::Omitted, |fd| {
            // SAFETY: the exported buffer is writable for `size`, and stays in place.
            unsafe { receive(py, fd, at, size, flags) }
        })?;
        me.note_read(got, size, flags);
        Ok(got)
    }

    /// Sends some of `data`; returns how many bytes.
    pub(super) fn send(
        slf: &Bound<'_, Self>,
        data: &Bound<'_, PyAny>,
        flags: i32,
        timeout: Given,
    ) -> Result<usize, Raised> {
        let view = ReadableView::of(data).map_err(|e| raise(slf.py(), e))?;
        Self::send_some(slf, view.ptr(), view.len(), flags, timeout)
    }

    /// Sends all of `data`, within the socket's timeout.
    pub(super) fn sendall(
        slf: &Bound<'_, Self>,
        data: &Bound<'_, PyAny>,
        flags: i32,
    ) -> Result<(), Raised> {
        if !Self::sends_our_way(slf) {
            // A subclass sends in its own way.
            let name = pyo3::intern!(slf.py(), "_sendall_by_send");
            let done = slf.call_method1(name, (data, flags)).map(drop);
            return done.map_err(|e| raise(slf.py(), e));
        }
        let view = ReadableView::of(data).map_err(|e| raise(slf.py(), e))?;
        let (start, len) = (view.ptr(), view.len());
        let me = slf.get();
        let end = me.patience(&Given::Omitted).1;
        let mut sent = 0;
        while sent < len {
            let left = match end {
                None => Given::Omitted,
                // The limit is for the whole; the first send is tried even if it is over.
                Some(end) if sent == 0 => {
                    Given::Seconds(end.saturating_sub(monotonic()) as f64 / 1e9)
                }
                Some(end) => match end.checked_sub(monotonic()) {
                    Some(ns) if ns > 0 => Given::Seconds(ns as f64 / 1e9),
                    _ => return Err(timed_out()),
                },
            };
            // SAFETY: within the exported buffer.
            let at = unsafe { start.add(sent) };
            sent += Self::send_some(slf, at, len - sent, flags, left)?;
        }
        Ok(())
    }
}

#[crate::entry]
#[pymethods]
impl SocketBase {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(
        _args: &Bound<'_, pyo3::types::PyTuple>,
        _kwargs: Option<&Bound<'_, pyo3::types::PyDict>>,
    ) -> Self {
        SocketBase {
            sock: PyCellOpt::new(None),
            timeout: PyCellOpt::new(None),
            limit: GilCell::new(NEVER),
            fd: GilCell::new(-1),
            kind: GilCell::new(Kind::Other),
            last_got: GilCell::new(0),
            tls: PyCellOpt::new(None),
            tls_has_more: GilCell::new(true),
            place: PlaceCell(Place::default()),
        }
    }

    /// The standard library's socket, which owns the descriptor.
    #[getter(_sock)]
    fn get_sock(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.sock.get(py)
    }

    #[setter(_sock)]
    fn set_sock(&self, py: Python<'_>, sock: Option<Bound<'_, PyAny>>) -> PyResult<()> {
        let mut fd = -1;
        let mut kind = Kind::Other;
        if let Some(s) = &sock {
            fd = s.call_method0("fileno")?.extract()?;
            if fd >= 0 {
                let number = |name| s.getattr(name)?.extract::<i32>();
                kind = Kind::of(number("family")?, number("type")?, number("proto")?);
            }
        }
        self.place().release(py, self.sock.get(py), false);
        self.fd.set(fd);
        self.kind.set(kind);
        self.sock.set(sock.map(Bound::unbind));
        Ok(())
    }

    /// The object of `_ssl` that encrypts, or None.
    #[getter(_tls_object)]
    fn get_tls_object(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.tls.get(py)
    }

    #[setter(_tls_object)]
    fn set_tls_object(&self, object: Option<Bound<'_, PyAny>>) {
        self.tls_has_more.set(true);
        self.tls.set(object.map(Bound::unbind));
    }

    /// Seconds that a call may take; None for any, 0.0 for a non-blocking socket.
    #[getter(timeout)]
    fn get_timeout(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.timeout.get(py)
    }

    #[setter(timeout)]
    fn set_timeout(&self, value: Option<Bound<'_, PyAny>>) -> PyResult<()> {
        let limit = match &value {
            None => NEVER,
            Some(v) => limit_of(v.extract::<f64>()?),
        };
        self.limit.set(limit);
        self.timeout.set(value.map(Bound::unbind));
        Ok(())
    }

    /// Takes the descriptor off the loop, before it is closed or given away; who waits gets to know. Returns the
    /// loop if it is another thread's and has yet to do so.
    fn _release_source<'py>(&self, py: Python<'py>, closes: bool) -> Option<Bound<'py, Loop>> {
        let closes = closes && self.has_own_number(py);
        self.place().release(py, None, closes)
    }

    /// Raises the error of a closed socket where `direction` (1 read, 2 write) is waited for.
    fn _interrupt_wait(&self, direction: i32) {
        let direction = if direction == 1 {
            Direction::Read
        } else {
            Direction::Write
        };
        self.place().interrupt(direction);
    }

    /// Waits, after a call gave EAGAIN: 1 to be readable, 2 to be writable. By default as long as the
    /// socket's timeout allows.
    #[pyo3(signature = (direction, timeout = Given::Omitted))]
    fn _await(slf: &Bound<'_, Self>, direction: i32, timeout: Given) -> PyResult<()> {
        let (waits, deadline) = slf.get().patience(&timeout);
        if !waits {
            return Err(timed_out().into_error(slf.py()));
        }
        let direction = if direction == 1 {
            Direction::Read
        } else {
            Direction::Write
        };
        Self::wait(slf, direction, deadline).map_err(|raised| raised.into_error(slf.py()))
    }

    fn __traverse__(&self, visit: pyo3::PyVisit<'_>) -> Result<(), pyo3::PyTraverseError> {
        self.sock.traverse(&visit)?;
        self.timeout.traverse(&visit)?;
        self.tls.traverse(&visit)
    }

    /// Keeps the socket, which its end needs.
    fn __clear__(&self) {
        self.timeout.set(None);
        self.tls.set(None);
    }
}

impl Drop for SocketBase {
    fn drop(&mut self) {
        // SAFETY: objects are deallocated with the GIL held.
        let py = unsafe { Python::assume_attached() };
        if self.place().has_home() {
            let error = PyErr::take(py);
            let closes = self.has_own_number(py);
            self.place().release(py, self.sock.take(), closes);
            if let Some(error) = error {
                error.restore(py);
            }
        }
    }
}

/// A buffer that may be read.
pub(super) enum ReadableView<'a, 'py> {
    Bytes(&'a Bound<'py, PyBytes>),
    Other(Exported),
}

impl<'a, 'py> ReadableView<'a, 'py> {
    pub(super) fn of(data: &'a Bound<'py, PyAny>) -> PyResult<Self> {
        match data.cast::<PyBytes>() {
            Ok(bytes) => Ok(ReadableView::Bytes(bytes)),
            Err(_) => Exported::of(data, ffi::PyBUF_SIMPLE).map(ReadableView::Other),
        }
    }

    fn ptr(&self) -> *const u8 {
        match self {
            ReadableView::Bytes(b) => b.as_bytes().as_ptr(),
            ReadableView::Other(e) => e.0.buf.cast(),
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            ReadableView::Bytes(b) => b.as_bytes().len(),
            ReadableView::Other(e) => e.0.len as usize,
        }
    }
}

/// A buffer that may be written.
pub(super) struct WritableView(Exported);

impl WritableView {
    pub(super) fn of(data: &Bound<'_, PyAny>) -> PyResult<Self> {
        Exported::of(data, ffi::PyBUF_WRITABLE)
            .map(WritableView)
            .map_err(|e| {
                // As the standard library's sockets say it.
                if !e.is_instance_of::<pyo3::exceptions::PyBufferError>(data.py()) {
                    return e;
                }
                let kind = data.get_type();
                let name = kind
                    .name()
                    .map_or_else(|_| String::new(), |n| n.to_string());
                PyTypeError::new_err(format!(
                    "recv_into() argument 1 must be read-write bytes-like object, not {name}"
                ))
            })
    }

    fn ptr(&self) -> *mut u8 {
        self.0.0.buf.cast()
    }

    fn len(&self) -> usize {
        self.0.0.len as usize
    }
}

/// An exported buffer: the object cannot move or resize it until it is dropped.
pub(super) struct Exported(Box<ffi::Py_buffer>);

impl Exported {
    fn of(data: &Bound<'_, PyAny>, flags: i32) -> PyResult<Self> {
        let mut view = Box::new(ffi::Py_buffer::new());
        // SAFETY: room for the result; released on drop if it succeeded.
        if unsafe { ffi::PyObject_GetBuffer(data.as_ptr(), &raw mut *view, flags) } != 0 {
            return Err(PyErr::fetch(data.py()));
        }
        Ok(Exported(view))
    }
}

impl Drop for Exported {
    fn drop(&mut self) {
        // SAFETY: exported by `of`, with the GIL held as here.
        unsafe { ffi::PyBuffer_Release(&raw mut *self.0) };
    }
}
