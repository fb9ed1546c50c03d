//! The arguments of a fast call: taken from the C API, and sorted to the names of a function's parameters.

use super::is_name;
use pyo3::ffi::{self, PyObject};
use std::ffi::CStr;
use std::ptr::null_mut;

/// What a [`FastKw`](super::FastKw) function gets besides its object: the array, how many are positional, the names of the
/// others.
pub type Passed = (*const *mut PyObject, ffi::Py_ssize_t, *mut PyObject);

/// Defines `$function`, a [`FastKw`](super::FastKw), by `$run`: an unsafe function such as [`parsed`], which gets the object,
/// what was [`Passed`], the name and parameters for its messages, and `$body`.
///
/// `$body` stands in an unsafe block: while it runs the GIL is held, and the object and the arguments are held
/// by the caller. `slf` is of the type in whose table the function stands, or the class of a class method.
macro_rules! method {
    ($run:ident: $function:ident, $name:literal, [$($parameter:literal),*], $body:expr) => {
        #[crate::entry]
        pub(crate) unsafe extern "C" fn $function(
            slf: *mut ::pyo3::ffi::PyObject,
            items: *const *mut ::pyo3::ffi::PyObject,
            n: ::pyo3::ffi::Py_ssize_t,
            names: *mut ::pyo3::ffi::PyObject,
        ) -> *mut ::pyo3::ffi::PyObject {
            // SAFETY: as the descriptor calls it, after it has checked the type.
            unsafe { $run(slf, (items, n, names), $name, [$($parameter),*], $body) }
        }
    };
}

pub(crate) use method;

/// Runs `body` with the arguments in the order of `parameters`, each borrowed or null.
///
/// # Safety
/// The GIL is held, and what was passed is as the C API passes it.
#[inline(always)]
pub unsafe fn parsed<const N: usize>(
    slf: *mut PyObject,
    (items, n, names): Passed,
    func: &CStr,
    parameters: [&CStr; N],
    body: impl FnOnce(*mut PyObject, [*mut PyObject; N]) -> *mut PyObject,
) -> *mut PyObject {
    // SAFETY: the caller's promise.
    match unsafe { Args::new(items, n, names).parse(func, parameters) } {
        Ok(args) => body(slf, args),
        Err(()) => null_mut(),
    }
}

/// As [`parsed`], where the first argument must not be left out.
///
/// # Safety
/// As `parsed`.
#[inline(always)]
pub unsafe fn parsed_first<const N: usize>(
    slf: *mut PyObject,
    (items, n, names): Passed,
    func: &CStr,
    parameters: [&CStr; N],
    body: impl FnOnce(*mut PyObject, [*mut PyObject; N]) -> *mut PyObject,
) -> *mut PyObject {
    // SAFETY: the caller's promise.
    match unsafe { Args::new(items, n, names).parse_first(func, parameters) } {
        Ok(args) => body(slf, args),
        Err(()) => null_mut(),
    }
}

/// The arguments of a fast call.
#[derive(Clone, Copy)]
pub struct Args {
    items: *const *mut PyObject,
    n: usize,
    names: *mut PyObject,
}

impl Args {
    /// Wraps what a [`FastKw`](super::FastKw) function gets.
    ///
    /// # Safety
    /// The pointers are as the C API passes them, and outlive the value.
    pub unsafe fn new(
        items: *const *mut PyObject,
        n: ffi::Py_ssize_t,
        names: *mut PyObject,
    ) -> Self {
        Args {
            items,
            n: n as usize,
            names,
        }
    }

    /// How many positional ones.
    pub fn len(&self) -> usize {
        self.n
    }

    /// Whether there is no positional one.
    pub fn is_empty(&self) -> bool {
        self.n == 0
    }

    /// A positional one; borrowed.
    pub fn at(&self, i: usize) -> *mut PyObject {
        debug_assert!(i < self.n);
        // SAFETY: within the array.
        unsafe { *self.items.add(i) }
    }

    /// How many keywords.
    pub fn keywords(&self) -> usize {
        if self.names.is_null() {
            0
        } else {
            // SAFETY: not null, hence a tuple.
            unsafe { ffi::PyTuple_GET_SIZE(self.names) as usize }
        }
    }

    /// A keyword's name and value; borrowed.
    pub fn keyword(&self, i: usize) -> (*mut PyObject, *mut PyObject) {
        // SAFETY: within the tuple; values follow the positional arguments.
        unsafe {
            (
                ffi::PyTuple_GET_ITEM(self.names, i as isize),
                *self.items.add(self.n + i),
            )
        }
    }

    /// The positional ones from `from` on, as a new tuple; null with an error set.
    ///
    /// # Safety
    /// The GIL is held.
    pub unsafe fn tuple_from(&self, from: usize) -> *mut PyObject {
        // SAFETY: items are borrowed; the tuple gets its own references.
        unsafe {
            let n = self.n.saturating_sub(from);
            let t = ffi::PyTuple_New(n as isize);
            if t.is_null() {
                return t;
            }
            for i in 0..n {
                let item = *self.items.add(from + i);
                ffi::Py_INCREF(item);
                ffi::PyTuple_SET_ITEM(t, i as isize, item);
            }
            t
        }
    }

    /// The keywords as a new dictionary, without the one named `skip`; null for none. `Err` with an
    /// error set.
    ///
    /// # Safety
    /// The GIL is held.
    pub unsafe fn dict(&self, skip: Option<&CStr>) -> Result<*mut PyObject, ()> {
        if self.keywords() == 0 {
            return Ok(null_mut());
        }
        // SAFETY: borrowed names and values go into a new dictionary.
        unsafe {
            let d = ffi::PyDict_New();
            if d.is_null() {
                return Err(());
            }
            for i in 0..self.keywords() {
                let (name, value) = self.keyword(i);
                if skip.is_some_and(|s| is_name(name, s)) {
                    continue;
                }
                if ffi::PyDict_SetItem(d, name, value) < 0 {
                    ffi::Py_DECREF(d);
                    return Err(());
                }
            }
            Ok(d)
        }
    }

    /// Sorts arguments to `names`: each is given by position or name, or left null. `Err` with a
    /// TypeError for `func` set.
    ///
    /// # Safety
    /// The GIL is held.
    #[inline(always)]
    pub unsafe fn parse<const N: usize>(
        &self,
        func: &CStr,
        names: [&CStr; N],
    ) -> Result<[*mut PyObject; N], ()> {
        if self.names.is_null() && self.n <= N {
            return Ok(std::array::from_fn(|i| {
                if i < self.n { self.at(i) } else { null_mut() }
            }));
        }
        // SAFETY: the caller's promise.
        unsafe { self.parse_named(func, names) }
    }

    /// As [`parse`](Self::parse), where the first argument must not be left out.
    ///
    /// # Safety
    /// The GIL is held.
    #[inline]
    pub unsafe fn parse_first<const N: usize>(
        &self,
        func: &CStr,
        names: [&CStr; N],
    ) -> Result<[*mut PyObject; N], ()> {
        // SAFETY: the caller's promise.
        unsafe {
            let args = self.parse(func, names)?;
            required(args[0], func, names[0])?;
            Ok(args)
        }
    }

    /// # Safety
    /// The GIL is held.
    #[cold]
    unsafe fn parse_named<const N: usize>(
        &self,
        func: &CStr,
        names: [&CStr; N],
    ) -> Result<[*mut PyObject; N], ()> {
        let mut out = [null_mut(); N];
        // SAFETY: errors are set with the GIL held.
        unsafe {
            if self.n > N {
                ffi::PyErr_Format(
                    ffi::PyExc_TypeError,
                    c"%s() takes at most %zd arguments (%zd given)".as_ptr(),
                    func.as_ptr(),
                    N as isize,
                    self.n as isize,
                );
                return Err(());
            }
            for (i, slot) in out.iter_mut().enumerate().take(self.n) {
                *slot = self.at(i);
            }
            for k in 0..self.keywords() {
                let (name, value) = self.keyword(k);
                let Some(i) = names.iter().position(|n| is_name(name, n)) else {
                    ffi::PyErr_Format(
                        ffi::PyExc_TypeError,
                        c"%s() got an unexpected keyword argument '%U'".as_ptr(),
                        func.as_ptr(),
                        name,
                    );
                    return Err(());
                };
                if !out[i].is_null() {
                    ffi::PyErr_Format(
                        ffi::PyExc_TypeError,
                        c"%s() got multiple values for argument '%U'".as_ptr(),
                        func.as_ptr(),
                        name,
                    );
                    return Err(());
                }
                out[i] = value;
            }
        }
        Ok(out)
    }
}

/// `Err` with a TypeError set if an argument of [`Args::parse`] that must be there was left out.
///
/// # Safety
/// The GIL is held.
#[inline]
pub unsafe fn required(arg: *mut PyObject, func: &CStr, name: &CStr) -> Result<(), ()> {
    if !arg.is_null() {
        return Ok(());
    }
    let text = c"%s() missing 1 required positional argument: '%s'";
    // SAFETY: the caller's promise.
    unsafe {
        ffi::PyErr_Format(
            ffi::PyExc_TypeError,
            text.as_ptr(),
            func.as_ptr(),
            name.as_ptr(),
        )
    };
    Err(())
}
