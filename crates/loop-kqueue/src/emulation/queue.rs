//! The emulated queue: `kqueue`, `kevent` and `close`.

use super::registry::Registry;
use super::sets::{BELL, LEFT_OVER, Sets, eventfd};
use super::user::Slots;
use crate::sys::*;
use gevent_hub_core::os::errno;
use gevent_hub_core::reactor::monotonic;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

/// How often this process has been forked off another one since the first queue was made.
static FORKS: AtomicU32 = AtomicU32::new(0);

extern "C" fn count_fork() {
    FORKS.fetch_add(1, Ordering::SeqCst);
}

struct State {
    registry: Registry,
    /// `left_over` is readable.
    told: bool,
}

/// An emulated event queue.
pub struct Queue {
    sets: Sets,
    /// Rung by user events, from any thread.
    bell: OwnedFd,
    /// Readable while the active list is not empty, for whoever waits for the queue itself.
    left_over: OwnedFd,
    slots: Slots,
    state: Mutex<State>,
    born: u32,
}

fn ring(fd: &OwnedFd) {
    let one = 1u64;
    // SAFETY: eight bytes from `one`. It can fail only when the counter is full: then it is readable.
    unsafe { libc::write(fd.as_raw_fd(), (&raw const one).cast(), 8) };
}

fn silence(fd: &OwnedFd) {
    let mut count = 0u64;
    // SAFETY: eight bytes of `count`.
    unsafe { libc::read(fd.as_raw_fd(), (&raw mut count).cast(), 8) };
}

/// Whether a change only triggers a user event that is there.
fn is_trigger(change: &Kevent) -> bool {
    let more = EV_ADD | EV_DELETE | EV_ENABLE | EV_DISABLE | EV_RECEIPT;
    change.filter == EVFILT_USER && change.flags & more == 0
}

impl Queue {
    /// Whether `kevent` may be called in a signal handler, as a system call may: for triggering it may.
    pub const SIGNAL_SAFE: bool = true;
    /// What is closed is forgotten.
    pub const FORGETS_CLOSED: bool = true;

    /// kqueue(2), close-on-exec.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`, `ENOMEM`.
    pub fn open() -> io::Result<Self> {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            // SAFETY: a function that may run in a child; it only counts.
            unsafe { libc::pthread_atfork(None, None, Some(count_fork)) };
        });
        let (sets, bell, left_over) = (Sets::new()?, eventfd()?, eventfd()?);
        sets.add_own(&bell, true, BELL)?;
        sets.add_own(&left_over, false, LEFT_OVER)?;
        let state = State {
            registry: Registry::new(),
            told: false,
        };
        Ok(Queue {
            sets,
            bell,
            left_over,
            slots: Slots::new(),
            state: Mutex::new(state),
            born: FORKS.load(Ordering::SeqCst),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// kevent(2): makes `changes`, then waits for `timeout` nanoseconds (`None`: without an end) for at least one
    /// event, and gives how many it has written. Of a call without `events` nothing is waited for.
    ///
    /// # Errors
    /// `EINTR`; that of a change for which there is no place in `events`; `EBADF` in a forked child, which does
    /// not inherit queues.
    pub fn kevent(
        &self,
        changes: &[Kevent],
        events: &mut [Kevent],
        timeout: Option<u64>,
    ) -> io::Result<usize> {
        if self.born != FORKS.load(Ordering::SeqCst) {
            return Err(io::Error::from_raw_os_error(libc::EBADF));
        }
        if events.is_empty() && !changes.is_empty() && changes.iter().all(is_trigger) {
            return self.trigger(changes);
        }
        let receipts = self.change(changes, events)?;
        if receipts > 0 || events.is_empty() {
            return Ok(receipts);
        }
        self.collect(events, timeout)
    }

    /// Triggers user events, without a lock and without memory.
    fn trigger(&self, changes: &[Kevent]) -> io::Result<usize> {
        for change in changes {
            match self.slots.find(change.ident) {
                Some(slot) => slot.control(change.fflags),
                None => return Err(io::Error::from_raw_os_error(libc::ENOENT)),
            }
        }
        ring(&self.bell);
        Ok(0)
    }

    /// Makes the changes; gives how many errors and receipts it has written.
    fn change(&self, changes: &[Kevent], events: &mut [Kevent]) -> io::Result<usize> {
        let mut state = self.lock();
        let mut n = 0;
        for change in changes {
            let result = state.registry.change(&self.sets, &self.slots, change);
            let receipt = change.flags & EV_RECEIPT != 0;
            if result.is_ok() && !receipt {
                continue;
            }
            if n < events.len() {
                events[n] = Kevent {
                    flags: change.flags | EV_ERROR,
                    data: result.err().map_or(0, |e| i64::from(errno(&e))),
                    ..*change
                };
                n += 1;
            } else {
                result?;
            }
        }
        self.tell(&mut state);
        Ok(n)
    }

    fn collect(&self, events: &mut [Kevent], timeout: Option<u64>) -> io::Result<usize> {
        let deadline = timeout.map(|nanos| monotonic().saturating_add(nanos));
        let mut left = timeout;
        let mut tokens = Vec::new();
        loop {
            // What is active goes first, but what woke meanwhile is heard too.
            let wait = if self.lock().registry.has_active() {
                Some(0)
            } else {
                left
            };
            self.sets.wait(wait, &mut tokens)?;
            let mut state = self.lock();
            for token in tokens.drain(..) {
                match token {
                    BELL => state.registry.rung(),
                    LEFT_OVER => {}
                    token => state.registry.woken(token),
                }
            }
            let n = state.registry.scan(&self.sets, events);
            self.tell(&mut state);
            drop(state);
            if n > 0 {
                return Ok(n);
            }
            if let Some(deadline) = deadline {
                let now = monotonic();
                if now >= deadline {
                    return Ok(0);
                }
                left = Some(deadline - now);
            }
        }
    }

    /// Keeps the queue's descriptor readable while a scan may find something.
    fn tell(&self, state: &mut State) {
        let active = state.registry.has_active();
        if active != state.told {
            state.told = active;
            if active {
                ring(&self.left_over);
            } else {
                silence(&self.left_over);
            }
        }
    }

    /// In a forked child, which does not inherit queues: gives up this one. Its descriptors are there all the
    /// same on Linux, and are closed; what they stand for is the parent's.
    pub fn abandon(self) {
        drop(self);
    }
}

impl AsRawFd for Queue {
    fn as_raw_fd(&self) -> RawFd {
        self.sets.as_raw_fd()
    }
}
