/* Every access to the fields of PyThreadState, compiled against the headers of the target.
 *
 * A greenlet has its own C stack and its own "Python state": the part of PyThreadState that describes
 * what runs on that stack (frames, recursion counters, the exception being handled, the context, the
 * frames' memory). This file makes, exchanges and ends such states. It knows nothing of stacks,
 * greenlets or scheduling, and no other file knows a field of PyThreadState: where CPython renames one,
 * the build fails here, and where a field sits elsewhere than in the headers, gl_selftest says so.
 *
 * What is not exchanged belongs to the thread: trace and profile functions, the pending error, the
 * asynchronous exception and the hooks of async generators.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#if PY_VERSION_HEX >= 0x030b0000
#  ifndef Py_BUILD_CORE
#    define Py_BUILD_CORE 1
#    define GL_DEFINED_CORE 1
#  endif
#  if PY_VERSION_HEX >= 0x030d0000
#    include "internal/pycore_tstate.h"
#  elif PY_VERSION_HEX >= 0x030c0000
     /* A macro of the outer headers, and there a function of the same name. */
#    undef _PyGC_FINALIZED
#    include "internal/pycore_interp.h"
#  endif
#  if PY_VERSION_HEX >= 0x030e0000
#    include "internal/pycore_interpframe.h"
#    if PY_VERSION_HEX >= 0x030f0000
#      include "internal/pycore_gc.h"
#      include "internal/pycore_stackref.h"
#    endif
#  else
#    include "internal/pycore_frame.h"
#  endif
#  ifdef GL_DEFINED_CORE
#    undef Py_BUILD_CORE
#  endif
#endif
#include <frameobject.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef Py_GIL_DISABLED
#  error "free-threaded builds of CPython are not supported"
#endif
#if PY_VERSION_HEX < 0x030a0000
#  error "CPython 3.10 or newer is needed"
#endif

#define PY(minor) (PY_VERSION_HEX >= (0x03000000 | ((minor) << 16)))

#if PY(12) && !PY(14)
#  define HAS_C_BUDGET 1
#  ifdef Py_C_RECURSION_LIMIT
#    define C_LIMIT Py_C_RECURSION_LIMIT
#  else
#    define C_LIMIT C_RECURSION_LIMIT
#  endif
#endif
#if PY(14)
#  define HAS_STACK_LIMITS 1
#endif
#if PY(13)
#  define HAS_RUNNING_LOOP 1
#  define IMPL(ts) ((_PyThreadStateImpl *)(ts))
#endif
#if PY(10) && !PY(13)
#  define HAS_CFRAME 1
#  if PY(11)
typedef _PyCFrame cframe_t;
#  else
typedef CFrame cframe_t;
#  endif
#endif

#ifdef HAS_STACK_LIMITS
/* Absent from 3.14.0 and 3.14.1. */
__attribute__((weak)) int PyUnstable_ThreadState_SetStackProtection(PyThreadState *, void *, size_t);
#endif

/* C stack that one level of the C recursion counter stands for (3.12, 3.13): measured, the hungriest are a
 * third of a level of sorted(key=...). Code that recurses less needs far less, so that small stacks, which
 * cannot carry this, get some levels all the same. */
#define BYTES_PER_C_LEVEL 1700
#define LEAST_BYTES_PER_C_LEVEL 400
#define LEAST_C_LEVELS 550

typedef struct gl_state {
#ifdef HAS_CFRAME
    cframe_t *cframe;
#else
    struct _PyInterpreterFrame *current_frame;
#endif
#if !PY(11)
    PyFrameObject *frame;
#endif
    int depth;
    int c_remaining;
    int trash_nesting;
    _PyErr_StackItem *exc_info;
    PyObject *context;
#if PY(11)
    _PyStackChunk *chunk;
    PyObject **top;
    PyObject **limit;
    _PyStackChunk *root_chunk;
#endif
#if PY(13)
    PyObject *delete_later;
    uintptr_t critical_section;
#endif
#if PY(14)
    PyObject *executor;
#endif
#ifdef HAS_STACK_LIMITS
    uintptr_t c_top, c_soft, c_hard;
#endif
    /* What a state that is not a thread's first one owns; the pointers above lead here. */
    _PyErr_StackItem exc_item;
#ifdef HAS_CFRAME
    cframe_t cframe_store;
#endif
} gl_state;

_Static_assert(sizeof(gl_state) <= 160, "greenlet/state.rs reserves 160 bytes for gl_state");

/* ---- recursion ---------------------------------------------------------------------------------- */

static inline int get_depth(PyThreadState *ts)
{
#if PY(12)
    return ts->py_recursion_limit - ts->py_recursion_remaining;
#elif PY(11)
    return ts->recursion_limit - ts->recursion_remaining;
#else
    return ts->recursion_depth;
#endif
}

static inline void set_depth(PyThreadState *ts, int depth)
{
#if PY(12)
    ts->py_recursion_remaining = ts->py_recursion_limit - depth;
#elif PY(11)
    ts->recursion_remaining = ts->recursion_limit - depth;
#else
    ts->recursion_depth = depth;
#endif
}

/* ---- making, exchanging, ending ----------------------------------------------------------------- */

/* Makes the state of a greenlet that is about to start: nothing called, nothing handled, an empty
 * context unless one was set before. `annex` is memory for the first chunk of its Python frames; it
 * looks like a root chunk that CPython made itself, so nothing ever tries to free it. */
void gl_state_fresh(PyThreadState *ts, gl_state *g, void *annex, size_t annex_len, void *stack_lo,
                    size_t stack_len)
{
    PyObject *context = g->context;
    memset(g, 0, sizeof *g);
    g->context = context;
    g->exc_info = &g->exc_item;
#ifdef HAS_CFRAME
    g->cframe_store.previous = &ts->root_cframe;
    g->cframe = &g->cframe_store;
#endif
#ifdef HAS_C_BUDGET
    size_t least = stack_len / LEAST_BYTES_PER_C_LEVEL;
    if (least > LEAST_C_LEVELS) {
        least = LEAST_C_LEVELS;
    }
    g->c_remaining = (int)(stack_len / BYTES_PER_C_LEVEL);
    if (g->c_remaining < (int)least) {
        g->c_remaining = (int)least;
    }
    if (g->c_remaining > C_LIMIT) {
        g->c_remaining = C_LIMIT;
    }
#endif
#if PY(11)
    _PyStackChunk *chunk = annex;
    chunk->previous = NULL;
    chunk->size = annex_len;
    chunk->top = 0;
    g->root_chunk = g->chunk = chunk;
    g->top = &chunk->data[1]; /* slot 0 of a root stays unused: popping never reaches it */
    g->limit = (PyObject **)((char *)chunk + annex_len);
#endif
#ifdef HAS_STACK_LIMITS
    /* As CPython does for a thread: two margins above the end where it starts to refuse, one where
     * it gives up. */
    uintptr_t lo = (uintptr_t)stack_lo;
    g->c_top = lo + stack_len;
    g->c_hard = lo + _PyOS_STACK_MARGIN_BYTES;
    g->c_soft = lo + _PyOS_STACK_MARGIN_BYTES * 2;
#endif
}

/* A number that changes when the running loop of asyncio may have: its address from 3.13 on, and the
 * version of the thread's dictionary before. */
static inline uint64_t loop_mark(PyThreadState *ts)
{
#ifdef HAS_RUNNING_LOOP
    return (uintptr_t)IMPL(ts)->asyncio_running_loop;
#else
    return ts->dict == NULL ? 0 : ((PyDictObject *)ts->dict)->ma_version_tag;
#endif
}

uint64_t gl_loop_mark(PyThreadState *ts)
{
    return loop_mark(ts);
}

/* Saves the thread's state into `from` and puts `to` in its place. Returns the mark of asyncio's loop. */
uint64_t gl_swap(PyThreadState *ts, gl_state *restrict from, gl_state *restrict to)
{
#ifdef HAS_CFRAME
    cframe_t *old = ts->cframe;
    from->cframe = old;
#  if !PY(12)
    /* Tracing is the thread's, though the flag lives in the greenlet's own record. */
    to->cframe->use_tracing = old->use_tracing;
#  endif
    ts->cframe = to->cframe;
#else
    from->current_frame = ts->current_frame;
    ts->current_frame = to->current_frame;
#endif
#if !PY(11)
    from->frame = ts->frame;
    ts->frame = to->frame;
#endif
    from->depth = get_depth(ts);
    set_depth(ts, to->depth);
#ifdef HAS_C_BUDGET
    from->c_remaining = ts->c_recursion_remaining;
    ts->c_recursion_remaining = to->c_remaining;
#endif
#if PY(13)
    from->delete_later = ts->delete_later;
    ts->delete_later = to->delete_later;
    from->critical_section = ts->critical_section;
    ts->critical_section = to->critical_section;
#elif PY(12)
    from->trash_nesting = ts->trash.delete_nesting;
    ts->trash.delete_nesting = to->trash_nesting;
#else
    from->trash_nesting = ts->trash_delete_nesting;
    ts->trash_delete_nesting = to->trash_nesting;
#endif
#if PY(14)
    from->executor = ts->current_executor;
    ts->current_executor = to->executor;
#endif
    from->exc_info = ts->exc_info;
    ts->exc_info = to->exc_info;
    PyObject *context = ts->context;
    if (context != to->context) {
        ts->context = to->context;
        ts->context_ver++; /* context variables cache by it */
    }
    to->context = NULL; /* the reference moved */
    from->context = context;
#if PY(11)
    from->chunk = ts->datastack_chunk;
    ts->datastack_chunk = to->chunk;
    from->top = ts->datastack_top;
    ts->datastack_top = to->top;
    from->limit = ts->datastack_limit;
    ts->datastack_limit = to->limit;
#endif
#ifdef HAS_STACK_LIMITS
    from->c_top = IMPL(ts)->c_stack_top;
    from->c_soft = IMPL(ts)->c_stack_soft_limit;
    from->c_hard = IMPL(ts)->c_stack_hard_limit;
    IMPL(ts)->c_stack_top = to->c_top;
    IMPL(ts)->c_stack_soft_limit = to->c_soft;
    IMPL(ts)->c_stack_hard_limit = to->c_hard;
#endif
    return loop_mark(ts);
}

/* ---- asyncio's running loop --------------------------------------------------------------------- */

/* Moves the running loop, and its current task if that is the thread's too, out of the thread. 0 if this
 * interpreter keeps them elsewhere. */
int gl_take_loop(PyThreadState *ts, PyObject **loop, PyObject **task)
{
#ifdef HAS_RUNNING_LOOP
    *loop = IMPL(ts)->asyncio_running_loop;
    IMPL(ts)->asyncio_running_loop = NULL;
#  if PY(14)
    *task = IMPL(ts)->asyncio_running_task;
    IMPL(ts)->asyncio_running_task = NULL;
#  else
    *task = NULL;
#  endif
    return 1;
#else
    (void)ts, (void)loop, (void)task;
    return 0;
#endif
}

/* The opposite, for a thread that has none; steals both, which may be NULL. */
void gl_put_loop(PyThreadState *ts, PyObject *loop, PyObject *task)
{
#ifdef HAS_RUNNING_LOOP
    IMPL(ts)->asyncio_running_loop = loop;
#  if PY(14)
    IMPL(ts)->asyncio_running_task = task;
#  else
    (void)task;
#  endif
#else
    (void)ts, (void)loop, (void)task;
#endif
}

#if PY(11)
static void free_chunks(_PyStackChunk *chunk, _PyStackChunk *root)
{
    if (chunk == NULL || chunk == root) {
        return;
    }
    PyObjectArenaAllocator arena;
    PyObject_GetArenaAllocator(&arena);
    while (chunk != NULL && chunk != root) {
        _PyStackChunk *previous = chunk->previous;
        arena.free(arena.ctx, chunk, chunk->size);
        chunk = previous;
    }
}
#endif

/* For the installed state of a greenlet whose body has returned: gives back what the thread still
 * holds for it. It stays installed. */
void gl_state_finish(PyThreadState *ts, gl_state *g)
{
#if PY(13) && !PY(14)
    if (ts->delete_later != NULL) {
        _PyTrash_thread_destroy_chain(ts);
    }
#endif
#if PY(11)
    free_chunks(ts->datastack_chunk, g->root_chunk);
    ts->datastack_chunk = g->root_chunk;
    ts->datastack_top = &g->root_chunk->data[1];
    ts->datastack_limit = (PyObject **)((char *)g->root_chunk + g->root_chunk->size);
#endif
}

/* For a finished greenlet whose state is not installed any more and whose stack is given back. */
void gl_state_forget(gl_state *g)
{
#if PY(11)
    g->chunk = g->root_chunk = NULL;
    g->top = g->limit = NULL;
#endif
#ifdef HAS_CFRAME
    g->cframe = NULL;
#else
    g->current_frame = NULL;
#endif
#if !PY(11)
    g->frame = NULL;
#endif
}

/* For a parked greenlet that will never run again; may run code on 3.15. Returns 1 if its stack may be used by others: no
 * frame object that somebody else holds looks into its memory. */
int gl_state_abandon(gl_state *g)
{
    int unused = 1;
#if PY(11)
#  ifdef HAS_CFRAME
    struct _PyInterpreterFrame *f = g->cframe == NULL ? NULL : g->cframe->current_frame;
#  else
    struct _PyInterpreterFrame *f = g->current_frame;
#  endif
    for (; f != NULL; f = f->previous) {
        if (!_PyFrame_IsIncomplete(f) && f->frame_obj != NULL
            && Py_REFCNT((PyObject *)f->frame_obj) > 1) {
            unused = 0;
        }
    }
    if (unused) {
#  if PY(15)
        /* The collector was told of these references (see gl_state_traverse), so they are ours to drop. */
        for (f = g->current_frame; f != NULL; f = f->previous) {
            if (f->owner != FRAME_OWNED_BY_THREAD) {
                continue;
            }
            _PyStackRef *sp = f->stackpointer;
            while (sp != NULL && sp > f->localsplus) {
                sp--;
                PyStackRef_CLEAR(*sp);
            }
            if (sp != NULL) {
                f->stackpointer = f->localsplus;
            }
            Py_CLEAR(f->f_locals);
            Py_CLEAR(f->frame_obj);
            PyStackRef_CLEAR(f->f_funcobj);
            PyStackRef_CLEAR(f->f_executable);
        }
#  endif
        free_chunks(g->chunk, g->root_chunk);
    }
#else
    Py_CLEAR(g->frame);
#endif
    gl_state_forget(g);
    return unused;
}

/* ---- looking into a parked state ---------------------------------------------------------------- */

/* The innermost frame object of a parked greenlet, a new reference or NULL. The frame is made on
 * demand by lending the state's frame to the thread for one call; collection is off meanwhile. */
PyObject *gl_top_frame(PyThreadState *ts, gl_state *g)
{
#if PY(11)
#  ifdef HAS_CFRAME
    if (g->cframe == NULL) {
        return NULL;
    }
    cframe_t *mine = ts->cframe;
#  else
    if (g->current_frame == NULL) {
        return NULL;
    }
    struct _PyInterpreterFrame *mine = ts->current_frame;
#  endif
    int collecting = PyGC_Disable();
#  ifdef HAS_CFRAME
    ts->cframe = g->cframe;
#  else
    ts->current_frame = g->current_frame;
#  endif
    PyFrameObject *frame = PyThreadState_GetFrame(ts);
#  ifdef HAS_CFRAME
    ts->cframe = mine;
#  else
    ts->current_frame = mine;
#  endif
    if (collecting) {
        PyGC_Enable();
    }
    return (PyObject *)frame;
#else
    Py_XINCREF(g->frame);
    return (PyObject *)g->frame;
#endif
}

/* Exchanges the context of the installed state (g NULL) or a parked one; steals `context`, returns the
 * old one. NULL is the empty context. */
PyObject *gl_replace_context(PyThreadState *ts, gl_state *g, PyObject *context)
{
    PyObject *old;
    if (g != NULL) {
        old = g->context;
        g->context = context;
    } else {
        old = ts->context;
        ts->context = context;
        ts->context_ver++;
    }
    return old;
}

/* The context of the installed state (g NULL) or a parked one, borrowed. */
PyObject *gl_context(PyThreadState *ts, gl_state *g)
{
    return g != NULL ? g->context : ts->context;
}

int gl_state_traverse(gl_state *g, int parked, visitproc visit, void *arg)
{
    Py_VISIT(g->context);
#if PY(11)
    Py_VISIT(g->exc_item.exc_value);
#else
    Py_VISIT(g->exc_item.exc_type);
    Py_VISIT(g->exc_item.exc_value);
    Py_VISIT(g->exc_item.exc_traceback);
#endif
#if PY(15)
    if (parked) {
        for (_PyInterpreterFrame *f = g->current_frame; f != NULL; f = f->previous) {
            /* A generator visits its own frame. */
            if (f->owner != FRAME_OWNED_BY_THREAD) {
                continue;
            }
            Py_VISIT(f->frame_obj);
            Py_VISIT(f->f_locals);
            _Py_VISIT_STACKREF(f->f_funcobj);
            _Py_VISIT_STACKREF(f->f_executable);
            int result = _PyGC_VisitFrameStack(f, visit, arg);
            if (result != 0) {
                return result;
            }
        }
    }
#endif
    return 0;
}

void gl_state_clear(gl_state *g)
{
    Py_CLEAR(g->context);
#if PY(11)
    Py_CLEAR(g->exc_item.exc_value);
#else
    Py_CLEAR(g->exc_item.exc_type);
    Py_CLEAR(g->exc_item.exc_value);
    Py_CLEAR(g->exc_item.exc_traceback);
#endif
}

/* ---- the pending error -------------------------------------------------------------------------- */

/* Takes the pending error as one normalised exception that carries its traceback; NULL without one. */
PyObject *gl_take_raised(void)
{
#if PY(12)
    return PyErr_GetRaisedException();
#else
    PyObject *type, *value, *tb;
    PyErr_Fetch(&type, &value, &tb);
    if (type == NULL) {
        return NULL;
    }
    PyErr_NormalizeException(&type, &value, &tb);
    if (tb != NULL) {
        PyException_SetTraceback(value, tb);
    }
    Py_XDECREF(type);
    Py_XDECREF(tb);
    return value;
#endif
}

/* Takes the pending error as a value that nobody raises again. Up to 3.11 the traceback is apart from the
 * exception, and is dropped: here, where the frames belong that it refers to. */
PyObject *gl_take_value(void)
{
#if PY(12)
    return PyErr_GetRaisedException();
#else
    PyObject *type, *value, *tb;
    PyErr_Fetch(&type, &value, &tb);
    PyErr_NormalizeException(&type, &value, &tb);
    Py_XDECREF(type);
    Py_XDECREF(tb);
    return value;
#endif
}

/* Makes the instance that raising `type` with `value` (or NULL) would raise, with the traceback `tb` (or
 * NULL). If making it fails, the result is that error, as with `raise`. */
PyObject *gl_make_exception(PyObject *type, PyObject *value, PyObject *tb)
{
    Py_INCREF(type);
    Py_XINCREF(value);
    Py_XINCREF(tb);
    PyErr_NormalizeException(&type, &value, &tb);
    if (value != NULL) {
        PyException_SetTraceback(value, tb != NULL ? tb : Py_None);
    }
    Py_XDECREF(type);
    Py_XDECREF(tb);
    return value;
}

/* Makes `exc` (stolen, not NULL) the pending error as it is: no context is chained to it. */
void gl_set_raised(PyObject *exc)
{
#if PY(12)
    PyErr_SetRaisedException(exc);
#else
    PyErr_Restore(Py_NewRef((PyObject *)Py_TYPE(exc)), exc, PyException_GetTraceback(exc));
#endif
}

/* ---- tracing ------------------------------------------------------------------------------------ */

void gl_enter_tracing(PyThreadState *ts)
{
#if PY(11)
    PyThreadState_EnterTracing(ts);
#else
    ts->tracing++;
    ts->cframe->use_tracing = 0;
#endif
}

void gl_leave_tracing(PyThreadState *ts)
{
#if PY(11)
    PyThreadState_LeaveTracing(ts);
#else
    ts->tracing--;
    ts->cframe->use_tracing = ts->c_tracefunc != NULL || ts->c_profilefunc != NULL;
#endif
}

_Static_assert(offsetof(PyThreadState, c_tracefunc)
                   == offsetof(PyThreadState, c_profilefunc) + sizeof(Py_tracefunc),
               "hub/observers.rs reads both at once");

/* The thread's profile function, and its trace function behind it. */
const void *gl_tracers(PyThreadState *ts)
{
    return &ts->c_profilefunc;
}

/* A word that changes with what the tools of sys.monitoring want; where there are none, or it is not known
 * where the word is, one that does not. */
const void *gl_monitoring(PyThreadState *ts)
{
    static const uintptr_t none = 0;
#if PY(13)
    return &ts->eval_breaker;
#elif PY(12)
    /* No function tells what is beside this field but this one. */
    if (PyInterpreterState_ThreadHead(ts->interp) == ts->interp->threads.head) {
        return &ts->interp->monitoring_version;
    }
#endif
    return &none;
}

/* The trashcan's nesting level, or -1 where there is none any more. */
int gl_trash_nesting(PyThreadState *ts)
{
#if PY(13)
    return -1;
#elif PY(12)
    return ts->trash.delete_nesting;
#else
    return ts->trash_delete_nesting;
#endif
}

/* ---- resurrection ------------------------------------------------------------------------------- */

/* A deallocator gives its object one reference to run code with. */
void gl_resurrect(PyObject *op)
{
    Py_SET_REFCNT(op, 1);
}

/* Takes that reference back. Returns 1 if the object is dead, 0 if somebody holds it now. */
int gl_bury(PyObject *op)
{
    Py_ssize_t count = Py_REFCNT(op) - 1;
    if (count != 0) {
#ifdef Py_TRACE_REFS
        _Py_NewReference(op);
#endif
        Py_SET_REFCNT(op, count);
        return 0;
    }
    Py_SET_REFCNT(op, 0);
    return 1;
}

/* ---- self-test ---------------------------------------------------------------------------------- */

int gl_finalizing(void)
{
#if PY(13)
    return Py_IsFinalizing();
#else
    return _Py_IsFinalizing();
#endif
}

static const char *test_context(PyThreadState *ts)
{
    PyObject *context = PyContext_New();
    if (context == NULL || PyContext_Enter(context) < 0) {
        Py_XDECREF(context);
        return "context";
    }
    uint64_t version = ts->context_ver;
    int found = ts->context == context;
    int left = PyContext_Exit(context);
    Py_DECREF(context);
    if (left < 0 || !found) {
        return "context";
    }
    return ts->context_ver != version ? NULL : "context_ver";
}

static const char *test_handled(PyThreadState *ts)
{
#if PY(11)
    PyObject *mark = PyObject_CallNoArgs(PyExc_ValueError);
    if (mark == NULL) {
        return "exc_info";
    }
    PyObject *before = PyErr_GetHandledException();
    PyErr_SetHandledException(mark);
    int found = ts->exc_info != NULL && ts->exc_info->exc_value == mark;
    PyErr_SetHandledException(before);
    Py_XDECREF(before);
    Py_DECREF(mark);
    return found ? NULL : "exc_info";
#else
    return ts->exc_info != NULL ? NULL : "exc_info";
#endif
}

static const char *test_recursion(PyThreadState *ts)
{
    int limit = Py_GetRecursionLimit(), depth = get_depth(ts);
#if PY(12)
    int known = ts->py_recursion_limit;
#elif PY(11)
    int known = ts->recursion_limit;
#else
    int known = limit;
#endif
    if (known != limit || depth < 0 || depth > limit) {
        return "recursion_remaining";
    }
#if !PY(12)
    if (Py_EnterRecursiveCall("") != 0) {
        return "recursion_remaining";
    }
    int deeper = get_depth(ts);
    Py_LeaveRecursiveCall();
    if (deeper != depth + 1 || get_depth(ts) != depth) {
        return "recursion_remaining";
    }
#elif defined(HAS_C_BUDGET)
    int before = ts->c_recursion_remaining;
    if (Py_EnterRecursiveCall("") != 0) {
        return "c_recursion_remaining";
    }
    int inside = ts->c_recursion_remaining;
    Py_LeaveRecursiveCall();
    if (inside != before - 1 || ts->c_recursion_remaining != before) {
        return "c_recursion_remaining";
    }
#endif
    return NULL;
}

static const char *test_frames(PyThreadState *ts)
{
    PyFrameObject *top = PyThreadState_GetFrame(ts), *none;
    Py_XDECREF(top);
    if (top == NULL) {
        return NULL; /* called from C alone: nothing to compare with */
    }
#ifdef HAS_CFRAME
    if (ts->cframe == NULL) {
        return "cframe";
    }
#endif
#if PY(11)
#  ifdef HAS_CFRAME
    cframe_t empty = *ts->cframe, *mine = ts->cframe;
    empty.current_frame = NULL;
    ts->cframe = &empty;
    none = PyThreadState_GetFrame(ts);
    ts->cframe = mine;
#  else
    struct _PyInterpreterFrame *mine = ts->current_frame;
    ts->current_frame = NULL;
    none = PyThreadState_GetFrame(ts);
    ts->current_frame = mine;
#  endif
    Py_XDECREF(none);
    if (none != NULL) {
        return "current_frame";
    }
    _PyStackChunk *chunk = ts->datastack_chunk;
    if (chunk == NULL || ts->datastack_limit != (PyObject **)((char *)chunk + chunk->size)
        || ts->datastack_top < &chunk->data[0] || ts->datastack_top > ts->datastack_limit) {
        return "datastack_chunk";
    }
#else
    (void)none;
    if (ts->frame != top) {
        return "frame";
    }
#endif
    return NULL;
}

static const char *test_trash(PyThreadState *ts)
{
#if PY(13)
    return ts->critical_section == 0 ? NULL : "critical_section";
#else
    int nesting = gl_trash_nesting(ts);
    return nesting >= 0 && nesting <= 60 ? NULL : "trash_delete_nesting";
#endif
}

static const char *test_stack_limits(PyThreadState *ts)
{
#ifdef HAS_STACK_LIMITS
    _PyThreadStateImpl *impl = IMPL(ts);
    if (impl->c_stack_hard_limit == 0 || impl->c_stack_hard_limit > impl->c_stack_soft_limit
        || impl->c_stack_soft_limit > impl->c_stack_top) {
        return "c_stack_top";
    }
    if (PyUnstable_ThreadState_SetStackProtection != NULL) {
        /* Let the interpreter itself write the fields once, for some other memory. */
        uintptr_t top = impl->c_stack_top, soft = impl->c_stack_soft_limit;
        uintptr_t hard = impl->c_stack_hard_limit;
        uintptr_t init_base = impl->c_stack_init_base, init_top = impl->c_stack_init_top;
        const size_t size = 1 << 20;
        uintptr_t lo = (uintptr_t)&impl & ~(uintptr_t)0xffff;
        int failed = PyUnstable_ThreadState_SetStackProtection(ts, (void *)lo, size);
        int found = impl->c_stack_top == lo + size && impl->c_stack_hard_limit > lo
                    && impl->c_stack_soft_limit > impl->c_stack_hard_limit
                    && impl->c_stack_soft_limit < lo + size;
        impl->c_stack_top = top;
        impl->c_stack_soft_limit = soft;
        impl->c_stack_hard_limit = hard;
        impl->c_stack_init_base = init_base;
        impl->c_stack_init_top = init_top;
        if (failed) {
            PyErr_Clear();
        } else if (!found) {
            return "c_stack_top";
        }
    }
#endif
    return NULL;
}

/* Checks each field that this file uses against what the interpreter says by its functions. Returns
 * NULL, or the name of the first field that is not where it was when this was compiled. */
const char *gl_selftest(void)
{
    PyThreadState *ts = PyThreadState_Get();
    if (PyThreadState_GetInterpreter(ts) != ts->interp) {
        return "interp";
    }
    const char *bad;
    if ((bad = test_context(ts)) || (bad = test_handled(ts)) || (bad = test_recursion(ts))
        || (bad = test_frames(ts)) || (bad = test_trash(ts)) || (bad = test_stack_limits(ts))) {
        return bad;
    }
    return NULL;
}

/* The minor version of the headers, and the size of a state. */
int gl_compiled_minor(void)
{
    return PY_MINOR_VERSION;
}

size_t gl_state_size(void)
{
    return sizeof(gl_state);
}
