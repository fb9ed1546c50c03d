//! What threads share under loom, which tries every order of the threads' steps: the wait lists here, what
//! one big lock guards in `gil`.
//!
//! Run by `RUSTFLAGS="--cfg loom" cargo test --release -p gevent-sync`.

mod gil;

use crate::waiters::{Finished, Lock, Target, WaitList, thread};
use crate::{Event, Fifo, Queue, Semaphore};
use loom::model::Builder;
use std::sync::Arc;
use std::time::Duration;

/// Every order with at most three forced switches of thread, which is where such errors live.
fn check(f: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(f);
}

#[test]
fn a_permit_is_never_lost_and_never_doubled() {
    check(|| {
        let s = Arc::new(Semaphore::new(1));
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let s = s.clone();
                thread::spawn(move || {
                    s.acquire().unwrap();
                    s.release();
                })
            })
            .collect();
        threads.into_iter().for_each(|t| t.join().unwrap());
        assert_eq!((s.available(), s.waiting()), (1, 0));
    });
}

#[test]
fn a_waiter_that_is_late_keeps_what_came_before_or_leaves_it() {
    check(|| {
        let s = Arc::new(Semaphore::new(0));
        let late = {
            let s = s.clone();
            // Its time is over when it goes to sleep; the grant may come before.
            thread::spawn(move || s.acquire_timeout(Duration::from_secs(1)).unwrap())
        };
        s.release();
        let got = late.join().unwrap();
        assert_eq!(s.available(), usize::from(!got));
        assert_eq!(s.waiting(), 0);
    });
}

#[test]
fn a_set_event_is_seen_by_who_waits_and_who_comes_later() {
    check(|| {
        let event = Arc::new(Event::new());
        let waiter = {
            let event = event.clone();
            thread::spawn(move || event.wait().unwrap())
        };
        event.set();
        event.wait().unwrap();
        waiter.join().unwrap();
    });
}

#[test]
fn items_arrive_once_through_a_queue_of_one() {
    check(|| {
        let q = Arc::new(Queue::<Fifo<u32>>::bounded(1));
        let producer = {
            let q = q.clone();
            thread::spawn(move || (1..=2).for_each(|n| q.put(n).unwrap()))
        };
        assert_eq!((q.get(), q.get()), (Ok(1), Ok(2)));
        producer.join().unwrap();
        assert!(q.is_empty());
    });
}

#[test]
fn items_go_from_hand_to_hand() {
    check(|| {
        let q = Arc::new(Queue::<Fifo<u32>>::bounded(0));
        let getter = {
            let q = q.clone();
            thread::spawn(move || q.get().unwrap())
        };
        q.put(7).unwrap();
        assert_eq!(getter.join().unwrap(), 7);
    });
}

#[test]
fn a_close_ends_every_wait() {
    check(|| {
        let q = Arc::new(Queue::<Fifo<u32>>::bounded(0));
        let getter = {
            let q = q.clone();
            thread::spawn(move || q.get())
        };
        q.close();
        assert!(getter.join().unwrap().is_err());
    });
}

#[test]
fn a_grant_and_a_withdrawal_meet_once() {
    check(|| {
        let list = Arc::new(Lock::new(WaitList::<(), u32>::new()));
        let called = Arc::new(Lock::new(false));
        let place = {
            let called = called.clone();
            let call = Target::Call(Box::new(move || *called.lock() = true));
            list.lock().push(call, ())
        };
        let granter = {
            let list = list.clone();
            thread::spawn(move || {
                let granted = list.lock().grant(5);
                granted.map(Target::wake).is_ok()
            })
        };
        let found = list.lock().finish(place);
        let granted = granter.join().unwrap();
        assert_eq!(granted, found == Finished::Granted(5));
        assert_eq!(granted, *called.lock());
    });
}
