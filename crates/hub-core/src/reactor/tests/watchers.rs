//! Watchers, callbacks and runs: phases, order, priorities, counts and re-entrancy.

use super::*;
use std::os::fd::RawFd;

#[test]
fn phases_come_in_the_order_of_libev() {
    let sim = Sim::new();
    let (t, r) = Test::new(&sim);
    started(&r, WatcherKind::Prepare, 1);
    started(&r, WatcherKind::Check, 2);
    started(&r, timer(5), 3);
    r.push(Entry::Call(0));
    assert!(t.run(RunMode::Once));
    assert_eq!(t.said(), "w1 c0 sleep w2 w3");
}

#[test]
fn timers_fire_by_deadline_and_ties_by_start_within_one_iteration() {
    let sim = Sim::new();
    let (t, r) = Test::new(&sim);
    for (data, ms) in [(1, 5), (2, 3), (3, 5), (4, 4)] {
        started(&r, timer(ms), data);
    }
    sim.pass(20 * MS);
    assert!(!t.run(RunMode::Default));
    assert_eq!(t.said(), "w2 w4 w1 w3");
    assert_eq!(r.active_count(), 0);
}

#[test]
fn higher_priorities_go_first_and_within_one_the_last_fed() {
    let sim = Sim::new();
    let (t, r) = Test::new(&sim);
    let ids: Vec<_> = (0..6).map(|n| r.add(timer(1), n)).collect();
    for (n, id) in ids.iter().enumerate() {
        assert!(r.set_priority(*id, n as i32 / 2 - 1));
        r.feed(*id, Revents::CUSTOM);
        assert!(r.is_pending(*id) && !r.set_priority(*id, 0));
    }
    assert_eq!(r.pending_count(), 6);
    assert_eq!(r.clear_pending(ids[2]), Revents::CUSTOM);
    t.run(RunMode::NoWait);
    assert_eq!(t.said(), "w5 w4 w3 w1 w0");
    assert!(!r.is_pending(ids[0]));
}

#[test]
fn an_event_fed_by_a_callback_overtakes_lower_priorities() {
    let sim = Sim::new();
    let (t, r) = Test::new(&sim);
    let (low, mid, high) = (r.add(timer(1), 1), r.add(timer(1), 2), r.add(timer(1), 3));
    r.set_priority(low, -2);
    r.set_priority(high, 2);
    r.feed(low, Revents::CUSTOM);
    r.feed(mid, Revents::CUSTOM);
    t.on(2, move |t, _| t.r().feed(high, Revents::CUSTOM));
    t.run(RunMode::NoWait);
    assert_eq!(t.said(), "w2 w3 w1");
}

#[test]
fn idle_runs_only_when_nothing_of_its_priority_or_above_is_pending() {
    let sim = Sim::new();
    let (t, r) = Test::new(&sim);
    let idle = r.add(WatcherKind::Idle, 1);
    r.start(idle).unwrap();
    let low = r.add(WatcherKind::Idle, 2);
    r.set_priority(low, -1);
    r.start(low).unwrap();
    started(&r, timer(0), 3);
    t.run(RunMode::Once);
    assert_eq!(t.said(), "w3");
    t.run(RunMode::Once);
    assert_eq!(t.said(), "w1", "no sleep while an idle watcher is active");
    r.stop(idle);
    t.run(RunMode::Once);
    assert_eq!(t.said(), "w2");
}

#[test]
fn unreferenced_watchers_do_not_keep_the_loop_running() {
    let sim = Sim::new();
    let (t, r) = Test::new(&sim);
    let a = r.add(timer(5), 1);
    r.set_ref(a, false);
    r.start(a).unwrap();
    assert_eq!(r.active_count(), 0);
    assert!(!t.run(RunMode::Default));
    assert_eq!(t.said(), "");
    r.set_ref(a, true);
    assert!(r.has_ref(a) && r.active_count() == 1);
    assert!(!t.run(RunMode::Default));
    assert_eq!(t.said(), "sleep w1");
    assert!(!r.is_active(a));
}

#[test]
fn a_repeating_timer_keeps_its_pace_and_again_restarts_it() {
    let sim = Sim::new();
    let (t, r) = Test::new(&sim);
    let a = started(
        &r,
        WatcherKind::Timer {
            after: 10 * MS,
            repeat: 4 * MS,
        },
        1,
    );
    t.on(1, |t, _| {
        let at = t.r().now() / MS;
        t.say(format!("@{at}"));
    });
    for _ in 0..3 {
        t.run(RunMode::Once);
    }
    assert_eq!(t.said(), "sleep w1 @10 sleep w1 @14 sleep w1 @18");
    sim.pass(MS);
    r.update_now();
    assert_eq!(r.remaining(a), 3 * MS);
    r.again(a);
    assert_eq!(r.remaining(a), 4 * MS);
    t.run(RunMode::Once);
    assert_eq!(t.said(), "sleep w1 @23");
    r.set_repeat(a, 0);
    r.again(a);
    assert!(!r.is_active(a));
    assert_eq!(r.active_count(), 0);
    let b = r.add(
        WatcherKind::Timer {
            after: 0,
            repeat: 7 * MS,
        },
        2,
    );
    r.again(b);
    assert!(r.is_active(b) && r.remaining(b) == 7 * MS);
}

#[test]
fn a_late_repeat_fires_once_an_iteration_and_skips_what_it_missed() {
    let sim = Sim::new();
    let (t, r) = Test::new(&sim);
    started(
        &r,
        WatcherKind::Timer {
            after: MS,
            repeat: MS,
        },
        1,
    );
    sim.pass(10 * MS);
    t.run(RunMode::Once);
    t.run(RunMode::Once);
    t.run(RunMode::Once);
    assert_eq!(
        t.said(),
        "w1 w1 sleep w1",
        "libev: late by now, again at now, then in pace"
    );
    assert_eq!(sim.now(), 11 * MS);
}

#[test]
fn stopping_keeps_what_remained_as_libev_does() {
    let sim = Sim::new();
    let (_t, r) = Test::new(&sim);
    let a = started(&r, timer(10), 1);
    sim.pass(4 * MS);
    r.update_now();
    r.stop(a);
    assert_eq!(r.remaining(a), 6 * MS);
    assert!(r.set_timer(a, 3 * MS, 0));
    r.start(a).unwrap();
    assert!(!r.set_timer(a, MS, 0));
    assert_eq!(r.remaining(a), 3 * MS);
}

#[test]
fn io_watchers_are_level_triggered_and_hear_of_what_they_asked_for() {
    let sim = Sim::new();
    let (t, r) = Test::new(&sim);
    let a = started(&r, WatcherKind::Io { fd: 7, want: R }, 1);
    started(
        &r,
        WatcherKind::Io {
            fd: 7,
            want: R.with(W),
        },
        2,
    );
    t.on(1, |t, e| t.say(format!("{}", e.0)));
    t.on(2, |t, e| t.say(format!("{}", e.0)));
    sim.ready(7, W);
    t.run(RunMode::NoWait);
    assert_eq!(t.said(), "w2 2");
    sim.clear(7, W);
    sim.ready(7, R);
    t.run(RunMode::NoWait);
    t.run(RunMode::NoWait);
    assert_eq!(t.said(), "w1 1 w2 1 w1 1 w2 1");
    r.stop(a);
    sim.ready(7, Readiness::HUP);
    t.run(RunMode::NoWait);
    assert_eq!(t.said(), "w2 3", "a hang-up is both directions");
    assert!(r.set_io(a, 8, W) && r.io(a) == Some((8, W)));
}

#[test]
fn a_closed_descriptor_is_an_error_event_of_an_inactive_watcher() {
    let sim = Sim::new();
    let (t, r) = Test::new(&sim);
    sim.bad(9);
    let a = started(&r, WatcherKind::Io { fd: 9, want: R }, 1);
    assert!(!r.is_active(a) && r.is_pending(a));
    t.on(1, |t, e| t.say(format!("{:x}", e.0)));
    t.run(RunMode::NoWait);
    assert_eq!(t.said(), "w1 80000003");
}

#[test]
fn a_descriptor_that_cannot_be_polled_is_ready_in_every_iteration() {
    let sim = Sim::new();
    let (t, r) = Test::new(&sim);
    sim.unpollable(5);
    let a = started(&r, WatcherKind::Io { fd: 5, want: R }, 1);
    t.run(RunMode::Once);
    t.run(RunMode::Once);
    r.stop(a);
    assert!(!t.run(RunMode::Once));
    assert_eq!(t.said(), "w1 w1");
}

#[test]
fn callbacks_may_stop_and_remove_what_is_pending() {
    let sim = Sim::new();
    let (t, r) = Test::new(&sim);
    let a = started(&r, timer(1), 1);
    let b = started(&r, timer(1), 2);
    let c = started(&r, timer(1), 3);
    t.on(1, move |t, _| {
        t.r().remove(b);
        t.r().stop(c);
        t.r().remove(a);
        let d = t.r().add(timer(2), 4);
        t.r().start(d).unwrap();
    });
    assert!(!t.run(RunMode::Default));
    assert_eq!(t.said(), "sleep w1 sleep w4");
    assert!(r.start(a).is_err(), "a removed watcher is unknown");
}

#[test]
fn the_queue_is_drained_with_what_it_adds_and_the_run_ends_after_it() {
    let sim = Sim::new();
    let (t, r) = Test::new(&sim);
    t.on(1000, |t, _| {
        t.r().push(Entry::Call(2));
        t.r().push(Entry::Wake(Token(9), Wake::Event));
    });
    r.push(Entry::Call(0));
    r.push(Entry::Call(1));
    assert_eq!(r.queue_len(), 2);
    assert!(!t.run(RunMode::Default));
    assert_eq!(t.said(), "c0 c1 c2 9:Event");
}

#[test]
fn a_timer_ends_a_run_of_one_iteration_however_late_that_begins_to_sleep() {
    // Of many timers that are far away only a time is known before which none is due.
    for late in (0..100).map(|n| n * 100 * MS) {
        let sim = Sim::new();
        let (t, r) = Test::new(&sim);
        for _ in 0..50 {
            started(&r, timer(10_000), 7);
        }
        r.push(Entry::Call(0));
        t.on(1000, {
            let sim = sim.clone();
            move |_, _| sim.pass(late)
        });
        t.run(RunMode::Once);
        let said = t.said();
        assert!(
            said.starts_with("c0 sleep") && said.ends_with(" w7"),
            "{late}: {said}"
        );
    }
}

#[test]
fn what_belongs_to_an_entry_follows_it_and_changes_no_number() {
    let sim = Sim::new();
    let (t, r) = Test::new(&sim);
    let mut numbers = Vec::new();
    for call in 0..4 {
        r.push(Entry::Call(call));
        numbers.push(r.last_number());
    }
    // Before the queue is drained, and while the entry itself or an earlier one runs.
    r.push_after(numbers[1], Entry::Call(10));
    t.on(1000, {
        let numbers = numbers.clone();
        move |t, _| {
            t.r().push_after(numbers[2], Entry::Call(20));
            t.r().push_after(numbers[1], Entry::Call(11));
            t.r().push_after(numbers[2], Entry::Call(21));
            t.r().push_after(numbers[0], Entry::Call(5));
            t.r().push_after(t.r().last_number(), Entry::Call(30));
        }
    });
    t.on(1010, {
        let numbers = numbers.clone();
        move |t, _| {
            t.r().push_after(numbers[1], Entry::Call(12));
            // That one is over.
            t.r().push_after(numbers[0], Entry::Call(40));
        }
    });
    assert_eq!(r.queue_len(), 5);
    assert!(!t.run(RunMode::Default));
    assert_eq!(t.said(), "c0 c5 c1 c10 c11 c12 c2 c20 c21 c3 c30 c40");
    assert_eq!(r.queue_len(), 0);
}

#[test]
fn a_queue_that_never_ends_lets_descriptors_and_timers_in() {
    let sim = Sim::new();
    let (t, r) = Test::new(&sim);
    let again = sim.clone();
    t.on(1000, move |t, _| {
        again.pass(MS / 10);
        t.r().push(Entry::Call(0));
    });
    r.push(Entry::Call(0));
    started(&r, timer(20), 1);
    started(&r, WatcherKind::Io { fd: 3, want: R }, 2);
    sim.ready_at(7 * MS, 3, R);
    t.on(2, |t, _| t.say(format!("@{}", t.r().now() / MS)));
    t.on(1, |t, _| t.r().break_(false));
    assert!(t.run(RunMode::Default));
    let said = t.said();
    assert!(said.ends_with("w1") || said.contains("w1 w2"), "{said}");
    assert!(
        said.contains("w2 @10"),
        "polled after each 5 ms of callbacks: {said}"
    );
    assert!(!said.contains("sleep"));
}

#[test]
fn break_one_ends_the_inner_run_and_break_all_both() {
    for (all, rest) in [(false, "w1 w2 in out w3"), (true, "w1 w2 in")] {
        let sim = Sim::new();
        let (t, r) = Test::new(&sim);
        for (data, ms) in [(1, 0), (2, 1), (3, 2)] {
            started(&r, timer(ms), data);
        }
        t.on(1, |t, _| {
            assert_eq!(t.r().depth(), 1);
            t.run(RunMode::Default);
            t.say("in");
        });
        t.on(2, move |t, _| {
            assert_eq!(t.r().depth(), 2);
            t.r().break_(all);
        });
        t.on(3, |_, _| ());
        t.run(RunMode::Default);
        let said = t.said().replace("sleep ", "");
        assert_eq!(said, rest.replace("out ", ""));
        assert_eq!(r.depth(), 0);
    }
}

#[test]
fn the_loop_may_be_destroyed_inside_a_callback() {
    let sim = Sim::new();
    let (t, r) = Test::new(&sim);
    started(&r, timer(1), 1);
    started(&r, timer(1), 2);
    r.push(Entry::Call(0));
    t.on(1, |t, _| t.r().destroy());
    assert!(!t.run(RunMode::Default));
    assert_eq!(t.said(), "c0 sleep w1");
    assert!(r.is_destroyed() && r.active_count() == 0);
    assert!(!r.run(&*t, RunMode::Default).unwrap());
    let id = r.add(timer(1), 0);
    assert_eq!(r.start(id).unwrap_err().raw_os_error(), Some(libc::EBADF));
    assert!(!r.remote().push(Entry::Call(1)));
    r.destroy();
}

#[test]
fn a_destroy_inside_the_queue_ends_the_run() {
    let sim = Sim::new();
    let (t, r) = Test::new(&sim);
    t.on(1000, |t, _| t.r().destroy());
    r.push(Entry::Call(0));
    r.push(Entry::Call(1));
    assert!(!t.run(RunMode::Default));
    assert_eq!(t.said(), "c0");
}

#[test]
fn the_host_can_end_a_run() {
    let sim = Sim::new();
    let (t, r) = Test::new(&sim);
    started(
        &r,
        WatcherKind::Timer {
            after: MS,
            repeat: MS,
        },
        1,
    );
    t.on(1, |t, _| t.quit.set(true));
    assert!(t.run(RunMode::Default));
    assert_eq!(t.said(), "sleep w1");
}

#[test]
fn who_watches_a_descriptor_hears_that_it_is_closed() {
    let sim = Sim::new();
    let (t, r) = Test::new(&sim);
    let io = |fd| WatcherKind::Io { fd, want: R };
    let (a, b) = (started(&r, io(4), 1), started(&r, io(4), 2));
    let timer = started(&r, timer(1), 3);
    assert!(r.feed_fd(4));
    assert!(!r.feed_fd(5) && !r.feed_fd(-1) && !r.feed_fd(1 << 20));
    r.stop(timer);
    t.run(RunMode::NoWait);
    let mut said: Vec<String> = t.said().split(' ').map(String::from).collect();
    said.sort();
    assert_eq!(said, ["w1", "w2"]);
    r.stop(a);
    assert!(r.set_io(a, 6, R) && !r.feed_fd(6));
    r.start(a).unwrap();
    assert!(r.feed_fd(6) && r.feed_fd(4));
    r.remove(b);
    assert!(!r.feed_fd(4));
    r.remove(a);
    assert!(!r.feed_fd(6));
    // Room for each number below this would be gigabytes.
    let idle = WatcherKind::Io {
        fd: RawFd::MAX,
        want: Readiness::NONE,
    };
    let idle = started(&r, idle, 4);
    assert!(!r.feed_fd(RawFd::MAX));
    r.remove(idle);
}

#[test]
fn lag_is_how_long_callbacks_kept_the_loop_from_its_next_poll() {
    let sim = Sim::new();
    let (t, r) = Test::new(&sim);
    started(&r, timer(1000), 1);
    let clock = sim.clone();
    t.on(1001, move |_, _| clock.pass(300 * MS));
    r.push(Entry::Call(1));
    r.push(Entry::Call(1));
    t.run(RunMode::Default);
    // The sleep of 400 ms until the timer is none. The turn in which the timer fired has not ended.
    assert_eq!(
        (r.statistics().lag, r.statistics().lag_max),
        (600 * MS, 600 * MS)
    );

    // What the thread does between two runs is none either; a timer that is late by it is.
    sim.pass(5000 * MS);
    t.run(RunMode::NoWait);
    assert_eq!(r.statistics().lag, 0);
    started(&r, timer(10), 2);
    sim.pass(17 * MS);
    t.run(RunMode::NoWait);
    assert_eq!(r.statistics().lag, 7 * MS);
    assert_eq!(r.statistics().lag_max, 600 * MS);
}

#[test]
fn a_wait_for_what_a_sleep_gave_away_is_lag_of_the_next_turn() {
    let sim = Sim::new();
    let (t, r) = Test::new(&sim);
    started(&r, timer(10), 1);
    started(&r, timer(200), 2);
    t.dear.set(Some((sim.clone(), 50 * MS)));
    t.run(RunMode::Once);
    assert_eq!(r.statistics().lag, 50 * MS);
    t.run(RunMode::Once);
    assert!(r.statistics().lag_max >= 50 * MS);
}
