/* The frames without unwind information: at the bottom of every greenlet's stack, and wherever else Rust
 * calls what may run for long.
 *
 * Two things unwind a C stack from outside: a C++ exception that nobody catches, and pthread_exit. Rust
 * ends the process with a message of its own when such an unwinding comes to its frames. It never
 * does: the unwinder sees the end of the stack here, so that the first calls std::terminate, as on any
 * thread, and the second ends the thread (unless the interpreter has ended: see guards.c). This file is
 * compiled without unwind tables for that.
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

#if defined(__GLIBC__) && PY_VERSION_HEX < 0x030b0000
/* Inline there, so that the linker cannot put the guard in its place. */
PyObject *__wrap_PyObject_Vectorcall(PyObject *, PyObject *const *, size_t, PyObject *);
#  define PyObject_Vectorcall __wrap_PyObject_Vectorcall
#endif

/* The same for PyObject_Vectorcall. */
PyObject *gl_vectorcall(PyObject *callable, PyObject *const *args, size_t nargsf, PyObject *kwnames)
{
    PyObject *result = PyObject_Vectorcall(callable, args, nargsf, kwnames);
    __asm__ volatile("" ::: "memory");
    return result;
}
