/* Binds `__enter__` and `__exit__`, which up to CPython 3.13 each `with` looks up and binds anew. Making and
 * freeing the two bound methods costs more than taking a free lock, so those that end are kept for the
 * next. What a program sees are subclasses of CPython's own two types, of the same names. */
#define PY_SSIZE_T_CLEAN
#ifndef NDEBUG
#define NDEBUG 1
#endif
#include <Python.h>

#ifdef Py_GIL_DISABLED

int gv_quicken(PyTypeObject *ty) {
    (void)ty;
    return 0;
}

#else

enum { MOST = 64, KEYWORDS = METH_FASTCALL | METH_KEYWORDS };

typedef PyObject *(*with_keywords)(PyObject *, PyObject *const *, Py_ssize_t, PyObject *);

/* Chained by `m_self`; not tracked by the collector. The GIL guards them. */
static PyCFunctionObject *kept;
static int count;
/* CPython's, for calls with arguments that a method does not take. */
static vectorcallfunc strict;

static PyObject *call_without(PyObject *f, PyObject *const *args, size_t n, PyObject *names) {
    PyCFunctionObject *m = (PyCFunctionObject *)f;
    if (PyVectorcall_NARGS(n) != 0 || names != NULL) {
        return strict(f, args, n, names);
    }
    return m->m_ml->ml_meth(m->m_self, NULL);
}

static PyObject *call_with(PyObject *f, PyObject *const *args, size_t n, PyObject *names) {
    PyCFunctionObject *m = (PyCFunctionObject *)f;
    with_keywords method = (with_keywords)(void (*)(void))m->m_ml->ml_meth;
    return method(m->m_self, args, PyVectorcall_NARGS(n), names);
}

static void end(PyObject *op) {
    PyCFunctionObject *m = (PyCFunctionObject *)op;
    PyObject *self = m->m_self;
    /* Only where nothing else ends with it: what may nest is CPython's, with its trashcan. */
    if (count < MOST && m->m_weakreflist == NULL && m->m_module == NULL && Py_REFCNT(self) > 1) {
        PyObject_GC_UnTrack(op);
        m->m_self = (PyObject *)kept;
        kept = m;
        count++;
        Py_DECREF(self);
        return;
    }
    Py_SET_TYPE(op, &PyCFunction_Type);
    PyCFunction_Type.tp_dealloc(op);
}

static PyTypeObject bound_type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "builtin_function_or_method",
    .tp_basicsize = sizeof(PyCFunctionObject),
    .tp_base = &PyCFunction_Type,
    .tp_dealloc = end,
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
};

static PyObject *bind_first(PyObject *descriptor, PyObject *obj, PyObject *type) {
    PyObject *op = PyMethodDescr_Type.tp_descr_get(descriptor, obj, type);
    if (op != NULL && Py_IS_TYPE(op, &PyCFunction_Type)) {
        PyCFunctionObject *m = (PyCFunctionObject *)op;
        if (m->m_ml->ml_flags == METH_NOARGS) {
            strict = m->vectorcall;
            m->vectorcall = call_without;
        } else {
            m->vectorcall = call_with;
        }
        Py_SET_TYPE(op, &bound_type);
    }
    return op;
}

static PyObject *bind(PyObject *descriptor, PyObject *obj, PyObject *type) {
    PyMethodDescrObject *d = (PyMethodDescrObject *)descriptor;
    PyTypeObject *home = d->d_common.d_type;
    PyCFunctionObject *m = kept;
    int is_new = d->d_method->ml_flags == METH_NOARGS && strict == NULL;
    if (m == NULL || obj == NULL || is_new ||
        !(Py_IS_TYPE(obj, home) || Py_TYPE(obj)->tp_base == home || PyObject_TypeCheck(obj, home))) {
        return bind_first(descriptor, obj, type);
    }
    kept = (PyCFunctionObject *)m->m_self;
    count--;
    _Py_NewReference((PyObject *)m);
    m->m_ml = d->d_method;
    Py_INCREF(obj);
    m->m_self = obj;
    m->vectorcall = d->d_method->ml_flags == METH_NOARGS ? call_without : call_with;
    PyObject_GC_Track(m);
    return (PyObject *)m;
}

static PyTypeObject descriptor_type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "method_descriptor",
    .tp_basicsize = sizeof(PyMethodDescrObject),
    .tp_base = &PyMethodDescr_Type,
    .tp_descr_get = bind,
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_METHOD_DESCRIPTOR | Py_TPFLAGS_DISALLOW_INSTANTIATION,
};

/* Has the two methods of a type bound so, if it has them. -1 with an error set. */
int gv_quicken(PyTypeObject *ty) {
    static const char *const names[] = {"__enter__", "__exit__"};
    if (PyType_Ready(&bound_type) < 0 || PyType_Ready(&descriptor_type) < 0) {
        return -1;
    }
    for (int i = 0; i < 2; i++) {
        PyObject *found = PyDict_GetItemString(ty->tp_dict, names[i]);
        if (found != NULL && Py_IS_TYPE(found, &PyMethodDescr_Type)) {
            int flags = ((PyMethodDescrObject *)found)->d_method->ml_flags;
            if (flags == METH_NOARGS || flags == KEYWORDS) {
                Py_SET_TYPE(found, &descriptor_type);
            }
        }
    }
    return 0;
}

#endif
