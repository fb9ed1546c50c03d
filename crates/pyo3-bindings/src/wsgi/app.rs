//! [`App`]: the application that the server of `crates/wsgi` serves: a WSGI application of Python, in a new
//! greenlet for each connection with a request.

use super::environ::Environs;
use super::input::{self, Input};
use super::raise::{self, glue};
use super::session::Session;
use crate::cells::PyCellOpt;
use crate::gevent_greenlet;
use crate::hub::{HubCore, Parked, unexpected_switch};
use crate::thread_data::ThreadData;
use crate::tstate::call_one_at_bottom;
use gevent_hub_core::cell::LocalCell;
use gevent_hub_core::hub::{Interrupted, Park};
use gevent_hub_core::reactor::{Nanos, Wake};
use gevent_wsgi::server::{Application, Connection, Parker, Peer};
use gevent_wsgi::{Framing, Head, Reject, Version};
use pyo3::ffi::{self, PyObject};
use pyo3::prelude::*;
use std::cell::Cell;
use std::os::fd::RawFd;
use std::ptr::null_mut;
use std::rc::Rc;

/// A connection of a Python server.
pub type Conn = Connection<App>;

/// Parks greenlets: what is thrown or switched into one is a Python error that is set.
pub struct Greenlets;

impl Parker for Greenlets {
    fn park(&self, park: Park<'_>, deadline: Option<Nanos>) -> Result<Wake, Interrupted> {
        const NOTHING: Interrupted = Interrupted { granted: None };
        let Some(hub) = HubCore::current() else {
            return Err(NOTHING);
        };
        // Dropped before the hub is let go of, if `switch_out` raises.
        let park = park;
        // SAFETY: a fiber of Python's that runs holds the GIL.
        unsafe {
            hub.may_block().map_err(|()| NOTHING)?;
            match hub.park(park, deadline) {
                Parked::Woken(wake) => Ok(wake),
                Parked::Switched(value, granted) => {
                    unexpected_switch(c"a wait for an HTTP client", value);
                    Err(Interrupted { granted })
                }
                Parked::Raised(granted) => Err(Interrupted { granted }),
            }
        }
    }
}

/// Who runs the application.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Spawn {
    /// A `gevent.Greenlet` that is entered at once.
    Greenlet,
    /// The same as a member of the server's pool: before the next request is looked at it has ended, mostly,
    /// and what it used is at hand for the next.
    Member,
    /// A callable: `spawn_raw`, a pool's `spawn`, or a program's own.
    Call,
    /// The hub, which must not wait.
    Hub,
}

/// What the exchanges of one server share.
pub struct Core {
    /// While it accepts or has connections; then it is let go.
    server: PyCellOpt,
    /// The server's `__dict__`.
    dict: PyCellOpt,
    as_started: Cell<[usize; 2]>,
    /// The server's class has no properties of the names that are looked up.
    plain: Cell<bool>,
    /// Keeps the hub's weak reference, which every greenlet that it spawns has, from being made anew.
    hub_reference: PyCellOpt,
    names: Names,
    environs: LocalCell<Option<Box<Environs>>>,
    /// Exchanges that are used again.
    pub spare: super::exchange::Spare,
    spawn: Cell<Spawn>,
    bounded: Cell<bool>,
    /// The server was asked to say when there is room.
    waiting: Cell<bool>,
}

/// Names of attributes that are looked up for every request; immortal strings.
struct Names {
    application: *mut PyObject,
    environ: *mut PyObject,
    log: *mut PyObject,
    spawn: *mut PyObject,
    full: *mut PyObject,
    handle: *mut PyObject,
    pool: *mut PyObject,
    add: *mut PyObject,
}

/// One request, ready to be served.
pub struct Request {
    /// Owned, or null if it could not be made.
    pub environ: *mut PyObject,
    pub input: Option<Py<Input>>,
    pub is_10: bool,
    pub is_head: bool,
    /// The request line, if it is to be logged.
    pub line: Option<Box<[u8]>>,
    /// The bytes of the head, for a connection that is handed over.
    pub upgrade: Option<Box<[u8]>>,
}

impl Drop for Request {
    fn drop(&mut self) {
        // SAFETY: an owned reference or null; dropped with the GIL held.
        unsafe { ffi::Py_XDECREF(self.environ) };
    }
}

impl Core {
    /// # Safety
    /// None but that the GIL is held, as it is where this is called.
    pub fn new() -> Rc<Self> {
        use super::text::interned;
        // SAFETY: the GIL is held.
        let names = unsafe {
            Names {
                application: interned(c"application"),
                environ: interned(c"environ"),
                log: interned(c"log"),
                spawn: interned(c"_spawn"),
                full: interned(c"full"),
                handle: interned(c"handle"),
                pool: interned(c"pool"),
                add: interned(c"add"),
            }
        };
        Rc::new(Core {
            server: PyCellOpt::new(None),
            dict: PyCellOpt::new(None),
            as_started: Cell::new([0; 2]),
            plain: Cell::new(false),
            hub_reference: PyCellOpt::new(None),
            names,
            environs: LocalCell::new(None),
            spare: super::exchange::Spare::default(),
            spawn: Cell::new(Spawn::Greenlet),
            bounded: Cell::new(false),
            waiting: Cell::new(false),
        })
    }

    /// Keeps the server while it is in use, and notes how it is.
    ///
    /// # Errors
    /// Of its `__dict__`.
    pub fn hold(&self, server: &Bound<'_, PyAny>) -> PyResult<()> {
        self.dict.set(Some(server.getattr("__dict__")?.unbind()));
        self.server.set(Some(server.clone().unbind()));
        self.plain.set(self.has_no_properties());
        if let Some(hub) = HubCore::current() {
            // SAFETY: the hub is alive and the GIL is held.
            let reference = unsafe {
                let made = ffi::PyWeakref_NewRef(hub.greenlet().cast(), null_mut());
                Bound::from_owned_ptr_or_err(server.py(), made)?
            };
            self.hub_reference.set(Some(reference.unbind()));
        }
        self.as_started.set(self.overrides());
        Ok(())
    }

    fn has_no_properties(&self) -> bool {
        let n = &self.names;
        [n.application, n.environ, n.log, n.spawn, n.full]
            .iter()
            .all(|&name| {
                // SAFETY: the server is alive; a borrowed look-up; the GIL is held.
                unsafe {
                    let found =
                        crate::raw::_PyType_Lookup(ffi::Py_TYPE(self.server.as_ptr()), name);
                    found.is_null() || (*ffi::Py_TYPE(found)).tp_descr_set.is_none()
                }
            })
    }

    /// What stands in the server's own dictionary in place of methods: addresses to compare, or 0.
    fn overrides(&self) -> [usize; 2] {
        let dict = self.dict.as_ptr();
        [self.names.spawn, self.names.handle].map(|name| {
            if dict.is_null() {
                return 0;
            }
            // SAFETY: a dictionary that is held, and a string; the GIL is held.
            unsafe { ffi::PyDict_GetItemWithError(dict, name) as usize }
        })
    }

    /// Whether neither `_spawn` nor `handle` was set since it was started.
    fn is_as_started(&self) -> bool {
        self.overrides() == self.as_started.get()
    }

    /// Sets who runs the application, and whether there may be no more of them.
    pub fn set_spawn(&self, spawn: Spawn, bounded: bool) {
        self.spawn.set(spawn);
        self.bounded.set(bounded);
    }

    /// There is room: the next time that there is none has to be told anew.
    pub fn found_room(&self) {
        self.waiting.set(false);
    }

    /// The `WSGIServer`; None when it is let go.
    pub fn server<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        match self.server.get(py) {
            Some(server) => server.into_bound(py),
            None => py.None().into_bound(py),
        }
    }

    /// An attribute of the server: a new reference, or null with an error set.
    ///
    /// # Safety
    /// The GIL is held; `name` is a string.
    #[inline]
    unsafe fn get(&self, name: *mut PyObject) -> *mut PyObject {
        let server = self.server.as_ptr();
        // SAFETY: the server is held while it is in use; the GIL is held.
        unsafe {
            let dict = self.dict.as_ptr();
            if self.plain.get() && !dict.is_null() {
                // No property stands before the instance's own values.
                let found = ffi::PyDict_GetItemWithError(dict, name);
                if !found.is_null() {
                    ffi::Py_INCREF(found);
                    return found;
                }
            }
            if server.is_null() {
                let text = c"the server is closed";
                ffi::PyErr_SetString(ffi::PyExc_RuntimeError, text.as_ptr());
                return null_mut();
            }
            ffi::PyObject_GetAttr(server, name)
        }
    }

    /// The application: a new reference, or null with an error set.
    ///
    /// # Safety
    /// The GIL is held.
    pub unsafe fn application(&self) -> *mut PyObject {
        // SAFETY: the caller's promise.
        unsafe { self.get(self.names.application) }
    }

    /// The access log: a new reference, or null for none.
    ///
    /// # Safety
    /// The GIL is held.
    pub unsafe fn log(&self) -> *mut PyObject {
        // SAFETY: the caller's promise.
        unsafe {
            let log = self.get(self.names.log);
            if log.is_null() {
                ffi::PyErr_Clear();
                return log;
            }
            if log == ffi::Py_None() || ffi::Py_TYPE(log) == super::log::noop_type() {
                ffi::Py_DECREF(log);
                return null_mut();
            }
            log
        }
    }

    /// # Safety
    /// The GIL is held; `input` is alive, and `bytes` are those that `head` was parsed of.
    unsafe fn make_environ(
        &self,
        conn: &Conn,
        head: &Head,
        bytes: &[u8],
        input: *mut PyObject,
    ) -> *mut PyObject {
        // SAFETY: the GIL is held. While the environ is made nothing is borrowed: garbage may be collected
        // then, which may run anything.
        unsafe {
            let base = self.get(self.names.environ);
            if base.is_null() {
                return base;
            }
            let mut environs = match self.environs.take() {
                Some(environs) => environs,
                None => Box::new(Environs::new(super::file_wrapper::class_ptr())),
            };
            let environ = environs.make(base, head, bytes, conn.peer(), input);
            let other = self.environs.with(|e| e.replace(environs));
            if let Some(mut other) = other {
                other.clear();
            }
            ffi::Py_DECREF(base);
            environ
        }
    }

    /// Makes a greenlet a member of the server's pool, which has room. `Err` with an error set.
    ///
    /// # Safety
    /// The GIL is held; the greenlet is held by the caller.
    unsafe fn join_pool(&self, greenlet: *mut PyObject) -> Result<(), ()> {
        // SAFETY: the caller's promise.
        unsafe {
            let pool = self.get(self.names.pool);
            if pool.is_null() {
                return Err(());
            }
            // Without waiting: this is the hub.
            let r = ffi::PyObject_CallMethodObjArgs(
                pool,
                self.names.add,
                greenlet,
                ffi::Py_False(),
                null_mut::<PyObject>(),
            );
            ffi::Py_DECREF(pool);
            ffi::Py_XDECREF(r);
            if r.is_null() { Err(()) } else { Ok(()) }
        }
    }

    /// Drops what was remembered.
    pub fn clear(&self) {
        if let Some(mut environs) = self.environs.take() {
            // SAFETY: called with the GIL held.
            unsafe { environs.clear() };
        }
        self.spare.clear();
        self.hub_reference.set(None);
    }

    /// Reports an error that is set, as of the server.
    pub fn report(&self, py: Python<'_>, error: PyErr, what: &str) {
        let done = glue(py, "report").and_then(|f| {
            let value = error.value(py);
            f.call1((self.server(py), what, value)).map(drop)
        });
        if let Err(e) = done {
            e.write_unraisable(py, Some(&self.server(py)));
        }
    }
}

/// The application.
pub struct App {
    /// What its exchanges share.
    pub core: Rc<Core>,
}

/// Puts the running greenlet's state in: the scheduler calls without.
#[inline]
fn install() -> &'static ThreadData {
    // SAFETY: called on the loop's thread with the GIL held.
    unsafe {
        let td = ThreadData::get();
        td.install(td.current.get());
        td
    }
}

impl Application for App {
    type Request = Request;

    fn prepare(&self, conn: &Rc<Conn>, head: &Head, bytes: &[u8]) -> Request {
        install();
        let mut request = Request {
            environ: null_mut(),
            input: None,
            is_10: head.version == Version::Http10,
            is_head: head.method.of(bytes) == b"HEAD",
            line: None,
            upgrade: None,
        };
        if head.upgrade || head.method.of(bytes) == b"CONNECT" {
            request.upgrade = Some(bytes.into());
            return request;
        }
        // SAFETY: the GIL is held.
        unsafe {
            let py = Python::assume_attached();
            let log = self.core.log();
            if !log.is_null() {
                ffi::Py_DECREF(log);
                let line = &bytes[..(head.block as usize).saturating_sub(2)];
                request.line = Some(line.into());
            }
            let input = match head.framing {
                Framing::None | Framing::Length(0) => input::empty(py),
                _ => {
                    let made = Input::of(py, conn, head.framing);
                    if let Ok(made) = &made {
                        request.input = Some(made.clone_ref(py));
                    }
                    made.map(|made| made.into_any().into_ptr())
                }
            };
            match input {
                Ok(input) => {
                    request.environ = self.core.make_environ(conn, head, bytes, input);
                    ffi::Py_DECREF(input);
                }
                Err(e) => e.restore(py),
            }
            if request.environ.is_null() {
                self.core.report(py, PyErr::fetch(py), "an environ");
            }
        }
        request
    }

    fn serve(&self, conn: Rc<Conn>, request: Request) {
        let td = install();
        // SAFETY: the GIL is held.
        let py = unsafe { Python::assume_attached() };
        if request.upgrade.is_some() {
            return self.hand_over(py, &conn, request, false);
        }
        if request.environ.is_null() {
            return conn.close();
        }
        // SAFETY: the GIL is held; `session` is an owned reference.
        unsafe {
            let session = Session::new(conn.clone(), self.core.clone(), request);
            if session.is_null() {
                conn.close();
                return self.core.report(py, PyErr::fetch(py), "a session");
            }
            let done = match self.core.spawn.get() {
                Spawn::Greenlet => gevent_greenlet::spawn_now(td, session.cast(), |_| Ok(())),
                Spawn::Member => {
                    gevent_greenlet::spawn_now(td, session.cast(), |g| self.core.join_pool(g))
                }
                Spawn::Call => {
                    let spawn = self.core.get(self.core.names.spawn);
                    let greenlet = if spawn.is_null() {
                        spawn
                    } else {
                        call_one_at_bottom(spawn, session.cast())
                    };
                    ffi::Py_XDECREF(spawn);
                    ffi::Py_XDECREF(greenlet);
                    if greenlet.is_null() { Err(()) } else { Ok(()) }
                }
                Spawn::Hub => {
                    let r = ffi::PyObject_CallNoArgs(session.cast());
                    ffi::Py_XDECREF(r);
                    if r.is_null() { Err(()) } else { Ok(()) }
                }
            };
            ffi::Py_DECREF(session.cast());
            if done.is_err() {
                self.core.report(py, PyErr::fetch(py), "a greenlet");
                conn.close();
            }
            td.empty_drops();
        }
    }

    fn is_full(&self) -> bool {
        if !self.core.bounded.get() {
            return false;
        }
        install();
        // SAFETY: the GIL is held.
        unsafe {
            let method = self.core.get(self.core.names.full);
            let full = if method.is_null() {
                method
            } else {
                ffi::PyObject_CallNoArgs(method)
            };
            ffi::Py_XDECREF(method);
            if full.is_null() {
                // The server is closed.
                ffi::PyErr_Clear();
                return false;
            }
            let is_full = ffi::PyObject_IsTrue(full) == 1;
            ffi::Py_DECREF(full);
            if is_full && !self.core.waiting.replace(true) {
                let py = Python::assume_attached();
                let server = self.core.server(py);
                if let Err(e) = glue(py, "wait_for_room").and_then(|f| f.call1((&server,))) {
                    e.write_unraisable(py, Some(&server));
                }
            }
            is_full
        }
    }

    fn refused(&self, conn: &Conn, reject: Reject, line: &[u8]) {
        install();
        // SAFETY: the GIL is held.
        let py = unsafe { Python::assume_attached() };
        let done = glue(py, "refused").and_then(|f| {
            let address = raise::address(py, conn.peer())?;
            let line = super::parser::latin1(py, &line[..line.len().min(8192)]);
            f.call1((
                self.core.server(py),
                address,
                conn.fd(),
                reject.status,
                reject.reason,
                line,
            ))
            .map(drop)
        });
        if let Err(e) = done {
            e.write_unraisable(py, Some(&self.core.server(py)));
        }
    }

    fn take(&self, fd: RawFd, peer: Peer) -> bool {
        install();
        // SAFETY: the GIL is held.
        let py = unsafe { Python::assume_attached() };
        if self.core.is_as_started() {
            return false;
        }
        let done = glue(py, "accepted").and_then(|f| {
            f.call1((self.core.server(py), fd, raise::address(py, peer)?))
                .map(drop)
        });
        if let Err(e) = done {
            self.core.report(py, e, "a connection");
        }
        true
    }

    fn over(&self) {
        self.core.dict.set(None);
        if let Some(server) = self.core.server.take() {
            // SAFETY: the GIL is held. It is dropped when Python may run.
            unsafe { ThreadData::get().drop_later(server.into_ptr()) };
        }
    }

    fn accept_failed(&self, errno: i32) {
        install();
        // SAFETY: the GIL is held.
        let py = unsafe { Python::assume_attached() };
        let done = glue(py, "accept_failed")
            .and_then(|f| f.call1((self.core.server(py), errno)).map(drop));
        if let Err(e) = done {
            e.write_unraisable(py, Some(&self.core.server(py)));
        }
    }
}

impl App {
    /// Gives a connection that is to speak something else to a handler of Python's, with the head and all that
    /// came behind it. `here`: in the running greenlet, else in a new one.
    pub fn hand_over(&self, py: Python<'_>, conn: &Rc<Conn>, mut request: Request, here: bool) {
        let mut data = Vec::from(request.upgrade.take().unwrap_or_default());
        data.extend(conn.take_rest());
        // The answers to what came before it in a pipeline.
        if here && conn.flush(&Greenlets).is_err() {
            // SAFETY: the GIL is held. The client is gone, or the greenlet is being killed.
            unsafe { ffi::PyErr_Clear() };
            return conn.close();
        }
        let peer = conn.peer();
        if conn.is_tls() {
            let done = glue(py, "tunnel").and_then(|f| {
                let tunnel = super::tunnel::Tunnel::new(conn.clone());
                let data = pyo3::types::PyBytes::new(py, &data);
                f.call1((
                    self.core.server(py),
                    tunnel,
                    raise::address(py, peer)?,
                    data,
                    here,
                ))
                .map(drop)
            });
            if let Err(e) = done {
                conn.close();
                self.core.report(py, e, "an upgrade");
            }
            return;
        }
        let fd = conn.detach();
        let done = glue(py, "take_over").and_then(|f| {
            let data = pyo3::types::PyBytes::new(py, &data);
            f.call1((
                self.core.server(py),
                fd,
                raise::address(py, peer)?,
                data,
                here,
            ))
            .map(drop)
        });
        if let Err(e) = done {
            // SAFETY: nobody has taken the descriptor.
            unsafe { libc::close(fd) };
            self.core.report(py, e, "an upgrade");
        }
    }
}
