//! [`Links`]: who is told when an object becomes ready, in which hub, and in which order.
//!
//! Where a [`WaitList`](crate::waiters::WaitList) hands something to one waiter after the other, this list
//! has upstream gevent's order: when an object becomes ready, each hub with waiters is asked once to look
//! after its own, in their order, and calls functions as well as going on with fibers. The list itself
//! takes no lock and calls nobody: it belongs into the lock that guards the object (for Python objects
//! that is the GIL), and its owner does what it says.
//!
//! `W` is who waits, in whatever form the owner has it.

#[cfg(all(test, not(loom)))]
mod tests;
mod told;

pub use told::{Linked, Taken, check_and_notify, notify, take, wait};

use crate::few::Few;

/// Who waits.
pub trait Who {
    /// What tells two functions apart.
    type Function: Copy + PartialEq;

    /// The function that is to be called, if it is one.
    fn function(&self) -> Option<Self::Function>;

    /// Whether it is a thread without a hub, which is woken at once and never by a hub.
    fn is_thread(&self) -> bool;

    /// The [`Sleeper::id`](crate::parker::Sleeper::id), if it is one and no function.
    fn id(&self) -> Option<u64>;
}

/// One waiter.
pub struct Link<W> {
    /// Who it is.
    pub who: W,
    /// The hub that it belongs to; 0 if there was none.
    pub hub: u64,
    /// It wants something that only one can have, and another thread may give it.
    pub taking: bool,
    /// It found the object ready, and waits only for those that came before it.
    pub arrived: bool,
    order: u64,
}

impl<W> Link<W> {
    /// A number that grows with each link of a list.
    pub fn order(&self) -> u64 {
        self.order
    }
}

/// The waiters of one object.
pub struct Links<W> {
    list: Few<Link<W>>,
    order: u64,
    /// The hubs in which a round is due or running.
    notifiers: Few<u64>,
    /// How many rounds are running.
    running: u32,
}

impl<W> Default for Links<W> {
    fn default() -> Self {
        Links {
            list: Few::default(),
            order: 0,
            notifiers: Few::default(),
            running: 0,
        }
    }
}

/// One look of one hub after its waiters: first those that were there before it began, then those that
/// arrived when the object was ready. See [`Links::next`].
pub struct Round<F> {
    hub: u64,
    arrived: bool,
    limit: u64,
    /// The function of the last link there was at the beginning.
    last: Option<F>,
    called: Vec<F>,
    at_end: bool,
}

/// What [`Links::next`] says.
#[derive(Debug, PartialEq, Eq)]
pub enum Next<W> {
    /// Go on with this waiter. The flag is false for a function that was called in this round already.
    Tell(W, bool),
    /// The object is not ready any more.
    Blocked,
    /// There is nobody left to tell.
    Done,
}

impl<W: Who> Links<W> {
    /// How many there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether nobody waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// In the order of their coming.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Link<W>> {
        self.list.iter()
    }

    /// Adds a waiter at the end.
    pub fn push(&mut self, who: W, hub: u64, taking: bool, arrived: bool) {
        let order = self.order;
        self.order += 1;
        self.list.push(Link {
            who,
            hub,
            taking,
            arrived,
            order,
        });
    }

    /// Takes the first waiter off for which `is` is true. `None`: somebody has told it already.
    pub fn remove(&mut self, is: impl Fn(&Link<W>) -> bool) -> Option<W> {
        let at = self.list.position(is);
        let link = at.and_then(|at| self.list.remove(at));
        self.revoke_if_alone();
        link.map(|l| l.who)
    }

    /// Takes the one who sleeps under this name off. `false`: somebody has told them already.
    pub fn leave(&mut self, hub: u64, id: u64) -> bool {
        self.remove(|l| l.hub == hub && l.who.id() == Some(id))
            .is_some()
    }

    /// Somebody sleeps on under another name. `false`: somebody has told them already.
    pub fn rename(&mut self, hub: u64, id: u64, name: W) -> bool {
        let is = |l: &&mut Link<W>| l.hub == hub && l.who.id() == Some(id);
        let found = self.list.iter_mut().find(is);
        found.map(|l| l.who = name).is_some()
    }

    /// The first function behind the link of that order, with its own order.
    pub fn function_after(&self, order: Option<u64>) -> Option<(u64, W::Function)> {
        self.list
            .iter()
            .skip_while(|l| order.is_some_and(|o| l.order <= o))
            .find_map(|l| Some((l.order, l.who.function()?)))
    }

    /// With nobody linked, a round that is due is revoked: it would be the news of a past event for
    /// whoever is linked next.
    fn revoke_if_alone(&mut self) {
        if self.list.is_empty() && self.running == 0 {
            self.notifiers = Few::default();
        }
    }

    /// Keeps those waiters and due rounds that a predicate allows; returns the others.
    pub fn retain(
        &mut self,
        keep: impl Fn(&Link<W>) -> bool,
        round: impl Fn(u64) -> bool,
    ) -> Vec<W> {
        self.notifiers.discard(|hub| !round(*hub));
        let gone = self.list.extract(keep);
        gone.into_iter().map(|link| link.who).collect()
    }

    /// Whether a round is due or running in this hub.
    #[inline]
    pub fn notifies(&self, hub: u64) -> bool {
        self.notifiers.position(|h| *h == hub).is_some()
    }

    /// In how many hubs a round is due or running.
    pub fn notifiers(&self) -> usize {
        self.notifiers.len()
    }

    /// No round is due in this hub any more.
    pub fn forget(&mut self, hub: u64) {
        self.notifiers.discard(|h| *h == hub);
    }

    /// Begins a round in `hub`, which has to be [ended](Self::end).
    pub fn begin(&mut self, hub: u64) -> Round<W::Function> {
        self.running += 1;
        let mut round = Round {
            hub,
            arrived: false,
            limit: 0,
            last: None,
            called: Vec::new(),
            at_end: false,
        };
        self.start(&mut round, false);
        round
    }

    fn start(&self, round: &mut Round<W::Function>, arrived: bool) {
        round.arrived = arrived;
        round.at_end = false;
        round.limit = self.order;
        round.last = self
            .list
            .last(|l| round.has(l))
            .and_then(|l| l.who.function());
    }

    /// Takes the next waiter of a round off the list. Those that are added meanwhile are not in it.
    /// `ready`: whether one that is told could go on; for an object that tells all, true.
    pub fn next(&mut self, round: &mut Round<W::Function>, ready: bool) -> Next<W> {
        loop {
            if self.list.is_empty() {
                return Next::Done;
            }
            let limit = round.limit;
            let found = self.list.position(|l| round.has(l) && l.order < limit);
            let Some(at) = found.filter(|_| !round.at_end) else {
                if round.arrived {
                    return Next::Done;
                }
                self.start(round, true);
                continue;
            };
            if !(round.arrived || ready) {
                return Next::Blocked;
            }
            let Some(link) = self.list.remove(at) else {
                return Next::Done;
            };
            let mut fresh = true;
            if let Some(function) = link.who.function() {
                // One function is called once in a round, even if it was linked twice.
                fresh = !round.called.contains(&function);
                round.called.push(function);
                // As upstream: what comes after the last one has a round of its own.
                round.at_end = round.last == Some(function);
            }
            return Next::Tell(link.who, fresh);
        }
    }

    /// Ends a round; `blocked` if it ended by [`Next::Blocked`]. True if waiters are left that know that
    /// the object was ready: then another round is due, as this says, and has to be scheduled.
    pub fn end(&mut self, round: &Round<W::Function>, blocked: bool) -> bool {
        self.running -= 1;
        self.forget(round.hub);
        let left = !blocked
            && self
                .list
                .position(|l| l.arrived && round.belongs(l))
                .is_some();
        if left {
            self.notifiers.push(round.hub);
        }
        left
    }
}

impl<F> Round<F> {
    fn belongs<W: Who>(&self, link: &Link<W>) -> bool {
        (link.hub == self.hub || link.hub == 0) && !link.who.is_thread()
    }

    fn has<W: Who>(&self, link: &Link<W>) -> bool {
        link.arrived == self.arrived && self.belongs(link)
    }
}
