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

/// A process that forked without any hook goes on with what was watched.
pub fn a_child_that_nobody_told_hears_all_the_same(make: MakeLoop) {
    let _process = process();
    crate::trace::off();
    let mut l = make();
    if l.caps().name == "mio" {
        eprintln!("skipped: mio knows nothing of forks");
        return;
    }
    let (a, b) = UnixStream::pair().unwrap();
    l.watch(a.as_raw_fd(), key(1), R, Mode::Level).unwrap();
    l.poll(Until::Now, &mut Vec::new()).unwrap();
    let pid = in_child(|| {
        put(&b, b"x");
        ready(&mut *l, key(1), R);
        let (c, d) = UnixStream::pair().unwrap();
        put(&d, b"x");
        let mut other = make();
        other.watch(c.as_raw_fd(), key(2), R, Mode::Level).unwrap();
        ready(&mut *other, key(2), R);
        true
    });
    assert_ok(pid);
    ready(&mut *l, key(1), R);
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

/// Forked twice: each process has its own registrations.
pub fn a_child_of_a_child_is_on_its_own_too(make: MakeLoop) {
    let _process = process();
    let mut l = make();
    let (a, b) = UnixStream::pair().unwrap();
    l.watch(a.as_raw_fd(), key(1), R, Mode::Level).unwrap();
    let pid = in_child(|| {
        l.after_fork().unwrap();
        let pid = in_child(|| {
            l.after_fork().unwrap();
            put(&b, b"x");
            ready(&mut *l, key(1), R);
            l.fd_closing(a.as_raw_fd(), &mut Vec::new());
            true
        });
        assert_ok(pid);
        ready(&mut *l, key(1), R);
        l.unwatch(key(1));
        true
    });
    assert_ok(pid);
    ready(&mut *l, key(1), R);
}

/// The child gives its operation up; the parent's goes on.
pub fn cancelling_in_the_child_leaves_the_parents_operation(make: MakeLoop) {
    let _process = process();
    let mut l = make();
    let (a, b) = UnixStream::pair().unwrap();
    let mut buf = Box::new([0u8; 8]);
    let mut op = Box::pin(Op::Recv {
        fd: a.as_raw_fd(),
        buf: buf.as_mut_ptr(),
        len: 8,
        flags: 0,
    });
    // SAFETY: both live to the end of the case.
    let start = unsafe { l.start(key(1), op.as_mut()) };
    assert!(matches!(start, Start::Parked));
    l.poll(Until::Now, &mut Vec::new()).unwrap();
    let pid = in_child(|| {
        l.after_fork().unwrap();
        l.cancel(key(1));
        let mut out = Vec::new();
        for _ in 0..3 {
            l.poll(Until::Now, &mut out).unwrap();
        }
        true
    });
    assert_ok(pid);
    put(&b, b"me");
    assert_eq!(done(&mut *l, key(1)).unwrap(), 2);
    assert_eq!(&buf[..2], b"me");
}

/// Io, signal, child, async, stat and timer watchers are started before the fork and heard of in the child.
pub fn watchers_of_every_kind_go_on_in_the_child(make: MakeReactor) {
    let _process = process();
    // What the child does to what both share, the parent's watchers may see or not.
    crate::trace::off();
    let r = Recorder::new(make);
    let (a, b) = UnixStream::pair().unwrap();
    let fd = a.as_raw_fd();
    let path = std::env::temp_dir().join(format!("gevent-fork-{}-{fd}", std::process::id()));
    std::fs::write(&path, b"1").unwrap();
    let interval = 0;
    let kinds = [
        WatcherKind::Io { fd, want: R },
        WatcherKind::Signal {
            signum: libc::SIGUSR1,
        },
        WatcherKind::Async,
        WatcherKind::Stat {
            path: path.clone(),
            interval,
        },
        WatcherKind::Timer {
            after: 5 * MS,
            repeat: 0,
        },
        WatcherKind::Child {
            pid: 0,
            trace: false,
        },
    ];
    let ids: Vec<_> = kinds
        .into_iter()
        .enumerate()
        .map(|(n, k)| r.start(k, n))
        .collect();
    let pid = in_child(|| {
        r.reactor.after_fork().unwrap();
        let grandchild = in_child(|| true);
        assert!(grandchild > 0);
        put(&b, b"x");
        // SAFETY: a signal to the child itself, which is handled.
        unsafe { libc::raise(libc::SIGUSR1) };
        r.reactor.send(ids[2]);
        std::fs::write(&path, b"12").unwrap();
        let mut heard = std::collections::BTreeSet::new();
        let all = ["w0", "w1", "w2", "w3", "w4", "w5"];
        while !all.iter().all(|w| heard.contains(*w)) {
            heard.extend(r.run_until(1).split(' ').map(str::to_owned));
        }
        true
    });
    assert_ok(pid);
    std::fs::remove_file(&path).unwrap();
    ids.into_iter().for_each(|id| r.reactor.remove(id));
}

/// The whole of a reactor in a child: fork watchers, timers, descriptors, remote entries.
pub fn the_reactor_runs_fork_watchers_in_the_child(make: MakeReactor) {
    let _process = process();
    let r = Recorder::new(make);
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
pub fn the_offload_pool_works_in_the_child(make: MakeReactor) {
    let _process = process();
    let pool = Pool::new(2, Duration::from_millis(50));
    let r = Recorder::new(make);
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
