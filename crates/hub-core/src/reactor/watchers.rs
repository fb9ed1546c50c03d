//! Watchers: their table, what is active, what is pending, and the calls that are the same for all kinds.
//!
//! What a kind does when it starts and stops lives in the file of its name.

use super::child::ChildState;
use super::stat::StatState;
use super::{Reactor, Revents, Token, Wake, WatcherId, WatcherKind};
use crate::event_loop::Interest;
use crate::slab::Slab;
use crate::timer::{Nanos, TimerKey};
use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// The lowest priority of libev.
pub const MIN_PRIORITY: i32 = -2;
/// The highest priority of libev.
pub const MAX_PRIORITY: i32 = 2;
const PRIORITIES: usize = (MAX_PRIORITY - MIN_PRIORITY + 1) as usize;
/// The level of priority 0.
const DEFAULT_LEVEL: usize = -MIN_PRIORITY as usize;

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
    data: usize,
    /// From 0 (lowest).
    level: u8,
    /// Whether it keeps the loop running.
    counts: bool,
    active: bool,
    /// How many starts there were before its own.
    started: u64,
    /// Its position in the list of its kind.
    position: u32,
    /// Its position in the pending list of its level, from 1; 0 when it is not pending.
    pending: u32,
}

impl Watcher {
    pub(super) fn data(&self) -> usize {
        self.data
    }
}

#[derive(Clone, Copy)]
enum Pending {
    Watcher(WatcherId, Revents),
    /// The end of a fiber's park. It is among the watchers, at the default priority, because upstream
    /// wakes by watchers: so a descriptor that is ready goes before a `Timeout` that is due.
    Wake(Token, Wake),
    /// It was cleared meanwhile.
    Nothing,
}

/// Wakes of one iteration whose fibers, of some 4 KiB each, do not stay in a near cache together.
const MANY: usize = 32;

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
    pending: [Vec<Pending>; PRIORITIES],
    pending_live: usize,
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
    fn watches(&self, fd: RawFd) -> bool {
        let count = usize::try_from(fd).ok().and_then(|at| self.of_fd.get(at));
        count.is_some_and(|n| *n != 0)
    }

    /// Marks it active; returns whether it counts.
    fn activate(&mut self, id: WatcherId) -> bool {
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
    fn deactivate(&mut self, id: WatcherId) -> bool {
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
        let all = &mut self.pending[w.level as usize];
        if w.pending == 0 {
            all.push(Pending::Watcher(id, revents));
            w.pending = all.len() as u32;
            self.pending_live += 1;
        } else if let Pending::Watcher(_, due) = &mut all[w.pending as usize - 1] {
            *due |= revents;
        }
    }

    /// The number of its last start.
    pub(super) fn started(&self, id: WatcherId) -> u64 {
        self.slab.get(id.0).map_or(0, |w| w.started)
    }

    /// Makes the end of a park due.
    pub(super) fn feed_wake(&mut self, token: Token, reason: Wake) {
        self.pending[DEFAULT_LEVEL].push(Pending::Wake(token, reason));
        self.pending_live += 1;
    }

    /// Makes the limit of a park due, at the priority of upstream's `Timeout`: -1.
    pub(super) fn feed_limit(&mut self, token: Token) {
        self.pending[DEFAULT_LEVEL - 1].push(Pending::Wake(token, Wake::Timeout));
        self.pending_live += 1;
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
            if !self.pending[level].is_empty() {
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
        self.idle_all != 0 || self.pending_live != 0 || !self.always.is_empty()
    }

    /// Takes the next due callback: the highest priority, and in it the latest fed (`ev_invoke_pending`).
    pub(super) fn pop_pending(&mut self) -> Option<Turn> {
        if self.pending_live == 0 {
            self.pending.iter_mut().for_each(Vec::clear);
            return None;
        }
        for all in self.pending.iter_mut().rev() {
            while let Some(p) = all.pop() {
                match p {
                    Pending::Nothing => {}
                    Pending::Wake(token, reason) => {
                        self.pending_live -= 1;
                        return Some(Turn::Wake(token, reason));
                    }
                    Pending::Watcher(id, revents) => {
                        self.pending_live -= 1;
                        if let Some(w) = self.slab.get_mut(id.0) {
                            w.pending = 0;
                            return Some(Turn::Fire(id, w.data, revents));
                        }
                    }
                }
            }
        }
        None
    }

    /// The wake that is `ahead` turns behind the next one, if there are so many that their fibers are likely
    /// to have left the caches.
    #[inline]
    pub(super) fn coming(&self, ahead: usize) -> Option<Token> {
        let all = &self.pending[DEFAULT_LEVEL];
        if all.len() < MANY {
            return None;
        }
        match all.get(all.len().checked_sub(1 + ahead)?)? {
            Pending::Wake(token, _) => Some(*token),
            Pending::Nothing | Pending::Watcher(..) => None,
        }
    }

    fn clear_pending(&mut self, id: WatcherId) -> Revents {
        let Some(w) = self.slab.get_mut(id.0) else {
            return Revents::NONE;
        };
        if w.pending == 0 {
            return Revents::NONE;
        }
        let p = &mut self.pending[w.level as usize][w.pending as usize - 1];
        w.pending = 0;
        self.pending_live -= 1;
        match std::mem::replace(p, Pending::Nothing) {
            Pending::Watcher(_, revents) => revents,
            Pending::Wake(..) | Pending::Nothing => Revents::NONE,
        }
    }
}

impl Reactor {
    /// Makes a watcher, not started yet. `data` is the embedder's, and comes back with each event.
    pub fn add(&self, kind: WatcherKind, data: usize) -> WatcherId {
        let spec = match kind {
            WatcherKind::Io { fd, want } => Spec::Io { fd, want },
            WatcherKind::Timer { after, repeat } => Spec::Timer(TimerState {
                after,
                repeat,
                key: None,
            }),
            WatcherKind::Signal { signum } => Spec::Signal { signum },
            WatcherKind::Child { pid, trace } => Spec::Child(Box::new(ChildState::new(pid, trace))),
            WatcherKind::Async => Spec::Async {
                sent: Arc::new(AtomicBool::new(false)),
            },
            WatcherKind::Idle => Spec::Idle,
            WatcherKind::Prepare => Spec::Prepare,
            WatcherKind::Check => Spec::Check,
            WatcherKind::Fork => Spec::Fork,
            WatcherKind::Stat { path, interval } => {
                Spec::Stat(Box::new(StatState::new(path, interval)))
            }
        };
        let level = DEFAULT_LEVEL as u8;
        let watcher = Watcher {
            spec,
            data,
            level,
            counts: true,
            active: false,
            started: 0,
            position: 0,
            pending: 0,
        };
        WatcherId(self.watchers.with(|w| w.slab.insert(watcher)))
    }

    /// Stops a watcher and forgets it.
    pub fn remove(&self, id: WatcherId) {
        self.stop(id);
        // The value is dropped outside of the access: a child's descriptor is closed by it.
        drop(self.watchers.with(|w| w.slab.remove(id.0)));
    }

    /// Starts a watcher; does nothing if it is active.
    ///
    /// A bad descriptor of an io watcher is no error here: as in libev, the watcher stays inactive and
    /// gets its events with [`Revents::ERROR`].
    ///
    /// # Errors
    /// `EBADF` after [`destroy`](Self::destroy), `ENOENT` for a stale `id`, `EBUSY` for a signal that another
    /// reactor watches, `EINVAL` for a signal that cannot be watched, and what the backend said.
    pub fn start(&self, id: WatcherId) -> io::Result<()> {
        enum What {
            Io(RawFd, Interest),
            Timer,
            Signal(i32),
            Child,
            Async(Arc<AtomicBool>),
            Stat,
            Listed,
        }
        if self.is_destroyed() {
            return Err(io::Error::from_raw_os_error(libc::EBADF));
        }
        let what = self.watchers.with(|w| {
            let w = w.slab.get(id.0)?;
            if w.active {
                return Some(None);
            }
            Some(Some(match &w.spec {
                Spec::Io { fd, want } => What::Io(*fd, *want),
                Spec::Timer(_) => What::Timer,
                Spec::Signal { signum } => What::Signal(*signum),
                Spec::Child(_) => What::Child,
                Spec::Async { sent } => What::Async(sent.clone()),
                Spec::Stat(_) => What::Stat,
                _ => What::Listed,
            }))
        });
        let Some(what) = what else {
            return Err(io::Error::from_raw_os_error(libc::ENOENT));
        };
        let Some(what) = what else { return Ok(()) };
        match what {
            What::Io(fd, want) => self.start_io(id, fd, want),
            What::Timer => {
                self.start_timer(id);
                Ok(())
            }
            What::Signal(signum) => self.start_signal(id, signum),
            What::Child => self.start_child(id),
            What::Async(sent) => {
                sent.store(false, std::sync::atomic::Ordering::SeqCst);
                self.activate(id);
                Ok(())
            }
            What::Stat => {
                self.start_stat(id);
                Ok(())
            }
            What::Listed => {
                self.activate(id);
                Ok(())
            }
        }
    }

    /// Stops a watcher; an event that is pending is forgotten, as in libev.
    pub fn stop(&self, id: WatcherId) {
        self.clear_pending(id);
        let active = self.watchers.with(|w| w.is_active(id));
        if !active {
            return;
        }
        enum What {
            Io,
            Timer,
            Signal(i32),
            Child,
            Stat,
            Listed,
        }
        let what = self.watchers.with(|w| match w.spec(id) {
            Some(Spec::Io { .. }) => What::Io,
            Some(Spec::Timer(_)) => What::Timer,
            Some(Spec::Signal { signum }) => What::Signal(*signum),
            Some(Spec::Child(_)) => What::Child,
            Some(Spec::Stat(_)) => What::Stat,
            _ => What::Listed,
        });
        match what {
            What::Io => self.stop_io(id),
            What::Timer => self.stop_timer(id),
            What::Stat => self.stop_stat(id),
            What::Child => self.stop_child(id),
            What::Signal(_) | What::Listed => {}
        }
        self.deactivate(id);
        if let What::Signal(signum) = what {
            self.release_signal(signum);
        }
    }

    /// A descriptor that a watcher keeps for itself is ready.
    pub(super) fn inner_ready(&self, id: WatcherId) {
        let is_child = self.watchers.with(|w| match w.spec(id) {
            Some(Spec::Child(_)) => Some(true),
            Some(Spec::Stat(_)) => Some(false),
            _ => None,
        });
        match is_child {
            Some(true) => self.child_ready(id),
            Some(false) => self.hint_ready(id),
            None => {}
        }
    }

    pub(super) fn activate(&self, id: WatcherId) {
        if self.watchers.with(|w| w.activate(id)) {
            self.reference();
        }
    }

    pub(super) fn deactivate(&self, id: WatcherId) {
        if self.watchers.with(|w| w.deactivate(id)) {
            self.unreference();
        }
    }

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
            let of_fd = |(key, w): (crate::event_loop::Key, &Watcher)| match w.spec {
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
        self.watchers.with(|w| w.pending_live)
    }
}
