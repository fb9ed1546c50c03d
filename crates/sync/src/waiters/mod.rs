//! The core of everything that waits here, for fibers of any hub and for plain threads.
//!
//! A primitive keeps its state and its [`WaitList`]s in one [`Lock`]. Whoever has to wait goes into a list
//! and [waits](wait); whoever has something grants it to the first in the list, under the lock, and wakes
//! that one after it. The list, not the wake, says what was granted: so a wake may come late, twice or
//! never, and a waiter that was interrupted or late knows what it has to give back.
//!
//! It is public so that others can build on it: the parts alone ([`WaitList`], [`Target`]) for those with a
//! way of parking of their own, or with a callback in place of a park.

mod list;
pub(crate) mod sys;
mod target;

pub use list::{Finished, Place, WaitList};
pub(crate) use sys::AtomicBool;
#[cfg(all(test, loom))]
pub(crate) use sys::thread;
pub use sys::{Guard, Lock};
pub use target::{FiberTarget, Target, ThreadTarget};

use gevent_hub_core::hub::{Hub, Interrupted};
use gevent_hub_core::reactor::Wake;
use std::fmt;
use std::time::Duration;
use sys::Until;

/// How a wait has ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome<W, G> {
    /// This was granted.
    Granted(G),
    /// The time is over, and nothing was granted.
    TimedOut(W),
    /// The fiber was interrupted before anything was granted.
    Interrupted(W, Interrupted),
    /// The fiber was interrupted, and something had been granted: it has to be given back, or given up.
    Overtaken(G, Interrupted),
}

/// Goes into the list that `list` finds in the locked state, and waits there: as a fiber parked on the
/// thread's hub, or else as a thread.
///
/// The lock is given free while waiting. A grant that came before the end of the time is kept, even if the
/// waiter hears of it later.
pub fn wait<S, W, G>(
    lock: &Lock<S>,
    mut guard: Guard<'_, S>,
    list: impl Fn(&mut S) -> &mut WaitList<W, G>,
    what: W,
    timeout: Option<Duration>,
) -> Outcome<W, G> {
    Hub::with(|hub| {
        let Some(hub) = hub else {
            let place = list(&mut guard).push(Target::this_thread(), what);
            drop(guard);
            return wait_as_thread(lock, list, place, Until::after(timeout));
        };
        let deadline = timeout.map(|t| {
            let nanos = u64::try_from(t.as_nanos()).unwrap_or(u64::MAX);
            hub.reactor().clock_now().saturating_add(nanos)
        });
        let mut park = hub.prepare();
        let place = list(&mut guard).push(Target::fiber(hub, park.token()), what);
        drop(guard);
        loop {
            let woken = park.wait(deadline);
            let mut state = lock.lock();
            let waiters = list(&mut state);
            match woken {
                // Somebody else's wake: on with the wait.
                Ok(reason) if reason != Wake::Timeout && !waiters.is_granted(&place) => {
                    park = hub.prepare();
                    waiters.rename(&place, Target::fiber(hub, park.token()));
                }
                Ok(_) => {
                    return match waiters.finish(place) {
                        Finished::Granted(what) => Outcome::Granted(what),
                        Finished::Waiting(what) => Outcome::TimedOut(what),
                    };
                }
                Err(interrupted) => {
                    return match waiters.finish(place) {
                        Finished::Granted(what) => Outcome::Overtaken(what, interrupted),
                        Finished::Waiting(what) => Outcome::Interrupted(what, interrupted),
                    };
                }
            }
        }
    })
}

fn wait_as_thread<S, W, G>(
    lock: &Lock<S>,
    list: impl Fn(&mut S) -> &mut WaitList<W, G>,
    place: Place,
    until: Until,
) -> Outcome<W, G> {
    loop {
        let goes_on = until.park();
        let mut state = lock.lock();
        let waiters = list(&mut state);
        // Threads are unparked for other reasons too.
        if goes_on && !waiters.is_granted(&place) {
            continue;
        }
        return match waiters.finish(place) {
            Finished::Granted(what) => Outcome::Granted(what),
            Finished::Waiting(what) => Outcome::TimedOut(what),
        };
    }
}

/// Why a wait with a time limit brought nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitError {
    /// The time is over.
    TimedOut,
    /// The fiber was interrupted.
    Interrupted(Interrupted),
}

impl fmt::Display for WaitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WaitError::TimedOut => f.write_str("timed out"),
            WaitError::Interrupted(i) => i.fmt(f),
        }
    }
}

impl std::error::Error for WaitError {}
