//! Tasks on a fake loop: order, results, interruption, the end of a runtime.

use super::*;
use crate::reactor::Reactor;
use crate::sim::Sim;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

const MS: Duration = Duration::from_millis(1);

fn runtime() -> (Sim, Runtime) {
    let sim = Sim::new();
    let runtime = Runtime::with_reactor(Reactor::for_tests(&sim));
    (sim, runtime)
}

/// Runs `f` in a runtime of its own.
fn run<T: 'static>(f: impl FnOnce() -> T + 'static) -> T {
    runtime().1.block_on(f)
}

/// A log that tasks share.
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
fn tasks_begin_in_order_when_the_running_one_waits() {
    let said = run(|| {
        let log = Log::default();
        let tasks: Vec<_> = (0..3)
            .map(|n| {
                let log = log.clone();
                spawn(move || {
                    log.say(format!("a{n}"));
                    yield_now().unwrap();
                    log.say(format!("b{n}"));
                    n
                })
            })
            .collect();
        log.say("main");
        let results: Vec<_> = tasks.into_iter().map(|t| t.join().unwrap()).collect();
        assert_eq!(results, [0, 1, 2]);
        log.said()
    });
    assert_eq!(said, "main a0 a1 a2 b0 b1 b2");
}

#[test]
fn sleepers_wake_by_deadline_and_the_clock_moves_no_farther() {
    let (sim, runtime) = runtime();
    let said = runtime.block_on(|| {
        let log = Log::default();
        let tasks: Vec<_> = [30, 10, 20]
            .map(|ms| {
                let log = log.clone();
                spawn(move || {
                    sleep(ms * MS).unwrap();
                    log.say(ms);
                })
            })
            .into();
        tasks.into_iter().for_each(|t| t.join().unwrap());
        log.said()
    });
    assert_eq!(said, "10 20 30");
    assert_eq!(sim.now(), 30_000_000);
}

#[test]
fn a_panic_is_delivered_at_join_and_one_of_main_by_block_on() {
    run(|| {
        let text = spawn(|| -> () { panic!("number {}", 7) })
            .join()
            .unwrap_err();
        assert_eq!(text.to_string(), "the task panicked: number 7");
        let JoinError::Panicked(_) = text else {
            panic!("not a panic")
        };
    });
    let (_sim, runtime) = runtime();
    let ended = Log::default();
    let log = ended.clone();
    let payload = catch_unwind(AssertUnwindSafe(|| {
        runtime.block_on(move || {
            spawn(move || {
                assert!(sleep(MS).is_err());
                log.say("ended");
            });
            yield_now().unwrap();
            panic!("main");
        })
    }))
    .unwrap_err();
    assert_eq!(payload.downcast_ref(), Some(&"main"));
    assert_eq!(ended.said(), "ended");
    assert_eq!(runtime.block_on(|| 5), 5);
}

#[test]
fn an_interruption_ends_the_present_park_or_the_next() {
    run(|| {
        let sleeper = spawn(|| (sleep(1000 * MS), sleep(MS)));
        yield_now().unwrap();
        sleeper.interrupt();
        sleeper.interrupt();
        let (first, second) = sleeper.join().unwrap();
        assert_eq!(first, Err(Interrupted { granted: None }));
        assert_eq!(second, Ok(()));

        let unborn = spawn(|| unreachable!("it was interrupted before it began"));
        unborn.interrupt();
        assert!(matches!(unborn.join(), Err(JoinError::Cancelled)));

        // A task with a wake under way gets that first.
        let runnable = spawn(|| (yield_now(), yield_now()));
        yield_now().unwrap();
        runnable.interrupt();
        let (first, second) = runnable.join().unwrap();
        assert_eq!(first, Ok(()));
        assert!(second.is_err());
    });
}

#[test]
fn an_interruption_that_comes_first_hands_the_overtaken_wake_over() {
    run(|| {
        let token = Rc::new(Cell::new(None));
        let given = token.clone();
        let parked = spawn(move || {
            Hub::with(|hub| {
                let park = hub.unwrap().prepare();
                given.set(Some(park.token()));
                park.wait(None)
            })
        });
        yield_now().unwrap();
        parked.interrupt();
        Hub::with(|hub| {
            assert!(
                hub.unwrap()
                    .unpark(token.get().unwrap(), crate::reactor::Wake::Event)
            );
        });
        let overtaken = parked.join().unwrap().unwrap_err();
        assert_eq!(overtaken.granted, Some(crate::reactor::Wake::Event));
    });
}

#[test]
fn join_with_a_timeout_gives_the_handle_back() {
    run(|| {
        let task = spawn(|| {
            sleep(5 * MS).unwrap();
            "done"
        });
        let Err(task) = task.join_timeout(2 * MS) else {
            panic!("too early")
        };
        assert!(!task.is_finished());
        assert_eq!(task.wait_timeout(100 * MS), Ok(true));
        let Ok(joined) = task.join_timeout(Duration::ZERO) else {
            panic!("it is over")
        };
        assert_eq!(joined.unwrap(), "done");
    });
}

#[test]
fn an_interrupted_join_leaves_the_task_alone() {
    run(|| {
        let long = spawn(|| sleep(10 * MS));
        let joiner = spawn(move || {
            let first = long.wait();
            (first, long.join().unwrap())
        });
        yield_now().unwrap();
        joiner.interrupt();
        let (interrupted, slept) = joiner.join().unwrap();
        assert!(interrupted.is_err() && slept.is_ok());
    });
}

struct SayAtDrop(Log, &'static str);

impl Drop for SayAtDrop {
    fn drop(&mut self) {
        self.0.say(self.1);
    }
}

#[test]
fn results_that_nobody_asks_for_are_dropped_by_the_task() {
    run(|| {
        let log = Log::default();
        let l = log.clone();
        drop(spawn(move || SayAtDrop(l, "result")));
        yield_now().unwrap();
        assert_eq!(log.said(), "result");
        let l = log.clone();
        let kept = spawn(move || SayAtDrop(l, "kept"));
        yield_now().unwrap();
        assert!(kept.is_finished() && log.said().is_empty());
        drop(kept);
        assert_eq!(log.said(), "kept");
    });
}

#[test]
fn tasks_stay_between_two_block_ons_even_if_the_runtime_moves() {
    let (_sim, runtime) = runtime();
    let task = runtime.block_on(|| {
        let t = spawn(|| {
            sleep(MS).unwrap();
            sleep(MS).unwrap();
            7
        });
        yield_now().unwrap();
        t
    });
    assert_eq!(runtime.tasks(), 1);
    let moved = Box::new(runtime);
    assert_eq!(moved.block_on(move || task.join().unwrap()), 7);
    assert_eq!(moved.tasks(), 0);
}

#[test]
fn the_end_of_a_runtime_interrupts_every_task_and_runs_it_to_its_end() {
    let log = Log::default();
    let (sim, runtime) = runtime();
    let l = log.clone();
    runtime.block_on(move || {
        for n in 0..3 {
            let l = l.clone();
            spawn(move || {
                let _guard = SayAtDrop(l.clone(), "dropped");
                assert!(sleep(1000 * MS).is_err());
                // Cleaning up may wait too, but not for long.
                assert!(yield_now().is_ok() && sleep(MS).is_err());
                let late = spawn(|| ());
                assert!(late.wait().is_err());
                l.say(n);
            });
        }
        yield_now().unwrap();
    });
    let l = log.clone();
    runtime.spawn(move || l.say("never begun"));
    assert_eq!(runtime.tasks(), 4);
    drop(runtime);
    assert_eq!(log.said(), "0 dropped 1 dropped 2 dropped");
    assert_eq!(sim.now(), 0, "it waits for nobody");
}

#[test]
fn a_task_that_refuses_to_end_is_left_where_it_is() {
    let log = Log::default();
    let (sim, runtime) = runtime();
    runtime.set_grace(50 * MS);
    let l = log.clone();
    let rounds = Rc::new(Cell::new(0));
    let count = rounds.clone();
    runtime.block_on(move || {
        spawn(move || {
            let _guard = SayAtDrop(l, "dropped");
            loop {
                let _ = sleep(7 * MS);
                count.set(count.get() + 1);
            }
        });
        yield_now().unwrap();
    });
    drop(runtime);
    assert_eq!(log.said(), "");
    // The present park, a thousand more, and then the sleeps that fit into the grace.
    assert_eq!(rounds.get(), 1 + 1000 + 50 / 7);
    assert_eq!(sim.now(), 50_000_000);
}

#[test]
fn a_park_in_a_destructor_that_unwinds_ends_at_once() {
    struct Waits(Log);
    impl Drop for Waits {
        fn drop(&mut self) {
            self.0.say(if sleep(MS).is_err() {
                "refused"
            } else {
                "slept"
            });
        }
    }
    run(|| {
        let log = Log::default();
        let l = log.clone();
        let failed = spawn(move || -> () {
            let _waits = Waits(l);
            panic!("unwinds");
        });
        assert!(matches!(failed.join(), Err(JoinError::Panicked(_))));
        assert_eq!(log.said(), "refused");
        drop(Waits(log.clone()));
        assert_eq!(log.said(), "slept");
    });
}

#[test]
fn other_threads_start_tasks() {
    let (_sim, runtime) = runtime();
    let spawner = runtime.spawner();
    let other = spawner.clone();
    let sum = runtime.block_on(move || {
        let (tx, rx) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            for n in 1..=100 {
                let tx = tx.clone();
                assert!(other.spawn(move || {
                    yield_now().unwrap();
                    tx.send(n).unwrap();
                }));
            }
        });
        let mut got = Vec::new();
        while got.len() < 100 {
            sleep(MS).unwrap();
            got.extend(rx.try_iter());
        }
        thread.join().unwrap();
        got.iter().sum::<i32>()
    });
    assert_eq!(sum, 5050);
    drop(runtime);
    assert!(!spawner.spawn(|| ()));
}

#[test]
fn a_stack_can_be_larger_and_a_runtime_is_entered_once() {
    fn deep(n: usize) -> usize {
        let block = std::hint::black_box([n; 128]);
        if n == 0 {
            block[0]
        } else {
            deep(n - 1) + block[1] - n + 1
        }
    }
    run(|| {
        let task = Builder::new().stack_size(8 << 20).spawn(|| deep(1000));
        assert_eq!(task.join().unwrap(), 1000);
        let nested = spawn(|| {
            let (_sim, inner) = runtime();
            inner.block_on(|| ());
        });
        assert!(nested.join().is_err());
    });
}

#[test]
fn ten_thousand_tasks_wait_at_once() {
    let sum = run(|| {
        let tasks: Vec<_> = (0..10_000u64)
            .map(|n| {
                spawn(move || {
                    sleep((n % 10) as u32 * MS).unwrap();
                    n
                })
            })
            .collect();
        tasks.into_iter().map(|t| t.join().unwrap()).sum::<u64>()
    });
    assert_eq!(sum, 49_995_000);
}

#[test]
fn a_signal_ends_a_wait() {
    run(|| {
        let waiter = spawn(|| wait_signal(libc::SIGUSR2));
        yield_now().unwrap();
        // SAFETY: the watcher's handler is installed, so the process survives.
        unsafe { libc::raise(libc::SIGUSR2) };
        waiter.join().unwrap().unwrap();
    });
}
