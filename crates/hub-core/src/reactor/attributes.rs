//! What can be asked of a watcher and set: whether it is active, its data, priority and reference; and
//! how many there are.

use super::watchers::{Spec, Watcher};
use super::{MAX_PRIORITY, MIN_PRIORITY, Reactor, Revents, WatcherId};
use crate::event_loop::{Interest, Key};
use std::os::fd::RawFd;

impl Reactor {
    /// Whether stopping the watcher would tell the backend: it is active, and of a kind that the backend knows.
    pub fn is_with_backend(&self, id: WatcherId) -> bool {
        self.watchers.with(|w| {
            w.is_active(id)
                && matches!(
                    w.spec(id),
                    Some(Spec::Io { .. } | Spec::Child(_) | Spec::Stat(_))
                )
        })
    }

    /// Whether it is started.
    pub fn is_active(&self, id: WatcherId) -> bool {
        self.watchers.with(|w| w.is_active(id))
    }

    /// Whether its callback is due.
    pub fn is_pending(&self, id: WatcherId) -> bool {
        self.watchers
            .with(|w| w.slab.get(id.0).is_some_and(|w| w.pending != 0))
    }

    /// Makes its callback due with `revents`, whether it is active or not (`ev_feed_event`).
    pub fn feed(&self, id: WatcherId, revents: Revents) {
        self.watchers.with(|w| w.feed(id, revents));
    }

    /// Forgets an event that is pending, and returns it (`ev_clear_pending`).
    pub fn clear_pending(&self, id: WatcherId) -> Revents {
        self.watchers.with(|w| w.clear_pending(id))
    }

    /// The data of every watcher that is active or pending, for whoever destroys the loop and has
    /// references to give up.
    pub fn active_data(&self) -> Vec<usize> {
        self.watchers.with(|w| {
            let live = |w: &&Watcher| w.active || w.pending != 0;
            w.slab
                .iter()
                .map(|(_, w)| w)
                .filter(live)
                .map(|w| w.data)
                .collect()
        })
    }

    /// Makes every active io watcher of `fd` pending (`ev_feed_fd_event`). Whether there was one.
    pub fn feed_fd(&self, fd: RawFd) -> bool {
        let found: Vec<(WatcherId, Interest)> = self.watchers.with(|w| {
            if !w.watches(fd) {
                return Vec::new();
            }
            let of_fd = |(key, w): (Key, &Watcher)| match w.spec {
                Spec::Io { fd: f, want } if f == fd && w.active => Some((WatcherId(key), want)),
                _ => None,
            };
            w.slab.iter().filter_map(of_fd).collect()
        });
        for (id, want) in &found {
            self.feed(*id, Revents::of(*want));
        }
        !found.is_empty()
    }

    /// The word given to [`add`](Self::add).
    pub fn data(&self, id: WatcherId) -> Option<usize> {
        self.watchers.with(|w| w.slab.get(id.0).map(|w| w.data))
    }

    /// Replaces the word given to [`add`](Self::add).
    pub fn set_data(&self, id: WatcherId, data: usize) {
        self.watchers.with(|w| {
            if let Some(w) = w.slab.get_mut(id.0) {
                w.data = data;
            }
        });
    }

    /// Its priority, -2 to 2.
    pub fn priority(&self, id: WatcherId) -> i32 {
        self.watchers.with(|w| {
            w.slab
                .get(id.0)
                .map_or(0, |w| i32::from(w.level) + MIN_PRIORITY)
        })
    }

    /// Sets its priority, clamped to -2..=2. `false`, and no change, while it is active or pending.
    pub fn set_priority(&self, id: WatcherId, priority: i32) -> bool {
        self.watchers.with(|w| match w.slab.get_mut(id.0) {
            Some(w) if !w.active && w.pending == 0 => {
                w.level = (priority.clamp(MIN_PRIORITY, MAX_PRIORITY) - MIN_PRIORITY) as u8;
                true
            }
            _ => false,
        })
    }

    /// Whether it keeps the loop running while it is active.
    pub fn has_ref(&self, id: WatcherId) -> bool {
        self.watchers
            .with(|w| w.slab.get(id.0).is_some_and(|w| w.counts))
    }

    /// Decides whether it keeps the loop running while it is active; may change at any time.
    pub fn set_ref(&self, id: WatcherId, counts: bool) {
        let changed = self.watchers.with(|w| match w.slab.get_mut(id.0) {
            Some(w) if w.counts != counts => {
                w.counts = counts;
                w.active
            }
            _ => false,
        });
        match (changed, counts) {
            (true, true) => self.reference(),
            (true, false) => self.unreference(),
            _ => {}
        }
    }

    /// Counts one more thing that keeps the loop running (`ev_ref`).
    #[inline]
    pub fn reference(&self) {
        self.refs.set(self.refs.get() + 1);
    }

    /// Takes one away (`ev_unref`).
    #[inline]
    pub fn unreference(&self) {
        self.refs.set(self.refs.get() - 1);
    }

    /// How many things keep the loop running: counted active watchers, parked timers, waits for sources,
    /// operations, and explicit [references](Self::reference).
    pub fn active_count(&self) -> i64 {
        self.refs.get()
    }

    /// How many callbacks are due.
    pub fn pending_count(&self) -> usize {
        self.watchers.with(|w| w.pending.len())
    }
}
