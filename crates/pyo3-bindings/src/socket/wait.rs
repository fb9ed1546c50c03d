//! Waiting for a socket: its source on the hub's loop, and how a wait can end.

use super::base::SocketBase;
use crate::event_loop::Loop;
use crate::greenlet::object::Raised;
use crate::hub::{HubCore, Parked, Waiter, get_core, unexpected_switch};
use gevent_hub_core::event_loop::Readiness;
use gevent_hub_core::reactor::{Kind, Nanos, Reactor, SourceId, Wake};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use std::cell::Cell;

/// The direction of a wait.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Until something can be read.
    Read,
    /// Until something can be written.
    Write,
}

impl Direction {
    fn interest(self) -> Readiness {
        match self {
            Direction::Read => Readiness::READ,
            Direction::Write => Readiness::WRITE,
        }
    }
}

/// Where a descriptor is registered, and who waits.
#[derive(Default)]
pub struct Place {
    /// The loop (an owned reference) and the source there.
    home: Cell<Option<(*mut ffi::PyObject, SourceId)>>,
    waiting: [Cell<Option<Waiter>>; 2],
}

static CANCEL_WAIT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
static CONCURRENT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

fn cancelled(py: Python<'_>) -> PyErr {
    let class = CANCEL_WAIT.get_or_try_init(py, || {
        py.import("gevent._socketcommon")?
            .getattr("cancel_wait_ex")
            .map(Bound::unbind)
    });
    match class.and_then(|c| c.bind(py).call0()) {
        Ok(e) => PyErr::from_value(e),
        Err(e) => e,
    }
}

fn in_use(py: Python<'_>, text: &str) -> PyErr {
    let class = CONCURRENT.get_or_try_init(py, || {
        py.import("gevent.exceptions")?
            .getattr("ConcurrentObjectUseError")
            .map(Bound::unbind)
    });
    match class.and_then(|c| c.bind(py).call1((text,))) {
        Ok(e) => PyErr::from_value(e),
        Err(e) => e,
    }
}

impl Place {
    #[inline]
    fn here(&self, hub: &HubCore) -> Option<SourceId> {
        self.home
            .get()
            .filter(|(l, _)| *l == hub.loop_object())
            .map(|(_, s)| s)
    }

    /// Whether a read is worth a system call.
    #[inline]
    pub fn maybe_readable(&self) -> bool {
        let Some(hub) = HubCore::current() else {
            return true;
        };
        self.here(&hub)
            .is_none_or(|s| hub.reactor().source_may_read(s))
    }

    /// A read with flags 0 has given `got` of the `asked` bytes.
    #[inline]
    pub fn was_read(&self, kind: Kind, got: usize, asked: usize) {
        let Some(hub) = HubCore::current() else {
            return;
        };
        if let Some(s) = self.here(&hub) {
            hub.reactor().source_was_read(s, kind, got, asked);
        }
    }

    fn settle(&self, py: Python<'_>, hub: &HubCore, fd: i32) -> SourceId {
        self.release(py, None, false);
        let s = hub.reactor().source(fd);
        // SAFETY: a loop that is alive.
        let l = unsafe { ffi::Py_NewRef(hub.loop_object()) };
        self.home.set(Some((l, s)));
        s
    }

    /// Takes the descriptor off its loop; who waits there gets to know. With `closes` it is about to be closed, so
    /// that everything which the loop knows of the number goes; else others may still be at it, or have got it.
    ///
    /// If that loop is another thread's, it does so soon and is returned, and the descriptor has to stay open
    /// until then: its number would name something else. `owner`, the object that closes it, is kept so long.
    pub fn release<'py>(
        &self,
        py: Python<'py>,
        owner: Option<Py<PyAny>>,
        closes: bool,
    ) -> Option<Bound<'py, Loop>> {
        let (l, s) = self.home.take()?;
        // SAFETY: the place's own reference to a loop.
        let l = unsafe { Bound::from_owned_ptr(py, l).cast_into_unchecked::<Loop>() };
        let forget = move |r: &Reactor| {
            if closes {
                r.source_closing(s);
            } else {
                r.source_detach(s);
            }
        };
        if l.get().on_thread() {
            if let Some(r) = l.get().reactor_ref() {
                forget(r);
            }
            return None;
        }
        let sent = l.get().later(move |r| {
            forget(r);
            drop(owner);
        });
        sent.then_some(l)
    }

    /// Whether it is on a loop.
    pub fn has_home(&self) -> bool {
        self.home.get().is_some()
    }

    /// Wakes who waits for `direction`, as if the descriptor were closed.
    pub fn interrupt(&self, direction: Direction) {
        if let Some(waiter) = self.waiting[direction as usize].get() {
            waiter.wake(Wake::Closed);
        }
    }
}

impl SocketBase {
    /// Waits after an EAGAIN until `direction` is ready, or raises.
    ///
    /// # Errors
    /// The error that is set: TimeoutError, ConcurrentObjectUseError, the error of a closed socket, or what was thrown.
    pub fn wait(
        slf: &Bound<'_, Self>,
        direction: Direction,
        deadline: Option<Nanos>,
    ) -> Result<(), Raised> {
        Self::wait_again(slf, direction, deadline, true)
    }

    #[cold]
    fn cannot_wait(slf: &Bound<'_, Self>, fd: i32) -> Raised {
        let error = match slf.repr() {
            _ if fd < 0 => in_use(
                slf.py(),
                "The socket has already been closed by another greenlet",
            ),
            Ok(repr) => {
                let text = format!("This socket is already used by another greenlet: {repr}");
                in_use(slf.py(), &text)
            }
            Err(error) => error,
        };
        error.restore(slf.py());
        Raised
    }

    /// As `wait`; `clear` says that a call gave EAGAIN, so that the latch is to be cleared.
    ///
    /// # Errors
    /// As `wait`.
    #[inline(never)]
    pub fn wait_again(
        slf: &Bound<'_, Self>,
        direction: Direction,
        deadline: Option<Nanos>,
        clear: bool,
    ) -> Result<(), Raised> {
        let py = slf.py();
        let me = slf.get();
        let want = direction.interest();
        let slot = &me.place().waiting[direction as usize];
        let fd = me.fd();
        if slot.get().is_some() || fd < 0 {
            return Err(Self::cannot_wait(slf, fd));
        }
        let Ok(hub) = get_core() else {
            return Err(Raised);
        };
        // SAFETY: the GIL is held.
        if unsafe { hub.may_block() }.is_err() {
            return Err(Raised);
        }
        let reactor = hub.reactor();
        let source = match me.place().here(&hub) {
            Some(s) => s,
            None => me.place().settle(py, &hub, fd),
        };
        if clear {
            reactor.source_clear(source, want);
        }
        let park = hub.core().prepare();
        let token = park.token();
        match reactor.source_wait(source, want, token) {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            Err(e) => {
                crate::errors::io_error(&e).restore(py);
                return Err(Raised);
            }
        }
        slot.set(Some(Waiter::new(&hub, token)));
        // SAFETY: the GIL is held with the running greenlet's state in, which is not the hub's.
        let outcome = unsafe { hub.park(park, deadline) };
        slot.set(None);
        match outcome {
            Parked::Woken(Wake::Timeout | Wake::Closed)
            | Parked::Switched(..)
            | Parked::Raised(_) => {
                reactor.source_unwait(source, token);
                Err(in_vain(py, outcome))
            }
            Parked::Woken(_) => Ok(()),
        }
    }
}

/// The error of a wait that ended without readiness.
#[cold]
fn in_vain(py: Python<'_>, outcome: Parked) -> Raised {
    match outcome {
        Parked::Woken(Wake::Timeout) => return timed_out(),
        Parked::Woken(_) => cancelled(py).restore(py),
        Parked::Switched(value, _) => {
            // SAFETY: the GIL is held; an owned reference.
            unsafe { unexpected_switch(c"a wait for a socket", value) };
        }
        Parked::Raised(_) => {}
    }
    Raised
}

/// Sets the error of a call that took too long.
#[cold]
pub(super) fn timed_out() -> Raised {
    // SAFETY: the GIL is held by who waited.
    unsafe { ffi::PyErr_SetString(ffi::PyExc_TimeoutError, c"timed out".as_ptr()) };
    Raised
}
