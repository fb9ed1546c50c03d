//! [`Remote`]: the way into a reactor from other threads, and [`AsyncHandle`], libev's `ev_async_send`.
//!
//! The list is lock-free, so that a fork in the middle of a push by another thread leaves a usable one.

use super::{Entry, Reactor, Revents, WatcherId};
use crate::event_loop;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};

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
    waker: Doorbell,
}

/// A waker that is given up when its reactor goes, and with it the descriptor that it writes to, though threads that
/// still have the [`Remote`] may just be using it.
///
/// It takes no lock: a signal may interrupt a wake, and a fork come in the middle of one.
struct Doorbell {
    /// Twice the number of threads in [`ring`](Self::ring), and 1 when it was given up.
    state: AtomicUsize,
    waker: AtomicPtr<Arc<dyn event_loop::Wake>>,
}

const GIVEN_UP: usize = 1;
const USER: usize = 2;

impl Doorbell {
    fn new(waker: Arc<dyn event_loop::Wake>) -> Self {
        Doorbell {
            state: AtomicUsize::new(0),
            waker: AtomicPtr::new(Box::into_raw(Box::new(waker))),
        }
    }

    /// Calls `f` with the waker, unless it was given up.
    fn with<R>(&self, f: impl FnOnce(&Arc<dyn event_loop::Wake>) -> R) -> Option<R> {
        let before = self.state.fetch_add(USER, Ordering::SeqCst);
        let result = (before & GIVEN_UP == 0).then(|| {
            // SAFETY: a user that came before it was given up is counted, and it is freed by the last one.
            f(unsafe { &*self.waker.load(Ordering::SeqCst) })
        });
        if self.state.fetch_sub(USER, Ordering::SeqCst) == GIVEN_UP | USER {
            self.free();
        }
        result
    }

    fn ring(&self) {
        self.with(|waker| waker.wake());
    }

    fn give_up(&self) {
        if self.state.fetch_or(GIVEN_UP, Ordering::SeqCst) == 0 {
            self.free();
        }
    }

    /// Once it was given up, and nobody who came before that is left.
    #[cold]
    fn free(&self) {
        let waker = self.waker.swap(ptr::null_mut(), Ordering::SeqCst);
        if !waker.is_null() {
            // SAFETY: the box of `new`, taken out once.
            drop(unsafe { Box::from_raw(waker) });
        }
    }
}

impl Drop for Doorbell {
    fn drop(&mut self) {
        self.free();
    }
}

impl Remote {
    pub(super) fn new(waker: Arc<dyn event_loop::Wake>) -> Self {
        Remote {
            head: AtomicPtr::new(ptr::null_mut()),
            closed: AtomicBool::new(false),
            asyncs: AtomicBool::new(false),
            waker: Doorbell::new(waker),
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
        self.waker.ring();
        true
    }

    /// Wakes the reactor if it sleeps.
    pub fn wake(&self) {
        if !self.closed.load(Ordering::SeqCst) {
            self.waker.ring();
        }
    }

    /// Whether the reactor is gone.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// `None` when the reactor is gone.
    pub(super) fn waker(&self) -> Option<Arc<dyn event_loop::Wake>> {
        self.waker.with(Arc::clone)
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
        self.waker.give_up();
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
