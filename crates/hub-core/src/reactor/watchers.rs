//! The table of watchers: what each is, which are active, and what the phases of an iteration make due.

use super::child::ChildState;
use super::pending::{DEFAULT_LEVEL, PRIORITIES, Pending, PendingQueue};
use super::stat::StatState;
use super::{Revents, Token, Wake, WatcherId};
use crate::event_loop::Interest;
use crate::slab::Slab;
use crate::timer::{Nanos, TimerKey};
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// What a watcher of each kind knows.
pub(super) enum Spec {
    Io { fd: RawFd, want: Interest },
    Timer(TimerState),
    Signal { signum: i32 },
    Child(Box<ChildState>),
    Async { sent: Arc<AtomicBool> },
    Idle,
    Prepare,
    Check,
    Fork,
    Stat(Box<StatState>),
}

pub(super) struct TimerState {
    /// From the next start to the first event. As in libev, stopping leaves here what remained.
    pub(super) after: Nanos,
    pub(super) repeat: Nanos,
    pub(super) key: Option<TimerKey>,
}

pub(super) struct Watcher {
    pub(super) spec: Spec,
    pub(super) data: usize,
    /// From 0 (lowest).
    pub(super) level: u8,
    /// Whether it keeps the loop running.
    pub(super) counts: bool,
    pub(super) active: bool,
    /// How many starts there were before its own.
    started: u64,
    /// Its position in the list of its kind.
    position: u32,
    /// Its place in the queue of what is due; 0 when it is not pending.
    pub(super) pending: u32,
}

impl Watcher {
    pub(super) fn new(spec: Spec, data: usize) -> Self {
        Watcher {
            spec,
            data,
            level: DEFAULT_LEVEL as u8,
            counts: true,
            active: false,
            started: 0,
            position: 0,
            pending: 0,
        }
    }
}

/// What [`Watchers::pop_pending`] takes out.
pub(super) enum Turn {
    /// A watcher's callback, with the watcher's data.
    Fire(WatcherId, usize, Revents),
    /// A fiber.
    Wake(Token, Wake),
}

/// Lists of active watchers that the loop visits.
#[derive(Clone, Copy, PartialEq, Eq)]
enum List {
    Signal,
    Child,
    Async,
    Prepare,
    Check,
    Fork,
    Idle(u8),
}

#[derive(Default)]
pub(super) struct Watchers {
    pub(super) slab: Slab<Watcher>,
    starts: u64,
    pub(super) pending: PendingQueue,
    signals: Vec<WatcherId>,
    children: Vec<WatcherId>,
    asyncs: Vec<WatcherId>,
    prepares: Vec<WatcherId>,
    checks: Vec<WatcherId>,
    forks: Vec<WatcherId>,
    idles: [Vec<WatcherId>; PRIORITIES],
    idle_all: usize,
    /// Io watchers of descriptors that the kernel does not poll.
    pub(super) always: Vec<WatcherId>,
    /// How many active io watchers each descriptor has; mostly none, which is asked at each close(2).
    of_fd: Vec<u32>,
}

impl Watchers {
    pub(super) fn spec(&mut self, id: WatcherId) -> Option<&mut Spec> {
        self.slab.get_mut(id.0).map(|w| &mut w.spec)
    }

    fn list_of(w: &Watcher) -> Option<List> {
        Some(match w.spec {
            Spec::Io { .. } | Spec::Timer(_) | Spec::Stat(_) => return None,
            Spec::Signal { .. } => List::Signal,
            Spec::Child(_) => List::Child,
            Spec::Async { .. } => List::Async,
            Spec::Prepare => List::Prepare,
            Spec::Check => List::Check,
            Spec::Fork => List::Fork,
            Spec::Idle => List::Idle(w.level),
        })
    }

    fn list(&mut self, list: List) -> &mut Vec<WatcherId> {
        match list {
            List::Signal => &mut self.signals,
            List::Child => &mut self.children,
            List::Async => &mut self.asyncs,
            List::Prepare => &mut self.prepares,
            List::Check => &mut self.checks,
            List::Fork => &mut self.forks,
            List::Idle(level) => &mut self.idles[level as usize],
        }
    }

    pub(super) fn signals(&self) -> &[WatcherId] {
        &self.signals
    }

    pub(super) fn children(&self) -> &[WatcherId] {
        &self.children
    }

    pub(super) fn asyncs(&self) -> &[WatcherId] {
        &self.asyncs
    }

    pub(super) fn async_flag(&mut self, id: WatcherId) -> Option<Arc<AtomicBool>> {
        match self.spec(id)? {
            Spec::Async { sent } => Some(sent.clone()),
            _ => None,
        }
    }

    /// How many active watchers keep the loop running.
    pub(super) fn count_refs(&self) -> i64 {
        let counting = self.slab.iter().filter(|(_, w)| w.active && w.counts);
        counting.count() as i64
    }

    pub(super) fn is_active(&self, id: WatcherId) -> bool {
        self.slab.get(id.0).is_some_and(|w| w.active)
    }

    fn count_of_fd(&mut self, fd: RawFd) -> Option<&mut u32> {
        let at = usize::try_from(fd).ok()?;
        if at >= self.of_fd.len() {
            self.of_fd.resize(at + 1, 0);
        }
        Some(&mut self.of_fd[at])
    }

    /// Whether an active io watcher has this descriptor.
    pub(super) fn watches(&self, fd: RawFd) -> bool {
        let count = usize::try_from(fd).ok().and_then(|at| self.of_fd.get(at));
        count.is_some_and(|n| *n != 0)
    }

    /// Marks it active; returns whether it counts.
    pub(super) fn activate(&mut self, id: WatcherId) -> bool {
        let Some(w) = self.slab.get_mut(id.0) else {
            return false;
        };
        debug_assert!(!w.active);
        w.active = true;
        w.started = self.starts;
        self.starts += 1;
        let (counts, list) = (w.counts, Self::list_of(w));
        // Of one that wants nothing the number was not looked at: it may be any.
        if let Spec::Io { fd, want } = w.spec
            && !want.is_empty()
            && let Some(n) = self.count_of_fd(fd)
        {
            *n += 1;
        }
        if let Some(list) = list {
            let all = self.list(list);
            all.push(id);
            let position = all.len() as u32 - 1;
            self.slab.at(id.0.index()).position = position;
            self.idle_all += usize::from(matches!(list, List::Idle(_)));
        }
        counts
    }

    /// Marks it inactive; returns whether it counts.
    pub(super) fn deactivate(&mut self, id: WatcherId) -> bool {
        let Some(w) = self.slab.get_mut(id.0) else {
            return false;
        };
        debug_assert!(w.active);
        w.active = false;
        let (counts, position, list) = (w.counts, w.position as usize, Self::list_of(w));
        if let Spec::Io { fd, want } = w.spec
            && !want.is_empty()
            && let Some(n) = self.count_of_fd(fd)
        {
            *n -= 1;
        }
        if let Some(list) = list {
            let all = self.list(list);
            all.swap_remove(position);
            if let Some(&moved) = all.get(position) {
                self.slab.at(moved.0.index()).position = position as u32;
            }
            self.idle_all -= usize::from(matches!(list, List::Idle(_)));
        }
        counts
    }

    /// Makes its callback due (`ev_feed_event`).
    pub(super) fn feed(&mut self, id: WatcherId, revents: Revents) {
        let Some(w) = self.slab.get_mut(id.0) else {
            return;
        };
        if w.pending == 0 {
            w.pending = self.pending.push(w.level, id, revents);
        } else {
            self.pending.add(w.level, w.pending, revents);
        }
    }

    /// The number of its last start.
    pub(super) fn started(&self, id: WatcherId) -> u64 {
        self.slab.get(id.0).map_or(0, |w| w.started)
    }

    fn feed_list(&mut self, list: List, revents: Revents) {
        for i in 0..self.list(list).len() {
            let id = self.list(list)[i];
            self.feed(id, revents);
        }
    }

    /// Whether there are any.
    pub(super) fn feed_prepares(&mut self) -> bool {
        self.feed_list(List::Prepare, Revents::PREPARE);
        !self.prepares.is_empty()
    }

    pub(super) fn feed_checks(&mut self) {
        self.feed_list(List::Check, Revents::CHECK);
    }

    pub(super) fn feed_forks(&mut self) {
        self.feed_list(List::Fork, Revents::FORK);
    }

    /// Feeds the idle watchers of the highest level at or above which nothing is pending (`idle_reify`).
    pub(super) fn feed_idles(&mut self) {
        if self.idle_all == 0 {
            return;
        }
        for level in (0..PRIORITIES).rev() {
            if self.pending.has(level) {
                return;
            }
            if !self.idles[level].is_empty() {
                return self.feed_list(List::Idle(level as u8), Revents::IDLE);
            }
        }
    }

    /// Feeds what is ready because the kernel does not poll it.
    pub(super) fn feed_always(&mut self) {
        for i in 0..self.always.len() {
            let id = self.always[i];
            if let Some(Spec::Io { want, .. }) = self.spec(id) {
                let revents = Revents::of(*want);
                self.feed(id, revents);
            }
        }
    }

    /// Whether a poll must not sleep on account of the watchers.
    pub(super) fn is_busy(&self) -> bool {
        self.idle_all != 0 || !self.pending.is_empty() || !self.always.is_empty()
    }

    /// Takes the next due callback: the highest priority, and in it the latest fed (`ev_invoke_pending`).
    pub(super) fn pop_pending(&mut self) -> Option<Turn> {
        loop {
            match self.pending.pop()? {
                Pending::Wake(token, reason) => return Some(Turn::Wake(token, reason)),
                Pending::Watcher(id, revents) => {
                    if let Some(w) = self.slab.get_mut(id.0) {
                        w.pending = 0;
                        return Some(Turn::Fire(id, w.data, revents));
                    }
                }
            }
        }
    }

    pub(super) fn clear_pending(&mut self, id: WatcherId) -> Revents {
        let Some(w) = self.slab.get_mut(id.0) else {
            return Revents::NONE;
        };
        if w.pending == 0 {
            return Revents::NONE;
        }
        self.pending.clear(w.level, std::mem::take(&mut w.pending))
    }
}
