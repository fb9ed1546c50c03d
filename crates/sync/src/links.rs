//! [`Links`]: who is told when an object becomes ready, in which hub, and in which order.
//!
//! Where a [`WaitList`](crate::waiters::WaitList) hands something to one waiter after the other, this list
//! has upstream gevent's order: when an object becomes ready, each hub with waiters is asked once to look
//! after its own, in their order, and calls functions as well as going on with fibers. The list itself
//! takes no lock and calls nobody: it belongs into the lock that guards the object (for Python objects
//! that is the GIL), and its owner does what it says.
//!
//! `W` is who waits, in whatever form the owner has it.

use std::collections::VecDeque;

/// Who waits.
pub trait Who {
    /// What tells two functions apart.
    type Function: Copy + PartialEq;

    /// The function that is to be called, if it is one.
    fn function(&self) -> Option<Self::Function>;

    /// Whether it is a thread without a hub, which is woken at once and never by a hub.
    fn is_thread(&self) -> bool;
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

/// The object that is waited for, and the ways to other hubs, for [`Links::choose`].
pub trait Ready<W> {
    /// Whether a wait would not block.
    fn is_ready(&self) -> bool;
    /// Whether all are told when it is ready, or only as many as can go on.
    fn tells_all(&self) -> bool;
    /// What a waiter with `taking` wants is on its way to one.
    fn give(&self);
    /// Whether a hub can still be reached.
    fn exists(&self, hub: u64) -> bool;
    /// Wakes a thread.
    fn wake_thread(&self, who: W);
    /// Wakes a waiter of another hub with what it wanted. Gives it back if that is no fiber.
    ///
    /// # Errors
    /// A waiter that can only be told by its hub.
    fn hand_over(&self, hub: u64, who: W) -> Result<bool, W>;
    /// Asks `hub` to run a [`Round`]. `false` if it is gone.
    fn schedule(&mut self, hub: u64) -> bool;
    /// Drops a waiter whose hub is gone.
    fn drop_later(&mut self, who: W);
}

/// The waiters of one object.
pub struct Links<W> {
    list: VecDeque<Link<W>>,
    order: u64,
    /// The hubs in which a round is due or running.
    notifiers: Vec<u64>,
    /// How many rounds are running.
    running: u32,
}

impl<W> Default for Links<W> {
    fn default() -> Self {
        Links {
            list: VecDeque::new(),
            order: 0,
            notifiers: Vec::new(),
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
        self.list.push_back(Link {
            who,
            hub,
            taking,
            arrived,
            order,
        });
    }

    /// Takes the first waiter off for which `is` is true. `None`: somebody has told it already.
    pub fn remove(&mut self, is: impl Fn(&Link<W>) -> bool) -> Option<W> {
        let at = self.list.iter().position(is);
        let link = at.and_then(|at| self.list.remove(at));
        self.revoke_if_alone();
        link.map(|l| l.who)
    }

    /// The first waiter for which `is` is true.
    pub fn find(&mut self, is: impl Fn(&Link<W>) -> bool) -> Option<&mut Link<W>> {
        self.list.iter_mut().find(|l| is(l))
    }

    /// The first function behind the link of that order, with its own order.
    pub fn function_after(&self, order: Option<u64>) -> Option<(u64, W::Function)> {
        let from = order.map_or(0, |o| self.list.partition_point(|l| l.order <= o));
        self.list
            .iter()
            .skip(from)
            .find_map(|l| Some((l.order, l.who.function()?)))
    }

    /// With nobody linked, a round that is due is revoked: it would be the news of a past event for
    /// whoever is linked next.
    fn revoke_if_alone(&mut self) {
        if self.list.is_empty() && self.running == 0 {
            self.notifiers.clear();
        }
    }

    /// Keeps those waiters and due rounds that a predicate allows; returns the others.
    pub fn retain(
        &mut self,
        keep: impl Fn(&Link<W>) -> bool,
        round: impl Fn(u64) -> bool,
    ) -> Vec<W> {
        self.notifiers.retain(|hub| round(*hub));
        let mut gone = Vec::new();
        for link in std::mem::take(&mut self.list) {
            if keep(&link) {
                self.list.push_back(link);
            } else {
                gone.push(link.who);
            }
        }
        gone
    }

    /// Whether a round is due or running in this hub.
    #[inline]
    pub fn notifies(&self, hub: u64) -> bool {
        self.notifiers.contains(&hub)
    }

    /// In how many hubs a round is due or running.
    pub fn notifiers(&self) -> usize {
        self.notifiers.len()
    }

    /// No round is due in this hub any more.
    pub fn forget(&mut self, hub: u64) {
        self.notifiers.retain(|h| *h != hub);
    }

    /// The object may have become ready: wakes threads, hands things to waiters of other hubs, and
    /// schedules a round in each hub that has waiters left. `here` is the hub of the calling thread, or 0.
    pub fn choose(&mut self, here: u64, object: &mut impl Ready<W>) {
        let mut at = 0;
        while at < self.list.len() && object.is_ready() {
            let link = &self.list[at];
            let hub = if link.hub == 0 { here } else { link.hub };
            if link.who.is_thread() {
                if link.taking {
                    object.give();
                }
                self.take(at, |who| object.wake_thread(who));
                continue;
            }
            if hub != here && hub != 0 {
                if !object.exists(hub) {
                    self.take(at, |who| object.drop_later(who));
                    continue;
                }
                if link.taking && self.hand_over(at, hub, object) {
                    continue;
                }
            }
            if !self.notifies(hub) {
                self.notifiers.push(hub);
                if !object.schedule(hub) {
                    self.forget(hub);
                }
            }
            if !object.tells_all() {
                // First come, first served: the others are thought of when that hub is through.
                break;
            }
            at += 1;
        }
    }

    fn take(&mut self, at: usize, f: impl FnOnce(W)) {
        if let Some(link) = self.list.remove(at) {
            f(link.who);
        }
    }

    fn hand_over(&mut self, at: usize, hub: u64, object: &mut impl Ready<W>) -> bool {
        let Some(link) = self.list.remove(at) else {
            return false;
        };
        let Link {
            who,
            hub: home,
            taking,
            arrived,
            order,
        } = link;
        match object.hand_over(hub, who) {
            Ok(reached) => {
                if reached {
                    object.give();
                }
                true
            }
            Err(who) => {
                let link = Link {
                    who,
                    hub: home,
                    taking,
                    arrived,
                    order,
                };
                self.list.insert(at, link);
                false
            }
        }
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
            .iter()
            .rev()
            .find(|l| round.has(l))
            .and_then(|l| l.who.function());
    }

    /// Takes the next waiter of a round off the list. Those that are added meanwhile are not in it.
    /// `ready`: whether one that is told could go on; for an object that tells all, true.
    pub fn next(&mut self, round: &mut Round<W::Function>, ready: impl Fn() -> bool) -> Next<W> {
        loop {
            let limit = round.limit;
            let found = self
                .list
                .iter()
                .position(|l| round.has(l) && l.order < limit);
            let Some(at) = found.filter(|_| !round.at_end) else {
                if round.arrived {
                    return Next::Done;
                }
                self.start(round, true);
                continue;
            };
            if !(round.arrived || ready()) {
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
        let left = !blocked && self.list.iter().any(|l| l.arrived && round.belongs(l));
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

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::cell::{Cell, RefCell};

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Is {
        Fiber(u32),
        Function(u32),
        Thread(u32),
    }

    impl Who for Is {
        type Function = u32;

        fn function(&self) -> Option<u32> {
            match self {
                Is::Function(n) => Some(*n),
                _ => None,
            }
        }

        fn is_thread(&self) -> bool {
            matches!(self, Is::Thread(_))
        }
    }

    #[derive(Default)]
    struct Object {
        permits: Cell<u32>,
        all: bool,
        gone: Vec<u64>,
        log: RefCell<Vec<String>>,
    }

    impl Object {
        fn with(permits: u32, all: bool) -> Self {
            Object {
                permits: Cell::new(permits),
                all,
                ..Object::default()
            }
        }

        fn say(&self, text: String) {
            self.log.borrow_mut().push(text);
        }

        fn said(&self) -> Vec<String> {
            self.log.take()
        }
    }

    impl Ready<Is> for Object {
        fn is_ready(&self) -> bool {
            self.permits.get() > 0
        }

        fn tells_all(&self) -> bool {
            self.all
        }

        fn give(&self) {
            self.permits.set(self.permits.get() - 1);
        }

        fn exists(&self, hub: u64) -> bool {
            !self.gone.contains(&hub)
        }

        fn wake_thread(&self, who: Is) {
            self.say(format!("wake {who:?}"));
        }

        fn hand_over(&self, hub: u64, who: Is) -> Result<bool, Is> {
            if who.function().is_some() {
                return Err(who);
            }
            self.say(format!("hand {hub} {who:?}"));
            Ok(true)
        }

        fn schedule(&mut self, hub: u64) -> bool {
            self.say(format!("schedule {hub}"));
            true
        }

        fn drop_later(&mut self, who: Is) {
            self.say(format!("drop {who:?}"));
        }
    }

    fn run(links: &mut Links<Is>, hub: u64, permits: &Cell<u32>, all: bool) -> (Vec<Is>, bool) {
        let mut round = links.begin(hub);
        let mut told = Vec::new();
        let blocked = loop {
            match links.next(&mut round, || all || permits.get() > 0) {
                Next::Tell(who, fresh) => {
                    if fresh {
                        told.push(who);
                    }
                    if !all {
                        permits.set(permits.get() - 1);
                    }
                }
                Next::Blocked => break true,
                Next::Done => break false,
            }
        };
        let again = links.end(&round, blocked);
        (told, again)
    }

    #[test]
    fn each_hub_is_asked_once_and_tells_its_own_in_order() {
        let mut links = Links::default();
        for (n, hub) in [(0, 1), (1, 2), (2, 1), (3, 0)] {
            links.push(Is::Fiber(n), hub, false, false);
        }
        let mut event = Object::with(1, true);
        links.choose(1, &mut event);
        links.choose(1, &mut event);
        assert_eq!(event.said(), ["schedule 1", "schedule 2"]);
        let told = run(&mut links, 1, &event.permits, true);
        assert_eq!(
            told,
            (vec![Is::Fiber(0), Is::Fiber(2), Is::Fiber(3)], false)
        );
        assert!(!links.notifies(1) && links.notifies(2));
        let told = run(&mut links, 2, &event.permits, true);
        assert_eq!(told, (vec![Is::Fiber(1)], false));
        assert!(links.is_empty() && links.notifiers() == 0);
    }

    #[test]
    fn permits_go_to_threads_and_other_hubs_at_once_and_one_by_one_here() {
        let mut links = Links::default();
        links.push(Is::Thread(0), 0, true, false);
        links.push(Is::Fiber(1), 2, true, false);
        links.push(Is::Fiber(2), 1, true, false);
        links.push(Is::Fiber(3), 2, true, false);
        let mut semaphore = Object::with(4, false);
        links.choose(1, &mut semaphore);
        assert_eq!(
            semaphore.said(),
            ["wake Thread(0)", "hand 2 Fiber(1)", "schedule 1"]
        );
        assert_eq!((semaphore.permits.get(), links.len()), (2, 2));
        let told = run(&mut links, 1, &semaphore.permits, false);
        assert_eq!(told, (vec![Is::Fiber(2)], false));
        links.choose(1, &mut semaphore);
        assert_eq!(semaphore.said(), ["hand 2 Fiber(3)"]);
        assert_eq!(semaphore.permits.get(), 0);
    }

    #[test]
    fn a_function_of_another_hub_is_left_to_it() {
        let mut links = Links::default();
        links.push(Is::Function(5), 2, true, false);
        let mut semaphore = Object::with(1, false);
        links.choose(1, &mut semaphore);
        assert_eq!(semaphore.said(), ["schedule 2"]);
        assert_eq!((links.len(), semaphore.permits.get()), (1, 1));
    }

    #[test]
    fn waiters_of_hubs_that_are_gone_are_dropped() {
        let mut links = Links::default();
        links.push(Is::Fiber(0), 2, false, false);
        links.push(Is::Fiber(1), 1, false, false);
        let mut event = Object::with(1, true);
        event.gone.push(2);
        links.choose(1, &mut event);
        assert_eq!(event.said(), ["drop Fiber(0)", "schedule 1"]);
    }

    #[test]
    fn a_round_ends_when_nothing_is_left_to_take() {
        let mut links = Links::default();
        for n in 0..3 {
            links.push(Is::Fiber(n), 1, true, false);
        }
        let told = run(&mut links, 1, &Cell::new(2), false);
        assert_eq!(told, (vec![Is::Fiber(0), Is::Fiber(1)], false));
        assert_eq!(links.len(), 1);
    }

    #[test]
    fn a_function_is_called_once_a_round_and_the_last_one_ends_it() {
        let mut links = Links::default();
        for n in [7, 8, 7, 9] {
            links.push(Is::Function(n), 1, false, false);
        }
        let (told, _) = run(&mut links, 1, &Cell::new(1), true);
        assert_eq!(told, [7, 8, 9].map(Is::Function));
        for who in [Is::Function(7), Is::Fiber(1), Is::Function(7)] {
            links.push(who, 1, false, false);
        }
        let (told, _) = run(&mut links, 1, &Cell::new(1), true);
        assert_eq!(told, [Is::Function(7)]);
        assert_eq!(links.len(), 2, "what comes after it has a round of its own");
    }

    #[test]
    fn what_arrives_in_a_round_comes_after_it_and_what_is_added_later_in_the_next() {
        let mut links = Links::default();
        links.push(Is::Fiber(0), 1, false, false);
        let mut round = links.begin(1);
        assert_eq!(
            links.next(&mut round, || true),
            Next::Tell(Is::Fiber(0), true)
        );
        links.push(Is::Fiber(1), 1, false, false);
        links.push(Is::Fiber(2), 1, false, true);
        assert_eq!(
            links.next(&mut round, || true),
            Next::Tell(Is::Fiber(2), true)
        );
        links.push(Is::Fiber(3), 1, false, true);
        assert_eq!(links.next(&mut round, || true), Next::Done);
        assert!(links.end(&round, false), "one that arrived is left");
        assert!(links.notifies(1));
    }

    #[test]
    fn news_of_the_past_is_revoked() {
        let mut links = Links::default();
        links.push(Is::Fiber(0), 1, false, false);
        let mut event = Object::with(1, true);
        links.choose(1, &mut event);
        assert!(links.notifies(1));
        assert_eq!(links.remove(|l| l.hub == 1), Some(Is::Fiber(0)));
        assert!(!links.notifies(1));
        assert_eq!(links.remove(|l| l.hub == 1), None);
    }

    #[test]
    fn links_are_found_by_what_they_are() {
        let mut links = Links::default();
        links.push(Is::Fiber(0), 1, false, false);
        links.push(Is::Function(5), 1, false, false);
        links.push(Is::Function(6), 1, false, false);
        let (order, function) = links.function_after(None).unwrap();
        assert_eq!(function, 5);
        assert_eq!(links.function_after(Some(order)).unwrap().1, 6);
        links.find(|l| l.who == Is::Fiber(0)).unwrap().who = Is::Fiber(9);
        let gone = links.retain(|l| l.who.function().is_none(), |_| false);
        assert_eq!(gone, [Is::Function(5), Is::Function(6)]);
        assert_eq!(
            links.iter().map(|l| l.who).collect::<Vec<_>>(),
            [Is::Fiber(9)]
        );
    }
}
