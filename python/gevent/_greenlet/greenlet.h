/* The C interface of greenlet, for extension modules: the names, numbers and signatures are those of
 * greenlet's own header, so that code compiled against either works with both.
 *
 * Include it, and run PyGreenlet_Import() once before anything else of it; it sets an exception if
 * there is no greenlet. All functions want the GIL.
 */
#ifndef Py_GREENLETOBJECT_H
#define Py_GREENLETOBJECT_H

#include <Python.h>

#ifdef __cplusplus
extern "C" {
#endif

#define GREENLET_VERSION "1.0.0"

/* The start of every greenlet object. What follows is private, and so is where `pimpl` points. A type
 * that is laid out on top of this struct has to ask PyGreenlet_Type.tp_basicsize for the real size. */
typedef struct _greenlet {
    PyObject_HEAD
    PyObject *weakreflist;
    PyObject *dict;
    void *pimpl;
} PyGreenlet;

/* The places in the table that the capsule "greenlet._C_API" holds. */
#define PyGreenlet_Type_NUM 0
#define PyExc_GreenletError_NUM 1
#define PyExc_GreenletExit_NUM 2
#define PyGreenlet_New_NUM 3
#define PyGreenlet_GetCurrent_NUM 4
#define PyGreenlet_Throw_NUM 5
#define PyGreenlet_Switch_NUM 6
#define PyGreenlet_SetParent_NUM 7
#define PyGreenlet_MAIN_NUM 8
#define PyGreenlet_STARTED_NUM 9
#define PyGreenlet_ACTIVE_NUM 10
#define PyGreenlet_GET_PARENT_NUM 11
#define PyGreenlet_API_pointers 12

static void **_PyGreenlet_API = NULL;

#define PyGreenlet_Import() \
    { _PyGreenlet_API = (void **)PyCapsule_Import("greenlet._C_API", 0); }

#define PyGreenlet_Type (*(PyTypeObject *)_PyGreenlet_API[PyGreenlet_Type_NUM])
#define PyExc_GreenletError ((PyObject *)_PyGreenlet_API[PyExc_GreenletError_NUM])
#define PyExc_GreenletExit ((PyObject *)_PyGreenlet_API[PyExc_GreenletExit_NUM])

#define PyGreenlet_Check(op) ((op) && PyObject_TypeCheck((op), &PyGreenlet_Type))

/* A new greenlet that will call `run`; `parent` may be NULL for the current one. New reference. */
#define PyGreenlet_New \
    (*(PyGreenlet *(*)(PyObject *run, PyGreenlet *parent))_PyGreenlet_API[PyGreenlet_New_NUM])

/* The running greenlet. New reference. */
#define PyGreenlet_GetCurrent (*(PyGreenlet *(*)(void))_PyGreenlet_API[PyGreenlet_GetCurrent_NUM])

/* g.throw(type, value, tb); value and tb may be NULL. New reference, or NULL with an exception. */
#define PyGreenlet_Throw                                                                    \
    (*(PyObject *(*)(PyGreenlet *g, PyObject *type, PyObject *value, PyObject *tb))         \
         _PyGreenlet_API[PyGreenlet_Throw_NUM])

/* g.switch(*args, **kwargs); a tuple and a dictionary, or NULL. New reference, or NULL with one set. */
#define PyGreenlet_Switch                                                                   \
    (*(PyObject *(*)(PyGreenlet *g, PyObject *args, PyObject *kwargs))                      \
         _PyGreenlet_API[PyGreenlet_Switch_NUM])

/* g.parent = parent. 0, or -1 with an exception. */
#define PyGreenlet_SetParent \
    (*(int (*)(PyGreenlet *g, PyGreenlet *parent))_PyGreenlet_API[PyGreenlet_SetParent_NUM])

/* g.parent: a new reference, or NULL (without an exception) for a main greenlet. */
#define PyGreenlet_GetParent \
    (*(PyGreenlet *(*)(PyGreenlet *g))_PyGreenlet_API[PyGreenlet_GET_PARENT_NUM])
#define PyGreenlet_GET_PARENT PyGreenlet_GetParent

/* 1 or 0; -1 with an exception if `g` is no greenlet. */
#define PyGreenlet_MAIN (*(int (*)(PyGreenlet *g))_PyGreenlet_API[PyGreenlet_MAIN_NUM])
#define PyGreenlet_STARTED (*(int (*)(PyGreenlet *g))_PyGreenlet_API[PyGreenlet_STARTED_NUM])
#define PyGreenlet_ACTIVE (*(int (*)(PyGreenlet *g))_PyGreenlet_API[PyGreenlet_ACTIVE_NUM])

#ifdef __cplusplus
}
#endif
#endif /* !Py_GREENLETOBJECT_H */
