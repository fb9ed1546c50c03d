//! [`Parker`]: how a thread without a hub waits for a wake that says why. [`Sleeper`]: it, or a fiber.

use crate::waiters::sys::{AtomicU8, Thread, thread};
use gevent_hub_core::reactor::{Nanos, Token, Wake};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// One wait of one thread. It takes no lock that a fork could leave locked.
pub struct Parker {
    thread: Thread,
    reason: AtomicU8,
}

/// Not woken yet.
const ASLEEP: u8 = 0;
/// What is waited for may be there, or was taken for the waiter.
const WOKEN: u8 = 1;
/// What is waited for will never come.
const CLOSED: u8 = 2;
/// It went wrong; the error is kept elsewhere.
const FAILED: u8 = 3;

impl Parker {
    /// For the calling thread.
    pub fn new() -> Arc<Self> {
        Arc::new(Parker {
            thread: thread::current(),
            reason: AtomicU8::new(ASLEEP),
        })
    }

    /// Ends the wait, from any thread: for good if [`Wake::Closed`], with an error if [`Wake::Fault`].
    pub fn end(&self, why: Wake) {
        let reason = match why {
            Wake::Closed => CLOSED,
            Wake::Fault => FAILED,
            _ => WOKEN,
        };
        self.reason.store(reason, Ordering::Release);
        self.thread.unpark();
    }

    /// How it was ended: [`Wake::Closed`], [`Wake::Fault`], or [`Wake::Ready`] for all else. `None`: it
    /// was not.
    pub fn ended(&self) -> Option<Wake> {
        match self.reason.load(Ordering::Acquire) {
            ASLEEP => None,
            CLOSED => Some(Wake::Closed),
            FAILED => Some(Wake::Fault),
            _ => Some(Wake::Ready),
        }
    }

    /// Makes it usable once more, by the thread that made it.
    pub fn reset(&self) {
        self.reason.store(ASLEEP, Ordering::Release);
    }

    /// Lets the thread that made it sleep until the wait is ended, or until a moment of the monotonic clock.
    pub fn sleep(&self, deadline: Option<Nanos>) {
        while self.ended().is_none() {
            if !Self::doze(deadline) {
                break;
            }
        }
    }

    /// Sleeps until something wakes the thread. `false`: the moment has come.
    #[cfg(not(loom))]
    fn doze(deadline: Option<Nanos>) -> bool {
        let Some(at) = deadline else {
            thread::park();
            return true;
        };
        let now = gevent_hub_core::reactor::monotonic();
        if now < at {
            thread::park_timeout(std::time::Duration::from_nanos(at - now));
        }
        now < at
    }

    /// The model has no time: a wait with an end is over at once.
    #[cfg(loom)]
    fn doze(deadline: Option<Nanos>) -> bool {
        if deadline.is_none() {
            thread::park();
        }
        deadline.is_none()
    }
}

/// Whoever waits in a line whose owner wakes them.
#[derive(Clone)]
pub enum Sleeper {
    /// A parked fiber of some hub.
    Fiber(Token),
    /// A thread without a hub.
    Thread(Arc<Parker>),
    /// Nobody any more: what they brought was left behind.
    Nobody,
}

impl Sleeper {
    /// A number that no other one who waits in the same hub has; nor has any other thread.
    #[inline]
    pub fn id(&self) -> u64 {
        match self {
            Sleeper::Fiber(token) => token.0,
            Sleeper::Thread(parker) => Arc::as_ptr(parker) as u64,
            Sleeper::Nobody => u64::MAX,
        }
    }

    /// Whether it is a thread.
    #[inline]
    pub fn is_thread(&self) -> bool {
        matches!(self, Sleeper::Thread(_))
    }
}

/// How one park has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// By this wake.
    Woken(Wake),
    /// The time is over.
    TimedOut,
    /// The waiter was interrupted; its owner knows by what.
    Interrupted,
}

/// How whoever runs can wait, once or several times.
pub trait Parking {
    /// The hub that it waits in; 0 for a thread without one.
    fn hub(&self) -> u64;

    /// Parks. `enter` is called first with the name of the park. If the name changes, `rename` gets the old
    /// one's [`id`](Sleeper::id) and the new one, and says whether that one still waits. Returns how the
    /// park has ended, and the last id.
    fn park(
        &mut self,
        enter: impl FnOnce(Sleeper),
        rename: impl Fn(u64, Sleeper) -> bool,
    ) -> (Ended, u64);

    /// Whether the last park, which was [interrupted](Ended::Interrupted), had been ended before by a wake that
    /// only told the waiter to look: what it looks at is as it was, and others are told of it.
    fn only_told(&self) -> bool {
        false
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use gevent_hub_core::reactor::monotonic;

    #[test]
    fn a_wake_says_why_and_may_come_before_the_sleep() {
        let parker = Parker::new();
        for (why, said) in [
            (Wake::Event, Wake::Ready),
            (Wake::Closed, Wake::Closed),
            (Wake::Fault, Wake::Fault),
        ] {
            assert_eq!(parker.ended(), None);
            parker.end(why);
            parker.sleep(None);
            assert_eq!(parker.ended(), Some(said));
            parker.reset();
        }
        parker.sleep(Some(monotonic() + 1_000_000));
        assert_eq!(parker.ended(), None);
    }

    #[test]
    fn other_wakes_of_the_thread_do_not_end_it() {
        let parker = Parker::new();
        let other = parker.clone();
        let me = std::thread::current();
        let waker = std::thread::spawn(move || {
            me.unpark();
            std::thread::yield_now();
            me.unpark();
            other.end(Wake::Event);
        });
        parker.sleep(None);
        assert_eq!(parker.ended(), Some(Wake::Ready));
        waker.join().unwrap();
    }
}
