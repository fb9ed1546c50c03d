//! The timer wheel against a sorted map: every timer fires once, in order, never early, never late.

#![no_main]

use gevent_hub_core::timer::{Due, Next, TimerKey, Timers};
use libfuzzer_sys::fuzz_target;
use std::collections::BTreeMap;

/// Reads numbers of up to eight bytes from the input; zeros after its end.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// A span of time: from nanoseconds to years, so that every level of the wheel is met.
    fn span(&mut self) -> u64 {
        let shift = self.byte().unwrap_or(0) % 56;
        u64::from(self.byte().unwrap_or(0)) << shift
    }
}

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let mut now = input.span();
    let mut timers = Timers::new(now);
    // (deadline, order of start) -> its key
    let mut model: BTreeMap<(u64, u64), TimerKey> = BTreeMap::new();
    let mut started = 0_u64;
    while let Some(what) = input.byte() {
        match what % 4 {
            0 | 1 => {
                started += 1;
                let deadline = now.saturating_add(input.span());
                let due = Due { tag: what, word: started };
                model.insert((deadline, started), timers.start(deadline, due));
            }
            2 => {
                let place = usize::from(input.byte().unwrap_or(0));
                if let Some((&id, &key)) = model.iter().nth(place) {
                    assert_eq!(timers.deadline(key), Some(id.0));
                    assert_eq!(timers.stop(key).map(|due| due.word), Some(id.1));
                    assert_eq!(timers.stop(key), None);
                    model.remove(&id);
                }
            }
            _ => {
                match (timers.next(), model.keys().next()) {
                    (Next::Never, first) => assert_eq!(first, None),
                    (Next::At(at), first) => assert_eq!(Some(at), first.map(|id| id.0)),
                    (Next::NotBefore(at), Some(first)) => assert!(at <= first.0),
                    (Next::NotBefore(_), None) => panic!("nothing is pending"),
                }
                now = now.saturating_add(input.span());
                timers.advance(now);
                while let Some((key, deadline, due)) = timers.pop(now) {
                    let (id, expected) = model.pop_first().expect("one more than was started");
                    assert_eq!((deadline, due.word), id);
                    assert!(key == expected && deadline <= now);
                }
                assert!(model.keys().next().is_none_or(|id| id.0 > now));
            }
        }
        assert_eq!(timers.len(), model.len());
    }
});
