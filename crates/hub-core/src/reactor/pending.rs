//! What is due in this iteration, by priority: callbacks of watchers, and ends of parks.

use super::{Revents, Token, Wake, WatcherId};

/// The lowest priority of libev.
pub const MIN_PRIORITY: i32 = -2;
/// The highest priority of libev.
pub const MAX_PRIORITY: i32 = 2;
pub(super) const PRIORITIES: usize = (MAX_PRIORITY - MIN_PRIORITY + 1) as usize;
/// The level of priority 0.
pub(super) const DEFAULT_LEVEL: usize = -MIN_PRIORITY as usize;

/// Wakes of one iteration whose fibers, of some 4 KiB each, do not stay in a near cache together.
const MANY: usize = 32;

#[derive(Clone, Copy)]
enum Slot {
    Live(Pending),
    Cleared,
}

#[derive(Clone, Copy)]
pub(super) enum Pending {
    Watcher(WatcherId, Revents),
    /// The end of a fiber's park. It is among the watchers, at the default priority, because upstream
    /// wakes by watchers: so a descriptor that is ready goes before a `Timeout` that is due.
    Wake(Token, Wake),
}

/// All of it. Levels are priorities from 0, the lowest.
#[derive(Default)]
pub(super) struct PendingQueue {
    levels: [Vec<Slot>; PRIORITIES],
    live: usize,
}

impl PendingQueue {
    /// How much is due.
    pub(super) fn len(&self) -> usize {
        self.live
    }

    pub(super) fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// Whether something was due at `level`, and was not reached yet.
    pub(super) fn has(&self, level: usize) -> bool {
        !self.levels[level].is_empty()
    }

    /// Makes a watcher's callback due; returns its place, which is never 0.
    #[inline]
    pub(super) fn push(&mut self, level: u8, id: WatcherId, revents: Revents) -> u32 {
        let all = &mut self.levels[level as usize];
        all.push(Slot::Live(Pending::Watcher(id, revents)));
        self.live += 1;
        all.len() as u32
    }

    /// Adds to the events of the watcher that is due at `place`.
    pub(super) fn add(&mut self, level: u8, place: u32, revents: Revents) {
        if let Slot::Live(Pending::Watcher(_, due)) =
            &mut self.levels[level as usize][place as usize - 1]
        {
            *due |= revents;
        }
    }

    /// Forgets the watcher that is due at `place`; returns its events.
    pub(super) fn clear(&mut self, level: u8, place: u32) -> Revents {
        let slot = &mut self.levels[level as usize][place as usize - 1];
        self.live -= 1;
        match std::mem::replace(slot, Slot::Cleared) {
            Slot::Live(Pending::Watcher(_, revents)) => revents,
            Slot::Live(Pending::Wake(..)) | Slot::Cleared => Revents::NONE,
        }
    }

    /// Makes the end of a park due.
    #[inline]
    pub(super) fn push_wake(&mut self, token: Token, reason: Wake) {
        self.levels[DEFAULT_LEVEL].push(Slot::Live(Pending::Wake(token, reason)));
        self.live += 1;
    }

    /// Makes the limit of a park due, at the priority of upstream's `Timeout`: -1.
    pub(super) fn push_limit(&mut self, token: Token) {
        self.levels[DEFAULT_LEVEL - 1].push(Slot::Live(Pending::Wake(token, Wake::Timeout)));
        self.live += 1;
    }

    /// Takes what is next: the latest of the highest priority.
    #[inline]
    pub(super) fn pop(&mut self) -> Option<Pending> {
        if self.live == 0 {
            self.levels.iter_mut().for_each(Vec::clear);
            return None;
        }
        for all in self.levels.iter_mut().rev() {
            while let Some(slot) = all.pop() {
                if let Slot::Live(due) = slot {
                    self.live -= 1;
                    return Some(due);
                }
            }
        }
        None
    }

    /// The wake that is `ahead` turns behind the next one, if there are so many that their fibers are likely
    /// to have left the caches.
    #[inline]
    pub(super) fn coming(&self, ahead: usize) -> Option<Token> {
        let all = &self.levels[DEFAULT_LEVEL];
        if all.len() < MANY {
            return None;
        }
        match all.get(all.len().checked_sub(1 + ahead)?)? {
            Slot::Live(Pending::Wake(token, _)) => Some(*token),
            Slot::Live(Pending::Watcher(..)) | Slot::Cleared => None,
        }
    }
}
