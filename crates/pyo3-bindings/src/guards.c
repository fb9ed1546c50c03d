/* The calls by which Rust gets to Python code, each with a frame that a thread does not leave alive once the
 * interpreter has ended: outlive.c says why. The linker puts these in the place of the functions (--wrap), for
 * this crate and for pyo3 alike, so that no call can be forgotten; build.rs takes the names from here. Only
 * for glibc and CPython before 3.14: elsewhere nothing unwinds such a thread's frames.
 *
 * Here is whatever may run Python code: calls, attributes and other protocols, the end of objects, the
 * collector that an allocation of a collected object may start (before 3.12), the making of an error, and
 * taking the GIL. What the module imports besides stands in unguarded.toml with the reason why it runs none;
 * tools/c_api.py compares both with the module after each build.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdarg.h>
#include "guard.h"

#define GIVES(type, name, parameters, arguments) \
    type __real_##name parameters;               \
    type __wrap_##name parameters                \
    {                                            \
        type result;                             \
        GUARDED(result = __real_##name arguments); \
        return result;                           \
    }

#define GIVES_NOTHING(name, parameters, arguments) \
    void __real_##name parameters;                 \
    void __wrap_##name parameters                  \
    {                                              \
        GUARDED(__real_##name arguments);          \
    }

typedef PyObject *Obj;

#if PY_VERSION_HEX < 0x030B0000
/* No symbol there, but inline in the headers. */
#define __real_PyObject_Vectorcall PyObject_Vectorcall
#endif

/* Calls. */
GIVES(Obj, PyObject_Call, (Obj f, Obj args, Obj kwargs), (f, args, kwargs))
GIVES(Obj, PyObject_CallNoArgs, (Obj f), (f))
GIVES(Obj, PyObject_CallObject, (Obj f, Obj args), (f, args))
#if PY_VERSION_HEX >= 0x030b0000
GIVES(Obj, PyObject_CallOneArg, (Obj f, Obj item), (f, item))
GIVES(Obj, PyObject_Vectorcall, (Obj f, Obj const *args, size_t n, Obj names), (f, args, n, names))
#else
/* No function of the library, but inline everywhere: this is for those who call it by this name. */
Obj __wrap_PyObject_Vectorcall(Obj f, Obj const *args, size_t n, Obj names)
{
    Obj result;
    GUARDED(result = PyObject_Vectorcall(f, args, n, names));
    return result;
}
#endif
GIVES(Obj, PyObject_VectorcallDict, (Obj f, Obj const *args, size_t n, Obj dict), (f, args, n, dict))
GIVES(Obj, PyObject_VectorcallMethod, (Obj name, Obj const *args, size_t n, Obj names),
      (name, args, n, names))
GIVES(Obj, _PyObject_MakeTpCall,
      (PyThreadState *ts, Obj f, Obj const *args, Py_ssize_t n, Obj names), (ts, f, args, n, names))
GIVES(Obj, PyVectorcall_Call, (Obj f, Obj args, Obj kwargs), (f, args, kwargs))
GIVES(Obj, PyImport_Import, (Obj name), (name))
GIVES(Obj, PyImport_ImportModule, (const char *name), (name))
GIVES(int, PyErr_CheckSignals, (void), ())
GIVES(Obj, PyImport_GetModule, (Obj name), (name))
GIVES(Obj, _Py_CheckFunctionResult, (PyThreadState *ts, Obj f, Obj given, const char *where),
      (ts, f, given, where))
GIVES(int, Py_EnterRecursiveCall, (const char *where), (where))

/* Attributes and items. */
GIVES(Obj, PyObject_GetAttr, (Obj o, Obj name), (o, name))
GIVES(Obj, PyObject_GetAttrString, (Obj o, const char *name), (o, name))
GIVES(Obj, PyObject_GenericGetAttr, (Obj o, Obj name), (o, name))
GIVES(int, PyObject_HasAttr, (Obj o, Obj name), (o, name))
GIVES(int, PyObject_HasAttrString, (Obj o, const char *name), (o, name))
GIVES(int, PyObject_SetAttr, (Obj o, Obj name, Obj value), (o, name, value))
GIVES(int, PyObject_SetAttrString, (Obj o, const char *name, Obj value), (o, name, value))
GIVES(Obj, PyObject_GetItem, (Obj o, Obj key), (o, key))
GIVES(int, PyObject_SetItem, (Obj o, Obj key, Obj value), (o, key, value))
GIVES(int, PyObject_DelItem, (Obj o, Obj key), (o, key))
GIVES(Obj, PyDict_GetItemWithError, (Obj dict, Obj key), (dict, key))
GIVES(int, PyDict_Contains, (Obj dict, Obj key), (dict, key))
GIVES(int, PyDict_SetItem, (Obj dict, Obj key, Obj value), (dict, key, value))
GIVES(int, PyDict_DelItem, (Obj dict, Obj key), (dict, key))
GIVES(Obj, PyDict_GetItemString, (Obj dict, const char *key), (dict, key))
GIVES(int, PyDict_SetItemString, (Obj dict, const char *key, Obj value), (dict, key, value))
GIVES(int, PyDict_DelItemString, (Obj dict, const char *key), (dict, key))
#if PY_VERSION_HEX >= 0x030d0000
GIVES(int, PyDict_GetItemRef, (Obj dict, Obj key, Obj *value), (dict, key, value))
GIVES(int, PyObject_GetOptionalAttr, (Obj o, Obj name, Obj *value), (o, name, value))
GIVES(Obj, PyType_GetModuleName, (PyTypeObject *type), (type))
#endif
GIVES(Obj, PyDict_Copy, (Obj dict), (dict))
GIVES(Obj, PySys_GetObject, (const char *name), (name))
GIVES(Obj, _PyType_Lookup, (PyTypeObject *type, Obj name), (type, name))
GIVES(Obj, PyObject_GenericGetDict, (Obj o, void *closure), (o, closure))
GIVES(int, PyObject_GenericSetDict, (Obj o, Obj dict, void *closure), (o, dict, closure))
GIVES(int, PySet_Add, (Obj set, Obj key), (set, key))
GIVES(int, PySet_Discard, (Obj set, Obj key), (set, key))

/* Other protocols. */
GIVES(Obj, PyObject_GetIter, (Obj o), (o))
GIVES(Obj, PyIter_Next, (Obj o), (o))
GIVES(Obj, PySequence_List, (Obj o), (o))
GIVES(Obj, PySequence_Tuple, (Obj o), (o))
GIVES(Obj, PySequence_Fast, (Obj o, const char *text), (o, text))
GIVES(Obj, PySequence_GetItem, (Obj o, Py_ssize_t i), (o, i))
GIVES(Obj, PySequence_GetSlice, (Obj o, Py_ssize_t from, Py_ssize_t to), (o, from, to))
GIVES(Py_ssize_t, PySequence_Size, (Obj o), (o))
GIVES(Py_ssize_t, PyObject_Size, (Obj o), (o))
GIVES(int, PyObject_IsTrue, (Obj o), (o))
GIVES(Obj, PyObject_Repr, (Obj o), (o))
GIVES(Obj, PyObject_Str, (Obj o), (o))
GIVES(Obj, PyObject_RichCompare, (Obj a, Obj b, int op), (a, b, op))
GIVES(int, PyObject_RichCompareBool, (Obj a, Obj b, int op), (a, b, op))
GIVES(Obj, PyNumber_Index, (Obj o), (o))
GIVES(Obj, PyNumber_Long, (Obj o), (o))
GIVES(Py_ssize_t, PyNumber_AsSsize_t, (Obj o, Obj error), (o, error))
GIVES(long, PyLong_AsLong, (Obj o), (o))
GIVES(long, PyLong_AsLongAndOverflow, (Obj o, int *overflow), (o, overflow))
GIVES(size_t, PyLong_AsSize_t, (Obj o), (o))
GIVES(Py_ssize_t, PyLong_AsSsize_t, (Obj o), (o))
GIVES(unsigned long long, PyLong_AsUnsignedLongLong, (Obj o), (o))
GIVES(double, PyFloat_AsDouble, (Obj o), (o))
GIVES(Obj, PyOS_FSPath, (Obj o), (o))
GIVES(Obj, PyUnicode_AsEncodedString, (Obj o, const char *coding, const char *errors), (o, coding, errors))
GIVES(Obj, PyUnicode_AsLatin1String, (Obj o), (o))
GIVES(const char *, PyUnicode_AsUTF8AndSize, (Obj o, Py_ssize_t *size), (o, size))
GIVES(Obj, PyUnicode_EncodeFSDefault, (Obj o), (o))
GIVES(int, Py_ReprEnter, (Obj o), (o))
GIVES_NOTHING(Py_ReprLeave, (Obj o), (o))
GIVES(Obj, PyMemoryView_FromObject, (Obj o), (o))
GIVES(int, PyObject_GetBuffer, (Obj o, Py_buffer *view, int flags), (o, view, flags))
GIVES_NOTHING(PyBuffer_Release, (Py_buffer *view), (view))

/* Errors: made, printed, dropped with all that their frames hold. */
GIVES_NOTHING(PyErr_SetObject, (Obj type, Obj value), (type, value))
GIVES_NOTHING(PyErr_SetNone, (Obj type), (type))
GIVES_NOTHING(PyErr_SetString, (Obj type, const char *text), (type, text))
GIVES(Obj, PyErr_NoMemory, (void), ())
GIVES(int, PyErr_BadArgument, (void), ())
GIVES(Obj, PyErr_NewException, (const char *name, Obj base, Obj dict), (name, base, dict))
GIVES(Obj, PyErr_NewExceptionWithDoc, (const char *name, const char *text, Obj base, Obj dict),
      (name, text, base, dict))
#if PY_VERSION_HEX >= 0x030b0000
GIVES_NOTHING(PyErr_SetHandledException, (Obj e), (e))
#endif
#if PY_VERSION_HEX >= 0x030c0000
GIVES_NOTHING(PyErr_SetRaisedException, (Obj e), (e))
GIVES_NOTHING(PyErr_DisplayException, (Obj e), (e))
#endif
GIVES_NOTHING(PyErr_NormalizeException, (Obj *type, Obj *value, Obj *traceback), (type, value, traceback))
GIVES_NOTHING(PyErr_Restore, (Obj type, Obj value, Obj traceback), (type, value, traceback))
GIVES_NOTHING(PyErr_Clear, (void), ())
GIVES_NOTHING(PyErr_WriteUnraisable, (Obj context), (context))
GIVES_NOTHING(PyErr_Display, (Obj type, Obj value, Obj traceback), (type, value, traceback))
GIVES_NOTHING(PyErr_PrintEx, (int keep), (keep))
GIVES_NOTHING(PyException_SetCause, (Obj e, Obj cause), (e, cause))
GIVES(int, PyException_SetTraceback, (Obj e, Obj traceback), (e, traceback))
GIVES(int, PyTraceBack_Print, (Obj traceback, Obj file), (traceback, file))
GIVES(int, PyFile_WriteObject, (Obj o, Obj file, int flags), (o, file, flags))
GIVES(int, PyFile_WriteString, (const char *text, Obj file), (text, file))

/* The end of objects and of what holds them, and beginnings that may start the collector. */
GIVES_NOTHING(_Py_Dealloc, (Obj o), (o))
#if PY_VERSION_HEX >= 0x030d0000
GIVES_NOTHING(_PyTrash_thread_destroy_chain, (PyThreadState *ts), (ts))
#endif
GIVES_NOTHING(PyObject_ClearWeakRefs, (Obj o), (o))
GIVES_NOTHING(PyDict_Clear, (Obj dict), (dict))
GIVES(int, PyList_SetSlice, (Obj list, Py_ssize_t from, Py_ssize_t to, Obj items), (list, from, to, items))
GIVES(Obj, PyType_GenericAlloc, (PyTypeObject *type, Py_ssize_t n), (type, n))
GIVES(Obj, PyTuple_New, (Py_ssize_t n), (n))
GIVES(Obj, PyList_New, (Py_ssize_t n), (n))
GIVES(Obj, PyDict_New, (void), ())
GIVES(Obj, PyTuple_GetSlice, (Obj tuple, Py_ssize_t from, Py_ssize_t to), (tuple, from, to))
GIVES(Obj, PyWeakref_NewRef, (Obj o, Obj callback), (o, callback))
GIVES(Obj, PyCapsule_New, (void *p, const char *name, PyCapsule_Destructor end), (p, name, end))
GIVES(Obj, PyCMethod_New, (PyMethodDef *def, Obj self, Obj module, PyTypeObject *class),
      (def, self, module, class))
GIVES(Obj, PyDescr_NewMethod, (PyTypeObject *type, PyMethodDef *def), (type, def))
GIVES(Obj, PyType_FromSpec, (PyType_Spec *spec), (spec))
GIVES(Obj, PyType_FromSpecWithBases, (PyType_Spec *spec, Obj bases), (spec, bases))
GIVES(int, PyType_Ready, (PyTypeObject *type), (type))
GIVES_NOTHING(PyType_Modified, (PyTypeObject *type), (type))
GIVES(Obj, PyModule_New, (const char *name), (name))
GIVES(int, PyModule_AddFunctions, (Obj module, PyMethodDef *defs), (module, defs))
GIVES(Obj, PyModule_GetNameObject, (Obj module), (module))
GIVES(Obj, PyContext_New, (void), ())
GIVES(int, PyContext_Enter, (Obj context), (context))
GIVES(int, PyContext_Exit, (Obj context), (context))
GIVES(Obj, PyThreadState_GetDict, (void), ())
GIVES(PyFrameObject *, PyThreadState_GetFrame, (PyThreadState *ts), (ts))

/* The GIL. */
GIVES_NOTHING(PyEval_RestoreThread, (PyThreadState *ts), (ts))
GIVES(PyGILState_STATE, PyGILState_Ensure, (void), ())
GIVES_NOTHING(PyGILState_Release, (PyGILState_STATE state), (state))

/* The variadic ones. */
Obj __wrap_PyTuple_Pack(Py_ssize_t n, ...)
{
    Obj tuple = __wrap_PyTuple_New(n);
    if (tuple == NULL) {
        return NULL;
    }
    va_list items;
    va_start(items, n);
    for (Py_ssize_t i = 0; i < n; i++) {
        Obj item = va_arg(items, Obj);
        Py_INCREF(item);
        PyTuple_SET_ITEM(tuple, i, item);
    }
    va_end(items);
    return tuple;
}

Obj __wrap_PyErr_Format(Obj type, const char *format, ...)
{
    va_list rest;
    va_start(rest, format);
    GUARDED(PyErr_FormatV(type, format, rest));
    va_end(rest);
    return NULL;
}

Obj __wrap_Py_BuildValue(const char *format, ...)
{
    Obj result;
    va_list rest;
    va_start(rest, format);
    GUARDED(result = Py_VaBuildValue(format, rest));
    va_end(rest);
    return result;
}

int __wrap_PyArg_ParseTuple(Obj args, const char *format, ...)
{
    int result;
    va_list rest;
    va_start(rest, format);
    GUARDED(result = PyArg_VaParse(args, format, rest));
    va_end(rest);
    return result;
}

int __wrap_PyArg_ParseTupleAndKeywords(Obj args, Obj kwargs, const char *format, char **names, ...)
{
    int result;
    va_list rest;
    va_start(rest, names);
    GUARDED(result = PyArg_VaParseTupleAndKeywords(args, kwargs, format, names, rest));
    va_end(rest);
    return result;
}

/* The most arguments that the next two functions are called with, the object of a method too. */
#define MOST 8

/* Fills `items` up to the NULL that ends `rest`; gives how many there are. */
static size_t collect(Obj *items, size_t n, va_list rest)
{
    Obj item;
    while ((item = va_arg(rest, Obj)) != NULL) {
        if (n == MOST) {
            Py_FatalError("too many arguments");
        }
        items[n++] = item;
    }
    return n;
}

Obj __wrap_PyObject_CallFunctionObjArgs(Obj f, ...)
{
    Obj items[1 + MOST];
    va_list rest;
    va_start(rest, f);
    size_t n = collect(items + 1, 0, rest);
    va_end(rest);
    return __wrap_PyObject_Vectorcall(f, items + 1, n | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
}

Obj __wrap_PyObject_CallMethodObjArgs(Obj self, Obj name, ...)
{
    Obj items[1 + MOST] = {NULL, self};
    va_list rest;
    va_start(rest, name);
    size_t n = collect(items + 1, 1, rest);
    va_end(rest);
    return __wrap_PyObject_VectorcallMethod(name, items + 1, n | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
}

Obj __wrap_PyObject_CallMethod(Obj self, const char *name, const char *format, ...)
{
    if (format != NULL) {
        Py_FatalError("arguments are not built here");
    }
    Obj method = __wrap_PyObject_GetAttrString(self, name);
    if (method == NULL) {
        return NULL;
    }
    Obj result = __wrap_PyObject_CallNoArgs(method);
    Py_DECREF(method);
    return result;
}
