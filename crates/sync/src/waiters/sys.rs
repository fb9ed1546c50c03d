//! What the waiters take from the standard library, or from the model checker in its place.

#[cfg(not(loom))]
pub(crate) use std::{
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU8},
    },
    thread::{self, Thread},
};

#[cfg(loom)]
pub(crate) use loom::{
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU8},
    },
    thread::{self, Thread},
};

use std::sync::PoisonError;
use std::time::{Duration, Instant};

/// A mutex that forgets panics: whoever holds one keeps its state whole at every step.
pub struct Lock<T>(Mutex<T>);

/// What [`Lock::lock`] gives.
pub type Guard<'a, T> = MutexGuard<'a, T>;

impl<T> Lock<T> {
    /// A lock around `value`.
    pub fn new(value: T) -> Self {
        Lock(Mutex::new(value))
    }

    /// Locks it. To be held for a few steps, and never over a park or foreign code.
    #[inline]
    pub fn lock(&self) -> Guard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The end of a thread's wait.
#[derive(Clone, Copy)]
pub(super) struct Until(Option<Instant>);

impl Until {
    pub(super) fn after(timeout: Option<Duration>) -> Self {
        Until(timeout.and_then(|t| Instant::now().checked_add(t)))
    }

    /// Lets the thread sleep until it is unparked. `false`: the end has come.
    #[cfg(not(loom))]
    pub(super) fn park(self) -> bool {
        let Some(at) = self.0 else {
            thread::park();
            return true;
        };
        let left = at.saturating_duration_since(Instant::now());
        if !left.is_zero() {
            thread::park_timeout(left);
        }
        !left.is_zero()
    }

    /// The model has no time: a wait with an end is over at once.
    #[cfg(loom)]
    pub(super) fn park(self) -> bool {
        if self.0.is_none() {
            thread::park();
        }
        self.0.is_none()
    }
}
