//! Sources: the try-first waits of fibers, on real descriptors.

use crate::support::*;
use gevent_hub_core::event_loop::Readiness;
use gevent_hub_core::reactor::{Kind, RunMode, Token};
use std::os::fd::AsRawFd;

/// The latch is full until EAGAIN; a wait ends once; data that is left keeps the latch.
pub fn a_fiber_waits_only_after_eagain(make: MakeReactor) {
    let t = Recorder::new(make);
    let r = &t.reactor;
    let (a, b) = pair();
    let s = r.source(a.as_raw_fd());
    assert_eq!(r.source_fd(s), Some(a.as_raw_fd()));
    assert!(get_all(&a).is_empty());
    r.source_clear(s, R);
    for n in 1..=3 {
        assert!(r.source_wait(s, R, Token(n)).unwrap());
        put(&b, b"x");
        assert_eq!(t.run_until(1), format!("{n}:Ready"));
        assert!(r.source_ready(s).has(R));
        assert!(!r.source_wait(s, R, Token(99)).unwrap());
        assert_eq!(get_all(&a), b"x");
        r.source_clear(s, R);
    }
    assert_eq!(r.active_count(), 0);
}

/// Data and the end come in one edge: RDHUP stays latched, so nobody mistakes a short read for the end of
/// what there is.
pub fn an_end_of_file_in_the_same_edge_is_not_lost(make: MakeReactor) {
    let t = Recorder::new(make);
    let r = &t.reactor;
    let (a, b) = tcp_pair();
    let s = t.waiting(&a, Token(1));
    put(&b, b"last");
    b.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(t.run_until(1), "1:Ready");
    // The end may come with a second edge; both are seen before the latch is cleared by EAGAIN.
    let end = gevent_hub_core::reactor::monotonic() + PATIENCE;
    while !r.source_ready(s).has(Readiness::RDHUP) {
        assert!(gevent_hub_core::reactor::monotonic() < end);
        r.reference();
        t.run(RunMode::NoWait);
        r.unreference();
    }
    assert_eq!(get_all(&a), b"last");
    assert!(
        !r.source_wait(s, R, Token(2)).unwrap(),
        "the end is still to be read"
    );
}

/// A reader and a writer of one source are woken each by its own direction.
pub fn both_directions_are_waited_for_at_once(make: MakeReactor) {
    let t = Recorder::new(make);
    let r = &t.reactor;
    let (a, b) = pair();
    let chunk = vec![0u8; 1 << 16];
    let full = || {
        // SAFETY: the bytes of the chunk.
        while unsafe { libc::write(a.as_raw_fd(), chunk.as_ptr().cast(), chunk.len()) } > 0 {}
    };
    full();
    let s = r.source(a.as_raw_fd());
    r.source_clear(s, R.with(W));
    assert!(r.source_wait(s, R, Token(1)).unwrap());
    assert!(r.source_wait(s, W, Token(2)).unwrap());
    put(&b, b"x");
    assert_eq!(t.run_until(1), "1:Ready");
    assert!(!r.source_ready(s).has(W));
    get_all(&b);
    assert_eq!(t.run_until(1), "2:Ready");
}

/// Closing by another fiber ends the wait, and the peer sees the end of the stream.
pub fn closing_wakes_whoever_waits(make: MakeReactor) {
    let t = Recorder::new(make);
    let r = &t.reactor;
    let (a, b) = pair();
    let s = t.waiting(&a, Token(1));
    t.run(RunMode::NoWait);
    r.source_closing(s);
    drop(a);
    assert_eq!(t.run_until(1), "1:Closed");
    b.set_nonblocking(false).unwrap();
    assert!(get_all(&b).is_empty());
    assert!(r.source_wait(s, R, Token(2)).is_err());
}

/// A detached source leaves the descriptor open and hears nothing more.
pub fn a_detached_source_is_silent(make: MakeReactor) {
    let t = Recorder::new(make);
    let r = &t.reactor;
    let (a, b) = pair();
    let s = t.waiting(&a, Token(1));
    r.source_detach(s);
    put(&b, b"x");
    assert_eq!(t.run_until(1), "1:Closed");
    t.run(RunMode::NoWait);
    assert_eq!(t.said(), "");
    t.waiting(&a, Token(2));
    assert_eq!(t.run_until(1), "2:Ready");
}

/// What is always ready never makes a fiber wait for ever.
pub fn a_file_never_waits(make: MakeReactor) {
    let t = Recorder::new(make);
    let r = &t.reactor;
    let f = file();
    let s = r.source(f.as_raw_fd());
    r.source_clear(s, R);
    if r.source_wait(s, R, Token(1)).unwrap() {
        assert_eq!(t.run_until(1), "1:Ready");
    }
}

/// The number of a closed source may be taken by the next socket.
pub fn a_number_used_again_is_another_source(make: MakeReactor) {
    let t = Recorder::new(make);
    let r = &t.reactor;
    for n in 1..20 {
        let (a, b) = pair();
        let s = t.waiting(&a, Token(n));
        put(&b, b"x");
        assert_eq!(t.run_until(1), format!("{n}:Ready"));
        r.source_closing(s);
    }
    assert_eq!(r.statistics().sources, 0);
}

/// A fiber and a level watcher wait for one descriptor, and both hear.
pub fn a_level_watcher_and_a_source_share_a_descriptor(make: MakeReactor) {
    let t = Recorder::new(make);
    let r = &t.reactor;
    let (a, b) = pair();
    let s = t.waiting(&a, Token(1));
    let w = t.start(io(&a), 1);
    put(&b, b"x");
    let said = t.run_until(3);
    assert!(said.contains("1:Ready") && said.contains("w1"), "{said}");
    r.stop(w);
    get_all(&a);
    r.source_clear(s, R);
    assert!(r.source_wait(s, R, Token(2)).unwrap());
    put(&b, b"y");
    assert_eq!(t.run_until(1), "2:Ready");
}

/// A short read of AF_UNIX is taken for the last of it, and what it left after all is found: before the loop
/// sleeps, or in time where it does not.
pub fn what_a_short_read_left_is_found(make: MakeReactor) {
    let t = Recorder::new(make);
    let r = &t.reactor;
    let (a, b) = pair();
    let s = r.source(a.as_raw_fd());
    r.source_clear(s, R);
    assert!(r.source_wait(s, R, Token(1)).unwrap());
    put(&b, b"abc");
    assert_eq!(t.run_until(1), "1:Ready");
    let wait_again = |token| {
        // As where descriptors came with the byte.
        let mut byte = [0];
        // SAFETY: room for the byte.
        let n = unsafe { libc::read(a.as_raw_fd(), byte.as_mut_ptr().cast(), 1) };
        assert_eq!(n, 1);
        r.source_was_read(s, Kind::UnixStream, 1, 2);
        assert!(!r.source_may_read(s));
        assert!(r.source_wait(s, R, Token(token)).unwrap());
    };
    wait_again(2);
    assert_eq!(t.run_until(1), "2:Ready");
    assert!(r.source_may_read(s));
    wait_again(3);
    let end = gevent_hub_core::reactor::monotonic() + PATIENCE;
    while !r.source_may_read(s) {
        assert!(gevent_hub_core::reactor::monotonic() < end);
        t.run(RunMode::NoWait);
    }
    assert_eq!(t.said(), "3:Ready");
    wait_again(4);
    for _ in 0..3 {
        assert!(!r.source_may_read(s), "nothing was left");
        r.update_now();
        t.run(RunMode::NoWait);
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    put(&b, b"d");
    assert_eq!(t.run_until(1), "4:Ready");
}

/// A short read of TCP has emptied it, unless an end came with it, and one of what is no stream tells nothing.
pub fn a_short_read_is_as_good_as_eagain(make: MakeReactor) {
    let t = Recorder::new(make);
    let r = &t.reactor;
    let (a, b) = tcp_pair();
    let s = r.source(a.as_raw_fd());
    r.source_was_read(s, Kind::InetStream, 1, 2);
    assert!(r.source_may_read(s), "the kernel does not know it yet");
    r.source_clear(s, R);
    assert!(r.source_wait(s, R, Token(1)).unwrap());
    put(&b, b"x");
    assert_eq!(t.run_until(1), "1:Ready");
    assert_eq!(get_all(&a), b"x");
    for (kind, got) in [
        (Kind::Other, 1),
        (Kind::InetStream, 2),
        (Kind::InetStream, 0),
    ] {
        r.source_was_read(s, kind, got, 2);
        assert!(r.source_may_read(s), "{kind:?} {got}");
    }
    r.source_was_read(s, Kind::InetStream, 1, 2);
    assert!(!r.source_may_read(s));
    assert!(r.source_wait(s, R, Token(2)).unwrap());
    put(&b, b"last");
    drop(b);
    assert_eq!(t.run_until(1), "2:Ready");
    let end = gevent_hub_core::reactor::monotonic() + PATIENCE;
    while !r.source_ready(s).has(Readiness::RDHUP) {
        assert!(gevent_hub_core::reactor::monotonic() < end);
        t.run(RunMode::NoWait);
    }
    r.source_was_read(s, Kind::InetStream, 1, 2);
    assert!(r.source_may_read(s), "the end is still to be read");
}
