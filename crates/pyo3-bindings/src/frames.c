/* Reads the chain of running Python frames without making frame objects: for each its code and the
 * offset of its instruction. Built against the target's internal headers, so that a field that moved
 * is a build error. */
#define Py_BUILD_CORE 1
#define PY_SSIZE_T_CLEAN
#ifndef NDEBUG
#define NDEBUG 1
#endif
#include <Python.h>
#if PY_VERSION_HEX < 0x030b0000
#include <frameobject.h>
#else
#include <internal/pycore_frame.h>
#include <internal/pycore_pystate.h>
#endif
#if PY_VERSION_HEX >= 0x030e0000
#include <internal/pycore_interpframe.h>
#endif

typedef struct {
    PyObject *code;
    int offset;
} gv_frame;

int gv_walk_frames(PyThreadState *ts, gv_frame *frames, int limit) {
    int n = 0;
#if PY_VERSION_HEX < 0x030b0000
    for (PyFrameObject *f = ts->frame; f != NULL && n < limit; f = f->f_back) {
        Py_INCREF(f->f_code);
        frames[n].code = (PyObject *)f->f_code;
        frames[n++].offset = f->f_lasti < 0 ? 0 : f->f_lasti * (int)sizeof(_Py_CODEUNIT);
    }
#else
#if PY_VERSION_HEX < 0x030d0000
    _PyInterpreterFrame *f = ts->cframe->current_frame;
#else
    _PyInterpreterFrame *f = ts->current_frame;
#endif
    for (; f != NULL && n < limit; f = f->previous) {
        PyCodeObject *code;
#if PY_VERSION_HEX < 0x030c0000
        if (_PyFrame_IsIncomplete(f)) {
            continue;
        }
        code = f->f_code;
#else
        if (_PyFrame_IsIncomplete(f)) {
            continue;
        }
#if PY_VERSION_HEX < 0x030d0000
        code = f->f_code;
#else
        code = _PyFrame_GetCode(f);
#endif
#endif
        if (code == NULL) {
            continue;
        }
        Py_INCREF(code);
        frames[n].code = (PyObject *)code;
        frames[n++].offset = _PyInterpreterFrame_LASTI(f) * (int)sizeof(_Py_CODEUNIT);
    }
#endif
    return n;
}
