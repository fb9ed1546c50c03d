//! [`Piece`]: the bytes of a piece of a body, as an application gives them; and how long a whole body is.

use super::exchange::Raised;
use super::text::bytes_of;
use pyo3::ffi::{self, PyObject};

type Obj = *mut PyObject;

/// The bytes of a piece of a body: bytes, or anything with a buffer. The view is released by
/// [`Piece::drop`].
pub struct Piece {
    view: ffi::Py_buffer,
    /// Plain bytes need no view.
    plain: Option<(*const u8, usize)>,
}

impl Piece {
    /// # Safety
    /// The GIL is held; `obj` is held by the caller for as long as the piece.
    pub unsafe fn of(obj: Obj) -> Raised<Self> {
        // SAFETY: the caller's promise.
        unsafe {
            let mut piece = Piece {
                view: std::mem::zeroed(),
                plain: None,
            };
            if ffi::PyBytes_Check(obj) != 0 {
                let data = ffi::PyBytes_AS_STRING(obj).cast();
                piece.plain = Some((data, ffi::PyBytes_Size(obj) as usize));
                return Ok(piece);
            }
            if ffi::PyUnicode_Check(obj) != 0 && bytes_of(obj).is_some_and(<[u8]>::is_empty) {
                // Empty text flushes the head; upstream's handlers did that.
                piece.plain = Some((std::ptr::NonNull::dangling().as_ptr(), 0));
                return Ok(piece);
            }
            if ffi::PyObject_GetBuffer(obj, &raw mut piece.view, ffi::PyBUF_SIMPLE) < 0 {
                piece.plain = Some((std::ptr::NonNull::dangling().as_ptr(), 0));
                return Err(());
            }
            Ok(piece)
        }
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        let (data, length) = match self.plain {
            Some(plain) => plain,
            None => (self.view.buf.cast_const().cast(), self.view.len as usize),
        };
        if length == 0 {
            return &[];
        }
        // SAFETY: the object's memory, which the object (or the view of it) keeps.
        unsafe { std::slice::from_raw_parts(data, length) }
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        if self.plain.is_none() {
            // SAFETY: a view that was got; the GIL is held where pieces are.
            unsafe { ffi::PyBuffer_Release(&raw mut self.view) };
        }
    }
}

/// The length of a body that is a list or the like: as upstream, the sum of its pieces' lengths.
///
/// # Safety
/// The GIL is held; `result` is alive or null.
pub unsafe fn known_length(result: Obj) -> Raised<Option<u64>> {
    if result.is_null() {
        return Ok(None);
    }
    // SAFETY: an object that the caller holds; the GIL is held.
    unsafe {
        if ffi::PyList_CheckExact(result) != 0 || ffi::PyTuple_CheckExact(result) != 0 {
            let mut total = 0;
            let mut plain = true;
            let n = ffi::PySequence_Size(result);
            for i in 0..n {
                let item = if ffi::PyList_CheckExact(result) != 0 {
                    ffi::PyList_GET_ITEM(result, i)
                } else {
                    ffi::PyTuple_GET_ITEM(result, i)
                };
                if ffi::PyBytes_CheckExact(item) == 0 {
                    plain = false;
                    break;
                }
                total += ffi::PyBytes_Size(item) as u64;
            }
            if plain {
                return Ok(Some(total));
            }
        }
        if !has_len(result) {
            return Ok(None);
        }
        let iterator = ffi::PyObject_GetIter(result);
        if iterator.is_null() {
            return Err(());
        }
        let mut total = 0;
        loop {
            let item = ffi::PyIter_Next(iterator);
            if item.is_null() {
                break;
            }
            let length = ffi::PyObject_Size(item);
            ffi::Py_DECREF(item);
            if length < 0 {
                break;
            }
            total += length as u64;
        }
        ffi::Py_DECREF(iterator);
        if ffi::PyErr_Occurred().is_null() {
            Ok(Some(total))
        } else {
            Err(())
        }
    }
}

/// # Safety
/// The GIL is held; `result` is alive.
unsafe fn has_len(result: Obj) -> bool {
    // SAFETY: the type of an object that is alive; the GIL is held.
    unsafe {
        if ffi::PyGen_CheckExact(result) != 0 {
            return false;
        }
        let ty = ffi::Py_TYPE(result);
        let sequence = (*ty).tp_as_sequence;
        let mapping = (*ty).tp_as_mapping;
        (!sequence.is_null() && (*sequence).sq_length.is_some())
            || (!mapping.is_null() && (*mapping).mp_length.is_some())
            || ffi::PyObject_HasAttrString(result, c"__len__".as_ptr()) != 0
    }
}
