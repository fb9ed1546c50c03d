//! Files on loops that read and write them by themselves, which is what io_uring is for.
//!
//! A read first asks for what is in memory (`calls`): that takes a microsecond and no switch. Only what the
//! disk has to be waited for becomes an operation of the loop (`work`), and all that greenlets ask for
//! between two polls goes to the kernel in one call. On other loops, and where nothing can wait, the calls
//! block as they do in any program.

mod calls;
mod work;

use crate::errors::{io_error, os_error};
use crate::tstate::without_gil;
use calls::Tried;
use gevent_hub_core::event_loop::Op;
use pyo3::exceptions::{PyMemoryError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use std::ffi::CString;
use std::os::fd::RawFd;
use std::ptr;
use work::{Held, Performed, perform};

/// Copies up to this many bytes are made with the GIL held.
const GIL_HELD_UP_TO: usize = 64 << 10;

/// What readall makes room for when the file does not know its size.
const UNKNOWN_SIZE: usize = 8 << 10;

unsafe extern "C" {
    /// Cuts a new bytes object to size; exported by every CPython, and absent from pyo3's list.
    fn _PyBytes_Resize(bytes: *mut *mut ffi::PyObject, size: isize) -> i32;
}

/// Memory to read into.
struct Room {
    at: *mut u8,
    len: usize,
}

impl Room {
    fn from(&self, done: usize) -> (*mut u8, usize) {
        // SAFETY: within the memory.
        (unsafe { self.at.add(done) }, self.len - done)
    }
}

/// Repeats a call that blocks until no signal interrupts it.
fn block(py: Python<'_>, call: impl Fn() -> isize + Send + Sync) -> PyResult<usize> {
    loop {
        match without_gil(py, || calls::blocking(&call)) {
            Ok(n) => return Ok(n),
            Err(libc::EINTR) => py.check_signals()?,
            Err(errno) => return Err(os_error(errno)),
        }
    }
}

fn read_cached(py: Python<'_>, fd: RawFd, (at, len): (*mut u8, usize), offset: i64) -> Tried {
    if len <= GIL_HELD_UP_TO {
        // SAFETY: the caller's memory, of an object that it holds.
        return unsafe { calls::read_cached(fd, at, len, offset) };
    }
    let at = at as usize;
    // SAFETY: as above, also while the GIL is away.
    without_gil(py, move || unsafe {
        calls::read_cached(fd, at as *mut u8, len, offset)
    })
}

/// Reads into `room`, which `hold` keeps: of a regular file as much as there is, of anything else what comes
/// first. Returns how much that was.
fn fill(
    py: Python<'_>,
    fd: RawFd,
    room: &Room,
    offset: i64,
    hold: impl Fn() -> PyResult<Held>,
) -> PyResult<usize> {
    let mut got = 0;
    let mut whole = None;
    let native = work::native_hub().is_some();
    loop {
        let (at, len) = room.from(got);
        if len == 0 {
            return Ok(got);
        }
        let place = if offset < 0 {
            offset
        } else {
            offset + got as i64
        };
        let tried = if native {
            read_cached(py, fd, (at, len), place)
        } else {
            Tried::Waits
        };
        let n = match tried {
            Tried::Done(n) => n,
            Tried::Interrupted => {
                py.check_signals()?;
                continue;
            }
            Tried::Failed(_) if got > 0 => return Ok(got),
            Tried::Failed(errno) => return Err(os_error(errno)),
            Tried::Waits => {
                let op = Op::Read {
                    fd,
                    buf: at,
                    len,
                    offset: place,
                };
                match perform(py, op, hold()?)? {
                    Performed::Over(Ok(n)) => n as usize,
                    Performed::Over(Err(_)) if got > 0 => return Ok(got),
                    Performed::Over(Err(e)) => return Err(io_error(&e)),
                    Performed::Blocking(_held) => {
                        let at = at as usize;
                        // SAFETY: memory that is held.
                        block(py, move || unsafe {
                            let at = at as *mut libc::c_void;
                            if place < 0 {
                                libc::read(fd, at, len)
                            } else {
                                libc::pread(fd, at, len, place)
                            }
                        })?
                    }
                }
            }
        };
        got += n;
        if n == 0 || !*whole.get_or_insert_with(|| calls::is_regular(fd)) {
            return Ok(got);
        }
    }
}

/// A new bytes object whose memory is not set, and that nobody else has; or memory has run out.
fn new_bytes(py: Python<'_>, len: usize) -> PyResult<*mut ffi::PyObject> {
    let Ok(len) = isize::try_from(len) else {
        return Err(PyMemoryError::new_err(()));
    };
    // SAFETY: the GIL is held.
    let bytes = unsafe { ffi::PyBytes_FromStringAndSize(ptr::null(), len) };
    if bytes.is_null() {
        Err(PyErr::fetch(py))
    } else {
        Ok(bytes)
    }
}

/// Makes `bytes` an object of `len` bytes, where the first `len` of it were set or it is to grow.
fn resize(
    py: Python<'_>,
    mut bytes: *mut ffi::PyObject,
    len: usize,
) -> PyResult<*mut ffi::PyObject> {
    // SAFETY: ours alone; it is released and null if that fails.
    if unsafe { _PyBytes_Resize(&mut bytes, len as isize) } != 0 {
        return Err(PyErr::fetch(py));
    }
    Ok(bytes)
}

/// Reads into `bytes` from `done` on. On an error it is released.
fn fill_bytes(
    py: Python<'_>,
    fd: RawFd,
    bytes: *mut ffi::PyObject,
    done: usize,
    offset: i64,
) -> PyResult<usize> {
    // SAFETY: a bytes object, ours alone but for the operation, which keeps a reference while it has the memory.
    let (room, hold) = unsafe {
        let at = ffi::PyBytes_AsString(bytes).cast::<u8>().add(done);
        let len = ffi::PyBytes_Size(bytes) as usize - done;
        (Room { at, len }, || Ok(Held::Object(ffi::Py_NewRef(bytes))))
    };
    let read = fill(py, fd, &room, offset, hold);
    if read.is_err() {
        // SAFETY: our reference.
        unsafe { ffi::Py_DECREF(bytes) };
    }
    read
}

fn finished<'py>(
    py: Python<'py>,
    bytes: *mut ffi::PyObject,
    len: usize,
) -> PyResult<Bound<'py, PyBytes>> {
    let bytes = resize(py, bytes, len)?;
    // SAFETY: an owned reference to a bytes object.
    Ok(unsafe { Bound::from_owned_ptr(py, bytes).cast_into_unchecked() })
}

/// Whether the loop of the running greenlet reads and writes files by itself. False in the hub, which cannot
/// wait.
#[pyfunction]
fn files_are_native() -> bool {
    work::native_hub().is_some()
}

/// Reads up to `size` bytes at `offset`, or at the file's position, which moves. Less only at the end of a
/// regular file.
#[crate::entry]
#[pyfunction]
#[pyo3(signature = (fd, size, offset = -1))]
fn file_read<'py>(
    py: Python<'py>,
    fd: RawFd,
    size: isize,
    offset: i64,
) -> PyResult<Bound<'py, PyBytes>> {
    let Ok(size) = usize::try_from(size) else {
        return Err(os_error(libc::EINVAL));
    };
    let bytes = new_bytes(py, size)?;
    let got = fill_bytes(py, fd, bytes, 0, offset)?;
    finished(py, bytes, got)
}

/// Reads from the file's position to its end.
#[crate::entry]
#[pyfunction]
fn file_read_all<'py>(py: Python<'py>, fd: RawFd) -> PyResult<Bound<'py, PyBytes>> {
    let (_, size) = calls::kind_and_size(fd).map_err(|e| io_error(&e))?;
    // SAFETY: a plain call; what has no position begins at its beginning.
    let position = unsafe { libc::lseek(fd, 0, libc::SEEK_CUR) }.max(0);
    // One more, so that the end shows without another object.
    let mut room = match usize::try_from(size - position) {
        Ok(known) if known > 0 => known + 1,
        _ => UNKNOWN_SIZE,
    };
    let (mut bytes, mut got) = (new_bytes(py, room)?, 0);
    loop {
        let n = fill_bytes(py, fd, bytes, got, -1)?;
        got += n;
        if n == 0 {
            return finished(py, bytes, got);
        }
        if got == room {
            room += room.max(UNKNOWN_SIZE);
            bytes = resize(py, bytes, room)?;
        }
    }
}

/// An exported buffer; `writable` or not.
fn export(
    py: Python<'_>,
    object: &Bound<'_, PyAny>,
    writable: bool,
) -> PyResult<Box<ffi::Py_buffer>> {
    let flags = if writable {
        ffi::PyBUF_WRITABLE
    } else {
        ffi::PyBUF_SIMPLE
    };
    let mut buffer = Box::new(ffi::Py_buffer::new());
    // SAFETY: filled by the call, or an error is set.
    if unsafe { ffi::PyObject_GetBuffer(object.as_ptr(), &mut *buffer, flags) } != 0 {
        return Err(PyErr::fetch(py));
    }
    Ok(buffer)
}

/// Reads into a buffer; returns how much. Less than it holds only at the end of a regular file.
#[crate::entry]
#[pyfunction]
#[pyo3(signature = (fd, buffer, offset = -1))]
fn file_read_into(
    py: Python<'_>,
    fd: RawFd,
    buffer: &Bound<'_, PyAny>,
    offset: i64,
) -> PyResult<usize> {
    let view = export(py, buffer, true)?;
    let (at, len) = (view.buf, view.len as usize);
    let own = Held::Buffer(view);
    let room = Room { at: at.cast(), len };
    // An operation gets an export of its own: it may outlive this call.
    let got = fill(py, fd, &room, offset, || {
        let again = export(py, buffer, true)?;
        if again.buf == at && again.len as usize == len {
            return Ok(Held::Buffer(again));
        }
        drop(Held::Buffer(again));
        Err(PyValueError::new_err(
            "the buffer is another at each export",
        ))
    });
    drop(own);
    got
}

/// Writes at `offset`, or at the file's position, which moves; returns how much was written.
#[crate::entry]
#[pyfunction]
#[pyo3(signature = (fd, data, offset = -1))]
fn file_write(py: Python<'_>, fd: RawFd, data: &Bound<'_, PyAny>, offset: i64) -> PyResult<usize> {
    let view = export(py, data, false)?;
    let (buf, len) = (view.buf.cast::<u8>().cast_const(), view.len as usize);
    let op = Op::Write {
        fd,
        buf,
        len,
        offset,
    };
    match perform(py, op, Held::Buffer(view))? {
        Performed::Over(result) => result.map(|n| n as usize).map_err(|e| io_error(&e)),
        Performed::Blocking(_held) => {
            let at = buf as usize;
            // SAFETY: an exported buffer, which is held.
            block(py, move || unsafe {
                let at = at as *const libc::c_void;
                if offset < 0 {
                    libc::write(fd, at, len)
                } else {
                    libc::pwrite(fd, at, len, offset)
                }
            })
        }
    }
}

/// Brings a file's data to the disk, and unless `data_only` all that is known about it.
#[crate::entry]
#[pyfunction]
#[pyo3(signature = (fd, data_only = false))]
fn file_sync(py: Python<'_>, fd: RawFd, data_only: bool) -> PyResult<()> {
    match perform(py, Op::Fsync { fd, data_only }, Held::Nothing)? {
        Performed::Over(result) => result.map(drop).map_err(|e| io_error(&e)),
        Performed::Blocking(_) => block(py, move || {
            // SAFETY: plain calls.
            let failed = unsafe {
                if data_only {
                    libc::fdatasync(fd)
                } else {
                    libc::fsync(fd)
                }
            };
            failed as isize
        })
        .map(drop),
    }
}

/// Opens `path`, in bytes of the file system; returns the descriptor, close-on-exec.
#[crate::entry]
#[pyfunction]
#[pyo3(signature = (path, flags, mode = 0o666))]
fn file_open(py: Python<'_>, path: &[u8], flags: i32, mode: u32) -> PyResult<RawFd> {
    let path = CString::new(path).map_err(|_| PyValueError::new_err("embedded null byte"))?;
    let flags = flags | libc::O_CLOEXEC;
    let makes = libc::O_CREAT | libc::O_TRUNC | libc::O_TMPFILE & !libc::O_DIRECTORY;
    let quick = flags & makes == 0 && calls::is_cached_file(&path, flags);
    let held = if quick || work::native_hub().is_none() {
        Held::Path(path)
    } else {
        let op = Op::OpenAt {
            dir: libc::AT_FDCWD,
            path: path.as_ptr(),
            flags,
            mode,
        };
        match perform(py, op, Held::Path(path))? {
            Performed::Over(result) => {
                return result.map(|fd| fd as RawFd).map_err(|e| io_error(&e));
            }
            Performed::Blocking(held) => held,
        }
    };
    let Held::Path(path) = &held else {
        unreachable!("given as one")
    };
    block(py, || {
        // SAFETY: a terminated path that outlives the call.
        unsafe { libc::open(path.as_ptr(), flags, mode) as isize }
    })
    .map(|fd| fd as RawFd)
}

/// Whether a descriptor is that of a regular file.
#[crate::entry]
#[pyfunction]
fn file_is_regular(fd: RawFd) -> PyResult<bool> {
    let (kind, _) = calls::kind_and_size(fd).map_err(|e| io_error(&e))?;
    Ok(kind == libc::S_IFREG)
}

/// Adds the functions.
pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(files_are_native, m)?)?;
    m.add_function(wrap_pyfunction!(file_read, m)?)?;
    m.add_function(wrap_pyfunction!(file_read_all, m)?)?;
    m.add_function(wrap_pyfunction!(file_read_into, m)?)?;
    m.add_function(wrap_pyfunction!(file_write, m)?)?;
    m.add_function(wrap_pyfunction!(file_sync, m)?)?;
    m.add_function(wrap_pyfunction!(file_is_regular, m)?)?;
    m.add_function(wrap_pyfunction!(file_open, m)?)
}
