//! What tasks and the primitives of `sync` cost, waits and wakes included; no descriptor is involved.

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use gevent_hub_core::task::{self, Runtime, spawn, yield_now};
use gevent_loop_epoll::EpollLoop;
use gevent_sync::{Channel, Event, Queue, Semaphore};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Measures `rounds` rounds of `f` inside a runtime.
fn timed(rounds: u64, f: impl FnOnce(u64) + 'static) -> Duration {
    let backend = EpollLoop::new().expect("an epoll loop");
    task::run(Box::new(backend), move || {
        let begun = Instant::now();
        f(rounds);
        begun.elapsed()
    })
    .expect("a runtime")
}

fn tasks(c: &mut Criterion) {
    let mut group = c.benchmark_group("task");
    group.bench_function("spawn and join", |b| {
        b.iter_custom(|n| {
            timed(n, |n| {
                for _ in 0..n {
                    spawn(|| ()).join().expect("a result");
                }
            })
        });
    });
    group.bench_function("spawn a hundred, then join them", |b| {
        b.iter_custom(|n| {
            timed(n, |n| {
                for _ in 0..n {
                    let tasks: Vec<_> = (0..100).map(|_| spawn(|| ())).collect();
                    for task in tasks {
                        task.join().expect("a result");
                    }
                }
            })
        });
    });
    for others in [0, 1, 100] {
        group.bench_function(BenchmarkId::new("yield, among others", others), |b| {
            b.iter_custom(|n| {
                timed(n, move |n| {
                    let turns = n / (others + 1) + 1;
                    let work = move || (0..turns).for_each(|_| yield_now().expect("a turn"));
                    let tasks: Vec<_> = (0..others).map(|_| spawn(work)).collect();
                    work();
                    for task in tasks {
                        task.join().expect("a result");
                    }
                })
            });
        });
    }
    group.bench_function("sleep that is interrupted", |b| {
        b.iter_custom(|n| {
            timed(n, |n| {
                let sleeper = spawn(move || {
                    for _ in 0..n {
                        assert!(task::sleep(Duration::from_secs(60)).is_err());
                    }
                });
                while !sleeper.is_finished() {
                    yield_now().expect("a turn");
                    sleeper.interrupt();
                }
            })
        });
    });
    group.finish();
}

fn primitives(c: &mut Criterion) {
    let mut group = c.benchmark_group("sync");
    let semaphore = Semaphore::new(1);
    group.bench_function("semaphore without a wait", |b| {
        b.iter(|| drop(semaphore.permit().expect("a permit")));
    });
    let queue = Queue::unbounded();
    group.bench_function("queue without a wait", |b| {
        b.iter(|| {
            queue.put(7).expect("room");
            queue.get().expect("an item")
        });
    });
    group.bench_function("semaphore from hand to hand", |b| {
        b.iter_custom(|n| {
            timed(n, |n| {
                let s = Rc::new(Semaphore::new(1));
                let work = move || {
                    for _ in 0..n / 2 + 1 {
                        let _permit = s.permit().expect("a permit");
                        yield_now().expect("a turn");
                    }
                };
                let other = spawn(work.clone());
                work();
                other.join().expect("a result");
            })
        });
    });
    group.bench_function("channel, there and back", |b| {
        b.iter_custom(|n| {
            timed(n, |n| {
                let (there, back) = (Rc::new(Channel::new()), Rc::new(Channel::new()));
                let (t, b) = (there.clone(), back.clone());
                let other = spawn(move || {
                    for _ in 0..n {
                        b.send(t.recv().expect("an item")).expect("a receiver");
                    }
                });
                for i in 0..n {
                    there.send(i).expect("a receiver");
                    assert_eq!(back.recv(), Ok(i));
                }
                other.join().expect("a result");
            })
        });
    });
    group.bench_function("event, thread to hub and back", |b| {
        b.iter_custom(|n| {
            let (there, back) = (Arc::new(Event::new()), Arc::new(Event::new()));
            let (t, b) = (there.clone(), back.clone());
            let thread = std::thread::spawn(move || {
                for _ in 0..n {
                    t.wait().expect("an event");
                    t.clear();
                    b.set();
                }
            });
            let spent = timed(n, move |n| {
                for _ in 0..n {
                    there.set();
                    back.wait().expect("an event");
                    back.clear();
                }
            });
            thread.join().expect("a thread");
            spent
        });
    });
    group.finish();
}

fn runtimes(c: &mut Criterion) {
    c.bench_function("runtime, made and ended", |b| {
        b.iter(|| {
            let backend = EpollLoop::new().expect("an epoll loop");
            let runtime = Runtime::new(Box::new(backend)).expect("a runtime");
            runtime.block_on(|| 1)
        });
    });
}

criterion_group!(benches, tasks, primitives, runtimes);
criterion_main!(benches);
