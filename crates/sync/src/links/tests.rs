//! The order in which those who are linked are told, and what comes of waits.

use super::*;
use crate::parker::{Ended, Parking, Sleeper};
use gevent_hub_core::reactor::{Token, Wake};
use std::cell::{Cell, RefCell};
use std::rc::Rc;

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

    fn id(&self) -> Option<u64> {
        match self {
            Is::Fiber(n) | Is::Thread(n) => Some(u64::from(*n)),
            Is::Function(_) => None,
        }
    }
}

impl From<Sleeper> for Is {
    fn from(sleeper: Sleeper) -> Self {
        let id = u32::try_from(sleeper.id()).unwrap();
        Is::Fiber(id)
    }
}

#[derive(Default)]
struct Object {
    links: Rc<RefCell<Links<Is>>>,
    here: u64,
    permits: Cell<u32>,
    all: bool,
    gone: Vec<u64>,
    log: RefCell<Vec<String>>,
    told: Vec<Is>,
    dropped: Vec<Is>,
    /// Linked by the first function that is told.
    adds: Vec<(Is, bool)>,
}

impl Object {
    fn with(permits: u32, all: bool) -> Self {
        Object {
            here: 1,
            permits: Cell::new(permits),
            all,
            ..Object::default()
        }
    }

    fn push(&self, who: Is, hub: u64, taking: bool, arrived: bool) {
        self.links.borrow_mut().push(who, hub, taking, arrived);
    }

    fn say(&self, text: String) {
        self.log.borrow_mut().push(text);
    }

    fn said(&self) -> Vec<String> {
        self.log.take()
    }

    fn check(&mut self) -> Vec<String> {
        check_and_notify(self);
        self.said()
    }

    /// Runs the round of a hub; who was told.
    fn run(&mut self, hub: u64) -> Vec<Is> {
        let here = std::mem::replace(&mut self.here, hub);
        notify(self, hub);
        self.here = here;
        std::mem::take(&mut self.told)
    }

    fn len(&self) -> usize {
        self.links.borrow().len()
    }
}

impl Linked for Object {
    type Who = Is;

    fn links<R>(&self, f: impl FnOnce(&mut Links<Is>) -> R) -> R {
        f(&mut self.links.borrow_mut())
    }

    fn here(&self) -> u64 {
        self.here
    }

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

    fn hand_over(&self, hub: u64, who: Is) -> bool {
        self.say(format!("hand {hub} {who:?}"));
        true
    }

    fn schedule(&mut self, hub: u64) -> bool {
        self.say(format!("schedule {hub}"));
        true
    }

    fn drop_later(&mut self, who: Is) {
        self.dropped.push(who);
    }

    fn tell(&mut self, who: Is, fresh: bool) {
        if fresh {
            self.told.push(who);
        }
        if !self.all && who.function().is_none() {
            self.give();
        }
        for (who, arrived) in std::mem::take(&mut self.adds) {
            self.push(who, 1, false, arrived);
        }
    }

    fn settle(&mut self) {
        for who in std::mem::take(&mut self.dropped) {
            self.say(format!("drop {who:?}"));
        }
    }
}

impl Taken for Object {
    fn take(&self) -> bool {
        let free = self.is_ready();
        if free {
            self.give();
        }
        free
    }

    fn give_back(&mut self) {
        self.permits.set(self.permits.get() + 1);
        self.say("give back".into());
        check_and_notify(self);
    }
}

/// Parks that end one after the other as a script says.
struct Script<F: FnMut(u64) -> Ended>(F, u64);

impl<F: FnMut(u64) -> Ended> Parking for Script<F> {
    fn hub(&self) -> u64 {
        1
    }

    fn park(
        &mut self,
        enter: impl FnOnce(Sleeper),
        rename: impl Fn(u64, Sleeper) -> bool,
    ) -> (Ended, u64) {
        // As if the loop had ended under the fiber once.
        enter(Sleeper::Fiber(Token(self.1)));
        assert!(rename(self.1, Sleeper::Fiber(Token(self.1 + 1))));
        self.1 += 2;
        ((self.0)(self.1 - 1), self.1 - 1)
    }
}

#[test]
fn each_hub_is_asked_once_and_tells_its_own_in_order() {
    let mut event = Object::with(1, true);
    for (n, hub) in [(0, 1), (1, 2), (2, 1), (3, 0)] {
        event.push(Is::Fiber(n), hub, false, false);
    }
    assert_eq!(event.check(), ["schedule 1", "schedule 2"]);
    assert!(event.check().is_empty());
    assert_eq!(event.run(1), [0, 2, 3].map(Is::Fiber));
    assert!(!event.links(|l| l.notifies(1)) && event.links(|l| l.notifies(2)));
    assert_eq!(event.run(2), [Is::Fiber(1)]);
    assert!(event.links(|l| l.is_empty() && l.notifiers() == 0));
}

#[test]
fn permits_go_to_threads_and_other_hubs_at_once_and_one_by_one_here() {
    let mut semaphore = Object::with(4, false);
    semaphore.push(Is::Thread(0), 0, true, false);
    semaphore.push(Is::Fiber(1), 2, true, false);
    semaphore.push(Is::Fiber(2), 1, true, false);
    semaphore.push(Is::Fiber(3), 2, true, false);
    assert_eq!(
        semaphore.check(),
        ["wake Thread(0)", "hand 2 Fiber(1)", "schedule 1"]
    );
    assert_eq!((semaphore.permits.get(), semaphore.len()), (2, 2));
    // The round tells its own, and thinks of the others when it is through.
    assert_eq!(semaphore.run(1), [Is::Fiber(2)]);
    assert_eq!(semaphore.said(), ["hand 2 Fiber(3)"]);
    assert_eq!(semaphore.permits.get(), 0);
}

#[test]
fn a_function_of_another_hub_is_left_to_it() {
    let mut semaphore = Object::with(1, false);
    semaphore.push(Is::Function(5), 2, true, false);
    assert_eq!(semaphore.check(), ["schedule 2"]);
    assert_eq!((semaphore.len(), semaphore.permits.get()), (1, 1));
}

#[test]
fn waiters_of_hubs_that_are_gone_are_dropped() {
    let mut event = Object::with(1, true);
    event.push(Is::Fiber(0), 2, false, false);
    event.push(Is::Fiber(1), 1, false, false);
    event.gone.push(2);
    assert_eq!(event.check(), ["schedule 1", "drop Fiber(0)"]);
}

#[test]
fn without_any_hub_the_round_is_the_callers() {
    let mut event = Object::with(1, true);
    event.here = 0;
    event.push(Is::Function(1), 0, false, false);
    assert_eq!(event.check(), ["schedule 0"]);
    assert_eq!(event.run(0), [Is::Function(1)]);
    assert!(event.links(|l| l.is_empty() && l.notifiers() == 0));
}

#[test]
fn a_round_ends_when_nothing_is_left_to_take() {
    let mut semaphore = Object::with(2, false);
    for n in 0..3 {
        semaphore.push(Is::Fiber(n), 1, true, false);
    }
    assert_eq!(semaphore.run(1), [0, 1].map(Is::Fiber));
    assert_eq!(semaphore.len(), 1);
}

#[test]
fn a_function_is_called_once_a_round_and_the_last_one_ends_it() {
    let mut event = Object::with(1, true);
    for n in [7, 8, 7, 9] {
        event.push(Is::Function(n), 1, false, false);
    }
    assert_eq!(event.run(1), [7, 8, 9].map(Is::Function));
    for who in [Is::Function(7), Is::Fiber(1), Is::Function(7)] {
        event.push(who, 1, false, false);
    }
    assert_eq!(event.run(1), [Is::Function(7)]);
    assert_eq!(
        event.said(),
        ["schedule 1"],
        "what comes after it has a round of its own"
    );
    assert_eq!(event.run(1), [Is::Fiber(1), Is::Function(7)]);
}

#[test]
fn what_arrives_in_a_round_comes_after_it_and_what_is_added_later_in_the_next() {
    let mut event = Object::with(1, true);
    event.push(Is::Fiber(0), 1, false, false);
    event.adds = vec![(Is::Fiber(1), false), (Is::Fiber(2), true)];
    assert_eq!(event.run(1), [Is::Fiber(0), Is::Fiber(2)]);
    assert_eq!(event.said(), ["schedule 1"]);
    assert_eq!(event.run(1), [Is::Fiber(1)]);
    // One that arrives while the arrived are told is left for another round.
    let mut links = Links::default();
    links.push(Is::Fiber(0), 1, false, true);
    let mut round = links.begin(1);
    assert_eq!(links.next(&mut round, true), Next::Tell(Is::Fiber(0), true));
    links.push(Is::Fiber(3), 1, false, true);
    assert_eq!(links.next(&mut round, true), Next::Done);
    assert!(links.end(&round, false) && links.notifies(1));
}

#[test]
fn news_of_the_past_is_revoked() {
    let mut event = Object::with(1, true);
    event.push(Is::Fiber(0), 1, false, false);
    assert_eq!(event.check(), ["schedule 1"]);
    assert!(event.links(|l| l.notifies(1) && l.leave(1, 0)));
    assert!(event.links(|l| !l.notifies(1) && !l.leave(1, 0)));
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
    assert!(links.rename(1, 0, Is::Fiber(9)) && !links.rename(1, 0, Is::Fiber(8)));
    let gone = links.retain(|l| l.who.function().is_none(), |_| false);
    assert_eq!(gone, [Is::Function(5), Is::Function(6)]);
    assert_eq!(
        links.iter().map(|l| l.who).collect::<Vec<_>>(),
        [Is::Fiber(9)]
    );
}

#[test]
fn a_wait_leaves_no_link_however_it_ends() {
    let object = Object::with(0, true);
    for ended in [Ended::TimedOut, Ended::Interrupted] {
        let mut parking = Script(|_| ended, 0);
        assert_eq!(wait(&object, &mut parking, false), ended);
        assert_eq!(object.len(), 0);
    }
    let told = |id| {
        assert!(object.links(|l| l.leave(1, id)));
        Ended::Woken(Wake::Event)
    };
    let woken = Ended::Woken(Wake::Event);
    assert_eq!(wait(&object, &mut Script(told, 0), false), woken);
    // One that is ready is waited for only by those who come late to a round.
    object.permits.set(1);
    let mut never = Script(|_| unreachable!(), 0);
    assert_eq!(wait(&object, &mut never, false), woken);
    assert_eq!(wait(&object, &mut Script(told, 0), true), woken);
}

#[test]
fn a_permit_that_was_there_for_the_taking_may_be_gone_again() {
    let mut semaphore = Object::with(0, false);
    let permits = Rc::new(Cell::new(0));
    let mut parks = 0;
    let seen = permits.clone();
    let mut parking = Script(
        |_| {
            parks += 1;
            seen.set(parks);
            if parks < 3 {
                Ended::Woken(Wake::Event)
            } else {
                Ended::Woken(Wake::Ready)
            }
        },
        0,
    );
    assert_eq!(
        take(&mut semaphore, &mut parking),
        Ended::Woken(Wake::Ready)
    );
    assert_eq!(permits.get(), 3);
    let mut never = Script(|_| unreachable!(), 0);
    semaphore.permits.set(1);
    assert_eq!(take(&mut semaphore, &mut never), Ended::Woken(Wake::Event));
    assert_eq!(semaphore.permits.get(), 0);
}

#[test]
fn a_permit_that_was_given_is_kept_by_the_late_and_given_back_by_the_interrupted() {
    fn outcome(ended: Ended, given: bool) -> (Ended, u32) {
        let mut semaphore = Object::with(0, false);
        let links = semaphore.links.clone();
        let parking = &mut Script(
            |id| {
                assert!(!given || links.borrow_mut().leave(1, id));
                ended
            },
            0,
        );
        let ended = take(&mut semaphore, parking);
        assert_eq!(semaphore.len(), 0);
        (ended, semaphore.permits.get())
    }
    assert_eq!(outcome(Ended::TimedOut, false), (Ended::TimedOut, 0));
    assert_eq!(
        outcome(Ended::TimedOut, true),
        (Ended::Woken(Wake::Ready), 0)
    );
    assert_eq!(outcome(Ended::Interrupted, false), (Ended::Interrupted, 0));
    assert_eq!(outcome(Ended::Interrupted, true), (Ended::Interrupted, 1));
}

#[test]
fn a_permit_that_was_only_told_of_is_not_given_back_by_the_interrupted() {
    struct Told(Rc<RefCell<Links<Is>>>);
    impl Parking for Told {
        fn hub(&self) -> u64 {
            1
        }
        fn park(
            &mut self,
            enter: impl FnOnce(Sleeper),
            _: impl Fn(u64, Sleeper) -> bool,
        ) -> (Ended, u64) {
            enter(Sleeper::Fiber(Token(9)));
            assert!(self.0.borrow_mut().leave(1, 9));
            (Ended::Interrupted, 9)
        }
        fn only_told(&self) -> bool {
            true
        }
    }
    let mut semaphore = Object::with(0, false);
    let mut parking = Told(semaphore.links.clone());
    assert_eq!(take(&mut semaphore, &mut parking), Ended::Interrupted);
    assert_eq!(semaphore.permits.get(), 0);
}
