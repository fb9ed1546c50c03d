//! Many of everything: descriptors, watchers that come and go, wakes.

use crate::readiness::watch;
use crate::support::*;
use gevent_hub_core::event_loop::{Event, Mode, Until};
use gevent_hub_core::reactor::monotonic;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const MANY: usize = 10_000;

/// So many connected streams as the system allows, up to ten thousand; the peer of the number `n` is `n ^ 1`.
fn streams() -> Vec<UnixStream> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` outlives the calls.
    unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit);
        limit.rlim_cur = limit.rlim_max.min(MANY as libc::rlim_t + 9_000);
        libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
    }
    let allowed = (limit.rlim_cur as usize).saturating_sub(4_000);
    if allowed < MANY {
        eprintln!("{allowed} streams instead of {MANY}: the limit of descriptors");
    }
    let pairs = (0..MANY.min(allowed) / 2).map(|_| pair());
    pairs.flat_map(|(a, b)| [a, b]).collect()
}

/// Ten thousand edge watchers; every hundredth gets data, and these alone are told.
pub fn ten_thousand_descriptors(make: MakeLoop) {
    let _process = process();
    crate::trace::unordered();
    let mut l = make();
    let all = streams();
    for (n, a) in all.iter().enumerate() {
        watch(&mut *l, a, n as u32, R, Mode::Edge);
    }
    l.poll(Until::Now, &mut Vec::new()).unwrap();
    for n in (0..all.len()).step_by(100) {
        put(&all[n ^ 1], b"x");
    }
    let mut told = vec![0; all.len()];
    let end = monotonic() + PATIENCE;
    while (0..all.len()).step_by(100).any(|n| told[n] == 0) {
        assert!(monotonic() < end, "not all were told");
        let mut out = Vec::new();
        l.poll(Until::At(end), &mut out).unwrap();
        for event in out {
            if let Event::Ready(k, _) = event {
                told[k.index() as usize] += 1;
            }
        }
    }
    let expected = |n: usize| u32::from(n.is_multiple_of(100));
    assert!(told.iter().enumerate().all(|(n, t)| *t == expected(n)));
    for a in &all {
        l.fd_closing(a.as_raw_fd(), &mut Vec::new());
    }
}

/// All of ten thousand are ready all the time: none of them starves.
pub fn ten_thousand_level_watchers_all_get_their_turn(make: MakeLoop) {
    let _process = process();
    crate::trace::unordered();
    let mut l = make();
    let all = streams();
    for (n, a) in all.iter().enumerate() {
        put(&all[n ^ 1], b"x");
        watch(&mut *l, a, n as u32, R, Mode::Level);
    }
    let mut told = vec![false; all.len()];
    let (mut left, mut polls) = (all.len(), 0);
    while left > 0 {
        polls += 1;
        assert!(polls < 400, "{left} were never told");
        let mut out = Vec::new();
        l.poll(Until::Now, &mut out).unwrap();
        for event in out {
            if let Event::Ready(k, _) = event {
                left -= usize::from(!std::mem::replace(&mut told[k.index() as usize], true));
            }
        }
    }
}

/// Watched, stopped, watched again, in both modes: at the end only what is watched is told.
pub fn watchers_come_and_go_by_thousands(make: MakeLoop) {
    let mut l = make();
    let pairs: Vec<_> = (0..20).map(|_| pair()).collect();
    for round in 0..100u32 {
        for (n, (a, _)) in pairs.iter().enumerate() {
            let mode = if (round + n as u32).is_multiple_of(3) {
                Mode::Edge
            } else {
                Mode::Level
            };
            watch(&mut *l, a, n as u32, R, mode);
        }
        if round % 10 == 0 {
            l.poll(Until::Now, &mut Vec::new()).unwrap();
        }
        for n in 0..20 {
            l.unwatch(key(n));
        }
    }
    watch(&mut *l, &pairs[3].0, 3, R, Mode::Level);
    for (_, b) in &pairs {
        put(b, b"x");
    }
    let events = poll_until(&mut *l, |e| readiness_of(e, key(3)).has(R));
    for n in (0..20).filter(|n| *n != 3) {
        assert!(readiness_of(&events, key(n)).is_empty());
        silent_now(&mut *l, n);
    }
}

fn silent_now(l: &mut dyn gevent_hub_core::event_loop::Loop, n: u32) {
    let mut out = Vec::new();
    l.poll(Until::Now, &mut out).unwrap();
    assert!(readiness_of(&out, key(n)).is_empty());
}

/// Threads wake as fast as they can: each wake is followed by a poll that tells, and no descriptor is forgotten.
pub fn wakes_from_many_threads_while_descriptors_are_busy(make: MakeLoop) {
    let mut l = make();
    let (a, b) = pair();
    watch(&mut *l, &a, 1, R, Mode::Edge);
    let stop = Arc::new(AtomicBool::new(false));
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let (w, stop) = (l.waker(), stop.clone());
            std::thread::spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    w.wake();
                    std::thread::yield_now();
                }
            })
        })
        .collect();
    for _ in 0..200 {
        put(&b, b"x");
        ready(&mut *l, key(1), R);
        assert_eq!(get_all(&a), b"x");
    }
    stop.store(true, Ordering::SeqCst);
    threads.into_iter().for_each(|t| t.join().unwrap());
    l.poll(Until::Now, &mut Vec::new()).unwrap();
    l.waker().wake();
    poll_until(&mut *l, |e| e.iter().any(|e| matches!(e, Event::Woken)));
}

/// A stream is made, watched, used and closed five hundred times: the numbers repeat, the events do not mix.
pub fn numbers_are_used_again_and_again(make: MakeLoop) {
    crate::trace::unordered();
    let mut l = make();
    for n in 0..500u32 {
        let mode = if n.is_multiple_of(2) {
            Mode::Edge
        } else {
            Mode::Level
        };
        let (a, b) = pair();
        watch(&mut *l, &a, n, R, mode);
        put(&b, b"x");
        let events = poll_until(&mut *l, |e| readiness_of(e, key(n)).has(R));
        let others = events
            .iter()
            .filter(|e| matches!(e, Event::Ready(k, _) if *k != key(n)));
        assert_eq!(others.count(), 0);
        l.fd_closing(a.as_raw_fd(), &mut Vec::new());
    }
}
