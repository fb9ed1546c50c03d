//! The order in which a reactor on real descriptors runs things: priorities, starts and stops in callbacks, nesting.

use crate::support::*;
use gevent_hub_core::reactor::{Entry, Revents, RunMode, Token, WatcherKind};
use std::os::fd::AsRawFd;

/// Descriptors, timers and checks of one iteration, all by priority and not by kind.
pub fn ready_descriptors_go_by_priority_among_all_kinds(make: MakeReactor) {
    let t = Recorder::new(make);
    let (a, b) = pair();
    let (c, d) = pair();
    put(&b, b"x");
    put(&d, b"x");
    let timer = |after| WatcherKind::Timer { after, repeat: 0 };
    let all = [
        (io(&a), -1),
        (timer(0), 1),
        (io(&c), 2),
        (timer(0), -2),
        (WatcherKind::Check, 0),
    ];
    for (n, (kind, priority)) in all.into_iter().enumerate() {
        let id = t.reactor.add(kind, n);
        assert!(t.reactor.set_priority(id, priority));
        t.reactor.start(id).unwrap();
        t.on(n, move |t, _| t.reactor.stop(id));
    }
    assert!(!t.run(RunMode::Default));
    assert_eq!(t.said(), "w2 w1 w4 w0 w3");
}

/// A watcher of a ready descriptor that starts in a callback is told by the next poll, not by this one.
pub fn what_a_callback_starts_waits_for_the_next_iteration(make: MakeReactor) {
    let t = Recorder::new(make);
    let (a, b) = pair();
    let (c, d) = pair();
    put(&b, b"x");
    put(&d, b"x");
    let check = t.start(WatcherKind::Check, 9);
    let first = t.start(io(&a), 1);
    let fd = c.as_raw_fd();
    t.on(1, move |t, _| {
        t.reactor.stop(first);
        let second = t.start(WatcherKind::Io { fd, want: R }, 2);
        t.on(2, move |t, _| {
            t.reactor.stop(second);
            t.reactor.stop(check);
        });
    });
    assert!(!t.run(RunMode::Default));
    let said = t.said();
    let words: Vec<&str> = said.split(' ').collect();
    let (one, two) = (
        words.iter().position(|w| *w == "w1").unwrap(),
        words.iter().position(|w| *w == "w2").unwrap(),
    );
    assert!(words[one..two].contains(&"w9") || words[..one].contains(&"w9"));
    assert!(one < two);
    drop((a, c));
}

/// Of two that are ready the first stops the second.
pub fn what_a_callback_stops_does_not_run(make: MakeReactor) {
    let t = Recorder::new(make);
    let (a, b) = pair();
    let (c, d) = pair();
    let first = t.reactor.add(io(&a), 1);
    t.reactor.set_priority(first, 1);
    t.reactor.start(first).unwrap();
    let second = t.start(io(&c), 2);
    put(&b, b"x");
    put(&d, b"x");
    t.on(1, move |t, _| {
        t.reactor.stop(first);
        t.reactor.stop(second);
        assert!(!t.reactor.is_pending(second));
    });
    assert!(!t.run(RunMode::Default));
    assert_eq!(t.said(), "w1");
}

/// An idle watcher of a lower priority waits until no watcher above it has anything to do.
pub fn a_starved_idle_watcher_runs_when_nothing_else_does(make: MakeReactor) {
    let t = Recorder::new(make);
    let (a, b) = pair();
    let busy = t.start(io(&a), 1);
    let idle = t.reactor.add(WatcherKind::Idle, 2);
    t.reactor.set_priority(idle, -1);
    t.reactor.start(idle).unwrap();
    put(&b, b"xyz");
    t.on(1, move |t, _| {
        let mut one = [0u8];
        // SAFETY: room for one byte.
        unsafe { libc::read(a.as_raw_fd(), one.as_mut_ptr().cast(), 1) };
        if one[0] == b'z' {
            t.reactor.stop(busy);
        }
    });
    t.on(2, move |t, _| t.reactor.stop(idle));
    assert!(!t.run(RunMode::Default));
    assert_eq!(t.said(), "w1 w1 w1 w2");
}

/// What is ready and what is due when one poll ends run in that same iteration, the queue before both.
pub fn timers_and_descriptors_of_one_iteration(make: MakeReactor) {
    let t = Recorder::new(make);
    let (a, b) = pair();
    put(&b, b"x");
    let id = t.start(io(&a), 1);
    t.timer(0, 2);
    t.reactor.push(Entry::Call(3));
    t.run(RunMode::Once);
    let said = t.said();
    assert!(said.starts_with("c3 "), "{said}");
    let mut words: Vec<&str> = said.split(' ').collect();
    words.sort_unstable();
    assert_eq!(words, ["c3", "w1", "w2"]);
    t.reactor.stop(id);
}

/// A fiber that waited for a descriptor with a limit, both of which come at once, hears of the descriptor first.
pub fn readiness_goes_before_a_deadline_that_is_due(make: MakeReactor) {
    let t = Recorder::new(make);
    let r = &t.reactor;
    let (a, b) = pair();
    t.waiting(&a, Token(1));
    t.run(RunMode::NoWait);
    r.update_now();
    r.arm(r.now() + MS, Token(2));
    put(&b, b"x");
    std::thread::sleep(std::time::Duration::from_millis(3));
    assert_eq!(t.run_until(2), "1:Ready 2:Timeout");
}

/// A callback that runs the loop: the inner run invokes what the outer one was about to.
pub fn a_nested_run_takes_what_was_pending(make: MakeReactor) {
    let t = Recorder::new(make);
    let (a, b) = pair();
    let (c, d) = pair();
    let outer = t.reactor.add(io(&a), 1);
    t.reactor.set_priority(outer, 2);
    t.reactor.start(outer).unwrap();
    let inner = t.start(io(&c), 2);
    put(&b, b"x");
    put(&d, b"x");
    t.on(1, move |t, _| {
        t.reactor.stop(outer);
        t.say("in");
        t.run(RunMode::NoWait);
        t.say("out");
    });
    t.on(2, move |t, _| t.reactor.stop(inner));
    assert!(!t.run(RunMode::Default));
    assert_eq!(t.said(), "w1 in w2 out");
}

/// A watcher that does not count is told while the loop runs for others, and keeps it from nothing.
pub fn unreferenced_descriptors_let_the_run_end(make: MakeReactor) {
    let t = Recorder::new(make);
    let (a, _b) = pair();
    let id = t.reactor.add(io(&a), 1);
    t.reactor.set_ref(id, false);
    t.reactor.start(id).unwrap();
    assert!(!t.run(RunMode::Default));
    t.timer(2 * MS, 2);
    assert!(!t.run(RunMode::Default));
    assert_eq!(t.said(), "w2");
    t.reactor.set_ref(id, true);
    assert_eq!(t.reactor.active_count(), 1);
    t.reactor.stop(id);
    assert!(!t.run(RunMode::Default));
}

/// `feed` makes a callback due without any event, once.
pub fn feeding_is_as_good_as_happening(make: MakeReactor) {
    let t = Recorder::new(make);
    let (a, _b) = pair();
    let id = t.start(io(&a), 1);
    t.reactor.feed(id, Revents::WRITE);
    assert!(t.reactor.is_pending(id));
    t.on(1, |_, e| assert_eq!(e, Revents::WRITE));
    t.run(RunMode::NoWait);
    assert_eq!(t.said(), "w1");
    t.reactor.feed(id, Revents::READ);
    assert_eq!(t.reactor.clear_pending(id), Revents::READ);
    t.run(RunMode::NoWait);
    assert_eq!(t.said(), "");
    t.reactor.stop(id);
}

/// libev's list of a descriptor's watchers: oldest first, on every loop; and fibers before all of them.
pub fn watchers_of_one_descriptor_run_in_the_order_of_their_start(make: MakeReactor) {
    let t = Recorder::new(make);
    let (a, b) = pair();
    let ids = [1, 2, 3, 4].map(|n| t.start(io(&a), n));
    t.waiting(&a, Token(9));
    put(&b, b"x");
    for (n, id) in ids.into_iter().enumerate() {
        t.on(n + 1, move |t, _| t.reactor.stop(id));
    }
    assert!(!t.run(RunMode::Default));
    assert_eq!(t.said(), "9:Ready w1 w2 w3 w4");
    // Started again, the second is the youngest.
    for n in [0, 2, 3, 1] {
        t.reactor.start(ids[n]).unwrap();
    }
    assert!(!t.run(RunMode::Default));
    assert_eq!(t.said(), "w1 w3 w4 w2");
}
