//! Cells for values that are shared under the GIL.
//!
//! An object of ours may be entered again while one of its methods runs: any DECREF, comparison or call
//! can run Python. So nothing here hands out a reference into the cell; values are moved in and out, and
//! what was replaced is dropped after the cell holds the new value.

use pyo3::prelude::*;
use std::cell::{Cell, UnsafeCell};
use std::mem::MaybeUninit;

/// An optional Python object.
pub struct PyCellOpt(UnsafeCell<Option<Py<PyAny>>>);

// SAFETY: every access happens with the GIL held (callers have a `Python` token or run in a method of a
// Python object), which orders threads.
unsafe impl Sync for PyCellOpt {}

impl PyCellOpt {
    /// With this value.
    pub const fn new(value: Option<Py<PyAny>>) -> Self {
        PyCellOpt(UnsafeCell::new(value))
    }

    /// A new reference to the value.
    #[inline]
    pub fn get(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        // SAFETY: INCREF runs no code, so nothing can change the cell meanwhile.
        unsafe { (*self.0.get()).as_ref().map(|v| v.clone_ref(py)) }
    }

    /// Moves the value out.
    #[inline]
    pub fn take(&self) -> Option<Py<PyAny>> {
        // SAFETY: a move; no code runs.
        unsafe { (*self.0.get()).take() }
    }

    /// Replaces the value; the old one is dropped afterwards.
    #[inline]
    pub fn set(&self, value: Option<Py<PyAny>>) {
        // SAFETY: a move; the old value is dropped when the cell is whole again.
        let old = unsafe { std::mem::replace(&mut *self.0.get(), value) };
        drop(old);
    }

    /// Whether there is a value.
    #[inline]
    pub fn is_some(&self) -> bool {
        // SAFETY: a read.
        unsafe { (*self.0.get()).is_some() }
    }

    /// The address of the value, or null.
    #[inline]
    pub fn as_ptr(&self) -> *mut pyo3::ffi::PyObject {
        // SAFETY: a read.
        unsafe {
            (*self.0.get())
                .as_ref()
                .map_or(std::ptr::null_mut(), Py::as_ptr)
        }
    }

    /// For `__traverse__`.
    pub fn traverse(&self, visit: &pyo3::PyVisit<'_>) -> Result<(), pyo3::PyTraverseError> {
        // SAFETY: the collector runs no code that could change the cell.
        unsafe { visit.call((*self.0.get()).as_ref()) }
    }
}

/// A plain value that only threads with the GIL touch.
pub struct GilCell<T>(Cell<T>);

// SAFETY: as for `PyCellOpt`.
unsafe impl<T> Sync for GilCell<T> {}
// SAFETY: the values are plain data or pointers whose use is guarded by the GIL and an owner check.
unsafe impl<T> Send for GilCell<T> {}

impl<T: Copy> GilCell<T> {
    /// With this value.
    pub const fn new(value: T) -> Self {
        GilCell(Cell::new(value))
    }

    /// A copy.
    #[inline]
    pub fn get(&self) -> T {
        self.0.get()
    }

    /// Replaces it.
    #[inline]
    pub fn set(&self, value: T) {
        self.0.set(value);
    }
}

/// A field that is not there while the object's memory is all zeros: `object.__new__` may fail after the
/// allocation (on CPython 3.11 and 3.12, if there is no memory for the `__dict__`), and drops such an object.
pub struct Born<T> {
    born: bool,
    value: MaybeUninit<T>,
}

impl<T> Born<T> {
    /// With this value.
    pub const fn new(value: T) -> Self {
        Born {
            born: true,
            value: MaybeUninit::new(value),
        }
    }
}

impl<T> std::ops::Deref for Born<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        debug_assert!(self.born);
        // SAFETY: `new` wrote it; without that the object is dropped before anybody has it.
        unsafe { self.value.assume_init_ref() }
    }
}

impl<T> Drop for Born<T> {
    fn drop(&mut self) {
        if self.born {
            // SAFETY: `new` wrote it, and it is dropped once.
            unsafe { self.value.assume_init_drop() };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::rc::Rc;

    #[test]
    fn a_field_is_dropped_once_and_zeros_are_none() {
        let value = Rc::new(1);
        drop(Born::new(value.clone()));
        assert_eq!(Rc::strong_count(&value), 1);
        // SAFETY: all zeros are a `Born` without a value.
        drop(unsafe { std::mem::zeroed::<Born<Rc<i32>>>() });
    }
}
