//! The reactor's own prices: deadlines of parks at a thousand and a million, timers that expire, waits for
//! sources, watchers, the queue, and an iteration that does not sleep, on each loop.

mod support;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use gevent_hub_core::event_loop::{Loop, Readiness};
use gevent_hub_core::reactor::{
    Entry, Host, Reactor, Revents, RunMode, Token, Wake, WatcherId, WatcherKind,
};
use gevent_hub_core::sim::Sim;
use gevent_hub_core::timer::{Due, Timers};
use std::hint::black_box;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;

struct Idle;

impl Host for Idle {
    fn fire(&self, id: WatcherId, _: usize, _: Revents) {
        black_box(id);
    }
    fn run_entry(&self, entry: Entry) {
        black_box(entry);
    }
    fn before_sleep(&self) {}
    fn after_sleep(&self) {}
}

/// Spread over a minute, as the read timeouts of many connections are.
fn deadline(n: u64) -> u64 {
    n.wrapping_mul(0x9e37_79b9_7f4a_7c15) % 60_000_000_000
}

fn deadlines(c: &mut Criterion) {
    for pending in [1_000u64, 1_000_000] {
        let reactor = Reactor::for_tests(&Sim::new());
        for n in 0..pending {
            reactor.arm(1_000_000_000 + deadline(n), Token(n + 1));
        }
        let mut n = 0;
        c.bench_function(&format!("deadline/arm and disarm among {pending}"), |b| {
            b.iter(|| {
                n += 1;
                let key = reactor.arm(black_box(1_000_000_000 + deadline(n)), Token(1));
                reactor.disarm(key)
            });
        });
        // The oldest goes and a new one comes, so that every access is to cold memory.
        let mut keys: Vec<_> = (0..pending)
            .map(|n| reactor.arm(1_000_000_000 + deadline(n), Token(1)))
            .collect();
        let mut at = 0;
        c.bench_function(
            &format!("deadline/disarm one of {pending} and arm another"),
            |b| {
                b.iter(|| {
                    n += 1;
                    at = (at + 7_919) % keys.len();
                    assert!(reactor.disarm(keys[at]));
                    keys[at] = reactor.arm(1_000_000_000 + deadline(n), Token(1));
                });
            },
        );
    }
    c.bench_function("deadline/100,000 expire", |b| {
        b.iter_batched(
            || {
                let mut timers = Timers::new(0);
                for n in 0..100_000 {
                    timers.start(deadline(n), Due { tag: 0, word: n });
                }
                timers
            },
            |mut timers| {
                for ms in 0..60_000u64 {
                    timers.advance(ms * 1_000_000);
                    while let Some(due) = timers.pop(ms * 1_000_000) {
                        black_box(due);
                    }
                }
                timers
            },
            BatchSize::PerIteration,
        );
    });
}

fn each(c: &mut Criterion, name: &str, make: impl Fn() -> Option<Box<dyn Loop>>) {
    let Some(backend) = make() else { return };
    let reactor: Rc<Reactor> = Reactor::new(backend).expect("a reactor");
    let (a, _b) = UnixStream::pair().expect("a socket pair");
    a.set_nonblocking(true).expect("fcntl");

    let source = reactor.source(a.as_raw_fd());
    reactor.source_clear(source, Readiness::READ);
    c.bench_function(&format!("{name}/source wait and unwait"), |b| {
        b.iter(|| {
            let parked = reactor.source_wait(source, Readiness::READ, Token(black_box(1)));
            reactor.source_unwait(source, Token(1));
            parked.expect("a wait")
        });
    });
    reactor.source_detach(source);

    let want = Readiness::READ;
    let io = reactor.add(
        WatcherKind::Io {
            fd: a.as_raw_fd(),
            want,
        },
        0,
    );
    c.bench_function(&format!("{name}/io watcher start and stop"), |b| {
        b.iter(|| {
            reactor.start(io).expect("a start");
            reactor.stop(io);
        });
    });
    let timer = reactor.add(
        WatcherKind::Timer {
            after: 1_000_000_000,
            repeat: 0,
        },
        0,
    );
    c.bench_function(&format!("{name}/timer watcher start and stop"), |b| {
        b.iter(|| {
            reactor.start(timer).expect("a start");
            reactor.stop(timer);
        });
    });

    reactor.arm(u64::MAX, Token(1));
    c.bench_function(&format!("{name}/iteration that does not sleep"), |b| {
        b.iter(|| reactor.run(&Idle, RunMode::NoWait).expect("a run"));
    });
    c.bench_function(&format!("{name}/push and run a million wakes"), |b| {
        b.iter_batched(
            || (0..1_000_000).for_each(|n| reactor.push(Entry::Wake(Token(n), Wake::Event))),
            |()| {
                while reactor.queue_len() != 0 {
                    reactor.run(&Idle, RunMode::NoWait).expect("a run");
                }
            },
            BatchSize::PerIteration,
        );
    });
    c.bench_function(&format!("{name}/push one and run it"), |b| {
        b.iter(|| {
            reactor.push(Entry::Call(black_box(1)));
            reactor.pop_entry()
        });
    });
}

fn loops(c: &mut Criterion) {
    support::each_kind(|name, make| each(c, name, || make().ok()));
}

criterion_group!(benches, deadlines, loops);
criterion_main!(benches);
