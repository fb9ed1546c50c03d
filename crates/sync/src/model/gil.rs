//! Objects that are guarded by one big lock, as Python's are, and threads without a hub that wait for them.

use super::check;
use crate::lines::channel;
use crate::lines::queue::{self, Got, Put, Store};
use crate::lines::{Line, Lines, Owner, Waiter};
use crate::links::{self, Linked, Links, Taken, Who};
use crate::parker::{Ended, Parker, Parking, Sleeper};
use crate::state::Permits;
use crate::waiters::{Guard, Lock, thread};
use gevent_hub_core::reactor::Wake;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

impl Who for Sleeper {
    type Function = ();

    fn function(&self) -> Option<()> {
        None
    }

    fn is_thread(&self) -> bool {
        Sleeper::is_thread(self)
    }

    fn id(&self) -> Option<u64> {
        Some(Sleeper::id(self))
    }
}

struct State {
    permits: Permits,
    links: Links<Sleeper>,
    lines: Lines<u32, u32>,
    items: VecDeque<u32>,
    capacity: usize,
}

type Big = Arc<Lock<State>>;

fn state(permits: isize, capacity: usize) -> Big {
    Arc::new(Lock::new(State {
        permits: Permits::new(permits, false),
        links: Links::default(),
        lines: Lines::default(),
        items: VecDeque::new(),
        capacity,
    }))
}

/// A thread that holds the lock, but for its sleep.
#[derive(Clone)]
struct Held<'a> {
    lock: &'a Lock<State>,
    guard: Rc<RefCell<Option<Guard<'a, State>>>>,
}

impl<'a> Held<'a> {
    fn new(lock: &'a Lock<State>) -> Self {
        let guard = Rc::new(RefCell::new(Some(lock.lock())));
        Held { lock, guard }
    }

    fn with<R>(&self, f: impl FnOnce(&mut State) -> R) -> R {
        f(self.guard.borrow_mut().as_mut().unwrap())
    }

    /// What a thread waits with, for ever or not at all.
    fn parking(&self, late: bool) -> Thread<'a> {
        let held = self.clone();
        Thread { held, late }
    }
}

struct Thread<'a> {
    held: Held<'a>,
    late: bool,
}

impl Parking for Thread<'_> {
    fn hub(&self) -> u64 {
        0
    }

    fn park(
        &mut self,
        enter: impl FnOnce(Sleeper),
        _rename: impl Fn(u64, Sleeper) -> bool,
    ) -> (Ended, u64) {
        let parker = Parker::new();
        let sleeper = Sleeper::Thread(parker.clone());
        let id = sleeper.id();
        enter(sleeper);
        drop(self.held.guard.take());
        parker.sleep(self.late.then_some(0));
        *self.held.guard.borrow_mut() = Some(self.held.lock.lock());
        (parker.ended().map_or(Ended::TimedOut, Ended::Woken), id)
    }
}

fn end(sleeper: Sleeper, why: Wake) {
    if let Sleeper::Thread(parker) = sleeper {
        parker.end(why);
    }
}

impl Linked for Held<'_> {
    type Who = Sleeper;

    fn links<R>(&self, f: impl FnOnce(&mut Links<Sleeper>) -> R) -> R {
        self.with(|s| f(&mut s.links))
    }

    fn here(&self) -> u64 {
        0
    }

    fn is_ready(&self) -> bool {
        self.with(|s| s.permits.is_free())
    }

    fn tells_all(&self) -> bool {
        false
    }

    fn give(&self) {
        self.with(|s| s.permits.give());
    }

    fn exists(&self, _hub: u64) -> bool {
        unreachable!("there are no hubs")
    }

    fn wake_thread(&self, who: Sleeper) {
        end(who, Wake::Event);
    }

    fn hand_over(&self, _hub: u64, _who: Sleeper) -> bool {
        unreachable!("there are no hubs")
    }

    fn schedule(&mut self, _hub: u64) -> bool {
        unreachable!("there are no hubs")
    }

    fn drop_later(&mut self, _who: Sleeper) {
        unreachable!("there are no hubs")
    }

    fn tell(&mut self, _who: Sleeper, _fresh: bool) {
        unreachable!("there are no hubs")
    }

    fn settle(&mut self) {}
}

impl Taken for Held<'_> {
    fn take(&self) -> bool {
        self.with(|s| s.permits.take())
    }

    fn give_back(&mut self) {
        unreachable!("nobody is interrupted")
    }
}

impl Owner for Held<'_> {
    type Item = u32;
    type Mail = u32;

    fn lines<R>(&self, f: impl FnOnce(&mut Lines<u32, u32>) -> R) -> R {
        self.with(|s| f(&mut s.lines))
    }

    fn here(&self) -> u64 {
        0
    }

    fn exists(&self, _hub: u64) -> bool {
        false
    }

    fn schedule(&self, _hub: u64) -> bool {
        unreachable!("there are no hubs")
    }

    fn wake(&self, waiter: Waiter<u32>, why: Wake, _at_once: bool) {
        end(waiter.sleeper, why);
    }

    fn release(&self, _item: Option<u32>) {}
}

impl Store for Held<'_> {
    fn len(&self) -> usize {
        self.with(|s| s.items.len())
    }

    fn has_room(&self) -> bool {
        self.with(|s| s.items.len() < s.capacity)
    }

    fn guarded<R>(&self, f: impl FnOnce() -> R) -> Option<R> {
        Some(f())
    }

    fn put(&self, item: &u32) -> Result<(), u32> {
        self.with(|s| s.items.push_back(*item));
        Ok(())
    }

    fn is_closed(&self) -> bool {
        false
    }
}

fn get(held: &Held<'_>, late: bool) -> Got<u32> {
    let attempt = || {
        let item = held.with(|s| s.items.pop_front());
        if item.is_some() {
            queue::notify(held);
        }
        Ok(item)
    };
    let got = queue::get(held, &mut held.parking(late), attempt);
    queue::notify(held);
    got
}

fn put(held: &Held<'_>, item: u32) {
    if held.has_room() {
        held.with(|s| s.items.push_back(item));
        queue::notify(held);
    } else {
        let put = queue::put(held, &mut held.parking(false), item);
        assert_eq!(put, Put::Done);
    }
}

fn in_thread<R: Send + 'static>(
    big: &Big,
    f: impl FnOnce(&mut Held<'_>) -> R + Send + 'static,
) -> thread::JoinHandle<R> {
    let big = big.clone();
    thread::spawn(move || f(&mut Held::new(&big)))
}

#[test]
fn a_wake_says_why_and_is_not_lost() {
    check(|| {
        let parker = Parker::new();
        let other = parker.clone();
        let waker = thread::spawn(move || other.end(Wake::Closed));
        parker.sleep(None);
        assert_eq!(parker.ended(), Some(Wake::Closed));
        waker.join().unwrap();
    });
}

#[test]
fn each_permit_is_given_to_one_thread() {
    check(|| {
        let big = state(0, 0);
        let takers = [(); 2].map(|()| {
            in_thread(&big, |held| {
                let mut parking = held.parking(false);
                links::take(held, &mut parking)
            })
        });
        for _ in 0..2 {
            let mut held = Held::new(&big);
            held.with(|s| s.permits.add());
            links::check_and_notify(&mut held);
        }
        for taker in takers {
            assert!(matches!(taker.join().unwrap(), Ended::Woken(_)));
        }
        let state = big.lock();
        assert!(state.permits.free() == 0 && state.links.is_empty());
    });
}

#[test]
fn items_pass_a_queue_of_one_between_threads() {
    check(|| {
        let big = state(0, 1);
        let putter = in_thread(&big, |held| (1..=2).for_each(|n| put(held, n)));
        let held = Held::new(&big);
        assert_eq!(get(&held, false), Got::Item(1));
        assert_eq!(get(&held, false), Got::Item(2));
        drop(held);
        putter.join().unwrap();
        assert!(big.lock().lines.is_empty());
    });
}

#[test]
fn a_getter_that_is_late_leaves_the_item_to_another() {
    check(|| {
        let big = state(0, 1);
        let late = in_thread(&big, |held| get(held, true));
        let waits = in_thread(&big, |held| get(held, false));
        put(&Held::new(&big), 1);
        if late.join().unwrap() == Got::Item(1) {
            put(&Held::new(&big), 2);
            assert_eq!(waits.join().unwrap(), Got::Item(2));
        } else {
            assert_eq!(waits.join().unwrap(), Got::Item(1));
        }
        assert!(big.lock().lines.is_empty());
    });
}

#[test]
fn threads_meet_at_a_channel() {
    check(|| {
        let big = state(0, 0);
        let putter = in_thread(&big, |held| channel::put(held, &mut held.parking(false), 7));
        let held = Held::new(&big);
        assert_eq!(channel::get(&held, &mut held.parking(false)), Ok(7));
        drop(held);
        assert_eq!(putter.join().unwrap(), Ok(()));
        let state = big.lock();
        assert!(state.lines.is_empty() && state.lines.mail().count() == 0);
        assert!(state.lines.line(Line::Getters).is_empty());
    });
}
