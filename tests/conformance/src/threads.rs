//! Other threads: sends to async watchers, entries for the queue. Not for virtual time, which would not wait.

use crate::support::*;
use gevent_hub_core::reactor::{Entry, RunMode, Token, Wake, WatcherKind};
use std::cell::RefCell;
use std::rc::Rc;
use std::thread;

/// `ev_async_send` from several threads wakes a loop that sleeps.
pub fn async_sends_come_from_other_threads(make: MakeReactor) {
    let t = Recorder::new(make);
    let ids: Vec<_> = (0..3).map(|n| t.start(WatcherKind::Async, n)).collect();
    let seen = Rc::new(RefCell::new([0; 3]));
    for (n, id) in ids.iter().copied().enumerate() {
        let seen = seen.clone();
        t.on(n, move |t, _| {
            seen.borrow_mut()[n] += 1;
            t.reactor.stop(id);
        });
    }
    let threads: Vec<_> = ids
        .iter()
        .map(|id| {
            let handle = t.reactor.async_handle(*id).unwrap();
            thread::spawn(move || (0..100).for_each(|_| handle.send()))
        })
        .collect();
    assert!(!t.run(RunMode::Default));
    threads.into_iter().for_each(|t| t.join().unwrap());
    assert_eq!(*seen.borrow(), [1; 3]);
}

/// Entries pushed by threads all arrive, in the order of each thread.
pub fn remote_entries_wake_a_sleeping_loop(make: MakeReactor) {
    let t = Recorder::new(make);
    let threads: Vec<_> = (0..3)
        .map(|n| {
            let remote = t.reactor.remote();
            thread::spawn(move || {
                for i in 0..200 {
                    assert!(remote.push(Entry::Wake(Token(n * 1000 + i), Wake::Event)));
                }
            })
        })
        .collect();
    crate::trace::unordered();
    let said = t.run_until(600);
    threads.into_iter().for_each(|t| t.join().unwrap());
    for n in 0..3u64 {
        let of: Vec<u64> = said
            .split(' ')
            .map(|s| s.trim_end_matches(":Event").parse().unwrap())
            .filter(|v| v / 1000 == n)
            .collect();
        assert_eq!(of, (n * 1000..n * 1000 + 200).collect::<Vec<_>>());
    }
}

/// Threads push entries, send to watchers and wake without more, all at once: every entry arrives.
pub fn a_storm_of_wakes_loses_nothing(make: MakeReactor) {
    crate::trace::unordered();
    let t = Recorder::new(make);
    let id = t.start(WatcherKind::Async, 1);
    t.reactor.set_ref(id, false);
    let threads: Vec<_> = (0..6u64)
        .map(|n| {
            let remote = t.reactor.remote();
            let handle = t.reactor.async_handle(id).unwrap();
            thread::spawn(move || {
                for i in 0..300 {
                    handle.send();
                    if i % 3 == 0 {
                        assert!(remote.push(Entry::Wake(Token(n * 1000 + i), Wake::Event)));
                    } else {
                        remote.wake();
                    }
                }
            })
        })
        .collect();
    let mut all = Vec::new();
    while all.len() < 600 {
        let said = t.run_until(1);
        all.extend(
            said.split(' ')
                .filter_map(|w| w.strip_suffix(":Event")?.parse::<u64>().ok()),
        );
    }
    threads.into_iter().for_each(|t| t.join().unwrap());
    all.sort_unstable();
    let pushed = (0..6).flat_map(|n| (0..300).step_by(3).map(move |i| n * 1000 + i));
    assert_eq!(all, pushed.collect::<Vec<_>>());
}
