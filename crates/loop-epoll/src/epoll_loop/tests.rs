//! What is particular to epoll; what every loop has to do is tested by the conformance suite.

use super::*;
use std::io::Write;
use std::os::unix::net::UnixStream;

const K: Key = Key::new(1, 1);
const K2: Key = Key::new(2, 1);
const R: Readiness = Readiness::READ;

fn poll(l: &mut EpollLoop) -> Vec<Event> {
    let mut out = Vec::new();
    l.poll(Until::Now, &mut out).unwrap();
    out
}

fn keys(events: &[Event]) -> Vec<Key> {
    let mut keys: Vec<_> = events
        .iter()
        .filter_map(|e| {
            if let Event::Ready(k, _) = e {
                Some(*k)
            } else {
                None
            }
        })
        .collect();
    keys.sort();
    keys
}

/// More descriptors than one wait takes, watched and readable; `None` if so many cannot be had.
fn more_than_room(l: &mut EpollLoop, mode: Mode) -> Option<Vec<(UnixStream, UnixStream)>> {
    let mut pairs = Vec::new();
    for n in 0..ROOM as u32 + 100 {
        let (a, mut b) = UnixStream::pair().ok()?;
        l.watch(a.as_raw_fd(), Key::new(n, 1), R, mode).unwrap();
        b.write_all(b"x").unwrap();
        pairs.push((a, b));
    }
    Some(pairs)
}

#[test]
fn a_steady_edge_watcher_costs_one_call_of_epoll_ctl() {
    let mut l = EpollLoop::new().unwrap();
    let (a, mut b) = UnixStream::pair().unwrap();
    l.watch(a.as_raw_fd(), K, R, Mode::Edge).unwrap();
    assert_eq!(l.counters().syscalls, 1);
    for _ in 0..3 {
        b.write_all(b"x").unwrap();
        assert_eq!(keys(&poll(&mut l)), [K]);
        assert!(poll(&mut l).is_empty(), "an edge comes once");
    }
    assert_eq!(
        l.counters(),
        Counters {
            polls: 6,
            events: 3,
            syscalls: 7,
            saved: 0,
        }
    );
}

#[test]
fn the_nested_set_is_made_when_both_modes_want_a_descriptor() {
    let mut l = EpollLoop::new().unwrap();
    let (a, mut b) = UnixStream::pair().unwrap();
    l.watch(a.as_raw_fd(), K, R, Mode::Level).unwrap();
    b.write_all(b"x").unwrap();
    assert_eq!(keys(&poll(&mut l)), [K]);
    assert_eq!(keys(&poll(&mut l)), [K]);
    assert_eq!(l.counters().syscalls, 3);
    assert!(l.nested.is_none());
    l.watch(a.as_raw_fd(), K2, R, Mode::Edge).unwrap();
    assert!(l.nested.is_some());
    assert_eq!(keys(&poll(&mut l)), [K, K2]);
    assert_eq!(keys(&poll(&mut l)), [K]);
    l.unwatch(K);
    assert!(poll(&mut l).is_empty());
    b.write_all(b"x").unwrap();
    assert_eq!(keys(&poll(&mut l)), [K2]);
    l.watch(a.as_raw_fd(), K, R, Mode::Level).unwrap();
    l.unwatch(K2);
    assert_eq!(keys(&poll(&mut l)), [K]);
    l.fd_closing(a.as_raw_fd(), &mut Vec::new());
    assert!(poll(&mut l).is_empty());
    assert!(!l.stale);
}

#[test]
fn a_number_that_is_another_file_by_now_changes_its_mode() {
    let mut l = EpollLoop::new().unwrap();
    let (a, mut b) = UnixStream::pair().unwrap();
    let (c, mut d) = UnixStream::pair().unwrap();
    let _elsewhere = a.try_clone().unwrap();
    l.watch(a.as_raw_fd(), K, R, Mode::Level).unwrap();
    // SAFETY: both are open descriptors; the first is closed by it, unknown to the loop.
    assert!(unsafe { libc::dup2(c.as_raw_fd(), a.as_raw_fd()) } >= 0);
    l.watch(a.as_raw_fd(), K2, R, Mode::Edge).unwrap();
    b.write_all(b"x").unwrap();
    assert!(poll(&mut l).is_empty());
    assert!(!l.stale, "the sets were made anew");
    d.write_all(b"x").unwrap();
    assert_eq!(keys(&poll(&mut l)), [K, K2]);
    assert_eq!(keys(&poll(&mut l)), [K]);
}

#[test]
fn more_ready_level_watchers_than_one_wait_takes_come_by_and_by() {
    let mut l = EpollLoop::new().unwrap();
    let Some(pairs) = more_than_room(&mut l, Mode::Level) else {
        return;
    };
    let mut seen = keys(&poll(&mut l));
    assert_eq!(seen.len(), ROOM);
    seen.extend(keys(&poll(&mut l)));
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), pairs.len());
}

#[test]
fn a_description_that_outlives_its_number_is_got_rid_of() {
    for mode in [Mode::Edge, Mode::Level] {
        let mut l = EpollLoop::new().unwrap();
        let (a, mut b) = UnixStream::pair().unwrap();
        let copy = a.try_clone().unwrap();
        l.watch(a.as_raw_fd(), K, R, mode).unwrap();
        drop(a);
        l.unwatch(K);
        b.write_all(b"x").unwrap();
        assert!(poll(&mut l).is_empty());
        assert!(!l.stale);
        assert_eq!(keys(&poll(&mut l)), []);
        l.watch(copy.as_raw_fd(), K2, R, mode).unwrap();
        assert_eq!(keys(&poll(&mut l)), [K2]);
    }
}

#[test]
fn a_kernel_without_epoll_pwait2_waits_in_whole_milliseconds() {
    let mut l = EpollLoop::new().unwrap();
    l.main.forget_nanos();
    let start = gevent_hub_core::reactor::monotonic();
    l.poll(Until::At(start + 300_000), &mut Vec::new()).unwrap();
    assert!(gevent_hub_core::reactor::monotonic() >= start + 300_000);
}

#[test]
fn a_wait_of_nanoseconds_is_not_rounded_to_milliseconds() {
    let mut l = EpollLoop::new().unwrap();
    let best = (0..20)
        .map(|_| {
            let start = gevent_hub_core::reactor::monotonic();
            l.poll(Until::At(start + 200_000), &mut Vec::new()).unwrap();
            gevent_hub_core::reactor::monotonic() - start
        })
        .min();
    assert!((200_000..900_000).contains(&best.unwrap()), "{best:?}");
}

#[test]
fn wakes_coalesce_into_one_event() {
    let mut l = EpollLoop::new().unwrap();
    let w = l.waker();
    for _ in 0..5 {
        w.wake();
    }
    assert!(matches!(poll(&mut l)[..], [Event::Woken]));
    assert!(poll(&mut l).is_empty());
    w.wake();
    assert!(matches!(poll(&mut l)[..], [Event::Woken]));
    drop(l);
    w.wake();
}

#[test]
fn more_ready_descriptors_than_one_wait_takes() {
    let mut l = EpollLoop::new().unwrap();
    let Some(pairs) = more_than_room(&mut l, Mode::Edge) else {
        return;
    };
    assert_eq!(poll(&mut l).len(), pairs.len());
}

#[test]
fn a_level_watcher_that_comes_again_costs_one_call_and_one_that_does_not_is_removed_late() {
    let mut l = EpollLoop::new().unwrap();
    let (a, mut b) = UnixStream::pair().unwrap();
    l.watch(a.as_raw_fd(), K, R, Mode::Level).unwrap();
    let before = l.counters().syscalls;
    for _ in 0..3 {
        l.unwatch(K);
        l.watch(a.as_raw_fd(), K, R, Mode::Level).unwrap();
    }
    assert_eq!(l.counters().syscalls, before + 3);
    l.unwatch(K);
    b.write_all(b"x").unwrap();
    assert!(poll(&mut l).is_empty());
    let before = l.counters().syscalls;
    assert!(poll(&mut l).is_empty());
    assert_eq!(
        l.counters().syscalls,
        before + 1,
        "it is not in the set any more"
    );
}
