//! The loops against each other, on the same work and through the same trait.

mod support;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use gevent_hub_core::event_loop::{Event, Key, Loop, Mode, Op, Readiness, Start, Until};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::time::{Duration, Instant};
use support::each;

fn pairs(n: usize) -> Vec<(UnixStream, UnixStream)> {
    let pair = |_| {
        let (a, b) = UnixStream::pair().expect("a socket pair");
        a.set_nonblocking(true).expect("non-blocking");
        b.set_nonblocking(true).expect("non-blocking");
        (a, b)
    };
    (0..n).map(pair).collect()
}

/// A poll that has nothing to do, and one that is woken.
fn overhead(c: &mut Criterion) {
    let mut group = c.benchmark_group("poll");
    each(|name, mut l| {
        let mut out = Vec::new();
        group.bench_function(format!("{name}/nothing"), |b| {
            b.iter(|| l.poll(Until::Now, &mut out).expect("a poll"));
        });
        let waker = l.waker();
        group.bench_function(format!("{name}/woken"), |b| {
            b.iter(|| {
                waker.wake();
                out.clear();
                l.poll(Until::Forever, &mut out).expect("a poll");
                out.len()
            });
        });
        let (a, _b) = UnixStream::pair().expect("a socket pair");
        let mut n = 0;
        group.bench_function(format!("{name}/watch, poll, unwatch, poll"), |b| {
            b.iter(|| {
                n += 1;
                l.watch(a.as_raw_fd(), Key::new(1, n), Readiness::READ, Mode::Level)
                    .expect("a watch");
                l.poll(Until::Now, &mut out).expect("a poll");
                l.unwatch(Key::new(1, n));
                l.poll(Until::Now, &mut out).expect("a poll");
            });
        });
    });
}

/// A byte to each of `n` watched sockets, which are polled and read until all have got theirs.
fn readiness(c: &mut Criterion) {
    for mode in [Mode::Edge, Mode::Level] {
        let mut group = c.benchmark_group(format!("{mode:?} readiness"));
        for n in [1, 64, 1024] {
            group.throughput(Throughput::Elements(n as u64));
            each(|name, mut l| {
                let pairs = pairs(n);
                for (k, (a, _)) in pairs.iter().enumerate() {
                    l.watch(a.as_raw_fd(), Key(k as u64), Readiness::READ, mode)
                        .expect("a watch");
                }
                let mut out = Vec::new();
                let mut byte = [0];
                group.bench_function(BenchmarkId::new(name, n), |b| {
                    b.iter(|| {
                        for (_, b) in &pairs {
                            (&*b).write_all(b"x").expect("a write");
                        }
                        let mut got = 0;
                        while got < n {
                            l.poll(Until::Forever, &mut out).expect("a poll");
                            for event in out.drain(..) {
                                if let Event::Ready(k, _) = event {
                                    let read = (&pairs[k.0 as usize].0).read(&mut byte);
                                    got += usize::from(read.is_ok());
                                }
                            }
                        }
                    });
                });
            });
        }
        group.finish();
    }
}

/// One end of an echo: what it does next, and with which bytes.
struct End {
    op: Op,
    buf: Box<[u8]>,
    fd: i32,
    sending: bool,
}

impl End {
    fn new(fd: i32, len: usize) -> Self {
        let (buf, op) = (
            vec![0; len].into_boxed_slice(),
            Op::Poll {
                fd,
                want: Readiness::READ,
            },
        );
        End {
            op,
            buf,
            fd,
            sending: false,
        }
    }

    /// Starts to send or to receive; true if that was done at once.
    fn go(&mut self, l: &mut dyn Loop, key: Key, send: bool) -> bool {
        let (fd, len) = (self.fd, self.buf.len());
        self.sending = send;
        self.op = if send {
            Op::Send {
                fd,
                buf: self.buf.as_ptr(),
                len,
                flags: 0,
            }
        } else {
            Op::Recv {
                fd,
                buf: self.buf.as_mut_ptr(),
                len,
                // A message comes whole.
                flags: libc::MSG_WAITALL,
            }
        };
        // SAFETY: the ends lie in a vector that does not grow while operations run.
        match unsafe { l.start(key, Pin::new_unchecked(&mut self.op)) } {
            Start::Done(result) => {
                result.expect("it works");
                true
            }
            Start::Parked => false,
            Start::Offload => panic!("a stream is never offloaded"),
        }
    }
}

/// Runs `rounds` echoes on each connection at once, both ends by operations: the even ends send first.
fn echo(l: &mut dyn Loop, ends: &mut [End], rounds: usize) {
    let mut left = vec![rounds; ends.len()];
    let mut going = ends.len();
    let (mut out, mut over) = (Vec::new(), Vec::new());
    for (k, end) in ends.iter_mut().enumerate() {
        if end.go(l, Key(k as u64), k % 2 == 0) {
            over.push(k);
        }
    }
    while going > 0 {
        if over.is_empty() {
            l.poll(Until::Forever, &mut out).expect("a poll");
            for event in out.drain(..) {
                if let Event::Done(key, result) = event {
                    result.expect("it works");
                    over.push(key.0 as usize);
                }
            }
        }
        while let Some(k) = over.pop() {
            let sent = ends[k].sending;
            // A client's round ends with its receive, a server's with its send.
            if sent != (k % 2 == 0) {
                left[k] -= 1;
                if left[k] == 0 {
                    going -= 1;
                    continue;
                }
            }
            if ends[k].go(l, Key(k as u64), !sent) {
                over.push(k);
            }
        }
    }
}

fn operations(c: &mut Criterion) {
    let mut group = c.benchmark_group("echo by operations");
    for (n, len) in [(1, 64), (64, 64), (64, 65_536)] {
        group.throughput(Throughput::Elements(n as u64));
        each(|name, mut l| {
            let pairs = pairs(n);
            let fds = pairs
                .iter()
                .flat_map(|(a, b)| [a.as_raw_fd(), b.as_raw_fd()]);
            let mut ends: Vec<End> = fds.map(|fd| End::new(fd, len)).collect();
            group.bench_function(BenchmarkId::new(name, format!("{n} of {len} bytes")), |b| {
                b.iter_custom(|rounds| {
                    let mut spent = Duration::ZERO;
                    let mut left = rounds as usize;
                    while left > 0 {
                        let now = left.min(10_000);
                        let begun = Instant::now();
                        echo(&mut *l, &mut ends, now);
                        spent += begun.elapsed();
                        left -= now;
                    }
                    spent
                });
            });
        });
    }
    group.finish();
    let mut group = c.benchmark_group("operation");
    each(|name, mut l| {
        let (a, _b) = UnixStream::pair().expect("a socket pair");
        a.set_nonblocking(true).expect("non-blocking");
        let mut end = End::new(a.as_raw_fd(), 64);
        let mut out = Vec::new();
        group.bench_function(format!("{name}/receive, poll, cancel"), |b| {
            b.iter(|| {
                assert!(!end.go(&mut *l, Key(7), false));
                l.poll(Until::Now, &mut out).expect("a poll");
                l.cancel(Key(7))
            });
        });
    });
    group.finish();
}

criterion_group!(benches, overhead, readiness, operations);
criterion_main!(benches);
