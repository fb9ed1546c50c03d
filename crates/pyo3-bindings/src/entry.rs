//! What comes of a panic in a function that the interpreter calls: `#[entry]` puts each such body into
//! [`caught`] or [`silent`].
//!
//! No panic crosses a frame of C. It becomes RuntimeError, or MemoryError where an allocation of the
//! interpreter's failed ([`out_of_memory`]); where no error can be raised, as in `tp_dealloc`, it is an unraisable
//! one; the collector (`tp_traverse`) is told nothing. The way of a panic allocates nothing of the interpreter's, and
//! the hook nothing at all.

use pyo3::ffi;
use pyo3::prelude::*;
use std::any::Any;
use std::cell::Cell;
use std::fmt::Write;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::ptr::null_mut;

/// The longest text of a panic that is kept.
const LONGEST: usize = 300;

thread_local! {
    /// What the thread's last panic said, with a zero after it.
    static SAID: Cell<[u8; LONGEST]> = const { Cell::new([0; LONGEST]) };
}

/// The payload of [`out_of_memory`].
struct NoMemory;

/// What pyo3 says where the interpreter made no object.
const NULL_OBJECT: [&str; 2] = ["PyObject pointer is null", "Python API call failed"];

/// Leaves for the entry, which raises MemoryError: for a function that has no way to fail.
///
/// # Panics
/// That is what it does, in silence.
#[cold]
pub fn out_of_memory() -> ! {
    std::panic::panic_any(NoMemory)
}

/// What an entry returns.
pub trait Outcome {
    /// A panic was caught: says so to the interpreter.
    fn failed(panic: &(dyn Any + Send)) -> Self;
}

impl<T> Outcome for *mut T {
    fn failed(panic: &(dyn Any + Send)) -> Self {
        raise(panic);
        null_mut()
    }
}

impl Outcome for std::ffi::c_int {
    fn failed(panic: &(dyn Any + Send)) -> Self {
        raise(panic);
        -1
    }
}

impl Outcome for ffi::Py_ssize_t {
    fn failed(panic: &(dyn Any + Send)) -> Self {
        raise(panic);
        -1
    }
}

impl Outcome for () {
    fn failed(panic: &(dyn Any + Send)) {
        // SAFETY: an entry is called with the GIL; the errors are ours.
        unsafe {
            let pending = crate::tstate::take_raised();
            raise(panic);
            ffi::PyErr_WriteUnraisable(null_mut());
            if !pending.is_null() {
                crate::tstate::set_raised(pending);
            }
        }
    }
}

impl<T> Outcome for PyResult<T> {
    fn failed(panic: &(dyn Any + Send)) -> Self {
        raise(panic);
        // SAFETY: an entry is called with the GIL.
        Err(PyErr::fetch(unsafe { Python::assume_attached() }))
    }
}

/// Runs the body of an entry.
#[inline(always)]
pub fn caught<T: Outcome>(body: impl FnOnce() -> T) -> T {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(value) => value,
        Err(panic) => failed(panic),
    }
}

/// Runs the body of an entry that must not raise: `tp_traverse` and what the collector asks besides.
#[inline(always)]
pub fn silent(body: impl FnOnce() -> std::ffi::c_int) -> std::ffi::c_int {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(value) => value,
        Err(panic) => {
            std::mem::forget(panic);
            0
        }
    }
}

#[cold]
#[inline(never)]
fn failed<T: Outcome>(panic: Box<dyn Any + Send>) -> T {
    let outcome = T::failed(&*panic);
    // A payload whose end panics must not leave either.
    if let Err(worse) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
        std::mem::forget(worse);
    }
    outcome
}

/// What a payload says, if it is a text.
fn text_of(panic: &(dyn Any + Send)) -> Option<&str> {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
}

fn is_memory(panic: &(dyn Any + Send)) -> bool {
    panic.is::<NoMemory>() || text_of(panic).is_some_and(|said| NULL_OBJECT.contains(&said))
}

/// Sets the error that a panic is to the caller. With the GIL, which every entry is called with.
pub fn raise(panic: &(dyn Any + Send)) {
    // SAFETY: the GIL is held: whatever released it has taken it again while the panic came by.
    unsafe {
        if is_memory(panic) {
            ffi::PyErr_SetNone(ffi::PyExc_MemoryError);
        } else {
            let said = SAID.get();
            ffi::PyErr_SetString(ffi::PyExc_RuntimeError, said.as_ptr().cast());
        }
    }
}

/// A piece of memory to format into: what does not fit is cut.
struct Buffer {
    bytes: [u8; LONGEST],
    len: usize,
}

impl Write for Buffer {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        // The last byte stays zero.
        let room = LONGEST - 1 - self.len;
        let mut n = text.len().min(room);
        while !text.is_char_boundary(n) {
            n -= 1;
        }
        self.bytes[self.len..self.len + n].copy_from_slice(&text.as_bytes()[..n]);
        self.len += n;
        Ok(())
    }
}

/// Keeps what a panic says for its error, and writes it, since a caller may drop the error.
fn hook(info: &PanicHookInfo<'_>) {
    if info.payload().is::<NoMemory>() {
        return;
    }
    let said = text_of(info.payload()).unwrap_or("a panic");
    if NULL_OBJECT.contains(&said) {
        return;
    }
    let mut buffer = Buffer {
        bytes: [0; LONGEST],
        len: 0,
    };
    let _ = match info.location() {
        Some(at) => write!(buffer, "gevent panicked at {at}: {said}"),
        None => write!(buffer, "gevent panicked: {said}"),
    };
    // PyErr_SetString ends at a zero, and wants nothing else of a text.
    let _ = SAID.try_with(|kept| kept.set(buffer.bytes));
    for part in [&buffer.bytes[..buffer.len], b"\n"] {
        // SAFETY: bytes that live while they are written. It is no matter if nobody reads them.
        unsafe { libc::write(2, part.as_ptr().cast(), part.len()) };
    }
}

/// Installs the hook: for the panics of this module, since each module has a standard library of its own.
pub fn install() {
    std::panic::set_hook(Box::new(hook));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::{c_int, c_void};

    /// Runs `f` attached to an interpreter and gives what its error says.
    fn error_of(f: impl FnOnce()) -> String {
        Python::initialize();
        Python::attach(|py| {
            f();
            PyErr::take(py).map_or_else(String::new, |e| e.to_string())
        })
    }

    #[test]
    fn a_panic_is_a_runtime_error() {
        install();
        let said = error_of(|| {
            assert!(caught::<*mut c_void>(|| panic!("no {}", "number")).is_null());
        });
        assert!(
            said.starts_with("RuntimeError: gevent panicked at "),
            "{said}"
        );
        assert!(said.ends_with(": no number"), "{said}");
        let said = error_of(|| assert_eq!(caught::<c_int>(|| panic!("{}", "x".repeat(1000))), -1));
        assert!(said.ends_with("xxx") && said.len() < 400, "{said}");
    }

    #[test]
    fn no_memory_is_a_memory_error() {
        for run in [|| out_of_memory(), || panic!("PyObject pointer is null")] as [fn(); 2] {
            let said = error_of(|| {
                assert_eq!(
                    caught::<ffi::Py_ssize_t>(|| {
                        run();
                        0
                    }),
                    -1
                );
            });
            assert_eq!(said, "MemoryError: ");
        }
        let said = error_of(|| {
            // SAFETY: `error_of` is attached.
            let py = unsafe { Python::assume_attached() };
            if let Err(e) = caught::<PyResult<()>>(|| out_of_memory()) {
                e.restore(py);
            }
        });
        assert_eq!(said, "MemoryError: ");
    }

    #[test]
    fn what_cannot_raise_keeps_the_pending_error() {
        let set = || {
            // SAFETY: `error_of` is attached.
            unsafe { ffi::PyErr_SetString(ffi::PyExc_ValueError, c"pending".as_ptr()) };
        };
        let said = error_of(|| {
            set();
            caught::<()>(|| panic!("in a destructor"));
        });
        assert_eq!(said, "ValueError: pending");
        let said = error_of(|| {
            set();
            assert_eq!(silent(|| panic!("in a traversal")), 0);
        });
        assert_eq!(said, "ValueError: pending");
    }
}
