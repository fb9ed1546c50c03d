//! [`Lines`]: those who wait to put and those who wait to get, of one queue or channel that is looked after
//! hub by hub.
//!
//! Where a [`Queue`](crate::Queue) of this crate hands an item over under its lock, here whoever makes it
//! possible for a waiter to go on has the waiter's hub look after it, which is upstream gevent's order. The
//! lines take no lock and wake nobody: they belong into what guards the object, and its owner wakes whom
//! [`queue`] and [`channel`] name. The owner may run foreign code between any two steps, so nothing here
//! keeps a reference into the lines over a call to it.

pub mod channel;
pub mod queue;
#[cfg(all(test, not(loom)))]
mod tests;

use crate::parker::Sleeper;
use std::collections::VecDeque;

/// Somebody in a line.
pub struct Waiter<T> {
    /// Who it is.
    pub sleeper: Sleeper,
    /// The hub of a fiber, 0 for a thread.
    pub hub: u64,
    /// What somebody in the putters' line puts.
    pub item: Option<T>,
}

/// One of the two lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    /// Those who wait for an item.
    Getters,
    /// Those who wait for room, or for a getter.
    Putters,
}

impl Line {
    /// The other one.
    #[inline]
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Line::Getters => Line::Putters,
            Line::Putters => Line::Getters,
        }
    }
}

/// The two lines. `T` is an item, `M` what is left for a waiter that was taken off its line.
pub struct Lines<T, M> {
    getters: VecDeque<Waiter<T>>,
    putters: VecDeque<Waiter<T>>,
    /// The hub of all who wait for items, if it is one; not renewed before that line is empty.
    getters_hub: Option<u64>,
    /// The hubs in which a look at the waiters is due or running.
    notifiers: Vec<u64>,
    mail: Vec<((u64, u64), M)>,
}

impl<T, M> Default for Lines<T, M> {
    fn default() -> Self {
        Lines {
            getters: VecDeque::new(),
            putters: VecDeque::new(),
            getters_hub: None,
            notifiers: Vec::new(),
            mail: Vec::new(),
        }
    }
}

impl<T, M> Lines<T, M> {
    #[inline]
    fn of(&mut self, line: Line) -> &mut VecDeque<Waiter<T>> {
        match line {
            Line::Getters => &mut self.getters,
            Line::Putters => &mut self.putters,
        }
    }

    /// Those in a line, in the order in which they are served.
    #[inline]
    pub fn line(&self, line: Line) -> &VecDeque<Waiter<T>> {
        match line {
            Line::Getters => &self.getters,
            Line::Putters => &self.putters,
        }
    }

    /// Whether nobody waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.getters.is_empty() && self.putters.is_empty()
    }

    /// The hub to which all who wait for items belong, as far as is known without a look at each.
    #[inline]
    pub fn getters_hub(&self) -> Option<u64> {
        self.getters_hub.filter(|_| !self.getters.is_empty())
    }

    /// What is left for waiters that were taken off their lines.
    pub fn mail(&self) -> impl Iterator<Item = &M> {
        self.mail.iter().map(|(_, mail)| mail)
    }

    /// Goes to the end of a line, or to its front.
    #[inline]
    pub fn enter(&mut self, line: Line, waiter: Waiter<T>, first: bool) {
        if line == Line::Getters {
            let same = self.getters.is_empty() || self.getters_hub == Some(waiter.hub);
            self.getters_hub = same.then_some(waiter.hub);
        }
        if first {
            self.of(line).push_front(waiter);
        } else {
            self.of(line).push_back(waiter);
        }
    }

    /// Takes somebody off. `None`: they are not in the line any more.
    pub fn leave(&mut self, line: Line, hub: u64, id: u64) -> Option<Waiter<T>> {
        let line = self.of(line);
        let at = line
            .iter()
            .position(|w| w.hub == hub && w.sleeper.id() == id);
        at.and_then(|at| line.remove(at))
    }

    /// Somebody waits on under another name. `false`: they are not in the line any more.
    pub fn rename(&mut self, line: Line, hub: u64, id: u64, name: Sleeper) -> bool {
        let found = self
            .of(line)
            .iter_mut()
            .find(|w| w.hub == hub && w.sleeper.id() == id);
        found.map(|w| w.sleeper = name).is_some()
    }

    /// The first of a line goes on.
    #[inline]
    pub fn pop(&mut self, line: Line) -> Option<Waiter<T>> {
        self.of(line).pop_front()
    }

    fn remove(&mut self, line: Line, at: usize) -> Option<Waiter<T>> {
        self.of(line).remove(at)
    }

    /// All go on.
    pub fn take_all(&mut self) -> impl Iterator<Item = Waiter<T>> + use<T, M> {
        let getters = std::mem::take(&mut self.getters);
        getters.into_iter().chain(std::mem::take(&mut self.putters))
    }

    /// Takes the items away from those who put: the object is going.
    pub fn take_items(&mut self) -> Vec<T> {
        self.putters
            .iter_mut()
            .filter_map(|w| w.item.take())
            .collect()
    }

    /// Takes all away that was left for waiters: the object is going.
    pub fn take_mail(&mut self) -> Vec<M> {
        std::mem::take(&mut self.mail)
            .into_iter()
            .map(|(_, mail)| mail)
            .collect()
    }

    /// Leaves something for a waiter that was taken off its line.
    pub fn post(&mut self, hub: u64, id: u64, mail: M) {
        self.mail.push(((hub, id), mail));
    }

    /// What was left for a waiter.
    pub fn collect(&mut self, hub: u64, id: u64) -> Option<M> {
        let at = self.mail.iter().position(|(to, _)| *to == (hub, id));
        at.map(|at| self.mail.swap_remove(at).1)
    }

    /// Whether a look at the waiters is due or running in this hub.
    #[inline]
    pub fn notifies(&self, hub: u64) -> bool {
        self.notifiers.contains(&hub)
    }

    /// No look is due in this hub any more.
    #[inline]
    pub fn forget(&mut self, hub: u64) {
        self.notifiers.retain(|h| *h != hub);
    }
}

/// The lines of an object, and the ways to those who are in them. Each call may run foreign code, except
/// where it says that it does not.
pub trait Owner {
    /// What is put.
    type Item;
    /// What is left for a waiter.
    type Mail;

    /// Looks at the lines. Runs nothing but `f`, which calls nobody.
    fn lines<R>(&self, f: impl FnOnce(&mut Lines<Self::Item, Self::Mail>) -> R) -> R;

    /// The hub of the calling thread; 0 if it has none. Runs no foreign code.
    fn here(&self) -> u64;

    /// Whether a hub can be reached. Runs no foreign code.
    fn exists(&self, hub: u64) -> bool;

    /// Has `hub` look after its waiters soon, by [`queue::round`] or [`channel::round`]. `false` if it is
    /// gone. Runs no foreign code.
    fn schedule(&self, hub: u64) -> bool;

    /// Lets a waiter go on that was taken off its line, and drops what it brought. At once, if `at_once` and
    /// this is its hub; or else soon.
    fn wake(&self, waiter: Waiter<Self::Item>, why: gevent_hub_core::reactor::Wake, at_once: bool);

    /// Drops what somebody brought who has another reference to it.
    fn release(&self, item: Option<Self::Item>);
}

/// Has `hub` look after its waiters, unless it is going to.
#[inline]
fn schedule<O: Owner>(owner: &O, hub: u64) {
    if !owner.lines(|l| l.notifies(hub)) && owner.schedule(hub) {
        owner.lines(|l| l.notifiers.push(hub));
    }
}
