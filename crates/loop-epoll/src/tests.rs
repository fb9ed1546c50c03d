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
fn the_level_set_is_made_when_it_is_needed() {
    let mut l = EpollLoop::new().unwrap();
    let (a, mut b) = UnixStream::pair().unwrap();
    l.watch(a.as_raw_fd(), K, R, Mode::Edge).unwrap();
    assert!(l.level.is_none());
    l.watch(a.as_raw_fd(), K2, R, Mode::Level).unwrap();
    b.write_all(b"x").unwrap();
    assert_eq!(keys(&poll(&mut l)), [K, K2]);
    assert_eq!(keys(&poll(&mut l)), [K2]);
    l.unwatch(K2);
    assert!(poll(&mut l).is_empty());
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
    l.edge.forget_nanos();
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
    let mut pairs = Vec::new();
    for n in 0..ROOM as u32 + 100 {
        let Ok(pair) = UnixStream::pair() else { return };
        l.watch(pair.0.as_raw_fd(), Key::new(n, 1), R, Mode::Edge)
            .unwrap();
        pairs.push(pair);
    }
    for (_, b) in &mut pairs {
        b.write_all(b"x").unwrap();
    }
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
        "the nested set is not ready any more"
    );
}
