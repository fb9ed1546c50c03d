//! Signal watchers, and signals that come while much else happens.

use crate::support::*;
use gevent_hub_core::reactor::{Revents, RunMode, WatcherKind};
use std::cell::Cell;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::mpsc;

fn signal(signum: i32) -> WatcherKind {
    WatcherKind::Signal { signum }
}

fn send(signum: i32) {
    // SAFETY: a signal to this process, which is handled.
    unsafe { libc::kill(libc::getpid(), signum) };
}

fn raise(signum: i32) {
    // SAFETY: a signal to this thread, which is handled.
    unsafe { libc::raise(signum) };
}

/// A signal of another thread wakes the loop, and many at once are one event.
pub fn a_signal_wakes_a_sleeping_loop(make: MakeReactor) {
    let _process = process();
    let t = Recorder::new(make);
    let id = t.start(signal(libc::SIGUSR1), 1);
    assert_eq!(t.reactor.signum(id), Some(libc::SIGUSR1));
    t.on(1, move |t, e| {
        assert_eq!(e, Revents::SIGNAL);
        t.reactor.stop(id);
    });
    let other = std::thread::spawn(|| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        send(libc::SIGUSR1);
    });
    assert!(!t.run(RunMode::Default));
    other.join().unwrap();
    assert_eq!(t.said(), "w1");
    t.reactor.start(id).unwrap();
    (0..3).for_each(|_| raise(libc::SIGUSR1));
    assert!(!t.run(RunMode::Default));
    assert_eq!(t.said(), "w1");
}

/// Both came before the poll: the higher priority runs first.
pub fn two_signals_go_by_priority(make: MakeReactor) {
    let _process = process();
    let t = Recorder::new(make);
    for (n, signum) in [(1, libc::SIGUSR1), (2, libc::SIGUSR2)] {
        let id = t.reactor.add(signal(signum), n);
        t.reactor.set_priority(id, n as i32 - 2);
        t.reactor.start(id).unwrap();
        t.on(n, move |t, _| t.reactor.stop(id));
        raise(signum);
    }
    assert!(!t.run(RunMode::Default));
    assert_eq!(t.said(), "w2 w1");
}

/// A thread sends signals without a pause while bytes go back and forth.
pub fn a_storm_of_signals_loses_no_descriptor(make: MakeReactor) {
    let _process = process();
    // The last ones may be delivered when the watcher is gone.
    // SAFETY: a plain call.
    unsafe { libc::signal(libc::SIGUSR1, libc::SIG_IGN) };
    crate::trace::unordered();
    let t = Recorder::new(make);
    let (a, b) = UnixStream::pair().unwrap();
    a.set_nonblocking(true).unwrap();
    t.start(signal(libc::SIGUSR1), 1);
    let fd = a.as_raw_fd();
    t.start(WatcherKind::Io { fd, want: R }, 2);
    let rounds = Rc::new(Cell::new(0));
    let count = rounds.clone();
    put(&b, b"x");
    t.on(2, move |t, _| {
        assert_eq!(get_all(&a), b"x");
        count.set(count.get() + 1);
        if count.get() < 300 {
            put(&b, b"x");
        } else {
            t.reactor.break_(true);
        }
    });
    raise(libc::SIGUSR1);
    let (stop, stopped) = mpsc::channel::<()>();
    let other = std::thread::spawn(move || {
        while stopped.try_recv() == Err(mpsc::TryRecvError::Empty) {
            send(libc::SIGUSR1);
            std::thread::yield_now();
        }
    });
    t.run(RunMode::Default);
    drop(stop);
    other.join().unwrap();
    assert_eq!(rounds.get(), 300);
    assert!(t.said().contains("w1"));
}

/// A signal to this process and the end of its child, both before one poll.
pub fn a_signal_and_the_end_of_a_child_come_together(make: MakeReactor) {
    let _process = process();
    crate::trace::unordered();
    let t = Recorder::new(make);
    let s = t.start(signal(libc::SIGUSR2), 1);
    let pid = in_child(|| {
        // SAFETY: a signal to the parent, which handles it.
        unsafe { libc::kill(libc::getppid(), libc::SIGUSR2) };
        true
    });
    let c = t.start(WatcherKind::Child { pid, trace: false }, 2);
    t.on(1, move |t, _| t.reactor.stop(s));
    t.on(2, move |t, _| t.reactor.stop(c));
    assert!(!t.run(RunMode::Default));
    let said = t.said();
    assert!(said == "w1 w2" || said == "w2 w1", "{said}");
    assert_eq!(t.reactor.child_status(c), (pid, 0));
}

fn disposition(signum: i32) -> usize {
    // SAFETY: plain data that the call fills.
    unsafe {
        let mut now: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signum, std::ptr::null(), &mut now);
        now.sa_sigaction
    }
}

/// What was in force before the first watcher is in force after the last.
pub fn a_stopped_watcher_gives_the_signal_back(make: MakeReactor) {
    let _process = process();
    let t = Recorder::new(make);
    let before = disposition(libc::SIGUSR2);
    let two = [1, 2].map(|n| t.start(signal(libc::SIGUSR2), n));
    assert_ne!(disposition(libc::SIGUSR2), before);
    t.reactor.stop(two[0]);
    assert_ne!(disposition(libc::SIGUSR2), before);
    t.on(2, move |t, _| t.reactor.stop(two[1]));
    raise(libc::SIGUSR2);
    assert!(!t.run(RunMode::Default));
    assert_eq!(t.said(), "w2");
    assert_eq!(disposition(libc::SIGUSR2), before);
}
