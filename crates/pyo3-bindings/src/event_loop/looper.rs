//! [`Loop`]: one reactor as a Python object.
//!
//! A loop belongs to the thread that made it. From other threads it takes callbacks
//! (`run_callback_threadsafe`, and `run_callback`, which then is the same) and stops of watchers, which
//! travel through the reactor's remote queue; everything else there is an error of the caller's.

use super::alarm::Alarm;
use super::payload::Owner;
use super::{Callback, LoopHost, Payload, nanos};
use crate::cells::{Born, GilCell, PyCellOpt};
use crate::errors::io_error;
use crate::hub::{HubCore, HubRef};
use crate::thread_data::ThreadData;
use gevent_hub_core::event_loop::Loop as Backend;
use gevent_hub_core::reactor::{Entry, Nanos, Reactor, Remote, RunMode, WatcherId};
use pyo3::exceptions::{PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use std::cell::{RefCell, UnsafeCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;

thread_local! {
    static THREAD: u8 = const { 0 };
}

/// A number that differs between living threads.
pub fn thread_mark() -> usize {
    THREAD.with(|t| std::ptr::from_ref(t) as usize)
}

thread_local! {
    /// The reactors that this thread made.
    static REACTORS: RefCell<Vec<Weak<Reactor>>> = const { RefCell::new(Vec::new()) };
}

fn note(reactor: &Rc<Reactor>) {
    REACTORS.with_borrow_mut(|all| {
        all.retain(|r| r.strong_count() > 0);
        all.push(Rc::downgrade(reactor));
    });
}

/// The thread ends: nothing will run its loops any more, whoever still refers to them. Their kernel objects are freed.
pub fn thread_ends() {
    for reactor in REACTORS.take() {
        if let Some(reactor) = reactor.upgrade() {
            reactor.destroy();
        }
    }
}

/// An event loop. `gevent.core.loop` is its public subclass.
#[pyclass(
    subclass,
    frozen,
    weakref,
    dict,
    module = "gevent._core",
    name = "Loop"
)]
pub struct Loop {
    reactor: UnsafeCell<Option<Rc<Reactor>>>,
    remote: Born<Arc<Remote>>,
    thread: GilCell<usize>,
    default: bool,
    /// Difference between the wall clock and the monotonic one when the loop was made, in nanoseconds.
    epoch: GilCell<i128>,
    /// The hub that parks fibers on this loop, while there is one.
    hub: UnsafeCell<Option<Rc<HubCore>>>,
    error_handler: PyCellOpt,
    alarm: Born<Alarm>,
    /// The backend's descriptor, or -1; other threads may ask while the backend waits.
    fd: GilCell<i32>,
}

// SAFETY: the reactor is touched only by its own thread, with the GIL held except inside the backend's
// wait, where no other thread gets at it: `reactor()` is for the owner, and foreign threads use `remote`
// or counters that are plain reads.
unsafe impl Send for Loop {}
// SAFETY: as above.
unsafe impl Sync for Loop {}

fn clock(id: libc::clockid_t) -> i128 {
    let mut ts = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: writes one timespec.
    unsafe { libc::clock_gettime(id, &raw mut ts) };
    i128::from(ts.tv_sec) * 1_000_000_000 + i128::from(ts.tv_nsec)
}

fn wall_offset() -> i128 {
    clock(libc::CLOCK_REALTIME) - clock(libc::CLOCK_MONOTONIC)
}

/// The loop of this name; `None` if there is no such name.
fn by_name(name: &str) -> Option<std::io::Result<Box<dyn Backend>>> {
    /// A loop that other systems have.
    #[cfg(not(target_os = "linux"))]
    const ELSEWHERE: [&str; 2] = ["epoll", "uring"];
    let kqueue = || gevent_loop_kqueue::KqueueLoop::new().map(|l| Box::new(l) as _);
    Some(match name {
        #[cfg(target_os = "linux")]
        "auto" | "epoll" => gevent_loop_epoll::EpollLoop::new().map(|l| Box::new(l) as _),
        #[cfg(target_os = "linux")]
        "uring" => gevent_loop_uring::UringLoop::new().map(|l| Box::new(l) as _),
        #[cfg(not(target_os = "linux"))]
        "auto" => kqueue(),
        #[cfg(not(target_os = "linux"))]
        name if ELSEWHERE.contains(&name) => Err(std::io::Error::from_raw_os_error(libc::ENOSYS)),
        "kqueue" => kqueue(),
        _ => return None,
    })
}

/// Makes the backend that `names` asks for, the first that the machine has.
pub fn backend(names: &[String]) -> PyResult<Box<dyn Backend>> {
    let mut refused = Vec::new();
    for name in names {
        // On Linux it is an emulation, for tests, which only who asks for it alone can want: a list of loops is
        // one for several systems.
        let elsewhere = cfg!(target_os = "linux") && name == "kqueue" && names.len() > 1;
        let made = if elsewhere {
            Some(Err(std::io::Error::from_raw_os_error(libc::ENOSYS)))
        } else {
            by_name(name)
        };
        match made {
            Some(Ok(backend)) => return Ok(backend),
            Some(Err(e)) => refused.push((name, e)),
            None => {
                return Err(PyValueError::new_err(format!(
                    "unknown loop {name:?}; there are: {}",
                    available().join(", ")
                )));
            }
        }
    }
    let text: Vec<String> = refused.iter().map(|(n, e)| format!("{n}: {e}")).collect();
    let code = refused.last().and_then(|(_, e)| errno_of(e));
    let text = format!("no event loop could be made ({})", text.join("; "));
    Err(match code {
        Some(code) => PyOSError::new_err((code, text)),
        None => PyOSError::new_err(text),
    })
}

/// The errno of a backend that was refused.
fn errno_of(e: &std::io::Error) -> Option<i32> {
    let inner = e.get_ref();
    let readiness = || Some(inner?.downcast_ref::<gevent_hub_core::os::Refused>()?.errno);
    #[cfg(target_os = "linux")]
    let uring = || Some(inner?.downcast_ref::<gevent_loop_uring::Refused>()?.errno);
    #[cfg(not(target_os = "linux"))]
    let uring = || None;
    e.raw_os_error().or_else(readiness).or_else(uring)
}

fn available() -> Vec<&'static str> {
    if cfg!(target_os = "linux") {
        vec!["epoll", "uring", "kqueue"]
    } else {
        vec!["kqueue"]
    }
}

impl Loop {
    /// Its reactor, for the thread that owns it.
    ///
    /// # Errors
    /// `ValueError` when it was destroyed.
    pub fn reactor(&self) -> PyResult<Rc<Reactor>> {
        // SAFETY: the GIL orders this with `destroy`, the only writer.
        unsafe { (*self.reactor.get()).clone() }
            .ok_or_else(|| PyValueError::new_err("operation on destroyed loop"))
    }

    /// The same, borrowed: for hot paths that do not destroy it.
    #[inline]
    pub fn reactor_ref(&self) -> Option<&Rc<Reactor>> {
        // SAFETY: as above; callers keep no reference across Python code.
        unsafe { (*self.reactor.get()).as_ref() }
    }

    /// Whether the calling thread owns it.
    #[inline]
    pub fn on_thread(&self) -> bool {
        self.thread.get() == thread_mark()
    }

    /// # Errors
    /// `RuntimeError` on a thread that does not own it.
    pub fn check_thread(&self) -> PyResult<()> {
        if self.on_thread() {
            return Ok(());
        }
        Err(PyRuntimeError::new_err(
            "this loop belongs to another thread; use run_callback_threadsafe to reach it",
        ))
    }

    /// Runs `f` on the loop's thread, soon. False if the loop has ended.
    pub fn later(&self, f: impl FnOnce(&Reactor) + 'static) -> bool {
        let Some(reactor) = self.reactor_ref() else {
            return false;
        };
        // The job runs on the reactor's own thread while it lives, so a pointer does.
        let reactor: *const Reactor = Rc::as_ptr(reactor);
        // SAFETY: queue entries run only while the reactor lives.
        let job: super::payload::Job = Box::new(move || f(unsafe { &*reactor }));
        let word = Payload::Job(Box::new(job)).into_word();
        let sent = self.remote.push(Entry::Call(word));
        if !sent {
            // SAFETY: nobody else has it.
            unsafe { Payload::from_word(word) }.discard();
        }
        sent
    }

    /// Removes a watcher, from whatever thread.
    pub fn remove(&self, id: WatcherId) {
        let Some(r) = self.reactor_ref() else {
            return;
        };
        if self.may_stop(r, id) {
            r.remove(id);
        } else {
            self.later(move |r| r.remove(id));
        }
    }

    /// Whether the calling thread may stop a watcher by itself: its own, and of another thread's loop those
    /// that the backend does not know. The GIL guards everything but the backend, which that loop may be
    /// waiting in.
    pub fn may_stop(&self, reactor: &Reactor, id: WatcherId) -> bool {
        self.on_thread() || !reactor.is_with_backend(id)
    }

    /// The handle for other threads.
    pub fn remote(&self) -> &Arc<Remote> {
        &self.remote
    }

    /// Whether it is the process's default loop.
    pub fn is_default(&self) -> bool {
        self.default
    }

    /// The hub that parks fibers on it.
    pub fn hub(&self) -> Option<HubRef> {
        // SAFETY: only the loop's thread gets here, with the GIL held.
        unsafe { (*self.hub.get()).as_ref() }.map(|hub| HubRef::new(hub))
    }

    /// Attaches or detaches the hub.
    pub fn set_hub(&self, hub: Option<Rc<HubCore>>) {
        // SAFETY: as `hub`; the old one is dropped when the cell is whole again.
        let old = unsafe { std::mem::replace(&mut *self.hub.get(), hub) };
        drop(old);
    }

    /// What ends its sleep when a signal comes.
    pub fn alarm(&self) -> &Alarm {
        &self.alarm
    }

    /// A moment of the monotonic clock as seconds since the epoch, as libev's ev_now is.
    pub fn wall_seconds(&self, at: Nanos) -> f64 {
        (i128::from(at) + self.epoch.get()) as f64 / 1e9
    }

    fn enqueue(
        slf: &Bound<'_, Self>,
        func: Py<PyAny>,
        args: Bound<'_, PyTuple>,
        remote: bool,
    ) -> PyResult<Py<PyAny>> {
        let me = slf.get();
        let reactor = me.reactor()?;
        let callback = Bound::new(slf.py(), Callback::new(func, args.unbind()))?.into_any();
        let entry = Entry::Call(Payload::Callback(callback.clone().into_ptr()).into_word());
        if remote || !me.on_thread() {
            me.remote.push(entry);
        } else {
            reactor.push(entry);
        }
        Ok(callback.unbind())
    }

    /// Calls the loop's `handle_error`.
    ///
    /// # Errors
    /// What the handler raises.
    pub fn handle_error_of(
        slf: &Bound<'_, Self>,
        context: &Bound<'_, PyAny>,
        error: PyErr,
    ) -> PyResult<()> {
        let py = slf.py();
        let (t, v, tb) = (error.get_type(py), error.value(py), error.traceback(py));
        slf.call_method1("handle_error", (context, t, v, tb))
            .map(drop)
    }
}

#[crate::entry]
#[pymethods]
impl Loop {
    /// `names`: loops in order of preference. `default`: whether it may watch child processes.
    #[new]
    #[pyo3(signature = (names, default = false))]
    fn new(names: Vec<String>, default: bool) -> PyResult<Self> {
        let reactor = Reactor::new(backend(&names)?).map_err(|e| io_error(&e))?;
        note(&reactor);
        // SAFETY: the GIL is held.
        unsafe { ThreadData::get() }
            .on_exit
            .set(Some(crate::hub::thread_ends));
        let remote = reactor.remote();
        Ok(Loop {
            reactor: UnsafeCell::new(Some(reactor)),
            remote: Born::new(remote),
            thread: GilCell::new(thread_mark()),
            default,
            epoch: GilCell::new(wall_offset()),
            hub: UnsafeCell::new(None),
            error_handler: PyCellOpt::new(None),
            alarm: Born::new(Alarm::new()),
            fd: GilCell::new(-1),
        })
    }

    /// Runs until nothing is left to wait for, or for one iteration.
    #[pyo3(signature = (nowait = false, once = false))]
    fn run(
        slf: &Bound<'_, Self>,
        #[pyo3(from_py_with = super::truth)] nowait: bool,
        #[pyo3(from_py_with = super::truth)] once: bool,
    ) -> PyResult<bool> {
        let me = slf.get();
        me.check_thread()?;
        let reactor = me.reactor()?;
        let mode = match (nowait, once) {
            (true, _) => RunMode::NoWait,
            (_, true) => RunMode::Once,
            _ => RunMode::Default,
        };
        let host = LoopHost::new(slf);
        host.run(&reactor, mode).map_err(|e| io_error(&e))
    }

    /// Rebuilds it in a forked child.
    fn reinit(&self, py: Python<'_>) -> PyResult<()> {
        self.check_thread()?;
        if let Some(reactor) = self.reactor_ref() {
            let reactor = reactor.clone();
            reactor.after_fork().map_err(|e| io_error(&e))?;
            self.alarm.renew(py, &reactor);
            if self.fd.get() >= 0 {
                self.fd.set(reactor.as_raw_fd().unwrap_or(-1));
            }
        }
        Ok(())
    }

    /// In a forked child, after `reinit`: has the running greenlet alone go on. The others are never resumed,
    /// nor freed, since that would run code of theirs; of the timeouts only its own stay.
    fn leave_only_current(&self) -> PyResult<()> {
        self.check_thread()?;
        let Some(hub) = self.hub() else { return Ok(()) };
        let current = hub.td().current.get().cast();
        hub.core().leave_only_current(
            &|word| match Owner::from_word(word) {
                // SAFETY: the owner of a watcher that is there is alive; the GIL is held.
                Owner::Timeout(p) => unsafe { crate::timeout::is_of(p, current) },
                Owner::Watcher(_) | Owner::StartLater(_) => false,
            },
            &|word| {
                // SAFETY: from the queue; the GIL is held.
                unsafe { Payload::left_behind(*word) };
                Payload::is_news(word)
            },
        );
        // SAFETY: the GIL is held.
        unsafe { crate::gevent_greenlet::leave_running_links() };
        Ok(())
    }

    /// Frees everything that it holds. True the first time. Of another thread's loop only the end is asked
    /// for: it comes when that loop runs.
    pub fn destroy(slf: &Bound<'_, Self>) -> bool {
        let me = slf.get();
        if !me.on_thread() {
            let held = slf.clone().unbind();
            return me.later(move |_| {
                // SAFETY: jobs run with the GIL held.
                let py = unsafe { Python::assume_attached() };
                Self::destroy(held.bind(py));
            });
        }
        // SAFETY: the GIL is held; the one writer.
        let Some(reactor) = (unsafe { (*me.reactor.get()).take() }) else {
            return false;
        };
        reactor.take_remote();
        let queued: Vec<Entry> = std::iter::from_fn(|| reactor.pop_entry()).collect();
        // All owners let go before anything runs: a finalizer may stop, restart or free any of them.
        let mut held = Vec::new();
        for word in reactor.active_data() {
            super::host::release_owner(slf.py(), word, &mut held);
        }
        reactor.destroy();
        let abandoned = reactor.take_abandoned();
        drop(reactor);
        drop(held);
        for entry in queued.into_iter().chain(abandoned) {
            if let Entry::Call(word) = entry {
                // SAFETY: from the queue, taken out once.
                unsafe { Payload::from_word(word) }.discard();
            }
        }
        true
    }

    fn r#ref(&self) -> PyResult<()> {
        self.check_thread()?;
        self.reactor()?.reference();
        Ok(())
    }

    fn unref(&self) -> PyResult<()> {
        self.check_thread()?;
        self.reactor()?.unreference();
        Ok(())
    }

    /// Ends the innermost run (1) or all (2).
    #[pyo3(signature = (how = 1))]
    fn break_(&self, how: i32) -> PyResult<()> {
        self.check_thread()?;
        self.reactor()?.break_(how == 2);
        Ok(())
    }

    /// The loop's idea of the time, in seconds since the epoch. On another thread it is that of the clock:
    /// the loop writes its own also while it sleeps, without the GIL.
    fn now(&self) -> PyResult<f64> {
        let reactor = self.reactor()?;
        let at = if self.on_thread() {
            reactor.now()
        } else {
            reactor.clock_now()
        };
        Ok(self.wall_seconds(at))
    }

    fn update_now(&self) -> PyResult<()> {
        self.check_thread()?;
        self.reactor()?.update_now();
        self.epoch.set(wall_offset());
        Ok(())
    }

    /// Calls `func(*args)` soon, in the loop. Returns the `callback`, which can be stopped.
    #[pyo3(signature = (func, *args))]
    fn run_callback(
        slf: &Bound<'_, Self>,
        func: Py<PyAny>,
        args: Bound<'_, PyTuple>,
    ) -> PyResult<Py<PyAny>> {
        Self::enqueue(slf, func, args, false)
    }

    /// The same from any thread; wakes the loop.
    #[pyo3(signature = (func, *args))]
    fn run_callback_threadsafe(
        slf: &Bound<'_, Self>,
        func: Py<PyAny>,
        args: Bound<'_, PyTuple>,
    ) -> PyResult<Py<PyAny>> {
        Self::enqueue(slf, func, args, true)
    }

    /// Tells the loop that `fd` is about to be closed: its watchers become pending.
    /// Any thread may: it marks watchers, which the loop does not touch while it sleeps, and wakes it.
    fn closing_fd(&self, fd: i32) -> bool {
        let Some(reactor) = self.reactor_ref() else {
            return false;
        };
        let found = reactor.feed_fd(fd);
        match (found, self.on_thread()) {
            (true, false) => self.remote.wake(),
            // The kernel may still have what a stopped watcher asked for, and with it the open file: its
            // close would come late, a listener would go on taking connections.
            (false, true) => reactor.fd_closing(fd),
            _ => {}
        }
        found
    }

    /// Detaches the loop from the descriptor before close(2), silently.
    fn forget_fd(&self, fd: i32) -> PyResult<()> {
        self.check_thread()?;
        self.reactor()?.fd_closing(fd);
        Ok(())
    }

    #[getter(default)]
    fn py_default(&self) -> bool {
        self.default && self.reactor_ref().is_some()
    }

    /// Whether it was destroyed.
    #[getter]
    fn destroyed(&self) -> bool {
        self.reactor_ref().is_none()
    }

    /// A number that names the native loop; 0 when it was destroyed.
    #[getter]
    fn ptr(&self) -> usize {
        self.reactor_ref().map_or(0, |r| Rc::as_ptr(r) as usize)
    }

    #[getter]
    fn iteration(&self) -> PyResult<u64> {
        Ok(self.reactor()?.iteration())
    }

    #[getter]
    fn depth(&self) -> PyResult<usize> {
        Ok(self.reactor()?.depth() as usize)
    }

    /// The name that chooses this loop in `GEVENT_LOOP`.
    #[getter]
    fn name(&self) -> PyResult<&'static str> {
        Ok(self.reactor()?.caps().name)
    }

    #[getter]
    fn pendingcnt(&self) -> PyResult<usize> {
        Ok(self.reactor()?.pending_count())
    }

    #[getter]
    fn activecnt(&self) -> PyResult<i64> {
        Ok(self.reactor()?.active_count())
    }

    /// How many callbacks and wakes are queued.
    #[getter]
    fn queued(&self) -> usize {
        self.reactor_ref().map_or(0, |r| r.queue_len())
    }

    /// Whether callbacks are being run, so that a timer that starts may refresh the time.
    #[getter]
    fn starting_timer_may_update_loop_time(&self) -> bool {
        self.reactor_ref().is_some_and(|r| r.in_queue())
    }

    /// A descriptor that becomes readable when the loop has something to do. Not every loop keeps one ready,
    /// so it is made when the loop's thread first asks.
    fn fileno(&self) -> PyResult<Option<i32>> {
        let reactor = self.reactor()?;
        if self.fd.get() < 0 && self.on_thread() {
            self.fd.set(reactor.as_raw_fd().unwrap_or(-1));
        }
        Ok(self.known_fileno())
    }

    /// `fileno`, if it was asked for.
    #[getter(_known_fileno)]
    fn known_fileno(&self) -> Option<i32> {
        Some(self.fd.get()).filter(|&fd| fd >= 0)
    }

    /// Bounds how long callbacks run before descriptors are looked at, in seconds.
    fn set_switch_interval(&self, seconds: f64) -> PyResult<()> {
        self.check_thread()?;
        self.reactor()?.set_switch_interval(nanos(seconds));
        Ok(())
    }

    /// Counts since the loop was made.
    #[getter]
    fn statistics<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        // The backend's counts are its own while it waits.
        self.check_thread()?;
        let s = self.reactor()?.statistics();
        let d = PyDict::new(py);
        d.set_item("iterations", s.iterations)?;
        d.set_item("sleeps", s.sleeps)?;
        d.set_item("callbacks", s.entries)?;
        d.set_item("fired", s.fired)?;
        d.set_item("watchers", s.watchers)?;
        d.set_item("timers", s.timers)?;
        d.set_item("sockets", s.sources)?;
        d.set_item("polls", s.backend.polls)?;
        d.set_item("events", s.backend.events)?;
        d.set_item("syscalls", s.backend.syscalls)?;
        d.set_item("syscalls_saved", s.syscalls_saved)?;
        d.set_item("operations", s.operations)?;
        d.set_item("lag", s.lag as f64 / 1e9)?;
        d.set_item("lag_max", s.lag_max as f64 / 1e9)?;
        Ok(d)
    }

    #[getter]
    fn get_error_handler(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.error_handler.get(py)
    }

    #[setter]
    fn set_error_handler(&self, handler: Option<Py<PyAny>>) {
        self.error_handler.set(handler);
    }

    fn __traverse__(&self, visit: pyo3::PyVisit<'_>) -> Result<(), pyo3::PyTraverseError> {
        self.error_handler.traverse(&visit)
    }

    fn __clear__(&self) {
        self.error_handler.set(None);
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        // A loop that its owner thread drops is destroyed with its reactor. On a foreign thread the
        // reactor is left to the process: its kernel objects belong to the other thread.
        if !self.on_thread() {
            std::mem::forget(self.reactor.get_mut().take());
        }
    }
}

/// The loops that this build has, whether or not the machine allows them.
#[pyfunction]
fn loop_names() -> Vec<&'static str> {
    available()
}

/// Ignores SIGCHLD no more, if it is ignored. Any thread may ask for it; Python lets only the main one.
#[pyfunction]
fn stop_ignoring_children() {
    // SAFETY: plain calls with structures of ours; all zeros is an action with an empty mask, SIG_DFL.
    unsafe {
        let mut now: libc::sigaction = std::mem::zeroed();
        if libc::sigaction(libc::SIGCHLD, std::ptr::null(), &raw mut now) == 0
            && now.sa_sigaction == libc::SIG_IGN
        {
            let default: libc::sigaction = std::mem::zeroed();
            libc::sigaction(libc::SIGCHLD, &raw const default, std::ptr::null_mut());
        }
    }
}

/// Adds the functions of this file.
pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(stop_ignoring_children, m)?)?;
    m.add_function(wrap_pyfunction!(loop_names, m)?)
}
