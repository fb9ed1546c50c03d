//! [`AsyncResult`]: a value that comes later.

use crate::state;
use crate::waiters::{Lock, Outcome, Target, WaitError, WaitList, wait};
use std::time::Duration;

struct State<T> {
    outcome: state::Outcome<T>,
    waiters: WaitList<(), ()>,
}

/// A value that is set once it is known, and that any number of fibers and threads wait for. For a
/// computation that may fail, `T` is a `Result`.
pub struct AsyncResult<T> {
    state: Lock<State<T>>,
}

impl<T: Clone> Default for AsyncResult<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Clone> AsyncResult<T> {
    /// Without a value.
    pub fn new() -> Self {
        AsyncResult {
            state: Lock::new(State {
                outcome: state::Outcome::default(),
                waiters: WaitList::new(),
            }),
        }
    }

    /// Sets the value, and wakes everybody who waits. Gives back the value that it replaces.
    pub fn set(&self, value: T) -> Option<T> {
        let (old, woken) = {
            let mut state = self.state.lock();
            let old = state.outcome.set(value);
            (old, state.waiters.grant_all(|()| ()))
        };
        woken.into_iter().for_each(Target::wake);
        old
    }

    /// Takes the value away.
    pub fn take(&self) -> Option<T> {
        self.state.lock().outcome.take().0
    }

    /// Whether there is a value.
    pub fn ready(&self) -> bool {
        self.state.lock().outcome.is_ready()
    }

    /// The value, if there is one.
    pub fn try_get(&self) -> Option<T> {
        self.state.lock().outcome.value().cloned()
    }

    /// Waits for the value; without a limit for `None`.
    ///
    /// # Errors
    /// [`WaitError`].
    pub fn get(&self, timeout: Option<Duration>) -> Result<T, WaitError> {
        loop {
            let state = self.state.lock();
            if let Some(value) = state.outcome.value() {
                return Ok(value.clone());
            }
            match wait(&self.state, state, |s| &mut s.waiters, (), timeout) {
                // It may have been taken away since: then on with the wait.
                Outcome::Granted(()) => {}
                Outcome::TimedOut(()) => return Err(WaitError::TimedOut),
                Outcome::Interrupted((), i) | Outcome::Overtaken((), i) => {
                    return Err(WaitError::Interrupted(i));
                }
            }
        }
    }
}
