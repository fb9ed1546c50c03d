/* The one frame without unwind information at the bottom of every greenlet's stack.
 *
 * Two things unwind a C stack from outside: a C++ exception that nobody catches, and pthread_exit, which
 * CPython up to 3.13 calls in a daemon thread that wants the GIL after the end of the interpreter. Rust
 * ends the process with a message of its own when such an unwinding comes to its frames. It never
 * does: the unwinder sees the end of the stack here, so that the first calls std::terminate, as on any
 * thread, and the second ends the thread. This file is compiled without unwind tables for that.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* Calls `callable` with a tuple and a dictionary or NULL; without arguments if `args` is NULL. */
PyObject *gl_call(PyObject *callable, PyObject *args, PyObject *kwargs)
{
    PyObject *result = args == NULL ? PyObject_CallNoArgs(callable)
                                    : PyObject_Call(callable, args, kwargs);
    __asm__ volatile("" ::: "memory"); /* not a tail call: the frame has to be there */
    return result;
}
