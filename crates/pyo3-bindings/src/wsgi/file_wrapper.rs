//! `wsgi.file_wrapper`: a file that is sent by the kernel where it can.

use super::exchange::{Exchange, Raised};
use crate::cells::GilCell;
use pyo3::ffi::{self, PyObject};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;
use std::ptr::null_mut;

static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();

/// The class: a new reference, or null before it is made.
pub fn class_ptr() -> *mut PyObject {
    // SAFETY: called with the GIL held.
    let py = unsafe { Python::assume_attached() };
    CLASS
        .get(py)
        .map_or(null_mut(), |class| class.clone_ref(py).into_ptr())
}

/// FileWrapper(filelike, block_size=8192)
///
/// An iterable over the blocks of a file, from where it stands. Returned by an application as it is, a
/// regular file is sent without being read.
#[pyclass(frozen, module = "gevent._core")]
pub struct FileWrapper {
    #[pyo3(get)]
    filelike: Py<PyAny>,
    #[pyo3(get)]
    block_size: usize,
    touched: GilCell<bool>,
}

#[pymethods]
impl FileWrapper {
    #[new]
    #[pyo3(signature = (filelike, block_size=8192))]
    fn new(filelike: Py<PyAny>, block_size: usize) -> Self {
        FileWrapper {
            filelike,
            block_size,
            touched: GilCell::new(false),
        }
    }

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.touched.set(true);
        let data = self
            .filelike
            .bind(py)
            .call_method1("read", (self.block_size,))?;
        Ok(data.is_truthy()?.then_some(data))
    }

    /// Close the file, if it can be closed.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        match self.filelike.bind(py).getattr_opt("close")? {
            Some(close) => close.call0().map(drop),
            None => Ok(()),
        }
    }
}

/// The descriptor, the position and the bytes from there on of a regular file.
fn regular(file: &Bound<'_, PyAny>) -> Option<(i32, u64, u64)> {
    let fd: i32 = file.call_method0("fileno").ok()?.extract().ok()?;
    // SAFETY: plain numbers, for which zeros are valid.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: `stat` outlives the call.
    if unsafe { libc::fstat(fd, &mut stat) } < 0 || stat.st_mode & libc::S_IFMT != libc::S_IFREG {
        return None;
    }
    // What the object has read ahead counts: its position is what it says.
    let position: u64 = file.call_method0("tell").ok()?.extract().ok()?;
    // A file opened as text, or with a codec, has other bytes than its descriptor.
    let is_text = file.hasattr("encoding").unwrap_or(true);
    (!is_text).then(|| (fd, position, (stat.st_size as u64).saturating_sub(position)))
}

impl FileWrapper {
    /// Sends a result that is a wrapper around a regular file. `None`: it is to be iterated over.
    ///
    /// # Safety
    /// The GIL is held, and both by the caller. Waits.
    pub unsafe fn send(me: *mut Exchange, result: *mut PyObject) -> Raised<Option<bool>> {
        // SAFETY: the caller's promise.
        unsafe {
            let py = Python::assume_attached();
            let Some(class) = CLASS.get(py) else {
                return Ok(None);
            };
            if ffi::Py_TYPE(result).cast::<PyObject>() != class.as_ptr() {
                return Ok(None);
            }
            let bound = Bound::from_borrowed_ptr(py, result).cast_into_unchecked::<FileWrapper>();
            if bound.get().touched.get() || Exchange::is_encrypted(me) {
                return Ok(None);
            }
            let file = bound.get().filelike.bind(py).clone();
            let Some((fd, position, count)) = regular(&file) else {
                return Ok(None);
            };
            Exchange::send_file(me, fd, position, count).map(Some)
        }
    }
}

/// Adds the class.
pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<FileWrapper>()?;
    let class = m.py().get_type::<FileWrapper>();
    let _ = CLASS.set(m.py(), class.unbind());
    Ok(())
}
