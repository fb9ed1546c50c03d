//! The reactor: libev's public face (watchers, priorities, phases) on top of any [`Loop`], with the queue of
//! the hub and the waits of its fibers.
//!
//! It belongs to one thread. Every method takes `&self`, and no borrow of its state is alive while the
//! [`Host`] runs, so callbacks may do anything: start and stop watchers, run the loop recursively, destroy it.

mod attributes;
mod child;
mod fork;
mod hint;
mod io;
mod lifecycle;
mod look;
mod ops;
mod order;
mod pending;
mod queue;
mod remote;
mod run;
mod signal;
mod sources;
mod stat;
#[cfg(test)]
mod tests;
mod timers;
mod types;
mod watchers;

pub use crate::timer::{Nanos, TimerKey};
pub use ops::{OpId, Started};
pub use pending::{MAX_PRIORITY, MIN_PRIORITY};
pub use remote::{AsyncHandle, Remote};
pub use sources::Kind;
pub use stat::Attributes;
pub use types::{
    Entry, Host, Revents, RunMode, SourceId, Statistics, Token, Wake, WatcherId, WatcherKind,
};

use crate::cell::LocalCell;
use crate::event_loop::{Caps, Event, Key, Loop};
use crate::timer::{Due, Timers};
use std::cell::Cell;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::sync::Arc;

/// Where the reactor's time comes from.
pub enum Clock {
    /// CLOCK_MONOTONIC.
    Monotonic,
    /// A function, for virtual time.
    Custom(Box<dyn Fn() -> Nanos>),
}

impl Clock {
    /// The time.
    #[inline]
    pub fn now(&self) -> Nanos {
        match self {
            Clock::Monotonic => monotonic(),
            Clock::Custom(f) => f(),
        }
    }
}

/// The time of CLOCK_MONOTONIC in nanoseconds.
#[inline]
pub fn monotonic() -> Nanos {
    let mut t = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `t` outlives the call, which cannot fail for this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut t) };
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}

/// Whom an event of the backend is for: told by the two highest bits of a key's index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Class {
    Watcher,
    Source,
    Op,
    /// A descriptor that a watcher keeps for itself: a pidfd, an inotify instance.
    Inner,
}

impl Class {
    const SHIFT: u32 = 30;

    fn key(self, key: Key) -> Key {
        Key::new(key.index() | (self as u32) << Self::SHIFT, key.generation())
    }

    fn of(key: Key) -> (Class, Key) {
        let class = match key.index() >> Self::SHIFT {
            0 => Class::Watcher,
            1 => Class::Source,
            2 => Class::Op,
            _ => Class::Inner,
        };
        (
            class,
            Key::new(key.index() & ((1 << Self::SHIFT) - 1), key.generation()),
        )
    }
}

/// An event loop of one thread. See the module's text.
pub struct Reactor {
    backend: LocalCell<Option<Box<dyn Loop>>>,
    caps: Caps,
    clock: Clock,
    queue: queue::Queue,
    timers: LocalCell<Timers>,
    watchers: LocalCell<watchers::Watchers>,
    sources: LocalCell<sources::Sources>,
    ops: LocalCell<ops::Ops>,
    signals: LocalCell<signal::Signals>,
    remote: Arc<Remote>,
    now: Cell<Nanos>,
    refs: Cell<i64>,
    depth: Cell<u32>,
    done: Cell<u8>,
    forked: Cell<bool>,
    forks: Cell<u32>,
    iterations: Cell<u64>,
    looks: look::Looks,
    sleeps: Cell<u64>,
    fired_count: Cell<u64>,
    op_count: Cell<u64>,
    waits: Cell<u64>,
    registrations: Cell<u64>,
    /// When the current turn began: the poll before it had its events.
    turn: Cell<Nanos>,
    lag: Cell<u64>,
    lag_max: Cell<u64>,
    /// Buffers that are used again at each iteration.
    events: LocalCell<Vec<Event>>,
    fired: LocalCell<Vec<(Due, Nanos)>>,
}

impl Reactor {
    /// A reactor on `backend`.
    ///
    /// # Errors
    /// None today; a backend that needs more than it was made with may bring some.
    pub fn new(backend: Box<dyn Loop>) -> std::io::Result<Rc<Reactor>> {
        Self::with_clock(backend, Clock::Monotonic)
    }

    /// A reactor on `backend` that takes its time from `clock`, which has to be the one that the backend
    /// waits by.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_clock(backend: Box<dyn Loop>, clock: Clock) -> std::io::Result<Rc<Reactor>> {
        let now = clock.now();
        Ok(Rc::new(Reactor {
            caps: backend.caps().clone(),
            remote: Arc::new(Remote::new(backend.waker())),
            backend: LocalCell::new(Some(backend)),
            clock,
            queue: queue::Queue::new(),
            timers: LocalCell::new(Timers::new(now)),
            watchers: LocalCell::default(),
            sources: LocalCell::default(),
            ops: LocalCell::default(),
            signals: LocalCell::default(),
            now: Cell::new(now),
            refs: Cell::new(0),
            depth: Cell::new(0),
            done: Cell::new(run::GO_ON),
            forked: Cell::new(false),
            forks: Cell::new(0),
            iterations: Cell::new(0),
            looks: look::Looks::new(),
            sleeps: Cell::new(0),
            fired_count: Cell::new(0),
            op_count: Cell::new(0),
            waits: Cell::new(0),
            registrations: Cell::new(0),
            turn: Cell::new(now),
            lag: Cell::new(0),
            lag_max: Cell::new(0),
            events: LocalCell::default(),
            fired: LocalCell::default(),
        }))
    }

    /// A reactor on a fake loop with virtual time.
    pub fn for_tests(sim: &crate::sim::Sim) -> Rc<Reactor> {
        let time = sim.clone();
        let clock = Clock::Custom(Box::new(move || time.now()));
        Self::with_clock(Box::new(sim.make_loop()), clock).expect("a fake loop can always be used")
    }

    /// The time as of the last poll or [`update_now`](Self::update_now) (`ev_now`). Timers start from it.
    #[inline]
    pub fn now(&self) -> Nanos {
        self.now.get()
    }

    /// Asks the clock (`ev_now_update`). Needed after a long computation, before timers are started.
    #[inline]
    pub fn update_now(&self) {
        self.now.set(self.clock.now());
    }

    /// The time of the reactor's clock, without changing [`now`](Self::now).
    pub fn clock_now(&self) -> Nanos {
        self.clock.now()
    }

    /// What the backend is and can do.
    pub fn caps(&self) -> &Caps {
        &self.caps
    }

    /// A descriptor that is readable when the loop has something to do, if the backend has one.
    pub fn as_raw_fd(&self) -> Option<RawFd> {
        self.backend
            .with(|b| b.as_mut().and_then(|b| b.as_raw_fd()))
    }

    /// Counts since it was made.
    pub fn statistics(&self) -> Statistics {
        let backend = self
            .backend
            .with(|b| b.as_ref().map(|b| b.counters()).unwrap_or_default());
        Statistics {
            iterations: self.iterations.get(),
            sleeps: self.sleeps.get(),
            entries: self.queue.count_run(),
            fired: self.fired_count.get(),
            watchers: self.watchers.with(|w| w.slab.len()),
            timers: self.timers.with(|t| t.len()),
            sources: self.sources.with(|s| s.len()),
            operations: self.op_count.get(),
            syscalls_saved: backend.saved
                + self.waits.get().saturating_sub(self.registrations.get()),
            lag: self.lag.get(),
            lag_max: self.lag_max.get(),
            backend,
        }
    }

    /// Stops every watcher. Parks and sources stay.
    pub fn stop_all(&self) {
        for key in self.watchers.with(|w| w.slab.keys()) {
            self.stop(WatcherId(key));
        }
    }

    /// Stops everything and gives the backend up. What waits is not woken. Everything may be called
    /// afterwards and does nothing; a run that is under way returns.
    pub fn destroy(&self) {
        if self.is_destroyed() {
            return;
        }
        self.stop_all();
        self.remote.close();
        self.signals.with(signal::Signals::destroy);
        let backend = self.backend.with(Option::take);
        drop(backend);
        let now = self.now.get();
        self.timers.with(|t| *t = Timers::new(now));
        drop(self.sources.take());
        self.ops.with(ops::Ops::give_up);
        self.queue.clear();
        self.refs.set(0);
    }

    /// Whether [`destroy`](Self::destroy) was called.
    pub fn is_destroyed(&self) -> bool {
        self.backend.with(|b| b.is_none())
    }

    #[inline]
    fn with_backend<R>(
        &self,
        f: impl FnOnce(&mut dyn Loop) -> std::io::Result<R>,
    ) -> std::io::Result<R> {
        self.backend.with(|b| match b {
            Some(b) => f(b.as_mut()),
            None => Err(std::io::Error::from_raw_os_error(libc::EBADF)),
        })
    }
}

impl Drop for Reactor {
    fn drop(&mut self) {
        self.destroy();
    }
}
