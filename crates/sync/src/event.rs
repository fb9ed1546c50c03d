//! [`Event`]: a flag to wait for.

use crate::state::Flag;
use crate::waiters::{Lock, Outcome, Target, WaitList, wait};
use gevent_hub_core::hub::Interrupted;
use std::time::Duration;

/// A flag that is set and cleared, and that any number of fibers and threads wait for.
pub struct Event {
    set: Flag,
    waiters: Lock<WaitList<(), ()>>,
}

impl Default for Event {
    fn default() -> Self {
        Self::new()
    }
}

impl Event {
    /// A flag that is not set.
    pub fn new() -> Self {
        Event {
            set: Flag::new(false),
            waiters: Lock::new(WaitList::new()),
        }
    }

    /// Whether it is set.
    #[inline]
    pub fn is_set(&self) -> bool {
        self.set.is_raised()
    }

    /// Sets it, and wakes everybody who waits, even if it is cleared before they run.
    pub fn set(&self) {
        let woken = {
            let mut waiters = self.waiters.lock();
            self.set.raise();
            waiters.grant_all(|()| ())
        };
        woken.into_iter().for_each(Target::wake);
    }

    /// Clears it.
    pub fn clear(&self) {
        let _waiters = self.waiters.lock();
        self.set.lower();
    }

    /// Waits until it is set.
    ///
    /// # Errors
    /// [`Interrupted`].
    pub fn wait(&self) -> Result<(), Interrupted> {
        self.wait_for(None).map(drop)
    }

    /// Waits until it is set, for so long. `false`: the time was over first.
    ///
    /// # Errors
    /// [`Interrupted`].
    pub fn wait_timeout(&self, timeout: Duration) -> Result<bool, Interrupted> {
        self.wait_for(Some(timeout))
    }

    fn wait_for(&self, timeout: Option<Duration>) -> Result<bool, Interrupted> {
        if self.is_set() {
            return Ok(true);
        }
        let guard = self.waiters.lock();
        if self.is_set() {
            return Ok(true);
        }
        match wait(&self.waiters, guard, |w| w, (), timeout) {
            Outcome::Granted(()) => Ok(true),
            Outcome::TimedOut(()) => Ok(false),
            Outcome::Interrupted((), i) | Outcome::Overtaken((), i) => Err(i),
        }
    }
}
