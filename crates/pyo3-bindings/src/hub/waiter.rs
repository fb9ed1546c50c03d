//! [`Waiter`]: a parked greenlet's name that is good in every thread.
//!
//! A token alone names a park of one hub, and means something else to another. Whatever may be woken from
//! more than one thread (a greenlet that is joined, a socket that is closed) keeps a `Waiter`.

use super::HubCore;
use crate::sync::homes;
use gevent_hub_core::reactor::{Entry, Token, Wake};

/// A park and the hub it is on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Waiter {
    hub: u64,
    token: Token,
}

impl Waiter {
    /// The park `token` of `hub`.
    #[inline]
    pub fn new(hub: &HubCore, token: Token) -> Self {
        Waiter {
            hub: hub.core().id(),
            token,
        }
    }

    /// Ends the park with `reason`, at once or, if it is another thread's, soon. A park that is over is left
    /// alone, also one whose hub is gone.
    #[inline]
    pub fn wake(self, reason: Wake) {
        match HubCore::current() {
            Some(hub) if hub.core().id() == self.hub => {
                hub.core().unpark(self.token, reason);
            }
            _ => self.wake_abroad(reason),
        }
    }

    /// As `wake`, but a park of this thread goes on next, before what is queued.
    pub fn hand_over(self, reason: Wake) {
        match HubCore::current() {
            Some(hub) if hub.core().id() == self.hub => {
                hub.core().hand_over(self.token, reason);
            }
            _ => self.wake_abroad(reason),
        }
    }

    #[cold]
    fn wake_abroad(self, reason: Wake) {
        homes::push(self.hub, Entry::Wake(self.token, reason));
    }
}
