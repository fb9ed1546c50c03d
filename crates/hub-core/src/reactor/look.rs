//! Looking for events before a sleep.
//!
//! A sleep lets other threads run: the embedder gives its lock up, and takes it again. That is wasted when the
//! events are there already, so a loop for which they mostly are polls without a sleep first. One for which
//! they mostly are not would pay a system call for nothing, and get what comes meanwhile in smaller batches.

use super::Nanos;
use std::cell::Cell;

/// For how many nanoseconds a loop may go on without a sleep, in which other threads have their turn
/// (`Host::before_sleep`).
const TURN: Nanos = 1_000_000;
/// A sleep is dear when it took longer than this to get back from it: other threads keep the embedder's lock for
/// as long as they may, which is 5 ms in CPython.
const DEAR: Nanos = 1_000_000;
/// While sleeps are dear, how long is waited for events without one.
const WAIT: Nanos = 100_000;
/// So many sleeps are without a look at first.
const FIRST: u8 = 3;

/// What is known of the sleeps of a loop.
pub(super) struct Looks {
    /// When the last one was over.
    slept: Cell<Nanos>,
    /// Whether it took long to get back from that.
    dear: Cell<bool>,
    /// How many sleeps go without a look after one: half as many after each that found something, four times as
    /// many, up to 255, after each that did not.
    pause: Cell<u8>,
    /// How many of them are left.
    left: Cell<u8>,
}

impl Looks {
    pub(super) fn new() -> Self {
        Looks {
            slept: Cell::new(0),
            dear: Cell::new(false),
            pause: Cell::new(FIRST),
            left: Cell::new(FIRST),
        }
    }

    /// For how long, in nanoseconds, to wait for events at `now` before a sleep; `None` for no look.
    #[inline]
    pub(super) fn before_sleep(&self, now: Nanos) -> Option<Nanos> {
        if now.saturating_sub(self.slept.get()) >= TURN {
            return None;
        }
        if self.dear.get() {
            return Some(WAIT);
        }
        let left = self.left.get();
        self.left.set(left.saturating_sub(1));
        (left == 0).then_some(0)
    }

    /// What a look has come to.
    #[inline]
    pub(super) fn told(&self, found: bool) {
        if self.dear.get() {
            return;
        }
        let pause = self.pause.get();
        let pause = if found {
            pause / 2
        } else {
            pause.saturating_mul(4).saturating_add(3)
        };
        self.pause.set(pause);
        self.left.set(pause);
    }

    /// A sleep ended at `woke`, and other threads let go at `now`.
    #[inline]
    pub(super) fn slept(&self, woke: Nanos, now: Nanos) {
        self.slept.set(now);
        self.dear.set(now - woke > DEAR);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of `n` sleeps had a look, of which each found something or not.
    fn looks_of(looks: &Looks, n: u32, found: bool) -> u32 {
        (0..n)
            .filter(|_| {
                let look = looks.before_sleep(0) == Some(0);
                if look {
                    looks.told(found);
                }
                look
            })
            .count() as u32
    }

    #[test]
    fn it_looks_where_that_finds_something() {
        let looks = Looks::new();
        assert_eq!(looks_of(&looks, 104, true), 100);
        assert_eq!(looks_of(&looks, 1000, false), 4 + 1000 / 256);
        // One that finds something by chance is no reason for many.
        assert!(looks_of(&looks, 1000, false) <= 4);
        assert!(looks_of(&looks, 1000, true) > 600, "{}", looks.pause.get());
        assert_eq!(looks_of(&looks, 100, true), 100);
    }

    #[test]
    fn others_have_their_turn() {
        let looks = Looks::new();
        assert_eq!(looks.before_sleep(TURN), None);
        looks.slept(TURN, TURN);
        looks.left.set(0);
        assert_eq!(looks.before_sleep(TURN + 1), Some(0));
        looks.slept(TURN, TURN + DEAR + 1);
        assert_eq!(looks.before_sleep(TURN + DEAR + 2), Some(WAIT));
        looks.told(false);
        assert_eq!(looks.before_sleep(TURN + DEAR + 3), Some(WAIT));
        assert_eq!(looks.before_sleep(2 * TURN + DEAR + 1), None);
    }
}
