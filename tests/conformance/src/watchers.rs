//! Watchers that need the system: descriptors, signals, children, files.

use crate::support::*;
use gevent_hub_core::reactor::{Revents, RunMode, WatcherKind};
use std::cell::Cell;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;

/// Level-triggered until it is stopped.
pub fn io_watchers_repeat_and_stop(make: MakeReactor) {
    let t = Recorder::new(make);
    let (a, b) = UnixStream::pair().unwrap();
    let id = t.start(io(&a), 1);
    put(&b, b"x");
    let count = Cell::new(0);
    t.on(1, move |t, e| {
        assert_eq!(e, Revents::READ);
        count.set(count.get() + 1);
        if count.get() == 3 {
            t.reactor.stop(id);
        }
    });
    assert!(!t.run(RunMode::Default));
    assert_eq!(t.said(), "w1 w1 w1");
    t.reactor.start(id).unwrap();
    t.on(1, |t, _| t.reactor.break_(false));
    t.run(RunMode::Default);
    assert_eq!(t.said(), "w1");
}

/// libev's fd_kill: an error event, and the watcher is inactive.
pub fn io_watchers_on_a_closed_descriptor_get_an_error(make: MakeReactor) {
    let t = Recorder::new(make);
    assert!(!is_open(1 << 20));
    let id = t.start(
        WatcherKind::Io {
            fd: 1 << 20,
            want: R,
        },
        1,
    );
    t.on(1, |_, e| {
        assert!(e.has(Revents::ERROR) && e.has(Revents::READ))
    });
    assert!(!t.run(RunMode::Default));
    assert_eq!(t.said(), "w1");
    assert!(!t.reactor.is_active(id));
}

/// Regular files are ready in each iteration, on every loop.
pub fn io_watchers_on_a_file_are_always_ready(make: MakeReactor) {
    let t = Recorder::new(make);
    let f = file();
    let id = t.start(
        WatcherKind::Io {
            fd: f.as_raw_fd(),
            want: R.with(W),
        },
        1,
    );
    t.on(1, |_, e| assert_eq!(e, Revents::READ | Revents::WRITE));
    assert_eq!(t.run_until(3), "w1 w1 w1");
    t.reactor.stop(id);
    assert!(!t.run(RunMode::Default));
}

/// Of what is ready at once, the higher priority runs first.
pub fn io_watchers_go_by_priority(make: MakeReactor) {
    let t = Recorder::new(make);
    let pairs: Vec<_> = (0..5).map(|_| UnixStream::pair().unwrap()).collect();
    for (n, (a, b)) in pairs.iter().enumerate() {
        let id = t.reactor.add(io(a), n);
        assert!(t.reactor.set_priority(id, n as i32 - 2));
        t.reactor.start(id).unwrap();
        assert!(!t.reactor.set_priority(id, 0));
        put(b, b"x");
        t.on(n, move |t, _| t.reactor.stop(id));
    }
    assert!(!t.run(RunMode::Default));
    assert_eq!(t.said(), "w4 w3 w2 w1 w0");
}

/// A callback stops another watcher that is pending, closes its descriptor, and opens the number again.
pub fn a_callback_closes_what_another_waits_for(make: MakeReactor) {
    let t = Recorder::new(make);
    let (a, b) = UnixStream::pair().unwrap();
    let (c, d) = UnixStream::pair().unwrap();
    let ia = t.reactor.add(io(&a), 1);
    t.reactor.set_priority(ia, 1);
    t.reactor.start(ia).unwrap();
    let ic = t.start(io(&c), 2);
    put(&b, b"x");
    put(&d, b"x");
    let c = Cell::new(Some(c));
    let keep: Rc<Cell<Option<(UnixStream, UnixStream)>>> = Rc::default();
    let kept = keep.clone();
    t.on(1, move |t, _| {
        let Some(c) = c.take() else { return };
        t.reactor.stop(ia);
        t.reactor.remove(ic);
        let number = c.as_raw_fd();
        t.reactor.fd_closing(number);
        drop(c);
        let (e, f) = UnixStream::pair().unwrap();
        t.start(io(&e), 3);
        kept.set(Some((e, f)));
        t.timer(QUIET, 4);
    });
    t.on(4, |t, _| t.reactor.break_(true));
    assert!(t.run(RunMode::Default));
    assert_eq!(t.said(), "w1 w4");
    let (_e, f) = keep.take().unwrap();
    put(&f, b"x");
    t.on(3, |t, _| t.reactor.break_(true));
    t.run(RunMode::Default);
    assert_eq!(t.said(), "w3");
}

fn exiting(code: i32) -> libc::pid_t {
    // SAFETY: the child ends at once.
    unsafe {
        match libc::fork() {
            0 => libc::_exit(code),
            pid => pid,
        }
    }
}

fn is_reaped(pid: libc::pid_t) -> bool {
    // SAFETY: no status is asked for.
    unsafe { libc::waitpid(pid, std::ptr::null_mut(), libc::WNOHANG) == -1 }
}

/// The wait status of a child that ends later.
pub fn a_child_is_reaped_with_its_status(make: MakeReactor) {
    let _process = process();
    let t = Recorder::new(make);
    let (r, w) = UnixStream::pair().unwrap();
    let pid = in_child(|| {
        use std::io::Read;
        let _ = (&r).read(&mut [0]);
        // SAFETY: a signal to the child itself.
        unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
        true
    });
    let id = t.once(WatcherKind::Child { pid, trace: false }, 1);
    assert_eq!(
        (t.reactor.child_pid(id), t.reactor.child_status(id)),
        (Some(pid), (0, 0))
    );
    put(&w, b"x");
    assert!(!t.run(RunMode::Default));
    assert_eq!(t.said(), "w1");
    let (rpid, status) = t.reactor.child_status(id);
    assert_eq!(rpid, pid);
    assert!(libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGKILL);
    assert!(is_reaped(pid));
}

/// A zombie is seen by a watcher that starts late.
pub fn a_child_that_ended_before_the_start_is_seen(make: MakeReactor) {
    let _process = process();
    for trace in [false, true] {
        let t = Recorder::new(make);
        let pid = exiting(3);
        std::thread::sleep(std::time::Duration::from_millis(20));
        let id = t.once(WatcherKind::Child { pid, trace }, 1);
        assert!(!t.run(RunMode::Default));
        assert_eq!(t.said(), "w1");
        assert_eq!(libc::WEXITSTATUS(t.reactor.child_status(id).1), 3);
    }
}

/// One reaping serves all watchers of a child.
pub fn two_watchers_of_one_child_both_hear(make: MakeReactor) {
    let _process = process();
    let t = Recorder::new(make);
    let pid = exiting(7);
    for data in 1..=2 {
        let id = t.start(WatcherKind::Child { pid, trace: false }, data);
        t.on(data, move |t, _| {
            assert_eq!(libc::WEXITSTATUS(t.reactor.child_status(id).1), 7);
            t.reactor.stop(id);
        });
    }
    assert!(!t.run(RunMode::Default));
    crate::trace::unordered();
    let said = t.said();
    assert!(said == "w1 w2" || said == "w2 w1", "{said}");
}

/// Pid 0 is any child; the watcher goes on.
pub fn any_child_is_reaped_by_pid_zero(make: MakeReactor) {
    let _process = process();
    let t = Recorder::new(make);
    let id = t.start(
        WatcherKind::Child {
            pid: 0,
            trace: false,
        },
        1,
    );
    for code in [1, 2] {
        let pid = exiting(code);
        let seen = Cell::new(false);
        t.on(1, move |t, _| {
            let (rpid, status) = t.reactor.child_status(id);
            seen.set(rpid == pid && libc::WEXITSTATUS(status) == code);
            assert!(seen.get());
            t.reactor.break_(false);
        });
        t.run(RunMode::Default);
        assert_eq!(t.said(), "w1");
    }
    t.reactor.remove(id);
    assert_eq!(t.reactor.active_count(), 0);
}

/// With `trace` a stop counts as well.
pub fn a_traced_child_reports_stops(make: MakeReactor) {
    let _process = process();
    let t = Recorder::new(make);
    // SAFETY: the child sleeps until it is killed.
    let pid = unsafe {
        match libc::fork() {
            0 => loop {
                libc::pause();
            },
            pid => pid,
        }
    };
    let id = t.start(WatcherKind::Child { pid, trace: true }, 1);
    t.on(1, |t, _| t.reactor.break_(false));
    for (signum, stops) in [(libc::SIGSTOP, true), (libc::SIGKILL, false)] {
        // SAFETY: our own child.
        unsafe { libc::kill(pid, signum) };
        t.run(RunMode::Default);
        assert_eq!(t.said(), "w1");
        let status = t.reactor.child_status(id).1;
        assert_eq!(
            (libc::WIFSTOPPED(status), libc::WIFSIGNALED(status)),
            (stops, !stops)
        );
    }
    t.reactor.remove(id);
}

/// A watcher of one child takes no other child's status away.
pub fn other_children_are_left_to_others(make: MakeReactor) {
    let _process = process();
    let t = Recorder::new(make);
    let other = exiting(9);
    let pid = exiting(0);
    t.once(WatcherKind::Child { pid, trace: false }, 1);
    assert!(!t.run(RunMode::Default));
    let mut status = 0;
    // SAFETY: room for the status.
    assert_eq!(unsafe { libc::waitpid(other, &mut status, 0) }, other);
    assert_eq!(libc::WEXITSTATUS(status), 9);
}

/// A change of the size is seen at the next look.
pub fn a_stat_watcher_sees_a_file_change(make: MakeReactor) {
    let t = Recorder::new(make);
    let path = std::env::temp_dir().join(format!("gevent-stat-{}-{:p}", std::process::id(), &t));
    std::fs::write(&path, b"1").unwrap();
    let kind = WatcherKind::Stat {
        path: path.clone(),
        interval: 1,
    };
    let id = t.once(kind, 1);
    std::fs::write(&path, b"12").unwrap();
    assert!(!t.run(RunMode::Default));
    std::fs::remove_file(&path).unwrap();
    let (now, before) = t.reactor.stat_attributes(id);
    assert_eq!((now.unwrap().st_size, before.unwrap().st_size), (2, 1));
}

/// With inotify a change is seen long before the interval is over: a write, a removal, a new file.
pub fn a_stat_watcher_is_told_of_changes(make: MakeReactor) {
    let t = Recorder::new(make);
    let path = std::env::temp_dir().join(format!("gevent-hint-{}-{:p}", std::process::id(), &t));
    std::fs::write(&path, b"1").unwrap();
    let kind = WatcherKind::Stat {
        path: path.clone(),
        interval: 0,
    };
    let id = t.start(kind, 1);
    let size = |t: &Recorder| t.reactor.stat_attributes(id).0.map(|a| a.st_size);
    t.run(RunMode::NoWait);
    assert_eq!((t.said(), size(&t)), (String::new(), Some(1)));
    std::fs::write(&path, b"12").unwrap();
    while size(&t) != Some(2) {
        t.run_until(1);
    }
    std::fs::remove_file(&path).unwrap();
    while size(&t).is_some() {
        t.run_until(1);
    }
    std::fs::write(&path, b"123").unwrap();
    while size(&t) != Some(3) {
        t.run_until(1);
    }
    std::fs::remove_file(&path).unwrap();
    t.reactor.remove(id);
}
