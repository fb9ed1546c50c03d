//! [`Semaphore`] and [`BoundedSemaphore`].

use crate::state::Permits;
pub use crate::state::ReleasedTooOften;
use crate::waiters::{Lock, Outcome, WaitList, wait};
use gevent_hub_core::hub::Interrupted;
use std::time::Duration;

struct State {
    permits: Permits,
    waiters: WaitList<(), ()>,
}

/// A number of permits. It is fair: a released permit goes to the first who waits, and nobody who comes
/// later can take it before.
pub struct Semaphore {
    state: Lock<State>,
}

/// A permit, which is released when this is dropped.
#[must_use = "a permit that is dropped at once guards nothing"]
pub struct Permit<'a>(&'a Semaphore);

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.0.release();
    }
}

impl Semaphore {
    /// With so many permits.
    pub fn new(permits: usize) -> Self {
        Self::of(permits, false)
    }

    fn of(permits: usize, bounded: bool) -> Self {
        // Nobody can take more than that.
        let permits = isize::try_from(permits).unwrap_or(isize::MAX);
        Semaphore {
            state: Lock::new(State {
                permits: Permits::new(permits, bounded),
                waiters: WaitList::new(),
            }),
        }
    }

    /// How many permits are free.
    pub fn available(&self) -> usize {
        self.state.lock().permits.free().unsigned_abs()
    }

    /// How many wait for one.
    pub fn waiting(&self) -> usize {
        self.state.lock().waiters.len()
    }

    /// Takes a permit if one is free. Never waits.
    #[inline]
    pub fn try_acquire(&self) -> bool {
        self.state.lock().permits.take()
    }

    /// Takes a permit, and waits for one if need be.
    ///
    /// # Errors
    /// [`Interrupted`]; then no permit was taken.
    #[inline]
    pub fn acquire(&self) -> Result<(), Interrupted> {
        self.acquire_for(None).map(drop)
    }

    /// Takes a permit, and waits for one for so long. `false`: the time was over first.
    ///
    /// # Errors
    /// As [`acquire`](Self::acquire).
    pub fn acquire_timeout(&self, timeout: Duration) -> Result<bool, Interrupted> {
        self.acquire_for(Some(timeout))
    }

    fn acquire_for(&self, timeout: Option<Duration>) -> Result<bool, Interrupted> {
        let mut state = self.state.lock();
        // Nobody waits while a permit is free.
        if state.permits.take() {
            return Ok(true);
        }
        match wait(&self.state, state, |s| &mut s.waiters, (), timeout) {
            Outcome::Granted(()) => Ok(true),
            Outcome::TimedOut(()) => Ok(false),
            Outcome::Interrupted((), i) => Err(i),
            Outcome::Overtaken((), i) => {
                self.release();
                Err(i)
            }
        }
    }

    /// As [`acquire`](Self::acquire), with the release tied to a guard.
    ///
    /// # Errors
    /// As `acquire`.
    pub fn permit(&self) -> Result<Permit<'_>, Interrupted> {
        self.acquire()?;
        Ok(Permit(self))
    }

    /// Gives a permit, to the first who waits if somebody does. It need not be one that was acquired.
    #[inline]
    pub fn release(&self) {
        let given = self.give();
        debug_assert!(given.is_ok(), "there are not isize::MAX permits");
    }

    fn give(&self) -> Result<(), ReleasedTooOften> {
        let next = {
            let mut state = self.state.lock();
            match state.waiters.grant(()) {
                Ok(next) => next,
                Err(()) => return state.permits.release().map(drop),
            }
        };
        next.wake();
        Ok(())
    }
}

/// A [`Semaphore`] that tells when it is released more often than acquired.
pub struct BoundedSemaphore {
    inner: Semaphore,
}

impl BoundedSemaphore {
    /// With so many permits, all free.
    pub fn new(permits: usize) -> Self {
        BoundedSemaphore {
            inner: Semaphore::of(permits, true),
        }
    }

    /// Gives a permit back.
    ///
    /// # Errors
    /// [`ReleasedTooOften`]; then nothing has changed.
    pub fn release(&self) -> Result<(), ReleasedTooOften> {
        self.inner.give()
    }

    /// See [`Semaphore::try_acquire`].
    pub fn try_acquire(&self) -> bool {
        self.inner.try_acquire()
    }

    /// See [`Semaphore::acquire`].
    ///
    /// # Errors
    /// As there.
    pub fn acquire(&self) -> Result<(), Interrupted> {
        self.inner.acquire()
    }

    /// See [`Semaphore::acquire_timeout`].
    ///
    /// # Errors
    /// As there.
    pub fn acquire_timeout(&self, timeout: Duration) -> Result<bool, Interrupted> {
        self.inner.acquire_timeout(timeout)
    }

    /// See [`Semaphore::permit`].
    ///
    /// # Errors
    /// As there.
    pub fn permit(&self) -> Result<Permit<'_>, Interrupted> {
        self.inner.permit()
    }

    /// See [`Semaphore::available`].
    pub fn available(&self) -> usize {
        self.inner.available()
    }
}
