/* Threads that outlive the interpreter stop here for ever.
 *
 * CPython up to 3.13 calls pthread_exit in a daemon thread that wants the GIL after the end of the
 * interpreter. That unwinds the thread's stack on glibc, and ends the process at the first of Rust's
 * frames; where it unwinds nothing it still runs the thread's destructors, without the GIL, and frees a
 * stack that other threads' lists may point into. CPython 3.14 lets such a thread hang instead. So do
 * the frames below: they lie where such a thread comes by before it comes to a frame of Rust's. This file
 * is compiled with -fexceptions, so that a cleanup is a matter of its frame alone and outlasts switches
 * between stacks.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <pthread.h>
#include <unistd.h>

int gl_finalizing(void);

static void stay(void *unused)
{
    (void)unused;
    /* Whoever else ends a thread may do it. */
    while (gl_finalizing()) {
        pause();
    }
}

/* PyEval_RestoreThread, which returns or never comes back. */
void gl_restore_thread(PyThreadState *saved)
{
    pthread_cleanup_push(stay, NULL);
    PyEval_RestoreThread(saved);
    pthread_cleanup_pop(0);
}

/* Elsewhere a cleanup is an entry of the thread's list, which greenlets would put out of order; but
 * there nothing is unwound either. */
#if defined(__GLIBC__) && defined(__EXCEPTIONS)
#  define GUARDED(expression)          \
      PyObject *result;                \
      pthread_cleanup_push(stay, NULL); \
      result = (expression);           \
      pthread_cleanup_pop(0);          \
      return result
#else
#  define GUARDED(expression) return (expression)
#endif

PyObject *gl_guarded_call(PyObject *callable, PyObject *args, PyObject *kwargs)
{
    GUARDED(args == NULL ? PyObject_CallNoArgs(callable) : PyObject_Call(callable, args, kwargs));
}

PyObject *gl_guarded_vectorcall(PyObject *callable, PyObject *const *args, size_t nargsf,
                                PyObject *kwnames)
{
    GUARDED(PyObject_Vectorcall(callable, args, nargsf, kwnames));
}
