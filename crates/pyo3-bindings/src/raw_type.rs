//! [`NewType`]: heap types whose slots are written against the C API.

use pyo3::ffi::{
    self, PyGetSetDef, PyMemberDef, PyMethodDef, PyObject, PyType_Slot, PyType_Spec, PyTypeObject,
};
use pyo3::prelude::*;
use std::ffi::{CStr, c_int, c_void};
use std::ptr::{self, null_mut};

/// A type that is to be made.
pub struct NewType {
    name: &'static CStr,
    size: usize,
    base: *mut PyTypeObject,
    methods: Vec<PyMethodDef>,
    attributes: Vec<PyGetSetDef>,
    slots: Vec<PyType_Slot>,
}

unsafe extern "C" {
    /// Has `__enter__` and `__exit__` of a new type bound at less cost. -1 with an error set.
    fn gv_quicken(ty: *mut PyTypeObject) -> c_int;
}

fn leak<T>(items: Vec<T>) -> *mut T {
    Box::leak(items.into_boxed_slice()).as_mut_ptr()
}

impl NewType {
    /// A type below `object` whose instances are `T`; its name is with the module.
    pub fn of<T>(name: &'static CStr) -> Self {
        NewType {
            name,
            size: size_of::<T>(),
            base: &raw mut ffi::PyBaseObject_Type,
            methods: Vec::new(),
            attributes: Vec::new(),
            slots: Vec::new(),
        }
    }

    /// With this docstring.
    #[must_use]
    pub fn about(self, text: &'static CStr) -> Self {
        self.slot(ffi::Py_tp_doc, text.as_ptr().cast_mut().cast())
    }

    /// Below this type, whose instances the first bytes of a `T` can be.
    #[must_use]
    pub fn below(mut self, base: *mut PyTypeObject) -> Self {
        self.base = base;
        self
    }

    /// With these methods.
    #[must_use]
    pub fn methods(mut self, methods: Vec<PyMethodDef>) -> Self {
        self.methods = methods;
        self
    }

    /// With these attributes.
    #[must_use]
    pub fn attributes(mut self, attributes: Vec<PyGetSetDef>) -> Self {
        self.attributes = attributes;
        self
    }

    /// With a slot; `pfunc` has the signature that it asks for.
    #[must_use]
    pub fn slot(mut self, slot: c_int, pfunc: *mut c_void) -> Self {
        self.slots.push(PyType_Slot { slot, pfunc });
        self
    }

    /// `tp_new`.
    #[must_use]
    pub fn new_by(self, f: ffi::newfunc) -> Self {
        self.slot(ffi::Py_tp_new, f as *mut c_void)
    }

    /// `tp_init`.
    #[must_use]
    pub fn init_by(self, f: ffi::initproc) -> Self {
        self.slot(ffi::Py_tp_init, f as *mut c_void)
    }

    /// How instances end: `tp_dealloc`, `tp_traverse` and `tp_clear`.
    #[must_use]
    pub fn ended_by(
        self,
        dealloc: ffi::destructor,
        traverse: ffi::traverseproc,
        clear: ffi::inquiry,
    ) -> Self {
        self.slot(ffi::Py_tp_dealloc, dealloc as *mut c_void)
            .slot(ffi::Py_tp_traverse, traverse as *mut c_void)
            .slot(ffi::Py_tp_clear, clear as *mut c_void)
    }

    /// `tp_call`.
    #[must_use]
    pub fn call_by(self, f: ffi::ternaryfunc) -> Self {
        self.slot(ffi::Py_tp_call, f as *mut c_void)
    }

    /// `tp_str`.
    #[must_use]
    pub fn str_by(self, f: ffi::reprfunc) -> Self {
        self.slot(ffi::Py_tp_str, f as *mut c_void)
    }

    /// `tp_repr`.
    #[must_use]
    pub fn repr_by(self, f: ffi::reprfunc) -> Self {
        self.slot(ffi::Py_tp_repr, f as *mut c_void)
    }

    /// Weak references to instances are possible: at this offset they have a field for the list of them.
    #[must_use]
    pub fn weak(self, offset: usize) -> Self {
        self.offsets(&[(c"__weaklistoffset__", offset)])
    }

    /// Where instances have what the interpreter looks for by these names.
    #[must_use]
    pub fn offsets(self, offsets: &[(&'static CStr, usize)]) -> Self {
        let member = |name, type_code, offset: usize, flags| PyMemberDef {
            name,
            type_code,
            offset: offset as ffi::Py_ssize_t,
            flags,
            doc: ptr::null(),
        };
        let mut table: Vec<_> = offsets
            .iter()
            .map(|(name, at)| member(name.as_ptr(), ffi::Py_T_PYSSIZET, *at, ffi::Py_READONLY))
            .collect();
        table.push(member(ptr::null(), 0, 0, 0));
        self.slot(ffi::Py_tp_members, leak(table).cast())
    }

    /// Makes the type, which lives for ever.
    ///
    /// # Errors
    /// Of the C API.
    ///
    /// # Safety
    /// The GIL is held; what was said of the base, the slots and the tables is true.
    pub unsafe fn make(mut self, py: Python<'_>) -> PyResult<*mut PyTypeObject> {
        crate::signature::sign(&mut self.methods, "$self");
        self.methods.push(PyMethodDef::zeroed());
        self.attributes.push(PyGetSetDef {
            name: ptr::null(),
            get: None,
            set: None,
            doc: ptr::null(),
            closure: null_mut(),
        });
        let NewType {
            name,
            size,
            base,
            methods,
            attributes,
            ..
        } = self;
        let mut slots = self.slots;
        for (slot, pfunc) in [
            (ffi::Py_tp_methods, leak(methods).cast()),
            (ffi::Py_tp_getset, leak(attributes).cast()),
            (0, null_mut()),
        ] {
            slots.push(PyType_Slot { slot, pfunc });
        }
        let spec = Box::leak(Box::new(PyType_Spec {
            name: name.as_ptr(),
            basicsize: c_int::try_from(size).expect("a small object"),
            itemsize: 0,
            flags: (ffi::Py_TPFLAGS_DEFAULT | ffi::Py_TPFLAGS_BASETYPE | ffi::Py_TPFLAGS_HAVE_GC)
                as _,
            slots: leak(slots),
        }));
        // SAFETY: the tables live for ever; the base is a ready type that begins the object.
        unsafe {
            let bases = ffi::PyTuple_Pack(1, base);
            let ty = ffi::PyType_FromSpecWithBases(spec, bases);
            ffi::Py_XDECREF(bases);
            if ty.is_null() || gv_quicken(ty.cast()) < 0 {
                return Err(PyErr::fetch(py));
            }
            Ok(ty.cast())
        }
    }

    /// Makes the type and adds it to the module under the last part of its name, or under another one.
    ///
    /// # Errors
    /// Of the C API.
    ///
    /// # Safety
    /// As [`make`](Self::make).
    pub unsafe fn add(
        self,
        m: &Bound<'_, PyModule>,
        name: Option<&str>,
    ) -> PyResult<*mut PyTypeObject> {
        let full = self.name.to_string_lossy();
        let short = full.rsplit('.').next().unwrap_or(&full);
        // SAFETY: the caller's promise; the type lives for ever.
        unsafe {
            let ty = self.make(m.py())?;
            m.add(
                name.unwrap_or(short),
                Bound::from_borrowed_ptr(m.py(), ty.cast()),
            )?;
            Ok(ty)
        }
    }
}

/// For a `tp_init` without arguments: 0, or -1 with a TypeError of `text` set.
///
/// # Safety
/// The slot's contract.
pub unsafe fn takes_nothing(args: *mut PyObject, kwargs: *mut PyObject, text: &CStr) -> c_int {
    // SAFETY: the caller's promise.
    unsafe {
        if ffi::PyTuple_GET_SIZE(args) == 0 && (kwargs.is_null() || ffi::PyDict_Size(kwargs) == 0) {
            return 0;
        }
        ffi::PyErr_SetString(ffi::PyExc_TypeError, text.as_ptr());
        -1
    }
}
