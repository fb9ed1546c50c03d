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

#[crate::entry]
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

/// The standard library's files of bytes: for these what reading gives is what the descriptor has. A subclass, a
/// decompressor or anything else that has a `fileno` may give other bytes.
const STRAIGHT: [&str; 3] = ["BufferedReader", "FileIO", "BufferedRandom"];

/// The file that reads from a descriptor as it is, if `file` is one or a temporary file around one.
fn straight<'py>(file: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    let py = file.py();
    let io = py.import("_io")?;
    let is_one = |file: &Bound<'_, PyAny>, names: &[&str]| -> PyResult<bool> {
        for name in names {
            if file.get_type().is(io.getattr(*name)?) {
                return Ok(true);
            }
        }
        Ok(false)
    };
    let mut file = file.clone();
    if !is_one(&file, &STRAIGHT)? {
        let temporary = file.get_type().qualname()? == "_TemporaryFileWrapper"
            && file.get_type().module()? == "tempfile";
        if !temporary {
            return Ok(None);
        }
        file = file.getattr("file")?;
    }
    let buffered = is_one(&file, &["BufferedReader", "BufferedRandom"])?;
    let raw = match buffered {
        true => file.getattr("raw")?,
        false => file.clone(),
    };
    Ok(is_one(&raw, &["FileIO"])?.then_some(file))
}

/// The descriptor, the position and the bytes from there on of a regular file.
fn regular(file: &Bound<'_, PyAny>) -> PyResult<Option<(i32, u64, u64)>> {
    let Some(file) = straight(file)? else {
        return Ok(None);
    };
    // What was written and is not yet in the file.
    file.call_method0("flush")?;
    let fd: i32 = file.call_method0("fileno")?.extract()?;
    // SAFETY: plain numbers, for which zeros are valid.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: `stat` outlives the call.
    let rc = unsafe { libc::fstat(fd, &mut stat) };
    // Of no size are also files that are made while they are read, as in /proc.
    if rc < 0 || stat.st_mode & libc::S_IFMT != libc::S_IFREG || stat.st_size == 0 {
        return Ok(None);
    }
    // What the object has read ahead counts: its position is what it says.
    let position: u64 = file.call_method0("tell")?.extract()?;
    let count = (stat.st_size as u64).saturating_sub(position);
    Ok(Some((fd, position, count)))
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
            if bound.get().touched.get() || !Exchange::takes_files(me) {
                return Ok(None);
            }
            let file = bound.get().filelike.bind(py).clone();
            // What is wrong with it comes again when it is read.
            let Ok(Some((fd, position, count))) = regular(&file) else {
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
