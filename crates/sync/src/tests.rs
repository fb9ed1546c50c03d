//! The primitives on fibers, on threads, and between them.

use crate::*;
use gevent_hub_core::hub::Interrupted;
use gevent_hub_core::reactor::Reactor;
use gevent_hub_core::sim::Sim;
use gevent_hub_core::task::{self, spawn, yield_now};
use gevent_loop_epoll::EpollLoop;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

const MS: Duration = Duration::from_millis(1);

/// Runs `f` on a fake loop with virtual time.
fn sim<T: 'static>(f: impl FnOnce() -> T + 'static) -> T {
    task::Runtime::with_reactor(Reactor::for_tests(&Sim::new())).block_on(f)
}

/// Runs `f` on a real one.
fn epoll<T: 'static>(f: impl FnOnce() -> T + 'static) -> T {
    task::run(Box::new(EpollLoop::new().unwrap()), f).unwrap()
}

#[derive(Clone, Default)]
struct Log(Rc<RefCell<Vec<String>>>);

impl Log {
    fn say(&self, what: impl ToString) {
        self.0.borrow_mut().push(what.to_string());
    }

    fn said(&self) -> String {
        self.0.take().join(" ")
    }
}

#[test]
fn an_event_wakes_all_who_wait_even_if_it_is_cleared_at_once() {
    sim(|| {
        let (event, log) = (Rc::new(Event::new()), Log::default());
        for n in 0..3 {
            let (event, log) = (event.clone(), log.clone());
            spawn(move || {
                event.wait().unwrap();
                log.say(n);
            });
        }
        yield_now().unwrap();
        event.set();
        assert!(event.is_set() && event.wait_timeout(Duration::ZERO) == Ok(true));
        event.clear();
        assert_eq!(event.wait_timeout(5 * MS), Ok(false));
        assert_eq!(log.said(), "0 1 2");
        let waiter = spawn({
            let event = event.clone();
            move || event.wait()
        });
        yield_now().unwrap();
        waiter.interrupt();
        assert!(waiter.join().unwrap().is_err());
        event.set();
    });
}

#[test]
fn an_async_result_is_the_same_for_all() {
    sim(|| {
        let result = Rc::new(AsyncResult::<Result<u32, String>>::new());
        let waiters: Vec<_> = (0..3)
            .map(|_| {
                let result = result.clone();
                spawn(move || result.get(None))
            })
            .collect();
        assert_eq!(result.get(Some(MS)), Err(WaitError::TimedOut));
        assert_eq!(result.set(Err("no".into())), None);
        for waiter in waiters {
            assert_eq!(waiter.join().unwrap(), Ok(Err("no".into())));
        }
        assert_eq!(result.set(Ok(1)), Some(Err("no".into())));
        assert!(result.ready() && result.try_get() == Some(Ok(1)));
        assert_eq!(result.take(), Some(Ok(1)));
        assert_eq!(result.try_get(), None);
    });
}

#[test]
fn a_released_permit_goes_to_the_first_in_the_line() {
    sim(|| {
        let (s, log) = (Rc::new(Semaphore::new(1)), Log::default());
        let held = s.permit().unwrap();
        for n in 0..3 {
            let (s, log) = (s.clone(), log.clone());
            spawn(move || {
                let _permit = s.permit().unwrap();
                log.say(n);
                yield_now().unwrap();
            });
        }
        yield_now().unwrap();
        assert_eq!((s.available(), s.waiting()), (0, 3));
        drop(held);
        // It is spoken for, although its new owner has not run yet.
        assert!(!s.try_acquire());
        assert_eq!(s.acquire_timeout(1000 * MS), Ok(true));
        assert_eq!(log.said(), "0 1 2");
        s.release();
        assert_eq!(s.available(), 1);
    });
}

#[test]
fn an_interrupted_waiter_gives_its_permit_to_the_next() {
    sim(|| {
        let s = Rc::new(Semaphore::new(0));
        let acquire = |s: &Rc<Semaphore>| {
            let s = s.clone();
            spawn(move || s.acquire())
        };
        let (first, second) = (acquire(&s), acquire(&s));
        yield_now().unwrap();
        // The interruption comes first, and then the grant, to somebody who will not have it.
        first.interrupt();
        s.release();
        let overtaken = first.join().unwrap().unwrap_err();
        assert!(overtaken.granted.is_some());
        assert_eq!(second.join().unwrap(), Ok(()));
        assert_eq!(s.available(), 0);

        let waits = acquire(&s);
        yield_now().unwrap();
        waits.interrupt();
        yield_now().unwrap();
        assert_eq!(waits.join().unwrap(), Err(Interrupted { granted: None }));
        s.release();
        assert_eq!((s.available(), s.waiting()), (1, 0));
    });
}

#[test]
fn a_bounded_semaphore_counts_its_releases() {
    let s = BoundedSemaphore::new(1);
    assert_eq!(s.release(), Err(ReleasedTooOften));
    assert!(s.try_acquire() && !s.try_acquire());
    assert_eq!(s.acquire_timeout(MS), Ok(false));
    assert_eq!(s.release(), Ok(()));
    drop(s.permit().unwrap());
    assert_eq!(s.available(), 1);
}

#[test]
fn an_rlock_belongs_to_its_fiber_as_often_as_it_was_taken() {
    sim(|| {
        let lock = Rc::new(RLock::new());
        lock.acquire().unwrap();
        assert!(lock.try_acquire() && lock.is_mine());
        let (l, log) = (lock.clone(), Log::default());
        let said = log.clone();
        let other = spawn(move || {
            assert!(!l.try_acquire() && l.is_locked() && !l.is_mine());
            assert_eq!(l.release(), Err(NotOwner));
            assert_eq!(l.acquire_timeout(MS), Ok(false));
            let _hold = l.hold().unwrap();
            said.say("mine");
        });
        task::sleep(5 * MS).unwrap();
        lock.release().unwrap();
        yield_now().unwrap();
        assert_eq!(log.said(), "");
        lock.release().unwrap();
        assert!(lock.is_locked() && !lock.is_mine());
        other.join().unwrap();
        assert_eq!(log.said(), "mine");
        assert!(!lock.is_locked());

        // An interrupted heir passes it on.
        let heirs: Vec<_> = (0..2)
            .map(|_| {
                let l = lock.clone();
                spawn(move || l.hold().map(drop))
            })
            .collect();
        lock.acquire().unwrap();
        yield_now().unwrap();
        heirs[0].interrupt();
        lock.release().unwrap();
        let got: Vec<_> = heirs.into_iter().map(|h| h.join().unwrap()).collect();
        assert!(got[0].is_err() && got[1].is_ok() && !lock.is_locked());
    });
}

#[test]
fn queues_order_their_items() {
    fn drain<C: Container<Item = u32>>() -> Vec<u32> {
        let q = Queue::<C>::with_capacity(4);
        for n in [3, 1, 4, 2] {
            q.try_put(n).unwrap();
        }
        assert!(q.is_full() && q.len() == 4 && q.capacity() == 4);
        assert!(matches!(q.try_put(9), Err(PutError::Full(9))));
        std::iter::from_fn(|| q.try_get().ok()).collect()
    }
    assert_eq!(drain::<Fifo<_>>(), [3, 1, 4, 2]);
    assert_eq!(drain::<Lifo<_>>(), [2, 4, 1, 3]);
    assert_eq!(drain::<Priority<_>>(), [1, 2, 3, 4]);
}

#[test]
fn putters_wait_for_room_and_getters_for_items_in_the_order_of_coming() {
    sim(|| {
        let q = Rc::new(Queue::bounded(1));
        let putters: Vec<_> = (0..4)
            .map(|n| {
                let q = q.clone();
                spawn(move || q.put(n).unwrap())
            })
            .collect();
        yield_now().unwrap();
        assert_eq!(q.len(), 1);
        let late = q.put_timeout(99, MS).unwrap_err();
        assert!(matches!(late, PutError::Full(99)));
        let got: Vec<_> = (0..4).map(|_| q.get().unwrap()).collect();
        assert_eq!(got, [0, 1, 2, 3]);
        putters.into_iter().for_each(|p| p.join().unwrap());
        assert_eq!(q.get_timeout(MS), Err(GetError::Empty));

        let getters: Vec<_> = (0..3)
            .map(|_| {
                let q = q.clone();
                spawn(move || q.get().unwrap())
            })
            .collect();
        yield_now().unwrap();
        // More than the room: each goes to a getter.
        for n in 10..13 {
            q.try_put(n).unwrap();
        }
        let got: Vec<_> = getters.into_iter().map(|g| g.join().unwrap()).collect();
        assert_eq!(got, [10, 11, 12]);
    });
}

#[test]
fn an_interrupted_getter_loses_no_item_and_keeps_the_order() {
    sim(|| {
        let q = Rc::new(Queue::unbounded());
        let getter = |q: &Rc<Queue<Fifo<u32>>>| {
            let q = q.clone();
            spawn(move || q.get())
        };
        let (first, second) = (getter(&q), getter(&q));
        yield_now().unwrap();
        first.interrupt();
        q.put(1).unwrap();
        q.put(2).unwrap();
        q.put(3).unwrap();
        assert!(matches!(
            first.join().unwrap(),
            Err(GetError::Interrupted(_))
        ));
        // Its item was the first, and is the next.
        assert_eq!(second.join().unwrap(), Ok(2));
        assert_eq!((q.try_get(), q.try_get()), (Ok(1), Ok(3)));
    });
}

#[test]
fn an_interrupted_putter_has_its_item_back_or_hears_that_it_is_in() {
    sim(|| {
        let q = Rc::new(Queue::bounded(1));
        q.put("a").unwrap();
        let putter = |item| {
            let q = q.clone();
            spawn(move || q.put(item))
        };
        let back = putter("b");
        yield_now().unwrap();
        back.interrupt();
        let error = back.join().unwrap().unwrap_err();
        assert_eq!(error.into_item(), Some("b"));
        let inside = putter("c");
        yield_now().unwrap();
        inside.interrupt();
        assert_eq!(q.try_get(), Ok("a"));
        let error = inside.join().unwrap().unwrap_err();
        assert!(matches!(error, PutError::Interrupted(None, _)));
        assert_eq!(q.try_get(), Ok("c"));
    });
}

#[test]
fn a_closed_queue_gives_out_what_it_has() {
    sim(|| {
        let q = Rc::new(Queue::bounded(1));
        q.put(1).unwrap();
        let putter = spawn({
            let q = q.clone();
            move || q.put(2)
        });
        yield_now().unwrap();
        assert!(q.close() && !q.close() && q.is_closed());
        let refused = putter.join().unwrap().unwrap_err();
        assert!(matches!(refused, PutError::Closed(2)));
        assert!(matches!(q.try_put(3), Err(PutError::Closed(3))));
        assert_eq!((q.get(), q.get()), (Ok(1), Err(GetError::Closed)));

        let q = Rc::new(Queue::<Fifo<u8>>::unbounded());
        let getter = spawn({
            let q = q.clone();
            move || q.get()
        });
        yield_now().unwrap();
        q.close();
        assert_eq!(getter.join().unwrap(), Err(GetError::Closed));
    });
}

#[test]
fn join_waits_for_the_last_task_done() {
    sim(|| {
        let q = Rc::new(Queue::unbounded());
        assert_eq!(q.join(None), Ok(true));
        for n in 0..3 {
            q.put(n).unwrap();
        }
        assert_eq!(q.unfinished(), 3);
        let worker = spawn({
            let q = q.clone();
            move || {
                while let Ok(n) = q.get_timeout(10 * MS) {
                    task::sleep(n * MS).unwrap();
                    assert!(q.task_done());
                }
            }
        });
        assert_eq!(q.join(Some(MS)), Ok(false));
        assert_eq!(q.join(None), Ok(true));
        worker.join().unwrap();
        assert!(!q.task_done());
    });
}

#[test]
fn a_channel_hands_over_and_holds_nothing() {
    sim(|| {
        let (c, log) = (Rc::new(Channel::new()), Log::default());
        assert!(c.try_send(0).is_err());
        let sender = spawn({
            let (c, log) = (c.clone(), log.clone());
            move || {
                for n in 1..=3 {
                    c.send(n).unwrap();
                    log.say(format!("sent{n}"));
                }
            }
        });
        yield_now().unwrap();
        assert_eq!(log.said(), "");
        assert_eq!(c.try_recv(), Ok(1));
        assert_eq!((c.recv(), c.recv()), (Ok(2), Ok(3)));
        sender.join().unwrap();
        assert_eq!(log.said(), "sent1 sent2 sent3");
        assert_eq!(c.recv_timeout(MS), Err(GetError::Empty));
        assert!(c.send_timeout(4, MS).is_err());
        c.close();
        assert_eq!(c.recv(), Err(GetError::Closed));
    });
}

#[test]
fn a_group_is_joined_and_interrupted_as_one() {
    sim(|| {
        let group = Group::new();
        assert_eq!(group.join(None), Ok(true));
        let results = group.map(1..=3u32, |n| {
            task::sleep(n * MS).unwrap();
            n * n
        });
        let results: Vec<_> = results.into_iter().map(Result::unwrap).collect();
        assert_eq!(results, [1, 4, 9]);
        assert!(group.is_empty());
        let sleepers: Vec<_> = (0..3)
            .map(|_| group.spawn(|| task::sleep(1000 * MS)))
            .collect();
        assert_eq!(group.join(Some(5 * MS)), Ok(false));
        group.spawn(|| ());
        assert_eq!(group.len(), 4);
        group.interrupt();
        assert_eq!(group.join(Some(5 * MS)), Ok(true));
        for sleeper in sleepers {
            assert!(sleeper.join().unwrap().is_err());
        }
    });
}

#[test]
fn a_pool_runs_so_many_at_a_time() {
    sim(|| {
        let pool = Pool::new(2);
        let (now, most) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
        let (n, m) = (now.clone(), most.clone());
        let results = pool
            .map(0..6u32, move |item| {
                n.set(n.get() + 1);
                m.set(m.get().max(n.get()));
                task::sleep(MS).unwrap();
                n.set(n.get() - 1);
                assert_ne!(item, 3, "the third fails");
                item
            })
            .unwrap();
        assert_eq!(most.get(), 2);
        assert_eq!(pool.free(), 2);
        let failed: Vec<_> = results.iter().map(Result::is_err).collect();
        assert_eq!(failed, [false, false, false, true, false, false]);
    });
}

#[test]
fn fibers_and_threads_share_a_queue_and_nothing_is_lost() {
    const EACH: u32 = 2000;
    let jobs = Arc::new(Queue::bounded(3));
    let results = Arc::new(Queue::unbounded());
    let done = Arc::new(Event::new());
    // Two hubs of two fibers, and two threads without.
    let mut threads = Vec::new();
    for kind in 0..4 {
        let (jobs, results) = (jobs.clone(), results.clone());
        let work = move || {
            while let Ok(n) = jobs.get() {
                results.put(n).unwrap();
            }
        };
        threads.push(thread::spawn(move || {
            if kind < 2 {
                epoll(move || {
                    let other = spawn(work.clone());
                    work();
                    other.join().unwrap();
                });
            } else {
                work();
            }
        }));
    }
    let producers: Vec<_> = (0..2)
        .map(|p| {
            let (jobs, done) = (jobs.clone(), done.clone());
            thread::spawn(move || {
                let produce = move || {
                    for n in 0..EACH {
                        jobs.put(p * EACH + n).unwrap();
                    }
                    done.wait().unwrap();
                };
                if p == 0 { produce() } else { epoll(produce) }
            })
        })
        .collect();
    let mut got: Vec<u32> = (0..2 * EACH).map(|_| results.get().unwrap()).collect();
    done.set();
    producers.into_iter().for_each(|p| p.join().unwrap());
    jobs.close();
    threads.into_iter().for_each(|t| t.join().unwrap());
    got.sort_unstable();
    assert!(got.into_iter().eq(0..2 * EACH));
}

#[test]
fn permits_survive_interruptions_between_threads() {
    let s = Arc::new(Semaphore::new(2));
    let inside = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let use_it = {
        let (s, inside) = (s.clone(), inside.clone());
        move |interrupted: &mut usize| {
            use std::sync::atomic::Ordering::SeqCst;
            match s.permit() {
                Ok(_permit) => {
                    assert!(inside.fetch_add(1, SeqCst) < 2);
                    inside.fetch_sub(1, SeqCst);
                }
                Err(_) => *interrupted += 1,
            }
        }
    };
    let threads: Vec<_> = (0..3)
        .map(|kind| {
            let use_it = use_it.clone();
            thread::spawn(move || {
                if kind == 0 {
                    (0..5000).for_each(|_| use_it(&mut 0));
                    return;
                }
                epoll(move || {
                    let workers: Vec<_> = (0..3)
                        .map(|_| {
                            let use_it = use_it.clone();
                            spawn(move || {
                                let mut interrupted = 0;
                                (0..1000).for_each(|_| {
                                    use_it(&mut interrupted);
                                    let _ = yield_now();
                                });
                                interrupted
                            })
                        })
                        .collect();
                    while !workers.iter().all(|w| w.is_finished()) {
                        workers.iter().for_each(|w| w.interrupt());
                        yield_now().unwrap();
                    }
                });
            })
        })
        .collect();
    threads.into_iter().for_each(|t| t.join().unwrap());
    assert_eq!((s.available(), s.waiting()), (2, 0));
}

#[test]
fn a_thread_wakes_a_sleeping_hub_at_once() {
    let event = Arc::new(Event::new());
    let setter = event.clone();
    let thread = thread::spawn(move || {
        thread::sleep(30 * MS);
        setter.set();
        Instant::now()
    });
    let woken = epoll(move || {
        spawn(|| task::sleep(Duration::from_secs(60)));
        assert_eq!(event.wait_timeout(Duration::from_secs(30)), Ok(true));
        Instant::now()
    });
    assert!(woken - thread.join().unwrap() < Duration::from_secs(1));
}

#[test]
fn a_runtime_that_ends_takes_its_waiters_out_of_the_line() {
    let s = Arc::new(Semaphore::new(0));
    let waiter = s.clone();
    epoll(move || {
        for _ in 0..3 {
            let s = waiter.clone();
            spawn(move || s.acquire());
        }
        yield_now().unwrap();
        assert_eq!(waiter.waiting(), 3);
    });
    assert_eq!(s.waiting(), 0);
    s.release();
    assert!(s.try_acquire());
}
