//! The order of what one poll brings, so that it is the same on every loop.
//!
//! What becomes pending last runs first (`ev_invoke_pending`), so of descriptors that were ready at once the one
//! which the kernel named last comes first, as upstream. Two things are not left to the kernel: the watchers of
//! one descriptor run in the order in which they were started, as libev's list of them has it, and fibers that
//! wait for descriptors go before the callbacks of watchers.

use super::watchers::Spec;
use super::{Class, Reactor, WatcherId};
use crate::event_loop::Event;
use std::cmp::Reverse;
use std::collections::HashMap;
use std::os::fd::RawFd;

fn watcher(event: &Event) -> Option<WatcherId> {
    match event {
        Event::Ready(key, _) => match Class::of(*key) {
            (Class::Watcher, key) => Some(WatcherId(key)),
            _ => None,
        },
        _ => None,
    }
}

impl Reactor {
    /// Brings events into the order in which they are to become pending.
    pub(super) fn order(&self, events: &mut Vec<Event>) {
        match events.iter().filter(|e| watcher(e).is_some()).count() {
            0 => return,
            1 if events.len() == 1 => return,
            _ => {}
        }
        let (mut first, rest): (Vec<_>, Vec<_>) =
            events.drain(..).partition(|e| watcher(e).is_some());
        if first.len() > 1 {
            self.order_watchers(&mut first);
        }
        events.append(&mut first);
        events.extend(rest);
    }

    /// Keeps the order of descriptors, and brings each one's watchers into that of their starts, youngest first.
    fn order_watchers(&self, events: &mut Vec<Event>) {
        let mut places: HashMap<RawFd, usize> = HashMap::with_capacity(events.len());
        let mut shared = false;
        let mut ranked: Vec<(usize, Reverse<u64>, Event)> = self.watchers.with(|w| {
            let mut rank = |event: &Event| {
                let id = watcher(event)?;
                let Some(Spec::Io { fd, .. }) = w.spec(id) else {
                    return None;
                };
                let next = places.len();
                let place = *places.entry(*fd).or_insert(next);
                shared |= place != next;
                Some((place, Reverse(w.started(id))))
            };
            let all = events.drain(..);
            all.map(|e| {
                let (place, started) = rank(&e).unwrap_or((usize::MAX, Reverse(0)));
                (place, started, e)
            })
            .collect()
        });
        if shared {
            ranked.sort_by_key(|(place, started, _)| (*place, *started));
        }
        events.extend(ranked.into_iter().map(|(_, _, event)| event));
    }
}
