//! What comes from outside the loop: parks, sources, other threads, operations, forks, signals and files.

use super::*;
use crate::os;
use crate::reactor::sources::IPPROTO_MPTCP;
use std::os::fd::AsRawFd;

#[test]
fn deadlines_of_parks_wake_once_and_can_be_taken_back() {
    let sim = Sim::new();
    let (t, r) = Test::new(&sim);
    let a = r.arm(5 * MS, Token(1));
    let b = r.arm(4 * MS, Token(2));
    let c = r.arm_sleep(3 * MS, Token(3), false);
    assert_eq!(r.active_count(), 2);
    assert!(r.disarm(b) && !r.disarm(b));
    assert!(!t.run(RunMode::Default));
    assert_eq!(t.said(), "sleep 3:Timeout sleep 1:Timeout");
    assert!(!r.disarm(a) && !r.disarm(c));
    assert_eq!(r.active_count(), 0);
}

#[test]
fn woken_fibers_have_the_default_priority_among_watchers() {
    let sim = Sim::new();
    let (t, r) = Test::new(&sim);
    // All are due in one iteration: a timeout of gevent's, two sleeps, a park's limit, and a ready source.
    let timeout = r.add(timer(1), 7);
    assert!(r.set_priority(timeout, -1));
    r.start(timeout).unwrap();
    let now = r.now();
    r.arm(now, Token(9));
    r.arm_sleep(now + 2 * MS, Token(1), true);
    let plain = started(&r, timer(3), 8);
    r.arm_sleep(now + 4 * MS, Token(2), false);
    let s = r.source(4);
    r.source_clear(s, R);
    assert!(r.source_wait(s, R, Token(3)).unwrap());
    r.push(Entry::Call(1));
    sim.ready_at(5 * MS, 4, R);
    t.on(1001, {
        let sim = sim.clone();
        move |_, _| sim.pass(10 * MS)
    });
    assert!(!t.run(RunMode::Default));
    // Timers in the order of their deadlines, then the source, as libev has it; last, limits and timeouts.
    assert_eq!(t.said(), "c1 1:Timeout w8 2:Timeout 3:Ready 9:Timeout w7");
    assert!(!r.is_active(plain));
}

#[test]
fn a_source_is_tried_first_registered_once_and_wakes_by_direction() {
    let sim = Sim::new();
    let (t, r) = Test::new(&sim);
    let s = r.source(4);
    assert_eq!(r.source_ready(s), R.with(W));
    assert_eq!(sim.watched(), 0);
    r.source_clear(s, R);
    assert!(r.source_wait(s, R, Token(1)).unwrap());
    assert!(
        !r.source_wait(s, W, Token(2)).unwrap(),
        "writing was never refused"
    );
    r.source_clear(s, W);
    assert!(r.source_wait(s, W, Token(2)).unwrap());
    assert_eq!((sim.watched(), r.active_count()), (1, 2));
    sim.ready_at(2 * MS, 4, W);
    sim.ready_at(3 * MS, 4, R.with(Readiness::RDHUP));
    assert!(!t.run(RunMode::Default));
    assert_eq!(t.said(), "sleep 2:Ready sleep 1:Ready");
    assert!(r.source_ready(s).has(Readiness::RDHUP));
    assert!(!r.source_wait(s, R, Token(3)).unwrap());
    r.source_clear(s, R);
    assert_eq!(r.source_ready(s), W);
    assert!(r.source_wait(s, R, Token(4)).unwrap());
    assert_eq!(sim.watched(), 1);
}

#[test]
fn of_many_wakes_the_host_is_told_which_come_next() {
    for many in [4, 100] {
        let sim = Sim::new();
        let (t, r) = Test::new(&sim);
        for n in 1..=many {
            let s = r.source(n);
            r.source_clear(s, R);
            assert!(r.source_wait(s, R, Token(n as u64)).unwrap());
            sim.ready_at(MS, n, R);
        }
        let told = Rc::new(Cell::new(0));
        t.on(WOKEN, {
            let (told, before) = (told.clone(), Cell::new((None, None)));
            move |t, token| {
                let now = Some(Token(u64::from(token.0)));
                let (next, later) = before.replace(t.expected.get());
                if next.is_some() {
                    assert_eq!(next, now);
                    told.set(told.get() + 1);
                }
                if later.is_some() {
                    assert!(t.expected.get().0.is_none_or(|next| Some(next) == later));
                }
            }
        });
        t.run(RunMode::Default);
        assert_eq!(t.said().matches("Ready").count(), many as usize);
        // A few stay in the caches by themselves.
        assert_eq!(told.get() > many / 2, many == 100, "{}", told.get());
    }
}

#[test]
fn waits_can_be_taken_back_and_end_when_the_descriptor_is_closed() {
    let sim = Sim::new();
    let (t, r) = Test::new(&sim);
    let s = r.source(4);
    r.source_clear(s, R.with(W));
    for n in 1..=3 {
        assert!(
            r.source_wait(s, if n == 3 { W } else { R }, Token(n))
                .unwrap()
        );
    }
    r.source_unwait(s, Token(2));
    assert_eq!(r.active_count(), 2);
    r.source_closing(s);
    assert_eq!((sim.watched(), r.active_count()), (0, 0));
    t.run(RunMode::Default);
    assert_eq!(t.said(), "1:Closed 3:Closed");
    assert_eq!(
        r.source_wait(s, R, Token(5)).unwrap_err().raw_os_error(),
        Some(libc::EBADF)
    );
}

#[test]
fn a_source_that_cannot_be_polled_never_waits() {
    let sim = Sim::new();
    let (_t, r) = Test::new(&sim);
    sim.unpollable(6);
    let s = r.source(6);
    r.source_clear(s, R);
    assert!(!r.source_wait(s, R, Token(1)).unwrap());
    r.source_clear(s, R);
    assert!(!r.source_wait(s, R, Token(1)).unwrap());
}

#[test]
fn other_threads_push_and_send() {
    let sim = Sim::new();
    let (t, r) = Test::new(&sim);
    let a = started(&r, WatcherKind::Async, 1);
    let (remote, handle) = (r.remote(), r.async_handle(a).unwrap());
    t.on(1, move |t, _| t.r().stop(a));
    let other = std::thread::spawn(move || {
        for n in 0..100 {
            assert!(remote.push(Entry::Wake(Token(n + 1), Wake::Event)));
        }
        handle.send();
        handle.send();
    });
    assert!(!t.run(RunMode::Default));
    other.join().unwrap();
    t.run(RunMode::Default);
    let said = t.said().replace("sleep ", "");
    let wakes: Vec<_> = said.split(' ').filter(|s| s.ends_with("Event")).collect();
    assert_eq!(
        wakes,
        (1..=100).map(|n| format!("{n}:Event")).collect::<Vec<_>>()
    );
    assert_eq!(said.matches("w1").count(), 1);
}

#[test]
fn a_send_before_the_start_is_lost_and_one_after_counts() {
    let sim = Sim::new();
    let (t, r) = Test::new(&sim);
    let a = r.add(WatcherKind::Async, 1);
    r.send(a);
    assert!(r.is_sent(a));
    r.start(a).unwrap();
    t.run(RunMode::NoWait);
    assert_eq!(t.said(), "");
    r.send(a);
    t.run(RunMode::NoWait);
    assert_eq!(t.said(), "w1");
    assert!(!r.is_sent(a));
}

#[test]
fn operations_wake_their_token_and_keep_their_result() {
    let sim = Sim::new();
    let (t, r) = Test::new(&sim);
    let mut op = Box::pin(crate::event_loop::Op::Poll { fd: 3, want: R });
    // SAFETY: the op lives to the end of the test, and a fake loop does not look into it later.
    let started = unsafe { r.op_start(op.as_mut(), Token(1)) };
    let Started::Parked(id) = started else {
        panic!("{started:?}")
    };
    assert!(r.op_take(id).is_none());
    assert_eq!(r.active_count(), 1);
    sim.finish(3, Ok(5));
    assert!(!t.run(RunMode::Default));
    assert_eq!(t.said(), "sleep 1:Event");
    assert_eq!(r.op_take(id).unwrap().unwrap(), 5);
    assert!(r.op_take(id).is_none());
    // SAFETY: as above.
    let Started::Parked(id) = (unsafe { r.op_start(op.as_mut(), Token(2)) }) else {
        panic!()
    };
    assert!(matches!(
        r.op_cancel(id),
        crate::event_loop::Cancel::Cancelled
    ));
    assert_eq!(r.active_count(), 0);
}

#[test]
fn an_abandoned_operation_keeps_nothing_running_and_is_told_of_later() {
    let sim = Sim::new();
    let (t, r) = Test::new(&sim);
    let mut op = Box::pin(crate::event_loop::Op::Poll { fd: 3, want: R });
    let mut start = |n| {
        // SAFETY: the op lives to the end of the test, and a fake loop does not look into it later.
        match unsafe { r.op_start(op.as_mut(), Token(n)) } {
            Started::Parked(id) => id,
            other => panic!("{other:?}"),
        }
    };
    let (first, second, third) = (start(1), start(2), start(3));
    r.op_abandon(first, Entry::Call(11));
    assert_eq!(r.active_count(), 2);
    sim.finish(3, Ok(5));
    sim.finish(3, Ok(6));
    t.run(RunMode::NoWait);
    // Its entry comes through the queue, in the next iteration, and the result is there to be taken.
    t.run(RunMode::NoWait);
    assert_eq!(t.said(), "2:Event c11");
    assert_eq!(r.op_take(first).unwrap().unwrap(), 5);
    // One that is over already.
    r.op_abandon(second, Entry::Call(12));
    t.run(RunMode::NoWait);
    assert_eq!(t.said(), "c12");
    assert_eq!(r.op_take(second).unwrap().unwrap(), 6);
    // One that the end of the reactor ends.
    r.op_abandon(third, Entry::Call(13));
    assert_eq!(r.active_count(), 0);
    r.destroy();
    assert_eq!(r.take_abandoned(), [Entry::Call(13)]);
    assert_eq!(r.take_abandoned(), []);
    assert_eq!(r.statistics().operations, 2);
}

#[test]
fn fork_watchers_run_in_the_next_iteration() {
    let sim = Sim::new();
    let (t, r) = Test::new(&sim);
    started(&r, WatcherKind::Fork, 1);
    started(&r, WatcherKind::Prepare, 2);
    t.run(RunMode::NoWait);
    r.after_fork().unwrap();
    t.run(RunMode::NoWait);
    t.run(RunMode::NoWait);
    assert_eq!(t.said(), "w2 w1 w2 w2");
}

#[test]
fn a_child_that_goes_on_alone_hears_of_nothing_else() {
    let sim = Sim::new();
    let (t, r) = Test::new(&sim);
    let timer = |after| WatcherKind::Timer { after, repeat: 0 };
    started(&r, timer(MS), 1);
    let kept = started(&r, timer(2 * MS), 2);
    started(&r, WatcherKind::Io { fd: 3, want: R }, 3);
    started(&r, WatcherKind::Idle, 4);
    started(&r, WatcherKind::Fork, 5);
    r.arm(3 * MS, Token(1));
    r.arm_sleep(3 * MS, Token(2), true);
    let source = r.source(4);
    r.source_clear(source, R);
    assert!(r.source_wait(source, R, Token(3)).unwrap());
    r.push(Entry::Call(6));
    r.push(Entry::Call(7));
    r.after_fork().unwrap();
    r.leave_only(&|data| data == 2, &|call| *call == 7);
    // What is left to wait for is the timer and the fork watcher.
    assert_eq!(r.active_count(), 2);
    assert!(r.is_active(kept));
    sim.ready(3, R);
    sim.ready(4, R);
    t.run(RunMode::Once);
    t.run(RunMode::Once);
    let said = t.said();
    let calls: Vec<&str> = said.split(' ').filter(|w| !w.contains("sleep")).collect();
    assert_eq!(calls, ["w5", "c7", "w2"], "{said}");
    // The wait is over, so that a new one does not end by it.
    assert!(!r.source_wait(source, R, Token(4)).unwrap());
}

#[test]
fn many_timers_in_one_slot_do_not_show_in_the_phases() {
    let sim = Sim::new();
    let (t, r) = Test::new(&sim);
    let at = ((5_000 * MS) >> 20 << 20) + 700_000;
    for n in 0..100 {
        r.arm(at, Token(n + 1));
    }
    t.run(RunMode::Once);
    let said = t.said();
    assert!(
        said.starts_with("sleep") && said.contains("1:Timeout 2:Timeout"),
        "{said}"
    );
    assert_eq!(sim.now(), at);
}

#[test]
fn signals_come_to_their_watcher_and_the_old_disposition_comes_back() {
    let sim = Sim::new();
    let (t, r) = Test::new(&sim);
    let other = Reactor::for_tests(&Sim::new());
    let signum = libc::SIGUSR2;
    let handler = || {
        // SAFETY: a query.
        unsafe {
            let mut now: libc::sigaction = std::mem::zeroed();
            libc::sigaction(signum, std::ptr::null(), &mut now);
            now.sa_sigaction
        }
    };
    // SAFETY: ignoring a signal that only this test uses.
    unsafe { libc::signal(signum, libc::SIG_IGN) };
    let a = started(&r, WatcherKind::Signal { signum }, 1);
    let b = started(&r, WatcherKind::Signal { signum }, 2);
    let c = other.add(WatcherKind::Signal { signum }, 3);
    assert_eq!(
        other.start(c).unwrap_err().raw_os_error(),
        Some(libc::EBUSY)
    );
    // SAFETY: a signal to this very thread, which is handled.
    unsafe { libc::raise(signum) };
    t.run(RunMode::Once);
    assert_eq!(t.said(), "w2 w1");
    r.remove(a);
    assert_ne!(handler(), libc::SIG_IGN);
    r.stop(b);
    assert_eq!(handler(), libc::SIG_IGN);
    other.start(c).unwrap();
    other.destroy();
    assert_eq!(handler(), libc::SIG_IGN);
    let bad = r.add(WatcherKind::Signal { signum: 99 }, 0);
    assert_eq!(r.start(bad).unwrap_err().raw_os_error(), Some(libc::EINVAL));
}

#[test]
fn a_stat_watcher_sees_a_file_appear() {
    let sim = Sim::new();
    let (t, r) = Test::new(&sim);
    let path = std::env::temp_dir().join(format!("gevent-stat-{}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let a = started(
        &r,
        WatcherKind::Stat {
            path: path.clone(),
            interval: 0,
        },
        1,
    );
    assert!(r.stat_attributes(a).0.is_none());
    std::fs::write(&path, b"12345").unwrap();
    t.on(1, move |t, _| t.r().stop(a));
    assert!(!t.run(RunMode::Default));
    std::fs::remove_file(&path).unwrap();
    assert_eq!(t.said(), "sleep w1");
    assert_eq!(sim.now() / MS, 5007);
    let (attr, prev) = r.stat_attributes(a);
    assert_eq!(attr.unwrap().st_size, 5);
    assert!(prev.is_none());
}

#[test]
fn a_long_sleep_is_looked_at_once_more_and_ends_if_that_made_something_due() {
    let sim = Sim::new();
    let (t, r) = Test::new(&sim);
    t.patience.set(Some(3 * MS));
    started(&r, timer(2), 1);
    assert!(!t.run(RunMode::Default));
    assert_eq!(t.said(), "sleep w1");
    started(&r, timer(9), 1);
    assert!(!t.run(RunMode::Default));
    assert_eq!(t.said(), "sleep look sleep w1");
    t.on(LOOK, |t, _| t.r().push(Entry::Call(0)));
    started(&r, timer(9), 1);
    assert!(t.run(RunMode::Once));
    assert_eq!(
        (t.said().as_str(), sim.now() / MS),
        ("sleep look c0", 2 + 9 + 3)
    );
}

#[test]
fn statistics_count() {
    let sim = Sim::new();
    let (t, r) = Test::new(&sim);
    started(&r, timer(1), 1);
    r.push(Entry::Call(0));
    t.run(RunMode::Default);
    let s = r.statistics();
    assert_eq!(
        (s.iterations, s.sleeps, s.entries, s.fired, s.watchers),
        (1, 1, 1, 1, 1)
    );
    assert_eq!(s.backend.polls, 1);
    assert_eq!(r.caps().name, "sim");
}

#[test]
fn a_loop_whose_sleeps_are_dear_sleeps_once_in_a_millisecond() {
    let sim = Sim::new();
    let (t, r) = Test::new(&sim);
    t.dear.set(Some((sim.clone(), 5 * MS)));
    let io = started(&r, WatcherKind::Io { fd: 4, want: R }, 1);
    sim.ready(4, R);
    let left = Cell::new(30);
    t.on(1, {
        let sim = sim.clone();
        move |t, _| {
            sim.pass(MS / 4);
            left.set(left.get() - 1);
            if left.get() == 0 {
                t.r().stop(io);
            }
        }
    });
    assert!(!t.run(RunMode::Default));
    let said = t.said();
    let sleeps = said.matches("sleep").count();
    assert_eq!(said.matches("w1").count(), 30);
    assert!((30 / 6..=30 / 4).contains(&sleeps), "{said}");
}

#[test]
fn a_loop_whose_sleeps_are_dear_waits_a_little_without() {
    let sim = Sim::new();
    let (t, r) = Test::new(&sim);
    t.dear.set(Some((sim.clone(), 5 * MS)));
    let s = r.source(4);
    r.source_clear(s, R);
    let wait = |after: Nanos| {
        assert!(r.source_wait(s, R, Token(1)).unwrap());
        sim.ready_at(sim.now() + after, 4, R);
        t.run(RunMode::Default);
        r.source_clear(s, R);
        sim.clear(4, R);
        t.said()
    };
    assert_eq!(wait(MS / 20), "sleep 1:Ready", "nobody knows yet");
    assert_eq!(wait(MS / 20), "1:Ready");
    assert_eq!(
        wait(MS / 2),
        "sleep 1:Ready",
        "too long to keep others waiting"
    );
    t.dear.set(None);
    assert_eq!(wait(MS / 2), "sleep 1:Ready");
    assert_eq!(wait(MS / 20), "sleep 1:Ready", "sleeps are cheap again");
}

#[test]
fn only_what_is_known_to_be_a_stream_of_bytes_is_emptied_by_a_short_read() {
    let (inet, stream) = (libc::AF_INET6, libc::SOCK_STREAM | os::SOCKET_FLAGS);
    for protocol in [0, libc::IPPROTO_TCP, IPPROTO_MPTCP] {
        assert_eq!(Kind::of(inet, stream, protocol), Kind::InetStream);
    }
    assert_eq!(Kind::of(libc::AF_UNIX, stream, 0), Kind::UnixStream);
    assert_eq!(
        Kind::of(inet, stream, 132),
        Kind::Other,
        "SCTP has messages"
    );
    assert_eq!(Kind::of(inet, libc::SOCK_DGRAM, 0), Kind::Other);
    assert_eq!(Kind::of(libc::AF_APPLETALK, stream, 0), Kind::Other);
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    assert_eq!(Kind::probe(tcp.as_raw_fd()), Kind::InetStream);
}
