//! Forks: the child makes its loop anew and never touches the parent's.

use crate::support::*;
use gevent_hub_core::event_loop::{Mode, Op, Start, Until};
use gevent_hub_core::offload::Pool;
use gevent_hub_core::reactor::{RunMode, Token, WatcherKind, monotonic};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// The child hears of its descriptors, stops watching one, and the parent hears of it all the same.
pub fn a_child_hears_its_own_and_leaves_the_parent_alone(make: MakeLoop) {
    let _process = process();
    for mode in [Mode::Level, Mode::Edge] {
        let mut l = make();
        let (a, b) = UnixStream::pair().unwrap();
        let (c, d) = UnixStream::pair().unwrap();
        l.watch(a.as_raw_fd(), key(1), R, mode).unwrap();
        l.watch(c.as_raw_fd(), key(2), R, mode).unwrap();
        l.poll(Until::Now, &mut Vec::new()).unwrap();
        let pid = in_child(|| {
            l.after_fork().unwrap();
            put(&d, b"x");
            ready(&mut *l, key(2), R);
            l.unwatch(key(1));
            l.fd_closing(c.as_raw_fd(), &mut Vec::new());
            true
        });
        assert_ok(pid);
        ready(&mut *l, key(2), R);
        put(&b, b"x");
        ready(&mut *l, key(1), R);
    }
}

/// What waited before the fork waits in the child too, and each process has its own. The operation is one that
/// takes nothing: what a receive gets, the other process's might have had.
pub fn operations_start_again_in_the_child(make: MakeLoop) {
    let _process = process();
    let mut l = make();
    let (a, b) = UnixStream::pair().unwrap();
    let mut op = Box::pin(Op::Poll {
        fd: a.as_raw_fd(),
        want: R,
    });
    // SAFETY: it lives to the end of the case.
    let start = unsafe { l.start(key(1), op.as_mut()) };
    assert!(matches!(start, Start::Parked));
    l.poll(Until::Now, &mut Vec::new()).unwrap();
    let pid = in_child(|| {
        l.after_fork().unwrap();
        put(&b, b"child");
        done(&mut *l, key(1)).is_ok()
    });
    assert_ok(pid);
    assert_ne!(done(&mut *l, key(1)).unwrap() & libc::POLLIN as u32, 0);
    assert_eq!(get_all_ready(&a), b"child");
}

/// A waker of the child does not wake the parent, and the other way round.
pub fn wakes_of_the_child_stay_in_the_child(make: MakeLoop) {
    let _process = process();
    let mut l = make();
    let w = l.waker();
    let pid = in_child(|| {
        l.after_fork().unwrap();
        let mut out = Vec::new();
        l.poll(Until::Now, &mut out).unwrap();
        assert!(out.is_empty());
        w.wake();
        l.poll(Until::At(monotonic() + PATIENCE), &mut out).unwrap();
        out.len() == 1
    });
    assert_ok(pid);
    let mut out = Vec::new();
    l.poll(Until::At(monotonic() + QUIET), &mut out).unwrap();
    assert!(out.is_empty(), "{out:?}");
    w.wake();
    l.poll(Until::At(monotonic() + PATIENCE), &mut out).unwrap();
    assert_eq!(out.len(), 1);
}

/// The whole of a reactor in a child: fork watchers, timers, descriptors, remote entries.
pub fn the_reactor_runs_fork_watchers_in_the_child(make: MakeLoop) {
    let _process = process();
    let r = Recorder::new(&|| reactor(make()));
    let (a, b) = UnixStream::pair().unwrap();
    r.start(
        WatcherKind::Io {
            fd: a.as_raw_fd(),
            want: R,
        },
        1,
    );
    r.start(WatcherKind::Fork, 2);
    r.run(RunMode::NoWait);
    assert_eq!(r.said(), "");
    let pid = in_child(|| {
        r.reactor.after_fork().unwrap();
        r.timer(MS, 3);
        put(&b, b"x");
        let said = r.run_until(3);
        said.starts_with("w2") && said.contains("w1")
    });
    assert_ok(pid);
    assert_eq!(get_all_ready(&a), b"x");
    // A report of what the child wrote may have been under way; a fork watcher is not.
    r.run(RunMode::NoWait);
    assert!(!r.said().contains("w2"), "the parent is not forked");
    put(&b, b"y");
    assert_eq!(r.run_until(1), "w1");
}

/// The threads of the offload pool are not in the child; it gets new ones.
pub fn the_offload_pool_works_in_the_child(make: MakeLoop) {
    let _process = process();
    let pool = Pool::new(2, Duration::from_millis(50));
    let r = Recorder::new(&|| reactor(make()));
    let job = pool.submit(r.reactor.remote(), Token(1), || 5).unwrap();
    assert_eq!(r.run_until(1), "1:Event");
    assert!(matches!(job.take(), Some(Ok(5))));
    let pid = in_child(|| {
        r.reactor.after_fork().unwrap();
        let job = pool.submit(r.reactor.remote(), Token(2), || 6).unwrap();
        r.run_until(1) == "2:Event" && matches!(job.take(), Some(Ok(6)))
    });
    assert_ok(pid);
    assert_eq!(r.said(), "");
}

fn get_all_ready(s: &UnixStream) -> Vec<u8> {
    s.set_nonblocking(true).unwrap();
    get_all(s)
}
