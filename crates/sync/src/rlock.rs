//! [`RLock`]: a lock that its owner may take again.

pub use crate::state::NotOwner;
use crate::state::Ownership;
use crate::waiters::{Lock, Outcome, WaitList, wait};
use gevent_hub_core::hub::{Hub, Interrupted};
use std::marker::PhantomData;
use std::time::Duration;

/// A fiber of a hub, or a thread without one (hub 0).
#[derive(Clone, Copy, PartialEq, Eq)]
struct Owner {
    hub: u64,
    address: usize,
}

impl Owner {
    /// Who runs.
    fn current() -> Self {
        thread_local! {
            static HERE: u8 = const { 0 };
        }
        Hub::with(|hub| match hub {
            Some(hub) => Owner {
                hub: hub.id(),
                address: hub.current_fiber().addr(),
            },
            None => Owner {
                hub: 0,
                address: HERE.with(|here| std::ptr::from_ref(here).addr()),
            },
        })
    }
}

struct State {
    held: Ownership<Owner>,
    waiters: WaitList<Owner, ()>,
}

/// A lock that the fiber or thread which holds it may acquire again; it is free when it was released as
/// often. It is fair: it goes to the first who waits.
pub struct RLock {
    state: Lock<State>,
}

/// One hold of an [`RLock`], released when this is dropped.
#[must_use = "a lock that is dropped at once guards nothing"]
pub struct Hold<'a> {
    lock: &'a RLock,
    _stays_here: PhantomData<*const ()>,
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        let _ = self.lock.release();
    }
}

impl Default for RLock {
    fn default() -> Self {
        Self::new()
    }
}

impl RLock {
    /// A lock that is free.
    pub fn new() -> Self {
        RLock {
            state: Lock::new(State {
                held: Ownership::default(),
                waiters: WaitList::new(),
            }),
        }
    }

    /// Whether somebody holds it.
    pub fn is_locked(&self) -> bool {
        self.state.lock().held.owner().is_some()
    }

    /// Whether the caller holds it.
    pub fn is_mine(&self) -> bool {
        self.state.lock().held.is(&Owner::current())
    }

    /// Acquires it if that needs no wait.
    pub fn try_acquire(&self) -> bool {
        Self::enter(&mut self.state.lock(), Owner::current())
    }

    fn enter(state: &mut State, me: Owner) -> bool {
        if state.held.owner().is_none() {
            let _ = state.held.put(Some(me), 1);
            return true;
        }
        state.held.again(&me)
    }

    /// Acquires it.
    ///
    /// # Errors
    /// [`Interrupted`]; then it was not acquired.
    pub fn acquire(&self) -> Result<(), Interrupted> {
        self.acquire_for(None).map(drop)
    }

    /// Acquires it, and waits for so long. `false`: the time was over first.
    ///
    /// # Errors
    /// As [`acquire`](Self::acquire).
    pub fn acquire_timeout(&self, timeout: Duration) -> Result<bool, Interrupted> {
        self.acquire_for(Some(timeout))
    }

    fn acquire_for(&self, timeout: Option<Duration>) -> Result<bool, Interrupted> {
        let me = Owner::current();
        let mut state = self.state.lock();
        if Self::enter(&mut state, me) {
            return Ok(true);
        }
        match wait(&self.state, state, |s| &mut s.waiters, me, timeout) {
            Outcome::Granted(()) => Ok(true),
            Outcome::TimedOut(_) => Ok(false),
            Outcome::Interrupted(_, i) => Err(i),
            Outcome::Overtaken((), i) => {
                let released = self.release();
                debug_assert!(released.is_ok(), "it was granted to this fiber");
                Err(i)
            }
        }
    }

    /// As [`acquire`](Self::acquire), with the release tied to a guard.
    ///
    /// # Errors
    /// As `acquire`.
    pub fn hold(&self) -> Result<Hold<'_>, Interrupted> {
        self.acquire()?;
        Ok(Hold {
            lock: self,
            _stays_here: PhantomData,
        })
    }

    /// Releases it once.
    ///
    /// # Errors
    /// [`NotOwner`].
    pub fn release(&self) -> Result<(), NotOwner> {
        let next = {
            let mut state = self.state.lock();
            if state.held.leave(&Owner::current())?.is_none() {
                return Ok(());
            }
            let State { held, waiters } = &mut *state;
            waiters.grant_with(|next| {
                let _ = held.put(Some(next), 1);
            })
        };
        if let Some(next) = next {
            next.wake();
        }
        Ok(())
    }
}
