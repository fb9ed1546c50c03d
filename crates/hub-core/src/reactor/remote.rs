//! [`Remote`]: the way into a reactor from other threads, and [`AsyncHandle`], libev's `ev_async_send`.
//!
//! The list is lock-free, so that a fork in the middle of a push by another thread leaves a usable one.

use super::{Entry, Reactor, Revents, WatcherId};
use crate::event_loop;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

struct Node {
    entry: Entry,
    next: *mut Node,
}

/// Pushes entries from any thread and wakes the reactor. After the reactor is gone it does nothing.
pub struct Remote {
    head: AtomicPtr<Node>,
    closed: AtomicBool,
    /// An [`AsyncHandle`] was used.
    asyncs: AtomicBool,
    waker: Arc<dyn event_loop::Wake>,
}

impl Remote {
    pub(super) fn new(waker: Arc<dyn event_loop::Wake>) -> Self {
        Remote {
            head: AtomicPtr::new(ptr::null_mut()),
            closed: AtomicBool::new(false),
            asyncs: AtomicBool::new(false),
            waker,
        }
    }

    /// Puts `entry` at the end of the reactor's queue, and wakes it. Entries of one thread keep their
    /// order. `false`: the reactor is gone, and the entry will not be run.
    pub fn push(&self, entry: Entry) -> bool {
        if self.closed.load(Ordering::SeqCst) {
            return false;
        }
        let node = Box::into_raw(Box::new(Node {
            entry,
            next: ptr::null_mut(),
        }));
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            // SAFETY: the node is ours until the exchange succeeds.
            unsafe { (*node).next = head };
            match self
                .head
                .compare_exchange_weak(head, node, Ordering::SeqCst, Ordering::Relaxed)
            {
                Ok(_) => break,
                Err(now) => head = now,
            }
        }
        self.waker.wake();
        true
    }

    /// Wakes the reactor if it sleeps.
    pub fn wake(&self) {
        if !self.closed.load(Ordering::SeqCst) {
            self.waker.wake();
        }
    }

    /// Whether the reactor is gone.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    pub(super) fn waker(&self) -> Arc<dyn event_loop::Wake> {
        self.waker.clone()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.head.load(Ordering::SeqCst).is_null() && !self.asyncs.load(Ordering::SeqCst)
    }

    /// Takes everything, oldest first.
    fn drain(&self) -> Drain {
        let mut at = self.head.swap(ptr::null_mut(), Ordering::SeqCst);
        let mut oldest = ptr::null_mut();
        while !at.is_null() {
            // SAFETY: the swap made the whole list ours.
            let next = unsafe { std::mem::replace(&mut (*at).next, oldest) };
            oldest = at;
            at = next;
        }
        Drain(oldest)
    }

    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        drop(self.drain());
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        drop(self.drain());
    }
}

/// A list of nodes that belongs to nobody else.
struct Drain(*mut Node);

impl Iterator for Drain {
    type Item = Entry;

    fn next(&mut self) -> Option<Entry> {
        if self.0.is_null() {
            return None;
        }
        // SAFETY: nodes come from `Box::into_raw`, and each is taken out once.
        let node = unsafe { Box::from_raw(self.0) };
        self.0 = node.next;
        Some(node.entry)
    }
}

impl Drop for Drain {
    fn drop(&mut self) {
        self.for_each(drop);
    }
}

/// Sends to one async watcher from any thread (`ev_async_send`): many sends before the callback runs
/// are one. Sends while the watcher is not active are lost, as in libev.
#[derive(Clone)]
pub struct AsyncHandle {
    sent: Arc<AtomicBool>,
    remote: Arc<Remote>,
}

impl AsyncHandle {
    /// Makes the watcher's callback due. Takes no lock and allocates nothing.
    pub fn send(&self) {
        if !self.sent.swap(true, Ordering::SeqCst) {
            self.remote.asyncs.store(true, Ordering::SeqCst);
            self.remote.wake();
        }
    }

    /// Whether a send has not been turned into an event yet (`ev_async_pending`).
    pub fn is_sent(&self) -> bool {
        self.sent.load(Ordering::SeqCst)
    }
}

impl Reactor {
    /// The way in for other threads.
    pub fn remote(&self) -> Arc<Remote> {
        self.remote.clone()
    }

    /// A sender for the async watcher `id` that other threads may use; `None` if there is none.
    pub fn async_handle(&self, id: WatcherId) -> Option<AsyncHandle> {
        let sent = self.watchers.with(|w| w.async_flag(id))?;
        Some(AsyncHandle {
            sent,
            remote: self.remote.clone(),
        })
    }

    /// Makes the callback of an async watcher due, from the reactor's own thread.
    pub fn send(&self, id: WatcherId) {
        if let Some(handle) = self.async_handle(id) {
            handle.send();
        }
    }

    /// Whether a send to the async watcher `id` has not been turned into an event yet.
    pub fn is_sent(&self, id: WatcherId) -> bool {
        self.watchers
            .with(|w| w.async_flag(id))
            .is_some_and(|f| f.load(Ordering::SeqCst))
    }

    /// Brings in what other threads have sent.
    pub fn take_remote(&self) {
        if self.remote.is_empty() {
            return;
        }
        for entry in self.remote.drain() {
            match entry {
                Entry::Closed(source) => self.source_detach(source),
                other => self.queue.push(other),
            }
        }
        if self.remote.asyncs.swap(false, Ordering::SeqCst) {
            self.watchers.with(|w| {
                for id in w.asyncs().to_vec() {
                    let sent = w
                        .async_flag(id)
                        .is_some_and(|f| f.swap(false, Ordering::SeqCst));
                    if sent {
                        w.feed(id, Revents::ASYNC);
                    }
                }
            });
        }
    }
}
