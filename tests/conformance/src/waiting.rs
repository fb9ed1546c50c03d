//! Waiting: deadlines, wakes from threads, interruptions, and the loop's own descriptor.

use crate::support::*;
use gevent_hub_core::event_loop::{Event, Mode, Until};
use gevent_hub_core::reactor::monotonic;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

/// `Until::Now` returns at once.
pub fn now_does_not_wait(make: MakeLoop) {
    let mut l = make();
    let start = monotonic();
    let mut out = Vec::new();
    for _ in 0..100 {
        l.poll(Until::Now, &mut out).unwrap();
        l.poll(Until::At(start - 1), &mut out).unwrap();
    }
    assert!(out.is_empty());
    assert!(monotonic() - start < 500 * MS);
}

/// A wait ends at its deadline, not before, and on a machine with time to spare not much later.
pub fn a_deadline_is_kept_and_not_rounded_to_nothing(make: MakeLoop) {
    let mut l = make();
    for nanos in [300_000, 2 * MS, 7 * MS] {
        let patience = monotonic() + 4 * PATIENCE;
        loop {
            let start = monotonic();
            let mut out = Vec::new();
            while monotonic() < start + nanos {
                l.poll(Until::At(start + nanos), &mut out).unwrap();
            }
            assert!(out.is_empty());
            let late = monotonic() - start - nanos;
            if late < 2 * MS {
                break;
            }
            assert!(monotonic() < patience, "{late} ns late, as every time");
        }
    }
}

/// A wake from another thread ends a wait that has no deadline.
pub fn a_wake_ends_a_wait_without_end(make: MakeLoop) {
    let mut l = make();
    let w = l.waker();
    let other = thread::spawn(move || {
        thread::sleep(Duration::from_millis(20));
        w.wake();
    });
    let mut out = Vec::new();
    while out.is_empty() {
        l.poll(Until::Forever, &mut out).unwrap();
    }
    assert!(matches!(out[..], [Event::Woken]));
    other.join().unwrap();
}

/// A wake while nobody waits is delivered by the next poll.
pub fn a_wake_before_the_poll_is_not_lost(make: MakeLoop) {
    let mut l = make();
    for _ in 0..3 {
        l.waker().wake();
        let mut out = Vec::new();
        l.poll(Until::Forever, &mut out).unwrap();
        assert!(matches!(out[..], [Event::Woken]));
    }
    let mut out = Vec::new();
    l.poll(Until::Now, &mut out).unwrap();
    assert!(out.is_empty());
}

/// Many wakes are one event.
pub fn wakes_coalesce(make: MakeLoop) {
    let mut l = make();
    let w = l.waker();
    (0..1000).for_each(|_| w.wake());
    let mut out = Vec::new();
    l.poll(Until::Forever, &mut out).unwrap();
    l.poll(Until::Now, &mut out).unwrap();
    assert!(matches!(out[..], [Event::Woken]));
}

/// Waking a loop that is gone does nothing.
pub fn a_waker_outlives_its_loop(make: MakeLoop) {
    let l = make();
    let w = l.waker();
    drop(l);
    w.wake();
    thread::spawn(move || w.wake()).join().unwrap();
}

/// What a thread does before its wake is seen after the event, whatever the interleaving.
pub fn many_threads_wake(make: MakeLoop) {
    const EACH: u32 = 2_000;
    // All may be over before the first poll.
    crate::trace::ignore("woken");
    let mut l = make();
    let count = AtomicU32::new(0);
    thread::scope(|s| {
        for _ in 0..3 {
            let w = l.waker();
            let count = &count;
            s.spawn(move || {
                for _ in 0..EACH {
                    count.fetch_add(1, Ordering::SeqCst);
                    w.wake();
                }
            });
        }
        let mut out = Vec::new();
        // A lost wake would make one of these sleep until the deadline.
        let end = monotonic() + PATIENCE;
        while count.load(Ordering::SeqCst) < 3 * EACH {
            out.clear();
            l.poll(Until::At(end), &mut out).unwrap();
            assert!(monotonic() < end, "a wake was lost");
        }
    });
}

extern "C" fn count_signal(_: libc::c_int) {
    SIGNALS.fetch_add(1, Ordering::SeqCst);
}

static SIGNALS: AtomicU32 = AtomicU32::new(0);

fn install(signum: i32) {
    // SAFETY: plain data, filled before use; the handler only counts.
    unsafe {
        let mut new: libc::sigaction = std::mem::zeroed();
        new.sa_sigaction = count_signal as *const () as usize;
        assert_eq!(libc::sigaction(signum, &new, std::ptr::null_mut()), 0);
    }
}

fn signal_me_soon(signum: i32) -> thread::JoinHandle<()> {
    // SAFETY: the calling thread outlives the other, which it joins.
    let me = unsafe { libc::pthread_self() };
    thread::spawn(move || {
        thread::sleep(Duration::from_millis(20));
        // SAFETY: as above.
        unsafe { libc::pthread_kill(me, signum) };
    })
}

/// EINTR is a poll without events.
pub fn an_interrupted_wait_is_no_error(make: MakeLoop) {
    let _process = process();
    let mut l = make();
    install(libc::SIGURG);
    let before = SIGNALS.load(Ordering::SeqCst);
    let start = monotonic();
    let mut out = Vec::new();
    // On a busy machine a signal may come before the wait that it is to interrupt: then there is another.
    while SIGNALS.load(Ordering::SeqCst) == before {
        let other = signal_me_soon(libc::SIGURG);
        l.poll(Until::At(start + PATIENCE), &mut out).unwrap();
        assert!(out.is_empty());
        other.join().unwrap();
    }
    assert!(monotonic() - start < 2 * PATIENCE);
}

/// If the loop has a descriptor, it can be waited for by others.
pub fn its_descriptor_tells_that_there_is_something_to_do(make: MakeLoop) {
    let mut l = make();
    let (r, w) = pipe();
    l.watch(r.as_raw_fd(), key(1), R, Mode::Level).unwrap();
    let mut out = Vec::new();
    l.poll(Until::Now, &mut out).unwrap();
    let Some(fd) = l.as_raw_fd() else { return };
    let readable = |timeout| {
        let mut p = libc::pollfd {
            fd,
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one pollfd, which outlives the call.
        unsafe { libc::poll(&mut p, 1, timeout) == 1 }
    };
    assert!(!readable(0));
    // Whoever waits is woken by what comes then.
    let other = thread::spawn(move || {
        thread::sleep(Duration::from_millis(10));
        put(&w, b"x");
        w
    });
    assert!(readable(3000));
    let _w = other.join().unwrap();
    ready(&mut *l, key(1), R);
    get_all(&r);
    let waker = l.waker();
    let other = thread::spawn(move || {
        thread::sleep(Duration::from_millis(10));
        waker.wake();
    });
    assert!(readable(3000));
    other.join().unwrap();
    poll_until(&mut *l, |e| e.iter().any(|e| matches!(e, Event::Woken)));
}

/// Polls, events and calls are counted.
pub fn the_counters_count(make: MakeLoop) {
    let mut l = make();
    let before = l.counters();
    l.waker().wake();
    let mut out = Vec::new();
    l.poll(Until::Forever, &mut out).unwrap();
    let after = l.counters();
    assert_eq!(after.polls, before.polls + 1);
    assert_eq!(after.events, before.events + 1);
    assert!(after.syscalls > before.syscalls);
    assert!(!l.caps().name.is_empty());
}
