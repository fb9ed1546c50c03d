//! Phases, timers, counts and modes of a reactor: all that needs no descriptor.

use crate::support::*;
use gevent_hub_core::reactor::{Entry, RunMode, Token, WatcherKind};
use std::cell::RefCell;

/// One iteration, in the order of `ev_run`.
pub fn prepare_queue_timer_check_come_in_order(make: MakeReactor) {
    let t = Recorder::new(make);
    t.start(WatcherKind::Prepare, 1);
    t.start(WatcherKind::Check, 2);
    t.timer(0, 3);
    t.reactor.push(Entry::Call(4));
    t.run(RunMode::Once);
    assert_eq!(t.said(), "w1 c4 w2 w3");
}

/// By deadline, and by start where deadlines are equal.
pub fn timers_fire_in_the_order_of_deadlines(make: MakeReactor) {
    let t = Recorder::new(make);
    for (data, ms) in [(1, 9), (2, 3), (3, 6), (4, 3), (5, 3)] {
        t.timer(ms * MS, data);
    }
    assert!(!t.run(RunMode::Default));
    assert_eq!(t.said(), "w2 w4 w5 w3 w1");
}

/// `now` has reached the deadline when a timer fires.
pub fn a_timer_is_never_early(make: MakeReactor) {
    let t = Recorder::new(make);
    t.reactor.update_now();
    let start = t.reactor.now();
    for n in 1..40 {
        let nanos = n as u64 * 170_003;
        t.timer(nanos, n);
        t.on(n, move |t, _| assert!(t.reactor.now() >= start + nanos));
    }
    t.run(RunMode::Default);
    assert_eq!(t.said().split(' ').count(), 39);
}

/// A repeating timer goes on until it is stopped.
pub fn a_repeating_timer_repeats(make: MakeReactor) {
    let t = Recorder::new(make);
    let id = t.start(
        WatcherKind::Timer {
            after: MS,
            repeat: 2 * MS,
        },
        1,
    );
    let count = RefCell::new(0);
    t.on(1, move |t, _| {
        *count.borrow_mut() += 1;
        if *count.borrow() == 4 {
            t.reactor.stop(id);
        }
    });
    assert!(!t.run(RunMode::Default));
    assert_eq!(t.said(), "w1 w1 w1 w1");
}

/// An idle watcher runs each time round, and the loop does not sleep meanwhile.
pub fn idle_watchers_keep_the_loop_awake(make: MakeReactor) {
    let t = Recorder::new(make);
    let id = t.start(WatcherKind::Idle, 1);
    t.timer(PATIENCE * 2, 2);
    for _ in 0..3 {
        t.run(RunMode::Once);
    }
    assert_eq!(t.said(), "w1 w1 w1");
    t.reactor.stop(id);
    assert_eq!(t.reactor.statistics().sleeps, 0);
}

/// What is not counted does not keep a run going.
pub fn unreferenced_watchers_let_it_end(make: MakeReactor) {
    let t = Recorder::new(make);
    let id = t.reactor.add(
        WatcherKind::Timer {
            after: PATIENCE * 2,
            repeat: MS,
        },
        1,
    );
    t.reactor.set_ref(id, false);
    t.reactor.start(id).unwrap();
    t.timer(2 * MS, 2);
    assert!(!t.run(RunMode::Default));
    assert_eq!(t.said(), "w2");
    assert!(t.reactor.is_active(id));
}

/// Once may sleep, NoWait does not; both tell whether there is more.
pub fn run_modes_end_after_one_iteration(make: MakeReactor) {
    let t = Recorder::new(make);
    // A wait may be interrupted, also by what the kernel has left to do for a ring of this thread that is gone.
    let once = || {
        let mut alive = t.run(RunMode::Once);
        while t.is_silent() {
            alive = t.run(RunMode::Once);
        }
        alive
    };
    t.timer(5 * MS, 1);
    t.timer(PATIENCE / 10, 2);
    assert!(t.run(RunMode::NoWait));
    assert_eq!(t.said(), "");
    assert!(once());
    assert_eq!(t.said(), "w1");
    assert!(!once());
    assert_eq!(t.said(), "w2");
    assert!(!t.run(RunMode::Once), "nothing is left: no sleep");
}

/// A break lets the callbacks of the iteration end, and then the run.
pub fn break_ends_a_run(make: MakeReactor) {
    let t = Recorder::new(make);
    t.start(
        WatcherKind::Timer {
            after: 0,
            repeat: MS,
        },
        1,
    );
    t.timer(0, 2);
    t.on(1, |t, _| t.reactor.break_(false));
    assert!(t.run(RunMode::Default));
    assert_eq!(t.said(), "w1 w2");
}

/// A callback may run the loop; the inner run first takes over what is pending.
pub fn runs_nest(make: MakeReactor) {
    let t = Recorder::new(make);
    for data in 1..=3 {
        t.timer(0, data);
    }
    t.on(1, |t, _| {
        t.say("in");
        assert_eq!(t.reactor.depth(), 1);
        t.run(RunMode::NoWait);
        t.say("out");
    });
    t.on(2, |t, _| assert_eq!(t.reactor.depth(), 2));
    t.run(RunMode::Default);
    assert_eq!(t.said(), "w1 in w2 w3 out");
    assert_eq!(t.reactor.depth(), 0);
}

/// After a destroy no callback comes, and the run returns.
pub fn destroying_in_a_callback_ends_the_run(make: MakeReactor) {
    let t = Recorder::new(make);
    t.start(
        WatcherKind::Timer {
            after: MS,
            repeat: MS,
        },
        1,
    );
    t.start(WatcherKind::Check, 2);
    t.on(1, |t, _| t.reactor.destroy());
    assert!(!t.reactor.run(&t, RunMode::Default).unwrap());
    let said = t.said();
    assert!(said.ends_with("w1"), "{said}");
    assert!(t.reactor.is_destroyed());
}

/// A park's deadline wakes its token, unless it was taken back.
pub fn a_parks_deadline_passes(make: MakeReactor) {
    let t = Recorder::new(make);
    t.reactor.update_now();
    let now = t.reactor.now();
    t.reactor.arm(now + 3 * MS, Token(1));
    let gone = t.reactor.arm(now + 2 * MS, Token(2));
    t.reactor.arm(now + MS, Token(3));
    assert!(t.reactor.disarm(gone));
    assert!(!t.run(RunMode::Default));
    assert_eq!(t.said(), "3:Timeout 1:Timeout");
}
