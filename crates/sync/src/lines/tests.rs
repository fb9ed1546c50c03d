//! Who goes on when, in a world of hubs that do what they are told.

use super::channel::{self, Alone};
use super::queue::{self, Got, Put, Store};
use super::*;
use crate::parker::{Ended, Parker, Parking};
use gevent_hub_core::reactor::{Token, Wake};
use std::cell::{Cell, RefCell};
use std::sync::Arc;

/// A queue or a channel of numbers. What is left for waiters is a number too.
struct World {
    lines: RefCell<Lines<u32, u32>>,
    items: RefCell<VecDeque<u32>>,
    capacity: Cell<usize>,
    closed: Cell<bool>,
    here: Cell<u64>,
    gone: Cell<u64>,
    scheduled: RefCell<Vec<u64>>,
    woken: RefCell<Vec<(u64, u64, Wake)>>,
    released: RefCell<Vec<u32>>,
    /// This item is refused, with itself as the reason.
    refused: Cell<u32>,
}

const EVENT: Ended = Ended::Woken(Wake::Event);
const READY: Ended = Ended::Woken(Wake::Ready);

impl World {
    fn new(capacity: usize) -> Self {
        World {
            lines: RefCell::default(),
            items: RefCell::default(),
            capacity: Cell::new(capacity),
            closed: Cell::new(false),
            here: Cell::new(1),
            gone: Cell::new(99),
            scheduled: RefCell::default(),
            woken: RefCell::default(),
            released: RefCell::default(),
            refused: Cell::new(u32::MAX),
        }
    }

    fn enter(&self, line: Line, hub: u64, id: u64, item: Option<u32>) {
        let sleeper = Sleeper::Fiber(Token(id));
        let waiter = Waiter { sleeper, hub, item };
        self.lines(|l| l.enter(line, waiter, false));
    }

    fn getter(&self, hub: u64, id: u64) {
        self.enter(Line::Getters, hub, id, None);
    }

    fn putter(&self, hub: u64, id: u64, item: u32) {
        self.enter(Line::Putters, hub, id, Some(item));
    }

    fn thread(&self, line: Line, item: Option<u32>) -> Arc<Parker> {
        let parker = Parker::new();
        let sleeper = Sleeper::Thread(parker.clone());
        self.lines(|l| {
            l.enter(
                line,
                Waiter {
                    sleeper,
                    hub: 0,
                    item,
                },
                false,
            )
        });
        parker
    }

    fn add(&self, item: u32) {
        self.items.borrow_mut().push_back(item);
    }

    fn pop(&self) -> Option<u32> {
        self.items.borrow_mut().pop_front()
    }

    fn woken(&self) -> Vec<(u64, u64)> {
        self.woken.take().iter().map(|w| (w.0, w.1)).collect()
    }

    fn counts(&self) -> (usize, usize) {
        self.lines(|l| (l.line(Line::Getters).len(), l.line(Line::Putters).len()))
    }

    /// Runs the rounds that are due, as queues; each in its hub.
    fn rounds(&self) {
        loop {
            if self.scheduled.borrow().is_empty() {
                break;
            }
            let hub = self.scheduled.borrow_mut().remove(0);
            let here = self.here.replace(hub);
            queue::round(self, hub);
            self.here.set(here);
        }
    }
}

impl Owner for World {
    type Item = u32;
    type Mail = u32;

    fn lines<R>(&self, f: impl FnOnce(&mut Lines<u32, u32>) -> R) -> R {
        f(&mut self.lines.borrow_mut())
    }

    fn here(&self) -> u64 {
        self.here.get()
    }

    fn exists(&self, hub: u64) -> bool {
        hub != self.gone.get()
    }

    fn schedule(&self, hub: u64) -> bool {
        self.scheduled.borrow_mut().push(hub);
        self.exists(hub)
    }

    fn wake(&self, waiter: Waiter<u32>, why: Wake, _at_once: bool) {
        match &waiter.sleeper {
            Sleeper::Thread(parker) => parker.end(why),
            sleeper => self
                .woken
                .borrow_mut()
                .push((waiter.hub, sleeper.id(), why)),
        }
    }

    fn release(&self, item: Option<u32>) {
        self.released.borrow_mut().extend(item);
    }
}

impl Store for World {
    fn len(&self) -> usize {
        self.items.borrow().len()
    }

    fn has_room(&self) -> bool {
        self.len() < self.capacity.get()
    }

    fn guarded<R>(&self, f: impl FnOnce() -> R) -> Option<R> {
        Some(f())
    }

    fn put(&self, item: &u32) -> Result<(), u32> {
        if *item == self.refused.get() {
            return Err(*item);
        }
        self.add(*item);
        Ok(())
    }

    fn discard(&self, refusal: u32) {
        self.released.borrow_mut().push(refusal);
    }

    fn is_closed(&self) -> bool {
        self.closed.get()
    }
}

/// Parks in a hub, or as a thread in 0, that end as a function says when they have a place.
struct Script<F: FnMut(u64) -> Ended> {
    hub: u64,
    next: u64,
    ends: F,
}

fn script<F: FnMut(u64) -> Ended>(hub: u64, ends: F) -> Script<F> {
    Script {
        hub,
        next: 100,
        ends,
    }
}

impl<F: FnMut(u64) -> Ended> Parking for Script<F> {
    fn hub(&self) -> u64 {
        self.hub
    }

    fn park(
        &mut self,
        enter: impl FnOnce(Sleeper),
        rename: impl Fn(u64, Sleeper) -> bool,
    ) -> (Ended, u64) {
        enter(Sleeper::Fiber(Token(self.next)));
        let old = self.next;
        self.next += 2;
        // As if the loop had ended under the fiber once, unless somebody was faster.
        if !rename(old, Sleeper::Fiber(Token(old + 1))) {
            return (READY, old);
        }
        let id = self.next - 1;
        ((self.ends)(id), id)
    }
}

// ---- the queue -----------------------------------------------------------------------------------------

#[test]
fn as_many_hubs_are_asked_as_there_are_items() {
    let q = World::new(9);
    for (hub, id) in [(2, 1), (2, 2), (1, 3), (3, 4)] {
        q.getter(hub, id);
    }
    q.add(5);
    queue::notify(&q);
    assert_eq!(*q.scheduled.borrow(), [2]);
    q.add(6);
    q.add(7);
    queue::notify(&q);
    queue::notify(&q);
    assert_eq!(*q.scheduled.borrow(), [2, 1], "each hub once");
    // Who is told takes nothing here, so the round of 2 goes on with both of its own, and asks for others.
    q.rounds();
    assert_eq!(q.woken(), [(2, 1), (2, 2), (1, 3), (3, 4)]);
    assert_eq!(q.counts(), (0, 0));
}

#[test]
fn a_hub_to_which_all_getters_belong_is_known_without_a_look_at_each() {
    let world = World::new(9);
    assert_eq!(world.lines(|l| l.getters_hub()), None);
    world.getter(7, 1);
    world.getter(7, 2);
    assert_eq!(world.lines(|l| l.getters_hub()), Some(7));
    queue::notify(&world);
    assert!(world.scheduled.borrow().is_empty(), "no item");
    world.add(1);
    world.add(2);
    queue::notify(&world);
    queue::notify(&world);
    assert_eq!(world.scheduled.take(), [7], "one call for all");
    world.getter(8, 3);
    assert_eq!(world.lines(|l| l.getters_hub()), None);
    world.lines(|l| l.forget(7));
    world.add(3);
    queue::notify(&world);
    assert_eq!(world.scheduled.take(), [7, 8]);
    assert_eq!(world.lines(|l| l.take_all()).count(), 3);
    world.getter(8, 4);
    assert_eq!(world.lines(|l| l.getters_hub()), Some(8));
}

#[test]
fn threads_are_woken_at_once_and_hubs_that_are_gone_are_passed_over() {
    let q = World::new(9);
    q.gone.set(7);
    q.getter(7, 1);
    let thread = q.thread(Line::Getters, None);
    q.getter(1, 2);
    q.add(5);
    q.add(6);
    queue::notify(&q);
    assert_eq!(thread.ended(), Some(Wake::Ready));
    assert_eq!((q.counts(), q.scheduled.borrow().len()), ((1, 0), 0));
    queue::notify(&q);
    assert_eq!(*q.scheduled.borrow(), [1]);
}

#[test]
fn the_first_putter_goes_first_wherever_it_is_from() {
    let q = World::new(1);
    for (hub, id, item) in [(2, 1, 10), (1, 2, 11), (2, 3, 12)] {
        q.putter(hub, id, item);
    }
    queue::notify(&q);
    q.rounds();
    assert_eq!((q.woken(), q.counts().1), (vec![(2, 1)], 2));
    assert_eq!(q.pop(), Some(10));
    // From a thread without a hub: the hub of the first one is asked.
    q.here.set(0);
    queue::notify(&q);
    assert_eq!(*q.scheduled.borrow(), [1]);
    q.rounds();
    assert_eq!((q.pop(), q.woken()), (Some(11), vec![(1, 2)]));
    // Or there is none to ask.
    q.gone.set(2);
    queue::notify(&q);
    assert_eq!((q.pop(), q.woken()), (Some(12), vec![(2, 3)]));
    let thread = q.thread(Line::Putters, Some(13));
    queue::notify(&q);
    assert_eq!((thread.ended(), q.pop()), (Some(Wake::Ready), Some(13)));
}

#[test]
fn an_item_that_is_refused_comes_back_to_its_putter() {
    let q = World::new(1);
    q.refused.set(8);
    let mut refused = script(1, |_| {
        q.rounds();
        let woken = q.woken.take();
        assert_eq!(woken.len(), 1);
        Ended::Woken(woken[0].2)
    });
    q.getter(2, 1);
    // Entering asks for a look at those who wait in the other line.
    assert_eq!(queue::put(&q, &mut refused, 8), Put::Refused(Some(8)));
    assert_eq!((q.counts(), q.lines(|l| l.mail().count())), ((1, 0), 0));
}

#[test]
fn a_getter_that_was_told_too_late_waits_in_front() {
    let q = World::new(9);
    let mut parks = 0;
    let mut parking = script(1, |id| {
        parks += 1;
        if parks == 1 {
            q.getter(1, 7);
            assert!(q.lines(|l| l.leave(Line::Getters, 1, id)).is_some());
            return EVENT;
        }
        let first = q.lines(|l| l.pop(Line::Getters).map(|w| w.sleeper.id()));
        assert_eq!(first, Some(id));
        q.add(3);
        EVENT
    });
    assert_eq!(queue::get(&q, &mut parking, || Ok(q.pop())), Got::Item(3));
    assert_eq!(q.counts(), (1, 0));
}

#[test]
fn a_get_ends_without_a_place_in_the_line() {
    let q = World::new(9);
    let get = |hub, ended| queue::get(&q, &mut script(hub, |_| ended), || Ok(q.pop()));
    assert_eq!(get(1, Ended::TimedOut), Got::Late);
    assert_eq!(get(1, Ended::Interrupted), Got::Failed);
    assert_eq!(get(1, Ended::Woken(Wake::Closed)), Got::Closed);
    q.lines(|l| l.pop(Line::Getters)).unwrap();
    assert_eq!(q.counts(), (0, 0));
    // A thread looks once more when its time is over.
    let mut late = script(0, |_| {
        q.add(4);
        Ended::TimedOut
    });
    assert_eq!(queue::get(&q, &mut late, || Ok(q.pop())), Got::Item(4));
    q.closed.set(true);
    let mut never = script(1, |_| unreachable!());
    assert_eq!(queue::get(&q, &mut never, || Ok(q.pop())), Got::Closed);
    let mut fails = || Err::<Option<u32>, ()>(());
    assert_eq!(queue::get(&q, &mut never, &mut fails), Got::Failed);
}

#[test]
fn a_put_that_is_late_may_have_been_in_time() {
    let q = World::new(0);
    let put = |ended, taken: bool| {
        let mut parking = script(1, |id| {
            if taken {
                q.lines(|l| l.leave(Line::Putters, 1, id)).unwrap();
            }
            ended
        });
        queue::put(&q, &mut parking, 5)
    };
    assert_eq!(put(Ended::TimedOut, false), Put::Late);
    assert_eq!(put(Ended::TimedOut, true), Put::Done);
    assert_eq!(put(READY, true), Put::Done);
    assert_eq!(put(Ended::Woken(Wake::Closed), true), Put::Closed);
    assert_eq!(put(Ended::Interrupted, false), Put::Failed);
    assert_eq!(*q.released.borrow(), [5, 5]);
    q.closed.set(true);
    assert_eq!(put(Ended::TimedOut, true), Put::Late);
    assert_eq!(q.counts(), (0, 0));
}

#[test]
fn a_refusal_under_way_reaches_a_putter_that_is_late_and_is_not_kept() {
    let q = World::new(1);
    q.refused.set(8);
    let put = |ended| {
        let mut parking = script(2, |_| {
            queue::round(&q, 2);
            assert_eq!(q.lines(|l| l.mail().count()), 1);
            ended
        });
        queue::put(&q, &mut parking, 8)
    };
    assert_eq!(put(Ended::TimedOut), Put::Refused(Some(8)));
    assert_eq!(put(Ended::Interrupted), Put::Failed);
    assert_eq!(q.released.take(), [8]);
    assert_eq!((q.counts(), q.lines(|l| l.mail().count())), ((0, 0), 0));
}

#[test]
fn a_hub_serves_others_in_place_of_waiting() {
    let q = World::new(1);
    assert!(!queue::serve_a_getter(&q) && !queue::serve_a_putter(&q));
    q.add(1);
    q.getter(2, 1);
    assert!(!queue::serve_a_getter(&q), "a getter of another hub");
    q.getter(1, 2);
    assert!(queue::serve_a_getter(&q));
    assert_eq!(q.woken(), [(1, 2)]);
    q.putter(1, 3, 9);
    assert!(!queue::serve_a_putter(&q), "no room");
    q.pop();
    assert!(queue::serve_a_putter(&q));
    assert_eq!((q.woken(), q.pop()), (vec![(1, 3)], Some(9)));
}

#[test]
fn a_shut_queue_ends_every_wait() {
    let q = World::new(0);
    q.getter(1, 1);
    q.putter(2, 2, 9);
    let thread = q.thread(Line::Getters, None);
    queue::shut(&q);
    let closed = |hub, id| (hub, id, Wake::Closed);
    assert_eq!(*q.woken.borrow(), [closed(1, 1), closed(2, 2)]);
    assert_eq!((thread.ended(), q.counts()), (Some(Wake::Closed), (0, 0)));
}

// ---- the channel ---------------------------------------------------------------------------------------

#[test]
fn a_putter_and_a_getter_meet_in_the_hub_of_who_comes_last() {
    let c = World::new(0);
    c.getter(2, 1);
    let mut parking = script(1, |id| {
        assert_eq!(c.scheduled.take(), [1]);
        assert_eq!(c.counts(), (1, 1), "nobody goes on before the round");
        channel::round(&c, 1);
        assert_eq!(c.woken(), [(2, 1), (1, id)]);
        READY
    });
    assert_eq!(channel::put(&c, &mut parking, 5), Ok(()));
    assert_eq!(c.lines(|l| l.collect(2, 1)), Some(5));
    // Without a hub they meet at once.
    c.here.set(0);
    c.putter(3, 2, 6);
    let mut parking = script(0, |_| READY);
    assert_eq!(channel::get(&c, &mut parking), Ok(6));
    assert!(c.scheduled.borrow().is_empty());
}

#[test]
fn who_is_late_hears_what_happened_at_the_last_moment() {
    let c = World::new(0);
    let meet = |id: u64| {
        c.lines(|l| l.leave(Line::Putters, 1, id));
        Ended::TimedOut
    };
    assert_eq!(channel::put(&c, &mut script(1, meet), 5), Ok(()));
    let late = |_| Ended::TimedOut;
    assert_eq!(channel::put(&c, &mut script(1, late), 5), Err(Alone::Late));
    assert_eq!(channel::get(&c, &mut script(1, late)), Err(Alone::Late));
    let brought = |id: u64| {
        c.lines(|l| {
            l.leave(Line::Getters, 1, id);
            l.post(1, id, 7);
        });
        Ended::TimedOut
    };
    assert_eq!(channel::get(&c, &mut script(1, brought)), Ok(7));
    assert_eq!((c.counts(), c.released.take()), ((0, 0), vec![5]));
}

#[test]
fn an_item_on_its_way_to_a_getter_that_is_interrupted_goes_to_the_next() {
    let c = World::new(0);
    let mut interrupted = script(1, |id| {
        c.lines(|l| {
            l.leave(Line::Getters, 1, id);
            l.post(1, id, 7);
        });
        c.getter(1, 50);
        c.putter(1, 51, 8);
        Ended::Interrupted
    });
    assert_eq!(channel::get(&c, &mut interrupted), Err(Alone::Failed));
    assert_eq!((c.counts(), c.scheduled.take()), ((1, 2), vec![1]));
    channel::round(&c, 1);
    assert_eq!(c.lines(|l| l.collect(1, 50)), Some(7));
    assert_eq!(c.counts(), (0, 1));
    let mut failed = script(1, |_| Ended::Interrupted);
    assert_eq!(channel::put(&c, &mut failed, 9), Err(Alone::Failed));
    assert_eq!((c.counts(), c.released.take()), ((0, 1), vec![9]));
}

#[test]
fn no_item_goes_to_a_getter_whose_hub_is_gone() {
    let c = World::new(0);
    c.gone.set(7);
    c.getter(7, 1);
    assert_eq!(channel::put_now(&c, 1), Err(1));
    c.getter(7, 2);
    c.getter(2, 3);
    assert_eq!(channel::put_now(&c, 2), Ok(()));
    assert_eq!(
        (c.woken(), c.lines(|l| l.collect(2, 3))),
        (vec![(2, 3)], Some(2))
    );
    c.getter(7, 4);
    c.putter(1, 5, 3);
    channel::round(&c, 1);
    assert_eq!((c.woken(), c.counts()), (vec![], (0, 1)));
    assert_eq!(c.lines(|l| l.mail().count()), 0);
}

#[test]
fn a_hub_meets_only_those_who_are_there() {
    let c = World::new(0);
    assert_eq!(channel::put_now(&c, 1), Err(1));
    assert_eq!(channel::get_now(&c), None);
    c.getter(1, 4);
    assert_eq!(channel::put_now(&c, 2), Ok(()));
    assert_eq!(c.lines(|l| l.collect(1, 4)), Some(2));
    c.putter(2, 5, 3);
    assert_eq!(channel::get_now(&c), Some(3));
    assert_eq!((c.woken(), c.counts()), (vec![(1, 4), (2, 5)], (0, 0)));
}
