/* Threads that outlive the interpreter stop here for ever.
 *
 * CPython up to 3.13 calls pthread_exit in a daemon thread that wants the GIL after the end of the
 * interpreter. That unwinds the thread's stack on glibc, and ends the process at the first of Rust's
 * frames; where it unwinds nothing it still runs the thread's destructors, without the GIL, and frees a
 * stack that other threads' lists may point into. CPython 3.14 lets such a thread hang instead. So do
 * the frame below, and those of guards.c: they lie where such a thread comes by before it comes to a frame
 * of Rust's. Both files are compiled with -fexceptions, so that a cleanup is a matter of its frame alone and
 * outlasts switches between stacks. Elsewhere than on glibc it is an entry of the thread's list, which
 * greenlets would put out of order; there nothing is unwound, and only taking the GIL is guarded.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <pthread.h>
#include <unistd.h>
#include "guard.h"

int gl_finalizing(void);

void gl_stay(void)
{
    /* Whoever else ends a thread may do it. */
    while (gl_finalizing()) {
        pause();
    }
}

static void stay(void *unused)
{
    (void)unused;
    gl_stay();
}

/* PyEval_RestoreThread, which returns or never comes back. */
void gl_restore_thread(PyThreadState *saved)
{
    pthread_cleanup_push(stay, NULL);
    PyEval_RestoreThread(saved);
    pthread_cleanup_pop(0);
}

/* Slots of types are called through pointers, where the linker cannot put a guard. */
#if defined(__GLIBC__) && PY_VERSION_HEX < 0x030e0000
#  define SLOT(type, expression) \
      type result;               \
      GUARDED(result = expression); \
      return result
#else
#  define SLOT(type, expression) return expression
#endif

PyObject *gl_tp_alloc(PyTypeObject *type)
{
    SLOT(PyObject *, type->tp_alloc(type, 0));
}

PyObject *gl_tp_new(newfunc make, PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    SLOT(PyObject *, make(type, args, kwargs));
}

PyObject *gl_tp_descr_get(descrgetfunc get, PyObject *descriptor, PyObject *object, PyObject *type)
{
    SLOT(PyObject *, get(descriptor, object, type));
}
