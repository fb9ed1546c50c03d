//! The price of a switch, a fiber's life, a timer, a queued call and a poll.

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use gevent_hub_core::event_loop::{Interest, Key, Loop, Mode, Until};
use gevent_hub_core::fiber::{Fiber, FiberKind, Switcher};
use gevent_hub_core::reactor::{Entry, Host, Reactor, Revents, RunMode, WatcherId};
use gevent_hub_core::stack::{self, PooledStack};
use gevent_hub_core::timer::{Due, Timers};
use gevent_loop_epoll::EpollLoop;
use std::hint::black_box;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::ptr;

/// A fiber whose body switches back to the root as often as it is resumed, or just ends.
#[repr(C)]
struct Job {
    fiber: Fiber,
    switcher: *const Switcher,
    root: *const Fiber,
    rounds: usize,
}

/// # Safety
/// As the switcher calls it.
unsafe fn run(fiber: &Fiber) -> *const Fiber {
    // SAFETY: `fiber` is the first field of a `Job`, which is `repr(C)` and outlives its run.
    let job = unsafe { &*ptr::from_ref(fiber).cast::<Job>() };
    for _ in 0..job.rounds {
        // SAFETY: the switcher and the root live as long as the benchmark.
        unsafe { (*job.switcher).transfer(job.root) };
    }
    job.root
}

/// # Safety
/// As the switcher calls it.
unsafe fn reaped(_: *const Fiber, stack: PooledStack) {
    stack::release(stack);
}

static KIND: FiberKind = FiberKind { run, reaped };

fn job(switcher: &Switcher, root: &Fiber, rounds: usize) -> Box<Job> {
    let job = Box::new(Job {
        fiber: Fiber::new(),
        switcher,
        root,
        rounds,
    });
    let stack = stack::acquire().expect("a stack");
    // SAFETY: new, and boxed until it has finished.
    unsafe { job.fiber.prepare(stack, &KIND) };
    job
}

fn fibers(c: &mut Criterion) {
    let root = Fiber::root();
    // SAFETY: this thread's own stack, and `root` lives to the end of the function.
    let switcher = unsafe { Switcher::new(&root) };
    c.bench_function("fiber/round trip", |b| {
        const ROUNDS: usize = 1000;
        b.iter_custom(|iterations| {
            let mut spent = std::time::Duration::ZERO;
            let mut left = iterations as usize;
            while left > 0 {
                let rounds = left.min(ROUNDS);
                let job = job(&switcher, &root, rounds);
                let begun = std::time::Instant::now();
                for _ in 0..rounds {
                    // SAFETY: the fiber is alive: it is resumed once more below.
                    unsafe { switcher.transfer(&job.fiber) };
                }
                spent += begun.elapsed();
                // SAFETY: as above; this lets it end.
                unsafe { switcher.transfer(&job.fiber) };
                left -= rounds;
            }
            spent
        });
    });
    c.bench_function("fiber/whole life on a pooled stack", |b| {
        b.iter(|| {
            let job = job(&switcher, &root, 0);
            // SAFETY: alive until it ends, which is at once.
            unsafe { switcher.transfer(&job.fiber) };
        });
    });
    c.bench_function("stack/acquire and release", |b| {
        b.iter(|| stack::release(black_box(stack::acquire().expect("a stack"))));
    });
}

fn timers(c: &mut Criterion) {
    c.bench_function("timer/start and stop among 100,000", |b| {
        let mut timers = Timers::new(0);
        for n in 0..100_000_u64 {
            timers.start(1_000_000_000 + n * 7_919, Due { tag: 0, word: n });
        }
        let mut n = 0_u64;
        b.iter(|| {
            n = n.wrapping_add(7_919) % 60_000_000_000;
            let key = timers.start(black_box(1_000_000_000 + n), Due { tag: 0, word: 1 });
            timers.stop(key)
        });
    });
}

/// Runs nothing: what is measured is the reactor's own part.
struct Idle;

impl Host for Idle {
    fn fire(&self, _: WatcherId, _: usize, _: Revents) {}
    fn run_entry(&self, entry: Entry) {
        black_box(entry);
    }
    fn before_sleep(&self) {}
    fn after_sleep(&self) {}
}

fn queue(c: &mut Criterion) {
    let backend = EpollLoop::new().expect("an epoll loop");
    let reactor = Reactor::new(Box::new(backend)).expect("a reactor");
    c.bench_function("reactor/1,000 queued calls", |b| {
        b.iter_batched(
            || (0..1000).for_each(|n| reactor.push(Entry::Call(n))),
            |()| reactor.run(&Idle, RunMode::NoWait).expect("a run"),
            BatchSize::PerIteration,
        );
    });
}

fn one_ready(c: &mut Criterion, name: &str, mut backend: Box<dyn Loop>) {
    let (mut near, mut far) = UnixStream::pair().expect("a socket pair");
    backend
        .watch(far.as_raw_fd(), Key(1 << 32), Interest::READ, Mode::Edge)
        .expect("a watch");
    let mut events = Vec::new();
    let mut byte = [0];
    c.bench_function(&format!("{name}/write, poll, read"), |b| {
        b.iter(|| {
            near.write_all(b"x").expect("a write");
            events.clear();
            backend.poll(Until::Forever, &mut events).expect("a poll");
            far.read_exact(&mut byte).expect("a read");
            events.len()
        });
    });
}

fn loops(c: &mut Criterion) {
    one_ready(
        c,
        "epoll",
        Box::new(EpollLoop::new().expect("an epoll loop")),
    );
}

criterion_group!(benches, fibers, timers, queue, loops);
criterion_main!(benches);
