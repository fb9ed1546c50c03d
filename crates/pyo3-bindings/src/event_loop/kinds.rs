//! The kinds of watchers, each a thin subclass of [`Watcher`].

use super::{Loop, Watcher, events_to_str, nanos};
use crate::cells::{GilCell, PyCellOpt};
use gevent_hub_core::event_loop::Interest;
use gevent_hub_core::reactor::WatcherKind;
use pyo3::exceptions::{PyAttributeError, PyOSError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStringExt;

const READ: u32 = 1;
const WRITE: u32 = 2;
const IOFDSET: u32 = 0x80;

fn interest(events: u32) -> Interest {
    let mut want = Interest::NONE;
    if events & READ != 0 {
        want = want.with(Interest::READ);
    }
    if events & WRITE != 0 {
        want = want.with(Interest::WRITE);
    }
    want
}

fn check_fd(fd: i64) -> PyResult<RawFd> {
    let Some(fd) = RawFd::try_from(fd).ok().filter(|&fd| fd >= 0) else {
        let text = format!("fd must be non-negative: {fd}");
        return Err(PyValueError::new_err(text));
    };
    // SAFETY: F_GETFD reads a flag of a number.
    if unsafe { libc::fcntl(fd, libc::F_GETFD) } == -1 {
        return Err(PyOSError::new_err((
            libc::EBADF,
            format!("Invalid file descriptor {fd}"),
        )));
    }
    Ok(fd)
}

fn read_only(name: &str) -> PyErr {
    PyAttributeError::new_err(format!(
        "'io' watcher attribute '{name}' is read-only while watcher is active"
    ))
}

/// Watches a descriptor: 1 for reading, 2 for writing, 3 for both.
#[pyclass(extends = Watcher, subclass, frozen, module = "gevent._core", name = "io")]
pub struct Io {
    fd: GilCell<RawFd>,
    events: GilCell<u32>,
}

#[crate::entry]
#[pymethods]
impl Io {
    #[new]
    #[pyo3(signature = (r#loop, fd, events, r#ref = true, priority = None))]
    fn new(
        r#loop: &Bound<'_, Loop>,
        fd: i64,
        events: i64,
        #[pyo3(from_py_with = super::truth)] r#ref: bool,
        priority: Option<i32>,
    ) -> PyResult<PyClassInitializer<Self>> {
        if fd >= 0 && events & !i64::from(READ | WRITE | IOFDSET) != 0 {
            return Err(PyValueError::new_err(format!(
                "illegal event mask: {events}"
            )));
        }
        let fd = check_fd(fd)?;
        let events = events as u32;
        let base = Watcher::create(
            r#loop,
            WatcherKind::Io {
                fd,
                want: interest(events),
            },
            r#ref,
            priority,
        )?;
        let me = Io {
            fd: GilCell::new(fd),
            events: GilCell::new(events | IOFDSET),
        };
        Ok(PyClassInitializer::from(base).add_subclass(me))
    }

    /// `pass_events=True` puts the events before the other arguments of the callback.
    #[pyo3(signature = (callback, *args, pass_events = false))]
    fn start(
        slf: &Bound<'_, Self>,
        callback: &Bound<'_, PyAny>,
        args: Bound<'_, PyTuple>,
        #[pyo3(from_py_with = super::truth)] pass_events: bool,
    ) -> PyResult<()> {
        let py = slf.py();
        let args = if pass_events {
            let mut items = vec![super::events_marker(py)?.clone()];
            items.extend(args.iter());
            PyTuple::new(py, items)?
        } else {
            args
        };
        Watcher::start_with(slf.as_super(), callback, args, false)
    }

    #[getter]
    fn get_fd(&self) -> RawFd {
        self.fd.get()
    }

    #[setter]
    fn set_fd(slf: &Bound<'_, Self>, fd: i64) -> PyResult<()> {
        let (_, reactor, id) = slf.as_super().get().own_place(slf.py())?;
        if reactor.is_active(id) {
            return Err(read_only("fd"));
        }
        let fd = check_fd(fd)?;
        slf.get().fd.set(fd);
        slf.get().events.set(slf.get().events.get() | IOFDSET);
        reactor.set_io(id, fd, interest(slf.get().events.get()));
        Ok(())
    }

    #[getter]
    fn get_events(&self) -> u32 {
        self.events.get()
    }

    #[setter]
    fn set_events(slf: &Bound<'_, Self>, events: u32) -> PyResult<()> {
        let (_, reactor, id) = slf.as_super().get().own_place(slf.py())?;
        if reactor.is_active(id) {
            return Err(read_only("events"));
        }
        slf.get().events.set(events | IOFDSET);
        reactor.set_io(id, slf.get().fd.get(), interest(events));
        Ok(())
    }

    #[getter]
    fn events_str(&self) -> String {
        events_to_str(self.events.get())
    }

    fn _format(&self) -> String {
        format!(" fd={} events={}", self.fd.get(), self.events_str())
    }
}

/// Fires after `after` seconds, then each `repeat` seconds.
#[pyclass(extends = Watcher, subclass, frozen, module = "gevent._core", name = "timer")]
pub struct Timer;

#[crate::entry]
#[pymethods]
impl Timer {
    #[new]
    #[pyo3(signature = (r#loop, after = 0.0, repeat = 0.0, r#ref = true, priority = None))]
    fn new(
        r#loop: &Bound<'_, Loop>,
        after: f64,
        repeat: f64,
        #[pyo3(from_py_with = super::truth)] r#ref: bool,
        priority: Option<i32>,
    ) -> PyResult<PyClassInitializer<Self>> {
        if repeat < 0.0 {
            return Err(PyValueError::new_err(format!(
                "repeat must be positive or zero: {repeat:?}"
            )));
        }
        let kind = WatcherKind::Timer {
            after: nanos(after),
            repeat: nanos(repeat),
        };
        Ok(
            PyClassInitializer::from(Watcher::create(r#loop, kind, r#ref, priority)?)
                .add_subclass(Timer),
        )
    }

    /// `update=True` refreshes the loop's time first; by default only while callbacks run.
    #[pyo3(signature = (callback, *args, update = None))]
    fn start(
        slf: &Bound<'_, Self>,
        callback: &Bound<'_, PyAny>,
        args: Bound<'_, PyTuple>,
        #[pyo3(from_py_with = super::truth_or_none)] update: Option<bool>,
    ) -> PyResult<()> {
        Self::begin(slf, callback, args, update, false)
    }

    /// As `start`, but a running repeat timer begins anew.
    #[pyo3(signature = (callback, *args, update = None))]
    fn again(
        slf: &Bound<'_, Self>,
        callback: &Bound<'_, PyAny>,
        args: Bound<'_, PyTuple>,
        #[pyo3(from_py_with = super::truth_or_none)] update: Option<bool>,
    ) -> PyResult<()> {
        Self::begin(slf, callback, args, update, true)
    }

    /// When it fires, in seconds of the loop's clock.
    #[getter]
    fn at(slf: &Bound<'_, Self>) -> PyResult<f64> {
        let base = slf.as_super().get();
        let (l, reactor, id) = base.own_place(slf.py())?;
        let at = reactor.now().saturating_add(reactor.remaining(id));
        Ok(l.get().wall_seconds(at))
    }
}

impl Timer {
    fn begin(
        slf: &Bound<'_, Self>,
        callback: &Bound<'_, PyAny>,
        args: Bound<'_, PyTuple>,
        update: Option<bool>,
        again: bool,
    ) -> PyResult<()> {
        let base = slf.as_super();
        let (_, reactor, _) = base.get().own_place(slf.py())?;
        if update.unwrap_or_else(|| reactor.in_queue()) {
            reactor.update_now();
        }
        Watcher::start_with(base, callback, args, again)
    }
}

/// Fires when the process receives a signal.
#[pyclass(extends = Watcher, subclass, frozen, module = "gevent._core", name = "signal")]
pub struct Signal;

#[crate::entry]
#[pymethods]
impl Signal {
    #[new]
    #[pyo3(signature = (r#loop, signalnum, r#ref = true, priority = None))]
    fn new(
        r#loop: &Bound<'_, Loop>,
        signalnum: i32,
        #[pyo3(from_py_with = super::truth)] r#ref: bool,
        priority: Option<i32>,
    ) -> PyResult<PyClassInitializer<Self>> {
        if !(1..65).contains(&signalnum) {
            return Err(PyValueError::new_err(format!(
                "illegal signal number: {signalnum}"
            )));
        }
        let kind = WatcherKind::Signal { signum: signalnum };
        Ok(
            PyClassInitializer::from(Watcher::create(r#loop, kind, r#ref, priority)?)
                .add_subclass(Signal),
        )
    }
}

macro_rules! plain_kind {
    ($(#[$doc:meta] $name:ident, $py:literal, $kind:expr;)*) => {$(
        #[$doc]
        #[pyclass(extends = Watcher, subclass, frozen, module = "gevent._core", name = $py)]
        pub struct $name;

        #[crate::entry]
        #[pymethods]
        impl $name {
            #[new]
            #[pyo3(signature = (r#loop, r#ref = true, priority = None))]
            fn new(r#loop: &Bound<'_, Loop>, #[pyo3(from_py_with = super::truth)] r#ref: bool, priority: Option<i32>) -> PyResult<PyClassInitializer<Self>> {
                let base = Watcher::create(r#loop, $kind, r#ref, priority)?;
                Ok(PyClassInitializer::from(base).add_subclass($name))
            }
        }
    )*};
}

plain_kind! {
    #[doc = "Fires when nothing of its priority or a higher one is pending."] Idle, "idle", WatcherKind::Idle;
    #[doc = "Fires before the loop waits."] Prepare, "prepare", WatcherKind::Prepare;
    #[doc = "Fires after the loop has waited."] Check, "check", WatcherKind::Check;
    #[doc = "Fires in a forked child."] Fork, "fork", WatcherKind::Fork;
}

/// Fires when `send` was called, from any thread.
#[pyclass(extends = Watcher, subclass, frozen, module = "gevent._core", name = "async_")]
pub struct Async;

#[crate::entry]
#[pymethods]
impl Async {
    #[new]
    #[pyo3(signature = (r#loop, r#ref = true, priority = None))]
    fn new(
        r#loop: &Bound<'_, Loop>,
        #[pyo3(from_py_with = super::truth)] r#ref: bool,
        priority: Option<i32>,
    ) -> PyResult<PyClassInitializer<Self>> {
        Ok(PyClassInitializer::from(Watcher::create(
            r#loop,
            WatcherKind::Async,
            r#ref,
            priority,
        )?)
        .add_subclass(Async))
    }

    /// Makes it fire; safe from any thread.
    ///
    /// Nothing comes of it once the watcher is closed: a thread that sends cannot know.
    fn send(slf: &Bound<'_, Self>) -> PyResult<()> {
        let base = slf.as_super().get();
        if base.is_closed() {
            return Ok(());
        }
        let (l, reactor, id) = base.place(slf.py())?;
        if l.get().on_thread() {
            reactor.send(id);
        } else if let Some(handle) = reactor.async_handle(id) {
            handle.send();
        }
        Ok(())
    }

    /// `send` with an argument that does not count, for `rawlink`.
    fn send_ignoring_arg(slf: &Bound<'_, Self>, _ignored: &Bound<'_, PyAny>) -> PyResult<()> {
        slf.call_method0("send").map(drop)
    }
}

/// Fires when a child process ends.
#[pyclass(extends = Watcher, subclass, frozen, module = "gevent._core", name = "child")]
pub struct Child {
    pid: i32,
    rpid: GilCell<Option<i32>>,
    rstatus: GilCell<Option<i32>>,
}

#[crate::entry]
#[pymethods]
impl Child {
    #[new]
    #[pyo3(signature = (r#loop, pid, trace = 0, r#ref = true, anywhere = false))]
    fn new(
        r#loop: &Bound<'_, Loop>,
        pid: i32,
        trace: i32,
        #[pyo3(from_py_with = super::truth)] r#ref: bool,
        anywhere: bool,
    ) -> PyResult<PyClassInitializer<Self>> {
        if !anywhere && !r#loop.get().is_default() {
            return Err(PyTypeError::new_err(
                "child watchers are only available on the default loop",
            ));
        }
        let kind = WatcherKind::Child {
            pid,
            trace: trace != 0,
        };
        let base = Watcher::create(r#loop, kind, r#ref, None)?;
        let me = Child {
            pid,
            rpid: GilCell::new(None),
            rstatus: GilCell::new(None),
        };
        Ok(PyClassInitializer::from(base).add_subclass(me))
    }

    /// The process that is watched; 0 for all.
    #[getter]
    fn pid(&self) -> i32 {
        self.pid
    }

    /// The process that ended.
    #[getter]
    fn get_rpid(slf: &Bound<'_, Self>) -> i32 {
        let seen = slf
            .as_super()
            .get()
            .parts(slf.py())
            .ok()
            .map(|(r, id)| r.child_status(id).0);
        slf.get().rpid.get().or(seen).unwrap_or(0)
    }

    #[setter]
    fn set_rpid(&self, value: i32) {
        self.rpid.set(Some(value));
    }

    /// Its status, as waitpid(2) gives it.
    #[getter]
    fn get_rstatus(slf: &Bound<'_, Self>) -> i32 {
        let seen = slf
            .as_super()
            .get()
            .parts(slf.py())
            .ok()
            .map(|(r, id)| r.child_status(id).1);
        slf.get().rstatus.get().or(seen).unwrap_or(0)
    }

    #[setter]
    fn set_rstatus(&self, value: i32) {
        self.rstatus.set(Some(value));
    }

    /// Closes it; what was received stays readable.
    fn close(slf: &Bound<'_, Self>) {
        if let Ok((r, id)) = slf.as_super().get().parts(slf.py()) {
            let (pid, status) = r.child_status(id);
            let me = slf.get();
            me.rpid.set(me.rpid.get().or(Some(pid)));
            me.rstatus.set(me.rstatus.get().or(Some(status)));
        }
        Watcher::close(slf.as_super());
    }

    fn _format(slf: &Bound<'_, Self>) -> String {
        format!(" pid={} rstatus={}", slf.get().pid, Self::get_rstatus(slf))
    }
}

/// Fires when what a path names changes, as far as stat(2) tells; polled each `interval` seconds.
#[pyclass(extends = Watcher, subclass, frozen, module = "gevent._core", name = "stat")]
pub struct Stat {
    path: PyCellOpt,
    encoded: PyCellOpt,
    interval: GilCell<f64>,
}

#[crate::entry]
#[pymethods]
impl Stat {
    #[new]
    #[pyo3(signature = (r#loop, path, interval = 0.0, r#ref = true, priority = None))]
    fn new(
        r#loop: &Bound<'_, Loop>,
        path: &Bound<'_, PyAny>,
        interval: f64,
        #[pyo3(from_py_with = super::truth)] r#ref: bool,
        priority: Option<i32>,
    ) -> PyResult<PyClassInitializer<Self>> {
        let py = r#loop.py();
        let encoded = py.import("os")?.call_method1("fsencode", (path,))?;
        let kind = WatcherKind::Stat {
            path: std::ffi::OsString::from_vec(encoded.extract::<Vec<u8>>()?).into(),
            interval: nanos(interval),
        };
        let base = Watcher::create(r#loop, kind, r#ref, priority)?;
        let me = Stat {
            path: PyCellOpt::new(Some(path.clone().unbind())),
            encoded: PyCellOpt::new(Some(encoded.unbind())),
            interval: GilCell::new(interval),
        };
        Ok(PyClassInitializer::from(base).add_subclass(me))
    }

    #[getter]
    fn path(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.path.get(py)
    }

    #[getter]
    fn _paths(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.encoded.get(py)
    }

    /// Seconds between two looks; what was asked for until it is started, then what is used.
    #[getter]
    fn interval(slf: &Bound<'_, Self>) -> f64 {
        // The reactor has none before it starts, and then what it really uses.
        let used = slf.as_super().get().parts(slf.py()).ok();
        let used = used
            .and_then(|(r, id)| r.stat_path(id))
            .map(|(_, ns)| ns)
            .filter(|&ns| ns != 0);
        if let Some(ns) = used {
            slf.get().interval.set(ns as f64 / 1e9);
        }
        slf.get().interval.get()
    }

    /// The last `os.stat_result`, or None if there is no such file.
    #[getter]
    fn attr(slf: &Bound<'_, Self>) -> PyResult<Option<Py<PyAny>>> {
        let (r, id) = slf.as_super().get().parts(slf.py())?;
        stat_result(slf.py(), r.stat_attributes(id).0)
    }

    /// The one before.
    #[getter]
    fn prev(slf: &Bound<'_, Self>) -> PyResult<Option<Py<PyAny>>> {
        let (r, id) = slf.as_super().get().parts(slf.py())?;
        stat_result(slf.py(), r.stat_attributes(id).1)
    }
}

fn stat_result(py: Python<'_>, st: Option<libc::stat>) -> PyResult<Option<Py<PyAny>>> {
    let Some(st) = st.filter(|st| st.st_nlink != 0) else {
        return Ok(None);
    };
    let fields = (
        st.st_mode,
        st.st_ino,
        st.st_dev,
        st.st_nlink,
        st.st_uid,
        st.st_gid,
        st.st_size,
        st.st_atime,
        st.st_mtime,
        st.st_ctime,
    );
    let extra = PyDict::new(py);
    extra.set_item(
        "st_mtime",
        st.st_mtime as f64 + st.st_mtime_nsec as f64 / 1e9,
    )?;
    extra.set_item(
        "st_atime",
        st.st_atime as f64 + st.st_atime_nsec as f64 / 1e9,
    )?;
    extra.set_item(
        "st_ctime",
        st.st_ctime as f64 + st.st_ctime_nsec as f64 / 1e9,
    )?;
    Ok(Some(
        py.import("os")?
            .getattr("stat_result")?
            .call1((fields, extra))?
            .unbind(),
    ))
}

/// Adds the classes to a module.
pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<Watcher>()?;
    m.add_class::<Io>()?;
    m.add_class::<Timer>()?;
    m.add_class::<Signal>()?;
    m.add_class::<Idle>()?;
    m.add_class::<Prepare>()?;
    m.add_class::<Check>()?;
    m.add_class::<Fork>()?;
    m.add_class::<Async>()?;
    m.add_class::<Child>()?;
    m.add_class::<Stat>()
}
