//! [`Alarm`]: no signal waits for the next event because it came just before a sleep.
//!
//! Python's C handler only marks a signal; the Python handler runs when the main thread looks. A signal that
//! comes between the last look and the sleep, or that the kernel hands to another thread, would be seen
//! after the sleep alone. So while the main thread sleeps for long in a loop, Python's wake-up descriptor is
//! a pipe that ends the sleep. It is the program's own again when the sleep is over, before any Python runs,
//! and what came meanwhile is passed on to it. (A sleep under a signal mask would not help against the
//! handler that runs in another thread.)
//!
//! Python checks the descriptor with two system calls each time, so sleeps shorter than [`PATIENCE`] do
//! without: a signal that one of them misses is late by no more than that.

use crate::cells::GilCell;
use gevent_hub_core::reactor::{Nanos, Reactor, SourceId};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::cell::UnsafeCell;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

/// How long the main thread sleeps before it sets its alarm.
pub const PATIENCE: Nanos = 10_000_000;

/// For a child that another thread forks while the main thread sleeps: whether an alarm is set, its
/// descriptor, and what was there before.
static SET: AtomicBool = AtomicBool::new(false);
static ALARM: AtomicI32 = AtomicI32::new(-1);
static BEFORE: AtomicI32 = AtomicI32::new(-1);
static AT_FORK: AtomicBool = AtomicBool::new(false);

/// Sets Python's wake-up descriptor and returns the one before; -1 is none. Runs no handlers. Whether the
/// program wants to hear of a full pipe cannot be asked for, so it is not told.
fn set_wakeup_fd(py: Python<'_>, fd: i32) -> PyResult<i32> {
    let options = PyDict::new(py);
    options.set_item(intern!(py, "warn_on_full_buffer"), false)?;
    py.import(intern!(py, "_signal"))?
        .call_method(intern!(py, "set_wakeup_fd"), (fd,), Some(&options))?
        .extract()
}

/// Puts the program's descriptor back; if that is closed by now, none.
fn put_back(py: Python<'_>, fd: i32) -> i32 {
    set_wakeup_fd(py, fd)
        .or_else(|_| set_wakeup_fd(py, -1))
        .unwrap_or(-1)
}

#[crate::entry]
#[pyfunction]
fn forked(py: Python<'_>) {
    if SET.swap(false, Ordering::Relaxed) {
        let now = put_back(py, BEFORE.load(Ordering::Relaxed));
        if now != ALARM.load(Ordering::Relaxed) {
            // The program's own hook was here before.
            put_back(py, now);
        }
    }
}

fn register_at_fork(py: Python<'_>) -> PyResult<()> {
    if AT_FORK.swap(true, Ordering::Relaxed) {
        return Ok(());
    }
    let options = PyDict::new(py);
    options.set_item("after_in_child", wrap_pyfunction!(forked, py)?)?;
    py.import("posix")?
        .call_method("register_at_fork", (), Some(&options))
        .map(drop)
}

struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    source: SourceId,
}

enum State {
    /// Not asked yet.
    Unknown,
    /// This thread handles no signals.
    Needless,
    Ready(Pipe),
}

/// What ends the sleep of one loop when a signal comes.
pub struct Alarm {
    state: UnsafeCell<State>,
    /// While it is set: the descriptor that it stands in for.
    before: GilCell<Option<i32>>,
}

impl Alarm {
    /// Of a loop that has not slept yet.
    pub const fn new() -> Self {
        Alarm {
            state: UnsafeCell::new(State::Unknown),
            before: GilCell::new(None),
        }
    }

    /// Whether it is set.
    #[inline]
    pub fn is_set(&self) -> bool {
        self.before.get().is_some()
    }

    fn pipe(&self) -> Option<&Pipe> {
        // SAFETY: in the loop's thread; the state changes in `prepare` and `drop_pipe` alone, and no caller
        // uses the reference after them.
        match unsafe { &*self.state.get() } {
            State::Ready(pipe) => Some(pipe),
            _ => None,
        }
    }

    /// How long a sleep may last without it.
    #[inline]
    pub fn patience(&self) -> Nanos {
        // SAFETY: a look, in the loop's thread.
        match unsafe { &*self.state.get() } {
            State::Needless => Nanos::MAX,
            State::Unknown | State::Ready(_) => PATIENCE,
        }
    }

    #[cold]
    fn prepare(&self, py: Python<'_>, reactor: &Reactor) -> PyResult<()> {
        register_at_fork(py)?;
        let (read, write) = pipe()?;
        let source = reactor.source(read.as_raw_fd());
        reactor.source_watch(source)?;
        let state = State::Ready(Pipe {
            read,
            write,
            source,
        });
        // SAFETY: in the loop's thread; nobody holds a reference.
        unsafe { *self.state.get() = state };
        Ok(())
    }

    /// A long sleep is near. False if it cannot be set: in another thread than the main one, and without
    /// descriptors to spare, when a signal may have to wait for an event, and the next sleep tries again.
    pub fn set(&self, py: Python<'_>, reactor: &Reactor) -> bool {
        if self.is_set() {
            return true;
        }
        // SAFETY: a look, in the loop's thread.
        if matches!(unsafe { &*self.state.get() }, State::Unknown)
            && self.prepare(py, reactor).is_err()
        {
            return false;
        }
        let Some(pipe) = self.pipe() else {
            return false;
        };
        let Ok(before) = set_wakeup_fd(py, pipe.write.as_raw_fd()) else {
            // Not the main thread, or not the main interpreter.
            self.drop_pipe(reactor, State::Needless);
            return false;
        };
        self.before.set(Some(before));
        BEFORE.store(before, Ordering::Relaxed);
        ALARM.store(pipe.write.as_raw_fd(), Ordering::Relaxed);
        SET.store(true, Ordering::Relaxed);
        true
    }

    /// The sleep is over, or will not be.
    pub fn unset(&self, py: Python<'_>) {
        let Some(before) = self.before.get() else {
            return;
        };
        self.before.set(None);
        SET.store(false, Ordering::Relaxed);
        let Some(pipe) = self.pipe() else { return };
        let now = put_back(py, before);
        if now != pipe.write.as_raw_fd() {
            // A handler has put another one there.
            put_back(py, now);
        }
        pass_on(pipe.read.as_raw_fd(), before);
    }

    fn drop_pipe(&self, reactor: &Reactor, state: State) {
        // SAFETY: in the loop's thread; nobody holds a reference.
        let old = unsafe { std::mem::replace(&mut *self.state.get(), state) };
        if let State::Ready(pipe) = &old {
            reactor.source_closing(pipe.source);
        }
    }

    /// In a forked child, when the loop's objects are its own: the parent keeps the pipe.
    pub fn renew(&self, py: Python<'_>, reactor: &Reactor) {
        // The pipe is not read: what is in it came to the parent, and ends the parent's sleep.
        if let Some(before) = self.before.get() {
            self.before.set(None);
            // If a hook of the fork has not done so.
            if SET.swap(false, Ordering::Relaxed) {
                put_back(py, before);
            }
        }
        self.drop_pipe(reactor, State::Unknown);
    }
}

fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    // SAFETY: two places for two descriptors.
    if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just made, and nobody else's.
    Ok(unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) })
}

/// Empties the pipe; the program's own wake-up descriptor gets what came.
fn pass_on(from: i32, to: i32) {
    let mut signals = [0u8; 64];
    loop {
        // SAFETY: so many bytes have room.
        let n = unsafe { libc::read(from, signals.as_mut_ptr().cast(), signals.len()) };
        if n <= 0 {
            return;
        }
        if to >= 0 {
            // SAFETY: so many bytes are there. What does not fit is dropped, as Python's own handler does.
            unsafe { libc::write(to, signals.as_ptr().cast(), n as usize) };
        }
    }
}
