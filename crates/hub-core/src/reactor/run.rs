//! The iteration: which phase follows which, when a poll may sleep, and when a run is over.
//!
//! The phases of one iteration, as `ev_run` has them: fork watchers (in a new child), prepare watchers, the
//! queue, the poll, timers, idle watchers, check watchers, and then every pending callback by priority, and
//! among those of the default priority the fibers that an event or a deadline woke. In upstream the queue is
//! run by a prepare watcher, so it has the same place there.

use super::watchers::Turn;
use super::{Class, Entry, Host, Nanos, Reactor, RunMode};
use crate::event_loop::{Event, Until};
use crate::stack;
use crate::timer::Next;
use std::io;

/// Nanoseconds between two steps of giving unused stacks back, in a thread that sleeps.
const TRIM_PAUSE: u64 = 20_000_000;

/// Ends nothing (`EVBREAK_CANCEL`).
pub(super) const GO_ON: u8 = 0;
/// Ends the innermost run (`EVBREAK_ONE`).
pub(super) const BREAK_ONE: u8 = 1;
/// Ends all runs that are nested (`EVBREAK_ALL`).
pub(super) const BREAK_ALL: u8 = 2;

/// Keeps the depth right when a host unwinds.
struct Depth<'a>(&'a Reactor);

impl<'a> Depth<'a> {
    fn enter(reactor: &'a Reactor) -> Self {
        reactor.depth.set(reactor.depth.get() + 1);
        Depth(reactor)
    }
}

impl Drop for Depth<'_> {
    fn drop(&mut self) {
        self.0.depth.set(self.0.depth.get() - 1);
    }
}

impl Reactor {
    /// Runs the loop (`ev_run`). It returns when nothing that counts is active and the queue is empty, after a
    /// [`break_`](Self::break_), after the one iteration that `mode` asks for, or when the host or
    /// [`destroy`](Self::destroy) ends it. `true`: something is still active or queued.
    ///
    /// # Errors
    /// What the backend says when it can no longer wait.
    pub fn run(&self, host: &dyn Host, mode: RunMode) -> io::Result<bool> {
        if self.is_destroyed() {
            return Ok(false);
        }
        if self.depth.get() == 0 {
            // What its thread did between two runs held nothing up.
            self.turn.set(self.clock.now());
        }
        let _depth = Depth::enter(self);
        self.done.set(GO_ON);
        // When this run is nested, what the outer one was about to invoke comes first.
        self.invoke_pending(host);
        loop {
            self.iterate(host, mode)?;
            if self.is_over(host) {
                break;
            }
            if mode != RunMode::Default {
                self.take_remote();
                self.drain(host);
                break;
            }
            if !self.is_alive() {
                break;
            }
        }
        if self.done.get() == BREAK_ONE {
            self.done.set(GO_ON);
        }
        Ok(self.is_alive())
    }

    /// Ends the innermost run, or all, when the callbacks of its iteration are through (`ev_break`).
    pub fn break_(&self, all: bool) {
        self.done.set(if all { BREAK_ALL } else { BREAK_ONE });
    }

    /// How many runs are nested (`ev_depth`).
    pub fn depth(&self) -> u32 {
        self.depth.get()
    }

    /// How many iterations there were (`ev_iteration`).
    pub fn iteration(&self) -> u64 {
        self.iterations.get()
    }

    /// Whether there is a reason to go on.
    pub fn is_alive(&self) -> bool {
        !self.is_destroyed() && (self.refs.get() > 0 || self.queue.len() != 0 || self.has_remote())
    }

    /// Whether another thread has sent something that has not been taken yet.
    pub fn has_remote(&self) -> bool {
        !self.remote.is_empty()
    }

    fn is_over(&self, host: &dyn Host) -> bool {
        self.done.get() != GO_ON || self.is_destroyed() || !host.keep_running()
    }

    fn iterate(&self, host: &dyn Host, mode: RunMode) -> io::Result<()> {
        if self.forked.take() {
            self.watchers.with(|w| w.feed_forks());
            self.invoke_pending(host);
        }
        if self.watchers.with(|w| w.feed_prepares()) {
            self.invoke_pending(host);
        }
        if self.is_over(host) {
            return Ok(());
        }
        self.take_remote();
        self.drain(host);
        if self.is_over(host) {
            return Ok(());
        }
        self.iterations.set(self.iterations.get() + 1);
        self.poll(host, mode)?;
        host.tick();
        if self.is_destroyed() {
            return Ok(());
        }
        self.take_remote();
        self.take_signals();
        self.fire_timers();
        self.watchers.with(|w| {
            w.feed_always();
            w.feed_idles();
            w.feed_checks();
        });
        self.invoke_pending(host);
        Ok(())
    }

    /// Invokes what is pending, and what becomes pending meanwhile (`ev_invoke_pending`).
    pub(super) fn invoke_pending(&self, host: &dyn Host) {
        while let Some(turn) = self.watchers.with(|w| w.pop_pending()) {
            match turn {
                Turn::Fire(id, data, revents) => {
                    self.fired_count.set(self.fired_count.get() + 1);
                    host.fire(id, data, revents);
                }
                Turn::Wake(token, reason) => {
                    let (next, later) = self
                        .watchers
                        .with(|w| (w.pending.coming(0), w.pending.coming(1)));
                    host.expect(next, later);
                    host.run_entry(Entry::Wake(token, reason));
                }
            }
        }
    }

    /// What a poll may sleep for, if at all.
    fn sleeps_for(&self, mode: RunMode) -> Option<Next> {
        if mode == RunMode::NoWait
            || self.refs.get() <= 0
            || self.done.get() != GO_ON
            || self.queue.len() != 0
            || !self.remote.is_empty()
            || self.signals.with(|s| s.has_pending())
            || self.watchers.with(|w| w.is_busy())
        {
            return None;
        }
        Some(self.timers.with(|t| t.next()))
    }

    /// How long that is; the flag says that the moment is only a lower bound of the next timer. `next` becomes
    /// more exact if that bound is over already.
    fn until(&self, next: &mut Next) -> (Until, bool) {
        loop {
            let (at, rough) = match *next {
                Next::Never => return (Until::Forever, false),
                Next::At(at) => (at, false),
                Next::NotBefore(at) => (at, true),
            };
            if at > self.now.get() {
                self.update_now();
            }
            let now = self.now.get();
            if at > now {
                return (Until::At(at), rough);
            }
            let before = *next;
            if rough {
                *next = self.timers.with(|t| {
                    t.advance(now);
                    t.next()
                });
            }
            if *next == before {
                return (Until::Now, false);
            }
        }
    }

    /// `wait` nanoseconds from now, if that is before `until`.
    fn within(&self, wait: Nanos, until: Until) -> Until {
        if wait == 0 {
            return Until::Now;
        }
        let soon = self.clock.now() + wait;
        match until {
            Until::At(at) => Until::At(at.min(soon)),
            _ => Until::At(soon),
        }
    }

    /// Measures the turn that ends now, and begins the next one.
    fn end_turn(&self) {
        let now = self.now.get();
        let lag = now.saturating_sub(self.turn.replace(now));
        self.lag.set(lag);
        self.lag_max.set(self.lag_max.get().max(lag));
    }

    fn poll(&self, host: &dyn Host, mode: RunMode) -> io::Result<()> {
        self.settle_old_doubts();
        let mut events = self.events.take();
        // For how long it may sleep before the last look; 0 when that is now.
        let mut patience = host.patience();
        let mut may_look = true;
        // Whether the turn is over and measured. Without a sleep the time after the poll will do.
        let mut ended = false;
        let result = loop {
            let mut next = self.sleeps_for(mode);
            let (mut until, mut rough) = match &mut next {
                None => (Until::Now, false),
                Some(next) => self.until(next),
            };
            if until != Until::Now && patience == 0 {
                host.last_look();
                if self.sleeps_for(mode) != next {
                    (until, rough) = (Until::Now, false);
                }
            }
            let mut sleeps = until != Until::Now;
            // The look goes by the time of the last poll, as a turn without a sleep does.
            let polled = self.now.get();
            if sleeps && !ended {
                if until == Until::Forever {
                    // With a deadline, `until` has just asked the clock.
                    self.update_now();
                }
                self.end_turn();
                ended = true;
            }
            if sleeps
                && std::mem::take(&mut may_look)
                && let Some(wait) = self.looks.before_sleep(polled)
            {
                let result = self.with_backend(|b| b.poll(self.within(wait, until), &mut events));
                self.looks.told(!events.is_empty());
                if result.is_err() || !events.is_empty() {
                    self.update_now();
                    self.turn.set(self.now.get());
                    break result;
                }
            }
            if sleeps && self.settle_doubts() {
                (until, rough, sleeps) = (Until::Now, false, false);
            }
            if sleeps {
                self.sleeps.set(self.sleeps.get() + 1);
                host.before_sleep();
                let mut pause = if patience == 0 { Nanos::MAX } else { patience };
                if stack::trim_idle() {
                    pause = pause.min(TRIM_PAUSE);
                }
                if pause != Nanos::MAX {
                    self.update_now();
                    let soon = self.now.get() + pause;
                    if !matches!(until, Until::At(at) if at <= soon) {
                        (until, rough) = (Until::At(soon), true);
                    }
                }
            }
            let result = self.with_backend(|b| b.poll(until, &mut events));
            self.update_now();
            if sleeps {
                let woke = self.now.get();
                self.turn.set(woke);
                host.after_sleep();
                self.update_now();
                self.looks.slept(woke, self.now.get());
            } else if !ended {
                self.end_turn();
                ended = true;
            }
            if !rough || result.is_err() || !events.is_empty() {
                break result;
            }
            if patience != Nanos::MAX {
                patience = 0;
            }
            let now = self.now.get();
            self.timers.with(|t| t.advance(now));
        };
        self.dispatch(&mut events);
        self.events.with(|e| *e = events);
        // The host may have destroyed it on its way to sleep.
        if self.is_destroyed() { Ok(()) } else { result }
    }

    /// Sorts events to whom they belong. Runs no callback.
    pub(super) fn dispatch(&self, events: &mut Vec<Event>) {
        self.order(events);
        for event in events.drain(..) {
            match event {
                Event::Ready(key, readiness) => match Class::of(key) {
                    (Class::Source, key) => self.source_event(key, readiness),
                    (Class::Watcher, key) => self.io_ready(super::WatcherId(key), readiness),
                    (Class::Inner, key) => self.inner_ready(super::WatcherId(key)),
                    (Class::Op, _) => {}
                },
                Event::Done(key, result) => {
                    if let (Class::Op, key) = Class::of(key) {
                        self.op_done(key, result);
                    }
                }
                // What the wake was for is looked for in any case.
                Event::Woken => {}
            }
        }
    }
}
