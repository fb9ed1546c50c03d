//! Timer watchers (ev_timer), and the deadlines of parks.

use super::watchers::{Spec, TimerState};
use super::{Reactor, Revents, Token, Wake, WatcherId};
use crate::timer::{Due, Nanos, TimerKey};

/// The limit of a park. It keeps the loop running.
const LIMIT: u8 = 0;
/// The end of a sleep. It keeps the loop running.
const SLEEP: u8 = 1;
/// The end of a sleep that does not.
const QUIET: u8 = 2;
/// A timer watcher.
const WATCHER: u8 = 3;
/// The next look of a stat watcher.
pub(super) const STAT: u8 = 4;

/// Whether a timer belongs to a watcher, and not to a park.
pub(super) fn is_watcher(due: Due) -> bool {
    due.tag >= WATCHER
}

impl Reactor {
    /// Starts the limit of a park: when it is over, the park of `token` ends with [`Wake::Timeout`], after all
    /// that is ready in the same iteration, as with a `Timeout` of upstream. It keeps the loop running.
    /// `deadline` is a moment of the reactor's clock.
    #[inline]
    pub fn arm(&self, deadline: Nanos, token: Token) -> TimerKey {
        self.reference();
        self.start_deadline(deadline, token, LIMIT)
    }

    /// Starts a sleep: as [`arm`](Self::arm), but its end has the priority of what is ready. `counts`: it keeps
    /// the loop running.
    #[inline]
    pub fn arm_sleep(&self, deadline: Nanos, token: Token, counts: bool) -> TimerKey {
        if counts {
            self.reference();
        }
        self.start_deadline(deadline, token, if counts { SLEEP } else { QUIET })
    }

    #[inline]
    fn start_deadline(&self, deadline: Nanos, token: Token, tag: u8) -> TimerKey {
        let due = Due { tag, word: token.0 };
        self.timers.with(|t| t.start(deadline, due))
    }

    /// Takes a deadline back. `false` if it has passed: the wake is due, or was run.
    #[inline]
    pub fn disarm(&self, key: TimerKey) -> bool {
        match self.timers.with(|t| t.stop(key)) {
            Some(due) => {
                if matches!(due.tag, LIMIT | SLEEP) {
                    self.unreference();
                }
                true
            }
            None => false,
        }
    }

    /// Restarts a timer watcher with its `repeat` (`ev_timer_again`): a running one without `repeat` is
    /// stopped, one that does not run is started if it has a `repeat`.
    pub fn again(&self, id: WatcherId) {
        self.clear_pending(id);
        let Some((repeat, key)) = self.with_timer(id, |t| (t.repeat, t.key)) else {
            return;
        };
        match (self.is_active(id), repeat) {
            (true, 0) => self.stop(id),
            (true, _) => {
                if let Some(key) = key {
                    self.timers.with(|t| t.stop(key));
                }
                self.set_due(id, self.now.get().saturating_add(repeat));
            }
            (false, 0) => {}
            (false, _) => {
                self.with_timer(id, |t| t.after = repeat);
                if !self.is_destroyed() {
                    self.start_timer(id);
                }
            }
        }
    }

    /// Changes the times of a timer watcher. `false`, and no change, while it is active.
    pub fn set_timer(&self, id: WatcherId, after: Nanos, repeat: Nanos) -> bool {
        let idle = !self.is_active(id);
        idle && self
            .with_timer(id, |t| (t.after, t.repeat) = (after, repeat))
            .is_some()
    }

    /// Changes `repeat` of a timer watcher, also of an active one: it counts from the next expiry, or from
    /// [`again`](Self::again).
    pub fn set_repeat(&self, id: WatcherId, repeat: Nanos) {
        self.with_timer(id, |t| t.repeat = repeat);
    }

    /// `repeat` of a timer watcher.
    pub fn repeat(&self, id: WatcherId) -> Nanos {
        self.with_timer(id, |t| t.repeat).unwrap_or(0)
    }

    /// How long until a timer watcher is due; when it is not active, from its start (`ev_timer_remaining`).
    pub fn remaining(&self, id: WatcherId) -> Nanos {
        let Some((after, key)) = self.with_timer(id, |t| (t.after, t.key)) else {
            return 0;
        };
        match key.and_then(|k| self.timers.with(|t| t.deadline(k))) {
            Some(deadline) => deadline.saturating_sub(self.now.get()),
            None => after,
        }
    }

    fn with_timer<R>(&self, id: WatcherId, f: impl FnOnce(&mut TimerState) -> R) -> Option<R> {
        self.watchers.with(|w| match w.spec(id) {
            Some(Spec::Timer(t)) => Some(f(t)),
            _ => None,
        })
    }

    fn set_due(&self, id: WatcherId, deadline: Nanos) {
        let key = self.timers.with(|t| {
            t.start(
                deadline,
                Due {
                    tag: WATCHER,
                    word: id.0.0,
                },
            )
        });
        self.with_timer(id, |t| t.key = Some(key));
    }

    pub(super) fn start_timer(&self, id: WatcherId) {
        if let Some(after) = self.with_timer(id, |t| t.after) {
            self.set_due(id, self.now.get().saturating_add(after));
            self.activate(id);
        }
    }

    pub(super) fn stop_timer(&self, id: WatcherId) {
        let remaining = self.remaining(id);
        let key = self.with_timer(id, |t| {
            t.after = remaining;
            t.key.take()
        });
        if let Some(Some(key)) = key {
            self.timers.with(|t| t.stop(key));
        }
    }

    /// Turns what is due into wakes and pending events (`timers_reify`).
    pub(super) fn fire_timers(&self) {
        let now = self.now.get();
        let mut fired = self.fired.take();
        self.timers.with(|t| {
            t.advance(now);
            while let Some((_, deadline, due)) = t.pop(now) {
                if matches!(due.tag, LIMIT | SLEEP) {
                    self.unreference();
                }
                fired.push((due, deadline));
            }
        });
        if let Some((_, deadline)) = fired.first() {
            // Late by the turn before, by a wait for the GIL, or because the system gave the processor to others.
            let lag = now.saturating_sub(*deadline).max(self.lag.get());
            self.lag.set(lag);
            self.lag_max.set(self.lag_max.get().max(lag));
        }
        // All that is due is taken out first, so that a repeat that is due again waits for its turn.
        for (due, deadline) in fired.iter().filter(|(due, _)| due.tag >= WATCHER) {
            let id = WatcherId(crate::event_loop::Key(due.word));
            if due.tag == STAT {
                self.look_at_stat(id);
            } else {
                match self.repeat(id) {
                    0 => self.expire(id),
                    repeat => self.set_due(id, deadline.saturating_add(repeat).max(now)),
                }
            }
        }
        // Pending events are invoked last in, first out: fed backwards, they run in the order of deadlines.
        self.watchers.with(|w| {
            for (due, _) in fired.drain(..).rev() {
                match due.tag {
                    LIMIT => w.pending.push_limit(Token(due.word)),
                    SLEEP | QUIET => w.pending.push_wake(Token(due.word), Wake::Timeout),
                    WATCHER => w.feed(WatcherId(crate::event_loop::Key(due.word)), Revents::TIMER),
                    _ => {}
                }
            }
        });
        self.fired.with(|f| *f = fired);
    }

    fn expire(&self, id: WatcherId) {
        self.with_timer(id, |t| (t.after, t.key) = (0, None));
        self.deactivate(id);
    }
}
