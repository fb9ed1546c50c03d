//! [`Target`]: whoever waits, and how to wake them from any thread.

use super::sys::{Thread, thread};
use gevent_hub_core::hub::Hub;
use gevent_hub_core::reactor::{Entry, Remote, Token, Wake};
use std::sync::Arc;

/// Whoever waits.
pub enum Target {
    /// A parked fiber of some hub.
    Fiber(FiberTarget),
    /// A thread without a hub, asleep in [`std::thread::park`].
    Thread(ThreadTarget),
    /// A function to be called by whoever grants, on that one's thread, without a lock held.
    Call(Box<dyn FnOnce() + Send>),
}

/// See [`Target::Fiber`].
pub struct FiberTarget {
    hub: u64,
    remote: Arc<Remote>,
    token: Token,
}

/// See [`Target::Thread`].
pub struct ThreadTarget(Thread);

impl Target {
    /// The fiber that is about to park as `token` on `hub`.
    #[inline]
    pub fn fiber(hub: &Hub, token: Token) -> Self {
        Target::Fiber(FiberTarget {
            hub: hub.id(),
            remote: hub.reactor().remote(),
            token,
        })
    }

    /// The calling thread.
    pub fn this_thread() -> Self {
        Target::Thread(ThreadTarget(thread::current()))
    }

    /// Wakes them, from any thread. To be called without a lock held.
    #[inline]
    pub fn wake(self) {
        match self {
            Target::Fiber(fiber) => Hub::with(|hub| match hub {
                Some(hub) if hub.id() == fiber.hub => {
                    hub.unpark(fiber.token, Wake::Event);
                }
                // A hub that is gone has no fiber left to wake.
                _ => {
                    fiber.remote.push(Entry::Wake(fiber.token, Wake::Event));
                }
            }),
            Target::Thread(thread) => thread.0.unpark(),
            Target::Call(call) => call(),
        }
    }
}
